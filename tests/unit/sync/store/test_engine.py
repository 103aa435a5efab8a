"""Many rows at once are the same rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.state.observation import JsonData
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.store.engine import insert_many
from lz_sync_dagster.sync.store.schema import event_log, resource_contents, resource_versions, resources
from tests.conftest import NOW

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(0, 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


def of_column(column: sa.Column[Any]) -> st.SearchStrategy[Any]:
    """Values that a column takes."""
    kind = column.type
    if isinstance(kind, sa.JSON) or column.name in ("ancestors", "data", "redacted", "resource"):
        values = JSON.filter(lambda value: value is not None)
    elif isinstance(kind, sa.Boolean):
        values = st.booleans()
    elif isinstance(kind, sa.BigInteger):
        values = NUMBERS
    elif isinstance(kind, sa.Integer):
        values = st.integers(0, 2**31 - 1)
    elif isinstance(kind, sa.LargeBinary):
        values = st.binary(min_size=16, max_size=16)
    elif isinstance(kind, sa.String):
        values = TEXTS
    else:
        values = INSTANTS
    return st.none() | values if column.nullable else values


def rows_of(table: sa.Table) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({column.name: of_column(column) for column in table.c})
    keys = [column.name for column in table.primary_key]
    return st.lists(row, max_size=5, unique_by=lambda values: tuple(values[key] for key in keys))


def stored(connection: sa.Connection, table: sa.Table) -> list[Any]:
    return sorted(map(repr, connection.execute(sa.select(table))))


@pytest.mark.parametrize("table", [resources, resource_contents, resource_versions, event_log], ids=str)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25)
@given(data=st.data())
def test_they_are_what_an_insert_makes_of_them(store: Store, table: sa.Table, data: st.DataObject) -> None:
    rows = data.draw(rows_of(table))
    with store.engine.connect() as connection:
        insert_many(connection, table, rows)
        at_once = stored(connection, table)
        connection.rollback()
        if rows:
            connection.execute(table.insert(), rows)
        assert at_once == stored(connection, table)
        assert len(at_once) == len(rows)
        connection.rollback()


def test_a_content_is_stored_as_its_text_and_comes_back_as_a_mapping(store: Store) -> None:
    contents: list[Any] = [JsonData({"b": 1, "a": [None, "é"]}), JsonData(text='{"a":2}'), {"plain": True}]
    with store.write() as connection:
        rows = [{"id": number, "data": data, "redacted": ["a"]} for number, data in enumerate(contents, start=1)]
        insert_many(connection, resource_contents, rows)
    with store.read() as connection:
        found = list(connection.scalars(sa.select(resource_contents.c.data).order_by(resource_contents.c.id)))
    assert found == [{"b": 1, "a": [None, "é"]}, {"a": 2}, {"plain": True}]


def test_an_instant_of_another_zone_is_the_same_instant_and_a_naive_one_is_refused(store: Store) -> None:
    row = {
        "seq": 1,
        "event_type": "sync_status",
        "layer": "api",
        "resource": None,
        "data": {},
        "synthetic": False,
        "recorded_at": NOW,
    }
    with store.write() as connection:
        insert_many(connection, event_log, [row | {"timestamp": NOW.astimezone(timezone(timedelta(hours=5)))}])
    with store.read() as connection:
        assert connection.scalar(sa.select(event_log.c.timestamp)) == NOW
    with pytest.raises((ValueError, sa.exc.StatementError), match="naive datetime"), store.write() as connection:
        insert_many(connection, event_log, [row | {"seq": 2, "timestamp": NOW.replace(tzinfo=None)}])


def test_a_row_that_breaks_a_rule_of_the_table_breaks_all(store: Store) -> None:
    rows = [{"id": 1, "data": {}, "redacted": []}] * 2
    with pytest.raises(sa.exc.IntegrityError), store.write() as connection:
        insert_many(connection, resource_contents, rows)
    with store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(resource_contents)) == 0


def test_no_rows_are_no_statement(store: Store) -> None:
    with store.write() as connection:
        insert_many(connection, resource_contents, [])


def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "random.db").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SyncError, match="cannot be opened: file is not a database"):
        open_store(f"sqlite:///{tmp_path / 'random.db'}")
    with pytest.raises(SyncError, match="cannot be made: Not a directory"):
        open_store(f"sqlite:///{tmp_path / 'random.db' / 'below' / 'store.db'}")
    with open_store("sqlite://") as store, store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(resources)) == 0
