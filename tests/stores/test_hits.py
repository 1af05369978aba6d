"""`Hits`: a list with reports."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, InputError, QueryError
from colpali_integrations.stores import Entry, Hit, Hits, MultiVectorStore, SearchOptions, index_documents
from tests.pages.test_pdf import encrypted
from tests.stores.documents import make_store

QUESTION = "prices of bananas"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    with make_store(tmp_path_factory.mktemp("hits"), coltiny) as store:
        yield store


@pytest.fixture
def hits(pages: MultiVectorStore, coltiny: ColPali) -> Hits:
    [query] = coltiny.embed_queries(QUESTION)
    return pages.search(query, 2, text=QUESTION)


def test_hits_are_a_list(hits: Hits) -> None:
    assert isinstance(hits, list)
    assert len(hits) == 2
    assert hits == list(hits)
    assert isinstance(hits[0], Hit)
    assert isinstance(hits[:1], Hits)
    assert hits[:1].text == QUESTION
    assert [*hits, *hits][2] == hits[0]
    for other in (pickle.loads(pickle.dumps(hits)), copy.deepcopy(hits)):
        assert type(other) is list
        assert [hit.id for hit in other] == [hit.id for hit in hits]


def test_pages_of_encrypted_pdfs_are_shown_with_their_password(tmp_path: Path, coltiny: ColPali) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted(user=b"sesame", owner=b"owner"))
    store = MultiVectorStore.open(model=coltiny)
    index_documents(tmp_path, model=coltiny, store=store, password="sesame", on_error="raise")
    answers = store.search("secret")
    assert "is encrypted; pass password=" in answers.to_html()
    assert "is encrypted; pass password=" in answers._repr_html_()
    shown = answers.to_html(password="sesame")
    assert "No picture" not in shown
    assert "sesame" not in shown
    assert "the password is wrong" in answers.to_html(password="open")


def test_the_representation_is_one_short_line(hits: Hits) -> None:
    assert repr(hits) == ", ".join(f"{hit.entry.name} ({hit.relevance:.2f})" for hit in hits).join(["Hits(2): ", ""])
    many = repr(Hits([hits[0]] * 7))
    assert (many.count("fruit.pdf, page 2"), many[:9], many[-5:]) == (5, "Hits(7): ", ", ...")
    assert repr(Hits()) == "Hits(0): "


def test_a_question_in_words_is_encoded_by_the_model_of_the_store(pages: MultiVectorStore, hits: Hits) -> None:
    answers = pages.search(QUESTION, 2)
    assert answers == hits
    assert (answers.text, answers.tokens) == (QUESTION, hits.tokens)
    assert hits.query is not None
    assert pages.search(QUESTION, 2, hybrid=True) == pages.search(hits.query, 2, hybrid=True, text=QUESTION)
    with pytest.raises(QueryError):
        pages.search(" ")
    unknown = MultiVectorStore.open(model=replace(pages.model, name="not/registered"))
    with pytest.raises(
        ConfigurationError, match=r"'not/registered', which is not registered here; open it with model="
    ):
        unknown.search(QUESTION)


def test_a_report_shows_pages_with_the_words_of_the_question(hits: Hits, tmp_path: Path) -> None:
    report = hits.to_html()
    assert '<h1 dir="auto">prices of bananas</h1>' in report
    assert [hit.matches for hit in hits] == [True, False]
    assert report.count("<article") == 1, "the other page has nothing of the question"
    assert "fruit.pdf, page 2" in report
    assert 'aria-label="bananas: ' in report
    assert 'class="heat all"' in report
    assert "not named" not in report
    assert hits[:1].to_html("another title").count("<article") == 1
    assert 'class="heat all"' not in hits.to_html(heatmaps=False)
    assert hits._repr_html_().startswith("<div")
    assert hits.to_html().save(tmp_path / "r.html").is_file()


def test_a_report_without_words_explains_how_to_name_them(pages: MultiVectorStore, coltiny: ColPali) -> None:
    [query] = coltiny.embed_queries(QUESTION)
    report = pages.search(query, 1).to_html()
    assert "Found pages" in report
    assert "The words of the question are not named" in report
    assert 'aria-label="match: ' in report
    named = pages.search(query, 1).to_html(QUESTION, tokens=coltiny.query_tokens(QUESTION))
    assert 'aria-label="bananas: ' in named
    with pytest.raises(InputError, match="tokens"):
        pages.search(query, 1).to_html(tokens=["a"])
    [other] = pages.search_batch([query], SearchOptions(k=1), texts=["words of another query than this"])
    assert "not named" in other.to_html(), "vectors of another text have other names"
    with pytest.raises(InputError, match="1 queries but 2 texts"):
        pages.search_batch([query], SearchOptions(k=1), texts=["a", "b"])


def test_the_maps_of_a_store_are_those_of_the_pages(pages: MultiVectorStore, coltiny: ColPali, hits: Hits) -> None:
    [query] = coltiny.embed_queries(QUESTION)
    tokens = coltiny.query_tokens(QUESTION)
    found = pages.similarity_maps(query, [hits[0].id, "unknown"], tokens=tokens)
    assert list(found) == [hits[0].id]
    [maps] = found.values()
    assert maps.tokens == tuple(tokens)
    [boxes] = pages.regions(query, [hits[0].id], tokens=tokens).values()
    best = {box["token"]: box["score"] for box in boxes}
    assert best
    for token, score in best.items():
        assert float(maps.of(token).max()) == pytest.approx(score, abs=1e-5)


def test_texts_and_hostile_entries(coltiny: ColPali) -> None:
    with MultiVectorStore.open(model=coltiny) as store:
        text = "<script>alert(1)</script> bananas & prices"
        [vectors] = coltiny.embed_texts([text])
        store.add([(Entry(id="<b>", text=text), vectors)])
        [query] = coltiny.embed_queries(QUESTION)
        report = store.search(query, 1, text=QUESTION).to_html()
    assert "<script" not in report
    assert "&lt;script&gt;alert(1)&lt;/script&gt; <mark>bananas</mark> &amp; <mark>prices</mark>" in report


def test_reports_explain_missing_pictures_and_stores(tmp_path: Path, coltiny: ColPali) -> None:
    with make_store(tmp_path, coltiny) as store:
        [query] = coltiny.embed_queries(QUESTION)
        hits = store.search(query, 2, text=QUESTION)
        (tmp_path / "documents" / "fruit.pdf").unlink()
        assert "No picture: cannot draw fruit.pdf, page 2" in hits.to_html()
    shown = hits._repr_html_()
    assert "fruit.pdf, page 2" in shown
    assert "closed" in shown
    plain = Hits([*hits])
    with pytest.raises(InputError, match="not attached to a store"):
        plain.to_html()
    assert "not attached to a store" in plain._repr_html_()
    assert "Nothing was found" in Hits().to_html()
    assert json.dumps([hit.score for hit in hits])
    assert np.isfinite([hit.score for hit in hits]).all()
