"""The git layer against real repositories: what the portal repository and the store hold after a sync."""

from __future__ import annotations

import base64
import itertools
import random
import shutil
import string
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pygit2
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from demo.repositories import Repositories, commit_change, commit_changes, make_repositories, read_file
from lz_sync_dagster.config import GitSyncConfig, RepositoryConfig, Settings, SyncLayers
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git import documents
from lz_sync_dagster.sync.git.audit import audit_portal
from lz_sync_dagster.sync.git.manifest import is_manifest
from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.mirror import Mirror
from lz_sync_dagster.sync.git.service import mirrors, sync_git
from lz_sync_dagster.sync.git.source import Source
from lz_sync_dagster.sync.git.tree import entries_of
from lz_sync_dagster.sync.github.credentials import GitCredential
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import Progress, silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, inbox, repository, schema, source_findings
from lz_sync_dagster.sync.store.inbox import NewDelivery
from lz_sync_dagster.sync.store.repository import Document
from tests.conftest import NOW, SteppedClock

PRIVATE_KEY = (
    b"-----BEGIN RSA PRIVATE KEY-----\n" + b"QUJDREVGR0hJSktMTU5PUA==\n" * 4 + b"-----END RSA PRIVATE KEY-----\n"
)


@dataclass
class World:
    """The demo's repositories, a store, and the syncs between them."""

    folder: Path
    store: Store
    repositories: Repositories
    clock: SteppedClock = field(default_factory=SteppedClock)
    config: GitSyncConfig = field(default_factory=GitSyncConfig)

    @property
    def landing_zone(self) -> Path:
        return self.repositories.landing_zone

    @property
    def portal(self) -> Path:
        return self.repositories.portal

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "data_dir": self.folder / "data",
            "sync_layers": SyncLayers(git_sync=self.config),
            "landing_zone": RepositoryConfig(url=str(self.landing_zone)),
            "portal_repository": RepositoryConfig(url=f"file://{self.portal}", page="https://git.example.com/portal/"),
        }
        return Settings(**(values | changes))

    def sync(self, *, progress: Progress = silent, **changes: Any) -> LayerOutcome:
        run = LayerRun(7, LayerId.GIT, "host:1", "webhook:d-1", 1, self.clock())
        return sync_git(self.settings(**changes), self.store, run, clock=self.clock, progress=progress)

    def change(self, path: str, content: bytes | None, repo: Path | None = None) -> str:
        return commit_change(repo or self.landing_zone, path, content, message=f"Change {path}", at=NOW)

    def rows(self, table: sa.Table) -> list[sa.Row[Any]]:
        with self.store.read() as connection:
            return list(connection.execute(sa.select(table)))

    def not_synced(self) -> dict[str, str]:
        return {row.path: row.reason for row in self.rows(schema.synced_files) if row.status == "not_synced"}


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return World(tmp_path, store, make_repositories(tmp_path / "repositories"))


@pytest.fixture
def local(sqlite_store: Store, tmp_path: Path) -> World:
    return World(tmp_path, sqlite_store, make_repositories(tmp_path / "repositories"))


def head(path: Path) -> pygit2.Commit:
    return pygit2.Repository(str(path)).references["refs/heads/main"].peel(pygit2.Commit)


def blobs(path: Path) -> dict[str, str]:
    entries = entries_of(pygit2.Repository(str(path)), head(path).tree)
    return {name: entry.blob for name, entry in entries.items() if not is_manifest(name)}


def expected(landing_zone: Path) -> dict[str, str]:
    """The default mapping, worked out by hand."""
    single = {"pmo.yaml": "config/lz-pmo.yaml"}
    single |= {name: f"docs/lz-reference/{name}" for name in ("ENFORCEMENT_GATES.md", "RUNBOOKS.md")}
    placed = {}
    for path, blob in blobs(landing_zone).items():
        if path in single:
            placed[single[path]] = blob
        elif path.startswith("docs/"):
            placed["docs/lz-reference/" + path.removeprefix("docs/")] = blob
        elif path.startswith("terraform/") and path.endswith(".tf"):
            placed["docs/lz-reference/" + path] = blob
    return placed


def test_the_first_sync_mirrors_the_landing_zone_and_fills_the_tables(world: World) -> None:
    own = blobs(world.portal)
    outcome = world.sync()

    assert blobs(world.portal) == own | expected(world.landing_zone)
    assert (outcome.status, outcome.errors, outcome.as_of) == (Status.SUCCESS, (), NOW)
    assert outcome.items_synced == len(expected(world.landing_zone))
    assert outcome.items_changed == outcome.items_synced + len(history(world.landing_zone))
    commit = head(world.portal)
    assert commit.message.endswith(
        f"\n\nLanding-Zone-Commit: {head(world.landing_zone).id}\nLanding-Zone-Actor: Chen Wei\n"
        "Triggered-By: webhook:d-1\n"
    )
    assert outcome.details["portal_commits"]["url"] == f"https://git.example.com/portal/commit/{commit.id}"
    assert outcome.details["commits"]["head"] == str(head(world.landing_zone).id)
    (row,) = world.rows(schema.portal_commits)
    assert (row.sha, row.added, row.modified, row.deleted) == (str(commit.id), outcome.items_synced, 0, 0)
    assert {row.sha for row in world.rows(schema.commits)} == history(world.landing_zone)
    assert len(world.rows(schema.enforcement_gates)) == 8
    assert {row.value for row in world.rows(schema.governance) if row.key == "compliance.target_score"} == {0.95}
    assert len(world.rows(schema.documents)) == outcome.details["documents"]["count"] == 16
    assert len(world.rows(schema.terraform_blocks)) > 40
    assert len(world.rows(schema.runbooks)) == 6


def test_a_second_sync_changes_nothing(world: World) -> None:
    world.sync()
    before, tables = head(world.portal).id, [world.rows(table) for table in schema.metadata.sorted_tables]
    again = world.sync()

    assert again.items_changed == 0
    assert again.items_synced == len(expected(world.landing_zone))
    assert head(world.portal).id == before
    assert [world.rows(table) for table in schema.metadata.sorted_tables] == tables


def test_a_commit_that_touches_no_selected_file_makes_no_portal_commit(local: World) -> None:
    local.sync()
    before = head(local.portal).id
    sha = local.change("README.md", b"# Other\n")
    outcome = local.sync()

    assert head(local.portal).id == before
    assert (outcome.items_changed, outcome.details["commits"]["new"]) == (1, 1)
    assert sha in {row.sha for row in local.rows(schema.commits)}


def test_changes_deletions_and_renames_follow(world: World) -> None:
    own = blobs(world.portal)
    world.sync()
    commit_changes(
        world.landing_zone,
        {
            "docs/cost.md": None,
            "docs/money/cost.md": read_file(world.landing_zone, "docs/cost.md"),
            "docs/glossary.md": b"# New glossary\n",
            "terraform/04-platform/sql.tf": None,
            "docs/security/logging.md": None,
            "docs/security/baseline.md": None,
            "RUNBOOKS.md": None,
            "ENFORCEMENT_GATES.md": None,
        },
        message="Move things",
        at=NOW,
    )
    outcome = world.sync()

    assert blobs(world.portal) == own | expected(world.landing_zone)
    assert {name: outcome.details["portal_commits"][name] for name in ("added", "modified", "deleted")} == {
        "added": 1,
        "modified": 1,
        "deleted": 6,
    }
    titles = {row.path: row.title for row in world.rows(schema.documents)}
    assert titles["docs/glossary.md"] == "New glossary"
    assert "docs/cost.md" not in titles
    assert titles["docs/money/cost.md"] == "Cost"
    assert not [row for row in world.rows(schema.terraform_blocks) if row.path.endswith("sql.tf")]
    assert world.rows(schema.runbooks) == []
    assert world.rows(schema.enforcement_gates) == []


def test_only_regular_files_are_synced_and_the_others_are_listed_with_the_reason(local: World) -> None:
    repository = pygit2.Repository(str(local.landing_zone))
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    before = repository.references["refs/heads/main"].peel(pygit2.Commit)
    docs = repository.TreeBuilder(before.tree["docs"].peel(pygit2.Tree))
    docs.insert("passwd", repository.create_blob(b"/etc/passwd"), 0o120000)
    docs.insert("vendor", before.id, 0o160000)
    docs.insert("image.png", repository.create_blob(lfs), 0o100644)
    docs.insert("big.bin", repository.create_blob(b"\0" * 20_000), 0o100644)
    docs.insert("script.sh", repository.create_blob(b"#!/bin/sh\n"), 0o100755)
    docs.insert("COST.md", repository.create_blob(b"# Shouted\n"), 0o100644)
    top = repository.TreeBuilder(before.tree)
    top.insert("docs", docs.write(), 0o040000)
    signature = pygit2.Signature("M", "m@example.com", 0, 0)
    repository.create_commit("refs/heads/main", signature, signature, "Odd files", top.write(), [before.id])
    local.config = GitSyncConfig(max_file_bytes=10_000)
    outcome = local.sync()

    reasons = local.not_synced()
    assert set(reasons) == {"docs/passwd", "docs/vendor", "docs/image.png", "docs/big.bin", "docs/cost.md"}
    assert "symbolic link" in reasons["docs/passwd"]
    assert "submodule" in reasons["docs/vendor"]
    assert "LFS" in reasons["docs/image.png"]
    assert "20000 bytes" in reasons["docs/big.bin"]
    assert "collides with docs/lz-reference/COST.md" in reasons["docs/cost.md"]
    assert outcome.status is Status.SUCCESS
    assert outcome.details["portal_commits"]["not_synced"] == 5
    written = entries_of(pygit2.Repository(str(local.portal)), head(local.portal).tree)
    assert written["docs/lz-reference/script.sh"].mode == 0o100755
    assert not [path for path in written if path.endswith(("passwd", "vendor", "image.png", "big.bin", "cost.md"))]
    assert local.sync().items_changed == 0
    assert local.not_synced() == reasons


def test_a_name_that_is_not_utf8_is_listed(local: World) -> None:
    path = local.folder / "raw"
    repository = pygit2.init_repository(str(path), bare=True, initial_head="main")
    blob = repository.create_blob(b"x")
    inner = repository.write(pygit2.enums.ObjectType.TREE, b"100644 caf\xe9.md\0" + bytes.fromhex(str(blob)))
    tree = repository.TreeBuilder()
    tree.insert("docs", inner, 0o040000)
    signature = pygit2.Signature("M", "m@example.com", 0, 0)
    repository.create_commit("refs/heads/main", signature, signature, "Odd", tree.write(), [])
    local.sync(landing_zone=RepositoryConfig(url=str(path)))

    assert "UTF-8" in local.not_synced()["docs/caf\\xe9.md"]


def test_a_file_with_a_secret_is_withheld_and_reported_until_it_is_mended(local: World) -> None:
    local.sync()
    local.change("docs/cost.md", b"# Cost\n\n" + PRIVATE_KEY)
    for _ in range(2):
        outcome = local.sync()
        assert outcome.status is Status.PARTIAL
        assert outcome.errors[0].startswith("docs/cost.md: contains what looks like a secret")
    assert read_file(local.portal, "docs/lz-reference/cost.md") is None
    secret = PRIVATE_KEY.splitlines()[1].decode()
    assert secret not in str([local.rows(table) for table in schema.metadata.sorted_tables])

    local.change("docs/cost.md", b"# Cost\n")
    assert local.sync().status is Status.SUCCESS
    assert read_file(local.portal, "docs/lz-reference/cost.md") == b"# Cost\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_secret_is_found_in_any_encoding(local: World, encoding: str) -> None:
    local.change("docs/cost.md", f"\u540dghp_{'a1B2' * 9}\r\n\nghp_{'a1B2' * 9}\r\n".encode(encoding))
    local.sync()
    assert local.not_synced() == {
        "docs/cost.md": "contains what looks like a secret; remove it from the landing zone and revoke it"
    }


def test_a_secret_in_a_commits_message_or_author_is_not_kept(local: World) -> None:
    token = "ghp_" + "a1B2" * 9
    repository = pygit2.Repository(str(local.landing_zone))
    before = head(local.landing_zone)
    signature = pygit2.Signature(f"Me {token}", f"{token}@example.com", 0, 0)
    repository.create_commit("refs/heads/main", signature, signature, f"Use {token}", before.tree_id, [before.id])
    local.sync()

    assert token not in str([local.rows(table) for table in schema.metadata.sorted_tables])
    assert "Use [redacted]" in {row.subject for row in local.rows(schema.commits)}


def letters(count: int, seed: int) -> str:
    """Text that does not compress."""
    return "".join(random.Random(seed).choices(string.ascii_letters, k=count))


def test_a_path_that_no_index_takes_is_listed_and_one_that_just_fits_is_synced(world: World) -> None:
    world.config = GitSyncConfig(mapping=[])
    prefix = "docs/lz-reference/"
    folders = "/".join(letters(90, seed) for seed in range(10))
    fits = f"terraform/{folders}/"
    fits += letters(1000 - len(prefix) - len(fits) - 3, 11) + ".tf"
    long = [f"docs/{letters(200, seed)}/{'/'.join(letters(200, n) for n in range(20))}.md" for seed in range(2)]
    commit_changes(
        world.landing_zone,
        {fits: f'variable "{chr(0x4E00) * 600}" {{}}\n'.encode(), **dict.fromkeys(long, b"# Long\n")},
        message="Long paths",
        at=NOW,
    )
    outcome = world.sync()

    assert outcome.status is Status.SUCCESS
    reasons = world.not_synced()
    assert len(reasons) == 2
    for path, reason in reasons.items():
        assert len(path.encode()) <= 1000
        assert path[:800] in (long[0][:800], long[1][:800])
        assert "1000 are allowed" in reason
    assert fits in {row.path for row in world.rows(schema.terraform_blocks)}
    assert world.sync().items_changed == 0


def test_a_file_that_is_too_large_is_not_loaded(local: World) -> None:
    local.change("docs/big.bin", b"\0" * 20_000_000)
    repository = pygit2.Repository(str(local.landing_zone))
    mapping = Mapping(["docs/big.bin"], [])
    tracemalloc.start()
    try:
        commit = str(head(local.landing_zone).id)
        files = Source(repository, commit, mapping, max_file_bytes=1000).all_files({}, silent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (file,) = files
    assert file.size == 20_000_000
    assert "20000000 bytes" in str(file.reason)
    assert peak < 5_000_000


def test_an_empty_selection_deletes_nothing_until_a_person_does(local: World) -> None:
    own = blobs(local.portal)
    local.sync()
    before = head(local.portal).id
    local.config = GitSyncConfig(paths=["dosc/**"])
    error = failure(local)
    assert (error.reason, error.transient) == (Reason.INVALID, False)
    assert "sync_layers.git_sync.paths" in str(error)
    assert head(local.portal).id == before

    written = entries_of(pygit2.Repository(str(local.portal)), head(local.portal).tree)
    removed = dict.fromkeys(written.keys() - own.keys())
    commit_changes(local.portal, removed, message="Start anew", at=NOW)
    assert local.sync().items_synced == 0
    assert blobs(local.portal) == own


def test_a_file_that_breaks_its_reader_costs_only_its_own_rows(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    local.sync()
    read_document = documents.read_document

    def breaks(path: str, text: str, *, blob: str, commit: str) -> Document:
        if path == "docs/cost.md":
            raise IndexError("a defect")
        return read_document(path, text, blob=blob, commit=commit)

    changes = {"docs/cost.md": b"# Changed\n", "docs/glossary.md": b"# New glossary\n"}
    commit_changes(local.landing_zone, changes, message="Change", at=NOW)
    with monkeypatch.context() as patch:
        patch.setattr(documents, "read_document", breaks)
        for _ in range(2):
            outcome = local.sync()
            assert (outcome.status, outcome.from_cache) == (Status.PARTIAL, frozenset({"documents"}))
            (error,) = outcome.errors
            assert error.startswith("docs/cost.md: cannot be read (IndexError)")
            titles = {row.path: row.title for row in local.rows(schema.documents)}
            assert (titles["docs/cost.md"], titles["docs/glossary.md"]) == ("Cost", "New glossary")
    assert read_file(local.portal, "docs/lz-reference/cost.md") == b"# Changed\n"

    outcome = local.sync()
    assert (outcome.status, outcome.from_cache) == (Status.SUCCESS, frozenset())
    assert "Changed" in {row.title for row in local.rows(schema.documents)}


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: [unclosed\n"])
def test_a_bad_pmo_yaml_is_no_new_governance(local: World, text: str) -> None:
    local.sync()
    before = local.rows(schema.governance)
    local.change("pmo.yaml", text.encode())
    outcome = local.sync()
    assert (outcome.status, outcome.from_cache) == (Status.PARTIAL, frozenset({"governance"}))
    assert local.rows(schema.governance) == before


def test_odd_keys_of_pmo_yaml_are_kept(world: World) -> None:
    world.change("pmo.yaml", b'"\\ud800": 1\n"a\\0b": .inf\n')
    assert world.sync().status is Status.SUCCESS
    assert sorted(str(row.value) for row in world.rows(schema.governance)) == ["1", "inf"]


def test_an_invalid_pmo_yaml_keeps_the_rows_of_before_and_says_the_line(world: World) -> None:
    world.sync()
    before = world.rows(schema.governance)
    world.change("pmo.yaml", b"programme:\n  name: [unclosed\nteams: 1\n")
    for _ in range(2):
        outcome = world.sync()
        assert outcome.status is Status.PARTIAL
        assert outcome.errors[0].startswith("pmo.yaml:3: is not valid YAML")
        assert world.rows(schema.governance) == before

    world.change("pmo.yaml", b"programme:\n  name: Other\n")
    assert world.sync().status is Status.SUCCESS
    assert {row.key: row.value for row in world.rows(schema.governance)} == {"programme.name": "Other"}


def test_a_broken_terraform_file_is_read_in_part(local: World) -> None:
    local.change("terraform/04-platform/sql.tf", b'variable "ok" {}\nresource "google_x" "y" {\n  a = = \n}\n')
    outcome = local.sync()

    assert "var.ok" in {row.address for row in local.rows(schema.terraform_blocks) if row.path.endswith("sql.tf")}
    assert outcome.status is Status.SUCCESS
    assert outcome.details["terraform_blocks"]["with_errors"] >= 1


def test_files_that_the_portal_has_of_its_own_are_never_touched(local: World) -> None:
    local.change("docs/lz-reference/cost.md", b"by hand", local.portal)
    local.change("docs/lz-reference/extra.md", b"by hand", local.portal)
    local.sync()
    local.change("docs/cost.md", None)
    local.sync()

    assert read_file(local.portal, "docs/lz-reference/cost.md") == b"by hand"
    assert read_file(local.portal, "docs/lz-reference/extra.md") == b"by hand"


def test_a_synced_file_that_was_edited_in_the_portal_is_restored(local: World) -> None:
    local.sync()
    local.change("docs/lz-reference/cost.md", b"edited", local.portal)
    outcome = local.sync()

    assert outcome.details["portal_commits"]["restored"] == 1
    assert read_file(local.portal, "docs/lz-reference/cost.md") == read_file(local.landing_zone, "docs/cost.md")


def test_a_push_to_the_landing_zone_during_a_sync_is_not_missed(local: World) -> None:
    moved: list[str] = []

    def push_meanwhile(what: str, done: int, total: int | None) -> None:
        if what.startswith("updating the portal") and not moved:
            moved.append(local.change("docs/cost.md", b"# Pushed meanwhile\n"))

    outcome = local.sync(progress=push_meanwhile)

    assert outcome.details["commits"]["head"] == moved[0]
    assert read_file(local.portal, "docs/lz-reference/cost.md") == b"# Pushed meanwhile\n"


def test_deliveries_that_were_pending_are_done_and_later_ones_are_not(world: World) -> None:
    def deliver(name: str) -> None:
        with world.store.write() as connection:
            inbox.insert(connection, NewDelivery(name, name, "push", "example/gcp-landing-zone"), now=NOW)

    def deliver_meanwhile(what: str, done: int, total: int | None) -> None:
        if what.startswith("updating the portal"):
            deliver("late")

    deliver("early")
    world.sync()
    deliver("next")
    world.sync(progress=deliver_meanwhile)

    with world.store.read() as connection:
        assert [delivery.delivery_id for delivery in inbox.pending(connection)] == ["late"]
    assert {row.run_id for row in world.rows(schema.inbox)} == {"7", None}


def test_a_push_is_settled_by_a_head_that_reaches_its_commit_or_when_it_has_waited_long(world: World) -> None:
    def deliver(name: str, event: str, claim: str | None) -> None:
        with world.store.write() as connection:
            new = NewDelivery(name, name, event, "example/gcp-landing-zone", commit_claim=claim)
            inbox.insert(connection, new, now=world.clock())

    def pending() -> list[str]:
        with world.store.read() as connection:
            return [delivery.delivery_id for delivery in inbox.pending(connection)]

    repository = pygit2.Repository(str(world.landing_zone))
    behind = head(world.landing_zone).parent_ids[0]
    newest = world.change("docs/cost.md", b"# Pushed\n")
    repository.references["refs/heads/main"].set_target(behind)
    deliver("older", "push", str(behind))
    deliver("newest", "push", newest)
    deliver("odd", "push", "a" * 64)
    deliver("dispatch", "repository_dispatch", "b" * 40)
    deliver("no claim", "push", None)
    world.sync()
    assert pending() == ["newest", "odd", "dispatch"]

    repository.references["refs/heads/main"].set_target(newest)
    world.sync()
    assert pending() == ["odd", "dispatch"]
    world.clock.advance(timedelta(minutes=5))
    world.sync()
    assert pending() == []


@pytest.mark.parametrize(("races", "wins"), [(1, True), (4, True), (5, False)])
def test_a_lost_race_is_planned_anew_a_bounded_number_of_times(
    local: World, monkeypatch: pytest.MonkeyPatch, races: int, wins: bool
) -> None:
    left = races
    push = Mirror.push

    def push_second(self: Mirror, commit: str, **options: Any) -> None:
        """Before each of the first pushes, somebody else pushes."""
        nonlocal left
        if left:
            left -= 1
            commit_change(local.portal, f"own-{left}.md", b"by hand", message="Race", at=NOW)
        push(self, commit, **options)

    monkeypatch.setattr(Mirror, "push", push_second)
    own = blobs(local.portal)
    if wins:
        local.sync()
        assert blobs(local.portal).keys() == own.keys() | expected(local.landing_zone).keys() | {
            f"own-{number}.md" for number in range(races)
        }
    else:
        error = failure(local)
        assert (error.reason, error.transient) == (Reason.CONFLICT, True)


def test_a_commit_that_was_pushed_before_a_crash_is_recorded_by_the_next_sync(local: World) -> None:
    local.sync()
    with local.store.write() as connection:
        for table in schema.metadata.sorted_tables:
            if table.name not in ("counters", "layer_status"):
                connection.execute(table.delete())
    outcome = local.sync()

    assert outcome.details["portal_commits"]["sha"] is None
    (row,) = local.rows(schema.portal_commits)
    assert row.sha == str(head(local.portal).id)
    assert len(local.rows(schema.documents)) == 16


def history(path: Path) -> set[str]:
    return {str(commit.id) for commit in pygit2.Repository(str(path)).walk(head(path).id)}


@pytest.mark.parametrize("fresh_mirror", [False, True])
def test_rewritten_history_is_followed(local: World, fresh_mirror: bool) -> None:
    local.sync()
    repository = pygit2.Repository(str(local.landing_zone))
    repository.references["refs/heads/main"].set_target(str(repository.revparse_single("main~3").id))
    sha = local.change("docs/cost.md", b"# Another history\n")
    if fresh_mirror:
        shutil.rmtree(local.folder / "data" / "git")
    outcome = local.sync()

    assert outcome.details["commits"]["head"] == sha
    assert blobs(local.portal).items() >= expected(local.landing_zone).items()
    assert (outcome.details["commits"]["new"], outcome.details["commits"]["dropped"]) == (1, 3)
    assert {row.sha for row in local.rows(schema.commits)} == history(local.landing_zone)
    assert local.sync().items_changed == 0


def test_a_history_that_begins_anew_replaces_the_one_of_before(local: World) -> None:
    local.sync()
    before = history(local.landing_zone)
    repository = pygit2.Repository(str(local.landing_zone))
    signature = pygit2.Signature("M", "m@example.com", 0, 0)
    sha = repository.create_commit(None, signature, signature, "Anew", head(local.landing_zone).tree_id, [])
    repository.references["refs/heads/main"].set_target(sha)
    outcome = local.sync()

    assert {row.sha for row in local.rows(schema.commits)} == {str(sha)}
    assert outcome.details["commits"]["dropped"] == len(before)


def test_an_old_branch_that_is_merged_brings_its_own_commits_alone(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lz_sync_dagster.sync.git.history.FIRST_COMMITS", 5)
    local.sync()
    assert len(local.rows(schema.commits)) == 5
    repository = pygit2.Repository(str(local.landing_zone))
    before = head(local.landing_zone)
    *_, root = repository.walk(before.id)
    signature = pygit2.Signature("M", "m@example.com", root.commit_time, 0)
    branch = repository.create_commit(None, signature, signature, "Old branch", root.tree_id, [root.id])
    merge = repository.create_commit(None, signature, signature, "Merge", before.tree_id, [before.id, branch])
    repository.references["refs/heads/main"].set_target(merge)

    assert local.sync().details["commits"]["new"] == 2
    assert {row.sha for row in local.rows(schema.commits)} >= {str(branch), str(merge)}


def test_more_commits_than_the_first_read_takes_are_read_later_as_they_come(local: World) -> None:
    local.sync()
    shas = {local.change("README.md", f"{number}".encode()) for number in range(30)}
    outcome = local.sync()

    assert outcome.details["commits"]["new"] == 30
    assert {row.sha for row in local.rows(schema.commits)} >= shas


@pytest.mark.parametrize(
    ("name", "damage"),
    [("landing-zone", "object"), *itertools.product(["landing-zone", "portal"], ["lock", "head", "objects"])],
)
def test_a_copy_that_a_killed_process_or_a_crash_left_broken_is_made_anew(local: World, name: str, damage: str) -> None:
    local.sync()
    copy = local.folder / "data" / "git" / f"{name}.git"
    sha = local.change("docs/cost.md", b"# Changed\n")
    if damage == "lock":
        (copy / "refs" / "heads" / "main.lock").touch()
    elif damage == "head":
        (copy / "HEAD").write_bytes(b"")
    elif damage == "objects":
        shutil.rmtree(copy / "objects")
    else:
        for loose in copy.glob("objects/??/*"):
            loose.chmod(0o644)
            loose.write_bytes(b"")
    assert local.sync().details["commits"]["head"] == sha
    again = local.change("docs/cost.md", b"# Changed again\n")
    assert local.sync().details["commits"]["head"] == again
    assert expected(local.landing_zone).items() <= blobs(local.portal).items()


def test_what_was_borrowed_from_a_copy_that_is_no_more_is_fetched(local: World) -> None:
    first = head(local.landing_zone)
    local.change("docs/network/new/page.md", b"# Only here\n")
    local.sync()
    repository = pygit2.Repository(str(local.landing_zone))
    repository.references.create("refs/heads/main", first.id, force=True)
    subprocess.run(["git", "-C", str(local.landing_zone), "gc", "--quiet", "--prune=now"], check=True)
    source, _ = mirrors(local.settings())
    source.forget()
    source.fetch()  # and here the process is killed
    local.sync()
    assert expected(local.landing_zone).items() <= blobs(local.portal).items()
    copy = local.folder / "data" / "git" / "portal.git"
    subprocess.run(["git", "-C", str(copy), "fsck", "--connectivity-only"], check=True, capture_output=True)


def test_git_that_is_killed_is_worth_another_attempt(local: World) -> None:
    local.sync()
    hook = local.portal / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\nkill -9 $(cut -d " " -f 4 /proc/$PPID/stat)\n')
    hook.chmod(0o755)
    local.change("docs/cost.md", b"# Changed\n")
    error = failure(local)
    assert (error.what, error.transient) == ("was not read or written to the end: something killed git", True)


def failure(world: World, **changes: Any) -> SyncError:
    with pytest.raises(SyncError) as caught:
        world.sync(**changes)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value


def test_each_unusable_repository_is_one_line_with_a_remedy(local: World) -> None:
    portal = str(local.portal)
    cases: list[tuple[str, dict[str, Any], Reason, str]] = [
        ("unreachable", {"landing_zone": "http://127.0.0.1:9/x.git"}, Reason.UNAVAILABLE, "reached"),
        ("unknown host", {"landing_zone": "https://git.invalid/x.git"}, Reason.UNAVAILABLE, "reached"),
        ("gone", {"landing_zone": str(local.folder / "nowhere.git")}, Reason.NOT_FOUND, "landing_zone.url"),
        ("portal gone", {"portal_repository": str(local.folder / "no.git")}, Reason.NOT_FOUND, "portal_repository.url"),
        ("empty", {"landing_zone": ""}, Reason.INVALID, "landing_zone.url: is empty"),
        ("option", {"landing_zone": "--upload-pack=touch x"}, Reason.INVALID, "landing_zone"),
    ]
    for name, urls, reason, text in cases:
        error = failure(local, **{key: RepositoryConfig(url=url) for key, url in urls.items()})
        assert error.reason is reason, name
        assert error.transient is (reason is Reason.UNAVAILABLE), name
        assert text in str(error), name
    for key, url in (("landing_zone", str(local.landing_zone)), ("portal_repository", portal)):
        error = failure(local, **{key: RepositoryConfig(url=url, branch="missing")})
        assert (error.reason, error.transient) == (Reason.NOT_FOUND, False)
        assert "has no branch 'missing'" in str(error)


def test_a_push_that_the_server_declines_is_one_line_and_not_tried_again(local: World) -> None:
    hook = local.portal / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    error = failure(local)

    assert (error.reason, error.transient) == (Reason.PERMISSION_DENIED, False)
    assert "pre-receive hook declined" in str(error)
    assert local.rows(schema.synced_files) == []


def test_a_race_that_the_server_notices_only_when_it_moves_the_branch_is_planned_anew(local: World) -> None:
    repository = pygit2.Repository(str(local.portal))
    before = head(local.portal)
    other = commit_change(local.portal, "own-race.md", b"by hand", message="Race", at=NOW)
    repository.references["refs/heads/main"].set_target(before.id)
    hook = local.portal / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nif mkdir raced; then git update-ref refs/heads/main {other}; fi 2>/dev/null\n")
    hook.chmod(0o755)
    local.sync()

    assert (local.portal / "raced").exists()
    assert read_file(local.portal, "own-race.md") == b"by hand"
    assert blobs(local.portal).items() >= expected(local.landing_zone).items()


def test_what_a_hook_says_is_not_taken_for_a_race(local: World) -> None:
    hook = local.portal / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'you should fetch first' >&2\nexit 1\n")
    hook.chmod(0o755)
    assert failure(local).reason is Reason.PERMISSION_DENIED


@contextmanager
def http_server(status: int, location: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """A server that answers everything with one status and keeps the Authorization headers."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if location:
                self.send_header("Location", location + self.path)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.UNAUTHENTICATED),
        (403, Reason.PERMISSION_DENIED),
        (404, Reason.NOT_FOUND),
        (429, Reason.UNAVAILABLE),
        (503, Reason.UNAVAILABLE),
    ],
)
def test_a_token_reaches_the_server_and_nothing_else(local: World, status: int, reason: Reason) -> None:
    token = "ghs_" + "T0kenThatNobodyMaySee" * 2
    with http_server(status) as (address, seen):
        error = failure(
            local,
            landing_zone=RepositoryConfig(url=f"http://someone:hidden@{address}/example/lz.git"),
            git_token=SecretStr(token),
        )

    assert error.reason is reason
    assert "hidden" not in str(error)
    assert f"Basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}" in seen
    written = b"".join(path.read_bytes() for path in (local.folder / "data").rglob("*") if path.is_file())
    for form in (token, base64.b64encode(f"x-access-token:{token}".encode()).decode()):
        assert form not in repr(error) + str(error.__cause__)
        assert form.encode() not in written


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_since_the_token_would_go_with_it(local: World, status: int) -> None:
    with http_server(404) as (elsewhere, seen_elsewhere), http_server(status, f"http://{elsewhere}") as (address, seen):
        error = failure(
            local,
            landing_zone=RepositoryConfig(url=f"http://{address}/example/lz.git"),
            git_token=SecretStr("ghs_" + "T0ken" * 8),
        )
    assert seen
    assert seen_elsewhere == []
    assert not error.transient
    assert "set landing_zone.url to the new address" in str(error)


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("http://git.example.com/o/r.git", True),
        ("HTTP://git.example.com/o/r.git", True),
        ("http://localhost.example.com/o/r.git", True),
        ("http://10.0.0.1:3000/o/r.git", True),
        ("https://git.example.com/o/r.git", False),
        ("http://localhost:3000/o/r.git", False),
        ("http://127.0.0.1:3000/o/r.git", False),
        ("http://[::1]:3000/o/r.git", False),
        ("git@git.example.com:o/r.git", False),
    ],
)
def test_a_token_is_not_sent_in_clear_text_over_a_network(tmp_path: Path, url: str, is_refused: bool) -> None:
    config = RepositoryConfig(url=url)
    Mirror(tmp_path, config, key="landing_zone").environment()
    mirror = Mirror(tmp_path, config, key="landing_zone", credential=GitCredential(lambda: SecretStr("token")))
    if is_refused:
        with pytest.raises(SyncError, match=r"landing_zone\.url: .*https://"):
            mirror.environment()
    else:
        assert mirror.environment()["GIT_TERMINAL_PROMPT"] == "0"


def test_the_audit_finds_the_tree_the_manifest_and_the_store_at_odds(local: World) -> None:
    settings = local.settings()
    assert audit_portal(settings, local.store).files is None
    local.sync()
    audit = audit_portal(settings, local.store)
    assert (audit.files, audit.problems) == (len(expected(local.landing_zone)), [])

    files = schema.synced_files
    with local.store.write() as connection:
        connection.execute(files.delete().where(files.c.path == "docs/cost.md"))
        connection.execute(files.update().where(files.c.path == "RUNBOOKS.md").values(blob="f" * 40))
        row = connection.execute(sa.select(files).where(files.c.path == "pmo.yaml")).one()
        connection.execute(files.insert().values(**{**row._asdict(), "destination": "elsewhere"}))
    problems = [problem.partition(";")[0] for problem in audit_portal(settings, local.store).problems]
    assert {problem.partition(":")[0] for problem in problems[:3]} == {
        "docs/lz-reference/cost.md",
        "docs/lz-reference/RUNBOOKS.md",
        "elsewhere",
    }
    assert problems[3:] == [
        "docs/cost.md: is selected for docs/lz-reference/cost.md, and not recorded",
        "pmo.yaml: is recorded for elsewhere, and not selected",
    ]
    with local.store.write() as connection:
        repository.doubt_git_state(connection)
    local.sync()
    assert audit_portal(settings, local.store).problems == []
    other = GitSyncConfig(**{**settings.sync_layers.git_sync.model_dump(), "exclude": ["docs/**"]})
    layers = settings.sync_layers.model_copy(update={"git_sync": other})
    audit = audit_portal(settings.model_copy(update={"sync_layers": layers}), local.store)
    assert audit.files is None, "what the settings ask for now is the next sync's"
    assert "the settings or the version changed" in audit.problems[0]

    shutil.rmtree(local.folder / "data" / "git")
    audit = audit_portal(settings, local.store)
    assert audit.files is None
    assert "is not on this machine" in audit.problems[0]


def test_a_change_of_terraform_asks_for_an_inventory_sync_and_one_of_documents_does_not(world: World) -> None:
    def asked() -> list[str | None]:
        with world.store.read() as connection:
            return [delivery.commit_claim for delivery in inbox.pending(connection, LayerId.API)]

    world.sync()
    world.change("docs/cost.md", b"# Other\n")
    world.sync()
    assert asked() == [], "the first sync and a document ask for nothing"
    sha = world.change("terraform/05-workloads/new.tf", b'variable "x" {}\n')
    world.sync()
    world.sync()
    assert asked() == [sha]


def test_what_a_delivery_claims_is_compared_with_the_history(world: World) -> None:
    reached = str(head(world.landing_zone).parent_ids[0])
    with world.store.write() as connection:
        for name, claim in (("reached", reached), ("absent", "b" * 40), ("none", None)):
            new = NewDelivery(name, name, "repository_dispatch", "example/gcp-landing-zone", commit_claim=claim)
            inbox.insert(connection, new, now=NOW)
    world.sync()
    rows = {row.delivery_id: (row.status, row.claim, row.resolved_sha) for row in world.rows(schema.inbox)}
    assert rows["absent"] == ("pending", None, None), "its commit may still come"
    world.clock.advance(timedelta(minutes=5))
    world.sync()
    rows = {row.delivery_id: (row.status, row.claim, row.resolved_sha) for row in world.rows(schema.inbox)}
    newest = str(head(world.landing_zone).id)
    assert rows == {
        "reached": ("done", "reached", newest),
        "absent": ("done", "absent", newest),
        "none": ("done", None, newest),
    }


def test_history_is_kept_by_commit_and_a_rewrite_is_recorded(world: World) -> None:
    world.sync()
    sha = world.change("pmo.yaml", b"programme:\n  name: Renamed\n")
    world.sync()
    items = [row for row in world.rows(schema.item_changes) if row.sha == sha and row.key == "programme.name"]
    assert [(row.change, row.before, row.after) for row in items] == [("modified", "Cloud foundation", "Renamed")]
    assert [row.change for row in world.rows(schema.commit_files) if row.sha == sha] == ["modified"]

    zone = pygit2.Repository(str(world.landing_zone))
    zone.references["refs/heads/main"].set_target(str(zone.revparse_single("main~2").id))
    other = world.change("docs/cost.md", b"# Another history\n")
    outcome = world.sync()
    assert outcome.details["commits"]["rewritten"] is True
    moves = [(row.kind, row.old_sha, row.new_sha) for row in world.rows(schema.head_moves)]
    assert [kind for kind, _, _ in moves] == ["first", "forward", "rewritten"]
    assert moves[-1][1:] == (sha, other)
    assert not [row for row in world.rows(schema.item_changes) if row.sha == sha], "what is no history any more"


def test_what_is_wrong_in_the_sources_is_a_finding_until_it_is_mended(world: World) -> None:
    def findings() -> dict[str, tuple[str, int | None]]:
        with world.store.read() as connection:
            found = source_findings.open_findings(connection)
        return {item.finding.kind.value: (item.finding.path, item.finding.line) for item in found}

    world.sync()
    assert findings() == {}
    broken = {
        "pmo.yaml": b"programme:\n  name: 7\ncompliance:\n  target_score: high\n",
        "terraform/05-workloads/broken.tf": b'variable "x" {}\n\nresource "a" "b" {\n  name = = 1\n}\n',
        "docs/secret.md": b"# Secret\n\n" + PRIVATE_KEY,
    }
    commit_changes(world.landing_zone, broken, message="Break things", at=NOW)
    outcome = world.sync()
    assert findings() == {
        "governance_schema": ("pmo.yaml", findings()["governance_schema"][1]),
        "hcl_syntax": ("terraform/05-workloads/broken.tf", 4),
        "secret": ("docs/secret.md", None),
    }
    assert outcome.status is Status.PARTIAL, "for the secret"
    world.change("docs/cost.md", b"# Something else\n")
    world.sync()
    assert set(findings()) == {"governance_schema", "hcl_syntax", "secret"}, "they stay while nobody mends them"

    mended = {"pmo.yaml": b"programme:\n  name: Seven\n", "terraform/05-workloads/broken.tf": None}
    commit_changes(world.landing_zone, mended | {"docs/secret.md": None}, message="Mend", at=NOW)
    assert world.sync().status is Status.SUCCESS
    assert findings() == {}


def test_the_figures_say_how_far_the_landing_zone_moved_and_where_to_look(local: World) -> None:
    zone = RepositoryConfig(url=str(local.landing_zone), page="https://git.example.com/lz/")
    before = str(head(local.landing_zone).id)
    assert local.sync(landing_zone=zone).details["commits"]["compare"] is None
    after = local.change("docs/new.md", b"# New\n\nTwo\nlines\n")
    commits = local.sync(landing_zone=zone).details["commits"]
    assert (commits["new"], commits["insertions"], commits["deletions"]) == (1, 4, 0)
    assert commits["compare"] == f"https://git.example.com/lz/compare/{before}...{after}"


def test_what_an_author_is_called_closes_no_issue_and_calls_nobody(local: World) -> None:
    zone = pygit2.Repository(str(local.landing_zone))
    author = pygit2.Signature("Fixes #1 @team\x07", "m@example.com", 0, 0)
    before = head(local.landing_zone)
    zone.create_commit("refs/heads/main", author, author, "Change", before.tree_id, [before.id])
    local.sync()
    assert "\nLanding-Zone-Actor: Fixes 1  at team\n" in head(local.portal).message


def test_a_rule_file_that_is_no_longer_synced_says_so_and_is_not_made_anew(local: World) -> None:
    local.sync()
    before = local.rows(schema.governance)
    local.change("pmo.yaml", b'ci:\n  api_key_prod: "k3yk3yk3yk3y1234"\n')
    for _ in range(2):
        outcome = local.sync()
        assert (outcome.status, outcome.from_cache) == (Status.PARTIAL, frozenset({"governance"}))
        assert any("what was known of it before is shown" in error for error in outcome.errors)
    assert local.rows(schema.governance) == before
    local.change("pmo.yaml", b"programme:\n  name: Mended\n")
    assert local.sync().status is Status.SUCCESS
    assert "k3yk3y" not in str([local.rows(table) for table in schema.metadata.sorted_tables]), (
        "also not in the history"
    )


def test_a_file_that_only_its_place_keeps_out_is_read_all_the_same(local: World) -> None:
    commit_change(local.portal, "config/lz-pmo.yaml", b"mine: 1\n", message="Own", at=NOW)
    commit_change(local.portal, "docs/lz-reference/cost.md", b"# Mine\n", message="Own", at=NOW)
    local.sync()
    assert set(local.not_synced()) == {"pmo.yaml", "docs/cost.md"}
    assert local.rows(schema.governance)
    assert "docs/cost.md" in {row.path for row in local.rows(schema.documents)}


def test_a_sync_that_another_one_took_over_pushes_and_records_nothing(local: World) -> None:
    local.sync()
    local.change("docs/cost.md", b"# Late\n")
    before = head(local.portal).id

    def take_over(what: str, done: int, total: int | None) -> None:
        if what.startswith("updating the portal"):
            with local.store.write() as connection:
                connection.execute(schema.layer_status.delete())
                values = {"layer": "git", "status": "in_progress", "errors": [], "details": {}, "lease_holder": "b:2:x"}
                connection.execute(schema.layer_status.insert().values(**values))

    rows = local.rows(schema.commits)
    with pytest.raises(SyncError, match="was taken over"):
        local.sync(progress=take_over)
    assert head(local.portal).id == before
    assert local.rows(schema.commits) == rows


def test_terraform_that_changed_while_everything_is_looked_at_asks_for_an_inventory_sync_too(local: World) -> None:
    local.sync()
    with local.store.write() as connection:
        repository.doubt_git_state(connection)
    local.change("terraform/05-workloads/new.tf", b'variable "x" {}\n')
    local.sync()
    with local.store.read() as connection:
        assert len(inbox.pending(connection, LayerId.API)) == 1
