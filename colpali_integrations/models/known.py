"""The models that are known by name: one description each, and the checkpoints that were trained with the same prompts.

A new row is followed by `python docs/model_table.py`. Query prompts are exactly the strings of the training: that of
ColPali changed three times between releases of colpali-engine.
"""

from __future__ import annotations

from dataclasses import replace

from colpali_integrations.models.builder.files import ADAPTER_CONFIG, ADAPTER_FILE, INDEX_FILE, WEIGHTS_FILE
from colpali_integrations.models.description import ModelDescription

__all__ = ["KNOWN_MODELS", "TRAINED_AS"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PALIGEMMA_FILES = (
    *("model.onnx_data", *_TOKENIZER_FILES),
    *("preprocessor_config.json", "processor_config.json", "config.json"),
)
_NEOMME_FILES = (*_TOKENIZER_FILES, "processor_config.json", "chat_template.jinja", "config.json")
_QWEN2_VL_FILES = (*_TOKENIZER_FILES, "preprocessor_config.json", "processor_config.json", "config.json")
_PPLX_LATE_FILES = (
    *(*_QWEN2_VL_FILES, "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("1_Dense/config.json", "1_Dense/model.safetensors", "2_MultiVectorMask/config.json", "3_Normalize/config.json"),
)
_IDEFICS3_FILES = (*_TOKENIZER_FILES, "preprocessor_config.json", "processor_config.json", "config.json")
_ULTRAVBERT_FILES = (
    *(*_IDEFICS3_FILES, "chat_template.jinja", "config_sentence_transformers.json"),
    *("modules.json", "sentence_bert_config.json"),
)
_V1 = "README of illuin-tech/colpali"
_NEOMME_SOURCE = "model cards of Hcompany/NeoMME-260M-Retriever and -800M-Retriever, arXiv:2609.01657"
_V3 = "ViDoRe V3, arXiv:2601.08620, means of its 8 public sets by the results repository of mteb (f4cc6c8)"

_COLPALI = ModelDescription(
    name="Qdrant/colpali-v1.3-fp16",
    family="paligemma",
    repository="Qdrant/colpali-v1.3-fp16",
    dim=128,
    additional_files=_PALIGEMMA_FILES,
    query_prefix="<bos>Query: ",
    query_suffix="<pad>" * 10 + "\n",
    image_prompt="<image><bos>Describe the image.\n",
    parameters=2_923_000_000,
    size_in_bytes=6_500_000_000,
    license="gemma",
    vidore=(("v1 nDCG@5", 84.8), ("v3 nDCG@10, English", 47.5), ("six languages", 43.0)),
    vidore_source=f"{_V1}; {_V3}",
    summary="The best of these on hard pages, where 8 GB of memory and a GPU (or patience) are at hand.",
)
# From the model cards and transformers' documentation, second-hand: repositories, figures, sizes and `max_side`. Not
# verified on the files themselves: that each has one model.safetensors, of bfloat16. Their prompts are read from their
# chat template; that of transformers' tests has "<query>", the text and ten "<mask>".
_NEOMME = ModelDescription(
    name="Hcompany/NeoMME-260M-Retriever",
    family="neomme",
    repository="Hcompany/NeoMME-260M-Retriever",
    dim=128,
    dense_dim=1024,
    model_file="model.safetensors",
    additional_files=_NEOMME_FILES,
    parameters=263_000_000,
    size_in_bytes=540_000_000,
    license="Apache-2.0",
    vidore=(("v1 nDCG@5", 86.0), ("v2 nDCG@5", 52.2), ("v3 nDCG@10, six languages", 52.3)),
    vidore_source=_NEOMME_SOURCE,
    summary="Many languages on CPUs, and texts beside pages in one ranking. Try precision='int8' and max_side=1440.",
)
# Figures from the results of mteb, sizes from its tables. Not verified on the files themselves: sizes of the downloads,
# and the licence of Qwen2.5-VL-3B, which allows research only, while the adapters' own cards say Apache-2.0. The query
# prompt is that of colpali-engine 0.3.2 to 0.3.12, with which they were trained by their dates (its repository's
# history).
_COLQWEN2 = ModelDescription(
    name="vidore/colqwen2-v1.0",
    family="qwen2_vl",
    repository="vidore/colqwen2-v1.0",
    dim=128,
    model_file=ADAPTER_FILE,
    additional_files=(*_QWEN2_VL_FILES, ADAPTER_CONFIG),
    query_prefix="Query: ",
    query_suffix="<|endoftext|>" * 10,
    image_prompt="<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    parameters=2_210_000_000,
    size_in_bytes=4_500_000_000,
    license="Apache-2.0",
    vidore=(
        *(("v1 nDCG@5", 89.2), ("v2 nDCG@5", 56.0)),
        *(("v3 nDCG@10, English", 48.3), ("six languages", 44.2)),
    ),
    vidore_source=f"results repository of mteb (f4cc6c8); {_V3}",
    summary="For indexes of ColQwen2; a page has at most 768 tokens, fewer by max_num_visual_tokens.",
)
_COLQWEN2_5 = replace(
    _COLQWEN2,
    name="vidore/colqwen2.5-v0.2",
    repository="vidore/colqwen2.5-v0.2",
    parameters=3_750_000_000,
    size_in_bytes=7_600_000_000,
    license="Apache-2.0, base Qwen research",
    vidore=(
        *(("v1 nDCG@5", 89.5), ("v2 nDCG@5", 60.1)),
        *(("v3 nDCG@10, English", 55.6), ("six languages", 52.4)),
    ),
    summary="For indexes of ColQwen2.5; ColNomic is better at the same cost.",
)
# Prompts, limits and modules from public descriptions of the repository's files; its own figures; sizes from mteb's
# tables. The files themselves were not at hand.
_PPLX_LATE = ModelDescription(
    name="perplexity-ai/pplx-embed-v2-late-0.6b",
    family="qwen3_5",
    repository="perplexity-ai/pplx-embed-v2-late-0.6b",
    dim=128,
    model_file=WEIGHTS_FILE,
    additional_files=_PPLX_LATE_FILES,
    query_prefix="[Q] ",
    image_prompt="[D] <|vision_start|><image><|vision_end|>",
    max_query_tokens=1023,  # and the prompt
    space="pplx-embed-v2-late",
    parameters=594_000_000,
    size_in_bytes=2_380_000_000,
    license="MIT",
    vidore=(("v3 nDCG@10, six languages", 62.3),),
    vidore_source="model card of perplexity-ai/pplx-embed-v2-late-0.6b and -9b",
    summary=(
        "Hard pages in many languages on CPUs, and texts beside pages. Its queries also search an index of the 9B."
    ),
)
# Prompts from colpali-engine's class, by which mteb runs them; figures and sizes from mteb's results and tables, and
# the model cards. The files themselves were not at hand.
_VULTRON = ModelDescription(
    name="vultr/VultronRetrieverFlash-Qwen3.5-0.8B",
    family="qwen3_5",
    repository="vultr/VultronRetrieverFlash-Qwen3.5-0.8B",
    dim=320,
    model_file=WEIGHTS_FILE,
    additional_files=_QWEN2_VL_FILES,
    query_suffix="<|endoftext|>" * 10,
    image_prompt="<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    parameters=853_000_000,
    size_in_bytes=1_710_000_000,
    license="Apache-2.0",
    vidore=(
        *(("v1 nDCG@5", 88.2), ("v2 nDCG@5", 60.4)),
        *(("v3 nDCG@10, English", 58.3), ("six languages", 56.5)),
    ),
    vidore_source=f"results repository of mteb (f4cc6c8); {_V3}",
    summary="As pplx-embed-v2-late-0.6b, and behind it, with larger vectors.",
)
# Figures from the results of mteb and sizes from its tables; the licence of Nemotron from its card. Prompts from the
# code in the repositories, as mteb and others copied it; the files themselves were not at hand.
_COLQWEN3 = ModelDescription(
    name="TomoroAI/tomoro-colqwen3-embed-4b",
    family="qwen3_vl",
    repository="TomoroAI/tomoro-colqwen3-embed-4b",
    dim=320,
    model_file=INDEX_FILE,  # or one file: `hub.with_named_files` asks the repository
    additional_files=_QWEN2_VL_FILES,
    query_suffix="<|endoftext|>" * 10,
    image_prompt="<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    max_num_visual_tokens=1280,
    parameters=4_400_000_000,
    size_in_bytes=8_900_000_000,
    license="Apache-2.0",
    vidore=(
        *(("v1 nDCG@5", 90.6), ("v2 nDCG@5", 64.7)),
        *(("v3 nDCG@10, English", 62.2), ("six languages", 60.2)),
    ),
    vidore_source=f"results repository of mteb (f4cc6c8); {_V3}",
    summary="Hard pages in many languages, with a GPU or patience.",
)
_OPS = replace(
    _COLQWEN3,
    name="OpenSearch-AI/Ops-Colqwen3-4B",
    repository="OpenSearch-AI/Ops-Colqwen3-4B",
    dim=2560,
    query_prefix="Query: ",
    image_prompt=(
        "<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|>"
        "<|im_start|>assistant\n<|endoftext|>"
    ),
    max_num_visual_tokens=None,
    parameters=4_440_000_000,
    vidore=(
        *(("v1 nDCG@5", 91.4), ("v2 nDCG@5", 68.7)),
        *(("v3 nDCG@10, English", 63.2), ("six languages", 61.3)),
    ),
    summary="Its vectors may be cut: dim=320 or less takes an eighth of the space or less.",
)
_SAUERKRAUT = replace(
    _COLQWEN3,
    name="VAGOsolutions/SauerkrautLM-ColQwen3-1.7b-Turbo-v0.1",
    repository="VAGOsolutions/SauerkrautLM-ColQwen3-1.7b-Turbo-v0.1",
    dim=128,
    query_prefix="Query: ",
    max_num_visual_tokens=None,
    parameters=1_700_000_000,
    size_in_bytes=3_400_000_000,
    vidore=(("v3 nDCG@10, English", 55.4), ("six languages", 48.8)),
    summary="The smallest on Qwen3-VL, for German and other languages of Europe.",
)
_NEMOTRON = replace(
    _COLQWEN3,
    name="nvidia/nemotron-colembed-vl-4b-v2",
    repository="nvidia/nemotron-colembed-vl-4b-v2",
    dim=2560,
    query_prefix="<|im_start|>user\nQuery: query: ",
    query_suffix="<|im_end|>\n<|im_start|>assistant\n",
    image_prompt=(
        "<|im_start|>user\n<|vision_start|><image><|vision_end|>passage: <|im_end|>\n<|im_start|>assistant\n"
    ),
    max_num_visual_tokens=None,
    parameters=4_830_000_000,
    size_in_bytes=9_700_000_000,
    license="CC-BY-NC-4.0",
    vidore=(("v3 nDCG@10, six languages", 61.4),),
    summary="For research only; 2,560 numbers per vector, eight times as many as Tomoro's.",
)
KNOWN_MODELS = (
    ModelDescription(
        name="coltiny",
        family="coltiny",
        dim=128,
        revision="sha256:438334eb7225",  # content_revision of its files
        model_file="image.onnx",
        additional_files=("text.onnx", "senses.npz", "config.json"),
        unit_length=False,
        best_match=1.0727654394476893,  # of its config.json, see models.coltiny.texts.best_match
        auto_hybrid=True,  # benchmarks/results/fusion.md
        low_relevance=0.15,  # tests/test_doubtful.py: the demo's questions, and questions of other subjects
        parameters=7_030_000,
        size_in_bytes=10_500_000,
        license="Apache-2.0",
        summary="Prototypes, tests, notebooks and machines without a network: it is inside the package. Latin script.",
    ),
    _NEOMME,
    replace(
        _NEOMME,
        name="Hcompany/NeoMME-800M-Retriever",
        repository="Hcompany/NeoMME-800M-Retriever",
        dense_dim=1792,
        parameters=794_000_000,
        size_in_bytes=1_600_000_000,
        vidore=(("v1 nDCG@5", 87.4), ("v2 nDCG@5", 55.9), ("v3 nDCG@10, six languages", 55.6)),
        summary="As NeoMME-260M, and better, at three times the work per page.",
    ),
    _COLPALI,
    _COLQWEN2,
    _COLQWEN2_5,
    replace(
        _COLQWEN2_5,
        name="nomic-ai/colnomic-embed-multimodal-3b",
        repository="nomic-ai/colnomic-embed-multimodal-3b",
        vidore=(
            *(("v1 nDCG@5", 89.9), ("v2 nDCG@5", 55.7)),
            *(("v3 nDCG@10, English", 58.7), ("six languages", 56.4)),
        ),
        summary="Hard pages in many languages, with a GPU or patience.",
    ),
    replace(
        _COLQWEN2_5,
        name="nomic-ai/colnomic-embed-multimodal-7b",
        repository="nomic-ai/colnomic-embed-multimodal-7b",
        parameters=8_290_000_000,
        size_in_bytes=16_800_000_000,
        license="Apache-2.0",
        vidore=(
            *(("v1 nDCG@5", 89.7), ("v2 nDCG@5", 60.2)),
            *(("v3 nDCG@10, English", 59.4), ("six languages", 57.6)),
        ),
        summary="The best of Qwen2.5-VL in many languages, where a GPU is at hand.",
    ),
    _COLQWEN3,
    replace(
        _COLQWEN3,
        name="TomoroAI/tomoro-colqwen3-embed-8b",
        repository="TomoroAI/tomoro-colqwen3-embed-8b",
        parameters=8_770_000_000,
        size_in_bytes=17_500_000_000,
        vidore=(
            *(("v1 nDCG@5", 90.8), ("v2 nDCG@5", 65.4)),
            *(("v3 nDCG@10, English", 63.6), ("six languages", 61.6)),
        ),
        summary="As the 4B, and better, at twice the work per page.",
    ),
    _OPS,
    _SAUERKRAUT,
    replace(
        _SAUERKRAUT,
        name="VAGOsolutions/SauerkrautLM-ColQwen3-8b-v0.1",
        repository="VAGOsolutions/SauerkrautLM-ColQwen3-8b-v0.1",
        parameters=8_150_000_000,
        size_in_bytes=16_300_000_000,
        vidore=(("v1 nDCG@5", 91.1), ("v3 nDCG@10, English", 61.5), ("six languages", 58.5)),
        summary="Small vectors from a large model, for German and other languages of Europe.",
    ),
    _NEMOTRON,
    replace(
        _NEMOTRON,
        name="nvidia/nemotron-colembed-vl-8b-v2",
        repository="nvidia/nemotron-colembed-vl-8b-v2",
        dim=4096,
        parameters=8_770_000_000,
        size_in_bytes=17_500_000_000,
        vidore=(("v3 nDCG@10, English", 64.4), ("six languages", 63.5)),
        summary="For research only, the best of these; 4,096 numbers per vector.",
    ),
    _PPLX_LATE,
    replace(
        _PPLX_LATE,
        name="perplexity-ai/pplx-embed-v2-late-9b",
        repository="perplexity-ai/pplx-embed-v2-late-9b",
        model_file=INDEX_FILE,  # or one file
        parameters=8_390_000_000,
        size_in_bytes=33_600_000_000,
        vidore=(("v3 nDCG@10, six languages", 65.2),),
        summary="The best of these in many languages: an index of it, made on a GPU, is searched by the 0.6B on CPUs.",
    ),
    _VULTRON,
    replace(
        _VULTRON,
        name="vultr/VultronRetrieverCore-Qwen3.5-4.5B",
        repository="vultr/VultronRetrieverCore-Qwen3.5-4.5B",
        model_file=INDEX_FILE,
        parameters=4_540_000_000,
        size_in_bytes=9_080_000_000,
        vidore=(("v1 nDCG@5", 92.2), ("v2 nDCG@5", 66.1), ("v3 nDCG@10, six languages", 63.7)),
        summary="Hard pages in many languages, with a GPU.",
    ),
    replace(
        _VULTRON,
        name="vultr/VultronRetrieverPrime-Qwen3.5-8B",
        repository="vultr/VultronRetrieverPrime-Qwen3.5-8B",
        model_file=INDEX_FILE,
        parameters=8_390_000_000,
        size_in_bytes=16_800_000_000,
        vidore=(("v3 nDCG@10, six languages", 64.7),),
        summary="As VultronRetrieverCore, and better, at twice the work per page.",
    ),
    replace(
        _VULTRON,
        name="athrael-soju/colqwen3.5-4.5B-v3",
        repository="athrael-soju/colqwen3.5-4.5B-v3",
        model_file=INDEX_FILE,
        dim=128,
        parameters=4_540_000_000,
        size_in_bytes=9_080_000_000,
        vidore=(("v3 nDCG@10, six languages", 61.6),),
        summary="The model before VultronRetrieverCore, with smaller vectors.",
    ),
    ModelDescription(
        name="Qdrant/colmodernvbert",
        family="idefics3",
        repository="Qdrant/colmodernvbert",
        dim=128,
        model_file="model_v2.onnx",
        additional_files=_IDEFICS3_FILES,
        query_suffix="<end_of_utterance>" * 10,
        image_prompt="<|begin_of_text|>User:<image>Describe the image.<end_of_utterance>\nAssistant:",
        parameters=252_000_000,
        size_in_bytes=1_000_000_000,
        license="MIT",
        vidore=(("v3 nDCG@10, English", 44.3), ("six languages", 26.1)),
        vidore_source=_V3,
        summary="English questions on CPUs: close to ColPali at a twelfth of its size; not in other languages.",
    ),
    # Licence, sizes and dims from the model card and mteb 2.26.24; the figure is second-hand. Not verified on the files
    # themselves: that the weights are one file, whether a linear layer follows the backbone, and the chat template.
    ModelDescription(
        name="athrael-soju/ColUltraVBERT",
        family="ultravbert",
        repository="athrael-soju/ColUltraVBERT",
        dim=768,
        model_file="model.safetensors",
        additional_files=_ULTRAVBERT_FILES,
        parameters=254_679_552,
        size_in_bytes=510_000_000,
        license="MIT",
        vidore=(("v1's InfoVQA alone, nDCG@5", 89.5),),
        vidore_source="model card of athrael-soju/ColUltraVBERT",
        summary="Six languages of Europe on CPUs; dim=128 cuts its vectors to a sixth. No mean over ViDoRe is known.",
    ),
    replace(
        _COLPALI,
        name="AndrewOgn/colpali-v1.3-merged-onnx",
        repository="AndrewOgn/colpali-v1.3-merged-onnx",
        size_in_bytes=5_850_000_000,
        summary="ColPali v1.3 in another export, for those who have it already.",
    ),
    replace(
        _COLPALI,
        name="akshayballal/colpali-v1.2-merged-onnx",
        repository="akshayballal/colpali-v1.2-merged-onnx",
        query_prefix="<bos>Question: ",
        size_in_bytes=5_850_000_000,
        vidore=(("v1 nDCG@5", 83.9),),
        vidore_source=_V1,
        summary="The checkpoint before v1.3, for indexes that were made with it.",
    ),
)

# Original checkpoints that run from their safetensors, and a registered export or adapter of each, with the prompts of
# its training. From the releases of colpali-engine (tests/parity/README.md); the repositories' files were not at hand.
TRAINED_AS = {
    **{f"vidore/colpali-v1.3{kind}": "Qdrant/colpali-v1.3-fp16" for kind in ("", "-merged", "-hf")},
    **{f"vidore/colpali-v1.2{kind}": "akshayballal/colpali-v1.2-merged-onnx" for kind in ("", "-merged", "-hf")},
    **dict.fromkeys(("vidore/colpali", "vidore/colpali-v1.1"), "akshayballal/colpali-v1.2-merged-onnx"),
    "ModernVBERT/colmodernvbert": "Qdrant/colmodernvbert",
    "vidore/colqwen2-v1.0-merged": "vidore/colqwen2-v1.0",
    **dict.fromkeys(
        (f"VAGOsolutions/SauerkrautLM-ColQwen3-{size}-v0.1" for size in ("2b", "4b")),
        "VAGOsolutions/SauerkrautLM-ColQwen3-1.7b-Turbo-v0.1",
    ),
}
