"""Foreign exceptions become errors of the item; those that end the program stay as they are."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations._failures import item_error
from colpali_integrations.errors import EncodingError, InputError, PdfError
from colpali_integrations.stores import DocumentSource, MultiVectorStore
from colpali_integrations.stores.ingest import ingest


class PanicException(BaseException):
    """As pyo3 raises it."""


FOREIGN = [MemoryError, RecursionError, PanicException, SystemExit, GeneratorExit, ZeroDivisionError]


def test_foreign_exceptions_are_wrapped() -> None:
    cause = ValueError("negative size")
    error = item_error(cause)
    assert type(error) is InputError
    assert str(error) == "ValueError: negative size"
    assert error.__cause__ is cause
    assert type(item_error(cause, EncodingError)) is EncodingError
    assert str(item_error(MemoryError())) == "out of memory"
    assert isinstance(item_error(SystemExit(3)), InputError)
    assert isinstance(item_error(GeneratorExit()), InputError)


def test_own_errors_stay() -> None:
    error = PdfError("torn")
    assert item_error(error, EncodingError) is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError])
def test_what_ends_the_program_is_raised(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        item_error(error)
    assert caught.value is error


class Server:
    def stop(self, *_: object) -> NoReturn:
        sys.exit("stopped")


class Stop:
    def __call__(self, *_: object) -> NoReturn:
        sys.exit("stopped")


def stop(*_: object) -> NoReturn:
    sys.exit("stopped")


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("handler", [stop, Server().stop, partial(stop, 1), Stop()])
def test_a_program_that_is_told_to_stop_stops(handler: Callable[..., object]) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                sum(range(10))
            except BaseException as error:
                item_error(error)
    finally:
        signal.signal(signal.SIGTERM, before)


def raising(kind: type[BaseException]) -> Callable[[], Any]:
    def read() -> NoReturn:
        raise kind

    return read


@pytest.mark.parametrize("kind", FOREIGN)
def test_one_bad_document_ends_no_run(kind: type[BaseException], coltiny: ColPali, tmp_path: Path) -> None:
    good = [Image.new("RGB", (40 + number, 40), "white") for number in range(2)]
    sources = [DocumentSource(source=good[0]), DocumentSource(source=raising(kind)), DocumentSource(source=good[1])]
    report = ingest(sources, store=MultiVectorStore.open(model=coltiny), model=coltiny, on_error="skip")
    assert (report.added, len(report.failures)) == (2, 1)


@pytest.mark.parametrize("kind", FOREIGN)
def test_one_bad_picture_ends_no_run(kind: type[BaseException], coltiny: ColPali) -> None:
    good = Image.new("RGB", (40, 40), "white")
    errors: list[Any] = []
    pages = list(coltiny.embed_images([good, BadFile(kind), good], on_error=errors.append))  # type: ignore[list-item]
    assert (len(pages), len(errors), errors[0].index) == (2, 1, 1)


class BadFile:
    """A file whose reading raises."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    def read(self) -> bytes:
        raise self._kind
