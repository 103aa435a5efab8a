"""Billing rows as Google's detailed export (``gcp_billing_export_resource_v1_…``) has them, a folder per day of usage.

Each day is computed from ``(organization seed, day)``. Late rows come as a second file of an older day.
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demo.organization import Organization, Project

ACCOUNT_USD, ACCOUNT_EUR = "01D3A0-5EED07-0000A1", "01D3A0-5EED07-0000E2"
EUR_PER_USD = 0.92

#: How long after its day a late line arrives, and how many days the spike of a first export lasts.
LATE_DAYS = 3
SPIKE_DAYS = 3

_INSTANT = pa.timestamp("us", tz="UTC")
_PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
_TAGS = pa.list_(
    pa.struct([("key", pa.string()), ("value", pa.string()), ("inherited", pa.bool_()), ("namespace", pa.string())])
)
_ANCESTORS = pa.list_(pa.struct([("resource_name", pa.string()), ("display_name", pa.string())]))
_CREDITS = pa.list_(
    pa.struct(
        [
            ("name", pa.string()),
            ("amount", pa.float64()),
            ("full_name", pa.string()),
            ("id", pa.string()),
            ("type", pa.string()),
        ]
    )
)

SCHEMA = pa.schema(
    [
        ("billing_account_id", pa.string()),
        ("service", pa.struct([("id", pa.string()), ("description", pa.string())])),
        ("sku", pa.struct([("id", pa.string()), ("description", pa.string())])),
        ("usage_start_time", _INSTANT),
        ("usage_end_time", _INSTANT),
        (
            "project",
            pa.struct(
                [
                    ("id", pa.string()),
                    ("number", pa.string()),
                    ("name", pa.string()),
                    ("labels", _PAIRS),
                    ("ancestors", _ANCESTORS),
                ]
            ),
        ),
        ("labels", _PAIRS),
        ("system_labels", _PAIRS),
        ("tags", _TAGS),
        (
            "location",
            pa.struct(
                [("location", pa.string()), ("country", pa.string()), ("region", pa.string()), ("zone", pa.string())]
            ),
        ),
        ("resource", pa.struct([("name", pa.string()), ("global_name", pa.string())])),
        ("cost", pa.float64()),
        ("currency", pa.string()),
        ("currency_conversion_rate", pa.float64()),
        (
            "usage",
            pa.struct(
                [
                    ("amount", pa.float64()),
                    ("unit", pa.string()),
                    ("amount_in_pricing_units", pa.float64()),
                    ("pricing_unit", pa.string()),
                ]
            ),
        ),
        ("credits", _CREDITS),
        ("invoice", pa.struct([("month", pa.string())])),
        ("cost_type", pa.string()),
        (
            "adjustment_info",
            pa.struct(
                [("id", pa.string()), ("description", pa.string()), ("mode", pa.string()), ("type", pa.string())]
            ),
        ),
        ("export_time", _INSTANT),
        ("cost_at_list", pa.float64()),
    ]
)

_COMPUTE, _SQL = ("6F81-5844-456A", "Compute Engine"), ("9662-B51E-5089", "Cloud SQL")
_STORAGE, _BIGQUERY = ("95FF-2EF5-5EA1", "Cloud Storage"), ("24E6-581D-38E5", "BigQuery")
_GKE, _LOGGING = ("CCD8-9BF1-090E", "Kubernetes Engine"), ("5490-F7B7-8DF6", "Cloud Logging")
# (service, SKU id, SKU, asset type it comes from, dollars a day for one, unit, dollars a unit)
_LINES: tuple[tuple[tuple[str, str], str, str, str, float, str, float], ...] = (
    (_COMPUTE, "D2A1-0C17-0001", "N2 instance core", "compute.googleapis.com/Instance", 34.0, "hour", 0.0316),
    (
        _COMPUTE,
        "D2A1-0C17-0002",
        "N2 instance memory",
        "compute.googleapis.com/Instance",
        15.0,
        "gibibyte hour",
        0.0042,
    ),
    (_COMPUTE, "D2A1-0C17-0003", "Balanced PD capacity", "compute.googleapis.com/Disk", 6.0, "gibibyte month", 0.1),
    (_SQL, "51F0-0C17-0004", "Cloud SQL vCPU, regional", "sqladmin.googleapis.com/Instance", 22.0, "hour", 0.0826),
    (_STORAGE, "57A0-0C17-0005", "Standard storage", "storage.googleapis.com/Bucket", 3.5, "gibibyte month", 0.02),
    (_BIGQUERY, "B160-0C17-0006", "Analysis", "bigquery.googleapis.com/Dataset", 9.0, "tebibyte", 6.25),
    (_GKE, "6E00-0C17-0007", "Cluster management fee", "container.googleapis.com/Cluster", 2.4, "hour", 0.1),
    (_LOGGING, "1066-0C17-0008", "Log storage", "", 1.2, "gibibyte", 0.5),
)


def write_billing_export(folder: Path, organization: Organization, days: int = 120, *, until: date) -> int:
    """Write the export of ``days`` days of usage that end with ``until``, as ``usage_date=YYYY-MM-DD/*.parquet``.

    Files that are there already stay as they are, so a second call writes nothing. The first export into a folder ends
    with a cost spike in one project.

    Args:
        until: the last day of usage; a day that is over, since its rows are exported late that evening.

    Returns:
        How many files were written.
    """
    first_export = not any(folder.glob("usage_date=*/*.parquet"))
    spiking = _billed(organization)[0].project_id
    written = 0
    for back in range(days - 1, -1, -1):
        day = until - timedelta(days=back)
        spike = spiking if first_export and back < SPIKE_DAYS else None
        written += _write(folder, day, "part.parquet", partial(billing_rows, organization, day, spike=spike))
        if day.toordinal() % 7 == 0 and back >= LATE_DAYS:
            written += _write(folder, day, "late.parquet", partial(late_rows, organization, day))
    return written


def billing_rows(organization: Organization, day: date, *, spike: str | None = None) -> list[dict[str, Any]]:
    """The rows of one day. ``spike``: the id of a project whose compute cost is five times as high as it would be."""
    random = Random(f"billing/{organization.seed}/{day.isoformat()}")
    weekend = 0.7 if day.weekday() >= 5 else 1.0
    season = 1 + 0.1 * math.sin(day.toordinal() / 29)
    rows = []
    for project in _billed(organization):
        for service, sku, description, asset_type, daily, unit, price in _LINES:
            count = organization.count_in(asset_type, project) if asset_type else 1
            if not count:
                continue
            cost = daily * math.sqrt(count) * season * random.uniform(0.85, 1.15)
            if project.environment != "prod":
                cost *= 0.4 * weekend
            if project.project_id == spike and service is _COMPUTE:
                cost *= 5
            row = _row(organization, project, day, service, (sku, description), cost, unit, price)
            if asset_type:
                name = organization.resource_name(asset_type, project, day.toordinal()) or ""
                row["resource"] = {"name": name.rpartition("/")[2], "global_name": name}
            row["credits"] = _credits(service, project, row["cost"], random)
            rows.append(row)
    return rows


def late_rows(organization: Organization, day: date) -> list[dict[str, Any]]:
    """Corrections of one day's rows: they arrive days after it, and most of them give money back."""
    random = Random(f"late/{organization.seed}/{day.isoformat()}")
    rows = []
    for project in random.sample(_billed(organization), 3):
        row = _row(
            organization,
            project,
            day,
            _COMPUTE,
            ("D2A1-0C17-0001", "N2 instance core"),
            random.uniform(-9, 3),
            "hour",
            0.0316,
        )
        row["cost_type"] = "adjustment"
        row["adjustment_info"] = {
            "id": f"ADJ-{day:%Y%m%d}-{project.number[-4:]}",
            "description": "Correction of metered usage",
            "mode": "COMPLETE_NEGATION" if row["cost"] < 0 else "MANUAL_ADJUSTMENT",
            "type": "USAGE_CORRECTION",
        }
        row["export_time"] = _at(day + timedelta(days=LATE_DAYS), 5)
        rows.append(row)
    return rows


def _billed(organization: Organization) -> list[Project]:
    """The projects that cost something: all of a small organization, more than 40 only slowly."""
    everybody = len(organization.projects)
    return list(organization.projects[: min(everybody, 40 + int(math.sqrt(max(0, everybody - 40))))])


def _row(
    organization: Organization,
    project: Project,
    day: date,
    service: tuple[str, str],
    sku: tuple[str, str],
    dollars: float,
    unit: str,
    price: float,
) -> dict[str, Any]:
    euro = project.index % 7 == 3
    rate = EUR_PER_USD if euro else 1.0
    cost = round(dollars * rate, 6)
    labels = [{"key": key, "value": value} for key, value in sorted(project.labels.items())]
    names = [{"resource_name": name, "display_name": _display(organization, name)} for name in project.ancestors]
    amount = round(dollars / price, 6)
    return {
        "billing_account_id": ACCOUNT_EUR if euro else ACCOUNT_USD,
        "service": {"id": service[0], "description": service[1]},
        "sku": {"id": sku[0], "description": sku[1]},
        "usage_start_time": _at(day, 0),
        "usage_end_time": _at(day + timedelta(days=1), 0),
        "project": {
            "id": project.project_id,
            "number": project.number,
            "name": project.display_name,
            "labels": labels,
            "ancestors": names,
        },
        "labels": labels[:2],
        "system_labels": [{"key": "compute.googleapis.com/cores", "value": "4"}] if service is _COMPUTE else [],
        "tags": [],
        "location": {
            "location": project.region,
            "country": "US" if project.region.startswith("us") else "BE",
            "region": project.region,
            "zone": None,
        },
        "resource": None,
        "cost": cost,
        "currency": "EUR" if euro else "USD",
        "currency_conversion_rate": rate,
        "usage": {"amount": amount, "unit": unit, "amount_in_pricing_units": amount, "pricing_unit": unit},
        "credits": [],
        "invoice": {"month": _invoice_month(day)},
        "cost_type": "regular",
        "adjustment_info": None,
        "export_time": _at(day, 23),
        "cost_at_list": cost,
    }


def _credits(service: tuple[str, str], project: Project, cost: float, random: Random) -> list[dict[str, Any]]:
    """None, one or two credits: whoever joins them to the cost counts it twice."""
    found = []
    if service is _COMPUTE:
        found.append(("Sustained use discount", "SUSTAINED_USAGE_DISCOUNT", -0.08 * cost))
        if project.environment == "prod":
            found.append(("Committed use discount: CPU", "COMMITTED_USAGE_DISCOUNT", -0.17 * cost))
    elif random.random() < 0.05:
        found.append(("Promotional credit", "PROMOTION", -0.5 * cost))
    return [
        {"name": name, "full_name": name, "id": kind.lower(), "type": kind, "amount": round(amount, 6)}
        for name, kind, amount in found
    ]


def _invoice_month(day: date) -> str:
    """Usage of a month's last day is billed with the next month: usage month and invoice month are not the same."""
    last = day.day == calendar.monthrange(day.year, day.month)[1]
    return f"{day + timedelta(days=1) if last else day:%Y%m}"


def _display(organization: Organization, ancestor: str) -> str:
    if ancestor.startswith("folders/"):
        return next(name for number, name, _ in organization.folders if ancestor == f"folders/{number}")
    return "example.com" if ancestor.startswith("organizations/") else ancestor.partition("/")[2]


def _at(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), UTC)


def _write(folder: Path, day: date, name: str, rows: Callable[[], list[dict[str, Any]]]) -> int:
    path = folder / f"usage_date={day.isoformat()}" / name
    if path.exists():
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows(), schema=SCHEMA), unfinished)
    unfinished.replace(path)
    return 1
