"""Running dbt: where the project is, what it is told, and how a failure reads. A whole build:
tests/integration/test_dbt_project.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.sync.analytics import raw, transform
from lz_sync_dagster.sync.errors import Reason, SyncError


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(transform.manifest_path().read_text())
    return document


def results(path: Path, *items: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"results": list(items), "elapsed_time": 4.5}))
    return path


def result(unique_id: str, status: str, message: str | None = None) -> dict[str, Any]:
    return {"unique_id": unique_id, "status": status, "message": message}


def finished(code: int, output: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, stdout=output, stderr="")


def test_the_manifest_is_parsed_once_however_many_ask() -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: transform.manifest_path(), range(4)))
    (path,) = paths
    parsed = path.stat().st_mtime_ns
    assert transform.manifest_path().stat().st_mtime_ns == parsed


def test_the_manifest_is_kept_outside_of_the_project() -> None:
    assert transform.project_dir() not in transform.manifest_path().parents


def test_a_cache_folder_that_cannot_be_made_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert transform.cache_dir() == tmp_path / f"lz_sync_dagster-{os.getuid()}" / "dbt"


def test_a_user_without_a_home_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = transform.cache_dir()
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert transform.cache_dir() == folder


@pytest.mark.parametrize("kind", ["link", "open to others"])
def test_a_folder_that_somebody_else_could_have_made_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / f"lz_sync_dagster-{os.getuid()}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        own.symlink_to(tmp_path / "elsewhere")
    else:
        own.mkdir()
        own.chmod(0o777)
    with pytest.raises(SyncError, match="set XDG_CACHE_HOME"):
        transform.cache_dir()


def test_no_query_reads_from_something_that_is_named_like_a_column(manifest: dict[str, Any]) -> None:
    """In BigQuery such a column is read as the whole row."""
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    columns = {column for node in [*models, *manifest["sources"].values()] for column in node["columns"]}
    columns |= {name for table in raw.TABLES for name in [*table.schema.names, table.partition]}
    assert {"source", "cost", "coverage"} <= columns
    for model in models:
        named = re.findall(r"(\w+) as \(|(?:from|join) (\w+)", model["raw_code"])
        names = {model["name"], *(name for found in named for name in found if name)}
        assert not names & columns, model["name"]


def test_every_source_names_the_asset_it_comes_from(manifest: dict[str, Any]) -> None:
    keys = {
        f"{source['source_name']}.{source['name']}": source["meta"]["dagster"]["asset_key"]
        for source in manifest["sources"].values()
    }
    assert keys == {
        "inventory.resources": ["inventory", "resources"],
        "inventory.coverage": ["inventory", "coverage"],
        "inventory_history.resource_versions": ["inventory", "resources"],
        "inventory.findings": ["inventory", "findings"],
        "billing.costs": ["analytics", "raw_billing"],
    }


def test_every_model_and_column_is_described_and_says_its_grain(manifest: dict[str, Any]) -> None:
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    assert len(models) == 11
    for model in models:
        assert model["description"].startswith("One row per "), model["name"]
        assert model["columns"], model["name"]
        for column in model["columns"].values():
            assert column["description"], f"{model['name']}.{column['name']}"


def test_every_model_is_named_by_its_folder_and_its_key_is_tested(manifest: dict[str, Any]) -> None:
    prefixes = {"staging": ("stg_",), "intermediate": ("int_",), "marts": ("fct_", "dim_", "rpt_")}
    tested = {
        node["attached_node"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and "unique" in node.get("test_metadata", {}).get("name", "")
    }
    for unique_id, node in manifest["nodes"].items():
        if node["resource_type"] == "model":
            folder = node["fqn"][1]
            assert node["name"].startswith(prefixes[folder])
            assert unique_id in tested, f"{node['name']}: no test of its key"
            assert node["contract"]["enforced"] == (folder == "marts")


def test_dbts_variables_do_not_disturb_our_own_settings(tmp_path: Path) -> None:
    variables = transform.environment(Settings(data_dir=tmp_path))
    assert load_settings(tmp_path_file(tmp_path), environ=variables) == Settings()


def tmp_path_file(folder: Path) -> Path:
    path = folder / "sync_config.yaml"
    path.write_text("{}")
    return path


def test_dbt_is_told_the_warehouse_of_the_settings(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        warehouse={"engine": "bigquery", "project": "lz-ops", "location": "EU", "raw": "gs://bucket/raw/"},
        sync_layers={"bigquery": {"dataset": "metrics", "source": "main-zone"}},
    )
    assert transform.environment(settings) == {
        "LZ_DBT_TARGET": "bigquery",
        "LZ_DBT_DUCKDB_PATH": str(tmp_path / "warehouse.duckdb"),
        "LZ_DBT_RAW_DIR": "gs://bucket/raw",
        "LZ_DBT_SOURCE": "main-zone",
        "LZ_DBT_DATASET": "metrics",
        "LZ_DBT_BIGQUERY_PROJECT": "lz-ops",
        "LZ_DBT_BIGQUERY_LOCATION": "EU",
    }


def test_a_build_counts_models_and_tests(tmp_path: Path) -> None:
    path = results(
        tmp_path / "run_results.json",
        result("model.lz_sync.fct_daily_costs", "success"),
        result("test.lz_sync.not_null_x.1", "pass"),
        result("unit_test.lz_sync.m.rule", "pass"),
        result("test.lz_sync.soft.2", "warn", "Got 2 results"),
    )
    assert transform.read_results(path, finished(0)) == transform.BuildResult(1, 3, 1, 4.5)


def test_a_failed_test_is_named_with_its_message(tmp_path: Path) -> None:
    path = results(
        tmp_path / "run_results.json",
        result("model.lz_sync.stg_billing__costs", "success"),
        result("test.lz_sync.unique_combination_costs.abc", "fail", "Got 3 results, configured to fail if != 0"),
        result("model.lz_sync.fct_daily_costs", "skipped"),
    )
    with pytest.raises(SyncError) as caught:
        transform.read_results(path, finished(1))
    assert str(caught.value) == (
        "dbt test unique_combination_costs.abc: fail: Got 3 results, configured to fail if != 0; "
        "look at the compiled SQL below data_dir/dbt/target and at the raw data it reads"
    )
    assert not caught.value.transient


def test_a_failed_model_is_named_with_its_message(tmp_path: Path) -> None:
    path = results(
        tmp_path / "run_results.json",
        result("model.lz_sync.stg_inventory__resources", "error", "Runtime Error\n  No files found"),
    )
    with pytest.raises(SyncError, match=r"dbt model stg_inventory__resources: error: .*No files found"):
        transform.read_results(path, finished(1))


def test_a_warehouse_that_somebody_else_has_open_is_worth_another_attempt(tmp_path: Path) -> None:
    output = "IO Error: Could not set lock on file warehouse.duckdb: Conflicting lock is held in PID 7"
    with pytest.raises(SyncError) as caught:
        transform.read_results(tmp_path / "none.json", finished(2, output))
    assert (caught.value.reason, caught.value.transient) == (Reason.CONFLICT, True)


@pytest.mark.parametrize(
    ("what", "transient"),
    [
        ("error: IO Error: Could not set lock on file w.duckdb: Conflicting lock is held in PID 7", True),
        ("error: 503 POST https://bigquery.googleapis.com: backendError", True),
        ("error: 400 POST https://bigquery.googleapis.com: Syntax error", False),
        ("fail: Got 503 results, configured to fail if != 0", False),
    ],
)
def test_only_what_may_pass_is_worth_another_attempt(what: str, transient: bool) -> None:
    assert transform.failure(what, where="model.m", output="").transient is transient


def test_a_dbt_that_does_not_start_says_why(tmp_path: Path) -> None:
    output = "Encountered an error:\nParsing Error\n  dbt_project.yml is invalid"
    with pytest.raises(SyncError, match=r"dbt build: dbt could not start \(.*Parsing Error"):
        transform.read_results(tmp_path / "none.json", finished(2, output))
