"""Differences between two JSON values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.state.json_diff import VALUE_LIMIT, FieldChangeKind, json_diff, same

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab.", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.[", max_size=3), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.text("abc.", max_size=2), json_values, max_size=4)


def paths(before: Any, after: Any) -> list[tuple[str, str]]:
    return [(change.path, change.kind.value) for change in json_diff(before, after).changes]


@given(objects, objects)
def test_there_is_a_difference_if_and_only_if_they_are_not_the_same(one: Any, other: Any) -> None:
    assert bool(json_diff(one, other).changes) == (not same(one, other))
    assert json_diff(one, one).changes == ()


@given(objects, objects)
def test_the_way_back_is_the_same_with_its_ends_exchanged(one: Any, other: Any) -> None:
    back = {FieldChangeKind.ADDED: FieldChangeKind.REMOVED, FieldChangeKind.REMOVED: FieldChangeKind.ADDED}
    there = [(c.path, c.kind, c.before, c.after) for c in json_diff(one, other).changes]
    again = [(c.path, back.get(c.kind, c.kind), c.after, c.before) for c in json_diff(other, one).changes]
    assert there == again


def test_an_item_that_is_inserted_is_one_addition() -> None:
    before = {"disks": [{"name": "b", "size": 1}]}
    after = {"disks": [{"name": "a", "size": 2}, {"name": "b", "size": 1}]}
    assert paths(before, after) == [("disks[name=a]", "added")]


def test_items_without_a_name_go_by_their_place() -> None:
    assert paths({"x": [{"v": 1}]}, {"x": [{"v": 2}, {"v": 3}]}) == [("x[0].v", "changed"), ("x[1]", "added")]


def test_a_list_of_plain_values_changes_as_a_whole() -> None:
    assert paths({"ranges": ["a"]}, {"ranges": ["a", "b"]}) == [("ranges", "changed")]


def test_true_is_not_one_and_one_is_one() -> None:
    assert paths({"a": 1, "b": 1}, {"a": True, "b": 1.0}) == [("a", "changed")]


def test_a_key_that_is_no_word_is_quoted() -> None:
    assert paths({"labels": {}}, {"labels": {"a.b": 1}}) == [('labels["a.b"]', "added")]


def test_nothing_has_no_fields() -> None:
    assert paths(None, {"a": 1}) == [("a", "added")]


def test_it_is_bounded_and_says_so() -> None:
    many = json_diff({}, {str(number): 1 for number in range(9)}, limit=5)
    assert (len(many.changes), many.truncated) == (5, True)
    (long,) = json_diff({}, {"a": "x" * (VALUE_LIMIT + 1)}).changes
    assert (long.cut, len(long.after)) == (True, VALUE_LIMIT)
