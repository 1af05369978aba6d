"""Foreign exceptions become errors of the item; those that end the program stay as they are."""

from __future__ import annotations

import pytest

from colpali_integrations._failures import item_error
from colpali_integrations.errors import EncodingError, InputError, PdfError


def test_foreign_exceptions_are_wrapped() -> None:
    cause = ValueError("negative size")
    error = item_error(cause)
    assert type(error) is InputError
    assert str(error) == "ValueError: negative size"
    assert error.__cause__ is cause
    assert type(item_error(cause, EncodingError)) is EncodingError
    assert str(item_error(MemoryError())) == "out of memory"


def test_own_errors_stay() -> None:
    error = PdfError("torn")
    assert item_error(error, EncodingError) is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_is_raised(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        item_error(error)
    assert caught.value is error
