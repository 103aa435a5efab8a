"""Lands the billing export: nested rows of Google's detailed export become flat, typed lines, one Parquet file per
day of usage.

A day is read again only when one of its files changed, so the cost of a landing grows with the change. A line that
cannot be added to anything (unknown currency, no amount) is never counted as something else: it is refused, by name,
and its day is ``partial``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cache
from itertools import groupby
from typing import Any

import babel.numbers
import pyarrow as pa
import pyarrow.compute as pc

from lz_sync_dagster.sync.analytics.raw import COSTS, INSTANT, MONEY, Folder, RawFile, parquet
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.progress import Progress, silent
from lz_sync_dagster.sync.timing import from_ns

STATE_FILE = "_landed.json"
_STATE_VERSION = 1
#: Refused lines of one kind in one file that are kept for a person to look at; all of them are counted.
KEPT_PER_KIND = 1000
#: Codes of ISO 4217 that are not money anybody is billed in: no currency, testing, metals, units of account.
_NOT_BILLED = frozenset({"XXX", "XTS", "XAG", "XAU", "XPD", "XPT", "XBA", "XBB", "XBC", "XBD", "XDR", "XSU", "XUA"})
#: Wide enough for any bill, narrow enough that the sum of two still is a 128-bit decimal.
_AMOUNT = pa.decimal128(28, 9)
_REQUIRED = ("cost", "currency", "usage_start_time")
_COLUMNS = [
    "billing_account_id",
    "service",
    "sku",
    "usage_start_time",
    "usage_end_time",
    "project",
    "location",
    "resource",
    "cost",
    "currency",
    "credits",
    "invoice",
    "cost_type",
    "export_time",
]


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that was refused. ``key`` is the same whenever the same line comes again; ``payload`` is the line as
    JSON.
    """

    file: str
    key: str
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Lines of one file that were refused for one reason."""

    file: str
    reason: str
    lines: int

    def __str__(self) -> str:
        return (
            f"{self.file}: {self.lines} billing line(s) refused: {self.reason}; not part of any sum, "
            "see the dead letters, and correct the export"
        )


@dataclass(frozen=True, slots=True)
class Landing:
    """What is landed after a landing.

    Attributes:
        configured: whether there is an export to read; without one, costs are unknown.
        days: days of usage that are landed.
        changed_days: days whose lines this landing changed.
        lines: lines of all landed days.
        refusals: what was refused in all landed days, not only in the changed ones.
        as_of: the newest export of any line, ``None`` without lines.
    """

    configured: bool
    days: int
    changed_days: int
    lines: int
    refusals: tuple[Refusal, ...]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class _Day:
    fingerprint: str
    digest: str
    lines: int
    as_of: str | None
    refusals: tuple[Refusal, ...]


@cache
def known_currencies() -> frozenset[str]:
    """The ISO 4217 codes that a line may have, from CLDR."""
    return frozenset(babel.numbers.list_currencies()) - _NOT_BILLED


def land(
    export: str | None,
    raw_dir: str,
    *,
    refuse: Callable[[Sequence[RefusedLine]], None],
    progress: Progress = silent,
) -> Landing:
    """Bring ``raw_dir/billing`` up to date with the export. A day that the export no longer has stays landed.

    Args:
        export: the folder of the nested export (``usage_date=YYYY-MM-DD/*.parquet``), ``None`` if there is none.
        refuse: keeps refused lines; called before their day counts as landed, and again if the day is read again.

    Raises:
        SyncError: the export is not there, a file cannot be read or lacks a column, or the raw folder cannot be
        written.
    """
    target = Folder(f"{raw_dir}/{COSTS.folder}")
    state = _read_state(target)
    if export is None:
        return _landing(state, configured=False, changed=0)
    source = Folder(export)
    if not source.exists():
        raise SyncError(
            "is not there",
            where=f"sync_layers.bigquery.billing_export {export}",
            remedy="export the detailed billing data to this folder, or remove the key",
            reason=Reason.NOT_FOUND,
        )
    landed = {file.day for file in target.files(partition=COSTS.partition)}
    days = [
        (day, list(files))
        for day, files in groupby(
            sorted(source.files(partition=COSTS.partition), key=lambda file: (file.day, file.path)),
            key=lambda file: file.day,
        )
    ]
    stale = [
        (day, files)
        for day, files in days
        if day not in landed or day not in state or state[day].fingerprint != _fingerprint(files)
    ]
    changed = 0
    for number, (day, files) in enumerate(stale):
        progress("landing billing days", number, len(stale))
        lines, refused, refusals = _flatten_day(source, files)
        content = parquet(lines)
        digest = hashlib.sha256(content).hexdigest()
        before = state.get(day)
        if refused:
            refuse(refused)
        if before is None or before.digest != digest or day not in landed:
            target.write(f"{COSTS.partition}={day.isoformat()}/costs.parquet", content)
            changed += 1
        newest = pc.max(lines["export_time"]).as_py()
        state[day] = _Day(
            _fingerprint(files), digest, lines.num_rows, newest.isoformat() if newest else None, tuple(refusals)
        )
    if stale:
        progress("landing billing days", len(stale), len(stale))
        _write_state(target, state)
    return _landing(state, configured=True, changed=changed)


def flatten(table: pa.Table, *, file: RawFile) -> tuple[pa.Table, list[RefusedLine], list[Refusal]]:
    """Flatten rows of the nested export: the lines (``COSTS.schema`` without ``line_number`` and ``coverage``), and
    what was refused.

    ``credits`` is summed within its row, so that a row with several credits stays one line.

    Raises:
        SyncError: a column that every export has is missing or of another type.
    """
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise _wrong_schema(file, f"lacks the column(s) {', '.join(missing)}")
    try:
        return _flatten(table.combine_chunks(), file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError) as error:
        raise _wrong_schema(file, f"has a column of another type ({str(error).splitlines()[0]})") from error


def _flatten(table: pa.Table, file: RawFile) -> tuple[pa.Table, list[RefusedLine], list[Refusal]]:
    cost = pc.cast(_column(table, "cost", pa.float64()), pa.float64())
    currency = _text(table, "currency")
    owners, amounts = _credits(table)
    bad_credit = pc.is_in(
        _row_numbers(table), value_set=pc.filter(owners, pc.invert(pc.fill_null(pc.is_finite(amounts), False)))
    )
    known = pc.is_in(currency, value_set=pa.array(sorted(known_currencies())))
    has_cost = pc.fill_null(pc.is_finite(cost), False)
    good = pc.and_(pc.and_(known, has_cost), pc.invert(bad_credit))

    refused: list[RefusedLine] = []
    refusals: list[Refusal] = []
    if not pc.all(good, min_count=0).as_py():
        reasons = pc.if_else(
            pc.invert(known),
            pc.binary_join_element_wise(pa.scalar("unknown currency"), pc.fill_null(currency, "(none)"), " "),
            pc.if_else(pc.invert(has_cost), pa.scalar("no cost"), pa.scalar("a credit without an amount")),
        )
        refused, refusals = _refused(table, pc.indices_nonzero(pc.invert(good)), reasons, file)

    exported = _column(table, "export_time", INSTANT)
    written = pa.scalar(from_ns(file.mtime_ns), INSTANT)
    credited = _credit_sums(table, owners, pc.if_else(pc.fill_null(pc.is_finite(amounts), False), amounts, 0.0))
    flat = {
        "billing_account_id": _text(table, "billing_account_id"),
        "service": _text(table, "service", "description"),
        "sku": _text(table, "sku", "description"),
        "project_id": _text(table, "project", "id"),
        "resource_name": _text(table, "resource", "name"),
        "location": _text(table, "location", "location"),
        "currency": currency,
        "cost": pc.cast(pc.if_else(has_cost, cost, 0.0), _AMOUNT),
        "credits": credited,
        "invoice_month": _text(table, "invoice", "month"),
        "cost_type": _text(table, "cost_type"),
        "usage_start_time": _column(table, "usage_start_time", INSTANT),
        "usage_end_time": _column(table, "usage_end_time", INSTANT),
        "export_time": pc.coalesce(exported, written),
    }
    flat["net_cost"] = pc.add(flat["cost"], flat["credits"])
    for name in ("cost", "credits", "net_cost"):
        flat[name] = pc.cast(flat[name], MONEY)
    names = [name for name in COSTS.schema.names if name in flat]
    return pa.table({name: flat[name] for name in names}).filter(good), refused, refusals


def _refused(
    table: pa.Table, rows: pa.Array, reasons: pa.Array, file: RawFile
) -> tuple[list[RefusedLine], list[Refusal]]:
    counts: dict[str, int] = {}
    lines = []
    for row in rows.to_pylist():
        reason = reasons[row].as_py()
        counts[reason] = counts.get(reason, 0) + 1
        if counts[reason] <= KEPT_PER_KIND:
            content = table.slice(row, 1).to_pylist()[0]
            payload = json.dumps(content, default=str, sort_keys=True)
            digest = hashlib.sha256(payload.encode()).hexdigest()[:32]
            lines.append(RefusedLine(file.path, f"{file.day.isoformat()}:{digest}", reason, payload))
    return lines, [Refusal(file.path, reason, count) for reason, count in sorted(counts.items())]


def _flatten_day(source: Folder, files: Sequence[RawFile]) -> tuple[pa.Table, list[RefusedLine], list[Refusal]]:
    tables, refused, refusals = [], [], []
    for file in files:
        lines, lines_refused, file_refusals = flatten(source.read_table(file.path, _COLUMNS), file=file)
        tables.append(lines)
        refused += lines_refused
        refusals += file_refusals
    day = pa.concat_tables(tables)
    day = day.append_column("line_number", pa.array(range(day.num_rows), pa.int64()))
    coverage = "partial" if refusals else "complete"
    day = day.append_column("coverage", pa.array([coverage] * day.num_rows, pa.string()))
    return day.select(COSTS.schema.names).cast(COSTS.schema).combine_chunks(), refused, refusals


def _column(table: pa.Table, name: str, kind: pa.DataType) -> Any:
    if name not in table.column_names:
        return pa.nulls(table.num_rows, kind)
    return _whole(table[name]).cast(kind)


def _text(table: pa.Table, name: str, field: str | None = None) -> Any:
    if name not in table.column_names:
        return pa.nulls(table.num_rows, pa.string())
    array = _whole(table[name])
    if field is not None:
        if pa.types.is_null(array.type) or array.type.get_field_index(field) < 0:
            return pa.nulls(table.num_rows, pa.string())
        array = pc.struct_field(array, field)
    return array.cast(pa.string())


def _whole(column: Any) -> Any:
    array = column.combine_chunks()
    return array if not isinstance(array, pa.ChunkedArray) else pa.concat_arrays(array.chunks)


def _row_numbers(table: pa.Table) -> Any:
    return pa.array(range(table.num_rows), pa.int64())


def _credits(table: pa.Table) -> tuple[Any, Any]:
    """For every single credit: the number of its row, and its amount."""
    if "credits" not in table.column_names or pa.types.is_null(table["credits"].type):
        return pa.array([], pa.int64()), pa.array([], pa.float64())
    lists = _whole(table["credits"])
    amounts = pc.struct_field(pc.list_flatten(lists), "amount").cast(pa.float64())
    return pc.list_parent_indices(lists).cast(pa.int64()), amounts


def _credit_sums(table: pa.Table, owners: Any, amounts: Any) -> Any:
    """The sum of each row's credits, 0 for a row without any."""
    sums = pa.table({"row": owners, "amount": pc.cast(amounts, _AMOUNT)}).group_by("row").aggregate([("amount", "sum")])
    positions = pc.index_in(_row_numbers(table), value_set=_whole(sums["row"]))
    taken = pc.take(_whole(sums["amount_sum"]).cast(_AMOUNT), positions)
    return pc.coalesce(taken, pa.scalar(0, pa.int64()).cast(_AMOUNT))


def _wrong_schema(file: RawFile, what: str) -> SyncError:
    return SyncError(
        what,
        where=file.path,
        remedy="export the table gcp_billing_export_resource_v1_* with its own schema",
        reason=Reason.INVALID,
    )


def _fingerprint(files: Sequence[RawFile]) -> str:
    return hashlib.sha256("\n".join(file.mark for file in files).encode()).hexdigest()


def _landing(state: dict[date, _Day], *, configured: bool, changed: int) -> Landing:
    instants = [datetime.fromisoformat(day.as_of) for day in state.values() if day.as_of is not None]
    return Landing(
        configured=configured,
        days=len(state),
        changed_days=changed,
        lines=sum(day.lines for day in state.values()),
        refusals=tuple(refusal for day in sorted(state) for refusal in state[day].refusals),
        as_of=max(instants).astimezone(UTC) if instants else None,
    )


def _read_state(target: Folder) -> dict[date, _Day]:
    text = target.read_text(STATE_FILE)
    if text is None:
        return {}
    try:
        document = json.loads(text)
        if document["version"] != _STATE_VERSION:
            return {}
        return {
            date.fromisoformat(day): _Day(**{**value, "refusals": tuple(Refusal(**item) for item in value["refusals"])})
            for day, value in document["days"].items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise SyncError(
            f"cannot be understood ({error})",
            where=f"{target.location}/{STATE_FILE}",
            remedy="delete it: the next sync lands every day again",
            reason=Reason.INVALID,
        ) from error


def _write_state(target: Folder, state: dict[date, _Day]) -> None:
    days = {day.isoformat(): asdict(state[day]) for day in sorted(state)}
    text = json.dumps({"version": _STATE_VERSION, "days": days}, indent=1, sort_keys=True)
    target.write(STATE_FILE, text.encode())
