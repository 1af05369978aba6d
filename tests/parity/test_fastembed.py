"""fastembed 0.9.1 on the same folders: where it agrees with us, and where and why it does not.

It is no truth of its own: where the two differ, our side is the one that the goldens of torch confirm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastembed
import numpy as np
import pytest
from PIL import Image

from colpali_integrations import ColPali

from .cases import EMBEDDED_QUERIES, draw, page_named
from .conftest import FIXTURES, TOLERANCE, Golden

pytestmark = pytest.mark.filterwarnings("ignore")

Load = Callable[..., ColPali]
# fastembed lets special tokens in a query be special and cuts at 50 tokens; these are neither.
_PLAIN = [query for query in EMBEDDED_QUERIES if "<" not in query and len(query.encode()) < 20]


def _fastembed(name: str, folder: Path) -> Any:
    return fastembed.LateInteractionMultimodalEmbedding(name, specific_model_path=str(folder), threads=2)


@pytest.fixture
def colpali(golden: Callable[[str], Golden], monkeypatch: pytest.MonkeyPatch) -> Any:
    """fastembed's ColPali writes ids of Gemma's vocabulary into every input; the tiny vocabulary has others."""
    from fastembed.late_interaction_multimodal.colpali import ColPali as Theirs

    facts = golden("paligemma").facts
    ids = facts["queries"]["query-newline"]["page"]
    image = [token for token, count in facts["image_prompt_runs"] for _ in range(count)]
    monkeypatch.setattr(Theirs, "QUERY_MARKER_TOKEN_ID", ids[:2])
    monkeypatch.setattr(Theirs, "EMPTY_TEXT_PLACEHOLDER", np.array(image))
    # Its first token is "<s>", a plain token of Gemma's vocabulary, which it then overwrites with <bos>; that only
    # works on a tokenizer without a template.
    folder = FIXTURES / "paligemma"
    model = _fastembed("Qdrant/colpali-v1.3-fp16", folder)
    model.model.tokenizer.post_processor = _no_template()
    return model


def _no_template() -> Any:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])


def test_colpali_queries_agree(load: Load, colpali: Any) -> None:
    ours = list(load("paligemma").embed_queries(_PLAIN))
    for query, vectors in zip(_PLAIN, ours, strict=True):
        [theirs] = colpali.embed_text([query])
        np.testing.assert_allclose(vectors, theirs, rtol=0, atol=TOLERANCE)


def test_colpali_pages_agree(load: Load, colpali: Any, tmp_path: Path) -> None:
    for page in ("a4-portrait", "small", "tall"):
        path = tmp_path / f"{page}.png"
        draw(page_named(page)).save(path)
        [ours] = load("paligemma").embed_images([path])
        [theirs] = colpali.embed_image([path])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def test_colpali_cuts_long_queries_and_their_augmentation(load: Load, colpali: Any) -> None:
    """The known difference: 50 tokens in all, so a long query loses its ten pads; ours keeps all of them."""
    query = "What is the total amount due on the invoice? " * 6
    [ours] = load("paligemma").embed_queries([query])
    [theirs] = colpali.embed_text([query])
    assert len(theirs) == 50 < len(ours)


def test_colpali_takes_spelt_out_tokens_for_special(golden: Callable[[str], Golden], load: Load, colpali: Any) -> None:
    """The known difference: in fastembed a user's "<image>" becomes an image token."""
    image = golden("paligemma").facts["image_prompt_runs"][0][0]
    query = "find the <image> tag"
    [encoded] = colpali.model.tokenize([query])
    assert image in encoded.ids
    assert image not in load("paligemma").family.queries.prepare(query).ids


def test_colmodernvbert_queries_agree(load: Load) -> None:
    theirs = _fastembed("Qdrant/colmodernvbert", FIXTURES / "colmodernvbert")
    queries = [query for query in EMBEDDED_QUERIES if "<" not in query]
    # fastembed pads a batch and drops the padding's rows; we never pad.
    for ours, other in zip(load("colmodernvbert").embed_queries(queries), theirs.embed_text(queries), strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("page", ["tall", "small", "wide"])
def test_colmodernvbert_pages_agree(load: Load, page: str) -> None:
    theirs = _fastembed("Qdrant/colmodernvbert", FIXTURES / "colmodernvbert")
    image: Image.Image = draw(page_named(page))
    [ours] = load("colmodernvbert").embed_images([image])
    [other] = theirs.embed_image([image])
    np.testing.assert_allclose(ours, other, rtol=0, atol=TOLERANCE)
