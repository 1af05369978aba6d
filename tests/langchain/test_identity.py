"""Identity of documents: nothing that belongs to another owner, folder, document or text is lost or taken over."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_text_splitters import RecursiveCharacterTextSplitter

from colpali_integrations.errors import ConfigurationError, InputError, PdfError
from colpali_integrations.langchain import (
    ColPaliReranker,
    ColPaliVectorStore,
    PdfPageLoader,
    image_blocks,
    to_html,
)
from colpali_integrations.pages.reference import encode_base64
from colpali_integrations.stores import Progress, index_documents
from tests.langchain.cases import with_texts, word_pdf
from tests.pages.test_pdf import encrypted
from tests.stores.documents import DPI, draw, save_pdf

PAPER = Path(__file__).parents[2] / "demo" / "pdfs" / "hcl-colors.pdf"


@pytest.fixture
def store() -> ColPaliVectorStore:
    return ColPaliVectorStore()


class Counter:
    """The number of pages that an ingestion was to encode."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, state: Progress) -> None:
        self.total = max(self.total, state.total)


# -- owners and folders -------------------------------------------------------------------------------------------


def test_tenants_keep_their_pages(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    store.add_pdf(pdf, metadata={"tenant": "north"}, dpi=DPI)
    encoded = Counter()
    store.add_pdf(pdf, metadata={"tenant": "south"}, dpi=DPI, progress=encoded)
    assert encoded.total == 0, "the vectors are copied"
    assert [store.store.count({"tenant": name}) for name in ("north", "south")] == [1, 1]
    store.delete(filter={"tenant": "south"})
    [left] = store.similarity_search("violin", k=9)
    assert left.metadata["tenant"] == "north"


def test_the_loader_keeps_tenants_apart_too(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    for name in ("north", "south"):
        store.add_documents(PdfPageLoader(pdf, dpi=DPI, metadata={"tenant": name}).load())
    assert store.add_pdf(pdf, dpi=DPI, metadata={"tenant": "north"}) == [
        found.id for found in store.similarity_search("violin", filter={"tenant": "north"})
    ]
    assert len(store.store) == 2


def test_a_tenant_s_retriever_stays_the_tenant_s(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf")
    for name in ("north", "south"):
        store.add_pdf(pdf, metadata={"tenant": name}, dpi=DPI)
    north = store.as_retriever(search_kwargs={"filter": {"tenant": "north"}, "k": 9})
    assert {found.metadata["tenant"] for found in north.invoke("violin")} == {"north"}
    assert north.invoke("violin", filter={"tenant": "south"}) == []
    assert [found.metadata["page"] for found in north.invoke("violin", filter={"page": 2})] == [2]
    second = north.invoke("violin", filter=lambda document: document.metadata["page"] > 1)
    assert {(found.metadata["tenant"], found.metadata["page"]) for found in second} == {("north", 2), ("north", 3)}


def test_one_file_in_two_folders_is_two_documents(store: ColPaliVectorStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        word_pdf(tmp_path / name / "same.pdf", ["violin"])
    encoded = Counter()
    store.add_documents(PdfPageLoader(tmp_path, dpi=DPI).load(), progress=encoded)
    assert (len(store.store), encoded.total) == (2, 2)
    index_documents([tmp_path], model=store.model, store=store.store, dpi=DPI)
    store.add_pdf(tmp_path, dpi=DPI)
    assert len(store.store) == 2, "the same documents"
    assert len(ColPaliVectorStore(store=store.store).add_pdf(tmp_path, dpi=DPI, exclude=["b/*"])) == 1


def test_relative_paths_links_and_home_are_one_document(
    store: ColPaliVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    (tmp_path / "link.pdf").symlink_to(pdf)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ids = {store.add_pdf(one, dpi=DPI)[0] for one in (pdf, "a.pdf", "./a.pdf", "~/a.pdf", "link.pdf")}
    ids |= set(store.add_documents(PdfPageLoader("a.pdf", dpi=DPI).load()))
    ids |= set(store.add_pdf(Blob.from_path("a.pdf"), dpi=DPI))
    assert len(ids) == len(store.store) == 1


# -- texts and pages with ids of their own ------------------------------------------------------------------------


def test_summaries_and_chunks_survive_the_indexing_of_their_source(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    texts = [
        Document("summary by hand", metadata={"source": str(pdf)}),
        Document("a chunk", metadata={"source": str(pdf), "page": 1}),
    ]
    [page] = PdfPageLoader(pdf, dpi=DPI).load()
    names = ["summary", "chunk", "bookmark"]
    store.add_documents([*texts, page], ids=names)
    for _ in range(2):
        index_documents([pdf], model=store.model, store=store.store, dpi=DPI)
        store.add_pdf(pdf, dpi=DPI)
    word_pdf(pdf, ["invoice"])
    store.add_pdf(pdf, dpi=DPI)
    assert [found.id for found in store.get_by_ids(names)] == names
    assert len(store.store) == 4


def test_chunks_of_a_page_are_texts_of_their_own(store: ColPaliVectorStore) -> None:
    pages = PdfPageLoader(PAPER, pages=[1, 2], dpi=30).load()
    store.add_documents(pages)
    chunks = RecursiveCharacterTextSplitter(chunk_size=400, chunk_overlap=50).split_documents(pages)
    ids = store.add_documents(chunks)
    assert len(chunks) > 2
    assert len(set(ids)) == len(chunks)
    assert len(store.store) == len(chunks) + 2
    assert [found.page_content for found in store.get_by_ids(ids)] == [chunk.page_content for chunk in chunks]


def test_chunks_of_pages_that_carry_their_pictures_are_texts(store: ColPaliVectorStore) -> None:
    pages = PdfPageLoader(PAPER, pages=[1], dpi=30, include_image=True).load()
    chunks = RecursiveCharacterTextSplitter(chunk_size=400, chunk_overlap=0).split_documents(pages)
    assert len(set(store.add_documents([*pages, *chunks]))) == len(chunks) + 1


def test_pictures_with_one_foreign_hash_are_different_pages(store: ColPaliVectorStore) -> None:
    pages = with_texts([draw("violin"), draw("invoice")], ["first", "second"])
    for page in pages:
        page.metadata |= {"content_hash": "of-the-file", "source": "a.pdf"}
    first, second = store.add_documents(pages)
    assert [store.similarity_search(word, k=1)[0].id for word in ("violin", "invoice")] == [first, second]


def test_a_stored_page_with_another_text_does_not_replace_the_page(store: ColPaliVectorStore, tmp_path: Path) -> None:
    [id_] = store.add_pdf(word_pdf(tmp_path / "a.pdf", ["violin"]), dpi=DPI)
    [page] = store.get_by_ids([id_])
    [other] = store.add_documents([page.model_copy(update={"page_content": "a translation"})])
    assert other != id_
    assert store.get_by_ids([id_, other])[0] == page
    assert store.add_documents([page]) == [id_], "unchanged, it is the page"


# -- names, Blobs and moved files ---------------------------------------------------------------------------------


def test_pages_under_a_url_stay_under_it(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf, url = word_pdf(tmp_path / "a.pdf", ["violin"]), "https://example.com/a.pdf"
    store.add_pdf(Blob.from_data(pdf.read_bytes(), path=url), dpi=DPI)
    report = index_documents([pdf], model=store.model, store=store.store, dpi=DPI)
    assert (report.added, report.copied) == (0, 1)
    assert store.store.count({"source": url}) == store.store.count({"file_path": str(pdf.resolve())}) == 1


def test_a_moved_file_is_a_new_document_without_encoding(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    store.add_pdf(pdf, dpi=DPI)
    pdf.rename(tmp_path / "b.pdf")
    encoded = Counter()
    store.add_pdf(tmp_path / "b.pdf", dpi=DPI, progress=encoded)
    assert (len(store.store), encoded.total) == (2, 0), "a missing path proves nothing"


def test_a_blob_s_metadata_are_stored_and_do_not_identify(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    [id_] = store.add_pdf(pdf, dpi=DPI)
    assert store.add_pdf(Blob.from_path(pdf, metadata={"fetched": "today"}), dpi=DPI) == [id_]
    assert store.get_by_ids([id_])[0].metadata["fetched"] == "today"
    url = Blob.from_path(pdf, metadata={"source": "https://example.com/a.pdf"})
    assert store.add_pdf(url, dpi=DPI) != [id_], "it goes by its URL"


def test_images_of_two_owners_are_two_documents(store: ColPaliVectorStore, tmp_path: Path) -> None:
    draw("violin").save(tmp_path / "a.png")
    images: list[Any] = [tmp_path / "a.png", (tmp_path / "a.png").read_bytes()]
    for image in images:
        store.add_images([image, image], [{"tenant": "north"}, {"tenant": "south"}])
    assert [store.store.count({"tenant": name}) for name in ("north", "south")] == [2, 2]


# -- changed files ------------------------------------------------------------------------------------------------


def test_a_changed_file_is_not_shown_and_is_replaced(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin", "mitochondria"])
    ids = store.add_pdf(pdf, dpi=DPI)
    [found] = store.similarity_search("violin", k=1)
    word_pdf(pdf, ["invoice"])
    with pytest.raises(InputError, match=r"a\.pdf, page 1 is not shown: .* has changed since it was indexed"):
        image_blocks([found])
    assert "has changed since it was indexed" in to_html([found])
    with pytest.raises(InputError, match="has changed"):
        ColPaliReranker().compress_documents([found], "violin")
    assert ColPaliReranker(vectorstore=store).compress_documents([found], "violin"), "its vectors are stored"
    assert store.add_pdf(pdf, dpi=DPI) == ids[:1]
    assert len(store.store) == 1
    [now] = store.similarity_search("invoice", k=1)
    assert len(image_blocks([now])) == 1


def test_sources_in_metadata_do_not_merge_documents(store: ColPaliVectorStore, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        word_pdf(tmp_path / "in" / f"{name}.pdf", [f"{name}lpha"])
    assert len(set(store.add_pdf(tmp_path / "in", dpi=DPI, metadata={"source": "sharepoint"}))) == 2
    with pytest.raises(ConfigurationError, match="identifies one document, and there are 2"):
        store.add_pdf(tmp_path / "in", dpi=DPI, metadata={"source": "https://example.com/library"})
    pages = [draw(word) for word in ("one", "two", "three")]
    ids = store.add_images(pages, [{"source": "report.pdf", "figure": number} for number in (1, 2, 3)])
    assert len(set(ids)) == 3
    path = str(tmp_path / "in" / "a.pdf")
    store.add_pdf(path, dpi=DPI)
    before = len(store.store)
    store.add_images([draw("thumb")], [{"source": path}])
    assert len(store.store) == before + 1


def test_figures_do_not_take_the_place_of_their_page(store: ColPaliVectorStore, tmp_path: Path) -> None:
    path = word_pdf(tmp_path / "a.pdf", ["violin", "mitochondria"])
    store.add_pdf(path, dpi=DPI)
    figures = [
        Document(f"figure {n}", metadata={"source": str(path), "page": 1, "image_base64": encode_base64(draw(str(n)))})
        for n in (1, 2)
    ]
    store.add_documents(figures)
    assert len(store.store) == 4


def test_a_stale_document_removes_no_page(store: ColPaliVectorStore, tmp_path: Path) -> None:
    path = word_pdf(tmp_path / "a.pdf", ["violin"])
    store.add_pdf(path, dpi=DPI)
    [stale] = store.similarity_search("violin", k=1)
    store.add_images([draw("violin")])
    word_pdf(path, ["violin", "mitochondria", "invoice"])
    store.add_pdf(path, dpi=DPI)
    before = len(store.store)
    with contextlib.suppress(InputError):  # its page has changed
        store.add_documents([stale])
    assert len(store.store) == before


def test_tenants_share_the_page_of_a_loader(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pages = PdfPageLoader(word_pdf(tmp_path / "a.pdf", ["violin"]), dpi=DPI).load()
    for tenant in ("north", "south"):
        store.add_images(pages, [{"tenant": tenant}])
    assert len(store.store) == 2


def test_documents_of_a_loader_replace_a_shorter_file(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin", "mitochondria"])
    store.add_documents(PdfPageLoader(pdf, dpi=DPI).load())
    word_pdf(pdf, ["invoice"])
    [page] = PdfPageLoader(pdf, dpi=DPI).load()
    store.add_documents([page])
    assert [found.page_content for found in store.similarity_search("invoice")] == [page.page_content]
    word_pdf(pdf, ["violin", "mitochondria"])
    store.add_documents(PdfPageLoader(pdf, dpi=DPI, pages=[2]).load())
    assert len(store.store) == 2, "some pages remove no other"


def test_a_document_that_is_read_in_part_keeps_its_pages(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf")
    store.add_pdf(pdf, dpi=DPI)
    save_pdf(pdf, draw("invoice"))
    store.add_pdf(pdf, dpi=DPI, pages=[1])
    assert len(store.store) == 3
    pdf.write_bytes(pdf.read_bytes()[:100])
    assert store.add_pdf(pdf, dpi=DPI, on_error="skip") == []
    with pytest.raises(PdfError):
        store.add_pdf(pdf, dpi=DPI)
    assert len(store.store) == 3


# -- documents as a whole -----------------------------------------------------------------------------------------


def test_a_document_is_removed_and_its_tags_are_changed_by_its_id(store: ColPaliVectorStore, tmp_path: Path) -> None:
    first, second = (word_pdf(tmp_path / name, ["violin", "invoice"]) for name in ("a.pdf", "b.pdf"))
    store.add_pdf(first, dpi=DPI, document_id="mine")
    store.add_pdf(second, dpi=DPI)
    assert store.store.update_metadata("mine", {"year": 2024}) == 2
    assert len(store.similarity_search("violin", k=9, filter={"year": 2024})) == 2
    store.add_pdf(first, dpi=DPI, document_id="mine", metadata={"year": 2025})
    assert store.store.count({"document_id": "mine", "year": 2025}) == 2
    store.delete(filter={"document_id": "mine"})
    assert {found.metadata["file_name"] for found in store.similarity_search("violin", k=9)} == {"b.pdf"}


def test_a_page_whose_picture_was_exchanged_is_encoded_anew(store: ColPaliVectorStore, tmp_path: Path) -> None:
    path = word_pdf(tmp_path / "a.pdf", ["violin", "mitochondria"])
    store.add_pdf(path, dpi=DPI, include_image=True)
    [page] = store.similarity_search("violin", k=1)
    invoice = encode_base64(draw("invoice"))
    page.metadata["image_base64"] = invoice
    assert store.add_documents([page]) == [page.id]
    [found] = store.similarity_search("invoice", k=1)
    assert found == page
    assert store.similarity_search_with_relevance_scores("violin", k=1)[0][1] < 0.3
    for dpi in (None, 72):
        assert image_blocks([found], dpi=dpi)[0]["base64"] == invoice  # type: ignore[typeddict-item]
    report = store.store.search("invoice", 1).to_html(heatmaps=False)
    assert report.count("<figure") == 1
    loaded, _ = PdfPageLoader(path, dpi=DPI, include_image=True).load()
    reranker = ColPaliReranker(vectorstore=store, top_n=1)
    exchanged = loaded.model_copy(update={"metadata": {**loaded.metadata, "image_base64": invoice}})
    [best] = reranker.compress_documents([loaded, exchanged], "invoice")
    assert best.metadata["image_base64"] == invoice
    [own_id] = store.add_documents([exchanged])
    assert own_id != page.id, "it does not take the place of the page in its file"
    assert store.add_pdf(path, dpi=DPI) != []
    assert store.similarity_search_with_relevance_scores("violin", k=1)[0][1] > 0.3


def test_an_embedded_picture_is_shown_where_its_file_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted(user=b"sesame", owner=b"owner"))
    pages = PdfPageLoader(tmp_path / "locked.pdf", password="sesame", include_image=True).load()
    assert "<figure" in to_html(pages)
    (tmp_path / "locked.pdf").write_bytes(b"%PDF-1.7 of another kind")
    assert "<figure" in to_html(pages)
    assert len(image_blocks(pages, dpi=50)) == 1


def test_metadata_that_a_page_has_of_its_own_are_refused(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "a.pdf", ["violin"])
    [page] = PdfPageLoader(pdf).load()
    with pytest.raises(ConfigurationError, match="each page has its own page"):
        store.add_pdf(pdf, metadata={"page": 9})
    for images in ([draw("one")], [page]):
        with pytest.raises(ConfigurationError, match="each page has its own page"):
            store.add_images(images, [{"page": 9}], on_error="skip")
    assert len(store.store) == 0
