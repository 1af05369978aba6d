"""The HTML report: whatever pages and questions say, it is one file that runs nothing and fetches nothing."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.explain import Region, SimilarityMaps
from colpali_integrations.explain._report_style import STYLE, word_rules
from colpali_integrations.explain.drawing import PALETTE
from colpali_integrations.explain.report import HtmlReport, ReportPage, render_report, report_picture
from colpali_integrations.pages.access import PageAccess

HOSTILE = (
    "</title></style><script>document.title='owned'</script>\"' onload='x' "
    "<img src=x onerror=\"document.title='owned'\">"
)
PAGE = Image.new("RGB", (1700, 2200), "white")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def maps(*words: str | None, best: float = 0.9) -> SimilarityMaps:
    values = np.zeros((len(words), 4, 4), np.float32)
    values[:, 1, 1] = best
    return SimilarityMaps(values, words)


def a_report(**changes: Any) -> HtmlReport:
    page = {
        "name": "report.pdf, page 7",
        "score": 1.234,
        "relevance": 0.4,
        "image": PAGE,
        "regions": [
            Region("tide", 0.81, 0.6, (0.25, 0.5, 0.5, 0.625)),
            Region("low", 0.3, 0.4, (0.7, 0.02, 0.9, 0.05)),
        ],
        "maps": maps("low", "tide", "sea"),
        "text": "At noon the tide is low.",
        "source": "/data/report.pdf",
    }
    return render_report("When is the tide low?", [ReportPage(**{**page, **changes})], model="coltiny")


class Reader(HTMLParser):
    """The elements of a report, checked to be closed in order."""

    VOID = frozenset({"meta", "img", "input"})

    def __init__(self, report: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(report)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag and kind in ["", *attrs.get("class", "").split()]]


def test_a_report_has_pages_scores_boxes_and_heatmaps() -> None:
    report = a_report()
    reader = Reader(report)
    said = " ".join(" ".join(reader.texts).split())
    for text in ("1 page · coltiny", "When is the tide low?", "report.pdf, page 7", "1.23", "40%", "/data/report.pdf"):
        assert text in said
    tide, low = reader.of("span", "box")
    assert "left:25.00%;top:50.00%;width:25.00%;height:12.50%" in tide["style"]
    assert (tide["aria-label"], tide["tabindex"], tide["role"]) == ("tide: 0.81", "0", "img")
    assert "below" in low["class"].split(), "a tooltip must not leave the page"
    assert [attrs["class"] for attrs in reader.of("img", "heat")] == ["heat all", "heat w0", "heat w1"]
    assert 'title="on none of these pages"' in report, "a word that no page has is marked"
    assert re.findall("<mark>(.*?)</mark>", report) == ["tide", "low"], '"the" has no topic'
    [picture] = [attrs for attrs in reader.of("img") if "class" not in attrs]
    assert picture["alt"] == "report.pdf, page 7"


def test_there_are_toggles_for_the_contents_only_each_with_a_label() -> None:
    def ids(report: str) -> set[str]:
        return {attrs["id"] for attrs in Reader(report).of("input")}

    themes = {"system", "light", "dark"}
    assert ids(a_report()) == {"heat", "boxes", "large", "wall", "w0", "w1", "w2", *themes}
    assert ids(a_report(maps=None)) == {"boxes", "large", "wall", "w0", "w1", *themes}
    assert ids(a_report(maps=None, regions=[])) == {"large", *themes}
    assert ids(a_report(maps=None, regions=[], image=None)) == themes
    assert ids(a_report(maps=maps(None), regions=[Region(None, 0.5, 1, (0, 0, 1, 1))])) == {
        "heat",
        "boxes",
        "large",
        *themes,
    }
    for report in (a_report(), render_report("x", [])):
        every = [attrs["id"] for _, attrs in Reader(report).elements if "id" in attrs]
        assert len(every) == len(set(every))
    # Every toggle of the style sheet is one of the document.
    rules = set(re.findall(r"#([a-z]+\d*)(?=[:\]])", STYLE + word_rules(2)))
    assert rules <= ids(a_report())


@pytest.mark.parametrize("field", ["name", "text", "note", "source", "word", "question", "model"])
def test_every_text_is_escaped(field: str) -> None:
    page: dict[str, Any] = {"name": "p", "image": PAGE, "text": "t"}
    question, model = "q", "m"
    if field == "word":
        page |= {"regions": [{"token": HOSTILE, "score": 1, "box": [0, 0, 1, 1]}], "maps": maps(HOSTILE)}
    elif field == "question":
        question, page["text"] = HOSTILE, f"script onerror {HOSTILE}"
    elif field == "model":
        model = HOSTILE
    else:
        page |= {field: HOSTILE, "image": None if field == "note" else PAGE}
    report = render_report(question, [ReportPage(**page)], model=model, note=HOSTILE if field == "note" else "")
    reader = Reader(report)
    assert not reader.of("script")
    assert not any(name.startswith("on") for _, attrs in reader.elements for name in attrs)
    assert all(attrs["src"].startswith("data:image/") for attrs in reader.of("img"))
    assert HOSTILE in "".join(reader.texts)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    report = a_report()
    assert "default-src &#x27;none&#x27;" in report
    assert not re.findall(r"(?:https?:)?//[a-z]|url\(|@import|<link|<script|<iframe|javascript:", report)
    assert {name for name, _ in Reader(report).elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "article", "figure", "div", "p", "span"),
        *("h1", "h2", "img", "b", "i", "ul", "li", "mark", "label", "input", "fieldset", "legend"),
    }


def test_pictures_are_small() -> None:
    report = a_report()
    encoded = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', report)
    kinds = [kind for kind, _ in encoded]
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for _, data in encoded]
    assert kinds[0] in ("webp", "jpeg")
    assert max(sizes[0]) == 1100
    assert kinds[1:] == ["png"] * 3
    assert max(max(size) for size in sizes[1:]) <= 200
    assert len(report) < 60_000
    [small] = re.findall(r"base64,([^\"]+)", render_report("q", [ReportPage(name="p", image=PAGE)], max_side=300))
    assert max(Image.open(io.BytesIO(base64.b64decode(small))).size) == 300
    assert PAGE.size == (1700, 2200), "the picture given stays as it is"


def test_a_page_with_a_weaker_match_has_weaker_colours() -> None:
    pages = [
        ReportPage(
            name=str(best), image=PAGE, maps=maps("tide", best=best), regions=[Region("tide", best, 1, (0, 0, 1, 1))]
        )
        for best in (0.9, 0.3)
    ]
    heats = re.findall(r'class="heat w0" alt="" src="data:image/png;base64,([^"]+)"', render_report("tide", pages))
    strong, weak = (np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGBA"))[:, :, 3] for one in heats)
    assert strong.max() > weak.max() + 30
    assert weak.max() > 0


def test_a_page_without_a_picture_shows_the_reason() -> None:
    metadata = {"source": "gone.pdf", "page": 3, "content_hash": "0" * 64}
    image, why = report_picture({**metadata, "dpi": 150.0, "width": 600, "height": 800})
    assert image is None
    assert "gone.pdf" in why
    said = " ".join(Reader(a_report(image=None, note=why)).texts)
    assert "No picture: cannot draw gone.pdf, page 3" in said
    assert "At noon" in said
    assert "Nothing was found." in " ".join(Reader(render_report("x", [])).texts)


def test_a_page_is_drawn_no_larger_than_the_limit(tmp_path: Path) -> None:
    access = PageAccess.of(roots=tmp_path)
    PAGE.save(tmp_path / "page.pdf", resolution=200)
    image, why = report_picture(
        {"source": str(tmp_path / "page.pdf"), "page": 1, "dpi": 150.0, "width": 612, "height": 792}, access
    )
    assert image is not None
    assert (why, max(image.size)) == ("", 1100)
    PAGE.save(tmp_path / "page.png")
    metadata = {"source": str(tmp_path / "page.png"), "page": 1, "width": 1700, "height": 2200}
    image, _ = report_picture(metadata, access)
    assert image is not None


def test_a_report_can_be_saved_and_notebooks_display_it_in_a_frame(tmp_path: Path) -> None:
    report = a_report(text="Ümläut 東京")
    path = report.save(tmp_path / "r.html")
    assert path.read_text(encoding="utf-8") == report
    [frame] = Reader(report._repr_html_()).of("iframe")
    assert frame["srcdoc"] == report
    assert frame["sandbox"] == ""
    assert frame["title"]


def browse(tmp_path: Path, report: str, *flags: str) -> str:
    """A real browser's view of a report: stdout."""
    assert CHROMIUM is not None
    (tmp_path / "r.html").write_text(report, encoding="utf-8")
    fixed = (
        *(
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-component-update",
        ),
        *("--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--window-size=900,1000"),
    )
    command = [CHROMIUM, *fixed, f"--user-data-dir={tmp_path / 'profile'}", *flags, (tmp_path / "r.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the tests above check the document itself")
def test_in_a_browser_toggles_work_and_hostile_texts_do_nothing(tmp_path: Path) -> None:
    def blue(report: str) -> int:
        browse(tmp_path, report, f"--screenshot={tmp_path / 'shot.png'}")
        shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"), np.int16)
        colour = np.array([int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)])
        return int((np.abs(shot - colour).max(axis=2) < 3).sum())

    report = a_report(text=HOSTILE, regions=[Region("low", 0.8, 1.0, (0.1, 0.2, 0.8, 0.6))])
    shown, hidden = blue(report), blue(report.replace('id="boxes" checked', 'id="boxes"'))
    assert shown > hidden + 500, "a box of several hundred pixels' outline is there, and goes"
    assert "<title>When is the tide low?</title>" in browse(tmp_path, report, "--dump-dom")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_not_shown(number: float) -> None:
    report = a_report(score=number, relevance=number)
    assert "score <b>" not in report
    assert ("relevance <b>" in report) == (number == number)  # clipped to 0% and 100%


def test_both_halves_of_a_hybrid_search_are_shown_with_their_weights() -> None:
    report = a_report(halves={"sight": 0.25, "words": 1.0, "weight": 0.4})
    assert "<span>by sight <b>0.25</b> × 0.60, by words <b>1.00</b> × 0.40</span>" in report
    for wrong in (None, "0.5", {}, {"sight": "<b>", "words": 1, "weight": 1}, {"sight": 7, "words": 1, "weight": 1}):
        assert "by sight" not in a_report(halves=wrong)


def test_pages_with_nothing_of_the_question_are_left_out() -> None:
    pages = [ReportPage(name="first", score=1.0, relevance=0.2), ReportPage(name="second", score=0.0, relevance=0.0)]
    assert "first" in render_report("tide", pages)
    assert "second" not in render_report("tide", pages)
    assert "Nothing was found." in render_report("tide", pages[1:])
    hybrid = ReportPage(name="lowest of a fusion", score=0.0, relevance=0.1)
    assert "lowest of a fusion" in render_report("tide", [hybrid])
    logit = ReportPage(name="best of a cross-encoder", score=-1.5)
    assert "best of a cross-encoder" in render_report("tide", [logit])


def widths(report: str) -> list[int]:
    return [int(width) for width in re.findall(r'<i style="width:(\d+)%"></i></span><b>', report)]


def test_bars_have_one_scale_and_the_parts_add_up_to_the_score() -> None:
    box = (0.0, 0.0, 0.5, 0.5)
    first = ReportPage(name="first", score=4.0, max_sim=4.0, regions=[Region("tide", 2.0, 0.5, box)])
    second = ReportPage(name="second", score=1.0, max_sim=1.0, regions=[Region("tide", 1.0, 1.0, box)])
    report = render_report("tide", [first, second])
    assert widths(report) == [100, 100, 50]
    assert report.count("beyond these words") == 1  # 2.0 of the first page; the second one has no other part
    assert "beyond these words" not in render_report("tide", [ReportPage(name="x", regions=first.regions)])


@pytest.mark.parametrize("regions", [3, "x", [3], [{"box": [10**400, 0, 1, 1]}]])
def test_regions_of_another_form_are_refused(regions: Any) -> None:
    with pytest.raises(InputError, match="region"):
        a_report(regions=regions)


def test_a_text_that_no_encoding_can_write_is_saved(tmp_path: Path) -> None:
    pages = [ReportPage(name="\udcff.pdf", text="low \udc80 tide \ud83d\ude00")]
    saved = render_report("tide \ud800", pages).save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "tide \ufffd" in saved
    assert "\ufffd.pdf" in saved
    assert "low \ufffd <mark>tide</mark> \U0001f600" in saved


@pytest.mark.parametrize("side", ["x", 0, None, 1.5])
def test_a_side_that_is_no_number_of_pixels_is_refused(side: Any) -> None:
    for make in (lambda: render_report("tide", [], max_side=side), lambda: report_picture({}, max_side=side)):
        with pytest.raises(ConfigurationError, match="max_side must be a whole number of at least 1"):
            make()
