"""Options of the command line that are parsed before a command begins."""

from __future__ import annotations

import time

import pytest
from typer import BadParameter

from colpali_integrations.cli.app import run
from colpali_integrations.cli.options import page_numbers, tags


@pytest.mark.parametrize("text", ["1-99999999999", "7" * 5000, "1-1000000,5", "0000000000001-1000001"])
def test_more_pages_than_a_document_may_have_are_refused_at_once(text: str) -> None:
    before = time.process_time()
    with pytest.raises(BadParameter, match="more than 1,000,000 pages"):
        page_numbers(text)
    assert time.process_time() - before < 1


def test_page_ranges_may_end_beyond_the_document() -> None:
    numbers = page_numbers("000002, 5-999999")
    assert numbers is not None
    assert (numbers[:3], numbers[-1]) == ([2, 5, 6], 999_999)


def test_metadata_of_many_levels_are_refused_by_their_key() -> None:
    with pytest.raises(BadParameter, match="topics has too many levels"):
        tags(["topics=" + "[" * 100_000])


@pytest.mark.parametrize("option", ["--first-stage", "--datatype", "--on-error", "--precision"])
def test_a_choice_that_there_is_not_is_told_with_those_there_are(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["index", "a.pdf", "--store", "index", option, "int3"]) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"Invalid value for '{option}': 'int3' is not one of '" in error
