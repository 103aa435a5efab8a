"""The layer's outcome. The whole sync on DuckDB: tests/integration/test_dbt_project.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.analytics import service
from lz_sync_dagster.sync.analytics.billing import Landing, Refusal
from lz_sync_dagster.sync.analytics.publish import Published
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store import Store, dead_letters
from tests.conftest import NOW, SteppedClock
from tests.unit.sync.analytics import export

LANDED = Landing(configured=True, days=3, changed_days=2, lines=30, refusals=(), as_of=NOW)
PUBLISHED = Published(rows=5, changed=4, days=4, days_without_cost=1, as_of=NOW)


def test_the_outcome_adds_changed_rows_and_changed_days(tmp_path: Path) -> None:
    made = service.outcome(Settings(data_dir=tmp_path), LANDED, PUBLISHED, clock=SteppedClock())
    assert (made.status, made.items_synced, made.items_changed, made.as_of) == (Status.SUCCESS, 5, 6, NOW)
    assert set(made.details) == {"raw_billing", "daily_metrics"}


def test_without_a_billing_export_costs_are_said_to_be_unknown_and_it_is_no_error(tmp_path: Path) -> None:
    landing = Landing(configured=False, days=0, changed_days=0, lines=0, refusals=(), as_of=None)
    made = service.outcome(Settings(data_dir=tmp_path), landing, PUBLISHED, clock=SteppedClock())
    assert (made.status, made.errors) == (Status.SUCCESS, ())
    assert made.details["raw_billing"]["coverage"] == "unknown"
    assert "sync_layers.bigquery.billing_export" in made.details["raw_billing"]["note"]


def test_refused_lines_make_the_layer_partial_with_a_line_per_file(tmp_path: Path) -> None:
    refusals = tuple(
        Refusal(f"usage_date=2026-01-{day:02}/a.parquet", "unknown currency QQQ", 2) for day in range(1, 26)
    )
    landing = Landing(configured=True, days=25, changed_days=0, lines=30, refusals=refusals, as_of=NOW)
    made = service.outcome(Settings(data_dir=tmp_path), landing, PUBLISHED, clock=SteppedClock())
    assert made.status is Status.PARTIAL
    assert len(made.errors) == 21
    assert "2026-01-01/a.parquet: 2 billing line(s) refused: unknown currency QQQ" in made.errors[0]
    assert made.errors[-1].startswith("5 more files")
    assert made.details["raw_billing"]["coverage"] == "partial"
    assert made.details["raw_billing"]["refused_lines"] == 50


def test_an_empty_mart_is_partial_and_names_the_remedy(tmp_path: Path) -> None:
    empty = Published(rows=0, changed=0, days=0, days_without_cost=0, as_of=None)
    made = service.outcome(Settings(data_dir=tmp_path), LANDED, empty, clock=SteppedClock())
    assert made.status is Status.PARTIAL
    assert "lz-sync sync inventory" in made.errors[0]
    assert made.as_of == NOW


def test_a_refused_line_is_kept_once_as_a_dead_letter(tmp_path: Path, store: Store) -> None:
    billing = tmp_path / "export"
    settings = Settings(data_dir=tmp_path, sync_layers={"bigquery": {"billing_export": str(billing)}})
    for _ in range(2):
        export.write(billing, "2026-02-27", export.row(), export.row(currency="QQQ"))
        service.land_billing(settings, store, clock=SteppedClock())
    with store.read() as connection:
        (letter,) = dead_letters.newest(connection, limit=10, layer=LayerId.BIGQUERY)
    assert letter.reason == "unknown currency QQQ"
    assert letter.origin == "billing/usage_date=2026-02-27/part-0.parquet"


def test_landing_makes_every_raw_table_readable(tmp_path: Path, sqlite_store: Store) -> None:
    service.land_billing(Settings(data_dir=tmp_path), sqlite_store, clock=SteppedClock())
    folders = {path.parent.parent.name for path in (tmp_path / "raw").rglob("*.parquet")}
    assert folders == {"resources", "coverage", "findings", "resource_versions", "billing"}


def test_the_embedded_warehouse_refuses_raw_data_it_cannot_read(tmp_path: Path, sqlite_store: Store) -> None:
    settings = Settings(data_dir=tmp_path, warehouse={"raw": "gs://bucket/raw"})
    with pytest.raises(SyncError, match="cannot be read by the embedded warehouse") as caught:
        service.land_billing(settings, sqlite_store, clock=SteppedClock())
    assert caught.value.reason is Reason.INVALID


def test_duckdb_needs_no_loading(tmp_path: Path, sqlite_store: Store) -> None:
    assert service.load_warehouse(Settings(data_dir=tmp_path), sqlite_store, clock=SteppedClock()) == 0
