"""Random payloads and filters over few fields and values, so that they often match; all kinds of value and operator."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from colpali_integrations.stores.filters import And, Condition, Filter, Not, Operator, Or

# A key with a dot beside the object it could be mistaken for, and keys that a path syntax must quote or cannot.
FIELDS = ("page", "a.b", "a", "tags", "", 'quo"te', "sp ace", "ü[0]", "back\\slash")
TEXTS = ("", "a", "A", "ab", "aB", "b", "ü", "straße", "STRASSE", "1", "3", "true", "2026-01-01", "c" * 40)
NUMBERS = (0, 1, 3, 3.0, 2.5, -1, -0.0, 0.1, 1e300, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))

texts = st.sampled_from(TEXTS)
numbers = st.sampled_from(NUMBERS)
scalars = st.one_of(texts, numbers, st.booleans())
odd = st.one_of(st.none(), st.just({}), st.just({"b": "a"}), st.just([[]]), st.just([None]), st.just([["a"]]))
values: st.SearchStrategy[Any] = st.one_of(scalars, odd, st.lists(st.one_of(scalars, st.none()), max_size=3))
metadata = st.dictionaries(st.sampled_from(FIELDS), values, max_size=5)


@st.composite
def payloads(draw: st.DrawFn, ids: st.SearchStrategy[str] = texts) -> dict[str, Any]:
    """What is stored beside a point's vectors."""
    return {"id": draw(ids), "document_id": draw(st.none() | texts), "text": draw(texts), "metadata": draw(metadata)}


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    """One condition on one of `FIELDS`."""
    op = draw(st.sampled_from(Operator))
    if op in (Operator.IN, Operator.NIN, Operator.ANY, Operator.ALL):
        value: Any = draw(st.lists(scalars, min_size=op is Operator.ALL, max_size=4))
    elif op is Operator.EXISTS:
        value = draw(st.booleans())
    elif op in (Operator.TEXT, Operator.TEXT_INSENSITIVE):
        value = draw(texts)
    elif op in (Operator.GT, Operator.GTE, Operator.LT, Operator.LTE):
        value = draw(st.one_of(texts, numbers))
    else:
        value = draw(scalars)
    return Condition(draw(st.sampled_from((*FIELDS, "$id", "$document"))), op, value)


def _combined(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, max_size=3).map(tuple)
    return st.one_of(several.map(And), several.map(Or), parts.map(Not))


filters: st.SearchStrategy[Filter] = st.recursive(conditions(), _combined, max_leaves=6)
