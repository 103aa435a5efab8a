"""A foreground sync tells how each layer ended, also when it could not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.foreground import layers_of, succeeded, sync_layers
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, RetryLater, attempt
from lz_sync_dagster.sync.store import Store
from tests.conftest import SteppedClock


def test_a_layer_that_somebody_else_syncs_is_no_success_and_says_who(
    sqlite_store: Store, clock: SteppedClock, tmp_path: Path
) -> None:
    def unavailable(run: LayerRun) -> LayerOutcome:
        raise SyncError("is down", where="there", remedy="wait", reason=Reason.UNAVAILABLE)

    with pytest.raises(RetryLater):
        attempt(sqlite_store, LayerId.GIT, unavailable, triggered_by="t", clock=clock, holder="other-host:1:a")
    results = sync_layers(
        Settings(data_dir=tmp_path),
        sqlite_store,
        layers_of("git"),
        triggered_by="t",
        clock=clock,
        sleep=lambda _: None,
        progress=lambda _: silent,
    )
    (result,) = results
    assert result.status.status is Status.FAILED
    assert "is already syncing; wait for other-host:1:a to finish" in result.status.errors[-1]
    assert not succeeded(results)
