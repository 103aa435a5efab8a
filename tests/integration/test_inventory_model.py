"""Random organizations, random faults, one rule: the inventory is the truth, or says what is missing of it.

A run that fails tells its seed, the name of the test has it too: it can be run again by itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lz_sync_dagster.sync.store import Store, open_store
from tests.conftest import SOAK
from tests.integration.inventory_model import Model
from tests.integration.inventory_world import serve

#: How many runs, and of how many steps; and of those on both engines and over gRPC, how many.
RUNS, STEPS = (500, 200) if SOAK else (8, 24)
SLOW_RUNS = 20 if SOAK else 1


@pytest.fixture
def quick_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """A store that does not wait for the disk: what is killed here is a process, not the machine."""
    path = tmp_path / "store.db"
    shutil.copy(sqlite_template, path)
    with open_store(f"sqlite:///{path}", migrate=False) as store:
        sa.event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
        store.engine.dispose()
        yield store


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_strikes_the_inventory_is_the_truth_in_the_end(
    seed: int, quick_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Model(f"run {seed}", quick_store, tmp_path, monkeypatch).run(STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SLOW_RUNS))
def test_on_both_engines(seed: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Model(f"engine {seed}", store, tmp_path, monkeypatch).run(STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SLOW_RUNS))
def test_over_grpc(seed: int, quick_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(f"remote {seed}", quick_store, tmp_path, monkeypatch, remote=True)
    with serve(model.server) as endpoint:
        model.served_at(endpoint).run(STEPS)
