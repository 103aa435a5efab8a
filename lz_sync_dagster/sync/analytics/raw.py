"""Raw data of the warehouse: where its Parquet files lie, and which columns they have. Folders are local or
``gs://``.

One folder per table, below it one folder per day (``<table>/<partition>=YYYY-MM-DD/<file>.parquet``). The
inventory's tables are written by Layer 3; their columns stand here too, since the models have to read a table that
nobody has written yet.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from lz_sync_dagster.sync.errors import Reason, SyncError

INSTANT = pa.timestamp("us", "UTC")
MONEY = pa.decimal128(38, 9)
#: The day of the file without rows that stands for a table nobody has written yet.
NO_DAY = date(1970, 1, 1)

_PARTITION = re.compile(r"(?:^|/)(?P<key>[a-z_]+)=(?P<day>\d{4}-\d{2}-\d{2})/[^/]+\.parquet$")


@dataclass(frozen=True, slots=True)
class RawTable:
    """A raw table: its folder below the raw folder, its partition column, its table in BigQuery and its columns."""

    folder: str
    partition: str
    bigquery_table: str
    schema: pa.Schema


COSTS = RawTable(
    "billing",
    "usage_date",
    "raw_billing_costs",
    pa.schema(
        [
            ("line_number", pa.int64()),
            ("billing_account_id", pa.string()),
            ("service", pa.string()),
            ("sku", pa.string()),
            ("project_id", pa.string()),
            ("resource_name", pa.string()),
            ("location", pa.string()),
            ("currency", pa.string()),
            ("cost", MONEY),
            ("credits", MONEY),
            ("net_cost", MONEY),
            ("invoice_month", pa.string()),
            ("cost_type", pa.string()),
            ("usage_start_time", INSTANT),
            ("usage_end_time", INSTANT),
            ("export_time", INSTANT),
            ("coverage", pa.string()),
        ]
    ),
)

RESOURCE_VERSIONS = RawTable(
    "resource_versions",
    "exported_date",
    "raw_resource_versions",
    pa.schema(
        [
            ("exported_number", pa.int64()),
            ("exported_at", INSTANT),
            ("name", pa.string()),
            ("content_type", pa.string()),
            ("version", pa.int64()),
            ("asset_type", pa.string()),
            ("scope", pa.string()),
            ("project", pa.string()),
            ("location", pa.string()),
            ("display_name", pa.string()),
            ("resource_id", pa.string()),
            ("is_deleted", pa.bool_()),
            ("digest", pa.string()),
            ("source", pa.string()),
            ("updated_at", INSTANT),
            ("valid_from", INSTANT),
            ("valid_to", INSTANT),
            ("first_seen_at", INSTANT),
            ("last_seen_at", INSTANT),
        ]
    ),
)

TABLES: tuple[RawTable, ...] = (
    RawTable(
        "resources",
        "snapshot_date",
        "raw_resources",
        pa.schema(
            [
                ("as_of", INSTANT),
                ("name", pa.string()),
                ("asset_type", pa.string()),
                ("project", pa.string()),
                ("location", pa.string()),
                ("display_name", pa.string()),
                ("controls_decided", pa.int64()),
                ("controls_failed", pa.int64()),
                ("controls_unknown", pa.int64()),
                ("violation_count", pa.int64()),
                ("compliance_score", pa.float64()),
                ("coverage", pa.string()),
            ]
        ),
    ),
    RawTable(
        "coverage",
        "snapshot_date",
        "raw_coverage",
        pa.schema(
            [
                ("as_of", INSTANT),
                ("scope", pa.string()),
                ("asset_type", pa.string()),
                ("content_type", pa.string()),
                ("status", pa.string()),
                ("reason", pa.string()),
                ("assets", pa.int64()),
            ]
        ),
    ),
    RawTable(
        "findings",
        "snapshot_date",
        "raw_findings",
        pa.schema(
            [
                ("as_of", INSTANT),
                ("control", pa.string()),
                ("framework", pa.string()),
                ("severity", pa.string()),
                ("source", pa.string()),
                ("resource", pa.string()),
                ("asset_type", pa.string()),
                ("project", pa.string()),
                ("opened_at", INSTANT),
            ]
        ),
    ),
    RESOURCE_VERSIONS,
    COSTS,
)


@dataclass(frozen=True, slots=True)
class RawFile:
    """A Parquet file below a folder. ``mark`` changes whenever the file does (name, size and time of change)."""

    path: str
    day: date
    size: int
    mtime_ns: int

    @property
    def mark(self) -> str:
        return f"{self.path} {self.size} {self.mtime_ns}"


class Folder:
    """A local folder or ``gs://`` prefix. Paths are relative to it; every failure is a `SyncError` with its reason."""

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        with _explained(self.location):
            if "://" in location:
                self._fs, self._root = pafs.FileSystem.from_uri(self.location)
            else:
                self._fs, self._root = pafs.LocalFileSystem(), self.location

    def exists(self) -> bool:
        """Whether there is such a folder."""
        with _explained(self.location):
            return bool(self._fs.get_file_info(self._root).type == pafs.FileType.Directory)

    def files(self, *, partition: str) -> list[RawFile]:
        """The Parquet files below the folder, by path. One that does not lie in a day's folder is an error, not
        skipped.
        """
        selector = pafs.FileSelector(self._root, recursive=True, allow_not_found=True)
        with _explained(self.location):
            infos = self._fs.get_file_info(selector)
        found = []
        for info in infos:
            if info.type != pafs.FileType.File or not info.path.endswith(".parquet"):
                continue
            path = info.path[len(self._root) :].lstrip("/")
            match = _PARTITION.search(path)
            day = _day(match["day"]) if match is not None and match["key"] == partition else None
            if day is None:
                raise SyncError(
                    "does not lie in a folder of its day",
                    where=f"{self.location}/{path}",
                    remedy=f"move it to {self.location}/{partition}=YYYY-MM-DD/",
                    reason=Reason.INVALID,
                )
            found.append(RawFile(path, day, info.size, info.mtime_ns or 0))
        return sorted(found, key=lambda file: file.path)

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file; of ``columns`` those that it has."""
        where = f"{self.location}/{path}"
        try:
            with _explained(where), self._fs.open_input_file(f"{self._root}/{path}") as source:
                file = pq.ParquetFile(source)
                names = file.schema_arrow.names
                return file.read([name for name in names if columns is None or name in columns])
        except pa.ArrowException as error:
            raise SyncError(
                f"is not a readable Parquet file ({str(error).splitlines()[0]})",
                where=where,
                remedy="export the file again, or remove it",
                reason=Reason.INVALID,
            ) from error

    def read_text(self, path: str) -> str | None:
        """The text of a file, ``None`` if there is no such file."""
        full = f"{self._root}/{path}"
        with _explained(f"{self.location}/{path}"):
            if self._fs.get_file_info(full).type != pafs.FileType.File:
                return None
            with self._fs.open_input_file(full) as source:
                return str(source.read().decode("utf-8"))

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        """Write a file as a whole: a reader sees the old one or the new one."""
        full = f"{self._root}/{path}"
        local = isinstance(self._fs, pafs.LocalFileSystem)
        with _explained(f"{self.location}/{path}"):
            if local:
                self._fs.create_dir(full.rpartition("/")[0], recursive=True)
            target = f"{full}.{uuid.uuid4().hex}.part" if local else full
            with self._fs.open_output_stream(target) as sink:
                sink.write(content)
            if local:
                self._fs.move(target, full)


def parquet(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def ensure_tables(raw_dir: str) -> None:
    """Give every table without a file one without rows, so that the models can read all of them from the first day
    on.
    """
    raw = Folder(raw_dir)
    for table in TABLES:
        folder = Folder(f"{raw_dir}/{table.folder}")
        if not folder.files(partition=table.partition):
            path = f"{table.folder}/{table.partition}={NO_DAY.isoformat()}/empty.parquet"
            raw.write(path, parquet(table.schema.empty_table()))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        if isinstance(error, OSError):
            raise _unavailable(where, error) from error
        if isinstance(error, pa.ArrowInvalid) and "URI" in str(error):
            raise SyncError(
                f"is not a folder that can be opened ({error})",
                where=where,
                remedy="use a local folder or gs://BUCKET/PREFIX",
                reason=Reason.INVALID,
            ) from error
        raise
    except FileNotFoundError as error:
        raise SyncError(
            "does not exist", where=where, remedy="check the path in sync_config.yaml", reason=Reason.NOT_FOUND
        ) from error
    except PermissionError as error:
        raise SyncError(
            "may not be accessed",
            where=where,
            remedy="grant this process access (roles/storage.objectUser on a bucket, or the folder's permissions)",
            reason=Reason.PERMISSION_DENIED,
        ) from error
    except OSError as error:
        raise _unavailable(where, error) from error


def _unavailable(where: str, error: Any) -> SyncError:
    return SyncError(
        f"cannot be accessed ({str(error).splitlines()[0]})",
        where=where,
        remedy="check disk space, network and credentials",
        reason=Reason.UNAVAILABLE,
    )
