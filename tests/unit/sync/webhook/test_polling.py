"""Polling the landing zone's head: when it looks, what it makes of what it sees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from lz_sync_dagster.config import RepositoryConfig, Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.runs import LayerOutcome, attempt, new_holder
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.alerts import open_alerts
from lz_sync_dagster.sync.store.inbox import Delivery, DeliveryStatus, NewDelivery
from lz_sync_dagster.sync.store.schema import git_state
from lz_sync_dagster.sync.webhook.polling import TICK, is_due, poll_head, why_not
from tests.conftest import SteppedClock

ZONE = RepositoryConfig(url="https://example.com/zone.git", name="example/lz")
SHORT, LONG = timedelta(seconds=5), timedelta(seconds=60)
A, B, C = ("a" * 40, "b" * 40, "c" * 40)


@pytest.fixture
def poll(sqlite_store: Store, clock: SteppedClock) -> Callable[..., tuple[str, str]]:
    """One look. Returns what was said, and the cursor."""

    def look(head: str | SyncError, cursor: str | None = None, every: timedelta = SHORT) -> tuple[str, str]:
        def remote_head() -> str:
            if isinstance(head, SyncError):
                raise head
            return head

        seen = poll_head(sqlite_store, remote_head, ZONE, cursor=cursor, every=every, now=clock())
        return seen.said, seen.cursor

    return look


Look = Callable[..., tuple[str, str]]


def synced(store: Store, clock: SteppedClock, head: str) -> None:
    """A sync has proven this head."""

    def work(run: object) -> LayerOutcome:
        with store.write() as connection:
            connection.execute(git_state.delete())
            connection.execute(
                git_state.insert().values(
                    name="git",
                    source_commit=head,
                    portal_commit=C,
                    fingerprint="x",
                    tree="t",
                    proven_at=clock(),
                )
            )
        return LayerOutcome(1, 1, clock())

    attempt(store, LayerId.GIT, work, triggered_by="test", clock=clock, holder=new_holder())


def deliver(store: Store, clock: SteppedClock, commit: str, **values: object) -> None:
    new = NewDelivery(f"d-{commit[:4]}", commit, "push", ZONE.name, commit_claim=commit, **values)  # type: ignore[arg-type]
    with store.write() as connection:
        inbox.insert(connection, new, now=clock())


def waiting(store: Store) -> list[Delivery]:
    with store.read() as connection:
        return inbox.pending(connection)


def test_a_head_that_nobody_told_of_asks_for_a_sync(sqlite_store: Store, clock: SteppedClock, poll: Look) -> None:
    synced(sqlite_store, clock, A)
    said, _ = poll(B)
    (found,) = waiting(sqlite_store)
    assert (found.event, found.delivery_id, found.commit_claim) == ("head_poll", f"poll-{B}", B)
    assert f"poll-{B}" in said
    poll(B)
    assert len(waiting(sqlite_store)) == 1


def test_the_synced_head_and_one_that_is_told_of_ask_for_nothing(
    sqlite_store: Store, clock: SteppedClock, poll: Look
) -> None:
    synced(sqlite_store, clock, A)
    poll(A)
    assert waiting(sqlite_store) == []
    deliver(sqlite_store, clock, B)
    poll(B)
    assert [delivery.event for delivery in waiting(sqlite_store)] == ["push"]


def test_a_push_that_touches_nothing_of_interest_is_told_of_until_a_sync_has_begun_after_it(
    sqlite_store: Store, clock: SteppedClock, poll: Look
) -> None:
    synced(sqlite_store, clock, A)
    clock.advance(timedelta(minutes=1))
    deliver(sqlite_store, clock, B, status=DeliveryStatus.IGNORED, reason="touches nothing", touched=("x",))
    poll(B)
    assert waiting(sqlite_store) == []

    clock.advance(timedelta(minutes=1))
    synced(sqlite_store, clock, C)
    poll(B)
    assert [delivery.delivery_id for delivery in waiting(sqlite_store)] == [f"poll-{B}"], "the remote came back to it"


def test_a_delivery_that_was_ignored_for_another_reason_does_not_tell_of_the_head(
    sqlite_store: Store, clock: SteppedClock, poll: Look
) -> None:
    synced(sqlite_store, clock, A)
    clock.advance(timedelta(minutes=1))
    deliver(sqlite_store, clock, B, status=DeliveryStatus.IGNORED, reason="is a push to another branch")
    poll(B)
    assert len(waiting(sqlite_store)) == 1


def test_with_time_to_spare_a_head_is_looked_at_twice_since_its_delivery_may_be_on_its_way(
    sqlite_store: Store, clock: SteppedClock, poll: Look
) -> None:
    synced(sqlite_store, clock, A)
    _, cursor = poll(B, every=LONG)
    assert waiting(sqlite_store) == []
    assert is_due(cursor, LONG, clock()), "the second look follows at once"

    poll(C, cursor, every=LONG)
    assert [delivery.commit_claim for delivery in waiting(sqlite_store)] == [C], "a moving branch puts nothing off"


@pytest.mark.parametrize("seconds", [15, 60, 600])
def test_a_missed_webhook_is_found_within_the_interval(
    seconds: int, sqlite_store: Store, clock: SteppedClock, poll: Look
) -> None:
    every = timedelta(seconds=seconds)
    synced(sqlite_store, clock, A)
    _, cursor = poll(A, every=every)
    pushed = clock.advance(timedelta(milliseconds=1))
    while not waiting(sqlite_store):
        clock.advance(TICK)
        if is_due(cursor, every, clock()):
            _, cursor = poll(B, cursor, every=every)
    assert clock() - pushed <= every


def test_a_remote_that_cannot_be_reached_is_an_alert_until_it_can(
    sqlite_store: Store, clock: SteppedClock, poll: Look
) -> None:
    def alerts() -> list[tuple[str, str]]:
        with sqlite_store.read() as connection:
            return [(row.name, row.message) for row in open_alerts(connection)]

    down = SyncError("cannot be reached", where="landing_zone", remedy="check the network", reason=Reason.UNAVAILABLE)
    synced(sqlite_store, clock, A)
    for _ in range(2):
        said, cursor = poll(down)
        assert said == str(down)
        assert alerts() == [("HeadPolling", str(down))]
    assert not is_due(cursor, LONG, clock()), "it is not asked again at once"
    poll(A, cursor)
    assert alerts() == []


@pytest.mark.parametrize("cursor", [None, "", "garbage", "[]", '{"version": 0, "polled": 9e12}'])
def test_a_cursor_of_another_version_starts_over(cursor: str | None, clock: SteppedClock) -> None:
    assert is_due(cursor, LONG, clock())


@pytest.mark.parametrize(
    "changes",
    [
        {"sync_layers": {"webhook": {"head_poll_seconds": 0}}},
        {"sync_layers": {"webhook": {"enabled": False}}},
        {"sync_layers": {"git_sync": {"enabled": False}}},
        {"landing_zone": {"url": ""}},
    ],
)
def test_polling_says_why_it_does_not(changes: dict[str, object]) -> None:
    base: dict[str, object] = {"landing_zone": {"url": "https://example.com/zone.git"}}
    assert why_not(Settings.model_validate(base)) is None
    assert why_not(Settings.model_validate(base | changes))
