"""Lists of resources as files: CSV, JSON lines, Parquet. Made piece by piece from one read transaction, so that memory
is bounded and the file shows one state.

What the figures are worth travels with them: `Head` is the first line of JSON lines, the key-value metadata of Parquet,
and in CSV the lines that begin with ``#``. A file that was cut off shows: JSON lines lack their last line
(``{"complete": true, …}``), CSV its last comment (``# complete rows=…``), Parquet its footer.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from lz_sync_dagster.sync.store.resource_history import contents
from lz_sync_dagster.sync.store.resource_views import Place, ResourceFilter, list_resources
from lz_sync_dagster.sync.timing import format_ns

#: Resources that are read and written at once.
BATCH = 2_000

_TEXTS = ("name", "content_type", "asset_type", "scope", "project", "location", "display_name", "resource_id")
COLUMNS = (*_TEXTS, "deleted", "valid_from", "update_time", "observed_at", "version", "source", "violations")
_PARQUET = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in _TEXTS),
        pa.field("deleted", pa.bool_()),
        *(pa.field(name, pa.timestamp("ns", tz="UTC")) for name in ("valid_from", "update_time", "observed_at")),
        pa.field("version", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("violations", pa.int64()),
    ]
)
_INSTANTS = {"valid_from": "valid_from_ns", "update_time": "update_ns", "observed_at": "observed_ns"}
#: What a spreadsheet takes for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ExportFormat(StrEnum):
    """How a list is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What an export says of itself. ``coverage``: as in the answers of the API."""

    as_of: str | None
    source: str
    coverage: dict[str, Any]
    query: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"as_of": self.as_of, "source": self.source, "coverage": self.coverage, "query": self.query}


def export_resources(
    connection: sa.Connection,
    where: ResourceFilter,
    form: ExportFormat,
    head: Head,
    *,
    as_of_ns: int | None = None,
    with_data: bool = False,
) -> Iterator[bytes]:
    """A list of resources in the order of names, as the pieces of a file.

    Args:
        with_data: also what the resources say, redacted as it is stored: as an object in JSON lines, as JSON text else.
    """
    batches = _batches(connection, where, as_of_ns, with_data)
    if form is ExportFormat.CSV:
        return _csv(batches, head, with_data)
    return _jsonl(batches, head) if form is ExportFormat.JSONL else _parquet(batches, head, with_data)


def _batches(
    connection: sa.Connection, where: ResourceFilter, as_of_ns: int | None, with_data: bool
) -> Iterator[list[dict[str, Any]]]:
    after: Place | None = None
    while True:
        page = list_resources(connection, where, after=after, limit=BATCH, as_of_ns=as_of_ns)
        known = contents(connection, {row.content_id for row in page.items}) if with_data else {}
        batch = []
        for row in page.items:
            record = {name: getattr(row, _INSTANTS.get(name, name)) for name in COLUMNS}
            if with_data:
                content = None if row.content_id is None else known.get(row.content_id)
                record["data"] = content.data if content is not None else None
            batch.append(record)
        yield batch
        if page.following is None:
            return
        after = page.following


def _csv(batches: Iterator[list[dict[str, Any]]], head: Head, with_data: bool) -> Iterator[bytes]:
    """No row begins with ``#``: the first column is a full resource name."""
    yield b"".join(b"# %s=%s\r\n" % (name.encode(), orjson.dumps(value)) for name, value in head.document().items())
    rows = 0
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, "data"] if with_data else COLUMNS)
    for batch in batches:
        rows += len(batch)
        for record in batch:
            writer.writerow([_cell(name, value) for name, value in record.items()])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield b"# complete rows=%d\r\n" % rows


def _cell(name: str, value: Any) -> Any:
    if name in _INSTANTS:
        return format_ns(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if name == "data":
        return _json(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _json(value: Any) -> str | None:
    """With sorted keys: one engine keeps their order, the other one does not."""
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _jsonl(batches: Iterator[list[dict[str, Any]]], head: Head) -> Iterator[bytes]:
    yield _line(head.document())
    rows = 0
    for batch in batches:
        rows += len(batch)
        yield b"".join(_line({name: _value(name, value) for name, value in record.items()}) for record in batch)
    yield _line({"complete": True, "rows": rows})


def _value(name: str, value: Any) -> Any:
    return format_ns(value) if name in _INSTANTS else value


def _line(document: dict[str, Any]) -> bytes:
    """``data`` is sorted for the same reason as in `_json`; the other keys keep their order."""
    if document.get("data") is not None:
        document = {**document, "data": orjson.Fragment(_json(document["data"]) or "null")}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


class _Pieces(io.RawIOBase):
    """A file that can be written only; what was written is taken away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def taken(self) -> bytes:
        """What was written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _parquet(batches: Iterator[list[dict[str, Any]]], head: Head, with_data: bool) -> Iterator[bytes]:
    schema = _PARQUET.append(pa.field("data", pa.string())) if with_data else _PARQUET
    schema = schema.with_metadata(
        {name: value if isinstance(value, str) else _json(value) or "null" for name, value in head.document().items()}
    )
    sink = _Pieces()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            if with_data:
                batch = [{**record, "data": _json(record["data"])} for record in batch]
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            yield sink.taken()
    yield sink.taken()
