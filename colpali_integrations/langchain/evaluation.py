"""Evaluation with LangChain: LangSmith's evaluators and examples, and drafts of questions by a chat model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.messages.content import create_image_block, create_text_block
from PIL import Image

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import InputError
from colpali_integrations.evaluation import Question, read_questions, wanted_ids
from colpali_integrations.evaluation.drafting import draft
from colpali_integrations.evaluation.metrics import METRICS
from colpali_integrations.evaluation.targets import OnError
from colpali_integrations.evaluation.vectors import Pictures
from colpali_integrations.langchain.chat import chat_model as open_model
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore
from colpali_integrations.pages.access import PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.reference import encode_base64
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.filters import FilterLike

__all__ = ["draft_questions", "page_evaluator", "page_examples"]

_IDS = "ids"


def draft_questions(
    store: MultiVectorStore | ColPaliVectorStore,
    chat_model: BaseChatModel | str,
    *,
    count: int = 20,
    per_page: int = 1,
    where: FilterLike = None,
    seed: int = 0,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> Iterator[Question]:
    """Write questions about pages of a store by a chat model that reads images, for a person to correct.

    Args:
        store: with the pages, which are drawn from their files.
        chat_model: the model, or its name for LangChain's `init_chat_model`, such as "openai:gpt-5".
        count: number of pages, drawn at random in turn from the documents.
        per_page: number of questions per page.
        where: only pages that fit this filter.
        seed: of the draw.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`.

    Yields:
        Questions, as they come; `evaluation.write_questions` saves them as a file that `evaluate` reads.

    Raises:
        InputError: the store has no pages, a page cannot be drawn, the model does not answer with questions, or
            `chat_model` is a name and the package langchain is not installed.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> model = FakeListChatModel(responses=['["Which palettes have two ends?"]'])  # or your own
        >>> with MultiVectorStore.open("my-index") as store:
        ...     [question] = draft_questions(store, model, count=1)
        >>> question.text, question.metadata
        ('Which palettes have two ends?', {'draft': True})
    """
    model = open_model(chat_model) if isinstance(chat_model, str) else chat_model

    def ask(prompt: str, picture: Image.Image) -> str:
        image = create_image_block(base64=encode_base64(picture), mime_type="image/png")
        return str(model.invoke([HumanMessage(content_blocks=[create_text_block(prompt), image])]).text)

    source = store.store if isinstance(store, ColPaliVectorStore) else store
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    drawing = Pictures(access=access)
    return draft(source, ask, count=count, per_page=per_page, where=where, seed=seed, pictures=drawing)


def page_examples(
    questions: Any,
    store: MultiVectorStore | ColPaliVectorStore,
    *,
    where: FilterLike = None,
    on_error: OnError = "raise",
) -> list[dict[str, Any]]:
    """The questions as examples of a LangSmith data set: the question, and the ids of its right pages.

    Args:
        questions: as for `evaluation.read_questions`.
        store: with the pages.
        where: only entries that fit this filter.
        on_error: "raise" an error that names all questions whose pages are not in the store, or "skip" them.

    Returns:
        Dicts for `Client.create_examples(dataset_id=..., examples=...)`.

    Raises:
        InputError: the questions cannot be read, or name pages that the store lacks. With "skip": no question is left.
        ConfigurationError: `on_error` has an invalid value.

    Example:
        >>> questions = [{"question": "palettes", "source": "report.pdf", "page": 1}]
        >>> with MultiVectorStore.open("my-index") as store:
        ...     [example] = page_examples(questions, store)
        >>> example["inputs"], list(example["outputs"]["ids"].values())
        ({'question': 'palettes'}, [1.0])
    """
    source = store.store if isinstance(store, ColPaliVectorStore) else store
    read = read_questions(questions)
    right = wanted_ids(read, source, where=where, on_error=on_error)
    return [
        {"inputs": {"question": one.text}, "outputs": {_IDS: ids}, "metadata": dict(one.metadata)}
        for one, ids in zip(read, right, strict=True)
        if ids
    ]


def page_evaluator(k: int = 5) -> Callable[..., dict[str, Any]]:
    """An evaluator for `langsmith.evaluate`: nDCG, recall, MRR and hit rate of the Documents that a target returns.

    The target returns the Documents of a retriever, as a list in its dict of outputs; the data set's examples are those
    of `page_examples`.

    Args:
        k: how many Documents count.

    Returns:
        A function of `outputs` and `reference_outputs`.

    Raises:
        ConfigurationError: k is not a positive whole number.

    Example:
        >>> from langchain_core.documents import Document
        >>> judge = page_evaluator(k=2)
        >>> found = {"documents": [Document("", id="b"), Document("", id="a")]}
        >>> {one["key"]: round(one["score"], 2) for one in judge(found, {"ids": {"a": 1}})["results"]}
        {'ndcg@2': 0.63, 'recall@2': 1.0, 'mrr@2': 0.5, 'hit@2': 1.0}
    """
    most = checked_whole(k, "k")

    def page_quality(outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> dict[str, Any]:
        grades = reference_outputs.get(_IDS)
        if isinstance(grades, list | tuple):
            grades = dict.fromkeys(grades, 1.0)
        if not isinstance(grades, Mapping) or not grades:
            raise InputError(
                f"the example's outputs need the ids of its right pages in {_IDS!r}, as page_examples writes them; got "
                f"{shown(reference_outputs)}"
            )
        ids = _ids(outputs)
        scores = {name: metric(ids, grades, most) for name, metric in METRICS.items()}
        return {"results": [{"key": f"{name}@{most}", "score": score} for name, score in scores.items()]}

    return page_quality


def _ids(outputs: Mapping[str, Any]) -> list[str]:
    """The ids of the Documents in a target's outputs."""
    for value in outputs.values():
        if isinstance(value, Sequence) and not isinstance(value, str):
            ids = [one.get("id") if isinstance(one, Mapping) else getattr(one, "id", None) for one in value]
            if all(isinstance(one, str) for one in ids):
                return [str(one) for one in ids]
    raise InputError(f"expected a list of Documents with ids among the outputs of the target, got {shown(outputs)}")
