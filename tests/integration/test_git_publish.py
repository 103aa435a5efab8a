"""`publish: pull_request` against the demo's GitHub server: what GitHub, the portal repository and the store say at
each turn of a pull request's life."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pygit2
import pytest
from pydantic import SecretStr

from demo.github_server import (
    App,
    GithubServer,
    PullRequest,
    Token,
    make_private_key,
    public_key_of,
    start_github_server,
)
from demo.repositories import make_repositories, read_file
from lz_sync_dagster.config import GithubConfig, GitSyncConfig, MappingRule, PullRequestConfig, RepositoryConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.runs import LayerOutcome
from lz_sync_dagster.sync.store import Store, open_store, repository, schema
from lz_sync_dagster.sync.store.repository import GitState
from tests.integration.test_git_sync import World, blobs, failure, head

LZ, PORTAL = "example/gcp-landing-zone", "example/gcp-landing-zone-portal"
BRANCH = "lz-sync/update"
#: Each test has an App of its own: tokens are kept for as long as the process lives.
APP_IDS = itertools.count(5000)
GRANTED = {"contents": "write", "pull_requests": "write"}
#: A few files are enough here.
PATHS = ["docs/cost.md", "docs/glossary.md", "pmo.yaml"]


@dataclass
class Github(World):
    """The same with a GitHub of the test's own, asked with tokens of an App. Git itself takes the shorter way, unless
    ``over_http``."""

    over_http: bool = False
    server: GithubServer | None = None
    app: App | None = None
    private_key: str = ""

    @property
    def github(self) -> GithubServer:
        assert self.server is not None
        return self.server

    def configure(self, **changes: Any) -> None:
        self.config = self.config.model_copy(update=changes)

    def settings(self, **changes: Any) -> Any:
        assert self.app is not None
        values: dict[str, Any] = {
            "github": GithubConfig(api_url=self.github.api_url, app_id=self.app.id),
            "github_app_private_key": SecretStr(self.private_key),
        }
        for key, name, path in (("landing_zone", LZ, self.landing_zone), ("portal_repository", PORTAL, self.portal)):
            url = self.github.clone_url(name) if self.over_http else f"file://{path}"
            values[key] = RepositoryConfig(url=url, name=name)
        return super().settings(**(values | changes))

    def sync(self, **changes: Any) -> LayerOutcome:
        self.clock.advance(timedelta(seconds=1))
        return super().sync(**changes)

    def edit(self, text: str) -> str:
        """Change a synced file of the landing zone."""
        return self.change("docs/cost.md", f"# Cost\n\n{text}\n".encode())

    @property
    def branch(self) -> pygit2.Commit | None:
        """The head of the sync's own branch."""
        found = self.github.repository(PORTAL).head(BRANCH)
        return None if found is None else pygit2.Repository(str(self.portal))[found].peel(pygit2.Commit)

    def on_branch(self, path: str) -> bytes:
        assert self.branch is not None
        return self.branch.tree[path].peel(pygit2.Blob).data

    def pull(self, number: int = 1) -> PullRequest:
        return self.github.pull(PORTAL, number)

    def api_calls(self) -> list[str]:
        """What was called since the last time, git's own requests to fetch and to look aside."""
        calls = [
            f"{method} {path.partition(PORTAL)[2] or path}"
            for method, path, _ in self.github.requests
            if "access_tokens" not in path and "/installation" not in path and "upload-pack" not in path
        ]
        self.github.requests.clear()
        return [call for call in calls if not call.endswith("/info/refs")]

    def state(self) -> GitState:
        with self.store.read() as connection:
            found = repository.git_state(connection)
        assert found is not None
        return found

    def assert_settled(self, expected: bytes) -> None:
        """The portal's branch has it all, nothing waits, and the next sync does nothing."""
        assert read_file(self.portal, "docs/lz-reference/cost.md") == expected
        assert self.branch is None
        state = self.state()
        assert (state.portal_commit, state.proposed_commit, state.pull_request) == (
            str(head(self.portal).id),
            None,
            None,
        )
        assert state.tree == str(head(self.portal).tree_id)
        self.assert_noop()

    def assert_noop(self) -> None:
        self.api_calls()
        before = (head(self.portal).id, self.branch and self.branch.id, self.state().proposed_commit)
        outcome = self.sync()
        assert self.api_calls() == []
        assert (outcome.items_changed, outcome.details["portal_commits"]["sha"]) == (0, None)
        assert (head(self.portal).id, self.branch and self.branch.id, self.state().proposed_commit) == before


@pytest.fixture(scope="module")
def key() -> str:
    return make_private_key()


@pytest.fixture(scope="module")
def server() -> Iterator[GithubServer]:
    server = start_github_server({})
    yield server
    server.stop()


def make_world(server: GithubServer, store: Store, folder: Path, key: str) -> Github:
    repositories = make_repositories(folder / "repositories")
    app = App(next(APP_IDS), public_key_of(key), dict(GRANTED))
    server.reset({LZ: repositories.landing_zone, PORTAL: repositories.portal}, app=app)
    config = GitSyncConfig(paths=PATHS, publish="pull_request")
    return Github(folder, store, repositories, config=config, server=server, app=app, private_key=key)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repositories as they are made."""
    return make_repositories(tmp_path_factory.mktemp("fresh") / "repositories").portal.parent


@pytest.fixture
def world(server: GithubServer, sqlite_store: Store, tmp_path: Path, key: str, fresh: Path) -> Github:
    shutil.copytree(fresh, tmp_path / "repositories")
    return make_world(server, sqlite_store, tmp_path, key)


@pytest.fixture
def over_http(world: Github) -> Github:
    world.over_http = True
    return world


@pytest.fixture(scope="module")
def settled(
    server: GithubServer, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, key: str, fresh: Path
) -> tuple[Path, Path]:
    """A folder in which a first pull request was merged, and where it has to be: the proof names the repositories."""
    place, saved = tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("settled")
    shutil.copytree(fresh, place / "repositories")
    shutil.copy(sqlite_template, place / "store.db")
    with open_store(f"sqlite:///{place / 'store.db'}", migrate=False) as store:
        world = make_world(server, store, place, key)
        world.sync()
        server.merge(PORTAL, 1)
        world.sync()
        world.assert_settled(read_file(world.landing_zone, "docs/cost.md") or b"")
    shutil.copytree(place, saved, dirs_exist_ok=True)
    return place, saved


@pytest.fixture
def merged(server: GithubServer, settled: tuple[Path, Path], key: str) -> Iterator[Github]:
    """The landing zone and the portal have the same, by a pull request that was merged."""
    place, saved = settled
    shutil.rmtree(place)
    shutil.copytree(saved, place)
    with open_store(f"sqlite:///{place / 'store.db'}", migrate=False) as store:
        yield make_world(server, store, place, key)


@pytest.fixture
def waiting(merged: Github) -> Github:
    """The landing zone changed, and a pull request is open."""
    merged.edit("one")
    merged.sync()
    merged.api_calls()
    return merged


def counts(outcome: LayerOutcome) -> tuple[int, int, int]:
    made = outcome.details["portal_commits"]
    return made["added"], made["modified"], made["deleted"]


def test_the_first_change_opens_a_pull_request(over_http: Github) -> None:
    world = over_http
    world.configure(pull_request=PullRequestConfig(labels=["sync", "docs"]))
    base, own = head(world.portal), blobs(world.portal)
    outcome = world.sync()

    assert head(world.portal).id == base.id, "the portal's branch stays"
    assert blobs(world.portal) == own
    commit, pull, state = world.branch, world.pull(), world.state()
    assert commit is not None
    assert (pull.branch, pull.base, pull.state, pull.labels) == (BRANCH, "main", "open", ["sync", "docs"])
    assert commit.parent_ids == [base.id]
    assert f"Landing-Zone-Commit: {head(world.landing_zone).id}\n" in commit.message
    assert (pull.title, pull.body) == tuple(commit.message.split("\n\n", 1))
    assert pull.body.startswith("3 added, 0 modified, 0 deleted\n")
    made = outcome.details["portal_commits"]
    assert (made["sha"], made["head"], counts(outcome)) == (str(commit.id), str(base.id), (3, 0, 0))
    assert made["pull_request"] == state.pull_request == f"{world.github.url}/{PORTAL}/pull/1"
    assert (state.portal_commit, state.proposed_commit) == (str(base.id), str(commit.id))
    assert state.tree == str(commit.tree_id)
    (row,) = world.rows(schema.portal_commits)
    assert (row.sha, row.branch, row.added) == (str(commit.id), BRANCH, 3)
    assert {row.status for row in world.rows(schema.synced_files)} == {"synced"}
    world.assert_noop()
    assert made["pull_request"] == world.sync().details["portal_commits"]["pull_request"]


def test_the_same_pull_request_follows_the_landing_zone(world: Github) -> None:
    world.sync()
    first = world.branch
    sha = world.edit("more")
    outcome = world.sync()

    assert first is not None
    assert world.branch is not None
    assert world.branch.parent_ids == first.parent_ids, "one commit, on the portal's head"
    assert counts(outcome) == (3, 0, 0), "of the whole pull request"
    assert world.on_branch("docs/lz-reference/cost.md") == b"# Cost\n\nmore\n"
    assert f"Landing-Zone-Commit: {sha}\n" in world.pull().body
    assert (outcome.details["portal_commits"]["pull_request"] or "").endswith("/pull/1")
    with pytest.raises(KeyError):
        world.pull(2)
    world.assert_noop()


@pytest.mark.parametrize(("method", "is_branch_deleted"), [("merge", False), ("squash", False), ("squash", True)])
def test_a_merged_pull_request_is_settled(waiting: Github, method: str, is_branch_deleted: bool) -> None:
    waiting.github.merge(PORTAL, 1, method)
    if is_branch_deleted:
        pygit2.Repository(str(waiting.portal)).references.delete(f"refs/heads/{BRANCH}")
    outcome = waiting.sync()

    assert waiting.pull(1).merged_at is not None
    assert waiting.pull(1).comments == []
    assert (outcome.items_changed, outcome.details["portal_commits"]["pull_request"]) == (0, None)
    waiting.assert_settled(b"# Cost\n\none\n")
    waiting.edit("two")
    trailer = f"Landing-Zone-Range: {waiting.state().source_commit}..{head(waiting.landing_zone).id}"
    waiting.sync()
    assert trailer in waiting.pull(2).body


def test_a_merge_is_found_without_reading_the_landing_zone_again(
    waiting: Github, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.github.merge(PORTAL, 1)
    monkeypatch.setattr("lz_sync_dagster.sync.git.source.Source.all_files", None)
    waiting.sync()
    waiting.assert_settled(b"# Cost\n\none\n")


def test_a_portal_that_moves_gets_the_change_on_top(waiting: Github) -> None:
    waiting.change("docs/using.md", b"# Used\n", waiting.portal)
    moved = head(waiting.portal).id
    outcome = waiting.sync()

    assert waiting.branch is not None
    assert waiting.branch.parent_ids == [moved]
    assert waiting.on_branch("docs/using.md") == b"# Used\n"
    assert waiting.on_branch("docs/lz-reference/cost.md") == b"# Cost\n\none\n"
    assert counts(outcome) == (0, 1, 0)
    assert waiting.pull(1).state == "open"
    waiting.assert_noop()
    waiting.github.merge(PORTAL, 1)
    waiting.sync()
    waiting.assert_settled(b"# Cost\n\none\n")


def test_an_obsolete_pull_request_is_closed_and_its_branch_deleted(waiting: Github) -> None:
    before = read_file(waiting.portal, "docs/lz-reference/cost.md")
    assert before is not None
    waiting.change("docs/cost.md", before)
    outcome = waiting.sync()

    assert (waiting.pull(1).state, waiting.pull(1).merged_at) == ("closed", None)
    assert waiting.pull(1).comments == ["The portal has all of this: nothing is left to merge."]
    assert counts(outcome) == (0, 0, 0)
    assert outcome.details["portal_commits"]["pull_request"] is None
    waiting.assert_settled(before)


@pytest.mark.parametrize("then", ["nothing", "branch deleted", "portal moves", "other files change"])
def test_what_a_person_closed_is_not_proposed_again_until_the_landing_zone_changes(waiting: Github, then: str) -> None:
    waiting.pull(1).state = "closed"
    if then == "branch deleted":
        pygit2.Repository(str(waiting.portal)).references.delete(f"refs/heads/{BRANCH}")
    elif then == "portal moves":
        waiting.change("docs/using.md", b"# Used\n", waiting.portal)
    elif then == "other files change":
        waiting.change("docs/using.md", b"# Used\n", waiting.portal)
        waiting.change("README.md", b"# Other\n")
    for _ in range(2):
        assert counts(waiting.sync()) == (0, 0, 0)
        assert waiting.pull(1).state == "closed"
        with pytest.raises(KeyError):
            waiting.pull(2)
    waiting.edit("two")
    waiting.sync()
    assert waiting.pull(2).state == "open"
    assert waiting.branch is not None
    assert waiting.branch.parent_ids == [head(waiting.portal).id]
    using = read_file(waiting.portal, "docs/using.md")
    assert waiting.on_branch("docs/using.md") == using, "what was pushed meanwhile is not undone"
    waiting.github.merge(PORTAL, 2)
    waiting.sync()
    waiting.assert_settled(b"# Cost\n\ntwo\n")


def test_github_merges_when_the_checks_pass_or_at_once(over_http: Github) -> None:
    world = over_http
    world.configure(pull_request=PullRequestConfig(auto_merge=True))
    world.sync()
    assert world.pull().auto_merge == "MERGE"
    assert world.pull().state == "open"
    world.github.pass_checks(PORTAL)
    world.edit("one")
    outcome = world.sync()

    assert world.pull(2).merged_at is not None
    assert counts(outcome) == (0, 1, 0)
    assert outcome.details["portal_commits"]["pull_request"] is None, "nothing waits"
    assert outcome.details["portal_commits"]["head"] == str(head(world.portal).id)
    world.assert_settled(b"# Cost\n\none\n")


def test_a_merge_that_github_refuses_is_a_warning_and_asked_for_again_when_the_settings_change(world: Github) -> None:
    world.github.repository(PORTAL).allow_auto_merge = False
    world.configure(pull_request=PullRequestConfig(auto_merge=True))
    assert "allow auto-merge" in world.sync().details["portal_commits"]["pull_request_warning"]
    world.configure(pull_request=PullRequestConfig(labels=["late"]))
    world.sync()
    assert (world.pull().labels, world.pull().state) == (["late"], "open")
    world.assert_noop()


def test_what_github_did_not_hear_of_after_the_push_the_next_sync_tells_it(waiting: Github) -> None:
    world = waiting
    world.edit("two")
    tables = [world.rows(table) for table in (schema.synced_files, schema.git_state)]
    for fault in ("unavailable", "rate_limit"):
        world.github.fail(fault)  # type: ignore[arg-type]
        error = failure(world)
        assert error.transient
        assert [world.rows(table) for table in (schema.synced_files, schema.git_state)] == tables
    world.sync()
    assert f"Landing-Zone-Commit: {head(world.landing_zone).id}\n" in world.pull().body
    assert world.state().proposed_commit == str(world.branch and world.branch.id)
    assert world.on_branch("docs/lz-reference/cost.md") == b"# Cost\n\ntwo\n"
    world.assert_noop()


def test_a_first_push_that_github_did_not_hear_of_is_withdrawn_if_it_is_obsolete(merged: Github) -> None:
    world = merged
    before = read_file(world.portal, "docs/lz-reference/cost.md")
    assert before is not None
    world.edit("one")
    world.github.fail("unavailable")
    failure(world)
    assert world.branch is not None
    world.change("docs/cost.md", before)
    world.sync()
    world.assert_settled(before)


def test_what_others_push_to_the_syncs_branch_is_replaced(waiting: Github) -> None:
    repository = pygit2.Repository(str(waiting.portal))
    assert waiting.branch is not None
    signature = pygit2.Signature("Dana", "dana@example.com", 0, 0)
    repository.create_commit(
        f"refs/heads/{BRANCH}", signature, signature, "Mine", waiting.branch.tree_id, [waiting.branch.id]
    )
    waiting.sync()
    assert waiting.branch.message.startswith("chore(sync)")
    assert waiting.branch.parent_ids == [head(waiting.portal).id]
    assert waiting.pull(1).state == "open"
    waiting.assert_noop()


def test_a_branch_of_somebody_else_is_not_deleted(world: Github) -> None:
    world.configure(publish="push")
    world.sync()
    repository = pygit2.Repository(str(world.portal))
    signature = pygit2.Signature("Dana", "dana@example.com", 0, 0)
    theirs = repository.create_commit(
        f"refs/heads/{BRANCH}", signature, signature, "Mine", head(world.portal).tree_id, [head(world.portal).id]
    )
    world.configure(publish="pull_request")
    world.sync()
    assert world.branch is not None
    assert world.branch.id == theirs


@pytest.mark.parametrize("branch", ["main", "main/sync"])
def test_the_portals_own_branch_is_not_the_syncs(world: Github, branch: str) -> None:
    before = head(world.portal).id
    world.configure(pull_request=PullRequestConfig(branch=branch))
    assert "sync_layers.git_sync.pull_request.branch" in str(failure(world))
    assert head(world.portal).id == before


@pytest.mark.parametrize("may_close", [True, False])
def test_changing_to_push_ends_the_pull_request(waiting: Github, may_close: bool) -> None:
    if not may_close:
        assert waiting.app is not None
        waiting.app.permissions = {"contents": "write"}
        waiting.github.revoke_tokens()
    waiting.configure(publish="push")
    outcome = waiting.sync()

    assert outcome.status is Status.SUCCESS
    assert read_file(waiting.portal, "docs/lz-reference/cost.md") == b"# Cost\n\none\n"
    assert outcome.details["portal_commits"]["pull_request"] is None
    if may_close:
        assert waiting.pull(1).state == "closed"
        assert waiting.pull(1).comments == ["The sync pushes to the branch itself now."]
        waiting.assert_settled(b"# Cost\n\none\n")
        waiting.configure(publish="pull_request")
        waiting.sync()
        waiting.assert_settled(b"# Cost\n\none\n")


def test_an_edit_by_hand_is_undone_by_a_pull_request_which_says_so(waiting: Github) -> None:
    waiting.github.merge(PORTAL, 1)
    waiting.sync()
    waiting.change("docs/lz-reference/cost.md", b"by hand", waiting.portal)
    outcome = waiting.sync()

    assert counts(outcome) == (0, 1, 0)
    assert waiting.on_branch("docs/lz-reference/cost.md") == b"# Cost\n\none\n"
    (finding,) = waiting.rows(schema.source_findings)
    assert finding.message == "was edited in the portal repository; a pull request proposes to restore it"
    waiting.assert_noop()
    waiting.change("docs/using.md", b"# Used\n", waiting.portal)
    waiting.sync()
    assert waiting.branch is not None
    assert waiting.branch.parent_ids == [head(waiting.portal).id]
    waiting.github.merge(PORTAL, 2)
    waiting.sync()
    waiting.assert_settled(b"# Cost\n\none\n")


def test_without_permission_for_pull_requests_the_error_names_it(world: Github) -> None:
    assert world.app is not None
    world.app.permissions = {"contents": "write"}
    error = failure(world)
    assert (error.reason, error.transient) == (Reason.PERMISSION_DENIED, False)
    assert "pull_requests: write" in str(error)
    world.app.permissions = GRANTED
    world.sync()
    assert world.pull().state == "open"


# --- git over http ------------------------------------------------------------------------------------------------


def direct(world: Github) -> Github:
    world.configure(publish="push")
    world.sync()
    world.edit("one")
    return world


def test_a_token_that_was_revoked_is_renewed_once(over_http: Github) -> None:
    world = over_http
    direct(world).github.revoke_tokens()
    world.sync()
    assert read_file(world.portal, "docs/lz-reference/cost.md") == b"# Cost\n\none\n"


def refused_push(world: Github) -> SyncError:
    tables = [world.rows(table) for table in (schema.synced_files, schema.documents, schema.git_state)]
    error = failure(world)
    assert not error.transient
    assert [world.rows(table) for table in (schema.synced_files, schema.documents, schema.git_state)] == tables
    assert read_file(world.portal, "docs/lz-reference/cost.md") != b"# Cost\n\none\n"
    return error


def test_without_leave_to_push_the_last_good_state_stays(over_http: Github) -> None:
    world = over_http
    direct(world).github.repository(PORTAL).protected.add("main")
    protected = refused_push(world)
    assert protected.reason is Reason.PERMISSION_DENIED
    assert "pull_request" in str(protected)
    world.github.repository(PORTAL).protected.clear()

    token = SecretStr("pat-of-this-test")
    for granted, reason in (({"contents": "read"}, Reason.PERMISSION_DENIED), (None, Reason.UNAUTHENTICATED)):
        world.github.revoke_tokens()
        if granted is not None:
            world.github.add_token(Token(token.get_secret_value(), granted, (LZ, PORTAL)))
        error = failure(world, git_token=token if granted else SecretStr("wrong"))
        assert error.reason is reason
        assert "LZ_SYNC_GIT_TOKEN" in str(error)
    world.sync()
    assert read_file(world.portal, "docs/lz-reference/cost.md") == b"# Cost\n\none\n"


@pytest.mark.parametrize("can_filter", [True, False])
def test_large_files_are_not_fetched_until_the_limit_allows_them(world: Github, can_filter: bool) -> None:
    if can_filter:
        pygit2.Repository(str(world.landing_zone)).config["uploadpack.allowFilter"] = True
    blob = pygit2.Repository(str(world.landing_zone)).create_blob(b"x" * 20_000)
    world.change("docs/glossary.md", b"x" * 20_000)
    world.configure(publish="push", max_file_bytes=10_000)
    world.sync()
    copy = world.folder / "data" / "git" / "landing-zone.git"
    assert (str(blob) in pygit2.Repository(str(copy))) is not can_filter
    assert "10000" in world.not_synced()["docs/glossary.md"]
    world.configure(max_file_bytes=20_000)
    outcome = world.sync()
    assert world.not_synced() == {}
    assert counts(outcome) == (1, 0, 0)
    assert read_file(world.portal, "docs/lz-reference/glossary.md") == b"x" * 20_000
    assert world.sync().items_changed == 0
    world.configure(max_file_bytes=10_000)
    assert counts(world.sync()) == (0, 0, 1)


def test_a_mapping_with_a_destination_below_github_is_followed(world: Github) -> None:
    """It takes a rule of its own: nothing else leads there."""
    world.change("ci/check.yml", b"on: push\n")
    world.configure(
        publish="push",
        paths=["ci/**"],
        mapping=[MappingRule(source=("ci/*.yml",), destination=(".github/workflows",))],
    )
    world.sync()
    assert read_file(world.portal, ".github/workflows/check.yml") == b"on: push\n"
