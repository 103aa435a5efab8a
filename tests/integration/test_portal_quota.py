"""The quota budget and the next sync's plan, over the portal's API and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lz_sync_dagster.config import Settings
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.sync.inventory.planner import Mode
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store import Store, coverage, part_reads, quota
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.quota import Quota
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock

SCOPE, BUCKET = "organizations/1", "storage.googleapis.com/Bucket"


def ask(store: Store, folder: Path, path: str, **api_sync: Any) -> Any:
    settings = Settings.model_validate({"data_dir": folder, "sync_layers": {"api_sync": api_sync}})
    with TestClient(create_app(settings, store, clock=SteppedClock(), pages=False)) as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json() if "json" in answer.headers["content-type"] else answer.text


def test_used_left_and_forecast_of_every_quota(store: Store, tmp_path: Path) -> None:
    quota.take(store, Quota.LIST_ASSETS, 30, configured=100, now=NOW)
    quota.throttled(store, Quota.SEARCH_ALL_RESOURCES, 20, configured=400, now=NOW)
    answer = ask(store, tmp_path, "/api/v1/sync/quota", scopes=[SCOPE], endpoints=["/storage", "/projects"])
    quotas = {item["quota"]: item for item in answer["quotas"]}
    assert list(quotas) == [item.value for item in Quota]
    assert quotas["list_assets"] == {
        "quota": "list_assets",
        "configured": 100,
        "limit": 100,
        "used": 30,
        "left": 70,
        "blocked_until": None,
        "calls_per_day": 30,
        "forecast": 8,
    }
    search = quotas["search_all_resources"]
    assert (search["limit"], search["left"], search["blocked_until"]) == (200, 0, "2026-03-01T12:00:20Z")
    assert (answer["as_of"], answer["source"]) == ("2026-03-01T12:00:00Z", "lz_sync")


def test_the_plan_says_of_each_part_how_it_is_read_and_why(store: Store, tmp_path: Path) -> None:
    known = [(SCOPE, BUCKET, "RESOURCE"), (SCOPE, BUCKET, "IAM_POLICY")]
    with store.write() as connection:
        marks = [CoverageMark(*part, CoverageStatus.COMPLETE, complete_read_ns=to_ns(NOW), assets=9) for part in known]
        coverage.mark(connection, marks, now=NOW)
        for part in known:
            part_reads.record_full(connection, part, calls=300)
    answer = ask(store, tmp_path, "/api/v1/sync/quota", scopes=[SCOPE], endpoints=["/storage", "/iam"])
    plan = answer["plan"]
    modes = {(part["asset_type"], part["content_type"]): part["mode"] for part in plan["parts"]}
    assert len(modes) == plan["full"] + plan["delta"] + plan["skip"] == 5
    assert set(modes.values()) <= {mode.value for mode in Mode}
    assert all(part["reason"] for part in plan["parts"])
    assert plan["proof_age_minutes"] == 60
    assert plan["proof_age_attainable"] is True


def test_without_a_scope_there_is_no_plan_and_no_forecast(store: Store, tmp_path: Path) -> None:
    answer = ask(store, tmp_path, "/api/v1/sync/quota")
    assert answer["plan"] is None
    assert {item["forecast"] for item in answer["quotas"]} == {None}


@pytest.mark.parametrize("scopes", [[], [SCOPE]])
def test_metrics_tell_the_quotas(store: Store, tmp_path: Path, scopes: list[str]) -> None:
    quota.take(store, Quota.LIST_ASSETS, 30, configured=100, now=NOW)
    quota.throttled(store, Quota.EXPORT_ASSETS, 20, configured=60, now=NOW)
    lines = ask(store, tmp_path, "/metrics", scopes=scopes).splitlines()
    assert 'lz_sync_quota_used{quota="list_assets"} 30.0' in lines
    assert 'lz_sync_quota_limit{quota="export_assets"} 30.0' in lines
    assert 'lz_sync_quota_blocked{quota="export_assets"} 1.0' in lines
    assert ("lz_sync_inventory_proof_age_attainable 1.0" in lines) is bool(scopes)
