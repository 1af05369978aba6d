"""ColUltraVBERT: Idefics3's tiles, at most 27 of them, and prompts from the checkpoint's chat template.

    page:   a message with a picture: tiles and a view of the whole as in `idefics3`    longest edge 3072
    query:  a message with the text

A page that would become more tiles is scaled to a longest edge of 512 pixels less, until it fits. Vectors have 768
numbers, of which the first 128, 256, 320 or 512 may stand for all. (transformers 5.24 `UltraVBertModel`,
`UltraVBertImageProcessor`; sentence-transformers 6.2 `MultiVectorEncoder`.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.checkpoint_graph import checkpoint_graphs
from colpali_integrations.models.builder.config import part_of
from colpali_integrations.models.builder.idefics3 import Idefics3
from colpali_integrations.models.chat_template import PICTURE, Prompt, special_tokens, template_prompt
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.idefics3 import Idefics3Pages, edge_size, tiled_size
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.models.saved_prompts import SavedPrompts
from colpali_integrations.models.sentence_transformers import Modules
from colpali_integrations.models.transformer import QueryCodec, TransformerFamily, image_settings
from colpali_integrations.models.unsupported import describe_by_hand

__all__ = ["UltraVBertFamily", "UltraVBertPages"]

# The lengths to which the vectors may be cut, of the published 768 (model card of athrael-soju/ColUltraVBERT, and its
# entry in mteb).
_CUTS = (128, 256, 320, 512)
# Of image processors that do not say it.
_MOST_TILES = 27
_NO_LIMIT = int(np.iinfo(np.int32).max)


class UltraVBertFamily(TransformerFamily):
    """UltraVBERT bound to the files of one checkpoint."""

    def __init__(self, description: ModelDescription, directory: Path, *, base: Path | None = None) -> None:
        model = Idefics3(read_json(base or directory, "config.json"), description.dim)
        modules = Modules.read(directory) or Modules(None, None, None, {})
        _check_dim(description, modules.dim or model.width)
        vocabulary = Vocabulary(directory)
        query, text, page = _prompts(description, directory)
        begin = special_tokens(directory).get("bos_token")
        kept = {task: modules.kept(task, vocabulary) for task in ("query", "document")}
        pages = UltraVBertPages(
            replace(description, image_prompt=PICTURE.join(page)),
            directory,
            vocabulary,
            model.feed,
            kept=kept["document"],
            template=_framed(page, begin),
        )

        def codec(prompt: Prompt, task: str, length: int | None, kind: str) -> QueryCodec:
            framed = _framed(prompt, begin)
            made = QueryCodec(
                vocabulary,
                _with_prompt(description, vocabulary, prompt, length, template=framed),
                blank_pixels=(1, 3, pages.tile, pages.tile),
                template=framed,
                inputs=model.feed,
                kept=kept[task],
                kind=kind,
            )
            made.check_seams(description.name)
            return made

        queries = codec(query, "query", modules.query_length, "query")
        built = checkpoint_graphs(model, directory, description, base)
        super().__init__(description, directory, queries=queries, pages=pages, built=built)
        self.texts = codec(text, "document", modules.document_length or _NO_LIMIT, "text")

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Take the width of the text model for the length of a vector, where no linear layer follows it."""
        width = part_of(config, "text_config").get("hidden_size")
        return replace(base, dim=width) if isinstance(width, int) and width > 0 else base


class UltraVBertPages(Idefics3Pages):
    """Pages: as of `Idefics3Pages`, with a limit of tiles, resized as torchvision does."""

    defaults: ClassVar[Mapping[str, Any]] = {"size": {"longest_edge": 3072}}
    fused: ClassVar[bool] = True

    def __init__(self, description: ModelDescription, directory: Path, *args: Any, **options: Any) -> None:
        super().__init__(description, directory, *args, **options)
        settings, _ = image_settings(directory)
        self._most_tiles = int(settings.get("max_image_tiles", _MOST_TILES))

    def resized(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The picture at another width and height, across first, as torchvision does (see `neomme.NeoMMEPages`)."""
        across = super().resized(image, (size[0], image.height))
        return super().resized(across, size)

    def longest_edge(self, width: int, height: int) -> int:
        """The longest edge with which a page of this size has few enough tiles, in pixels."""
        longest = super().longest_edge(width, height)
        while longest > self.tile and self._count(width, height, longest) > self._most_tiles:
            longest -= self.tile
        return longest

    def _count(self, width: int, height: int, longest: int) -> int:
        """Tiles of a page, without the view of the whole."""
        return math.prod(tiled_size(*edge_size(width, height, longest), self.tile)) // self.tile**2


def _framed(prompt: Prompt, begin: str | None) -> bool:
    """Whether the tokenizer's own template goes around a prompt: not where it begins as the template would."""
    return begin is None or not prompt.prefix.startswith(begin)


def _with_prompt(
    description: ModelDescription, vocabulary: Vocabulary, prompt: Prompt, length: int | None, *, template: bool
) -> ModelDescription:
    """A description with a prompt, and room for a text in what a length of the whole leaves."""
    described = replace(description, query_prefix=prompt.prefix, query_suffix=prompt.suffix)
    if length is None:
        return described
    taken = vocabulary.prompt_ids(prompt.prefix + prompt.suffix, template=template)
    return replace(described, max_query_tokens=max(1, length - len(taken)))


def _check_dim(description: ModelDescription, width: int) -> None:
    cuts = [size for size in _CUTS if size < width]
    if description.dim not in (width, *cuts):
        shorter = f"; its training permits {', '.join(map(str, cuts))} too" if cuts else ""
        raise ModelLoadError(f"{description.name} makes vectors of {width} numbers, got dim={description.dim}{shorter}")


def _prompts(description: ModelDescription, directory: Path) -> tuple[Prompt, Prompt, Prompt]:
    """What stands around a query, a text and a page: the description's prompts, else the chat template's.

    Raises:
        ModelLoadError: neither has them, or the template fails.
    """
    if description.query_prefix or description.query_suffix or description.image_prompt:
        before, _, after = description.image_prompt.partition(PICTURE)
        page = Prompt(before, after)
        return Prompt(description.query_prefix, description.query_suffix), page, page
    saved = SavedPrompts(directory)
    rendered = (
        template_prompt(directory, "query", system=saved.query),
        template_prompt(directory, "document", system=saved.document),
        template_prompt(directory, "document", system=saved.document, picture=True),
    )
    if None in rendered:
        raise describe_by_hand(
            f"{directory} has no chat template, so its prompts are unknown. Download chat_template.jinja if it has one",
            f"register_model(ModelDescription(name='my-model', family='ultravbert', dim={description.dim}, "
            f"model_file={description.model_file!r}, query_prefix='...', query_suffix='...', "
            "image_prompt='...<image>...'))",
        )
    return cast("tuple[Prompt, Prompt, Prompt]", rendered)
