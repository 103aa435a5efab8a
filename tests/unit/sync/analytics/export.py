"""Writes billing exports in the nested schema of Google's detailed export, as small as a test needs them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NAMED = pa.struct([("id", pa.string()), ("description", pa.string())])
LABELS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
SCHEMA = pa.schema(
    [
        ("billing_account_id", pa.string()),
        ("service", NAMED),
        ("sku", NAMED),
        ("usage_start_time", pa.timestamp("us", "UTC")),
        ("usage_end_time", pa.timestamp("us", "UTC")),
        (
            "project",
            pa.struct([("id", pa.string()), ("number", pa.string()), ("name", pa.string()), ("labels", LABELS)]),
        ),
        ("labels", LABELS),
        ("location", pa.struct([("location", pa.string()), ("country", pa.string()), ("region", pa.string())])),
        ("resource", pa.struct([("name", pa.string()), ("global_name", pa.string())])),
        ("cost", pa.float64()),
        ("currency", pa.string()),
        ("currency_conversion_rate", pa.float64()),
        (
            "credits",
            pa.list_(pa.struct([("name", pa.string()), ("amount", pa.float64()), ("type", pa.string())])),
        ),
        ("invoice", pa.struct([("month", pa.string())])),
        ("cost_type", pa.string()),
        ("export_time", pa.timestamp("us", "UTC")),
    ]
)


def row(**changes: Any) -> dict[str, Any]:
    """A line of Compute Engine usage for 10 USD without credits."""
    return {
        "billing_account_id": "000000-AAAAAA-BBBBBB",
        "service": {"id": "6F81-5844-456A", "description": "Compute Engine"},
        "sku": {"id": "D2E3-0C4D-1F2A", "description": "N2 Instance Core"},
        "usage_start_time": datetime(2026, 2, 27, 3, tzinfo=UTC),
        "usage_end_time": datetime(2026, 2, 27, 4, tzinfo=UTC),
        "project": {"id": "lz-prod-app", "number": "123", "name": "App", "labels": []},
        "labels": [],
        "location": {"location": "europe-west1", "country": "BE", "region": "europe-west1"},
        "resource": {"name": "vm-1", "global_name": "//compute.googleapis.com/vm-1"},
        "cost": 10.0,
        "currency": "USD",
        "currency_conversion_rate": 1.0,
        "credits": [],
        "invoice": {"month": "202602"},
        "cost_type": "regular",
        "export_time": datetime(2026, 2, 28, 1, tzinfo=UTC),
        **changes,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def write(folder: Path, day: str, *rows: dict[str, Any], name: str = "part-0.parquet") -> Path:
    """Write one file of one day of usage."""
    path = folder / f"usage_date={day}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(*rows), path)
    return path
