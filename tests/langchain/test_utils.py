"""Found pages as blocks of a chat message, and as a report."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, messages_from_dict, messages_to_dict
from langchain_core.messages.content import create_text_block
from langchain_core.runnables import RunnableLambda
from PIL import Image

from colpali_integrations import ColPali, pdf_pages
from colpali_integrations.errors import InputError
from colpali_integrations.langchain import (
    ColPaliEmbeddings,
    ColPaliVectorStore,
    PdfPageLoader,
    image_blocks,
    to_html,
)
from tests.stores.documents import make_store

SLIDES = Path(__file__).parents[2] / "demo" / "pdfs" / "metropolis-slides.pdf"


def pictures(message: HumanMessage) -> list[Image.Image]:
    """The images of a message, decoded."""
    blocks: list[Any] = [block for block in message.content_blocks if block["type"] == "image"]
    assert all(block["mime_type"] == "image/png" for block in blocks)
    return [Image.open(io.BytesIO(base64.b64decode(block["base64"]))) for block in blocks]


def test_pages_are_drawn_into_a_message_that_round_trips() -> None:
    documents = PdfPageLoader(SLIDES, pages=[4, 2], dpi=50).load()
    message = HumanMessage(content_blocks=[create_text_block("What is shown?"), *image_blocks(documents)])
    [again] = messages_from_dict(json.loads(json.dumps(messages_to_dict([message]))))
    assert again == message
    assert isinstance(again, HumanMessage)
    expected = [page.image for page in pdf_pages(SLIDES, pages=[4, 2], dpi=50)]
    assert [image.tobytes() for image in pictures(again)] == [image.tobytes() for image in expected]


@pytest.mark.parametrize("form", ["openai", "anthropic-like"])
def test_blocks_are_translated_for_providers(form: str) -> None:
    """The standard block, from which LangChain's partner packages make their providers' own."""
    [block] = image_blocks(PdfPageLoader(SLIDES, pages=[1], dpi=20).load())
    if form == "openai":
        from langchain_core.messages.block_translators.openai import convert_to_openai_image_block

        url = convert_to_openai_image_block(dict(block))["image_url"]["url"]
        assert url.startswith("data:image/png;base64,iVBOR")
    else:
        assert {"type": "image", "mime_type": "image/png"}.items() <= dict(block).items()
        assert set(block) == {"type", "id", "base64", "mime_type"}


def test_another_resolution_and_captions() -> None:
    documents = PdfPageLoader(SLIDES, pages=[1, 2]).load()
    blocks: list[Any] = image_blocks(documents, dpi=20, captions=True)
    assert [block["type"] for block in blocks] == ["text", "image", "text", "image"]
    assert [block["text"] for block in blocks[::2]] == [
        "metropolis-slides.pdf, page 1",
        "metropolis-slides.pdf, page 2",
    ]
    [image, _] = pictures(HumanMessage(content_blocks=blocks))
    assert image.size == next(pdf_pages(SLIDES, dpi=20)).image.size


def test_base64_in_the_metadata_is_used_without_a_file() -> None:
    blob = Blob.from_data(SLIDES.read_bytes(), path="no/such/file.pdf")
    documents = PdfPageLoader(blob, pages=[2], dpi=30, include_image=True).load()
    [image] = pictures(HumanMessage(content_blocks=image_blocks(documents, captions=True)))
    assert image.tobytes() == next(pdf_pages(SLIDES, pages=[2], dpi=30)).image.tobytes()
    # Another resolution cannot be had, and what there is is better than nothing.
    assert len(image_blocks(documents, dpi=100)) == 1


def test_a_picture_without_a_source_has_a_caption() -> None:
    [document] = PdfPageLoader(SLIDES, pages=[2], dpi=30, include_image=True).load()
    bare = Document("a scan", metadata={"image_base64": document.metadata["image_base64"]})
    [text, _] = image_blocks([bare], captions=True)
    assert dict(text)["text"] == "image"


def test_an_image_file_is_its_own_page(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7), "red").save(tmp_path / "red.jpg", quality=100)
    [image] = pictures(HumanMessage(content_blocks=image_blocks(PdfPageLoader(tmp_path / "red.jpg").load())))
    assert image.size == (9, 7)


def test_a_file_path_beside_a_foreign_source_is_followed() -> None:
    blob = Blob.from_path(SLIDES, metadata={"source": "https://example.org/slides.pdf"})
    documents = PdfPageLoader(blob, pages=[1], dpi=20).load()
    [text, image] = image_blocks(documents, captions=True)
    assert text["type"] == "text"
    assert text["text"] == "slides.pdf, page 1"
    assert image["type"] == "image"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document("text"), "the metadata refers to no page.*keys are: none"),
        (Document("text", metadata={"source": str(SLIDES)}), "'page' \\(1-based\\)"),
        (Document("text", metadata={"source": "gone.pdf", "page": 2}), "cannot draw gone.pdf, page 2: no file at"),
        (Document("text", metadata={"source": str(SLIDES), "page": 0}), "pages 1 to 33; page 0"),
    ],
)
def test_other_documents_are_refused_with_a_remedy(document: Document, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_blocks([document], roots=[SLIDES.parent, "."])
    for present in (image_blocks, to_html):
        with pytest.raises(InputError, match=r"got one Document; pass \[document\]"):
            present(document)  # type: ignore[arg-type]


def test_no_documents_make_no_blocks() -> None:
    assert image_blocks([]) == []


def test_a_chain_shows_the_found_pages_to_a_chat_model() -> None:
    seen: list[HumanMessage] = []
    model = GenericFakeChatModel(messages=iter([AIMessage("On page 3.")]))

    def prompt(question: str) -> list[HumanMessage]:
        pages = PdfPageLoader(SLIDES, pages=[3], dpi=40).load()
        message = HumanMessage(content_blocks=[create_text_block(question), *image_blocks(pages)])
        seen.append(message)
        return [message]

    assert (RunnableLambda(prompt) | model).invoke("Where are the figures?").content == "On page 3."
    assert len(pictures(seen[0])) == 1


def test_a_missing_langchain_is_an_error_that_names_the_command() -> None:
    code = "import sys; sys.modules['langchain_core'] = None; import colpali_integrations.langchain"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("colpali_integrations.errors.MissingExtraError: ")
    assert 'pip install "colpali-integrations[langchain]"' in last


# -- reports ---------------------------------------------------------------------------------------------------------

QUESTION = "prices of bananas"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Iterator[ColPaliVectorStore]:
    with make_store(tmp_path_factory.mktemp("reports"), coltiny) as pages:
        yield ColPaliVectorStore(ColPaliEmbeddings(), store=pages)


def test_documents_are_shown_with_their_regions(store: ColPaliVectorStore) -> None:
    found = store.as_retriever(search_kwargs={"k": 2, "regions": True}).invoke(QUESTION)
    report = to_html(found, QUESTION)
    assert report.count("<article") == 2
    assert report.count("<figure") == 2
    assert "fruit.pdf, page 2" in report
    assert f"score <b>{found[0].metadata['score']:.2f}</b>" in report
    assert 'aria-label="bananas: ' in report
    assert 'class="heat' not in report
    with_heat = to_html(found, QUESTION, vectorstore=store)
    assert 'class="heat all"' in with_heat
    assert "coltiny" in with_heat
    bare = store.as_retriever(search_kwargs={"k": 1}).invoke(QUESTION)
    assert 'aria-label="bananas: ' in to_html(bare, QUESTION, vectorstore=store)
    assert to_html(found, QUESTION, limit=1).count("<article") == 1


def test_documents_of_other_loaders_are_shown() -> None:
    report = to_html([Document("<script>x</script> a text", metadata={"source": "a.pdf", "page": 0})], "<b>")
    assert "<script" not in report
    assert "<b>&lt;" not in report
    assert "&lt;script&gt;x&lt;/script&gt; a text" in report
    assert "<figure" not in report
