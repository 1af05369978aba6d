"""The tools of agents: what each answers, its size, and errors that an agent can act on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.agents.documents import beginnings
from colpali_integrations.agents.found import SEEMS_UNANSWERED
from colpali_integrations.agents.tools import Answer, PageTools
from colpali_integrations.errors import ColPaliError
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.stores import Entry, MultiVectorStore, index_documents
from colpali_integrations.stores.current import CurrentStore
from tests.conftest import few_pages

QUESTION = "diverging palettes"


def asked(tools: PageTools, name: str, **arguments: Any) -> Answer:
    return tools.shown(tools.call(name, arguments))


def failed(tools: PageTools, name: str, **arguments: Any) -> str:
    with pytest.raises(ColPaliError) as caught:
        tools.call(name, arguments)
    return str(caught.value)


def test_documents_are_listed_with_the_first_words_of_their_pages(tools: PageTools, library: Path) -> None:
    answer = asked(tools, "list_documents")
    listed = answer.structured or {}
    assert (listed["total"], listed["next_cursor"]) == (2, None)
    assert [(one["name"], one["pages"], one["page_count"]) for one in listed["documents"]] == [
        ("geyser.pdf", 3, 3),
        ("report.pdf", 2, 2),
    ]
    assert listed["documents"][1]["source"] == str(library / "report.pdf")
    report = listed["documents"][1]["map"]
    with MultiVectorStore.open(library / "index", read_only=True) as store:
        texts = {entry.page: entry.text for entry in store.scroll({"file_name": "report.pdf"})}
    for line in report:
        begins = line["begins"].rstrip("…")
        assert 20 <= len(begins) <= 80 and begins in " ".join(texts[line["page"]].split())
    text = answer.parts[0].text
    assert "2 documents in the index." in text and f"  2: {report[1]['begins']}" in text


def test_a_long_list_comes_in_parts_and_each_document_once(tmp_path: Path, coltiny: ColPali) -> None:
    with MultiVectorStore.open(tmp_path / "index", model=coltiny) as store:
        [vectors] = coltiny.embed_texts(["tide"])
        entries = [
            Entry(
                id=f"{number} {page}",
                text=f"Words of page {page}",
                document_id=f"/data/{number:03}.pdf",
                metadata={"source": f"/data/{number:03}.pdf", "page": page},
            )
            for number in range(45)
            for page in range(1, 3)
        ]
        entries += [
            Entry(
                id=f"long {page}",
                document_id="long",
                text=f"Words of {page}",
                metadata={"source": "long", "page": page},
            )
            for page in range(3, 254)
        ]
        store.add([(entry, vectors) for entry in entries])
        tools = PageTools(CurrentStore(store))
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            listed = asked(tools, "list_documents", cursor=cursor).structured or {}
            seen += [one["document"] for one in listed["documents"]]
            cursor = listed["next_cursor"]
        assert cursor is None and seen == [*(f"/data/{number:03}.pdf" for number in range(45)), "long"]
        pages: list[int] = []
        for _ in range(3):
            listed = asked(tools, "list_documents", document="long", cursor=cursor).structured or {}
            pages += [line["page"] for line in listed["documents"][0]["map"]]
            cursor = listed["next_cursor"]
        assert cursor is None and pages == list(range(3, 254))
        assert "next_cursor" in failed(tools, "list_documents", document="long", cursor="soon")
        assert (
            failed(tools, "read_page", document="long", page=1)
            == "the index has no page 1 of long; it has the pages 3 to 253"
        )
        text = asked(tools, "read_page", document="long", page=250, last_page=260, format="text")
        assert "Not all of the pages 250 to 260 are in the index" in text.parts[-1].text


def test_running_heads_are_no_first_words() -> None:
    pages = [f"Journal of Tides, page {page}\n{page}\n{words}" for page, words in enumerate(("Low", "High", "Neap"))]
    assert beginnings(pages) == ["Low", "High", "Neap"]
    assert beginnings(["Same\nSame", "Same"]) == ["Same Same", "Same"]
    assert beginnings(["x " * 100])[0] == "x " * 39 + "x…"


def test_the_best_page_comes_first_with_its_picture_and_its_text(tools: PageTools, library: Path) -> None:
    answer = asked(tools, "search_pages", question=QUESTION, k=3)
    assert len(answer.parts) == 3
    first = answer.parts[0]
    assert first.text.startswith("1. report.pdf, page 1 of 2 (relevance 0.")
    assert f"document '{library / 'report.pdf'}" in first.text
    assert "diverging" in first.text.casefold()
    for part in answer.parts:
        assert part.picture and max(part.picture.size) >= 1000
        assert max(Image.open(io.BytesIO(part.picture.content)).size) >= 1000


@pytest.mark.parametrize("k", [3, 5])
def test_an_answer_has_at_most_400_kb_as_json(tools: PageTools, k: int) -> None:
    answer = asked(tools, "search_pages", question="colors of palettes in figures", k=k)
    blocks = [[part.text, part.picture.base64 if part.picture else ""] for part in answer.parts]
    assert len(blocks) == k and all(picture for _, picture in blocks)
    assert len(json.dumps(blocks).encode()) <= 400_000


def test_a_search_without_pictures_and_within_a_document(tools: PageTools) -> None:
    answer = asked(tools, "search_pages", question=QUESTION, document="geyser.pdf", images=False)
    assert {part.text.split(",")[0].split(". ")[1] for part in answer.parts} == {"geyser.pdf"}
    assert not any(part.picture for part in answer.parts)


def test_a_search_whose_pages_seem_not_to_fit_says_so_first(tools: PageTools) -> None:
    first, second, *_ = asked(tools, "search_pages", question="flights from Berlin to Tokyo", images=False).parts
    assert first.text == SEEMS_UNANSWERED
    assert second.text.startswith("1. ")


def test_a_page_as_text_and_as_picture(tools: PageTools) -> None:
    [text] = asked(tools, "read_page", document="report.pdf", page=2, format="text").parts
    assert text.text.startswith("report.pdf, page 2 of 2\n") and "parliament" in text.text.casefold()
    [picture] = asked(tools, "read_page", document="REPORT.pdf", page=2).parts
    assert picture.text == "report.pdf, page 2 of 2" and picture.picture and max(picture.picture.size) == 1568
    several = asked(tools, "read_page", document="geyser.pdf", page=1, last_page=3).parts
    assert [part.text for part in several] == [f"geyser.pdf, page {page} of 3" for page in (1, 2, 3)]
    assert all(part.picture for part in several)


def test_errors_name_what_there_is(tools: PageTools) -> None:
    assert failed(tools, "read_page", document="reprot.pdf", page=1) == (
        "the index has no document 'reprot.pdf'; the closest are 'report.pdf'; list_documents lists its 2 documents"
    )
    assert "the closest are 'geyser.pdf'" in failed(tools, "search_pages", question="x", document="geyser")
    assert failed(tools, "read_page", document="report.pdf", page=3) == (
        "the index has no page 3 of report.pdf; it has the pages 1 to 2"
    )
    assert "it has the pages 1 to 2" in failed(tools, "read_page", document="report.pdf", page=10**30)
    assert "last_page must be at least page, 2, got 1" in failed(tools, "read_page", document="a", page=2, last_page=1)
    assert "page must be a whole number" in failed(tools, "read_page", document="report.pdf", page="one")
    assert "format must be 'image' or 'text'" in failed(tools, "read_page", document="report.pdf", page=1, format="pdf")
    assert "k must be at most 20" in failed(tools, "search_pages", question="x", k=21)
    assert "needs the argument 'question'" in failed(tools, "search_pages", question=None)
    assert "question" in failed(tools, "search_pages", query="x")
    assert "there are list_documents, search_pages, read_page" in failed(tools, "read")
    assert "must contain more than white space" in failed(tools, "search_pages", question="  ")


def test_a_page_outside_of_the_roots_shows_its_text_and_the_option_to_pass(library: Path, coltiny: ColPali) -> None:
    with MultiVectorStore.open(library / "index", model=coltiny, read_only=True) as store:
        tools = PageTools(CurrentStore(store), access=lambda: PageAccess.of(roots=[library / "notes"]))
        [part] = asked(tools, "read_page", document="report.pdf", page=2).parts
        assert part.picture is None
        assert "start the server with --root" in part.text and "parliament" in part.text.casefold()
        assert asked(tools, "read_page", document="geyser.pdf", page=1).parts[0].picture


def test_a_file_that_has_changed_is_not_shown(tmp_path: Path, coltiny: ColPali) -> None:
    few_pages(tmp_path / "a.pdf", [3])
    index_documents([tmp_path / "a.pdf"], model=coltiny, store=tmp_path / "index")
    few_pages(tmp_path / "a.pdf", [7])
    with MultiVectorStore.open(tmp_path / "index", model=coltiny) as store:
        tools = PageTools(CurrentStore(store), access=lambda: PageAccess.of(roots=[tmp_path]))
        [part] = asked(tools, "search_pages", question=QUESTION).parts
        assert part.picture is None and "has changed since it was indexed" in part.text


def test_the_filter_holds_for_all_that_an_agent_asks(library: Path, coltiny: ColPali) -> None:
    with MultiVectorStore.open(library / "index", model=coltiny, read_only=True) as store:
        tools = PageTools(CurrentStore(store), where={"year": 2024})
        assert [one["name"] for one in (asked(tools, "list_documents").structured or {})["documents"]] == ["geyser.pdf"]
        answer = asked(tools, "search_pages", question=QUESTION, k=5, images=False)
        assert answer.parts and not any("report.pdf" in part.text for part in answer.parts)
        [hidden] = [id_ for id_ in store.documents() if "report.pdf" in id_]
        for name in ("report.pdf", hidden, str(library / "report.pdf")):
            assert "has no document" in failed(tools, "read_page", document=name, page=1)
            assert "has no document" in failed(tools, "search_pages", question=QUESTION, document=name)


def test_two_documents_of_one_name_are_told_apart(tmp_path: Path, coltiny: ColPali) -> None:
    [vectors] = coltiny.embed_texts(["tide"])
    with MultiVectorStore.open(tmp_path / "index", model=coltiny) as store:
        for folder in ("a", "b"):
            place = f"/{folder}/tide.pdf"
            metadata = {"source": place, "file_name": "tide.pdf", "page": 1}
            store.add([(Entry(id=folder, text=f"tide {folder}", document_id=place, metadata=metadata), vectors)])
        tools = PageTools(CurrentStore(store))
        message = failed(tools, "read_page", document="tide.pdf", page=1)
        assert "2 documents have the name 'tide.pdf'" in message and "'/a/tide.pdf', '/b/tide.pdf'" in message
        [part] = asked(tools, "read_page", document="/b/tide.pdf", page=1, format="text").parts
        assert part.text == "tide.pdf, page 1\ntide b"


def test_long_texts_end_with_the_next_page_to_read(tmp_path: Path, coltiny: ColPali) -> None:
    [vectors] = coltiny.embed_texts(["tide"])
    entries = [
        Entry(id=str(page), text="x" * 25_000, document_id="long", metadata={"source": "long", "page": page})
        for page in range(1, 6)
    ]
    entries.append(Entry(id="6", text="y" * 70_000, document_id="long", metadata={"source": "long", "page": 6}))
    with MultiVectorStore.open(tmp_path / "index", model=coltiny) as store:
        store.add([(entry, vectors) for entry in entries])
        tools = PageTools(CurrentStore(store))
        parts = asked(tools, "read_page", document="long", page=1, last_page=6, format="text").parts
        assert len(parts) == 3 and "call read_page with page=3" in parts[-1].text
        [whole] = asked(tools, "read_page", document="long", page=6, format="text").parts
        assert "10,000 further characters" in whole.text


def test_an_empty_index_says_so(tmp_path: Path, coltiny: ColPali) -> None:
    with MultiVectorStore.open(tmp_path / "index", model=coltiny) as store:
        tools = PageTools(CurrentStore(store))
        assert "0 documents in the index." in asked(tools, "list_documents").parts[0].text
        assert "No page has anything of this question" in asked(tools, "search_pages", question="tide").parts[0].text
        assert "it has no documents yet" in failed(tools, "read_page", document="a.pdf", page=1)
