"""What a multimodal chat model gets of found pages."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata, TextBlock
from llama_index.core.base.response.schema import Response
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageDocument, ImageNode, NodeWithScore, TextNode
from PIL import Image
from pydantic import PrivateAttr, ValidationError

from colpali_integrations import pdf_pages
from colpali_integrations.errors import InputError
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    PageImagePostprocessor,
    PdfPageReader,
    image_blocks,
    page_message,
)

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


def test_a_data_uri_becomes_png(tmp_path: Path) -> None:
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg(tmp_path).read_bytes()).decode()
    [block] = image_blocks(ImageNode(image_url=uri))
    assert (block.image_mimetype, opened(block).size) == ("image/png", (40, 30))


def test_a_url_stays_one() -> None:
    [block] = image_blocks(ImageNode(image_url="https://example.org/a.png"))
    assert (str(block.url), block.image) == ("https://example.org/a.png", None)


def test_a_text_node_that_tells_its_page() -> None:
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


# -- the postprocessor ----------------------------------------------------------------------------------------------


async def test_found_pages_get_their_pictures(tmp_path: Path) -> None:
    [page] = PdfPageReader(dpi=30).load_data(COLOURS, pages=[2])
    before = page.model_copy(deep=True)
    others = [TextNode(text="words"), ImageNode(image_path=str(jpeg(tmp_path))), ImageNode(image="aGVsbG8=")]
    given = [NodeWithScore(node=page, score=0.7), *(NodeWithScore(node=node, score=0.1) for node in others)]
    postprocessor = PageImagePostprocessor()
    for made in (postprocessor.postprocess_nodes(given), await postprocessor.apostprocess_nodes(given)):
        assert made[1:] == given[1:]
        node = made[0].node
        assert isinstance(node, ImageNode)
        assert (node.node_id, node.text, node.metadata) == (page.node_id, page.text, page.metadata)
        assert (made[0].score, node.image_path, node.image_mimetype) == (0.7, None, "image/png")
        assert Image.open(io.BytesIO(base64.b64decode(node.image or ""))).tobytes() == drawn(2, 30)
    assert page == before
    [coarse] = PageImagePostprocessor(dpi=15).postprocess_nodes(given[:1])
    assert Image.open(io.BytesIO(base64.b64decode(coarse.node.image))).tobytes() == drawn(2, 15)  # type: ignore[attr-defined]


def test_the_postprocessor_is_a_component() -> None:
    postprocessor = PageImagePostprocessor(dpi=72)
    data = postprocessor.to_dict()
    assert (data["class_name"], data["dpi"]) == ("PageImagePostprocessor", 72)
    assert PageImagePostprocessor.from_dict(json.loads(json.dumps(data))).to_dict() == data
    with pytest.raises(ValidationError, match="dpi"):
        PageImagePostprocessor(dpi=0)


class Reader(MockLLM):
    """A chat model that keeps what it was shown."""

    _seen: list[ChatMessage] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    @property
    def images(self) -> list[ImageBlock]:
        return [block for message in self._seen for block in message.blocks if isinstance(block, ImageBlock)]

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        self._seen = list(messages)
        return ChatResponse(message=ChatMessage(role="assistant", content="from page 2"))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self.chat(messages, **kwargs)


async def test_a_query_engine_answers_from_page_images() -> None:
    embedding = ColPaliEmbedding()
    nodes = PdfPageReader(dpi=40).load_data(COLOURS, pages=[2])
    index = MultiModalVectorStoreIndex(nodes=nodes, embed_model=embedding, image_embed_model=embedding)
    retriever = index.as_retriever(similarity_top_k=0, image_similarity_top_k=1)
    llm = Reader(max_tokens=None)
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=llm, multimodal=True, node_postprocessors=[PageImagePostprocessor()]
    )
    for response in (engine.query("which palette?"), await engine.aquery("which palette?")):
        assert isinstance(response, Response)
        assert response.response == "from page 2"
        assert {opened(block).tobytes() for block in llm.images} == {drawn(2, 40)}
        assert {node.metadata["page"] for node in response.source_nodes} == {2}
        shown = " ".join(message.content or "" for message in llm._seen)
        assert "page: 2" in shown
        assert "content_hash" not in shown
