"""ColUltraVBERT, from its safetensors, against sentence-transformers' class: ids, pixels, and vectors in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.idefics3 import edge_size, tiled_size
from colpali_integrations.models.ultravbert import UltraVBertPages
from colpali_integrations.pages.images import load_image

from .bounds import check, measured
from .cases import EMBEDDED_QUERIES, PAGES, TEXTS, Page, draw, page_named
from .conftest import FIXTURES, OLDER_PILLOW, PILLOW_13, load_golden
from .measures import fingerprint, runs

Load = Callable[..., ColPali]
NAMES = ["colultravbert", "colultravbert-dense"]
SAMPLED = 97  # of the generator

# The reference cuts queries of the second one to 40 tokens, without a word.
pytestmark = pytest.mark.filterwarnings("ignore:a (query|text) of:UserWarning")


@cache
def family(name: str) -> Family:
    description = describe_folder(FIXTURES / name)
    return family_class(description.family)(description, FIXTURES / name)


def outputs(model: ColPali, name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for case in load_golden(name).facts["distances"]:
        kind, key = case.split("/")
        if kind == "query":
            yield case, model.embed_query(EMBEDDED_QUERIES[int(key)])
        elif kind == "text":
            yield case, next(model.embed_texts([TEXTS[int(key)]]))
        elif not OLDER_PILLOW:
            yield case, next(model.embed_images([draw(page_named(key))]))


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_as_close_to_float64_as_the_reference(load: Load, name: str) -> None:
    pairs = measured(load_golden(name), outputs(load(name), name))
    assert len(pairs) >= 20
    check(pairs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["queries", "texts"])
def test_ids(name: str, task: str) -> None:
    wanted = load_golden(name).facts[task]
    codec = family(name).queries if task == "queries" else family(name).texts
    assert {text: codec.prepare(text).ids.tolist() for text in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_ids_and_pixels_of_pages(name: str, page: Page) -> None:
    wanted = load_golden(name).facts["pages"][page.name]
    prepared = family(name).pages.prepare(load_image(draw(page)))
    assert runs(prepared.ids.tolist()) == wanted["ids"]
    assert list(prepared.pixels.shape) == wanted["shape"]
    if not OLDER_PILLOW:
        assert fingerprint(prepared.pixels) == {key: wanted[key] for key in ("shape", "sha256", "samples")}


@PILLOW_13
@pytest.mark.parametrize("name", ["letter-landscape", "odd", "tall", "grey"])
def test_resized_pixels_are_nearly_those_of_torchvision(name: str) -> None:
    """Each of the two or three resizings of a page rounds 1% of the pixels by one level otherwise (see NeoMME's)."""
    pixels = family("colultravbert").pages.prepare(load_image(draw(page_named(name)))).pixels
    levels = np.rint(pixels * 127.5 + 127.5).astype(np.int64).reshape(-1)[::SAMPLED]
    with np.load(FIXTURES / "colultravbert" / "resized.npz") as wanted:
        apart = np.abs(levels - wanted[name].astype(np.int64))
    assert apart.max() <= 2
    assert (apart > 0).mean() < 0.03
    assert (apart > 1).mean() < 0.001


def test_grids_of_pages() -> None:
    """The tiles of pages of many sizes, by the defaults of the class."""
    pages = family("colultravbert").pages
    assert isinstance(pages, UltraVBertPages)
    pages._longest_edge, pages._most_tiles = 3072, 27
    try:
        for width, height, rows, columns in load_golden("colultravbert").facts["grids"]:
            size = tiled_size(*edge_size(width, height, pages.longest_edge(width, height)), pages.tile)
            tiles = size[1] // pages.tile, size[0] // pages.tile
            assert (tiles if tiles != (1, 1) else (0, 0)) == (rows, columns), (width, height)
    finally:
        family.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_as_alone(load: Load, name: str) -> None:
    model = load(name)
    texts = [*EMBEDDED_QUERIES, *EMBEDDED_QUERIES[::-1]]
    for text, vectors in zip(texts, model.embed_queries(texts, batch_size=64), strict=True):
        np.testing.assert_allclose(vectors, model.embed_query(text), rtol=0, atol=5e-6)
    pages = [draw(page_named(page)) for page in ("small", "grey", "small")]
    for page, vectors in zip(pages, model.embed_images(pages, batch_size=2), strict=True):
        [alone] = model.embed_images([page])
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=5e-6)


def test_the_fixtures_are_hard_enough() -> None:
    """A golden that hardly depends on the page, or texts within every window, would prove nothing."""
    golden = load_golden("colultravbert")
    first, second = (golden.arrays[f"page/{name}/rows"] for name in ("small", "grey"))
    assert np.abs(first - second).max() > 0.05
    assert len(golden.arrays["text/2/projection"]) > 2 * 100 + 1
    assert len(load_golden("colultravbert-dense").arrays["text/2/projection"]) > 2 * 30 + 1
