"""The git layer against two references: the way that people script it (clone, copy, add, commit, push), and what git
itself needs for the same change."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.git_repositories import Growing, head, make_landing_zone, make_portal
from bench.harness import ROUNDS, BenchError, Measured, Options, Side, alternate, medians_ms, ratio
from demo.repositories import commit_changes
from lz_sync_dagster.config import RepositoryConfig, Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.foreground import sync_layers
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.timing import utcnow

_PLACE = "docs/lz-reference"
#: The same for every git process of the run, whoever starts it.
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Bench",
    "GIT_AUTHOR_EMAIL": "bench@example.com",
    "GIT_COMMITTER_NAME": "Bench",
    "GIT_COMMITTER_EMAIL": "bench@example.com",
}


def bench_git(options: Options) -> Measured:
    """Measure a sync without a change and one of three files, on a small and a large landing zone."""
    os.environ.update(_ENVIRONMENT)
    small_files, large_files, rounds = (120, 480, 2) if options.quick else (3_000, 30_000, ROUNDS + 2)
    options.say(f"making landing zones of {small_files} and {large_files} files")
    small = make_landing_zone(options.folder / "small.git", small_files)
    large = make_landing_zone(options.folder / "large.git", large_files)
    with (
        Ours(options.folder / "small", small) as ours,
        Ours(options.folder / "large", large) as ours_large,
    ):
        options.say("first syncs")
        figures: dict[str, Any] = {"files_3k": small_files, "files_30k": large_files, "rounds": rounds}
        first = {"first_sync_3k_ms": ours.first_sync(), "first_sync_30k_ms": ours_large.first_sync()}
        copy = CloneCopy(options.folder / "clone-copy", small)
        raw = RawGit(options.folder / "raw", small, ours.portal)
        copy.first_sync()

        def change(number: int) -> None:
            raw.changes = small.push_change(number)
            large.push_change(number)

        options.say(f"three changed files, {rounds} rounds")
        changed = alternate(
            {"ours": ours.changed, "clone_copy": copy.changed, "raw_git": raw.changed, "ours_30k": ours_large.changed},
            rounds=rounds,
            before=change,
        )
        options.say(f"no change, {rounds} rounds")
        same = alternate(
            {"ours": ours.same, "clone_copy": copy.same, "ours_30k": ours_large.same, "raw_fetch": raw.same},
            rounds=rounds,
        )
    figures |= medians_ms(changed, prefix="change") | medians_ms(same, prefix="noop") | first
    if options.dagster:
        from bench.delivery import measure_deliveries  # it brings servers and their clients with it

        options.say("deliveries through Dagster")
        figures |= measure_deliveries(options.folder / "dagster", count=2 if options.quick else 7, say=options.say)
    return Measured(
        {
            "noop_speedup_vs_clone_copy": ratio(same["clone_copy"], same["ours"]),
            "change_speedup_vs_clone_copy": ratio(changed["clone_copy"], changed["ours"]),
            "change_cost_vs_raw_git": ratio(changed["ours"], changed["raw_git"]),
            "change_cost_30k_vs_3k_files": ratio(changed["ours_30k"], changed["ours"]),
        },
        figures,
    )


class Ours:
    """The whole of ``lz-sync sync git``: the layer's lease and run record, fetch, plan, push, rows. Only imports and
    the opening of the store are outside the time."""

    def __init__(self, folder: Path, landing_zone: Growing) -> None:
        folder.mkdir()
        self.portal = make_portal(folder / "portal.git")
        self._settings = Settings(
            data_dir=folder / "data",
            landing_zone=RepositoryConfig(url=f"file://{landing_zone.path}"),
            portal_repository=RepositoryConfig(url=f"file://{self.portal}"),
        )
        (folder / "data").mkdir()
        self._store: Store = open_store(f"sqlite:///{folder / 'data' / 'store.db'}")
        self._head = ""
        self.changed = Side(self.sync, prepare=self._look, check=lambda: self._expect_move(True))
        self.same = Side(self.sync, prepare=self._look, check=lambda: self._expect_move(False))

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def sync(self) -> None:
        """One sync in the foreground."""
        (result,) = sync_layers(
            self._settings,
            self._store,
            (LayerId.GIT,),
            triggered_by="manual:bench",
            clock=utcnow,
            sleep=time.sleep,
            progress=lambda _: silent,
        )
        if result.status.status is not Status.SUCCESS:
            raise BenchError(f"the sync ended {result.status.status}: {'; '.join(result.status.errors)}")

    def first_sync(self) -> float:
        """Sync for the first time; returns milliseconds."""
        started = time.perf_counter()
        self.sync()
        return round(1000 * (time.perf_counter() - started), 1)

    def _look(self) -> None:
        self._head = head(self.portal)

    def _expect_move(self, moved: bool) -> None:
        if (head(self.portal) != self._head) is not moved:
            raise BenchError(f"the portal repository's head {'did not move' if moved else 'moved'}")


class CloneCopy:
    """What a scheduled script does: a fresh shallow clone of the landing zone, its mapped paths copied into a checkout
    of the portal repository that is kept, and whatever git finds changed there committed and pushed."""

    def __init__(self, folder: Path, landing_zone: Growing) -> None:
        folder.mkdir()
        self._source = f"file://{landing_zone.path}"
        self._portal = make_portal(folder / "portal.git")
        self._clone, self._checkout = folder / "clone", folder / "checkout"
        _run("git", "clone", "--quiet", f"file://{self._portal}", str(self._checkout))
        for place in (_PLACE, "config"):
            (self._checkout / place).mkdir(parents=True)
        remove = self._remove_clone
        self.changed = Side(self.sync, check=remove)
        self.same = Side(self.sync, check=remove)

    def sync(self) -> None:
        """Clone, copy, and push if anything changed."""
        clone, checkout, place = self._clone, self._checkout, self._checkout / _PLACE
        _run("git", "clone", "--quiet", "--depth", "1", self._source, str(clone))
        _run("cp", "-r", f"{clone}/docs/.", str(place))
        _run("cp", "-r", f"{clone}/terraform", str(place))
        _run("cp", f"{clone}/ENFORCEMENT_GATES.md", f"{clone}/RUNBOOKS.md", str(place))
        _run("cp", f"{clone}/pmo.yaml", f"{checkout}/config/lz-pmo.yaml")
        _run("git", "-C", str(checkout), "add", "-A")
        if _run("git", "-C", str(checkout), "status", "--porcelain"):
            _run("git", "-C", str(checkout), "commit", "--quiet", "-m", "Update from the landing zone")
            _run("git", "-C", str(checkout), "push", "--quiet")

    def first_sync(self) -> None:
        """Fill the portal repository."""
        self.sync()
        self._remove_clone()

    def _remove_clone(self) -> None:
        shutil.rmtree(self._clone)


@dataclass
class RawGit:
    """The floor: git's own commands on bare repositories that are kept. ``git fetch && git diff-tree -r && git push``;
    the commit that is pushed is made before the time starts. Without a change: the fetch alone."""

    folder: Path
    landing_zone: Growing
    like: Path
    changes: dict[str, bytes | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._mirror, self._remote, self._portal = (self.folder / name for name in ("lz.git", "remote.git", "copy.git"))
        for source, target in ((self.landing_zone.path, self._mirror), (self.like, self._remote)):
            _run("git", "clone", "--quiet", "--bare", f"file://{source}", str(target))
        _run("git", "clone", "--quiet", "--bare", f"file://{self._remote}", str(self._portal))
        self._known = head(self._mirror)
        self.changed = Side(self.sync, prepare=self._commit)
        self.same = Side(self._fetch)

    def sync(self) -> None:
        """Fetch, say what changed, push."""
        self._fetch()
        new = head(self._mirror)
        _run("git", f"--git-dir={self._mirror}", "diff-tree", "-r", self._known, new)
        _run("git", f"--git-dir={self._portal}", "push", "--quiet", "origin", "main:main")
        self._known = new

    def _fetch(self) -> None:
        _run("git", f"--git-dir={self._mirror}", "fetch", "--quiet", "origin", "+main:main")

    def _commit(self) -> None:
        changes = {f"{_PLACE}/{name.removeprefix('docs/')}": data for name, data in self.changes.items()}
        commit_changes(self._portal, changes, message="Update", at=utcnow())


def _run(*command: str) -> bytes:
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
