"""`PdfPageReader` on real PDFs: its nodes and their ways into LlamaIndex."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from llama_index.core import SimpleDirectoryReader
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.readers.base import BaseReader, ReaderConfig
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from PIL import Image
from pydantic import ValidationError

from colpali_integrations import pdf_pages
from colpali_integrations.errors import ConfigurationError, ImageError, InputError, PdfError
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    ColPaliRerank,
    ColPaliVectorStore,
    PageImagePostprocessor,
    PdfPageReader,
    image_blocks,
    page_message,
    page_node,
    to_html,
)
from colpali_integrations.llama_index._references import PageReference
from colpali_integrations.pages import load_image
from colpali_integrations.pages.reference import page_image
from colpali_integrations.stores import Progress, index_documents
from tests.conftest import few_pages
from tests.pages.strangers import frames, tiff
from tests.pages.test_viewer import HINDI

PDFS = Path(__file__).parent.parent.parent / "demo" / "pdfs"
SCAN = PDFS / "cfitsio-guide-rasterised.pdf"
COLOURS = PDFS / "hcl-colors.pdf"
KEYS = {
    *("source", "file_path", "file_name", "document_id", "page", "page_label", "page_count", "width", "height", "dpi"),
    *("content_hash", "text_hash"),
}


def test_it_is_a_reader() -> None:
    assert isinstance(PdfPageReader(), BaseReader)


def test_one_node_per_page_with_text_and_metadata() -> None:
    nodes = PdfPageReader().load_data(COLOURS)
    pages = list(pdf_pages(COLOURS, dpi=10))
    assert {node.class_name() for node in nodes} == {"ImageNode"}
    for number, (node, page) in enumerate(zip(nodes, pages, strict=True), start=1):
        assert node.text == page.text.strip()
        assert node.metadata.keys() == KEYS
        assert node.metadata["source"] == str(COLOURS)
        assert (node.metadata["page"], node.metadata["page_count"]) == (number, 12)
        size = node.metadata["width"], node.metadata["height"]
        assert size == pytest.approx((page.width, page.height), abs=0.01)
        assert json.loads(json.dumps(node.metadata)) == node.metadata
        assert node.image is None
    assert len({node.metadata["content_hash"] for node in nodes}) == 12


def test_the_text_of_a_scan_is_its_name() -> None:
    nodes = PdfPageReader().load_data(str(SCAN), pages=[1, 3])
    assert [node.text for node in nodes] == [f"{SCAN.name}, page 1", f"{SCAN.name}, page 3"]
    assert len({node.hash for node in nodes}) == 2


def test_the_reference_draws_the_page() -> None:
    [node] = PdfPageReader(dpi=50).load_data(COLOURS, pages=[4])
    [page] = pdf_pages(COLOURS, dpi=50, pages=[4])
    assert node.image_path is not None
    assert node.image_path.startswith(f"{COLOURS}#page=4&dpi=50&")
    reference = PageReference.parse(node.image_path)
    assert reference is not None
    assert reference.image.tobytes() == page.image.tobytes()
    assert reference.draw(dpi=100).width == pytest.approx(2 * page.image.width, abs=2)
    assert page_image(node.metadata).tobytes() == page.image.tobytes()


def test_base64_on_request_and_not_in_the_metadata() -> None:
    [node] = PdfPageReader(dpi=50, include_image=True).load_data(COLOURS, pages=[4])
    [page] = pdf_pages(COLOURS, dpi=50, pages=[4])
    assert node.image is not None
    assert (node.image_path, node.image_mimetype) == (None, "image/png")
    image = Image.open(io.BytesIO(base64.b64decode(node.image)))
    assert (image.format, image.tobytes()) == ("PNG", page.image.tobytes())
    assert node.metadata.keys() == {*KEYS, "image_hash"}


def test_models_read_source_page_and_text() -> None:
    [node] = PdfPageReader().load_data(COLOURS, pages=[2])
    assert node.get_content(MetadataMode.EMBED) == node.text
    shown = node.get_content(MetadataMode.LLM)
    assert f"source: {COLOURS}\npage: 2\n\n{node.text}" == shown
    assert "content_hash" in node.get_content(MetadataMode.ALL)


def test_ids_are_stable_and_each_page_is_its_own_document() -> None:
    reader = PdfPageReader()
    first, again = reader.load_data(COLOURS), PdfPageReader(dpi=70).load_data(COLOURS)
    assert [node.node_id for node in first] == [node.node_id for node in again]
    assert len({node.node_id for node in first}) == 12
    assert [node.ref_doc_id for node in first] == [node.node_id for node in first]


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "scan.pdf"
    Image.new("RGB", (50, 50), "white").save(path)
    [before] = PdfPageReader().load_data(path)
    assert before.hash == PdfPageReader().load_data(path)[0].hash
    Image.new("RGB", (50, 50), "black").save(path)
    [after] = PdfPageReader().load_data(path)
    assert (after.node_id, after.text) == (before.node_id, before.text)
    assert after.hash != before.hash


def test_nodes_survive_json_and_vector_stores() -> None:
    for reader in (PdfPageReader(), PdfPageReader(dpi=30, include_image=True)):
        [node] = reader.load_data(COLOURS, pages=[1])
        assert ImageNode.from_json(node.to_json()) == node
        stored = node_to_metadata_dict(node, flat_metadata=True)
        assert metadata_dict_to_node(json.loads(json.dumps(stored))) == node


def test_it_is_lazy(tmp_path: Path) -> None:
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-")
    nodes = PdfPageReader().lazy_load_data([COLOURS, tmp_path / "torn.pdf"])
    assert isinstance(nodes, Iterator)
    assert [next(nodes).metadata["page"] for _ in range(12)] == list(range(1, 13))
    with pytest.raises(PdfError, match=r"torn\.pdf"):
        next(nodes)


async def test_async_is_sync_beside_the_loop() -> None:
    reader = PdfPageReader()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    beside = asyncio.create_task(tick())
    nodes: Any = await reader.aload_data(COLOURS)
    beside.cancel()
    assert nodes == reader.load_data(COLOURS)
    assert ticks  # a blocked loop counts none
    assert list(await reader.alazy_load_data(COLOURS, pages=[2])) == nodes[1:2]


def test_several_documents_and_pages_in_any_order() -> None:
    nodes = PdfPageReader().load_data([COLOURS, str(SCAN)], pages=[3, 1])
    assert [(Path(node.metadata["source"]).name, node.metadata["page"]) for node in nodes] == [
        (COLOURS.name, 3),
        (COLOURS.name, 1),
        (SCAN.name, 3),
        (SCAN.name, 1),
    ]


def test_folders_are_searched(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.png", "deep/b.png", "draft.png"):
        Image.new("RGB", (20, 20), "white").save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no page")
    nodes = PdfPageReader().load_data([tmp_path, tmp_path / "a.png"], exclude=["draft*"])
    assert [node.metadata["file_name"] for node in nodes] == ["a.png", "b.png"]
    with pytest.raises(InputError, match="no such file or folder"):
        PdfPageReader().load_data(tmp_path / "nowhere")


def test_linked_folders_are_read_on_request_and_missing_fonts_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "far" / "poem.pdf").write_bytes(HINDI)
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    assert PdfPageReader().load_data(tmp_path / "near") == []
    [node] = PdfPageReader().load_data(tmp_path / "near", follow_symlinks=True)
    assert node.text == "हिन्दी"
    assert "poem.pdf, page 1: not drawn are characters of Absent" in caplog.text


def test_content_goes_by_its_name_in_messages(caplog: pytest.LogCaptureFixture) -> None:
    [node] = PdfPageReader(include_image=False).load_data(HINDI, name="poem.pdf")
    assert node.metadata["source"] == "poem.pdf"
    assert "poem.pdf, page 1: not drawn are characters of Absent" in caplog.text
    files = MemoryFileSystem()
    content = COLOURS.read_bytes()[:2000]
    files.pipe("/shelf/torn.pdf", content)
    with pytest.raises(PdfError, match=r"^/shelf/torn.pdf is not a PDF, or is damaged"):
        PdfPageReader().load_data("/shelf/torn.pdf", fs=files)
    with pytest.raises(PdfError, match=r"^torn.pdf is not a PDF, or is damaged"):
        PdfPageReader().load_data(content, name="torn.pdf")
    with pytest.raises(PdfError, match=r"^a.pdf has pages 1 to 12; page 14"):
        PdfPageReader().load_data(COLOURS.read_bytes(), name="a.pdf", pages=[14])


def test_an_unknown_format_is_refused_by_the_constructor() -> None:
    for component in (PdfPageReader, PageImagePostprocessor):
        with pytest.raises(ValidationError, match=r"image_formats: Pillow has no format 'NOPE'"):
            component(image_formats=["NOPE"])


def test_a_node_draws_itself_with_the_formats_of_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "scan.dds"  # a format of Pillow that is read on request only
    Image.new("RGB", (64, 64), "navy").save(path)
    with pytest.raises(ImageError, match="image_formats"):
        PdfPageReader().load_data(path)
    reader = PdfPageReader(image_formats=["DDS"])
    [node] = reader.load_data(path)

    def is_drawn(one: Any) -> bool:
        [block] = [block for block in one.get_content_blocks() if block.block_type == "image"]
        return Image.open(block.resolve_image()).getpixel((0, 0)) == (0, 0, 128)

    assert is_drawn(node)
    assert is_drawn(node.model_copy())
    assert is_drawn(pickle.loads(pickle.dumps(node)))
    assert "DDS" not in node.to_json()
    elsewhere = type(node).from_dict(node.to_dict())
    assert elsewhere == node
    with pytest.raises(ImageError, match="image_formats"):
        elsewhere.get_content_blocks()  # a file from elsewhere chooses no decoder
    store = ColPaliVectorStore(path=tmp_path / "store", embed_model=ColPaliEmbedding(image_formats=["DDS"]))
    store.add([node])
    [result] = store.query(VectorStoreQuery(query_str="navy", similarity_top_k=1)).nodes or []
    assert is_drawn(result)
    assert result.metadata == {**node.metadata, "doubtful": True}, "a page of one colour answers no question"
    for found in (*store.get_nodes(), *store.get_nodes([node.node_id])):
        assert found == node
        assert is_drawn(found)
    store.close()
    [again] = ColPaliVectorStore(path=tmp_path / "store").get_nodes()
    with pytest.raises(ImageError, match="image_formats"):
        again.get_content_blocks()


def test_bad_documents_and_pages_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "torn.pdf").write_bytes(COLOURS.read_bytes()[:2000])
    reader = PdfPageReader(on_error="skip")
    assert len(reader.load_data([tmp_path / "torn.pdf", COLOURS], pages=[2])) == 1
    assert "torn.pdf" in caplog.text
    assert [node.metadata["page"] for node in reader.load_data(COLOURS, pages=[13, 2])] == [2]
    assert "hcl-colors.pdf, page 13" in caplog.text


def test_one_document_may_have_an_identity_of_its_own(tmp_path: Path) -> None:
    [node] = PdfPageReader().load_data(COLOURS, pages=[2], document_id="colours-7")
    [plain] = PdfPageReader().load_data(COLOURS, pages=[2])
    assert node.metadata["document_id"] == "colours-7"
    assert node.node_id != plain.node_id
    [content] = PdfPageReader(dpi=20).load_data(COLOURS.read_bytes(), pages=[2], document_id="colours-7")
    assert content.node_id == node.node_id
    for files in (tmp_path, [tmp_path], [COLOURS, SCAN]):
        with pytest.raises(ConfigurationError, match="document_id names one document, and"):
            PdfPageReader().load_data(files, document_id="colours-7")


def test_progress_counts_pages_and_failures(tmp_path: Path) -> None:
    (tmp_path / "torn.pdf").write_bytes(COLOURS.read_bytes()[:2000])
    states: list[Progress] = []
    reader = PdfPageReader(on_error="skip")
    assert len(reader.load_data([tmp_path / "torn.pdf", COLOURS], progress=states.append)) == 12
    assert [(state.done, state.total) for state in states] == [(1, 1), *((1 + page, 13) for page in range(1, 13))]
    assert [state.failure is not None for state in states] == [True, *[False] * 12]


def test_nothing_is_drawn_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("pypdfium2.PdfPage.render", lambda page, **options: drawn.append(1))
    assert len(PdfPageReader().load_data(COLOURS)) == 12
    assert drawn == []


def test_extra_info_joins_the_metadata() -> None:
    [node] = PdfPageReader().load_data(COLOURS, {"tenant": "a", "page": "wrong"}, pages=[1])
    assert node.metadata["tenant"] == "a"
    assert node.metadata["page"] == 1


def test_bytes_carry_their_picture() -> None:
    content = COLOURS.read_bytes()
    [node] = PdfPageReader(dpi=20).load_data(content, pages=[1])
    assert node.image is not None
    assert node.image_path is None
    [named] = PdfPageReader(dpi=20).load_data(content, pages=[1], name="upload.pdf")
    assert named.metadata["source"] == "upload.pdf"
    [replaced] = PdfPageReader(dpi=20).load_data(content[:-1] + b" ", pages=[1], name="upload.pdf")
    assert replaced.node_id == named.node_id, "the name is the document"
    [other] = PdfPageReader(dpi=20).load_data(content[:-1] + b" ", pages=[1])
    assert other.node_id != node.node_id, "without a name its content is"


def test_an_image_is_its_own_only_page(tmp_path: Path) -> None:
    path = tmp_path / "harbour.png"
    Image.new("RGB", (40, 30), "red").save(path)
    [node] = PdfPageReader().load_data(path)
    assert (node.text, node.image_path, node.image_mimetype) == ("harbour.png, page 1", str(path), "image/png")
    assert (node.metadata["page"], node.metadata["page_count"]) == (1, 1)
    assert (node.metadata["width"], node.metadata["height"]) == (40, 30)


def encrypted(path: Path) -> Path:
    """A PDF with the password "sesame" (RC4, revision 2), written by hand: pypdfium2 cannot encrypt."""
    import hashlib

    def rc4(key: bytes, data: bytes) -> bytes:
        box = list(range(256))
        j = 0
        for i in range(256):
            j = (j + box[i] + key[i % len(key)]) % 256
            box[i], box[j] = box[j], box[i]
        out, i, j = bytearray(), 0, 0
        for byte in data:
            i = (i + 1) % 256
            j = (j + box[i]) % 256
            box[i], box[j] = box[j], box[i]
            out.append(byte ^ box[(box[i] + box[j]) % 256])
        return bytes(out)

    padding = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    password = (b"sesame" + padding)[:32]
    identifier, permissions = b"0123456789abcdef", -4
    owner = rc4(hashlib.md5(password).digest()[:5], password)
    seed = password + owner + permissions.to_bytes(4, "little", signed=True) + identifier
    user = rc4(hashlib.md5(seed).digest()[:5], padding)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
        b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P %d >>"
        % (owner.hex().encode(), user.hex().encode(), permissions),
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"<< /Size 5 /Root 1 0 R /Encrypt 4 0 R /ID [<%s> <%s>] >>" % ((identifier.hex().encode(),) * 2)
    path.write_bytes(
        body
        + b"xref\n0 5\n0000000000 65535 f \n"
        + table
        + b"trailer\n"
        + trailer
        + b"\nstartxref\n%d\n%%%%EOF" % len(body)
    )
    return path


def test_an_encrypted_document_carries_its_pictures_and_not_the_password(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "secret.pdf")
    with pytest.raises(PdfError, match="encrypted"):
        PdfPageReader().load_data(path)
    with pytest.raises(PdfError, match="password is wrong"):
        PdfPageReader(password="open").load_data(path)
    [node] = PdfPageReader(password="sesame").load_data(path)
    assert node.image is not None
    assert "sesame" not in node.to_json()
    reader = PdfPageReader(password="sesame")
    assert "sesame" not in reader.to_json() + repr(reader)
    assert pickle.loads(pickle.dumps(reader)).load_data(path) == [node]


def test_a_reference_into_an_encrypted_document_is_drawn_with_the_password(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "secret.pdf")
    [node] = PdfPageReader(password="sesame", include_image=False).load_data(path)
    store, found = ColPaliVectorStore(), [NodeWithScore(node=node, score=1.0)]
    with pytest.raises(PdfError, match="encrypted"):
        store.add([node])
    assert store.add([node], password="sesame") == [node.node_id]
    assert asyncio.run(ColPaliVectorStore().async_add([node], password="sesame")) == [node.node_id]
    for draw in (image_blocks, partial(page_message, "what"), PageImagePostprocessor().postprocess_nodes):
        with pytest.raises(PdfError, match="encrypted"):
            draw(found)
    [block] = image_blocks(found, password="sesame")
    assert page_message("what", found, password="sesame").blocks[-1] == block
    postprocessor = PageImagePostprocessor(password="sesame")
    [drawn] = postprocessor.postprocess_nodes(found)
    assert isinstance(drawn.node, ImageNode)
    assert drawn.node.image is not None
    assert "No picture" in to_html(found)
    assert "No picture" not in to_html(found, password="sesame")
    with pytest.raises(PdfError, match="encrypted"):
        ColPaliRerank().postprocess_nodes(found, query_str="secret")
    reranker = ColPaliRerank(password="sesame")
    assert len(reranker.postprocess_nodes(found, query_str="secret")) == 1
    for component in (postprocessor, reranker):
        assert "sesame" not in component.to_json() + repr(component)


def test_simple_directory_reader(tmp_path: Path) -> None:
    target = tmp_path / "colours.pdf"
    target.write_bytes(COLOURS.read_bytes())
    reader = SimpleDirectoryReader(str(tmp_path), file_extractor={".pdf": PdfPageReader()})
    nodes: list[Any] = reader.load_data()
    assert {node.class_name() for node in nodes} == {"ImageNode"}
    assert nodes[0].metadata["file_name"] == "colours.pdf"
    assert nodes[0].metadata["page"] == 1
    assert nodes[0].get_content(MetadataMode.EMBED) == nodes[0].text
    read = PdfPageReader().load_data(target)
    assert [node.node_id for node in nodes] == [node.node_id for node in read], "dates and sizes do not count"


def test_as_the_reader_of_a_pipeline() -> None:
    config = ReaderConfig(reader=PdfPageReader(), reader_args=[str(COLOURS)], reader_kwargs={"pages": [2]})
    made = IngestionPipeline(readers=[config], transformations=[]).run()
    assert list(made) == PdfPageReader().load_data(COLOURS, pages=[2])


def test_the_reader_is_a_component() -> None:
    reader = PdfPageReader(dpi=72, include_image=True)
    data = reader.to_dict()
    assert data["class_name"] == "PdfPageReader"
    assert PdfPageReader.from_dict(json.loads(json.dumps(data))).to_dict() == data
    with pytest.raises(ValidationError, match="resolution"):
        PdfPageReader(resolution=72)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="load_data"):
        PdfPageReader(input_dir="reports")  # type: ignore[call-arg]


def test_another_file_system() -> None:
    files = MemoryFileSystem()
    files.pipe_file("/shelf/colours.pdf", COLOURS.read_bytes())
    [node] = PdfPageReader(dpi=20).load_data("/shelf/colours.pdf", pages=[2], fs=files)
    assert node.metadata["source"] == "/shelf/colours.pdf"
    assert node.image is not None


def test_a_local_file_of_the_same_path_is_another_document(tmp_path: Path) -> None:
    local, files = tmp_path / "colours.pdf", MemoryFileSystem()
    shutil.copy(COLOURS, local)
    files.pipe_file(str(local), SCAN.read_bytes())
    [remote, *_] = PdfPageReader(dpi=20).load_data(local, fs=files)
    [first, *_] = PdfPageReader(dpi=20).load_data(local)
    assert remote.metadata["content_hash"] != first.metadata["content_hash"]
    assert remote.metadata["document_id"] == f"memory://{local}"
    assert remote.node_id != first.node_id
    [named, *_] = PdfPageReader(dpi=20).load_data(local, fs=files, name="scan.pdf", metadata={"tenant": "north"})
    assert (named.metadata["source"], named.metadata["document_id"][:9]) == ("scan.pdf", "memory://")
    assert PdfPageReader(dpi=20).load_data(local, fs=LocalFileSystem()) == PdfPageReader(dpi=20).load_data(local)


def test_a_missing_file_of_another_file_system_is_named_or_skipped(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"cannot read memory:///gone\.pdf"):
        PdfPageReader().load_data("/gone.pdf", fs=MemoryFileSystem())
    assert PdfPageReader(on_error="skip").load_data("/gone.pdf", fs=MemoryFileSystem()) == []
    assert "skipped /gone.pdf" in caplog.text


def test_a_name_is_that_of_one_document(tmp_path: Path) -> None:
    shutil.copy(COLOURS, tmp_path / "a.pdf")
    [named] = PdfPageReader().load_data(tmp_path, name="https://example.org/a.pdf", pages=[1])
    assert named.metadata["source"] == "https://example.org/a.pdf"
    shutil.copy(COLOURS, tmp_path / "b.pdf")
    for several in (tmp_path, [tmp_path / "a.pdf", tmp_path / "b.pdf"], [COLOURS.read_bytes(), b"other"]):
        with pytest.raises(ConfigurationError, match="name names one document, and there are 2"):
            PdfPageReader().load_data(several, name="report.pdf")


@pytest.mark.parametrize("pages", [[0], [1.0], ["1"], "1", 1, [True]])
def test_invalid_page_numbers_are_refused(pages: Any) -> None:
    with pytest.raises(ConfigurationError, match="pages: expected 1-based whole numbers"):
        PdfPageReader(on_error="skip").load_data(COLOURS, pages=pages)


@pytest.mark.parametrize("dpi", [0, -1, float("nan"), float("inf")])
def test_an_impossible_dpi_is_refused(dpi: float) -> None:
    with pytest.raises(ValidationError, match="dpi"):
        PdfPageReader(dpi=dpi)


def test_errors_name_the_document(tmp_path: Path) -> None:
    (tmp_path / "cut.pdf").write_bytes(COLOURS.read_bytes()[:2000])
    (tmp_path / "notes.txt").write_text("not a page")
    with pytest.raises(PdfError, match=r"cut\.pdf"):
        PdfPageReader().load_data(tmp_path / "cut.pdf")
    with pytest.raises(ImageError, match=r"notes\.txt"):
        PdfPageReader().load_data(tmp_path / "notes.txt")
    with pytest.raises(PdfError, match="page 13 was requested"):
        PdfPageReader().load_data(COLOURS, pages=[13])


A3 = {"source": "a.pdf", "page": 3}


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("a.pdf#page=3", A3),
        ("/b c/a#1.pdf#page=12&dpi=72.5", {"source": "/b c/a#1.pdf", "page": 12, "dpi": 72.5}),
        ("a.pdf#page=3&dpi=100&sha256=0123456789abcdef", {**A3, "dpi": 100.0, "content_hash": "0123456789abcdef"}),
        ("a.pdf#page=3&view=fit", A3),
        ("a.pdf", None),
        ("a.pdf#page=", None),
        ("a.pdf#page=x", None),
        ("https://example.org/a.pdf#page=3", None),
        ("data:image/png;base64,AAAA#page=1", None),
    ],
)
def test_references(text: str, metadata: dict[str, Any] | None) -> None:
    reference = PageReference.parse(text)
    assert (reference and reference.metadata) == metadata
    if reference is not None:
        again = PageReference.parse(str(reference))
        assert again is not None
        assert again.metadata == metadata


def test_a_reference_to_nothing() -> None:
    reference = PageReference.parse("missing.pdf#page=1")
    assert reference is not None
    with pytest.raises(InputError, match=r"no file at 'missing\.pdf'"):
        _ = reference.image


def test_page_node_of_a_stores_metadata() -> None:
    [node] = PdfPageReader().load_data(COLOURS, pages=[5])
    assert page_node(node.text, node.metadata) == node
    assert page_node(node.text, node.metadata, node_id="own").ref_doc_id == "own"


def test_frames_of_a_tiff_are_nodes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(frames(3)))
    nodes = PdfPageReader().load_data(path)
    assert [node.metadata["page"] for node in nodes] == [1, 2, 3]
    contents = [base64.b64decode(str(block.image, "ascii")) for block in image_blocks(nodes)]  # type: ignore[arg-type]
    pictures = [load_image(content).getpixel((0, 0)) for content in contents]
    assert pictures == [(20,) * 3, (60,) * 3, (100,) * 3]
    store = ColPaliVectorStore()
    store.add(nodes)
    assert store.embed_model is not None
    assert index_documents(path, model=store.embed_model.model, store=store.client).copied == 3
    assert not caplog.records
    store.close()
    other = ColPaliVectorStore()
    other.add([ImageNode(image_path=str(path))])
    assert "3 frames" in caplog.text
    other.close()


def test_pages_beyond_the_end_of_one_of_several_documents_are_passed_over(tmp_path: Path) -> None:
    few_pages(tmp_path / "short.pdf", [1])
    documents = [tmp_path / "short.pdf", COLOURS]
    assert [node.metadata["page"] for node in PdfPageReader().load_data(documents, pages=[12])] == [12]
    with pytest.raises(InputError, match="no document has any of the requested pages; the longest has 12 pages"):
        PdfPageReader().load_data(documents, pages=[13])


def test_metadata_that_a_page_has_of_its_own_are_refused() -> None:
    for own, given in (({"page": 9}, None), ({}, {"page": 9})):
        with pytest.raises(ConfigurationError, match="each page has its own page"):
            PdfPageReader(metadata=own).load_data(COLOURS, metadata=given)
