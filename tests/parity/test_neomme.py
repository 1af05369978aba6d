"""NeoMME, built from safetensors, against transformers' classes: ids, pixels, and vectors by distance to float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.models.builder.neomme import page_positions
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.resizing import page_size
from colpali_integrations.pages.images import load_image

from .bounds import CEILING, FLOOR, MEAN_TIMES, TIMES
from .cases import EMBEDDED_QUERIES, LONG_PAGE, PAGES, TEXTS, Page, draw, page_named
from .conftest import FIXTURES, Golden
from .measures import directions, few_rows, fingerprint, runs

Load = Callable[..., ColPali]
Vectors = NDArray[np.float32]
NAMES = ["neomme", "neomme-float32"]
SAMPLED = 5  # of the generator


@cache
def family() -> Family:
    description = describe_folder(FIXTURES / "neomme")
    return family_class(description.family)(description, FIXTURES / "neomme")


@cache
def distances(model: ColPali, name: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each case and part: our distance to float64, and that of the reference's float32."""
    golden = _golden(name)
    found = {}
    for case, ours in _outputs(model, golden):
        theirs = golden.facts["distances"][case]
        found[case] = {
            part: (float(np.abs(values - golden.arrays[f"{case}/{part}"]).max()), theirs[part])
            for part, values in ours.items()
        }
    return found


def _golden(name: str) -> Golden:
    from .conftest import load_golden

    return load_golden(name)


def _outputs(model: ColPali, golden: Golden) -> Iterator[tuple[str, dict[str, NDArray[np.floating]]]]:
    for case in golden.facts["distances"]:
        kind, key = case.split("/")
        if kind == "page":
            page = LONG_PAGE if key == LONG_PAGE.name else page_named(key)
            [rows], [dense] = model.embed_images([draw(page)]), model.embed_images_dense([draw(page)])
        elif kind == "query":
            text = EMBEDDED_QUERIES[int(key)]
            [rows], [dense] = model.embed_queries([text]), model.embed_queries_dense([text])
        else:
            text = (*TEXTS, TEXTS[-1] * 4)[int(key)]
            [rows], [dense] = model.embed_texts([text]), model.embed_texts_dense([text])
        projection = rows.astype(np.float64) @ directions(rows.shape[1]).astype(np.float64)
        yield case, {"rows": rows[few_rows(len(rows))], "projection": projection, "dense": dense}


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_as_close_to_float64_as_the_reference(load: Load, name: str) -> None:
    found = distances(load(name), name)
    assert len(found) >= 20
    assert any(case.startswith("text/3") for case in found) == (name == "neomme")  # longer than every window
    too_far = {
        (case, part): pair
        for case, parts in found.items()
        for part, pair in parts.items()
        if pair[0] > min(max(FLOOR, TIMES * pair[1]), CEILING)
    }
    assert too_far == {}
    ours, theirs = np.array([pair for parts in found.values() for pair in parts.values()]).mean(axis=0)
    assert ours <= MEAN_TIMES * theirs


def test_queries_in_batches_are_as_alone(load: Load) -> None:
    model = load("neomme")
    texts = [*EMBEDDED_QUERIES, *EMBEDDED_QUERIES[::-1]]
    together = list(model.embed_queries(texts, batch_size=64))
    for text, vectors in zip(texts, together, strict=True):
        np.testing.assert_allclose(vectors, model.embed_query(text), rtol=0, atol=2e-6)


def test_pages_in_batches_are_as_alone(load: Load) -> None:
    model = load("neomme")
    pages = [draw(page_named(name)) for name in ("small", "exact-512", "small", "grey", "exact-512")]
    for page, vectors in zip(pages, model.embed_images(pages, batch_size=4), strict=True):
        [alone] = model.embed_images([page])
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("task", ["queries", "texts"])
def test_ids(task: str) -> None:
    wanted = _golden("neomme").facts[task]
    codec = family().queries if task == "queries" else family().texts
    assert {text: codec.prepare(text).ids.tolist() for text in wanted} == wanted


@pytest.mark.parametrize("page", [*PAGES, LONG_PAGE], ids=lambda page: page.name)
def test_ids_and_places_of_pages(page: Page) -> None:
    wanted = _golden("neomme").facts["pages"][page.name]
    prepared = family().pages.prepare(load_image(draw(page)))
    assert runs(prepared.ids.tolist()) == wanted["ids"]
    rows, columns, _ = prepared.extra
    assert [runs(axis.tolist()) for axis in page_positions(rows, columns)] == wanted["positions"]


@pytest.mark.parametrize("page", [*PAGES, LONG_PAGE], ids=lambda page: page.name)
def test_pixels_of_pages_that_are_not_resized(page: Page) -> None:
    wanted = _golden("neomme").facts["pages"][page.name]
    found = fingerprint(family().pages.prepare(load_image(draw(page))).pixels)
    assert found["shape"] == wanted["shape"]
    if page_size(page.width, page.height, max_side=2048) == (page.width, page.height):
        assert found == {key: wanted[key] for key in found}


@pytest.mark.parametrize("name", ["a4-portrait", "letter-landscape", "odd", "tall", "wide"])
def test_resized_pixels_are_within_a_grey_level(name: str) -> None:
    """The reference resizes with torchvision, which rounds as Pillow but for a level here and there."""
    from dataclasses import replace

    description = replace(describe_folder(FIXTURES / "neomme"), max_side=320)
    codec = family_class("neomme")(description, FIXTURES / "neomme").pages
    pixels = codec.prepare(load_image(draw(page_named(name)))).pixels
    assert list(pixels.shape) == _golden("neomme").facts["resized"][name]
    levels = np.rint(pixels * 127.5 + 127.5).astype(np.int64).reshape(-1)[::SAMPLED]
    with np.load(FIXTURES / "neomme" / "resized.npz") as wanted:
        apart = np.abs(levels - wanted[name].astype(np.int64))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.02


@pytest.mark.parametrize("name", ["a4-portrait", "odd"])
def test_reduced_pages_keep_their_vectors(load: Load, name: str) -> None:
    """A page of fewer pixels has other patches; its vectors have length 1 and its grid covers it."""
    model = ColPali.from_pretrained(FIXTURES / "neomme", max_side=320, threads=1)
    [page] = model.embed_pages([draw(page_named(name))])
    np.testing.assert_allclose(np.linalg.norm(page.vectors, axis=1), 1, rtol=0, atol=1e-5)
    assert max(page.grid.rows, page.grid.columns) == 10
    assert page.grid.box(len(page.grid) - 2)[3] == 1.0  # type: ignore[index]
    assert model.description.fingerprint != load("neomme").description.fingerprint


def test_the_fixtures_are_hard_enough() -> None:
    """A golden that hardly depends on the page, or a text within the shortest window, would prove nothing."""
    golden = _golden("neomme")
    first, second = (golden.arrays[f"page/{name}/rows"] for name in ("a4-portrait", "square"))
    assert np.abs(first - second).max() > 0.05
    assert len(golden.arrays["text/3/projection"]) > 1024
    assert len(golden.arrays[f"page/{LONG_PAGE.name}/projection"]) > 1024
    assert (Path(FIXTURES) / "neomme" / "model.safetensors.index.json").is_file()
