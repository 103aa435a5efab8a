"""The BigQuery engine: loads raw Parquet into the dataset, day by day, and reads the finished mart back.

What tests cover: which days are loaded, to which partition and with which options, against a client that records its
calls. What they do not: BigQuery's own answers, since there is no server to test against. Where
`BIGQUERY_EMULATOR_HOST` is set, Google's client honours it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.analytics.raw import TABLES, Folder, RawTable, parquet
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.progress import Progress, silent

STATE_FILE = "_loaded.json"


def connect(settings: Settings) -> Any:
    """A `google.cloud.bigquery.Client` for the warehouse's project and location.

    Raises:
        SyncError: no project is configured, or there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import bigquery

    if not settings.warehouse.project:
        raise SyncError(
            "names no project",
            where="warehouse.project",
            remedy="set the project that owns the dataset, or warehouse.engine: duckdb",
            reason=Reason.INVALID,
        )
    try:
        return bigquery.Client(project=settings.warehouse.project, location=settings.warehouse.location)
    except GoogleAuthError as error:
        raise _denied(settings, error, Reason.UNAUTHENTICATED) from error


def load_raw(settings: Settings, client: Any, *, progress: Progress = silent) -> int:
    """Load every day of raw data that changed since it was loaded last, each day's partition as a whole. Returns the
    number of days. A dataset that is there already is used as it is; a table that was dropped is loaded anew.

    Raises:
        SyncError: a file cannot be read, or BigQuery refuses.
    """
    from google.cloud import bigquery

    raw = Folder(settings.raw_dir)
    loaded = _read_state(raw)
    dataset = bigquery.Dataset(f"{client.project}.{settings.sync_layers.bigquery.dataset}")
    dataset.location = settings.warehouse.location
    with _explained(settings):
        present = _tables(client, dataset)
    stale: list[tuple[RawTable, str, list[str], str]] = []
    for table in TABLES:
        target = f"{client.project}.{settings.sync_layers.bigquery.dataset}.{table.bigquery_table}"
        if table.bigquery_table not in present:
            loaded = {key: mark for key, mark in loaded.items() if not key.startswith(f"{target}/")}
        marks: dict[str, list[tuple[str, str]]] = {}
        for file in Folder(f"{settings.raw_dir}/{table.folder}").files(partition=table.partition):
            marks.setdefault(file.day.isoformat(), []).append((f"{table.folder}/{file.path}", file.mark))
        for day, files in sorted(marks.items()):
            mark = "\n".join(mark for _, mark in files)
            if loaded.get(f"{target}/{day}") != mark:
                stale.append((table, day, [path for path, _ in files], mark))
    for number, (table, day, paths, mark) in enumerate(stale):
        progress("loading raw data into BigQuery", number, len(stale))
        rows = pa.concat_tables([raw.read_table(path, table.schema.names).cast(table.schema) for path in paths])
        days = pa.array([day] * rows.num_rows, pa.string()).cast(pa.date32())
        content = parquet(rows.append_column(table.partition, days)).to_pybytes()
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_IF_NEEDED,
            time_partitioning=bigquery.TimePartitioning(type_=bigquery.TimePartitioningType.DAY, field=table.partition),
        )
        target = f"{client.project}.{settings.sync_layers.bigquery.dataset}.{table.bigquery_table}"
        with _explained(settings):
            client.load_table_from_file(
                io.BytesIO(content), f"{target}${day.replace('-', '')}", size=len(content), job_config=config
            ).result()
        loaded[f"{target}/{day}"] = mark
        raw.write(STATE_FILE, json.dumps(loaded, indent=1, sort_keys=True).encode())
    return len(stale)


def _tables(client: Any, dataset: Any) -> set[str]:
    """Names of the dataset's tables. A dataset that is not there is made, which needs a right on the project."""
    from google.api_core import exceptions

    try:
        client.get_dataset(dataset.reference)
    except exceptions.NotFound:
        client.create_dataset(dataset, exists_ok=True)
    return {table.table_id for table in client.list_tables(dataset.reference)}


def read_rows(settings: Settings, client: Any, mart: str, columns: list[str]) -> list[dict[str, Any]]:
    """The columns of a finished mart, one dictionary per row.

    Raises:
        SyncError: BigQuery refuses.
    """
    table = f"{client.project}.{settings.sync_layers.bigquery.dataset}.{mart}"
    with _explained(settings):
        rows = client.query(f"select {', '.join(columns)} from `{table}`").result()  # noqa: S608
        return [dict(row.items()) for row in rows]


def _read_state(raw: Folder) -> dict[str, str]:
    text = raw.read_text(STATE_FILE)
    if text is None:
        return {}
    try:
        return {str(day): str(mark) for day, mark in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise SyncError(
            f"cannot be understood ({error})",
            where=f"{raw.location}/{STATE_FILE}",
            remedy="delete it: the next sync loads every day again",
            reason=Reason.INVALID,
        ) from error


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.Forbidden as error:
        raise _denied(settings, error, Reason.PERMISSION_DENIED) from error
    except GoogleAuthError as error:
        raise _denied(settings, error, Reason.UNAUTHENTICATED) from error
    except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError) as error:
        raise _failed(settings, error, "try again later", Reason.UNAVAILABLE) from error
    except exceptions.GoogleAPIError as error:
        raise _failed(settings, error, "compare the raw data with the tables of the dataset", Reason.INVALID) from error


def _denied(settings: Settings, error: Exception, reason: Reason) -> SyncError:
    remedy = "give this process credentials with roles/bigquery.jobUser and roles/bigquery.dataEditor on the dataset"
    return _failed(settings, error, remedy, reason)


def _failed(settings: Settings, error: Exception, remedy: str, reason: Reason) -> SyncError:
    return SyncError(
        f"BigQuery refused ({' '.join(str(error).split())[:300]})",
        where=f"dataset {settings.warehouse.project}.{settings.sync_layers.bigquery.dataset}",
        remedy=remedy,
        reason=reason,
    )
