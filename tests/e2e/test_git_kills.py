"""A sync that is killed at any of its steps: the next one ends in the same state as if nothing had happened.

A step is whatever others can see of a sync: a git command that starts or has started, a statement or a commit in the
store.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from lz_sync_dagster.config import GitSyncConfig, RepositoryConfig, Settings, SyncLayers
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.git.service import sync_git
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, attempt, new_holder
from lz_sync_dagster.sync.store import Store, inbox, open_store, schema
from lz_sync_dagster.sync.store.inbox import NewDelivery
from lz_sync_dagster.sync.store.layer_runs import statuses
from tests.conftest import NOW, SOAK, SteppedClock
from tests.integration.replay_history import History
from tests.integration.replay_oracle import git

#: Tables that tell of the syncs themselves, and what else differs with their number.
_OF_RUNS = {"layer_runs", "layer_status", "event_log", "counters", "head_moves"}
_NUMBERED = {"run_id", "id"}


def sync(folder: Path, store: Store) -> LayerOutcome:
    settings = Settings(
        data_dir=folder / "data",
        landing_zone=RepositoryConfig(url=str(folder / "landing-zone.git")),
        portal_repository=RepositoryConfig(url=str(folder / "portal.git")),
        sync_layers=SyncLayers(git_sync=GitSyncConfig(max_file_bytes=10_000)),
    )
    clock = SteppedClock()
    return attempt(
        store,
        LayerId.GIT,
        lambda run: sync_git(settings, store, run, clock=clock, progress=silent),
        triggered_by="webhook:d-1",
        clock=clock,
        holder=new_holder(),
        waits=(),
    )


def open_at(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'store.db'}", migrate=False)


def sync_until(folder: Path, kill_at: int | None) -> None:
    """Sync in this process, and end it with SIGKILL before step ``kill_at``. The steps go to ``steps.json``."""
    steps: list[str] = []

    def step(name: str) -> None:
        if len(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(name)

    start: Callable[..., None] = subprocess.Popen.__init__

    def observed(self: subprocess.Popen[bytes], arguments: Any, *others: Any, **options: Any) -> None:
        command = next((word for word in arguments[1:] if not word.startswith("-")), "")
        step(f"git {command} starts")
        start(self, arguments, *others, **options)
        step(f"git {command} has started")

    subprocess.Popen.__init__ = observed  # type: ignore[method-assign]
    with open_at(folder) as store:
        sa.event.listen(store.engine, "before_cursor_execute", lambda *found: step(" ".join(found[2].split()[:3])))
        sa.event.listen(store.engine, "commit", lambda _connection: step("COMMIT"))
        sync(folder, store)
    (folder / "steps.json").write_bytes(orjson.dumps(steps))


class Syncs:
    """A state before a sync, from which a sync starts in a process of its own again and again."""

    def __init__(self, folder: Path) -> None:
        self.base, self.folder = folder / "base", folder / "work"
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([__name__])

    def start(self, kill_at: int | None = None) -> int:
        """Sync from the state before. Returns the exit code."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base, self.folder, symlinks=True)
        process = self._processes.Process(target=sync_until, args=(self.folder, kill_at))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def state(self, store: Store) -> dict[str, Any]:
        """What a sync leaves in the portal repository and in the store."""
        found: dict[str, Any] = {"portal": git(self.folder / "portal.git", "rev-parse", "main").decode()}
        with store.read() as connection:
            for table in schema.metadata.sorted_tables:
                if table.name not in _OF_RUNS:
                    rows = connection.execute(sa.select(table)).mappings()
                    if table is schema.inbox:  # what one layer asks of another is named after the run
                        rows = [{**row, "delivery_id": "", "body_hash": ""} for row in rows]
                    found[table.name] = sorted(
                        str({name: value for name, value in row.items() if name not in _NUMBERED}) for row in rows
                    )
        return found


@pytest.fixture
def syncs(tmp_path: Path, sqlite_template: Path) -> Syncs:
    """A first sync was made; then files came, went, moved and changed, and a delivery told of it."""
    made = Syncs(tmp_path)
    made.folder.mkdir()
    history = History(made.folder, 5, large=20_000, owned=set())
    shutil.copy(sqlite_template, made.folder / "store.db")
    steps = history.steps(8, meddles=False)
    next(steps)
    with open_at(made.folder) as store:
        sync(made.folder, store)
        for _ in steps:
            pass
        with store.write() as connection:
            inbox.insert(connection, NewDelivery("d-1", "hash", "push", "example/landing-zone"), now=NOW)
    made.folder.rename(made.base)
    return made


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
def test_a_sync_that_is_killed_at_any_step_is_made_good_by_the_next_one(syncs: Syncs) -> None:
    assert syncs.start() == 0
    steps: list[str] = orjson.loads((syncs.folder / "steps.json").read_bytes())
    assert {"git fetch starts", "git push has started", "COMMIT"} <= set(steps)
    with open_at(syncs.folder) as store:
        expected = syncs.state(store)
        with store.read() as connection:
            assert inbox.counts(connection).pending == 0

    # Quick: git's steps, what follows them, and the store's commits. ``make soak`` tries each step.
    chosen = {number for number, step in enumerate(steps) if step.startswith("git ") or step == "COMMIT"}
    chosen |= {steps.index("git push has started") + 1, len(steps) // 2}
    for number in range(len(steps)) if SOAK else sorted(chosen):
        where = f"killed before step {number} of {len(steps)} ({steps[number]})"
        assert syncs.start(number) == -signal.SIGKILL, where
        with open_at(syncs.folder) as store:
            sync(syncs.folder, store)
            assert syncs.state(store) == expected, where
            assert sync(syncs.folder, store).items_changed == 0, where
            assert syncs.state(store) == expected, where
            with store.read() as connection:
                layers = {status.layer: status.status for status in statuses(connection, now=NOW)}
            assert layers[LayerId.GIT] in (Status.SUCCESS, Status.PARTIAL), where
