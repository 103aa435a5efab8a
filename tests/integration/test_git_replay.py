"""The git layer through a history of everything: after each sync the portal repository equals what an oracle expects,
every selected file is accounted for, and a second sync does nothing."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lz_sync_dagster.config import GitSyncConfig, MappingRule, RepositoryConfig, Settings, SyncLayers
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.git.service import sync_git
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, schema
from tests.conftest import SOAK, SteppedClock
from tests.integration.replay_history import History
from tests.integration.replay_oracle import (
    Account,
    Contents,
    Oracle,
    differences,
    git,
    is_of_the_sync,
    listing,
    short,
)

#: What the reasons of the kinds say.
REASONS = {
    "secret": "looks like a secret",
    "large": "max_file_bytes",
    "long": "bytes; 1000 are allowed",
    "link": "symbolic link",
    "submodule": "submodule",
    "lfs": "Git LFS pointer",
    "name": "not UTF-8",
    "unsafe": "not a safe path",
    "collision": "collides with",
    "own": "file of its own",
}
#: Tables that a sync without a change may write.
RUNS = {"layer_runs", "layer_status"}
#: When something was last found true may move.
MOVES = {"proven_at", "compared_at"}


class Replay:
    """A history, its syncs, and what is checked after each."""

    def __init__(self, folder: Path, store: Store, *, seed: int, max_file_bytes: int, large: int) -> None:
        self.store = store
        self.seed = seed
        self.max_file_bytes = max_file_bytes
        self.clock = SteppedClock()
        owned: set[bytes] = set()
        self.history = History(folder, seed, large=large, owned=owned)
        self.landing_zone, self.portal = self.history.landing_zone.path, self.history.portal.path
        self.oracle = Oracle(self.landing_zone, self.portal, max_file_bytes, owned)
        self.settings = Settings(
            data_dir=folder / "data",
            landing_zone=RepositoryConfig(url=str(self.landing_zone)),
            portal_repository=RepositoryConfig(url=str(self.portal)),
        )
        self.written = Contents(self.portal)
        self.seen: set[str] = set()
        self.checks = 0

    def sync(self) -> LayerOutcome:
        mapping = list(GitSyncConfig().mapping)
        if self.history.shares:
            rule = MappingRule(source=("docs/shared/**",), destination=("docs/lz-reference/shared", "handbook"))
            mapping.insert(0, rule)
        config = GitSyncConfig(
            max_file_bytes=self.max_file_bytes,
            exclude=["docs/internal/**"] if self.history.excludes_internal else [],
            mapping=mapping,
        )
        settings = self.settings.model_copy(update={"sync_layers": SyncLayers(git_sync=config)})
        run = LayerRun(7, LayerId.GIT, "host:1", "test", 1, self.clock.advance(timedelta(minutes=1)))
        return sync_git(settings, self.store, run, clock=self.clock, progress=silent)

    def check(self, step: str) -> None:
        """Sync, and compare everything with what the oracle says."""
        history = self.history
        expected = self.oracle.expect(excludes_internal=history.excludes_internal, shares=history.shares)
        accounts = {(short(path), short(place)): account for (path, place), account in self.oracle.accounts.items()}
        self.seen |= {account.verdict for account in accounts.values()}
        outcome = self.sync()
        found = {path: entry for path, entry in listing(self.portal).items() if not is_of_the_sync(path)}
        problems = differences("portal", expected, found)
        new = {found[path].oid for path in self.oracle.owned & found.keys()}
        self.written.read(new)
        problems += [f"content of {oid} differs" for oid in new if self.written[oid] != self.oracle.source[oid]]
        problems += differences("synced_files", accounts, self._accounts())
        commits = set(git(self.landing_zone, "rev-list", "main").decode().split())
        problems += differences(
            "commits", dict.fromkeys(commits), dict.fromkeys(row["sha"] for row in self._rows(schema.commits))
        )
        problems += differences("documents", self._expected_documents(), self._documents())
        if outcome.items_synced != len(self.oracle.owned):
            problems.append(f"items_synced is {outcome.items_synced}, {len(self.oracle.owned)} are")
        withheld = "secret" in {account.verdict for account in accounts.values()}
        partial = withheld or b"[unclosed" in self.oracle.governance
        if outcome.status is not (Status.PARTIAL if partial else Status.SUCCESS):
            problems.append(f"the status is {outcome.status}: {outcome.errors}")
        self.checks += 1
        if self.checks % (1 if SOAK else 3) == 0:
            problems += self._again()
        assert not problems, "\n  ".join([f"seed {self.seed}, {step}:", *problems[:40]])

    def _again(self) -> list[str]:
        """A second sync changes nothing."""
        head, before = git(self.portal, "rev-parse", "main"), self._everything()
        outcome = self.sync()
        problems = differences("store after the second sync", before, self._everything())
        if outcome.items_changed or git(self.portal, "rev-parse", "main") != head:
            problems.append(f"the second sync changed {outcome.items_changed} items: {outcome.details}")
        return problems

    def _rows(self, *tables: sa.Table) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [
                {"table": table.name, **row}
                for table in tables
                for row in connection.exec_driver_sql(f"SELECT * FROM {table.name}").mappings()
            ]

    def _everything(self) -> dict[str, str]:
        rows = self._rows(*(table for table in schema.metadata.sorted_tables if table.name not in RUNS))
        return {str({name: value for name, value in row.items() if name not in MOVES}): "" for row in rows}

    def _accounts(self) -> dict[tuple[str, str], Account]:
        return {
            (short(row["path"]), short(row["destination"])): Account(_verdict(row), row["blob"])
            for row in self._rows(schema.synced_files)
        }

    def _expected_documents(self) -> dict[str, str]:
        return {
            path: account.oid
            for (path, _), account in self.oracle.accounts.items()
            # What only its place keeps out is read all the same.
            if account.verdict in ("synced", "unsafe", "collision", "own") and path.lower().endswith(".md")
        }

    def _documents(self) -> dict[str, str]:
        return {row["path"]: row["blob"] for row in self._rows(schema.documents) if row["path"].lower().endswith(".md")}


def _verdict(row: dict[str, Any]) -> str:
    if row["status"] == "synced" and row["reason"] is None:
        return "synced"
    kinds = [kind for kind, words in REASONS.items() if words in (row["reason"] or "")]
    return kinds[0] if len(kinds) == 1 else f"{row['status']}: {row['reason']}"


def run(replay: Replay, *, count: int | None = None, batch: int = 1) -> None:
    """Replay a history, with a sync after each step or after up to ``batch`` of them."""
    sizes = random.Random(replay.seed)
    waiting: list[str] = []
    size = 1
    for number, step in enumerate(replay.history.steps(count)):
        waiting.append(f"step {number}: {step}")
        if len(waiting) >= size:
            replay.check("\n  ".join(waiting))
            waiting, size = [], sizes.randint(1, batch)
    replay.check("\n  ".join(["the end", *waiting]))
    git(replay.portal, "fsck", "--connectivity-only")
    if batch == 1:
        assert replay.seen == {"synced", *REASONS}, "the history has every kind of refusal"


#: ``make soak`` replays 300 steps, with the default limit and a file of 20 MB. Otherwise each kind happens once.
COUNT = 300 if SOAK else None
SIZES = {"max_file_bytes": 5 * 2**20, "large": 20_000_000} if SOAK else {"max_file_bytes": 10_000, "large": 20_000}


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
def test_a_history_of_everything(sqlite_store: Store, tmp_path: Path) -> None:
    run(Replay(tmp_path, sqlite_store, seed=1, **SIZES), count=COUNT)


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_several_commits_between_two_syncs(store: Store, tmp_path: Path) -> None:
    run(Replay(tmp_path, store, seed=2, **SIZES), count=COUNT, batch=5)
