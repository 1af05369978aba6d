"""The two parts of a fingerprint: what vectors can be compared, and what makes the same pages."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.models import find_model
from colpali_integrations.models.fingerprint import Fingerprint, identity, joined, same_identity

COMMIT, OTHER = "a" * 40, "b" * 40
FILES, OTHER_FILES = "sha256:0123456789ab", "sha256:ba9876543210"
MODEL = find_model("vidore/colqwen2-v1.0")
SHARED = replace(MODEL, space="one space")


@pytest.mark.parametrize(
    ("one", "two"), [(None, None), (COMMIT, COMMIT), (COMMIT, None), (None, FILES), (COMMIT, FILES), (FILES, FILES)]
)
def test_revisions_that_agree_or_cannot_be_compared(one: str | None, two: str | None) -> None:
    for first, second in (((one,), (two,)), ((COMMIT, one), (COMMIT, two)), ((one, FILES), (two, None))):
        assert same_identity(identity({"dim": 1}, *first), identity({"dim": 1}, *second))


@pytest.mark.parametrize("moving", ["main", "v1.0", "0123abc", ""])
def test_a_branch_or_a_tag_is_no_revision_because_it_may_move(moving: str) -> None:
    named = replace(MODEL, revision=moving, base_revision=moving).fingerprint
    assert named == replace(MODEL, revision=None).fingerprint
    assert named.same_space(replace(MODEL, revision=COMMIT).fingerprint)


REVISIONS = st.sampled_from([None, COMMIT, OTHER, FILES, OTHER_FILES])


@given(st.lists(st.tuples(REVISIONS, REVISIONS), min_size=1, max_size=6))
def test_a_joined_identity_is_that_of_the_first_revision_of_each_kind(pairs: list[tuple[str | None, ...]]) -> None:
    whole = identity({"dim": 1}, None, None)
    taken: set[tuple[int, str]] = set()
    for pair in pairs:
        known = {(place, one) for place, one in enumerate(pair) if one}
        differs = any(
            place == other_place and one != other and one.startswith("sha256:") == other.startswith("sha256:")
            for place, one in known
            for other_place, other in taken
        )
        assert same_identity(whole, identity({"dim": 1}, *pair)) is not differs
        whole = joined(whole, identity({"dim": 1}, *pair))
        taken |= set() if differs else known
    found = [slot.split(",") for slot in whole.partition("@")[2].split("+")]
    assert {(place, one) for place, slot in enumerate(found) for one in slot if one} == taken


@pytest.mark.parametrize(("one", "two"), [(COMMIT, OTHER), (FILES, OTHER_FILES)])
def test_revisions_that_differ(one: str, two: str) -> None:
    for first, second in (((one,), (two,)), ((COMMIT, one), (COMMIT, two)), ((one, FILES), (two, FILES))):
        assert not same_identity(identity({"dim": 1}, *first), identity({"dim": 1}, *second))
    assert not same_identity(identity({"dim": 1}, one), identity({"dim": 2}, one))


@pytest.mark.parametrize(
    "change",
    [
        {"query_prefix": "<bos>"},
        {"query_suffix": ""},
        {"image_prompt": "<image>"},
        {"max_query_tokens": 9},
        {"dim": 64},
        {"family": "idefics3"},
        {"repository": "me/mine"},
        {"model_file": "model.safetensors"},
    ],
)
def test_weights_prompts_and_dim_make_the_space(change: dict[str, Any]) -> None:
    assert not replace(MODEL, **change).fingerprint.same_space(MODEL.fingerprint)


@pytest.mark.parametrize("name", ["revision", "base_revision"])
def test_the_commits_of_adapter_and_base_make_the_space(name: str) -> None:
    one, two = (replace(MODEL, **{name: commit}).fingerprint for commit in (COMMIT, OTHER))  # type: ignore[arg-type]
    assert not one.same_space(two)
    assert one.same_space(MODEL.fingerprint)


@pytest.mark.parametrize(
    "change", [{"precision": "int8"}, {"max_side": 9}, {"max_num_visual_tokens": 9}, {"drop_blank": True}]
)
def test_settings_of_pages_leave_the_space_as_it_is(change: dict[str, Any]) -> None:
    changed = replace(MODEL, **change).fingerprint
    assert changed.same_space(MODEL.fingerprint)
    assert not changed.pages.matches(MODEL.fingerprint.pages)
    assert changed.pages.options == {"precision": "float32"} | change
    assert changed.key != MODEL.fingerprint.key


@pytest.mark.parametrize(
    "change", [{"name": "x"}, {"summary": "X."}, {"license": "x"}, {"precision": "float32"}, {"allow_unused": ("a",)}]
)
def test_the_rest_changes_nothing(change: dict[str, Any]) -> None:
    assert replace(MODEL, **change).fingerprint == MODEL.fingerprint


def test_an_export_has_the_precision_of_its_files() -> None:
    pages = find_model("Qdrant/colpali-v1.3-fp16").fingerprint.pages
    assert (pages.precision, pages.options, str(pages)) == (None, {}, "settings of its files")


def test_a_named_space_is_shared_whatever_the_weights() -> None:
    other = replace(SHARED, repository="me/larger", revision=COMMIT, family="neomme")
    assert other.fingerprint.same_space(SHARED.fingerprint)
    assert not other.fingerprint.pages.matches(SHARED.fingerprint.pages)
    assert not SHARED.fingerprint.same_space(MODEL.fingerprint)
    assert not replace(SHARED, dim=64).fingerprint.same_space(SHARED.fingerprint)
    assert not replace(SHARED, space="another").fingerprint.same_space(SHARED.fingerprint)


def test_the_key_of_a_cache_is_safe_in_the_name_of_a_file() -> None:
    keys = {replace(SHARED, revision=revision).fingerprint.key for revision in (None, COMMIT, OTHER)}
    assert len(keys) == 3
    assert all(len(key) == 16 and key.isalnum() for key in keys)


def test_fingerprints_survive_their_json_form() -> None:
    fingerprint = replace(SHARED, precision="int8", revision=COMMIT).fingerprint
    assert Fingerprint.from_dict(asdict(fingerprint)) == fingerprint


def test_settings_that_are_not_set_change_none() -> None:
    pages = replace(SHARED, drop_blank=True, max_side=9).fingerprint.pages
    assert pages.changed(SHARED) == replace(pages, precision=SHARED.precision or pages.precision)
    assert SHARED.fingerprint.pages.changed(replace(SHARED, drop_blank=True)).drop_blank is True
