"""Loading raw data into BigQuery, against a client that records its calls: what is loaded where, how and when."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core import exceptions

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.analytics import bigquery, raw
from lz_sync_dagster.sync.errors import Reason, SyncError
from tests.conftest import NOW

ALL_TABLES = {table.bigquery_table for table in raw.TABLES}


class Job:
    def __init__(self, rows: Any = None) -> None:
        self.rows = rows

    def result(self) -> Any:
        return self.rows


@dataclass
class RecordingClient:
    """The part of `google.cloud.bigquery.Client` that is used."""

    project: str = "lz-ops"
    loads: list[tuple[str, pa.Table, Any]] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    error: Exception | None = None
    #: The dataset's tables; ``None`` while there is no dataset.
    tables: set[str] | None = None

    def get_dataset(self, dataset: Any) -> None:
        if self.tables is None:
            raise exceptions.NotFound(f"{dataset.project}:{dataset.dataset_id}")

    def create_dataset(self, dataset: Any, exists_ok: bool) -> None:
        assert exists_ok
        self.tables = set()
        self.datasets.append(f"{dataset.project}.{dataset.dataset_id} {dataset.location}")

    def list_tables(self, dataset: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(table_id=table) for table in self.tables or ()]

    def load_table_from_file(self, content: io.BytesIO, target: str, *, size: int, job_config: Any) -> Job:
        if self.error:
            raise self.error
        data = content.read()
        assert len(data) == size
        self.loads.append((target, pq.read_table(pa.BufferReader(data), partitioning=None), job_config))
        return Job()

    def query(self, sql: str) -> Job:
        self.queries.append(sql)
        return Job([{"date": date(2026, 3, 1)}])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path, warehouse={"engine": "bigquery", "project": "lz-ops", "location": "EU"})
    write(settings, "2026-03-01", "a", "b")
    raw.ensure_tables(settings.raw_dir)
    return settings


def write(settings: Settings, day: str, *names: str) -> None:
    table = raw.TABLES[0]
    rows = pa.Table.from_pylist([{"as_of": NOW, "name": name} for name in names], schema=table.schema)
    raw.Folder(settings.raw_dir).write(f"resources/snapshot_date={day}/resources.parquet", raw.parquet(rows))


def test_a_day_replaces_its_partition_and_carries_its_day_as_a_column(settings: Settings) -> None:
    client = RecordingClient()
    assert bigquery.load_raw(settings, client) == 5
    assert client.datasets == ["lz-ops.lz_metrics EU"]
    (target, table, config) = client.loads[0]
    assert target == "lz-ops.lz_metrics.raw_resources$20260301"
    assert table.select(["name", "snapshot_date"]).to_pylist() == [
        {"name": "a", "snapshot_date": date(2026, 3, 1)},
        {"name": "b", "snapshot_date": date(2026, 3, 1)},
    ]
    assert config.write_disposition == "WRITE_TRUNCATE"
    assert config.create_disposition == "CREATE_IF_NEEDED"
    assert config.source_format == "PARQUET"
    assert (config.time_partitioning.type_, config.time_partitioning.field) == ("DAY", "snapshot_date")


def test_a_table_without_a_file_is_made_without_rows(settings: Settings) -> None:
    client = RecordingClient()
    bigquery.load_raw(settings, client)
    empty = {target: table.num_rows for target, table, _ in client.loads[1:]}
    assert empty == {
        "lz-ops.lz_metrics.raw_coverage$19700101": 0,
        "lz-ops.lz_metrics.raw_findings$19700101": 0,
        "lz-ops.lz_metrics.raw_resource_versions$19700101": 0,
        "lz-ops.lz_metrics.raw_billing_costs$19700101": 0,
    }


def test_only_days_that_changed_are_loaded_again(settings: Settings) -> None:
    bigquery.load_raw(settings, RecordingClient())
    write(settings, "2026-03-02", "a")
    client = RecordingClient(tables=ALL_TABLES)
    assert bigquery.load_raw(settings, client) == 1
    assert [target for target, _, _ in client.loads] == ["lz-ops.lz_metrics.raw_resources$20260302"]
    assert bigquery.load_raw(settings, RecordingClient(tables=ALL_TABLES)) == 0


def test_a_dataset_that_is_there_needs_no_right_to_make_one(settings: Settings) -> None:
    client = RecordingClient(tables=set())
    bigquery.load_raw(settings, client)
    assert client.datasets == []


def test_another_dataset_is_loaded_from_the_start(settings: Settings) -> None:
    bigquery.load_raw(settings, RecordingClient())
    other = Settings(
        data_dir=settings.data_dir, warehouse=settings.warehouse, sync_layers={"bigquery": {"dataset": "other"}}
    )
    assert bigquery.load_raw(other, RecordingClient(tables=ALL_TABLES)) == 5
    assert bigquery.load_raw(settings, RecordingClient(tables=ALL_TABLES)) == 0, (
        "what the first one has is not forgotten"
    )


def test_a_table_that_was_dropped_is_loaded_again(settings: Settings) -> None:
    bigquery.load_raw(settings, RecordingClient())
    client = RecordingClient(tables=ALL_TABLES - {"raw_resources"})
    assert bigquery.load_raw(settings, client) == 1
    assert [target for target, _, _ in client.loads] == ["lz-ops.lz_metrics.raw_resources$20260301"]


def test_a_day_that_failed_to_load_is_loaded_next_time(settings: Settings) -> None:
    with pytest.raises(SyncError) as caught:
        bigquery.load_raw(settings, RecordingClient(error=exceptions.ServiceUnavailable("busy")))
    assert caught.value.transient
    assert bigquery.load_raw(settings, RecordingClient()) == 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exceptions.Forbidden("no"), Reason.PERMISSION_DENIED),
        (exceptions.TooManyRequests("slow"), Reason.UNAVAILABLE),
        (exceptions.BadRequest("schema"), Reason.INVALID),
    ],
)
def test_a_refusal_names_its_remedy(settings: Settings, error: Exception, reason: Reason) -> None:
    with pytest.raises(SyncError, match=r"dataset lz-ops.lz_metrics: BigQuery refused") as caught:
        bigquery.load_raw(settings, RecordingClient(error=error))
    assert caught.value.reason is reason
    assert caught.value.remedy


def test_a_mart_is_read_from_the_dataset(settings: Settings) -> None:
    client = RecordingClient()
    rows = bigquery.read_rows(settings, client, "fct_daily_lz_metrics", ["date", "source"])
    assert rows == [{"date": date(2026, 3, 1)}]
    assert client.queries == ["select date, source from `lz-ops.lz_metrics.fct_daily_lz_metrics`"]


def test_a_warehouse_without_a_project_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SyncError, match="names no project"):
        bigquery.connect(Settings(data_dir=tmp_path, warehouse={"engine": "bigquery"}))
