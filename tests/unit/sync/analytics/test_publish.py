"""Publishing the mart of daily metrics: only what changed, and never a guess."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.analytics.publish import publish
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store import Store, daily_metrics
from lz_sync_dagster.sync.store.daily_metrics import DailyMetric
from tests.conftest import NOW

DAY = date(2026, 3, 1)
ROW = DailyMetric(DAY, "zone", "USD", 4, 1, 12.345678, 0.75, "complete", "complete", "complete", NOW)


def save(store: Store, *rows: DailyMetric) -> int:
    with store.write() as connection:
        return daily_metrics.publish(connection, rows)


def load(store: Store) -> list[DailyMetric]:
    with store.read() as connection:
        return daily_metrics.latest(connection, days=100)


def test_published_rows_read_back_as_they_were(store: Store) -> None:
    unknown = DailyMetric(
        date(2026, 2, 28), "zone", "XXX", None, None, None, None, "unknown", "unknown", "unknown", NOW
    )
    assert save(store, ROW, unknown) == 2
    assert load(store) == [unknown, ROW]


def test_the_same_rows_again_change_nothing(store: Store) -> None:
    rows = [ROW, replace(ROW, currency="EUR", total_cost=0.1 + 0.2, avg_compliance=1 / 3)]
    save(store, *rows)
    assert save(store, *rows) == 0


def test_only_changed_rows_are_written(store: Store) -> None:
    other = replace(ROW, date=date(2026, 2, 28))
    save(store, ROW, other)
    assert save(store, replace(ROW, total_cost=13.0), other) == 1
    assert [row.total_cost for row in load(store)] == [12.345678, 13.0]


def test_a_day_that_gets_its_first_cost_loses_its_row_without_currency(store: Store) -> None:
    save(store, replace(ROW, currency="XXX", total_cost=None))
    assert save(store, ROW) == 2
    assert load(store) == [ROW]


def test_days_that_the_mart_does_not_have_stay(store: Store) -> None:
    old = replace(ROW, date=date(2025, 1, 1))
    save(store, old)
    save(store, ROW)
    assert load(store) == [old, ROW]


def test_a_landing_zone_that_gets_another_name_does_not_count_twice(store: Store) -> None:
    save(store, ROW, replace(ROW, currency="EUR"))
    renamed = replace(ROW, source="another name")
    assert save(store, renamed) == 3
    assert load(store) == [renamed]


def warehouse(tmp_path: Path, rows: str) -> Settings:
    settings = Settings(data_dir=tmp_path)
    with duckdb.connect(str(settings.duckdb_path)) as connection:
        connection.sql("create schema lz_metrics")
        connection.sql(
            "create table lz_metrics.fct_daily_lz_metrics (date date, source text, currency text, "
            "total_resources bigint, resources_with_violations bigint, total_cost numeric(38, 9), "
            "avg_compliance double, coverage text, resource_coverage text, cost_coverage text, as_of timestamptz)"
        )
        connection.sql(f"insert into lz_metrics.fct_daily_lz_metrics values {rows}")
    return settings


def test_a_mart_is_read_and_published(tmp_path: Path, sqlite_store: Store) -> None:
    settings = warehouse(
        tmp_path,
        "('2026-03-01', 'zone', 'USD', 4, 1, 12.345678, 0.75, 'complete', 'complete', 'complete', "
        "'2026-03-01 12:00:00+00'),"
        "('2026-02-28', 'zone', 'XXX', 4, null, null, null, 'partial', 'complete', 'unknown', "
        "'2026-02-28 22:00:00-02')",
    )
    published = publish(settings, sqlite_store)
    assert (published.rows, published.changed, published.days, published.days_without_cost) == (2, 2, 2, 1)
    assert published.as_of == NOW
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    assert load(sqlite_store) == [
        DailyMetric(date(2026, 2, 28), "zone", "XXX", 4, None, None, None, "partial", "complete", "unknown", midnight),
        ROW,
    ]
    assert publish(settings, sqlite_store).changed == 0


def test_a_mart_that_was_never_built_is_an_error_and_publishes_nothing(tmp_path: Path, sqlite_store: Store) -> None:
    save(sqlite_store, ROW)
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(SyncError, match="holds no finished mart"):
        publish(settings, sqlite_store)
    duckdb.connect(str(settings.duckdb_path)).close()
    with pytest.raises(SyncError, match="holds no finished mart") as caught:
        publish(settings, sqlite_store)
    assert caught.value.reason is Reason.NOT_FOUND
    assert load(sqlite_store) == [ROW]


def test_a_file_that_is_no_warehouse_is_an_error(tmp_path: Path, sqlite_store: Store) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.duckdb_path.write_bytes(b"not a database" * 1000)
    with pytest.raises(SyncError, match="cannot be read") as caught:
        publish(settings, sqlite_store)
    assert not caught.value.transient


def test_a_warehouse_that_is_being_written_is_worth_another_attempt(tmp_path: Path, sqlite_store: Store) -> None:
    settings = Settings(data_dir=tmp_path)
    hold = f"import duckdb; c = duckdb.connect({str(settings.duckdb_path)!r}); print('open', flush=True); input()"
    writer = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    with pytest.raises(SyncError) as caught:
        publish(settings, sqlite_store)
    writer.communicate(b"\n")
    assert (caught.value.reason, caught.value.transient) == (Reason.CONFLICT, True)
