"""Random organizations, random faults, one rule: the inventory is the truth, or says what is missing of it.

A run that fails tells its seed, the name of the test has it too: it can be run again by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lz_sync_dagster.sync.store import Store
from tests.conftest import SOAK
from tests.integration.inventory_model import Model
from tests.integration.inventory_world import serve

#: How many runs, and of how many steps; and of those on both engines and over gRPC, how many.
RUNS, STEPS = (500, 200) if SOAK else (8, 24)
SLOW_RUNS = 20 if SOAK else 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_strikes_the_inventory_is_the_truth_in_the_end(
    seed: int, sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Model(f"run {seed}", sqlite_store, tmp_path, monkeypatch).run(STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SLOW_RUNS))
def test_on_both_engines(seed: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Model(f"engine {seed}", store, tmp_path, monkeypatch).run(STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SLOW_RUNS))
def test_over_grpc(seed: int, sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(f"remote {seed}", sqlite_store, tmp_path, monkeypatch, remote=True)
    with serve(model.server) as endpoint:
        model.served_at(endpoint).run(STEPS)
