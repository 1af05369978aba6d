"""The search page in a real browser. An error in its console, or a request to another host, fails each test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.server.settings import ApiKey
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.conftest import few_pages
from tests.pages.test_pdf import simple
from tests.server.browser import ask, chromium, drop, opened
from tests.server.conftest import KEY, Running, Start, cookie_of, wait_until
from tests.server.test_answers import Fake, answering

QUESTION = "diverging palettes"
BOTH = "diverging palettes, and seats in a parliament"
HOSTILE = "<img src=x onerror=alert(1)>'&.pdf"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, served: Running) -> Iterator[Any]:
    with opened(browser, served.url) as page:
        yield page


def loaded(page: Any, selector: str) -> None:
    """Wait until a picture is there."""
    page.wait_for_function("one => document.querySelector(one)?.naturalWidth > 0", arg=selector)


def names(page: Any) -> list[str]:
    return [str(name) for name in page.locator("#document-list .choose .name").all_inner_texts()]


def test_a_pdf_is_dropped_found_with_its_box_and_deleted(browser: Any, start: Start, tmp_path: Path) -> None:
    few_pages(tmp_path / "colours.pdf", [7, 3])
    server = start()
    with opened(browser, server.url) as page:
        page.get_by_role("heading", name="Drop PDFs, images or Office files here").wait_for()
        drop(page, tmp_path / "colours.pdf")
        page.locator("#upload-list .stored").wait_for()
        assert page.locator("#upload-list").inner_text().split("\n") == ["colours.pdf", "2 pages added"]
        page.wait_for_function("() => document.querySelectorAll('#document-list .choose').length === 2")
        assert names(page) == ["All documents", "colours.pdf"]
        ask(page, QUESTION)
        card = page.locator(".card").first
        card.wait_for()
        hit = server.store.search(QUESTION, 1)[0]
        assert hit.entry.page == 2
        assert card.locator("h2").inner_text() == "colours.pdf"
        score = f"Score {hit.score:.2f}"
        assert card.locator(".numbers").inner_text().split("\n") == [
            "Page 2",
            f"Relevance {100 * hit.relevance:.0f} %",
            score,
        ]
        loaded(page, ".card .sheet")
        # The box of the word lies on the picture where the store has it.
        vectors, tokens = server.service.question(QUESTION)
        regions = server.store.regions(vectors, [hit.id], tokens=tokens)[hit.id]
        expected = next(one["box"] for one in regions if one["token"] == "palettes")
        sheet = card.locator(".sheet").bounding_box()
        shown = card.locator(".box[data-word=palettes]").first.bounding_box()
        left, top = (shown["x"] - sheet["x"]) / sheet["width"], (shown["y"] - sheet["y"]) / sheet["height"]
        size = shown["width"] / sheet["width"], shown["height"] / sheet["height"]
        found = [left, top, left + size[0], top + size[1]]
        assert found == pytest.approx(expected, abs=0.005)
        card.locator(".word", has_text="palettes").hover()
        loaded(page, ".card .heat.shown")
        assert "word=palettes" in page.locator(".card .heat.shown").first.get_attribute("src")
        assert "dim" in card.locator(".box[data-word=diverging]").first.get_attribute("class")
        page.locator("#document-list li", has_text="colours.pdf").hover()
        page.get_by_role("button", name="Delete colours.pdf").click()
        dialog = page.get_by_role("alertdialog")
        assert "2 pages will no longer be found. The uploaded file is removed too." in dialog.inner_text()
        dialog.get_by_role("button", name="Keep").click()
        assert len(server.store) == 2
        page.get_by_role("button", name="Delete colours.pdf").click()
        dialog.get_by_role("button", name="Delete").click()
        page.get_by_role("heading", name="Drop PDFs, images or Office files here").wait_for()
        page.locator(".card").first.wait_for(state="detached")
        assert (len(server.store), page.locator(".card").count()) == (0, 0)


def test_pages_that_seem_not_to_fit_are_the_closest(page: Any) -> None:
    ask(page, "flights from Berlin to Tokyo")
    page.get_by_text("No page seems to answer it. These are the closest; try other words.").first.wait_for()
    numbers = page.locator(".card .numbers")
    assert numbers.count() == 2 and not any("Score" in text for text in numbers.all_inner_texts())
    ask(page, QUESTION)
    page.locator("#found-about", has_text="the best first").wait_for()
    assert all("Score" in text for text in numbers.all_inner_texts())


def test_the_keyboard_suffices(page: Any, served: Running) -> None:
    ask(page, BOTH)
    page.locator(".card").nth(1).wait_for()
    assert page.evaluate("document.activeElement.id") == "question"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog")
    first, second = (hit.entry.name for hit in served.store.search(BOTH, 2))
    assert viewer.get_by_role("heading").inner_text() == first
    loaded(page, "#viewer .sheet")
    page.keyboard.press("ArrowRight")
    assert viewer.get_by_role("heading").inner_text() == second
    page.keyboard.press("ArrowRight")  # the last one stays
    assert viewer.locator("#viewer-place").inner_text() == "2 of 2"
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    # The focus moves once the browser has told that the dialog is closed.
    page.wait_for_function("name => document.activeElement.getAttribute('aria-label') === name", arg=f"Open {second}")
    page.keyboard.press("Tab")  # to the words of the page, the heatmaps of which the focus shows
    word = page.evaluate("document.activeElement.innerText")
    loaded(page, f'.card .heat.shown[src*="word={word}"]')
    assert page.locator("#status").get_attribute("role") == "status"


def test_the_large_page_has_its_boxes_heat_and_text(page: Any, served: Running) -> None:
    ask(page, QUESTION)
    page.get_by_role("button", name="Open report.pdf, page 1").click()
    viewer = page.get_by_role("dialog")
    loaded(page, "#viewer .sheet")
    sheet, frame = viewer.locator(".sheet").bounding_box(), viewer.locator(".viewer-page").bounding_box()
    assert sheet["height"] < frame["height"]  # all of the page is in view
    assert sheet["width"] / sheet["height"] == pytest.approx(595 / 842, rel=0.01)
    viewer.get_by_role("button", name="Fit width").click()
    assert viewer.locator(".sheet").bounding_box()["width"] > sheet["width"] * 1.5
    viewer.get_by_role("button", name="all words").click()
    loaded(page, "#viewer .heat.shown")
    viewer.get_by_text("Text of the page").click()
    [hit] = served.store.search(QUESTION, 1)
    assert hit.entry.text.split()[0] in viewer.locator(".text").inner_text()
    viewer.get_by_role("button", name="Close").click()
    assert not viewer.is_visible()


def test_a_document_is_chosen_and_the_address_keeps_the_question(
    browser: Any, start: Start, tmp_path: Path, papers: Path, coltiny: ColPali
) -> None:
    few_pages(tmp_path / "other.pdf", [12])
    path = tmp_path / "index"
    with MultiVectorStore.open(path, model=coltiny) as store:
        index_documents([papers / "report.pdf", tmp_path / "other.pdf"], model=coltiny, store=store)
    server = start(path, roots=[papers])
    with opened(browser, f"{server.url}/#q=palettes%20of%20a%20parliament%20and%20the%20eye") as page:
        page.locator(".card").nth(2).wait_for()
        assert page.locator("#question").input_value() == "palettes of a parliament and the eye"
        # A page whose file is in no folder of the server shows its text, and what to do.
        other = page.locator(".card", has_text="other.pdf")
        assert "Start the server with --root" in other.inner_text()
        text = next(store_entry.text for store_entry in server.store.scroll({"file_name": "other.pdf"}))
        assert text.split()[0] in other.inner_text()
        page.locator("#document-list .choose", has_text="report.pdf").click()
        page.wait_for_function("() => document.querySelectorAll('.card').length === 2")
        assert "2 pages in report.pdf" in page.locator("#found-about").inner_text()
        page.locator("#document-list .choose", has_text="All documents").click()
        page.locator(".card").nth(2).wait_for()
        ask(page, "seats in a parliament")
        page.get_by_role("heading", name="seats in a parliament").wait_for()
        assert page.url.endswith("#q=seats%20in%20a%20parliament")
        page.go_back()
        page.get_by_role("heading", name="palettes of a parliament and the eye").wait_for()


def test_names_and_texts_stay_text(browser: Any, start: Start) -> None:
    drawing = b"BT /F1 12 Tf 10 40 Td (<script>alert(2)</script> <b>tide</b>) Tj ET"
    server = start()
    with opened(browser, server.url) as page:
        page.get_by_role("heading", name="Drop PDFs, images or Office files here").wait_for()
        drop(page, (HOSTILE, simple(drawing=drawing)))
        page.wait_for_function("() => document.querySelectorAll('#document-list .choose').length === 2")
        assert names(page)[1] == HOSTILE
        ask(page, "<b>tide</b> <script>alert(3)</script>")
        page.locator(".card").wait_for()
        assert page.locator(".card h2").inner_text() == HOSTILE
        page.locator(".card .open").click()
        page.get_by_text("Text of the page").click()
        assert "<script>alert(2)</script>" in page.get_by_role("dialog").inner_text()
        page.keyboard.press("Escape")
        page.locator("#document-list li", has_text="<img").hover()
        page.get_by_role("button", name=f"Delete {HOSTILE}").click()
        assert HOSTILE in page.get_by_role("alertdialog").inner_text()
        assert page.evaluate("document.querySelectorAll('b, script:not([src]), img[src=x]').length") == 0


def test_a_script_that_came_in_would_not_run(page: Any) -> None:
    """The policy is what a mistake of the page would meet."""
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.setAttribute("nonce", "a");
          try { script.text = "window.came = true"; } catch { window.refused = true; }
          document.body.append(script);
          try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch { window.refused = true; }
        }"""
    )
    assert page.evaluate("[window.came, window.refused]") == [None, True]
    assert page.locator("b").count() == 0
    assert any("Content Security Policy" in fault or "TrustedHTML" in fault for fault in page.faults)
    page.faults.clear()


def test_what_the_server_refuses_is_shown_with_its_reason(browser: Any, start: Start) -> None:
    server = start(max_pages=1)
    with opened(browser, server.url) as page:
        page.get_by_role("heading", name="Drop PDFs, images or Office files here").wait_for()
        drop(page, ("notes.txt", b"low tide"), ("corner.pdf", simple()))
        page.locator("#upload-list .failed").wait_for()
        assert "notes.txt" in page.locator("#upload-list .failed").inner_text()
        assert "PDFs, Office files other than HTML, and images" in page.locator("#upload-list .failed").inner_text()
        wait_until(lambda: len(server.store) == 1)  # the other file is added all the same
        page.get_by_role("button", name="Close the message about notes.txt").click()
        assert page.locator("#upload-list .failed").count() == 0
        page.faults[:] = [fault for fault in page.faults if "/v1/documents" not in fault]  # the answer 400


def test_a_reader_signs_in_with_the_key_and_out_again(browser: Any, locked: Running) -> None:
    with opened(browser, locked.url) as page:
        field = page.get_by_label("API key")
        field.wait_for()
        assert not page.locator("#ask").is_visible()
        field.fill(f"{KEY}x")
        page.keyboard.press("Enter")
        page.get_by_text("This is not the key of the server.").wait_for()
        page.faults[:] = [fault for fault in page.faults if "/session" not in fault]  # the answer 401
        field.fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Drop PDFs, images or Office files here").wait_for()
        [cookie] = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (cookie_of(locked), True, "Strict")
        kept = "[document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href]"
        assert not any(KEY in text or cookie["value"] in text for text in page.evaluate(kept))
        page.reload()
        page.get_by_role("heading", name="Drop PDFs, images or Office files here").wait_for()
        page.get_by_role("button", name="Sign out").click()
        field.wait_for()
        assert page.context.cookies() == []
        assert not page.locator("#desk").is_visible()


def test_a_reader_whose_key_only_reads_is_offered_no_changes(
    browser: Any, start: Start, papers: Path, coltiny: ColPali
) -> None:
    server = start(key=ApiKey(KEY, where="the tests"), read_key=ApiKey(f"{KEY}-for-reading", where="the tests"))
    with opened(browser, server.url) as page:
        page.get_by_label("API key").fill(f"{KEY}-for-reading")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="There are no documents yet").wait_for()
        index_documents(papers / "report.pdf", model=coltiny, store=server.store)
        drop(page, ("corner.pdf", simple()), welcome=False)
        page.reload()
        page.get_by_role("heading", name="What are you looking for?").wait_for()
        ask(page, QUESTION)
        assert names(page) == ["All documents", "report.pdf"]
        for one in ("#add", "#choose", "#uploads", "#document-list button.bin"):
            assert not page.locator(one).is_visible(), one
    assert len(server.store) == 2


def test_an_answer_is_shown_and_its_citations_open_their_pages(
    browser: Any, start: Start, tmp_path: Path, papers: Path, coltiny: ColPali, served: Running
) -> None:
    server = answering(start, tmp_path, papers, coltiny, Fake("They have <b>two</b> ends [2], not one [9]."))
    with opened(browser, served.url) as page:
        ask(page, BOTH)
        page.locator(".card").first.wait_for()
        assert not page.locator("#answer").is_visible()  # this server has no chat model
    with opened(browser, server.url) as page:
        ask(page, BOTH)
        page.get_by_text("Sends the first 2 pages to any:model").wait_for()
        page.get_by_role("button", name="Answer from these pages").click()
        page.locator(".cite").wait_for()
        assert page.locator("#answer-text").inner_text() == "They have <b>two</b> ends 2, not one [9]."
        page.locator(".cite").click()
        second = server.store.search(BOTH, 2)[1].entry.name
        assert page.get_by_role("dialog").get_by_role("heading").inner_text() == second


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_nothing_is_cut_off_at_any_width(width: int, browser: Any, served: Running) -> None:
    with opened(browser, served.url, viewport={"width": width, "height": 844}) as page:
        ask(page, QUESTION)
        page.locator(".card").first.wait_for()
        for selector in (".top button:visible", "#question", ".card", ".card .word"):
            for one in page.locator(selector).all():
                box = one.bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width + 0.5, selector
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".card .open").first.click()
        close = page.get_by_role("button", name="Close").bounding_box()
        assert 0 <= close["x"] < close["x"] + close["width"] <= width


def test_the_theme_is_the_system_s_or_the_reader_s(browser: Any, served: Running) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, served.url, color_scheme="dark") as page:
        dark = page.evaluate(paper)
        page.get_by_role("button", name="Theme: as the system").click()
        light = page.evaluate(paper)
        assert [sum(map(int, re.findall(r"\d+", one)[:3])) > 380 for one in (dark, light)] == [False, True]
        page.reload()
        page.get_by_role("button", name="Theme: light").click()  # it was kept
        assert page.evaluate(paper) == dark
