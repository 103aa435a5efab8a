"""GitHub's API and git over http against the demo's GitHub server: real sockets, signatures and tokens."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pygit2
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from demo.github_server import (
    RETRY_AFTER,
    App,
    GithubServer,
    Token,
    make_private_key,
    public_key_of,
    start_github_server,
)
from demo.repositories import BRANCH, commit_change
from lz_sync_dagster.config import GithubConfig, RepositoryConfig, Settings, SyncLayers, WebhookConfig
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.portal.server import bind, server_for
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.mirror import Mirror
from lz_sync_dagster.sync.github.api import Api, GithubError
from lz_sync_dagster.sync.github.credentials import GitCredential, git_credential, open_api, open_app_api
from lz_sync_dagster.sync.github.deliveries import Hook, repository_id
from lz_sync_dagster.sync.github.pull_requests import (
    close_pull_request,
    ensure_pull_request,
    find_pull_request,
    permissions,
    read_pull_request,
)
from lz_sync_dagster.sync.store import Store, schema
from lz_sync_dagster.sync.store.alerts import open_alerts
from lz_sync_dagster.sync.store.delivery_repairs import RepairOutcome
from lz_sync_dagster.sync.webhook.repair import (
    LAST_WAIT,
    REPAIR_WAITS,
    open_hook_api,
    repair_deliveries,
    watch_deliveries,
)
from tests.conftest import NOW, SteppedClock, until

LZ, PORTAL = "example/gcp-landing-zone", "example/gcp-landing-zone-portal"
SECRET = "a secret of this test"
#: Each test has an App of its own: tokens are kept for as long as the process lives.
APP_IDS = itertools.count(100)
GRANTED = {"contents": "write", "pull_requests": "write", "repository_hooks": "write"}


@dataclass
class World:
    """A GitHub of this test's own, and settings that lead there."""

    server: GithubServer
    app: App
    portal: Path
    clock: SteppedClock
    private_key: str

    def settings(self, *, webhook: WebhookConfig | None = None, github: Any = None, **changes: Any) -> Settings:
        config = {"api_url": self.server.api_url, "app_id": self.app.id, **(github or {})}
        values: dict[str, Any] = {
            "github": GithubConfig(**config),
            "github_app_private_key": SecretStr(self.private_key),
            "landing_zone": RepositoryConfig(url=self.server.clone_url(LZ), name=LZ),
            "portal_repository": RepositoryConfig(url=self.server.clone_url(PORTAL), name=PORTAL),
            "sync_layers": SyncLayers(webhook=webhook or WebhookConfig()),
            "webhook_secrets": SecretStr(SECRET),
        }
        return Settings(**(values | changes))

    def api(self, repository: str = PORTAL, granted: dict[str, str] | None = None, **changes: Any) -> Api:
        return open_api(self.settings(**changes), repository, granted or permissions(auto_merge=True), clock=self.clock)

    def called(self, part: str) -> int:
        return sum(part in path for _, path, _ in self.server.requests)


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    """Two private keys of an App."""
    return make_private_key(), make_private_key()


@pytest.fixture(scope="module")
def server() -> Iterator[GithubServer]:
    before = set(threading.enumerate())
    server = start_github_server({})
    yield server
    server.stop()
    assert set(threading.enumerate()) <= before, "no thread is left"


@pytest.fixture
def world(server: GithubServer, tmp_path: Path, keys: tuple[str, str]) -> World:
    paths = {name: tmp_path / f"{name.rpartition('/')[2]}.git" for name in (LZ, PORTAL)}
    for path in paths.values():
        pygit2.init_repository(str(path), bare=True, initial_head=BRANCH)
        commit_change(path, "README.md", b"first\n", message="First", at=NOW)
    app = App(next(APP_IDS), public_key_of(keys[0]), dict(GRANTED))
    server.reset(paths, app=app)
    server.clock = clock = SteppedClock()
    return World(server, app, paths[PORTAL], clock, keys[0])


def refused(call: Callable[[], Any]) -> SyncError:
    """The one-line error of a call. No key or token is in it."""
    with pytest.raises(SyncError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert "PRIVATE KEY" not in text
    assert "ghs_" not in text
    return caught.value


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_kept_until_shortly_before_it_expires(world: World) -> None:
    credential = git_credential(world.settings(), LZ, write=False, clock=world.clock)
    first = credential()
    world.clock.advance(timedelta(minutes=54))
    assert git_credential(world.settings(), LZ, write=False, clock=world.clock)() == first
    assert world.called("access_tokens") == 1
    world.clock.advance(timedelta(minutes=2))
    assert credential() != first
    assert world.called("access_tokens") == 2
    assert world.called("/installation") == world.called("access_tokens") + 1, "the installation is looked up once"


def test_an_installation_that_is_configured_is_not_looked_up(world: World) -> None:
    settings = world.settings(github={"installation_id": world.app.installation_id})
    assert git_credential(settings, LZ, write=False, clock=world.clock)() is not None
    assert world.called(f"{LZ}/installation") == 0


def test_a_token_is_narrowed_to_its_repository_and_permissions(world: World) -> None:
    with world.api(PORTAL, {"pull_requests": "read"}) as api:
        assert find_pull_request(api, PORTAL, "lz-sync/update", BRANCH) is None
        other = refused(lambda: find_pull_request(api, LZ, "lz-sync/update", BRANCH))
        assert other.reason is Reason.NOT_FOUND
        denied = refused(lambda: ensure_pull_request(api, PORTAL, "b", BRANCH, "title", "body"))
        assert denied.reason is Reason.PERMISSION_DENIED
        assert "pull_requests: write" in str(denied)


def test_a_token_that_was_revoked_is_replaced_at_once(world: World) -> None:
    with world.api() as api:
        repository_id(api, PORTAL)
        world.server.revoke_tokens()
        repository_id(api, PORTAL)
    assert world.called("access_tokens") == 2


def test_the_plain_token_is_used_without_an_app(world: World) -> None:
    world.server.add_token(Token("pat-of-this-test", {"pull_requests": "read"}, (PORTAL,)))
    settings: dict[str, Any] = {"github": {"app_id": None}, "github_app_private_key": None}
    with world.api(github_token=SecretStr("pat-of-this-test"), **settings) as api:
        assert find_pull_request(api, PORTAL, "lz-sync/update", BRANCH) is None
    with world.api(github_token=SecretStr("wrong"), **settings) as api:
        error = refused(lambda: repository_id(api, PORTAL))
    assert error.reason is Reason.UNAUTHENTICATED
    assert "LZ_SYNC_GITHUB_TOKEN" in str(error)
    nothing = refused(lambda: world.api(**settings))
    assert nothing.reason is Reason.UNAUTHENTICATED
    app_alone = refused(lambda: open_app_api(world.settings(**settings)))
    assert "github.app_id" in str(app_alone)


def test_what_is_wrong_with_an_app_is_one_line_with_a_remedy(world: World, keys: tuple[str, str]) -> None:
    def token(**changes: Any) -> Any:
        return git_credential(world.settings(**changes), LZ, write=True, clock=world.clock)()

    for given, said, reason in (
        ({"github_app_private_key": SecretStr(keys[1])}, "private key", Reason.UNAUTHENTICATED),
        ({"github_app_private_key": SecretStr("-----BEGIN nonsense")}, "RSA private key", Reason.INVALID),
        ({"github": {"app_id": 13}}, "github.app_id", Reason.UNAUTHENTICATED),
        ({"github": {"installation_id": 1}}, "github.installation_id", Reason.NOT_FOUND),
        ({"github": {"app_id": None}}, "github.app_id", Reason.INVALID),
        ({"github_app_private_key": None}, "LZ_SYNC_GITHUB_APP_PRIVATE_KEY", Reason.INVALID),
    ):
        error = refused(lambda given=given: token(**given))  # type: ignore[misc]
        assert said in str(error)
        assert error.reason is reason

    world.app.permissions = {"contents": "read"}
    assert "contents: write" in str(refused(token))
    world.app.permissions = GRANTED
    world.app.suspended = True
    assert "suspended" in str(refused(token))
    world.app.suspended = False
    world.app.repositories = (PORTAL,)
    assert refused(token).reason is Reason.NOT_FOUND
    installed = refused(lambda: token(github={"installation_id": world.app.installation_id}))
    assert "add the repository to the App's installation" in str(installed)


def test_a_key_of_one_line_is_read(world: World) -> None:
    key = SecretStr(world.private_key.replace("\n", "\\n"))
    assert git_credential(world.settings(github_app_private_key=key), LZ, write=False, clock=world.clock)() is not None


def test_clocks_that_differ_are_named(world: World) -> None:
    ahead = SteppedClock(NOW + timedelta(minutes=5))
    error = refused(git_credential(world.settings(), LZ, write=False, clock=ahead))
    assert "clock" in str(error)


# --- git over http ----------------------------------------------------------------------------------------------------


def mirror(world: World, tmp_path: Path, token: SecretStr | None) -> Mirror:
    credential = GitCredential(lambda: token)
    return Mirror(
        tmp_path / "mirror", world.settings().portal_repository, key="portal_repository", credential=credential
    )


def commit_on(repo: Path, branch: str, path: str, content: bytes) -> str:
    """A commit on a branch of a bare repository that starts at the default branch's head."""
    repository = pygit2.Repository(str(repo))
    before = repository.references[f"refs/heads/{BRANCH}"].target
    commit = commit_change(repo, path, content, message=f"Change {path}", at=NOW)
    repository.references.create(f"refs/heads/{branch}", commit, force=True)
    repository.references[f"refs/heads/{BRANCH}"].set_target(before)
    return commit


def test_git_fetches_and_pushes_with_tokens_of_the_app(world: World, tmp_path: Path) -> None:
    read, write = (git_credential(world.settings(), PORTAL, write=flag, clock=world.clock) for flag in (False, True))
    head = mirror(world, tmp_path, read()).fetch()
    repository = pygit2.Repository(str(tmp_path / "mirror"))
    author = pygit2.Signature("bot", "bot@example.com", int(NOW.timestamp()), 0)
    tree = repository[head].peel(pygit2.Commit).tree_id
    builder = repository.TreeBuilder(repository[tree])
    builder.insert("large.bin", repository.create_blob(random.Random(1).randbytes(3_000_000)), 0o100644)
    new = str(repository.create_commit(None, author, author, "new", builder.write(), [head]))

    denied = refused(lambda: mirror(world, tmp_path, read()).push(new, expected=head))
    assert denied.reason is Reason.PERMISSION_DENIED
    world.server.repository(PORTAL).protected.add(BRANCH)
    protected = refused(lambda: mirror(world, tmp_path, write()).push(new, expected=head))
    assert "protected branch hook declined" in str(protected)
    world.server.repository(PORTAL).protected.clear()
    mirror(world, tmp_path, write()).push(new, expected=head)
    assert world.server.repository(PORTAL).head(BRANCH) == new

    old = write()
    world.clock.advance(timedelta(hours=2))
    expired = refused(lambda: mirror(world, tmp_path, old).fetch())
    assert expired.reason is Reason.UNAUTHENTICATED
    assert mirror(world, tmp_path, write()).fetch() == new
    foreign = git_credential(world.settings(), LZ, write=True, clock=world.clock)()
    assert refused(lambda: mirror(world, tmp_path, foreign).fetch()).reason is Reason.NOT_FOUND


def test_the_credential_for_git_is_the_separate_one_if_it_is_set(world: World) -> None:
    own = SecretStr("only for git")
    assert git_credential(world.settings(git_token=own), LZ, write=True)() is own
    without: dict[str, Any] = {"github": {"app_id": None}, "github_app_private_key": None}
    assert git_credential(world.settings(**without), LZ, write=True)() is None
    assert world.server.requests.maxlen is not None
    assert not world.server.requests, "nobody was asked"


@pytest.mark.parametrize("url", ["https://git.example.com/x/y.git", "git@github.com:x/y.git", "/srv/y.git", ""])
def test_a_token_of_the_app_goes_to_github_alone(world: World, url: str) -> None:
    settings = world.settings(landing_zone=RepositoryConfig(url=url, name=LZ))
    assert git_credential(settings, LZ, write=False)() is None
    assert not world.server.requests


# --- pull requests ----------------------------------------------------------------------------------------------------


@pytest.fixture
def branch(world: World) -> str:
    commit_on(world.portal, "lz-sync/update", "docs/new.md", b"new\n")
    return "lz-sync/update"


def test_a_pull_request_is_opened_once_and_kept_up_to_date(world: World, branch: str) -> None:
    with world.api() as api:
        made = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one", ["sync", "docs"])
        calls = len(world.server.requests)
        again = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one", ["sync", "docs"])
        second = [method for method, _, _ in world.server.requests][calls:]
        changed = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync 2", "two\nlines", ["more"])
        found = find_pull_request(api, PORTAL, branch, BRANCH)

    assert made.created
    assert made.url.endswith(f"/{PORTAL}/pull/{made.number}")
    assert again == changed == found == replace(made, created=False)
    assert second == ["GET"], "there was nothing to do"
    pull = world.server.pull(PORTAL, made.number)
    assert (pull.title, pull.body, pull.labels) == ("Sync 2", "two\nlines", ["sync", "docs", "more"])


def test_an_obsolete_pull_request_is_closed_with_its_reason(world: World, branch: str) -> None:
    with world.api() as api:
        made = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one")
        closed = close_pull_request(api, PORTAL, branch, BRANCH, "Nothing is left to sync.")
        assert closed is not None
        assert (closed.number, closed.state) == (made.number, "closed")
        assert close_pull_request(api, PORTAL, branch, BRANCH, "again") is None
        another = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one")
    assert world.server.pull(PORTAL, made.number).comments == ["Nothing is left to sync."]
    assert another.number != made.number


def test_a_merged_pull_request_is_known_as_such(world: World, branch: str) -> None:
    with world.api() as api:
        made = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one")
        commit = world.server.merge(PORTAL, made.number)
        assert read_pull_request(api, PORTAL, made.number).state == "merged"
    assert world.server.repository(PORTAL).head(BRANCH) == commit


def test_a_branch_without_anything_new_is_refused_with_githubs_words(world: World, branch: str) -> None:
    with world.api() as api:
        world.server.merge(PORTAL, ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one").number)
        error = refused(lambda: ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one"))
        missing = refused(lambda: ensure_pull_request(api, PORTAL, "no-branch", BRANCH, "Sync", "one"))
    assert "No commits between" in str(error)
    assert error.reason is missing.reason is Reason.INVALID


def test_auto_merge_waits_for_the_checks(world: World, branch: str) -> None:
    world.server.repository(PORTAL).merge_methods = ("squash",)
    with world.api() as api:
        made = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one", auto_merge=True)
        again = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one", auto_merge=True)
        assert made.warning is again.warning is None
        assert made.state == again.state == "open"
        assert world.called("graphql") == 1
        world.server.pass_checks(PORTAL)
        assert read_pull_request(api, PORTAL, made.number).state == "merged"


def test_auto_merge_with_nothing_to_wait_for_merges(world: World, branch: str) -> None:
    world.server.repository(PORTAL).checks_pending = False
    with world.api() as api:
        made = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one", auto_merge=True)
    assert (made.state, made.warning) == ("merged", None)
    assert world.server.pull(PORTAL, made.number).merge_commit == world.server.repository(PORTAL).head(BRANCH)


@pytest.mark.parametrize("granted", [GRANTED, {**GRANTED, "contents": "read"}])
def test_auto_merge_that_is_not_allowed_is_a_warning(world: World, branch: str, granted: dict[str, str]) -> None:
    world.server.repository(PORTAL).allow_auto_merge = False
    with world.api(granted=granted) as api:
        made = ensure_pull_request(api, PORTAL, branch, BRANCH, "Sync", "one", auto_merge=True)
    assert (made.created, made.state) == (True, "open")
    assert made.warning is not None
    assert "allow auto-merge" in made.warning


# --- when GitHub does not work ----------------------------------------------------------------------------------------


def test_a_rate_limit_says_how_long_to_wait(world: World) -> None:
    with world.api() as api:
        repository_id(api, PORTAL)
        world.server.fail("rate_limit")
        primary = refused(lambda: repository_id(api, PORTAL))
        world.server.fail("secondary_limit")
        secondary = refused(lambda: repository_id(api, PORTAL))
        world.server.fail("unavailable")
        unavailable = refused(lambda: repository_id(api, PORTAL))
        repository_id(api, PORTAL)
    assert primary.reason is secondary.reason is Reason.QUOTA
    assert (primary.retry_after, secondary.retry_after) == (3600, RETRY_AFTER)
    assert unavailable.reason is Reason.UNAVAILABLE
    assert primary.transient
    assert unavailable.transient


def test_a_server_that_is_not_there_is_transient(world: World) -> None:
    with bind("127.0.0.1", 0) as closed:
        port = closed.getsockname()[1]
    with world.api(github={"api_url": f"http://127.0.0.1:{port}"}) as api:
        error = refused(lambda: repository_id(api, PORTAL))
    assert error.reason is Reason.UNAVAILABLE
    assert error.transient


@pytest.mark.parametrize("url", ["http://github.example.com/api/v3", "ftp://x", "api.github.com", "file:///x"])
def test_credentials_go_over_https_alone(world: World, url: str) -> None:
    assert "github.api_url" in str(refused(lambda: world.api(github={"api_url": url})))


# --- deliveries and their repair --------------------------------------------------------------------------------------


def push(number: int) -> dict[str, Any]:
    return {
        "ref": f"refs/heads/{BRANCH}",
        "after": f"{number:040x}",
        "repository": {"full_name": LZ},
        "sender": {"login": "alice"},
    }


@contextmanager
def portal(settings: Settings, store: Store, clock: SteppedClock) -> Iterator[str]:
    """The real portal on a socket; gives the address of its webhook."""
    with bind("127.0.0.1", 0) as listener:
        server = server_for(create_app(settings, store, clock=clock, pages=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started, what="the portal")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/webhooks/github"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()


def rows(store: Store, table: sa.Table) -> list[sa.Row[Any]]:
    with store.read() as connection:
        return list(connection.execute(sa.select(table)))


def log_settles(world: World, hook: int, attempts: int) -> None:
    until(lambda: len(world.server.deliveries(hook)) == attempts, what="the redelivery")


def test_the_log_is_read_page_after_page_up_to_its_window(world: World) -> None:
    hook = world.server.add_hook(LZ, "http://127.0.0.1:9/", SECRET)
    world.server.fail("hook_refused", 10_000)
    for number in range(250):
        world.server.deliver("push", push(number), hook)
        world.clock.advance(timedelta(seconds=1))
    log = Hook.of_repository(LZ, hook)
    with world.api(LZ, {"repository_hooks": "read"}) as api:
        whole = log.deliveries(api, NOW)
        assert world.called("deliveries") == 3
        assert [one.guid for one in whole] == [one.guid for one in world.server.deliveries(hook)]
        assert all(one.failed for one in whole)
        assert len(log.deliveries(api, world.clock() - timedelta(seconds=30))) == 30
        assert world.called("deliveries") == 4, "no page beyond the window"
        denied = refused(lambda: log.redeliver(api, whole[0].newest.id))
    assert denied.reason is Reason.PERMISSION_DENIED
    assert "repository_hooks" in str(denied)


def test_a_delivery_with_a_later_success_did_not_fail(world: World, sqlite_store: Store) -> None:
    with portal(world.settings(), sqlite_store, world.clock) as url:
        hook = world.server.add_hook(LZ, url, SECRET)
        world.server.fail("hook_error")
        failed = world.server.deliver("push", push(1), hook)
        log = Hook.of_repository(LZ, hook)
        with world.api(LZ, {"repository_hooks": "write"}) as api:
            log.redeliver(api, failed.id)
            log_settles(world, hook, 2)
            (delivery,) = log.deliveries(api, NOW)
    assert [attempt.status_code for attempt in delivery.attempts] == [202, 500]
    assert (delivery.guid, delivery.failed) == (failed.guid, False)


@pytest.mark.parametrize("kind", ["repository", "app"])
def test_a_delivery_that_failed_twice_is_repaired_exactly_once(world: World, store: Store, kind: str) -> None:
    hook = world.server.add_hook(LZ if kind == "repository" else None, "http://127.0.0.1:9/", SECRET)
    settings = world.settings(webhook=WebhookConfig(hook=hook if kind == "repository" else "app"))
    lost = world.server.deliver("push", push(1), hook)
    assert lost.status_code == 502, "nobody listens there"
    world.server.deliver("push", {**push(2), "repository": {"full_name": "else/where"}}, hook)
    unwanted = world.server.deliver("issues", {"action": "opened", "repository": {"full_name": LZ}}, hook)

    def repair(seen: Any = None) -> Any:
        with open_hook_api(settings, clock=world.clock) as api:
            return repair_deliveries(settings, store, api, world.clock, seen_until=seen)

    with portal(settings, store, world.clock) as url:
        world.server.hook(hook).url = url
        world.server.fail("hook_error", 1 if kind == "app" else 2)
        world.clock.advance(timedelta(seconds=30))
        first = repair()
        assert lost.guid in first.requested
        assert unwanted.guid not in first.requested
        log_settles(world, hook, 3 + len(first.requested))
        assert rows(store, schema.inbox) == []
        assert repair(first.seen_until).requested == (), "it waits first"

        world.clock.advance(REPAIR_WAITS[1])
        second = repair(first.seen_until)
        assert lost.guid in second.requested
        log_settles(world, hook, 3 + len(first.requested) + len(second.requested))
        world.clock.advance(timedelta(minutes=1))
        third = repair(second.seen_until)
        assert lost.guid in third.delivered
        world.clock.advance(timedelta(hours=1))
        assert repair(third.seen_until).said == "failed deliveries: none"

    arrived = [row for row in rows(store, schema.inbox) if row.status == "pending"]
    assert [(row.delivery_id, row.commit_claim) for row in arrived] == [(lost.guid, f"{1:040x}")]
    repairs = {row.delivery_id: row for row in rows(store, schema.delivery_repairs)}
    assert (repairs[lost.guid].attempts, repairs[lost.guid].outcome) == (2, RepairOutcome.DELIVERED)
    assert len(repairs) == (1 if kind == "app" else 2), "an App's log is of other repositories too"


def test_a_delivery_that_the_inbox_has_is_not_asked_for(world: World, sqlite_store: Store) -> None:
    settings = world.settings()
    with portal(settings, sqlite_store, world.clock) as url:
        hook = world.server.add_hook(LZ, url, SECRET)
        taken = world.server.deliver("push", push(1), hook)
    world.server._deliveries[:] = [replace(taken, status="timed out", status_code=504)]
    settings = world.settings(webhook=WebhookConfig(hook=hook))
    with open_hook_api(settings, clock=world.clock) as api:
        done = repair_deliveries(settings, sqlite_store, api, world.clock)
    assert (done.requested, done.waiting) == ((), 0)
    assert rows(sqlite_store, schema.delivery_repairs) == []


def test_a_delivery_is_given_up_in_the_end_and_says_so(world: World, sqlite_store: Store) -> None:
    hook = world.server.add_hook(LZ, "http://127.0.0.1:9/", SECRET)
    settings = world.settings(webhook=WebhookConfig(hook=hook))
    lost = world.server.deliver("push", push(1), hook)
    cursor: str | None = None
    for wait in (*REPAIR_WAITS, timedelta(hours=1)):
        world.clock.advance(wait)
        cursor = watch_deliveries(settings, sqlite_store, clock=world.clock, cursor=cursor).cursor
        attempts = rows(sqlite_store, schema.delivery_repairs)[0].attempts
        log_settles(world, hook, 1 + attempts)

    (repair,) = rows(sqlite_store, schema.delivery_repairs)
    assert (repair.attempts, repair.outcome) == (len(REPAIR_WAITS), RepairOutcome.GIVEN_UP)
    with sqlite_store.read() as connection:
        (alert,) = open_alerts(connection)
    assert (alert.name, alert.subject) == ("DeliveryRepair", "deliveries")
    assert lost.guid in str(alert.message)

    with portal(settings, sqlite_store, world.clock) as url:  # and somebody presses the button
        world.server.hook(hook).url = url
        with open_hook_api(settings, clock=world.clock) as api:
            Hook.of_repository(LZ, hook).redeliver(api, lost.id)
        log_settles(world, hook, 2 + len(REPAIR_WAITS))
    watch_deliveries(settings, sqlite_store, clock=world.clock, cursor=cursor)
    assert rows(sqlite_store, schema.delivery_repairs)[0].outcome == RepairOutcome.DELIVERED
    with sqlite_store.read() as connection:
        assert open_alerts(connection) == []


def test_a_repair_that_github_refuses_raises_an_alert_until_it_works(world: World, sqlite_store: Store) -> None:
    hook = world.server.add_hook(LZ, "http://127.0.0.1:9/", SECRET)
    settings = world.settings(webhook=WebhookConfig(hook=hook))

    def watch(cursor: str | None) -> Any:
        return watch_deliveries(settings, sqlite_store, clock=world.clock, cursor=cursor)

    first = watch(None)
    assert first.said == "failed deliveries: none"
    world.server.fail("secondary_limit")
    limited = watch(first.cursor)
    assert "limits the calls" in limited.said
    with sqlite_store.read() as connection:
        assert [(alert.name, alert.subject) for alert in open_alerts(connection)] == [("DeliveryRepair", "github")]
    calls = len(world.server.requests)
    assert "limits calls until" in watch(limited.cursor).said
    assert len(world.server.requests) == calls, "it waits as long as GitHub asks"
    world.clock.advance(timedelta(seconds=RETRY_AFTER))
    assert watch(limited.cursor).said == "failed deliveries: none"
    with sqlite_store.read() as connection:
        assert open_alerts(connection) == []


def test_a_refused_request_is_no_attempt(world: World, sqlite_store: Store) -> None:
    hook = world.server.add_hook(LZ, "http://127.0.0.1:9/", SECRET)
    lost = [world.server.deliver("push", push(number), hook) for number in (1, 2)]
    reader, writer = (
        Token(f"{level}-{hook}", {"repository_hooks": level}, (LZ,))  # type: ignore[dict-item]
        for level in ("read", "write")
    )
    world.server.add_token(reader)
    world.server.add_token(writer)

    def watch(token: str) -> Any:
        settings = world.settings(
            webhook=WebhookConfig(hook=hook),
            github={"app_id": None},
            github_app_private_key=None,
            github_token=SecretStr(token),
        )
        return watch_deliveries(settings, sqlite_store, clock=world.clock, cursor=None)

    for number in range(1, len(REPAIR_WAITS) + 2):
        world.clock.advance(LAST_WAIT)
        assert "repository_hooks" in watch(reader.value).said
        assert world.called("/attempts") == 2 * number, "the other one has its try"
        asked = watch(reader.value)
        assert world.called("/attempts") == 2 * number, "GitHub is not asked again at once"
        assert asked.said == "failed deliveries: 2 wait"
    kept = rows(sqlite_store, schema.delivery_repairs)
    assert {(row.attempts, row.outcome) for row in kept} == {(0, RepairOutcome.REQUESTED)}
    assert all("denied" in row.failure for row in kept)

    world.clock.advance(LAST_WAIT)
    assert watch(writer.value).said == "failed deliveries: 2 asked for again, 2 wait"
    assert {row.attempts for row in rows(sqlite_store, schema.delivery_repairs)} == {1}
    assert {row.delivery_id for row in rows(sqlite_store, schema.delivery_repairs)} == {one.guid for one in lost}
    log_settles(world, hook, 4)


def test_a_limit_ends_the_requests(world: World, sqlite_store: Store) -> None:
    hook = world.server.add_hook(LZ, "http://127.0.0.1:9/", SECRET)
    settings = world.settings(webhook=WebhookConfig(hook=hook))
    for number in (1, 2):
        world.server.deliver("push", push(number), hook)

    with open_hook_api(settings, clock=world.clock) as api:
        log = Hook.of_repository(LZ, hook).deliveries(api, NOW)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Hook, "deliveries", lambda *_: (world.server.fail("secondary_limit"), log)[1])
            error = refused(lambda: repair_deliveries(settings, sqlite_store, api, world.clock))
    assert error.reason is Reason.QUOTA
    assert world.called("/attempts") == 1
    (row,) = rows(sqlite_store, schema.delivery_repairs)
    assert (row.attempts, row.outcome) == (0, RepairOutcome.REQUESTED)


def test_an_error_of_the_api_knows_what_github_said(world: World) -> None:
    with world.api() as api, pytest.raises(GithubError) as caught:
        ensure_pull_request(api, PORTAL, "no-branch", BRANCH, "Sync", "one")
    assert caught.value.status == 422
    assert "head" in caught.value.said
