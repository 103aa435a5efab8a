"""The billing export: deterministic per day, idempotent, and with the traps of the real one."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from demo.billing import LATE_DAYS, SCHEMA, SPIKE_DAYS, billing_rows, late_rows, write_billing_export
from demo.organization import Organization

UNTIL = date(2026, 2, 28)
DAYS = 15


@pytest.fixture(scope="module")
def organization() -> Organization:
    return Organization(600)


@pytest.fixture(scope="module")
def export(organization: Organization, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("billing")
    write_billing_export(folder, organization, DAYS, until=UNTIL)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("usage_date=*/*.parquet")):
        rows += pq.ParquetFile(path).read().to_pylist()
    return rows


def test_there_is_one_folder_per_day_in_the_schema_of_the_export(export: Path) -> None:
    folders = sorted(path.name for path in export.iterdir())
    assert folders == [f"usage_date={UNTIL - timedelta(days=back)}" for back in range(DAYS - 1, -1, -1)]
    for path in export.glob("*/*.parquet"):
        assert pq.read_schema(path).equals(SCHEMA)


def test_a_second_export_writes_nothing_and_a_later_one_only_what_is_missing(
    export: Path, organization: Organization, tmp_path: Path
) -> None:
    before = content(export)
    assert write_billing_export(export, organization, DAYS, until=UNTIL) == 0
    assert content(export) == before
    write_billing_export(tmp_path, organization, DAYS, until=UNTIL)
    write_billing_export(tmp_path, organization, DAYS, until=UNTIL + timedelta(days=1))
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    assert f"usage_date={UNTIL + timedelta(days=1)}/part.parquet" in after


def test_a_day_is_the_same_each_time(organization: Organization) -> None:
    assert billing_rows(organization, UNTIL) == billing_rows(Organization(600), UNTIL)
    assert billing_rows(organization, UNTIL) != billing_rows(organization, UNTIL - timedelta(days=1))


def test_each_row_belongs_to_its_folder_and_was_exported_by_then(export: Path) -> None:
    for path in export.glob("*/*.parquet"):
        day = date.fromisoformat(path.parent.name.partition("=")[2])
        for row in pq.ParquetFile(path).read().to_pylist():
            assert row["usage_start_time"].date() == day
            assert row["export_time"] < datetime.combine(UNTIL + timedelta(days=1), datetime.min.time(), UTC)


def test_two_accounts_bill_in_two_currencies(export: Path) -> None:
    currencies: dict[str, set[str]] = defaultdict(set)
    for row in rows_of(export):
        currencies[row["billing_account_id"]].add(row["currency"])
    assert sorted(map(sorted, currencies.values())) == [["EUR"], ["USD"]]


def test_credits_are_repeated_and_reduce_the_cost(export: Path) -> None:
    rows = [row for row in rows_of(export) if row["credits"]]
    assert max(len(row["credits"]) for row in rows) == 2
    assert all(-row["cost"] < sum(credit["amount"] for credit in row["credits"]) < 0 for row in rows)


def test_adjustments_come_late(organization: Organization, export: Path) -> None:
    late = [row for row in rows_of(export) if row["cost_type"] == "adjustment"]
    assert late
    for row in late:
        assert row["adjustment_info"]["type"] == "USAGE_CORRECTION"
        assert row["export_time"].date() - row["usage_start_time"].date() == timedelta(days=LATE_DAYS)
    assert late_rows(organization, UNTIL) == late_rows(organization, UNTIL)


def test_usage_of_the_last_day_of_a_month_is_on_the_next_invoice(organization: Organization) -> None:
    assert {row["invoice"]["month"] for row in billing_rows(organization, date(2026, 2, 28))} == {"202603"}
    assert {row["invoice"]["month"] for row in billing_rows(organization, date(2026, 2, 27))} == {"202602"}


def test_one_project_costs_far_more_in_the_last_days(organization: Organization, export: Path) -> None:
    daily: dict[str, dict[date, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows_of(export):
        daily[row["project"]["id"]][row["usage_start_time"].date()] += row["cost"]
    first_spiking = UNTIL - timedelta(days=SPIKE_DAYS - 1)
    spiking = {
        project
        for project, costs in daily.items()
        if min(cost for day, cost in costs.items() if day >= first_spiking)
        > 2 * max(cost for day, cost in costs.items() if day < first_spiking)
    }
    assert spiking == {organization.projects[0].project_id}
