"""MetadataFilters have the meaning of LlamaIndex's own filter function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from colpali_integrations.errors import InputError
from colpali_integrations.llama_index._filters import store_filter
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import Filter, matches

OP = FilterOperator
EQUALITIES = [OP.EQ, OP.NE]
MEMBERSHIPS = [OP.IN, OP.NIN]
RANGES = [OP.GT, OP.GTE, OP.LT, OP.LTE]
TEXTS = [OP.TEXT_MATCH, OP.TEXT_MATCH_INSENSITIVE]
LISTS = [OP.ANY, OP.ALL]

texts = st.text("aBbé", max_size=3)
# Floats that are whole numbers too, and the two that Python takes for bools.
numbers = st.one_of(st.integers(-2, 3), st.sampled_from([0.0, 1.0, -0.5, 2.5]))
truths = st.sampled_from([0, 1, 0.0, 1.0])
number_lists = st.lists(st.integers(-1, 2), max_size=3)
text_lists = st.lists(texts, max_size=3)

# By key the kind of value, so that LlamaIndex's function, which fails for kinds that do not go together, can judge.
metadata = st.fixed_dictionaries(
    {"number": numbers, "flag": st.booleans()},
    optional={"text": st.none() | texts, "texts": st.none() | text_lists, "numbers": st.none() | number_lists},
) | st.fixed_dictionaries({}, optional={"number": st.none(), "flag": st.none(), "text": texts, "texts": text_lists})


def leaf(key: str, operators: list[OP], values: st.SearchStrategy[Any]) -> st.SearchStrategy[MetadataFilter]:
    return st.builds(MetadataFilter, key=st.just(key), operator=st.sampled_from(operators), value=values)


leaves = st.one_of(
    leaf("text", EQUALITIES, texts | numbers),
    leaf("text", MEMBERSHIPS, text_lists | number_lists),
    leaf("text", [*RANGES, *TEXTS, OP.CONTAINS], texts),
    leaf("text", LISTS, text_lists),
    leaf("number", EQUALITIES, texts | numbers),
    leaf("number", MEMBERSHIPS, text_lists | number_lists),
    leaf("number", RANGES, numbers),
    leaf("flag", EQUALITIES, texts | truths),
    leaf("flag", MEMBERSHIPS, st.lists(truths, max_size=2)),
    leaf("flag", RANGES, numbers),
    leaf("texts", EQUALITIES, text_lists),
    leaf("texts", [OP.CONTAINS], texts | numbers),
    leaf("texts", LISTS, text_lists | number_lists),
    leaf("numbers", EQUALITIES, number_lists),
    leaf("numbers", [OP.CONTAINS], numbers | texts),
    leaf("numbers", LISTS, number_lists | text_lists),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(["text", "number", "flag", "texts", "numbers", "none"]),
        operator=st.just(OP.IS_EMPTY),
        value=st.none(),
    ),
)
conditions = st.sampled_from([*FilterCondition, None])


def entries_of(found: list[dict[str, Any]]) -> list[Entry]:
    return [Entry(id=f"n{index}", metadata=one) for index, one in enumerate(found)]


def fitting(filters: MetadataFilters | None, entries: list[Entry]) -> set[str]:
    def scan(where: Filter) -> Iterable[Entry]:
        return (entry for entry in entries if matches(where, entry.to_payload()))

    where = store_filter(filters, scan)
    return {entry.id for entry in entries if where is None or matches(where, entry.to_payload())}


def expected(filters: MetadataFilters, entries: list[Entry]) -> set[str]:
    by_id = {entry.id: entry.metadata for entry in entries}
    fits = build_metadata_filter_fn(lambda id_: by_id[id_], filters)
    return {id_ for id_ in by_id if fits(id_)}


def of(key: str, operator: OP, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(metadata, max_size=6), st.lists(leaves, max_size=3), conditions)
def test_filters_mean_the_same_as_in_llama_index(
    found: list[dict[str, Any]], parts: list[MetadataFilter], condition: FilterCondition | None
) -> None:
    filters = MetadataFilters(filters=list(parts), condition=condition)
    entries = entries_of(found)
    assert fitting(filters, entries) == expected(filters, entries)


trees = st.recursive(
    leaves,
    lambda inner: st.builds(MetadataFilters, filters=st.lists(inner, min_size=1, max_size=2), condition=conditions),
    max_leaves=4,
)


@given(st.lists(metadata, max_size=5), trees)
def test_nested_filters_combine_the_meanings_of_their_parts(
    found: list[dict[str, Any]], tree: MetadataFilter | MetadataFilters
) -> None:
    entries = entries_of(found)

    def meaning(one: MetadataFilter | MetadataFilters) -> set[str]:
        if isinstance(one, MetadataFilter):
            return expected(MetadataFilters(filters=[one]), entries)
        inside: list[set[str]] = [meaning(part) for part in one.filters]
        if one.condition is FilterCondition.OR:
            return set().union(*inside)
        if one.condition is FilterCondition.NOT:
            return {entry.id for entry in entries} - set().union(*inside)
        return inside[0].intersection(*inside)

    assert fitting(MetadataFilters(filters=[tree]), entries) == meaning(tree)


def test_is_empty_matches_missing_and_empty_values() -> None:
    entries = entries_of([{}, {"k": None}, {"k": ""}, {"k": []}, {"k": [""]}, {"k": 0}, {"k": False}, {"k": " "}])
    empty = of("k", OP.IS_EMPTY, None)
    assert fitting(empty, entries) == expected(empty, entries) == {"n0", "n1", "n2", "n3"}


def test_one_and_zero_are_true_and_false() -> None:
    """`MetadataFilter` takes no bools."""
    entries = entries_of([{"draft": True}, {"draft": False}, {"draft": 1}, {"draft": "1"}, {}])
    assert fitting(of("draft", OP.EQ, 1), entries) == {"n0", "n2"}
    assert fitting(of("draft", OP.NE, 0), entries) == {"n0", "n2", "n3", "n4"}
    assert fitting(of("draft", OP.IN, [0]), entries) == {"n1"}
    assert fitting(of("draft", OP.GT, 0.5), entries) == {"n0", "n2"}


def test_a_list_fits_what_one_of_its_values_fits() -> None:
    entries = entries_of([{"tags": ["tax", "2024"], "years": [2023, 2024]}, {"tags": "taxes", "years": 2020}])
    assert fitting(of("tags", OP.EQ, "tax"), entries) == {"n0"}
    assert fitting(of("tags", OP.NE, "tax"), entries) == {"n1"}
    assert fitting(of("tags", OP.IN, ["tax", "x"]), entries) == {"n0"}
    assert fitting(of("years", OP.GTE, 2024), entries) == {"n0"}
    assert fitting(of("tags", OP.TEXT_MATCH, "tax"), entries) == {"n0", "n1"}
    assert fitting(of("tags", OP.CONTAINS, "tax"), entries) == {"n0", "n1"}, "of a text it is a part"
    assert fitting(of("tags", OP.CONTAINS, "ta"), entries) == {"n1"}, "of a list's values it is none"


def test_incomparable_kinds_do_not_match() -> None:
    entries = entries_of([{"page": "three"}, {"page": 3}, {}])
    assert fitting(of("page", OP.GT, 1), entries) == {"n1"}
    assert fitting(of("page", OP.TEXT_MATCH, "thr"), entries) == {"n0"}
    assert fitting(of("page", OP.ANY, [3]), entries) == set()


def test_the_document_s_id_can_be_filtered_by() -> None:
    entries = [
        Entry(id="a", document_id="report"),
        Entry(id="b", document_id="letter", metadata={"doc_id": "report"}),
        Entry(id="c", document_id="letter"),
        Entry(id="d"),
    ]
    for key in ("doc_id", "ref_doc_id"):
        assert fitting(of(key, OP.NE, "letter"), entries) == {"a", "d"}
    assert fitting(of("doc_id", OP.EQ, "report"), entries) == {"a", "b"}, "metadata of that name count too"
    assert fitting(of("ref_doc_id", OP.IS_EMPTY, None), entries) == {"d"}
    assert fitting(of("document_id", OP.CONTAINS, "lett"), entries) == {"b", "c"}


def test_no_filters_leave_nothing_out() -> None:
    entries = entries_of([{}, {"a": 1}])
    nothing = MetadataFilters(filters=[])
    assert fitting(None, entries) == fitting(nothing, entries) == {"n0", "n1"}
    assert fitting(MetadataFilters(filters=[nothing], condition=FilterCondition.OR), entries) == {"n0", "n1"}


@pytest.mark.parametrize(
    ("operator", "value", "words"),
    [
        (OP.EQ, None, "IS_EMPTY"),
        (OP.GT, None, "IS_EMPTY"),
        (OP.IN, "tax", "a list of values"),
        (OP.NIN, 3, "a list of values"),
        (OP.ANY, "tax", "a list of values"),
        (OP.ALL, 3, "a list of values"),
        (OP.GT, [1], "a number or text"),
        (OP.TEXT_MATCH, 3, "text"),
        (OP.TEXT_MATCH_INSENSITIVE, ["a"], "text"),
        (OP.CONTAINS, ["a"], "ANY or ALL"),
        (OP.EQ, float("inf"), "finite"),
    ],
)
def test_invalid_values_of_an_operator_are_refused(operator: OP, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fitting(of("tags", operator, value), entries_of([{"tags": "x"}]))


def test_every_operator_is_known() -> None:
    values: dict[OP, Any] = {OP.IN: ["x"], OP.NIN: ["x"], OP.ANY: ["x"], OP.ALL: ["x"], OP.IS_EMPTY: None}
    for operator in OP:
        fitting(of("tags", operator, values.get(operator, "x")), entries_of([{"tags": "x"}, {}]))


def test_other_types_of_filters_are_refused() -> None:
    with pytest.raises(InputError, match="from_dict"):
        fitting({"page": 3}, [])  # type: ignore[arg-type]
