"""Landing the billing export: what becomes a line, what is refused, and what is read again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.analytics import billing
from lz_sync_dagster.sync.analytics.billing import Landing, RefusedLine
from lz_sync_dagster.sync.analytics.raw import COSTS, RawFile
from lz_sync_dagster.sync.errors import Reason, SyncError
from tests.unit.sync.analytics import export

FILE = RawFile("usage_date=2026-02-27/part-0.parquet", date(2026, 2, 27), 1, 1_772_000_000_000_000_000)


class Landed:
    """An export, a raw folder, and what was refused."""

    def __init__(self, root: Path) -> None:
        self.export = root / "export"
        self.raw = root / "raw"
        self.refused: list[RefusedLine] = []
        self.export.mkdir()

    def land(self) -> Landing:
        def refuse(lines: Sequence[RefusedLine]) -> None:
            self.refused += lines

        return billing.land(str(self.export), str(self.raw), refuse=refuse)

    def lines(self, day: str) -> list[dict[str, Any]]:
        path = self.raw / "billing" / f"usage_date={day}" / "costs.parquet"
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
        return rows


@pytest.fixture
def landed(tmp_path: Path) -> Landed:
    return Landed(tmp_path)


def test_a_nested_row_becomes_one_flat_line(landed: Landed) -> None:
    export.write(landed.export, "2026-02-27", export.row())
    landed.land()
    assert landed.lines("2026-02-27") == [
        {
            "line_number": 0,
            "billing_account_id": "000000-AAAAAA-BBBBBB",
            "service": "Compute Engine",
            "sku": "N2 Instance Core",
            "project_id": "lz-prod-app",
            "resource_name": "vm-1",
            "location": "europe-west1",
            "currency": "USD",
            "cost": Decimal("10.000000000"),
            "credits": Decimal("0E-9"),
            "net_cost": Decimal("10.000000000"),
            "invoice_month": "202602",
            "cost_type": "regular",
            "usage_start_time": datetime(2026, 2, 27, 3, tzinfo=UTC),
            "usage_end_time": datetime(2026, 2, 27, 4, tzinfo=UTC),
            "export_time": datetime(2026, 2, 28, 1, tzinfo=UTC),
            "coverage": "complete",
        }
    ]


def test_several_credits_reduce_their_line_once_and_do_not_multiply_its_cost() -> None:
    credits = [{"amount": -1.5}, {"amount": -0.5}, {"amount": -3.0}]
    lines, _, _ = billing.flatten(export.table(export.row(cost=10.0, credits=credits), export.row(cost=1.0)), file=FILE)
    assert lines["cost"].to_pylist() == [Decimal(10), Decimal(1)]
    assert lines["credits"].to_pylist() == [Decimal(-5), Decimal(0)]
    assert lines["net_cost"].to_pylist() == [Decimal(5), Decimal(1)]


amounts = st.integers(-(10**12), 10**12).map(lambda millionths: millionths / 10**6)


@given(
    rows=st.lists(st.tuples(amounts, st.none() | st.lists(amounts, max_size=4)), max_size=8),
    offset=st.integers(0, 3),
)
def test_money_is_neither_lost_nor_made(rows: list[tuple[float, list[float] | None]], offset: int) -> None:
    table = export.table(
        *[
            export.row(cost=cost, credits=None if items is None else [{"amount": item} for item in items])
            for cost, items in rows
        ]
    ).slice(offset)
    lines, refused, _ = billing.flatten(table, file=FILE)
    expected = sum(
        (Decimal(str(cost)) + sum((Decimal(str(item)) for item in items or []), Decimal(0)))
        for cost, items in rows[offset:]
    )
    assert not refused
    assert sum(lines["net_cost"].to_pylist(), Decimal(0)) == pytest.approx(expected, abs=Decimal("0.000001"))
    assert lines.num_rows == len(rows[offset:])


@pytest.mark.parametrize("currency", ["QQQ", "usd", "", None, "XXX", "EURO"])
def test_a_line_of_an_unknown_currency_is_refused_by_name(landed: Landed, currency: str | None) -> None:
    export.write(landed.export, "2026-02-27", export.row(), export.row(currency=currency, cost=99.0))
    landing = landed.land()
    assert [line["cost"] for line in landed.lines("2026-02-27")] == [Decimal(10)]
    assert {line["coverage"] for line in landed.lines("2026-02-27")} == {"partial"}
    (refusal,) = landing.refusals
    assert refusal.file == "usage_date=2026-02-27/part-0.parquet"
    assert refusal.reason == f"unknown currency {'(none)' if currency is None else currency}"
    assert "usage_date=2026-02-27/part-0.parquet" in str(refusal)
    (line,) = landed.refused
    assert json.loads(line.payload)["cost"] == 99.0


@pytest.mark.parametrize("code", ["USD", "EUR", "JPY", "BRL", "INR", "XOF"])
def test_currencies_that_google_bills_in_are_known(code: str) -> None:
    assert code in billing.known_currencies()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cost": None}, "no cost"),
        ({"cost": float("nan")}, "no cost"),
        ({"cost": float("inf")}, "no cost"),
        ({"credits": [{"amount": -1.0}, {"amount": None}]}, "a credit without an amount"),
    ],
)
def test_a_line_without_an_amount_is_refused_not_counted_as_zero(changes: dict[str, Any], reason: str) -> None:
    lines, refused, refusals = billing.flatten(export.table(export.row(), export.row(**changes)), file=FILE)
    assert lines.num_rows == 1
    assert [(line.reason, refusal.lines) for line, refusal in zip(refused, refusals, strict=True)] == [(reason, 1)]


def test_a_refused_line_has_the_same_key_whenever_it_comes_again(landed: Landed) -> None:
    bad = export.row(currency="QQQ")
    export.write(landed.export, "2026-02-27", bad)
    landed.land()
    export.write(landed.export, "2026-02-27", export.row(cost=3.0), bad)
    landed.land()
    first, second = landed.refused
    assert first.key == second.key


def test_the_same_export_again_changes_nothing_and_still_tells_what_was_refused(landed: Landed) -> None:
    export.write(landed.export, "2026-02-26", export.row())
    export.write(landed.export, "2026-02-27", export.row(currency="QQQ"), export.row())
    first = landed.land()
    again = landed.land()
    assert (first.changed_days, again.changed_days) == (2, 0)
    assert (again.days, again.lines, again.refusals) == (2, 2, first.refusals)
    assert again.as_of == datetime(2026, 2, 28, 1, tzinfo=UTC)
    assert len(landed.refused) == 1


def test_only_days_that_changed_are_written_again(landed: Landed) -> None:
    for day in ("2026-02-25", "2026-02-26", "2026-02-27"):
        export.write(landed.export, day, export.row())
    landed.land()
    before = {path: path.stat().st_mtime_ns for path in landed.raw.rglob("*.parquet")}
    export.write(landed.export, "2026-02-26", export.row(cost=1.0), name="part-1.parquet")
    landing = landed.land()
    changed = [path.parent.name for path, mtime in before.items() if path.stat().st_mtime_ns != mtime]
    assert (landing.changed_days, changed) == (1, ["usage_date=2026-02-26"])
    assert [line["cost"] for line in landed.lines("2026-02-26")] == [Decimal(10), Decimal(1)]
    assert [line["line_number"] for line in landed.lines("2026-02-26")] == [0, 1]


def test_a_file_that_was_only_written_again_is_no_change(landed: Landed) -> None:
    path = export.write(landed.export, "2026-02-27", export.row())
    landed.land()
    export.write(landed.export, "2026-02-27", export.row())
    path.touch()
    assert landed.land().changed_days == 0


def test_a_day_that_the_export_no_longer_has_stays_landed(landed: Landed) -> None:
    export.write(landed.export, "2026-02-27", export.row())
    landed.land()
    shutil.rmtree(landed.export / "usage_date=2026-02-27")
    landing = landed.land()
    assert (landing.days, landing.changed_days) == (1, 0)
    assert landed.lines("2026-02-27")


def test_a_landed_day_that_was_lost_is_landed_again(landed: Landed) -> None:
    export.write(landed.export, "2026-02-27", export.row())
    landed.land()
    shutil.rmtree(landed.raw / "billing" / "usage_date=2026-02-27")
    assert landed.land().changed_days == 1
    assert landed.lines("2026-02-27")


def test_without_an_export_costs_are_unknown(tmp_path: Path) -> None:
    landing = billing.land(None, str(tmp_path / "raw"), refuse=lambda lines: None)
    assert landing == Landing(configured=False, days=0, changed_days=0, lines=0, refusals=(), as_of=None)


def test_columns_that_an_export_lacks_are_unknown() -> None:
    table = export.table(export.row()).select(["cost", "currency", "usage_start_time"])
    lines, _, _ = billing.flatten(table, file=FILE)
    (line,) = lines.to_pylist()
    assert (line["service"], line["project_id"], line["credits"]) == (None, None, Decimal(0))
    assert line["export_time"] == datetime.fromtimestamp(FILE.mtime_ns / 1e9, UTC)


def test_flat_lines_have_the_contracted_columns() -> None:
    lines, _, _ = billing.flatten(export.table(), file=FILE)
    expected = [name for name in COSTS.schema.names if name not in ("line_number", "coverage")]
    assert lines.schema == pa.schema([COSTS.schema.field(name) for name in expected])


def test_a_missing_column_is_an_error_that_names_file_and_column(landed: Landed) -> None:
    path = export.write(landed.export, "2026-02-27", export.row())
    pq.write_table(export.table(export.row()).drop_columns(["currency"]), path)
    with pytest.raises(SyncError, match=r"usage_date=2026-02-27/part-0.parquet: lacks the column\(s\) currency"):
        landed.land()


def test_a_column_of_another_type_is_an_error(landed: Landed) -> None:
    path = export.write(landed.export, "2026-02-27", export.row())
    pq.write_table(pa.table({"cost": ["ten"], "currency": ["USD"], "usage_start_time": [None]}), path)
    with pytest.raises(SyncError, match="another type"):
        landed.land()


def test_a_broken_file_is_an_error_that_names_it(landed: Landed) -> None:
    export.write(landed.export, "2026-02-27", export.row()).write_bytes(b"PAR1 not parquet PAR1")
    with pytest.raises(SyncError, match=r"part-0.parquet: is not a readable Parquet file") as caught:
        landed.land()
    assert caught.value.reason is Reason.INVALID


def test_a_file_outside_a_days_folder_is_an_error_not_skipped(landed: Landed) -> None:
    pq.write_table(export.table(export.row()), landed.export / "loose.parquet")
    with pytest.raises(SyncError, match="does not lie in a folder of its day"):
        landed.land()


def test_an_export_that_is_not_there_is_an_error_not_a_zero(landed: Landed) -> None:
    landed.export.rmdir()
    with pytest.raises(SyncError, match="is not there") as caught:
        landed.land()
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_state_file_that_cannot_be_read_names_its_remedy(landed: Landed) -> None:
    export.write(landed.export, "2026-02-27", export.row())
    landed.land()
    (landed.raw / "billing" / "_landed.json").write_text("{")
    with pytest.raises(SyncError, match="delete it"):
        landed.land()
