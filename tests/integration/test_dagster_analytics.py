"""The analytics layer as one Dagster run: three steps, one sync of the layer, dbt's tests as checks."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.store.layer_runs import recent

with warnings.catch_warnings():  # of packages that these two import, at import
    warnings.simplefilter("ignore")
    import dagster_dbt  # noqa: F401
    import dagster_gcp  # noqa: F401

from lz_sync_dagster.definitions import build_defs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


@pytest.mark.filterwarnings("ignore")  # dbt's own, which loads its adapter into this process
def test_three_steps_are_one_sync_and_the_models_are_checked(tmp_path: Path, store: Store) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path / "data"})
    definitions = build_defs(settings, resource_overrides={"settings": settings, "store": store})
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        job = definitions.get_job_def("analytics_job")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        raw = dg.AssetKey(["analytics", "raw_billing"])
        alone = job.execute_in_process(instance=instance, asset_selection=[raw])

    assert result.success
    made = {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}
    assert {"raw_billing", "fct_daily_lz_metrics", "daily_metrics"} <= made
    checks: dict[str, Any] = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["unique_combination_fct_daily_lz_metrics_date__source__currency"].passed
    assert not checks["sync_is_complete"].passed
    assert "there is no raw data yet" in checks["sync_is_complete"].description
    with store.read() as connection:
        runs = recent(connection, limit=5, layer=LayerId.BIGQUERY)
    assert [(run.status, run.attempts) for run in runs] == [("success", 1), ("partial", 1)], (
        "a step that somebody chose by hand ends its sync by itself"
    )
    assert alone.success
