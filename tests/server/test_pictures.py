"""Pictures for the search page: their width and format, and heatmaps of the words of a question."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from colpali_integrations.explain import draw_heatmap
from colpali_integrations.explain.drawing import heat_layer
from colpali_integrations.pages import page_image
from colpali_integrations.stores import Hit
from tests.server.conftest import Running, Start
from tests.server.test_documents import ended

QUESTION = "diverging palettes"


@pytest.fixture
def hit(served: Running) -> Hit:
    return served.store.search(QUESTION, 1)[0]


def get(server: Running, id_: str, what: str = "image", **query: Any) -> httpx.Response:
    return server.client.get(f"/v1/pages/{id_}/{what}", params=query)


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_picture_has_the_width_and_the_format_that_are_asked_for(served: Running, hit: Hit) -> None:
    answer = get(served, hit.id, width=400, format="jpeg")
    image = opened(answer)
    assert (answer.headers["content-type"], image.format) == ("image/jpeg", "JPEG")
    whole = page_image(hit.entry.metadata)
    assert image.width == 400
    assert image.height == pytest.approx(400 * whole.height / whole.width, abs=1)
    # The same page: its brightness per part is that of the original.
    parts = [np.asarray(one.convert("L").resize((8, 8), Image.Resampling.BOX), float) for one in (image, whole)]
    assert np.abs(parts[0] - parts[1]).max() < 6
    assert opened(get(served, hit.id, width=4096)).width <= 4096  # at most 300 dpi
    assert opened(get(served, hit.id, width=400, dpi=20)).width < 200


def test_a_large_image_is_made_smaller_and_a_small_one_is_not_made_larger(start: Start) -> None:
    server, buffer = start(), io.BytesIO()
    Image.new("RGB", (1000, 500), "teal").save(buffer, "PNG")
    sent = server.client.post("/v1/documents", files={"file": ("a.png", buffer.getvalue())})
    assert ended(server.client, sent)["state"] == "done"
    [entry] = server.store.scroll()
    assert opened(get(server, entry.id, width=300)).size == (300, 150)
    assert opened(get(server, entry.id, width=2000)).size == (1000, 500)


def test_a_heatmap_is_that_of_the_package(served: Running, hit: Hit) -> None:
    vectors, tokens = served.service.model.embed_query(QUESTION), served.service.model.query_tokens(QUESTION)
    maps = served.store.similarity_maps(vectors, [hit.id], tokens=tokens)[hit.id]
    page = page_image(hit.entry.metadata, dpi=40)
    for word in ("palettes", None):
        query = {} if word is None else {"word": word}
        image = opened(get(served, hit.id, dpi=40, heatmap=QUESTION, **query))
        assert image.convert("RGB").tobytes() == draw_heatmap(page, maps, word).tobytes()
        layer = opened(get(served, hit.id, "heatmap", query=QUESTION, **query))
        assert layer.mode == "RGBA"
        assert layer.tobytes() == heat_layer(maps, word, size=layer.size).tobytes()
        assert max(layer.size) == 240
        assert layer.width / layer.height == pytest.approx(page.width / page.height, rel=0.03)
    # The heat of a word lies in its box.
    boxes = served.store.regions(vectors, [hit.id], tokens=tokens)[hit.id]
    [left, top, right, bottom] = next(one["box"] for one in boxes if one["token"] == "palettes")
    heat = opened(get(served, hit.id, "heatmap", query=QUESTION, word="palettes"))
    y, x = np.unravel_index(np.asarray(heat)[..., 3].argmax(), (heat.height, heat.width))
    assert left - 0.02 < (x + 0.5) / heat.width < right + 0.02
    assert top - 0.02 < (y + 0.5) / heat.height < bottom + 0.02


@pytest.mark.parametrize(
    ("what", "query", "message"),
    [
        ("image", {"width": "8"}, "width must be a whole number from 16 to 4096, got '8'"),
        ("image", {"width": "1.5"}, "width must be"),
        ("image", {"width": "٣٠٠"}, "width must be"),
        ("image", {"format": "gif"}, "format must be one of png, jpeg, got 'gif'"),
        ("image", {"heatmap": " "}, "heatmap must be a question"),
        ("image", {"heatmap": QUESTION, "word": "tide"}, "has no token 'tide'; it has: 'diverging', 'palettes'"),
        ("heatmap", {}, "query must be a question"),
        ("heatmap", {"query": "a" * 40_000}, "query must have at most 32,768 characters, got 40,000"),
        ("heatmap", {"query": QUESTION, "word": ""}, "word must be a word of the question"),
        ("heatmap", {"query": QUESTION, "word": "tide"}, "has no token 'tide'"),
    ],
)
def test_a_wrong_option_is_refused(what: str, query: dict[str, str], message: str, served: Running, hit: Hit) -> None:
    answer = get(served, hit.id, what, **query)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_an_unknown_page_has_no_heatmap(served: Running) -> None:
    answer = get(served, "unknown", "heatmap", query=QUESTION)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_page")


def test_a_search_tells_which_pages_have_no_picture(served: Running) -> None:
    body = {"query": QUESTION, "k": 1, "pictures": True}
    [hit] = served.client.post("/v1/search", json=body).json()["hits"]
    assert hit["picture_error"] is None
    # Other pages' reasons: test_search_page.py.
    assert "picture_error" not in served.client.post("/v1/search", json={"query": QUESTION}).json()["hits"][0]


def test_documents_have_names_for_readers(start: Start, served: Running) -> None:
    server, buffer = start(), io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    sent = server.client.post("/v1/documents", files={"file": ("../größe.png", buffer.getvalue())})
    job = ended(server.client, sent)
    document = {"document_id": job["document_id"], "name": "größe.png", "uploaded": True, "pages": 1}
    assert server.client.get("/v1/documents").json() == {"documents": [document], "next_cursor": None}
    [indexed] = served.client.get("/v1/documents").json()["documents"]
    assert (indexed["name"], indexed["uploaded"], indexed["pages"]) == ("report.pdf", False, 2)
