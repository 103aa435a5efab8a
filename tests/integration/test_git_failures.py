"""What goes wrong around a git sync, for real: each is one line with a remedy, what was known stays, and the next sync
after it is mended is whole again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pygit2
import pytest
import sqlalchemy as sa

from demo.repositories import commit_changes, make_repositories, read_file
from lz_sync_dagster.config import GitSyncConfig, MappingRule, RepositoryConfig, SignatureConfig
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.git.manifest import HEADER_PATH, load_header
from lz_sync_dagster.sync.git.mapping import escapes
from lz_sync_dagster.sync.git.mirror import Mirror
from lz_sync_dagster.sync.git.portal import Proposed
from lz_sync_dagster.sync.git.tree import TREE_MODE, Entry, entries_of, write_tree
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store import Store, open_store, repository, schema
from tests.conftest import NOW, SOAK
from tests.integration.test_git_sync import PRIVATE_KEY, World, blobs, failure, head

COST = "docs/lz-reference/cost.md"
PAGE = ".lz-sync/files/docs/lz-reference/_files.json"
#: What a failed sync must leave as it is.
KEPT = (schema.synced_files, schema.documents, schema.governance, schema.commits, schema.git_state)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repositories(tmp_path_factory.mktemp("fresh") / "repositories").portal.parent


@pytest.fixture
def world(sqlite_store: Store, tmp_path: Path, fresh: Path) -> World:
    shutil.copytree(fresh, tmp_path / "repositories")
    config = GitSyncConfig(paths=["docs/*.md", "pmo.yaml"])
    return World(tmp_path, sqlite_store, make_repositories(tmp_path / "repositories"), config=config)


def kept(world: World) -> list[list[sa.Row[Any]]]:
    return [world.rows(table) for table in KEPT]


def set_head(path: Path, commit: object) -> None:
    pygit2.Repository(str(path)).references.create("refs/heads/main", str(commit), force=True)


def orphan(path: Path, files: dict[str, bytes]) -> str:
    """A commit without a history, on no branch."""
    git = pygit2.Repository(str(path))
    entries: dict[str, Entry | None] = {
        name: Entry(str(git.create_blob(data)), 0o100644) for name, data in files.items()
    }
    author = pygit2.Signature("Dana", "dana@example.com", 0, 0)
    return str(git.create_commit(None, author, author, "Anew", write_tree(git, None, entries), []))


def open_findings(world: World) -> list[tuple[str, str, str]]:
    rows = world.rows(schema.source_findings)
    return sorted((row.kind, row.path, row.message) for row in rows if row.resolved_at is None)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_what_makes_a_sync_impossible_leaves_all_as_it_was(world: World) -> None:
    world.sync()
    before, good = kept(world), head(world.portal).id
    sha = world.change("docs/cost.md", b"# Changed\n")
    page = read_file(world.portal, PAGE)
    header = read_file(world.portal, HEADER_PATH)
    assert page is not None
    assert header is not None
    markers = b"<<<<<<< ours\n" + header + b"=======\n" + header + b">>>>>>> theirs\n"
    manifest: Sequence[tuple[str, dict[str, bytes | None]]] = (
        ("conflict markers", {HEADER_PATH: markers}),
        ("a page with conflict markers", {PAGE: b"<<<<<<< ours\n" + page}),
        ("no header", {HEADER_PATH: None}),
        ("no page", {PAGE: None}),
        ("another version", {HEADER_PATH: header.replace(b'"version": 2', b'"version": 3')}),
        ("a list", {PAGE: b"[]"}),
        ("odd lines", {PAGE: b'{"cost.md": "x"}'}),
        ("a line that leaves its folder", {PAGE: page.replace(b'"cost.md"', b'"../cost.md"')}),
        ("no folder", {PAGE: None, ".lz-sync/files/_files.json": None, ".lz-sync/files/config/_files.json": None,
                       ".lz-sync/files": b"x"}),
    )  # fmt: skip
    for name, changes in manifest:
        commit_changes(world.portal, changes, message=name, at=NOW)
        error = failure(world)
        assert ".lz-sync/" in str(error), name
        assert "restore .lz-sync/" in str(error), name
        assert (error.reason, error.transient) == (Reason.INVALID, False), name
        assert kept(world) == before, name
        set_head(world.portal, good)

    pygit2.Repository(str(world.portal)).references.delete("refs/heads/main")
    assert "has no branch 'main'" in str(failure(world))
    set_head(world.portal, good)

    empty = world.folder / "empty.git"
    pygit2.init_repository(str(empty), bare=True, initial_head="main")
    for key in ("landing_zone", "portal_repository"):
        error = failure(world, **{key: RepositoryConfig(url=str(empty))})
        assert "push a first commit" in str(error)
        assert error.reason is Reason.NOT_FOUND
    assert kept(world) == before
    assert world.sync().details["commits"]["head"] == sha
    assert read_file(world.portal, COST) == b"# Changed\n"


@pytest.mark.parametrize("kind", ["blob", "tree", "commit"])
def test_a_landing_zone_with_unreadable_objects_is_an_error_and_costs_no_copy(world: World, kind: str) -> None:
    world.sync()
    before = kept(world)
    copy = (world.folder / "data" / "git" / "landing-zone.git").stat().st_ino
    world.change("docs/deep/cost.md", b"# Changed\n")
    commit = head(world.landing_zone)
    ids = {"blob": commit.tree["docs/deep/cost.md"].id, "tree": commit.tree["docs/deep"].id, "commit": commit.id}
    path = world.landing_zone / "objects" / str(ids[kind])[:2] / str(ids[kind])[2:]
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"garbage")
    error = failure(world)
    assert "landing_zone" in str(error)
    assert kept(world) == before
    assert (world.folder / "data" / "git" / "landing-zone.git").stat().st_ino == copy
    path.write_bytes(data)
    world.sync()
    assert kept(world) != before


def test_a_portal_whose_history_is_another_one_gets_the_files_again(world: World) -> None:
    own = blobs(world.portal)
    first = head(world.portal).id
    world.sync()
    whole = blobs(world.portal)
    files = world.rows(schema.synced_files)
    cases: Sequence[tuple[str, Callable[[], object]]] = (
        ("rewound", lambda: first),
        ("another history", lambda: orphan(world.portal, {"README.md": b"# Other\n"})),
        ("no manifest", lambda: commit_changes(
            world.portal,
            {path: None for path in entries_of(pygit2.Repository(str(world.portal)), head(world.portal).tree)
             if path.startswith(".lz-sync/")},
            message="Tidy up", at=NOW)),
    )  # fmt: skip
    for name, history in cases:
        set_head(world.portal, history())
        theirs = blobs(world.portal)
        outcome = world.sync()
        assert outcome.status is Status.SUCCESS, name
        synced = {path: blob for path, blob in whole.items() if path not in own}
        assert blobs(world.portal) == theirs | synced, name
        assert world.rows(schema.synced_files) == files, name
        made = outcome.details["portal_commits"]
        assert made["added"] == len(synced.keys() - theirs.keys()), name
        assert world.sync().items_changed == 0, name


@pytest.mark.parametrize("copy", ["portal", "landing-zone"])
@pytest.mark.parametrize("damage", ["emptied", "gone", "half made"])
def test_a_copy_that_a_crash_of_the_machine_left_broken_is_made_anew(world: World, copy: str, damage: str) -> None:
    world.sync()
    folder = world.folder / "data" / "git" / f"{copy}.git"
    if damage == "half made":
        shutil.rmtree(folder / "objects")
    for path in [*folder.glob("objects/??/*"), *folder.glob("objects/pack/*")]:
        path.unlink()
        if damage == "emptied":
            path.touch()
    world.change("docs/cost.md", b"# Changed\n")
    world.change("own.md", b"by hand", world.portal)
    world.sync()
    assert read_file(world.portal, COST) == b"# Changed\n"
    assert world.sync().items_changed == 0


def test_without_git_the_error_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sync()
    before = kept(world)
    monkeypatch.setenv("PATH", str(world.folder / "nowhere"))
    for _ in range(2):
        error = failure(world)
        assert "install it (Debian: apt-get install git" in str(error)
    assert kept(world) == before
    done = subprocess.run(
        [sys.executable, "-c", "import lz_sync_dagster.sync.git.service"], env=dict(os.environ), check=False
    )
    assert done.returncode == 0


FULL_DISK = """
import sys, subprocess
from pathlib import Path
from lz_sync_dagster.config import GitSyncConfig
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git.service import sync_git
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import attempt
from lz_sync_dagster.sync.store import open_store, schema
from demo.repositories import commit_change, make_repositories, read_file
from tests.conftest import NOW, SteppedClock
from tests.integration.test_git_failures import kept
from tests.integration.test_git_sync import World
import random

folder = Path(sys.argv[1])
disk = folder / "disk"
disk.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=True)
repositories = make_repositories(folder / "repositories")

def sync(store, world):
    clock = SteppedClock()
    work = lambda run: sync_git(world.settings(data_dir=disk / "data"), store, run, clock=clock, progress=silent)
    holder = f"host:1:{random.random()}"
    try:
        attempt(store, LayerId.GIT, work, triggered_by="test", clock=clock, holder=holder, waits=())
    except SyncError as error:
        assert chr(10) not in str(error), error
        return str(error)
    return "ok"

def fill():
    with open(disk / "ballast", "wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1 << 10, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                pass

number = 0
def change(size=100_000):
    global number
    number += 1
    data = random.Random(number).randbytes(size).hex().encode()
    commit_change(repositories.landing_zone, "docs/cost.md", data, message="x", at=NOW)
    return data

for place in (folder, disk):
    url = f"sqlite:///{place / 'store.db'}"
    with open_store(url) as store:
        world = World(folder, store, repositories)
        assert sync(store, world) == "ok"
        change()
        before = kept(world)
        fill()
        said = sync(store, world)
        if place == folder:
            assert "the disk of data_dir is full or not writable; free some space" in said, said
            with store.read() as connection:
                row = connection.execute(schema.layer_status.select()).one()
            assert (row.status, row.consecutive_failures) == ("failed", 1), row
        else:
            assert "free some space" in said or "check that the database runs and has room" in said, said
        assert kept(world) == before
        (disk / "ballast").unlink()
        data = change()
        assert sync(store, world) == "ok"
        assert read_file(repositories.portal, "docs/lz-reference/cost.md") == data
        if place == folder:
            change()
            before = kept(world)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            said = sync(store, world)
            assert "the disk of data_dir is full or not writable" in said, said
            assert kept(world) == before
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            assert sync(store, world) == "ok"
print("done")
"""


def test_a_full_or_read_only_disk_is_said_and_mends_itself(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("needs a mount namespace of its own")
    command = ["unshare", "-m", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


# --- edits by hand ------------------------------------------------------------------------------------------------


def test_an_edit_that_is_refused_is_reported_until_it_is_undone(world: World) -> None:
    world.config = world.config.model_copy(update={"drift": "refuse"})
    world.sync()
    good = read_file(world.portal, COST)
    world.change(COST, b"by hand", world.portal)
    for _ in range(2):
        outcome = world.sync()
        assert (outcome.status, len(outcome.errors)) == (Status.PARTIAL, 1)
        assert outcome.errors[0].startswith(f"{COST}: was edited in the portal repository")
        assert "undo the edit there" in outcome.errors[0]
        assert outcome.details["portal_commits"]["restored"] == 0
    world.change("docs/cost.md", b"# Changed\n")
    outcome = world.sync()
    assert outcome.status is Status.PARTIAL
    assert read_file(world.portal, COST) == b"by hand"
    assert list(world.not_synced()) == ["docs/cost.md"]
    assert "Changed" in {row.title for row in world.rows(schema.documents)}, "the store shows the landing zone"

    world.change(COST, good, world.portal)
    assert world.sync().status is Status.SUCCESS
    assert read_file(world.portal, COST) == b"# Changed\n"
    assert (world.not_synced(), open_findings(world)) == ({}, [])


def test_an_edited_file_that_is_gone_from_the_landing_zone_may_be_deleted_by_hand(world: World) -> None:
    world.config = world.config.model_copy(update={"drift": "refuse"})
    world.sync()
    world.change(COST, b"by hand", world.portal)
    world.change("docs/cost.md", None)
    assert world.sync().status is Status.PARTIAL
    assert read_file(world.portal, COST) == b"by hand"
    world.change(COST, None, world.portal)
    assert world.sync().status is Status.SUCCESS
    assert open_findings(world) == []
    assert world.sync().items_changed == 0


def test_an_edit_that_is_restored_is_in_the_record(world: World) -> None:
    world.sync()
    good = read_file(world.portal, COST)
    world.change(COST, b"by hand", world.portal)
    outcome = world.sync()
    assert (outcome.status, outcome.details["portal_commits"]["restored"]) == (Status.SUCCESS, 1)
    assert read_file(world.portal, COST) == good
    (finding,) = world.rows(schema.source_findings)
    assert (finding.path, finding.message) == (COST, "was edited in the portal repository; it was restored")
    assert finding.resolved_at is not None


def test_another_mapping_moves_the_files_and_their_ownership(world: World) -> None:
    own = blobs(world.portal)
    world.sync()
    count = len(blobs(world.portal)) - len(own)
    rules = [MappingRule(source=("docs/**",), destination=("a", "b"))]
    world.config = world.config.model_copy(update={"mapping": rules, "exclude": ["docs/glossary.md"]})
    outcome = world.sync()
    after = blobs(world.portal)
    assert {path.split("/")[0] for path in after.keys() - own.keys()} == {"a", "b", "docs"}
    assert "docs/lz-reference/pmo.yaml" in after
    assert not [path for path in after if path.endswith("glossary.md")]
    names = {path[2:] for path in after if path.startswith("a/")}
    assert names == {path[2:] for path in after if path.startswith("b/")}
    assert len(names) == count - 2
    made = outcome.details["portal_commits"]
    assert (made["added"], made["deleted"], made["files"]) == (2 * len(names) + 1, count, 2 * len(names) + 1)
    world.change("a/cost.md", b"by hand", world.portal)
    assert world.sync().details["portal_commits"]["restored"] == 1


# --- signatures ---------------------------------------------------------------------------------------------------


def signed_commit(world: World, key: Path | None, path: str, text: str) -> str:
    """A commit on the landing zone's branch, signed with a key."""
    parent = str(head(world.landing_zone).id)
    world.change(path, text.encode())
    tree = str(head(world.landing_zone).tree_id)
    options = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={key}"] if key else []
    command = ["git", f"--git-dir={world.landing_zone}", *options, "commit-tree", "-m", text, "-p", parent]
    names = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command += [*(["-S"] if key else []), tree]
    done = subprocess.run(command, env={**os.environ, **names}, capture_output=True, text=True, check=True)
    set_head(world.landing_zone, done.stdout.strip())
    return done.stdout.strip()


def test_a_head_without_a_good_signature_is_warned_of_or_refused(world: World) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    keys = [world.folder / name for name in ("known", "other")]
    for key in keys:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    allowed = world.folder / "allowed"
    allowed.write_text(f"alice@example.com {keys[0].with_suffix('.pub').read_text()}")

    def policy(name: str) -> None:
        signatures = SignatureConfig.model_validate({"policy": name, "allowed_signers": allowed})
        world.config = world.config.model_copy(update={"signatures": signatures})

    policy("require")
    signed_commit(world, keys[0], "docs/cost.md", "one")
    world.sync()
    before = kept(world)
    unsigned = signed_commit(world, None, "docs/cost.md", "two")
    error = failure(world)
    assert (error.reason, error.transient) == (Reason.INVALID, False)
    assert unsigned in str(error)
    assert "sign it (git commit -S)" in str(error)
    assert kept(world) == before
    assert read_file(world.portal, COST) == b"one"
    signed_commit(world, keys[0], "docs/cost.md", "three")
    assert world.sync().status is Status.SUCCESS
    assert read_file(world.portal, COST) == b"three"
    signatures = {row.subject: row.signature for row in world.rows(schema.commits)}
    assert (signatures["one"], signatures["two"], signatures["three"]) == ("good", "unsigned", "good")

    signed_commit(world, keys[1], "docs/cost.md", "four")
    failure(world)
    policy("warn")
    world.sync()
    assert read_file(world.portal, COST) == b"four"
    ((kind, _, message),) = open_findings(world)
    assert kind == "signature"
    assert "a key that is not known" in message
    assert world.sync().items_changed == 0
    with allowed.open("a") as file:
        file.write(f"bob@example.com {keys[1].with_suffix('.pub').read_text()}")
    world.sync()
    assert open_findings(world) == [], "the same head, and now the key is known"
    signed_commit(world, None, "docs/cost.md", "five")
    world.sync()
    assert len(open_findings(world)) == 1
    policy("off")
    world.sync()
    assert open_findings(world) == []


# --- what moved alone, and everything -----------------------------------------------------------------------------


class InPlace(Mirror):
    """A mirror that is the repository itself: nothing is fetched."""

    def borrow(self, source: Mirror) -> None:
        pass

    def fetch(self) -> str:
        return self.remote_heads()[self.ref]

    def remote_heads(self, *branches: str) -> dict[str, str]:
        references = self.open().references
        names = [self.ref, *(f"refs/heads/{branch}" for branch in branches)]
        return {name: str(references[name].target) for name in names if name in references}

    def push(self, commit: str, *, expected: str | None, branch: str | None = None) -> None:
        ref = self.ref if branch is None else f"refs/heads/{branch}"
        assert self.remote_heads(*([branch] if branch else [])).get(ref) == expected
        self.open().references.create(ref, commit, force=True)

    def delete_branch(self, branch: str, *, expected: str) -> None:
        assert self.remote_heads(branch)[f"refs/heads/{branch}"] == expected
        self.open().references.delete(f"refs/heads/{branch}")


class Merging:
    """Pull requests of nobody's server."""

    branch = "lz-sync/update"

    def __init__(self, _settings: object) -> None:
        pass

    def propose(self, title: str, body: str) -> Proposed:
        assert title
        assert body
        return Proposed("https://git.example.com/pull/1")

    def withdraw(self, comment: str) -> None:
        assert comment

    def is_declined(self, url: str) -> bool:
        assert url
        return False


@dataclass(frozen=True, slots=True)
class Result:
    tree: dict[str, Entry]
    files: list[tuple[Any, ...]]
    findings: list[tuple[str, str, str]]


def clear(store: Store) -> None:
    with store.write() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.counters:
                connection.execute(table.delete())


class Both:
    """The same sequence of changes, synced as they come, and each time from nothing."""

    def __init__(self, folder: Path, stores: tuple[Store, Store], seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)
        repositories = make_repositories(folder / "repositories")
        rules = [
            MappingRule(source=("docs/**",), destination=("ref", "copy")),
            MappingRule(source=("one.md",), destination=("ref/a.md/one.md",)),
        ]
        self.config = GitSyncConfig(
            paths=["docs/**", "one.md", "two.md", "pmo.yaml", "*.tf"],
            exclude=["docs/x/skip.md"],
            mapping=rules,
            max_file_bytes=2000,
            drift=self.random.choice(["restore", "refuse"]),
            publish=self.random.choice(["push", "push", "pull_request"]),
        )
        self.worlds = [World(folder, store, repositories, config=self.config) for store in stores]
        self.landing_zone, self.portal = repositories.landing_zone, repositories.portal
        patch.setattr("lz_sync_dagster.sync.git.service.GithubPullRequests", Merging)
        patch.setattr("lz_sync_dagster.sync.git.service.mirrors", self.mirrors)
        set_head(self.landing_zone, orphan(self.landing_zone, {"docs/keep.md": b"# Keep\n"}))
        set_head(self.portal, orphan(self.portal, {"README.md": b"# Own\n"}))
        objects = self.portal / "objects" / "info" / "alternates"
        objects.write_text(f"{self.landing_zone / 'objects'}\n")

    def mirrors(self, settings: Any) -> tuple[Mirror, Mirror]:
        return (
            InPlace(self.landing_zone, settings.landing_zone, key="landing_zone"),
            InPlace(self.portal, settings.portal_repository, key="portal_repository"),
        )

    def change(self) -> None:
        pick = self.random.choice
        if self.random.random() < 0.8:
            places = ["docs/a.md", "docs/A.md", "docs/b", "docs/b/c.md", "docs/x/y.md", "docs/x/skip.md"]
            places += ["one.md", "two.md", "pmo.yaml", "m.tf", "other"]
            texts = [b"# One\n", b"# Two\n", b"key: [", b'resource "a" "b" {}\n', PRIVATE_KEY, b"x" * 3000, None, None]
            self.edit(self.landing_zone, {pick(places): pick(texts) for _ in range(pick([1, 1, 2, 3]))})
        if self.random.random() < 0.5:
            places = [f"{top}/{name}" for top in ("ref", "copy", "REF") for name in ("a.md", "b", "b/c.md", "x/y.md")]
            places += ["ref/a.md/one.md", "docs/lz-reference/two.md", "docs/lz-reference", "README.md", "ref/own.md"]
            texts = [b"# One\n", b"# Two\n", b"by hand", None, None]
            self.edit(self.portal, {pick(places): pick(texts) for _ in range(pick([1, 1, 2]))})

    def edit(self, path: Path, changes: dict[str, bytes | None]) -> None:
        git = pygit2.Repository(str(path))
        files = entries_of(git, head(path).tree)
        for name, data in changes.items():
            clash = [other for other in files if other.startswith(f"{name}/") or name.startswith(f"{other}/")]
            if data is None:
                files.pop(name, None)
            else:
                for other in clash:
                    del files[other]
                files[name] = Entry(str(git.create_blob(data)), self.random.choice([0o100644, 0o100644, 0o100755]))
        author = pygit2.Signature("Dana", "dana@example.com", self.random.randrange(10**9), 0)
        tree = write_tree(git, None, dict(files))
        if tree != head(path).tree_id:
            git.create_commit("refs/heads/main", author, author, "Edit", tree, [head(path).id])

    def merge(self) -> None:
        git = pygit2.Repository(str(self.portal))
        if "refs/heads/lz-sync/update" in git.references and self.random.random() < 0.4:
            proposed = git.references["refs/heads/lz-sync/update"].target
            if git.descendant_of(proposed, head(self.portal).id):
                git.references["refs/heads/main"].set_target(proposed)

    def result(self, world: World) -> Result:
        world.sync()
        with world.store.read() as connection:
            state = repository.git_state(connection)
        assert state is not None
        git = pygit2.Repository(str(self.portal))
        tree = git[state.tree].peel(pygit2.Tree)
        files = sorted(tuple(row)[:-1] for row in world.rows(schema.synced_files))
        entries = entries_of(git, tree)
        entries.pop(HEADER_PATH)
        assert load_header(git, tree, where="here").files == sum(
            len(orjson.loads(git[entry.blob].peel(pygit2.Blob).data))
            for path, entry in entries.items()
            if path.startswith(".lz-sync/files/")
        )
        return Result(entries, files, open_findings(world))

    def step(self) -> None:
        for _ in range(self.random.choice([1, 1, 2])):
            self.change()
        self.merge()
        git = pygit2.Repository(str(self.portal))
        before = {name: git.references[name].target for name in git.references if name.startswith("refs/heads/")}
        clear(self.worlds[1].store)
        whole = self.result(self.worlds[1])
        for name in list(git.references):
            if name.startswith("refs/heads/") and name not in before:
                git.references.delete(name)
        for name, target in before.items():
            git.references.create(name, target, force=True)
        assert self.result(self.worlds[0]) == whole
        noop = self.worlds[0].sync()
        assert noop.items_changed == 0


@pytest.fixture
def two_stores(sqlite_template: Path, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    for name in ("a", "b"):
        shutil.copy(sqlite_template, tmp_path / f"{name}.db")
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("a", "b")]
    with open_store(urls[0], migrate=False) as first, open_store(urls[1], migrate=False) as second:
        yield first, second


@pytest.mark.soak
def test_syncing_what_moved_ends_where_syncing_everything_does(
    two_stores: tuple[Store, Store], tmp_path: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(200 if SOAK else 6):
        folder = tmp_path / str(seed)
        shutil.copytree(fresh, folder / "repositories")
        for store in two_stores:
            clear(store)
        both = Both(folder, two_stores, seed, monkeypatch)
        for number in range(8 if SOAK else 3):
            try:
                both.step()
            except Exception as error:
                error.add_note(f"seed {seed}, step {number}, {both.config.drift}, {both.config.publish}")
                raise
        shutil.rmtree(folder)


# --- names --------------------------------------------------------------------------------------------------------

REFUSED_BY_GIT = [
    ".git\u200c",
    ".g\u200dit",
    "\ufeff.GIT",
    ".git ",
    ".git...",
    ".git::$INDEX_ALLOCATION",
    "git~1",
    "GIT~1",
    ".gitmodules",
]


@pytest.mark.parametrize(
    "name",
    [
        *REFUSED_BY_GIT, "GIT~2", ".git:x", "gitmod~1", "GI7EBA~1", "gi7eb~10", "gitatt~2", ".gitattributes",
        ".gitModules", ".g\u200ditmodules", "a:b", "a\tb", "a\x7f", "what?.md", "a*", 'a"b', "a|b", "<a>", "con",
        "AUX.md", "nul.tar.gz", "com1", "LPT\u00b9.txt", "conin$", "prn .x", "a.", "a ",
    ],
)  # fmt: skip
def test_a_name_that_git_or_a_system_would_refuse_or_misread_is_not_safe(name: str) -> None:
    assert escapes(f"docs/{name}")
    assert escapes(f"docs/{name}/x.md")


@pytest.mark.parametrize(
    "name",
    [".github/workflows/x.yml", ".gitignore", "git.md", "console", "com10", "auxiliary.md", "\u540d.md"],
)
def test_an_ordinary_name_is_safe(name: str) -> None:
    assert not escapes(name)


def test_a_server_that_checks_objects_takes_what_is_synced(world: World) -> None:
    with (world.portal / "config").open("a") as file:
        file.write("[receive]\n\tfsckObjects = true\n[core]\n\tprotectHFS = true\n\tprotectNTFS = true\n")
    raw = pygit2.Repository(str(world.landing_zone))
    bad = raw.create_blob(b'[submodule "../../x"]\n\tpath = -x\n\turl = -u./x\n')
    before = head(world.landing_zone)

    def tree(entries: list[tuple[str, int, object]]) -> pygit2.Oid:
        """A tree with names that libgit2 itself would not write."""
        entries.sort(key=lambda entry: entry[0].encode() + (b"/" if entry[1] == TREE_MODE else b""))
        lines = [b"%o %s\0" % (mode, name.encode()) + bytes.fromhex(str(oid)) for name, mode, oid in entries]
        return raw.odb.write(pygit2.enums.ObjectType.TREE, b"".join(lines))

    def entries(found: pygit2.Tree) -> list[tuple[str, int, object]]:
        return [(entry.name or "", int(entry.filemode), entry.id) for entry in found]

    docs = tree([*entries(before.tree["docs"].peel(pygit2.Tree)), *((name, 0o100644, bad) for name in REFUSED_BY_GIT)])
    top = tree([(name, mode, docs if name == "docs" else oid) for name, mode, oid in entries(before.tree)])
    author = pygit2.Signature("Dana", "dana@example.com", 0, 0)
    raw.create_commit("refs/heads/main", author, author, "Odd", top, [before.id])
    world.config = world.config.model_copy(update={"paths": ["docs/*", "pmo.yaml"]})
    outcome = world.sync()

    assert outcome.status is Status.SUCCESS
    assert world.not_synced().keys() == {f"docs/{name}" for name in REFUSED_BY_GIT}
    assert all("is not a safe path" in reason for reason in world.not_synced().values())
    assert read_file(world.portal, COST) == read_file(world.landing_zone, "docs/cost.md")


def test_a_server_that_cannot_store_a_push_is_asked_again_later(world: World) -> None:
    with (world.portal / "config").open("a") as file:
        file.write("[receive]\n\tmaxInputSize = 1\n")
    error = failure(world)
    assert (error.reason, error.transient) == (Reason.UNAVAILABLE, True)
    assert "cannot store the push" in str(error)
    (world.portal / "config").write_text("[core]\n\tbare = true\n")
    world.sync()
