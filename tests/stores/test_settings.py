"""The settings of a store, and the model that it records: which questions it takes, and which pages."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.models import find_model
from colpali_integrations.scoring.bm25 import TOKENIZER
from colpali_integrations.stores import Settings, StoredModel

from .stored_models import made_up

NAMED = find_model("Hcompany/NeoMME-260M-Retriever")
LOADED = replace(NAMED, revision="a" * 40)
# Two made-up checkpoints that are trained for one space.
LARGE = replace(LOADED, name="me/large", repository="me/large", space="me/pages")
SMALL = replace(LARGE, name="me/small", repository="me/small", revision="c" * 40)


def stored(description: Any = LOADED, **fields: Any) -> StoredModel:
    return StoredModel.of(replace(description, **fields))


def test_the_advice_for_a_model_that_changed_is_not_to_use_that_model() -> None:
    before, after = stored(), stored(revision="b" * 40)
    with pytest.raises(FingerprintError, match=rf"the store was made by .*{NAMED.name}' has changed; index again"):
        before.require_space(after, where="the store")
    with pytest.raises(FingerprintError, match=rf"use the model '{NAMED.name}', .* or make a new store with 'other'"):
        before.require_space(replace(after, name="other"), where="the store")


def test_a_model_that_follows_a_branch_matches_its_commit() -> None:
    assert stored(NAMED).same_pages(stored())
    assert not stored().same_space(stored(revision="b" * 40))
    assert not stored(NAMED).same_space(stored(NAMED, query_prefix="<bos>Question: "))


@pytest.mark.parametrize("settings", [{"precision": "int8"}, {"max_side": 1440}])
def test_other_settings_may_ask_and_not_add(settings: dict[str, Any]) -> None:
    exact, other = stored(), stored(**settings)
    for one, two in ((exact, other), (other, exact)):
        one.require_space(two, where="the store")
        with pytest.raises(FingerprintError) as error:
            one.require_pages(two, where="the store")
        for model in (one, two):
            assert f"{NAMED.name} ({model.fingerprint.pages})" in str(error.value)
    with pytest.raises(FingerprintError, match=r"from_pretrained\('Hcompany/NeoMME-.*', precision='float32'"):
        exact.require_pages(other, where="the store")


def test_models_of_one_space_may_ask_and_not_add() -> None:
    large, small = stored(LARGE), stored(SMALL)
    large.require_space(small, where="the store")
    small.require_space(large, where="the store")
    with pytest.raises(FingerprintError, match=r"me/large \(.*me/small \(.*from_pretrained\('me/large'"):
        large.require_pages(small, where="the store")
    for other in (stored(), stored(SMALL, space="me/other-pages"), stored(SMALL, dim=64)):
        with pytest.raises(FingerprintError, match="cannot be compared"):
            large.require_space(other, where="the store")


def test_the_page_settings_of_two_checkpoints_of_a_space_are_compared_too() -> None:
    changed = stored(LARGE, revision="d" * 40)
    stored(LARGE).require_space(changed, where="the store")
    with pytest.raises(FingerprintError, match=r"weights .*@aaaaa.*weights .*@ddddd"):
        stored(LARGE).require_pages(changed, where="the store")


def test_a_record_survives_its_json_form() -> None:
    for model in (stored(), stored(LARGE, precision="int8", max_side=1024), made_up("x")):
        assert StoredModel.from_dict(model.to_dict()) == model
    later = {**stored().to_dict(), "later": 1}
    later["fingerprint"] = {**later["fingerprint"], "later": 2}
    later["fingerprint"]["pages"] = {**later["fingerprint"]["pages"], "later": 3}
    assert StoredModel.from_dict(later) == stored()


@pytest.mark.parametrize("number", [3, 6, None])
def test_settings_of_another_format_are_refused_with_advice(number: int | None) -> None:
    values = {**Settings(model=stored()).to_dict(), "format": number}
    with pytest.raises(
        StoreError, match=rf"has format {number}, this version reads 4 and 5: index its documents into a new"
    ):
        Settings.from_dict(values, where="the store x")


@pytest.mark.parametrize("fingerprint", [None, "0123", {}, {"space": "x"}, {"space": "x", "pages": "y"}])
def test_a_damaged_fingerprint_is_reported(fingerprint: Any) -> None:
    values = Settings(model=stored()).to_dict()
    values["model"]["fingerprint"] = fingerprint
    with pytest.raises(StoreError, match="damaged description"):
        Settings.from_dict(values, where="the store x")


def test_an_empty_name_of_a_space_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="space must be a non-empty string or None"):
        replace(NAMED, space="")


def test_a_store_keeps_the_tokenizer_that_made_it() -> None:
    settings = Settings(model=made_up("fake"))
    assert Settings.from_dict(settings.to_dict(), where="here").tokenizer == TOKENIZER
    before = {name: value for name, value in settings.to_dict().items() if name != "tokenizer"}
    assert Settings.from_dict(before, where="here").tokenizer == 1
    with pytest.raises(StoreError, match="here splits texts into words in a way of a later version"):
        Settings.from_dict({**before, "tokenizer": TOKENIZER + 1}, where="here")
    for wrong in ("2", 0, None, [2]):
        with pytest.raises((StoreError, ConfigurationError), match="tokenizer"):
            Settings.from_dict({**before, "tokenizer": wrong}, where="here")


WRONG_VALUES: list[Any] = [None, [], {}, 1.5, "x", True]


def test_no_value_of_a_manifest_is_of_another_type() -> None:
    """Each is refused when the store is opened, and not by a search or an addition later."""
    whole = Settings(model=StoredModel.of(find_model("coltiny"))).to_dict()

    def places(values: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, value in values.items():
            yield (*before, name)
            if isinstance(value, dict):
                yield from places(value, (*before, name))

    free = {"max_side", "max_num_visual_tokens", "drop_blank", "precision", "language"}  # these may be null
    for *path, name in places(whole):
        for wrong in WRONG_VALUES:
            right = {"best_match": (1.5,), "unit_length": (True,), "drop_blank": (True,)}.get(
                name, ("x",) if name != "dim" else ()
            )
            if wrong in right or (wrong is None and name in free):
                continue
            values = copy.deepcopy(whole)
            inner = values
            for one in path:
                inner = inner[one]
            inner[name] = wrong
            with pytest.raises((StoreError, ConfigurationError)):
                Settings.from_dict(values, where="here")
