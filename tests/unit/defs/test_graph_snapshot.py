"""The graph is what ``graph.txt`` says, wherever it is loaded, and follows the naming rules of the project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg

from lz_sync_dagster.layers import LAYERS
from tests.unit.defs.graph import FILE, describe

ROOT = Path(__file__).parents[3]
GROUPS = {layer.group for layer in LAYERS}


def test_the_graph_is_the_recorded_one(definitions: dg.Definitions) -> None:
    assert describe(definitions) == FILE.read_text(encoding="utf-8"), (
        "the graph changed; if that is meant: .venv/bin/python -m tests.unit.defs.graph"
    )


def test_an_empty_environment_and_no_file_give_the_same_graph(tmp_path: Path) -> None:
    code = (
        "from lz_sync_dagster.definitions import build_defs\n"
        "from tests.unit.defs.graph import describe\n"
        "print(describe(build_defs()), end='')"
    )
    # the cache of the parsed dbt project is found by HOME; without one it goes to a temporary folder
    environment = {"PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", str(tmp_path))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == FILE.read_text(encoding="utf-8")


def test_five_groups_hold_all_assets(definitions: dg.Definitions) -> None:
    specs = list(definitions.resolve_all_asset_specs())
    assert {spec.group_name for spec in specs} == GROUPS
    for spec in specs:
        assert len(spec.key.path) == 2
        assert spec.key.path[0] == spec.group_name


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    for spec in definitions.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        assert spec.description, f"{name} has no description"
        assert spec.owners, f"{name} has no owner"
        assert all(owner.startswith("team:") for owner in spec.owners)
        assert 1 <= len(spec.kinds) <= 3, f"{name} has {len(spec.kinds)} kinds"
        assert spec.freshness_policy is not None, f"{name} has no freshness policy"
        assert "lz_sync/layer" in spec.tags


def test_assets_that_one_step_makes_are_declared_upstream_first(definitions: dg.Definitions) -> None:
    for assets in definitions.assets or ():
        assert isinstance(assets, dg.AssetsDefinition)
        if assets.op.name.endswith("_sync"):
            seen: set[dg.AssetKey] = set()
            for spec in assets.specs:
                assert not {dep.asset_key for dep in spec.deps} & set(assets.keys) - seen
                seen.add(spec.key)


def test_every_layer_has_a_job_and_a_check_of_its_sync(repository: dg.RepositoryDefinition) -> None:
    assert {f"{group}_job" for group in GROUPS} <= set(repository.job_names)
    checked = {
        key.asset_key.path[0] for key in repository.asset_graph.asset_check_keys if key.name == "sync_is_complete"
    }
    assert checked == GROUPS


def test_names_follow_the_grammar(repository: dg.RepositoryDefinition) -> None:
    groups = "|".join((*sorted(GROUPS), "operations"))
    for names, kind in (
        ([item.name for item in repository.sensor_defs], "sensor"),
        ([item.name for item in repository.schedule_defs], "schedule"),
    ):
        for name in names:
            assert re.fullmatch(rf"({groups})_[a-z]+(_[a-z]+)*_{kind}", name), name
    for name in repository.job_names:
        assert name.startswith("__") or re.fullmatch(rf"({groups})(_audit)?_job", name), name
    for name in repository.get_top_level_resources():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name), name


def test_a_commit_is_upstream_of_the_published_mart(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    upstream = graph.get_ancestor_asset_keys(dg.AssetKey(["analytics", "daily_metrics"]))
    assert dg.AssetKey(["git", "commits"]) in upstream
    assert dg.AssetKey(["inventory", "resources"]) in upstream
    assert dg.AssetKey(["analytics", "fct_daily_lz_metrics"]) in upstream


def test_everything_the_demo_needs_runs_by_default(repository: dg.RepositoryDefinition) -> None:
    assert all(item.default_status is dg.DefaultSensorStatus.RUNNING for item in repository.sensor_defs)
    assert all(item.default_status is dg.DefaultScheduleStatus.RUNNING for item in repository.schedule_defs)
