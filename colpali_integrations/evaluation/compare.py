"""`evaluate`: questions with known pages, searched by several configurations side by side."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError, MissingExtraError, ModelError
from colpali_integrations.evaluation.configurations import Configuration
from colpali_integrations.evaluation.corpus import Corpus, CorpusPage
from colpali_integrations.evaluation.evaluated import Evaluation
from colpali_integrations.evaluation.questions import Questions
from colpali_integrations.evaluation.reading import read_questions
from colpali_integrations.evaluation.results import Outcome, Unit, outcome, require_unit, results
from colpali_integrations.evaluation.targets import Asked, OnError, find_answers
from colpali_integrations.evaluation.vectors import Pages, Pictures, encoding_folder
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.access import PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.identity import text_key
from colpali_integrations.stores import Entry, Item, MultiVectorStore, ingest, stored_settings
from colpali_integrations.stores.filters import FilterLike
from colpali_integrations.stores.ingestion.progress import ProgressCallback, listening
from colpali_integrations.stores.model_choice import open_model, stored_model

__all__ = ["evaluate"]

Store: TypeAlias = MultiVectorStore | str | os.PathLike[str]
_KEPT = 20  # ids of a ranking that an outcome keeps, at least
_SCORES = 1 << 20  # scores in memory at a time
_CORPUS = "evaluation_corpus"  # in the metadata of pages that came with their questions


def evaluate(
    questions: Any,
    *,
    store: Store | None = None,
    configurations: Iterable[Any] | None = None,
    model: ColPali | str | os.PathLike[str] | None = None,
    k: int | Sequence[int] = 5,
    where: FilterLike = None,
    by: str | None = None,
    over: Unit = "questions",
    on_error: OnError = "raise",
    first_page: int = 1,
    cache: str | os.PathLike[str] | None = None,
    resamples: int = 4000,
    seed: int = 0,
    progress: ProgressCallback | bool = False,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
    **configuration: Any,
) -> Evaluation:
    """Measure how well questions find the pages that answer them: nDCG, recall, MRR and hit rate at `k`.

    Each configuration answers all questions. Means have bootstrap intervals, and differences from the first
    configuration paired ones. Of pages with equal scores, the one of the higher id comes first.

    Args:
        questions: a file of JSON Lines, a folder in the layout of BEIR or ViDoRe, `Question`s or dicts; see
            `read_questions`.
        store: with the pages, or its folder. A data set that brings its pages is embedded into the store, if it is new,
            and into memory without one.
        configurations: `Configuration`s, or their texts such as "blend: hybrid=0.2"; None for the one of
            `configuration`.
        model: encodes the questions, and the pages of a data set; None for the store's, or ColTiny.
        k: how many pages count; of several numbers the first decides which questions are misses.
        where: search only entries that fit this filter.
        by: a key of the questions' metadata, or "document": means per value too.
        over: draw "questions" for the intervals, or whole "documents", for statements about other documents.
        on_error: "raise" an error that names all questions whose pages are not in the store, or "skip" them.
        first_page: the number of a document's first page in the file: 1, or 0.
        cache: a folder that keeps the vectors of other models for later runs; None for a temporary one.
        resamples: number of draws for the intervals.
        seed: of the draws.
        progress: as for `index_documents`, while pages are encoded.
        password: for encrypted PDFs, which other models draw.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`.
        **configuration: fields of a `Configuration`, such as `hybrid=0.2`, instead of `configurations`.

    Raises:
        InputError: the questions cannot be read, or name pages that the store lacks.
        ConfigurationError: an option has an invalid value, or a configuration does not fit the store; no configuration
            has run then.
        StoreError: there is no such store, or it cannot be read.
        FingerprintError: `model` is of another space than the store's.
        MissingExtraError: pyarrow is not installed, for parquet files.

    Example:
        >>> questions = [{"question": "diverging palettes", "source": "report.pdf", "page": 1}]
        >>> result = evaluate(questions, store="my-index", k=1, configurations=["mode=exact", "hybrid=0.2"])
        >>> [(one.name, one.means["ndcg@1"].mean) for one in result.results]
        [('mode=exact', 1.0), ('hybrid=0.2', 1.0)]
    """
    require_unit(over)
    checked_whole(resamples, "resamples")
    asked = read_questions(questions, first_page=first_page)
    chosen = _configurations(configurations, configuration)
    most = _numbers(k)
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    pictures = Pictures(asked.corpus, access)
    with listening(progress) as listener, _opened(store, model, asked, listener) as opened:
        entries = {entry.id: entry for entry in opened.scroll(where)}
        found, skipped = find_answers(asked, entries, opened.where, on_error)
        _require_key(by, found)
        with nullcontext(encoding_folder(cache)) if cache is not None else _temporary() as folder:
            pages = Pages(opened, entries, pictures, folder, listener)
            _check(chosen, pages)
            searched = {}
            for name, one in chosen.items():
                with _naming(name):
                    searched[name] = one, _outcomes(one, pages, found, most, where)
        outcomes = [one for _, some in searched.values() for one in some]
        return Evaluation(
            results=results(searched, over=over, resamples=resamples, seed=seed),
            k=most,
            pages=len(entries),
            model=opened.model.name,
            over=over,
            skipped=skipped,
            by=by,
            entries={id_: entries[id_] for id_ in _named(outcomes)},
            pictures=pictures,
        )


def _numbers(k: int | Sequence[int]) -> list[int]:
    several = list(k) if isinstance(k, list | tuple | range) else [k]
    if not several:
        raise ConfigurationError("k must be a whole number of at least 1, or several, got none")
    return list(dict.fromkeys(checked_whole(one, "k") for one in several))


def _configurations(several: Iterable[Any] | None, fields: Mapping[str, Any]) -> dict[str, Configuration]:
    """The configurations by their names, which are numbered where they are equal."""
    if several is None:
        one = Configuration.of(dict(fields))
        return {one.label: one}
    if fields:
        raise ConfigurationError(
            f"{', '.join(fields)}: pass configurations=, or the fields of a single configuration, not both"
        )
    given = [several] if isinstance(several, str | Mapping | Configuration) else several
    found: dict[str, Configuration] = {}
    for value in given:
        one = Configuration.of(value)
        if one.label in found:
            raise ConfigurationError(f"two configurations are named {one.label!r}; give one another name")
        found[one.label] = one
    if not found:
        raise ConfigurationError("configurations: expected at least one, got none")
    return found


def _check(chosen: Mapping[str, Configuration], pages: Pages) -> None:
    """Check all configurations before the first one runs."""
    for name, one in chosen.items():
        with _naming(name):
            pages.check(one)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the configuration in its errors, also those of pages that it encodes."""
    try:
        yield
    except MissingExtraError:
        raise
    except ColPaliError as error:
        message = f"the configuration {name!r}: {error}"
        # The options of a configuration are its keys for the command line too; those of a page are options of it.
        command = message if isinstance(error, ConfigurationError | ModelError) else None
        raise type(error)(message, command=command) from error


def _require_key(by: str | None, asked: Sequence[Asked]) -> None:
    keys = {"document", *(key for one in asked for key in one.question.metadata)}
    if by is not None and by not in keys:
        reason = f"no question has this key; choose one of {', '.join(map(shown, sorted(keys)))}"
        raise ConfigurationError(f"by={shown(by)}: {reason}", command=f"--by {shown(by)}: {reason}")


def _outcomes(
    configuration: Configuration, pages: Pages, asked: Sequence[Asked], k: Sequence[int], where: FilterLike
) -> list[Outcome]:
    """What each question finds."""
    options = configuration.options(max(k), where if configuration.is_stored else None)
    options = pages.store.decide_hybrid(options, pages.encoder(configuration))
    texts = [one.question.text for one in asked]
    vectors = pages.questions(configuration, texts)
    textless = [entry.id for entry in pages.entries.values() if not entry.has_words]
    depth, kept = len(pages.entries), max(_KEPT, *k)
    together = max(1, _SCORES // max(depth, 1))
    found: list[Outcome] = []
    with pages.searched(configuration) as store:
        for first in range(0, len(asked), together):
            some = slice(first, first + together)
            exact = pages.exact if configuration.is_stored and len(pages.exact) == len(asked) else None
            scores = store.rank_batch(
                vectors[some],
                options,
                texts=texts[some],
                depth=depth,
                textless=textless,
                exact=exact,
            )
            found += [outcome(one, each, k, kept) for one, each in zip(asked[some], scores, strict=True)]
            if configuration.is_stored and not options.ranks_by_words and len(scores) == len(asked):
                complete = all(len(each) == depth for each in scores)  # so they are exact, whatever the mode
                pages.exact = scores if complete else pages.exact
    return found


def _named(outcomes: Iterable[Outcome]) -> set[str]:
    """The ids that the outcomes name."""
    return {id_ for one in outcomes for id_ in (*one.asked.grades, *(found for found, _ in one.ranking))}


# -- the store ------------------------------------------------------------------------------------------------------


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="colpali-evaluate-") as folder:
        yield Path(folder)


@contextmanager
def _opened(
    store: Store | None,
    model: ColPali | str | os.PathLike[str] | None,
    questions: Questions,
    progress: ProgressCallback,
) -> Iterator[MultiVectorStore]:
    """The store of the caller, or of the pages that came with the questions; closed if it was opened here."""
    if isinstance(store, MultiVectorStore):
        if model is not None:
            raise ConfigurationError("model=: open the store with it, MultiVectorStore.open(path, model=model)")
        _add_corpus(store, questions.corpus, store.encoder if questions.corpus is not None else None, progress)
        yield store
        return
    if store is None and questions.corpus is None:
        raise ConfigurationError(
            "there are no pages to search: pass store=, a MultiVectorStore or the folder of an index"
        )
    settings = None if store is None else stored_settings(store)
    is_new = settings is None
    if is_new and questions.corpus is None:
        MultiVectorStore.open(store)  # raises
    encoder: ColPali | None = None
    if is_new:
        made_by = model or "coltiny"
        encoder = open_model(made_by, stored_model(made_by))
    elif model is not None and settings is not None:
        encoder = open_model(model, settings.model)
    read_only = questions.corpus is None
    with MultiVectorStore.open(store, model=encoder, read_only=read_only) as opened:
        _add_corpus(opened, questions.corpus, encoder, progress)
        yield opened


def _add_corpus(
    store: MultiVectorStore, corpus: Corpus | None, model: ColPali | None, progress: ProgressCallback
) -> None:
    """Embed the pages of a data set into a store that is new, or that holds pages of it alone.

    A store with other entries is searched as it is: pages beside them would make another benchmark of it.
    """
    if corpus is None:
        return
    held = {entry.id: entry.metadata.get(_CORPUS) for entry in store.scroll()}
    if any(key != corpus.key for key in held.values()):
        return
    missing = [id_ for id_ in corpus.ids if id_ not in held]
    if missing:
        items = (_item(page, corpus) for page in corpus.pages(missing))
        ingest(items, store=store, model=model or store.encoder, progress=progress, together=_TOGETHER)


_TOGETHER = 16  # pages whose pictures are in memory at a time


def _item(page: CorpusPage, corpus: Corpus) -> Item:
    metadata = {"source": page.id, _CORPUS: corpus.key}
    if page.image is None:
        if not page.text.strip():
            raise InputError(f"{corpus.name}: the page {page.id} has neither a picture nor a text")
        key = text_key(page.text)
    else:
        key = f"corpus:{hashlib.sha256(page.image).hexdigest()}"
    entry = Entry(id=page.id, text=page.text, metadata=metadata, document_id=page.id, content_hash=key)
    image = page.image
    draw: Callable[[], Any] | None = None if image is None else lambda: image
    return Item(id=page.id, key=key, name=f"{corpus.name}, {page.id}", entry=lambda: entry, draw=draw)
