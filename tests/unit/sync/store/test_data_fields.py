"""Schema drift is recorded once, told as what it is, and never fails."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.state.fields import DEPTH, FIELDS, PATH_LENGTH, fields_of
from lz_sync_dagster.sync.store import Store, schema
from lz_sync_dagster.sync.store.data_fields import FieldCache, drifted, record
from tests.conftest import NOW

DISK = "compute.googleapis.com/Disk"


def take(
    store: Store, cache: FieldCache, data: Any, *, hours: int = 0, baseline: bool = False
) -> list[tuple[str, str]]:
    with store.write() as connection:
        found = record(
            connection, DISK, "RESOURCE", fields_of(data), example=f"//d/{hours}", now=NOW + timedelta(hours=hours),
            baseline=baseline, cache=cache,
        )  # fmt: skip
    return [(item.path, item.drift.value) for item in found]


@pytest.fixture(params=["warm", "cold"])
def cache(request: pytest.FixtureRequest) -> FieldCache:
    if request.param == "warm":
        return FieldCache()

    class Forgetful(FieldCache):
        def learn(self, *_: Any) -> None:
            pass

    return Forgetful()


def test_what_the_first_reads_show_is_no_drift(store: Store, cache: FieldCache) -> None:
    assert take(store, cache, {"a": 1}, baseline=True) == []
    assert take(store, cache, {"a": 1, "b": "x"}, baseline=True, hours=1) == []
    assert take(store, cache, {"b": "x"}, hours=2) == []


def test_a_type_of_which_nothing_is_known_has_no_drift(store: Store, cache: FieldCache) -> None:
    assert take(store, cache, {"a": 1}) == []


def test_a_new_field_and_another_kind_are_told_once(store: Store, cache: FieldCache) -> None:
    take(store, cache, {"a": 1, "n": None})
    assert take(store, cache, {"a": "1", "b": {"c": []}}, hours=1) == [
        ("a", "changed_type"), ("b", "new_field"), ("b.c", "new_field"),
    ]  # fmt: skip
    assert take(store, cache, {"a": "1", "b": {"c": []}}, hours=2) == []
    assert take(store, cache, {"a": 7}, hours=3) == []
    with store.read() as connection:
        found = drifted(connection)
    assert [(item.path, item.kinds, item.example) for item in found] == [
        ("a", ("number", "string"), "//d/1"), ("b", ("object",), "//d/1"), ("b.c", ("list",), "//d/1"),
    ]  # fmt: skip


def test_a_value_where_there_was_null_is_no_other_kind(store: Store, cache: FieldCache) -> None:
    take(store, cache, {"n": None, "v": 1})
    assert take(store, cache, {"n": 5, "v": None}, hours=1) == []


def test_a_known_shape_costs_no_query(store: Store) -> None:
    cache = FieldCache()
    take(store, cache, {"a": 1})
    take(store, cache, {"a": 1}, hours=1)
    statements: list[str] = []
    with store.engine.connect() as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        record(connection, DISK, "RESOURCE", fields_of({"a": 2}), example="x", now=NOW, baseline=False, cache=cache)
    assert [text for text in statements if "data_fields" in text] == []


def test_a_transaction_that_failed_is_not_remembered(store: Store) -> None:
    cache = FieldCache()
    take(store, cache, {"a": 1})

    def fails() -> None:
        with store.write() as connection:
            for _ in range(2):
                record(
                    connection, DISK, "RESOURCE", fields_of({"b": 1}), example="x", now=NOW + timedelta(hours=1),
                    baseline=False, cache=cache,
                )  # fmt: skip
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert take(store, cache, {"b": 1}, hours=2) == [("b", "new_field")]


def test_keys_that_people_choose_are_one_field() -> None:
    data = {"labels": {"env": "a", "x/y": "b"}, "odd": {"a b": 1}, "wide": {f"k{n}": 1 for n in range(500)}}
    assert fields_of(data) == {
        "labels": {"object"}, "labels.*": {"string"}, "odd": {"object"}, "odd.*": {"number"},
        "wide": {"object"}, "wide.*": {"number"},
    }  # fmt: skip


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=40,
)


@given(odd)
def test_no_data_is_too_odd(data: Any) -> None:
    for path, kinds in fields_of(data).items():
        assert 0 < len(path) <= PATH_LENGTH
        assert kinds


def test_it_is_bounded() -> None:
    deep: Any = 1
    for _ in range(DEPTH * 50):
        deep = {"x": deep}
    assert len(fields_of(deep)) == DEPTH + 1 or len(fields_of(deep)) == DEPTH
    wide = {f"k{n}": {f"m{m}": 1 for m in range(100)} for n in range(100)}
    assert len(fields_of(wide)) == FIELDS
    assert fields_of({"k" * 600: 1}) == {}


def test_the_table_takes_a_path_of_the_greatest_length(store: Store) -> None:
    take(store, FieldCache(), {"k" * PATH_LENGTH: 1})
    with store.read() as connection:
        assert connection.scalar(sa.select(schema.data_fields.c.path)) == "k" * PATH_LENGTH
