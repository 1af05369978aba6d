"""Names of pages in the answers of tools: short, on one line, and within the budget whatever a source is."""

from __future__ import annotations

import json

from colpali_integrations import ColPali
from colpali_integrations.agents.captions import caption
from colpali_integrations.agents.found import FoundPage, Presentation
from colpali_integrations.agents.tools import ANSWER_BYTES, PageTools
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.current import CurrentStore

LONG = "x" * 300_000


def test_a_caption_is_short_and_keeps_the_page() -> None:
    assert caption(f"{LONG}.pdf, page 7").endswith(".pdf, page 7")
    assert len(caption(LONG)) == 300
    assert caption("a\nb") == "a\\nb"


def test_pages_of_a_long_source_fit_into_an_answer(coltiny: ColPali) -> None:
    pages = [FoundPage(name=f"{LONG}, page {number}", text="low tide", problem=LONG) for number in (1, 2)]
    parts = Presentation().parts(pages, pictures=True)
    assert sum(len(text) for text, _ in parts) < 2000
    assert parts[1][0].splitlines()[0].endswith(", page 2")
    with MultiVectorStore.open(model=coltiny) as store:
        for number in (1, 2):
            metadata = {"source": f"/{LONG}.pdf", "file_name": f"{LONG}.pdf", "page": number, "page_count": 2}
            entry = Entry(id=f"a{number}", text="low tide at six", metadata=metadata, document_id="tides")
            store.add([(entry, coltiny.embed_query("low tide"))])
        tools = PageTools(CurrentStore(store))
        for name, arguments in (
            ("search_pages", {"question": "low tide"}),
            ("list_documents", {}),
            ("read_page", {"document": f"{LONG}.pdf", "page": 1}),
        ):
            answer = tools.shown(tools.call(name, arguments))
            sent = [part.text for part in answer.parts], answer.structured
            assert len(json.dumps(sent, default=dict)) < ANSWER_BYTES, name
