"""Found pages for a multimodal chat model, and as a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, NodeWithScore, TextNode
from PIL import Image

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations.errors import InputError
from colpali_integrations.llama_index import (
    ColPaliRetriever,
    ColPaliVectorStore,
    PageImagePostprocessor,
    PdfPageReader,
    image_blocks,
    page_message,
    to_html,
)
from colpali_integrations.llama_index.schema import page_node
from colpali_integrations.pages.identity import file_digest, page_hash
from colpali_integrations.stores import MultiVectorStore
from tests.stores.documents import make_store

COLOURS = Path(__file__).parent.parent.parent / "demo" / "pdfs" / "hcl-colors.pdf"


def opened(block: ImageBlock) -> Image.Image:
    return Image.open(io.BytesIO(block.resolve_image().read()))


def drawn(number: int, dpi: float) -> bytes:
    return next(iter(pdf_pages(COLOURS, dpi=dpi, pages=[number]))).image.tobytes()


def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


# -- blocks ---------------------------------------------------------------------------------------------------------


def test_references_are_drawn() -> None:
    nodes = PdfPageReader(dpi=30).load_data(COLOURS, pages=[3, 1])
    for blocks in (image_blocks(nodes), image_blocks([NodeWithScore(node=node, score=1.0) for node in nodes])):
        assert [type(block) for block in blocks] == [ImageBlock, ImageBlock]
        assert [block.image_mimetype for block in blocks] == ["image/png", "image/png"]
        assert [opened(block).tobytes() for block in blocks] == [drawn(3, 30), drawn(1, 30)]
    [block] = image_blocks(nodes[0], dpi=60, detail="low")
    assert opened(block).tobytes() == drawn(3, 60)
    assert block.detail == "low"
    assert block.inline_url().startswith("data:image/png;base64,iVBOR")


def test_pictures_that_are_there_are_handed_over(tmp_path: Path) -> None:
    path = jpeg(tmp_path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    nodes = [
        ImageNode(image_path=str(path)),
        ImageNode(image=encoded),
        ImageDocument(image_path=str(path)),
        ImageDocument(image=encoded),
    ]
    for block in image_blocks(nodes):
        assert block.resolve_image().read() == path.read_bytes()
        assert block.image_mimetype == "image/jpeg"


def test_formats_that_chat_models_do_not_take_become_png(tmp_path: Path) -> None:
    path = tmp_path / "scan.tiff"
    Image.new("RGB", (40, 30), "red").save(path)
    [block] = image_blocks(ImageNode(image_path=str(path)))
    assert block.image_mimetype == "image/png"
    assert (opened(block).format, opened(block).getpixel((0, 0))) == ("PNG", (255, 0, 0))


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path: Path) -> None:
    pdf, tiff, unnamed = tmp_path / "scan.jpg", tmp_path / "t.png", tmp_path / "photo"
    pdf.write_bytes(COLOURS.read_bytes())
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tiff, "TIFF", save_all=True, append_images=frames[1:])
    unnamed.write_bytes(jpeg(tmp_path).read_bytes())
    page = {"page": 3, "text_hash": "0", "content_hash": page_hash(file_digest(tiff), 3), "page_count": 3}
    stored = TextNode(text="t.png, page 3", metadata={"source": str(tiff), **page})
    nodes: list[BaseNode] = [ImageNode(image_path=f"{pdf}#page=1"), ImageNode(image_path=f"{tiff}#page=3"), stored]
    blocks = image_blocks([*nodes, ImageNode(image_path=str(tiff))])
    assert [(block.image_mimetype, opened(block).format) for block in blocks] == [("image/png", "PNG")] * 4
    assert opened(blocks[0]).tobytes() == drawn(1, 150)
    assert [opened(block).getpixel((0, 0)) for block in blocks[1:]] == [(0, 0, 255), (0, 0, 255), (255, 0, 0)]
    [block] = image_blocks(ImageNode(image_path=str(unnamed)))
    assert (block.image_mimetype, block.resolve_image().read()) == ("image/jpeg", unnamed.read_bytes())
    [result] = PageImagePostprocessor().postprocess_nodes([NodeWithScore(node=page_node("", dict(stored.metadata)))])
    assert isinstance(result.node, ImageNode)
    assert (result.node.image_mimetype, base64.b64decode(result.node.image or "")[:4]) == ("image/png", b"\x89PNG")


def test_a_data_uri_becomes_png(tmp_path: Path) -> None:
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg(tmp_path).read_bytes()).decode()
    [block] = image_blocks(ImageNode(image_url=uri))
    assert (block.image_mimetype, opened(block).size) == ("image/png", (40, 30))


def test_a_url_stays_one() -> None:
    [block] = image_blocks(ImageNode(image_url="https://example.org/a.png"))
    assert (str(block.url), block.image) == ("https://example.org/a.png", None)


def test_a_text_node_with_a_page_is_drawn() -> None:
    [page] = PdfPageReader(dpi=30).load_data(COLOURS, pages=[2])
    [block] = image_blocks(TextNode(text=page.text, metadata=page.metadata))
    assert opened(block).tobytes() == drawn(2, 30)


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(InputError, match="refers to no page"):
        image_blocks([TextNode(text="words only")])
    assert image_blocks([]) == []


def test_a_message_names_its_pages() -> None:
    nodes = PdfPageReader(dpi=30).load_data(COLOURS, pages=[3, 1])
    message = page_message("Which palette?", nodes, dpi=20, detail="high")
    assert message.role == "user"
    texts = [block.text for block in message.blocks if isinstance(block, TextBlock)]
    assert texts == ["Which palette?", "hcl-colors.pdf, page 3", "hcl-colors.pdf, page 1"]
    images = [block for block in message.blocks if isinstance(block, ImageBlock)]
    assert [type(block) for block in message.blocks[1:]] == [TextBlock, ImageBlock] * 2
    assert [opened(block).tobytes() for block in images] == [drawn(3, 20), drawn(1, 20)]
    assert {block.detail for block in images} == {"high"}
    assert [block.block_type for block in page_message("Q", nodes[0]).blocks] == ["text", "text", "image"]


# -- reports ---------------------------------------------------------------------------------------------------------


QUESTION = "prices of bananas"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    with make_store(tmp_path_factory.mktemp("reports"), coltiny) as store:
        yield store


def test_nodes_are_shown_with_their_regions(pages: MultiVectorStore) -> None:
    found = ColPaliRetriever(pages, similarity_top_k=3, regions=True).retrieve(QUESTION)
    report = to_html(found, QUESTION)
    assert report.count("<article") == 1, "the other pages have nothing of the question"
    assert report.count("<figure") == 1, "pages of a PDF and a picture"
    assert "fruit.pdf, page 2" in report
    assert f"score <b>{found[0].score:.2f}</b>" in report
    assert 'aria-label="bananas: ' in report
    assert 'class="heat' not in report
    with_heat = to_html(found, QUESTION, store=ColPaliVectorStore(store=pages))
    assert 'class="heat all"' in with_heat
    assert to_html(found, QUESTION, limit=1).count("<article") == 1


def test_the_response_of_a_query_engine_stands_for_its_nodes(pages: MultiVectorStore) -> None:
    found = ColPaliRetriever(pages, similarity_top_k=2).retrieve(QUESTION)
    response = Response("bananas", source_nodes=found)
    assert to_html(response, QUESTION) == to_html(found, QUESTION)
    assert image_blocks(response) == image_blocks(found)
    assert page_message(QUESTION, response) == page_message(QUESTION, found)


def test_nodes_without_pages_are_shown() -> None:
    nodes: list[NodeWithScore | BaseNode] = [
        NodeWithScore(node=TextNode(text="<script>x</script>"), score=None),
        TextNode(text="bare"),
        ImageNode(image_path="gone.png", metadata={"source": "gone.png", "page": 1}),
    ]
    report = to_html(nodes, "q")
    assert "<script" not in report
    assert "&lt;script&gt;" in report
    assert "<figure" not in report
    assert "No picture: " in report
