"""The layer's health, which the listener vouches for while it lives."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync import runs
from lz_sync_dagster.sync.models import EventType, Status, SyncStatus
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, event_log, layer_runs, listeners
from lz_sync_dagster.sync.store.listeners import ALIVE_FOR, Listener
from tests.conftest import NOW, SteppedClock

SUBSCRIPTION = "projects/ops/subscriptions/s"
LATER = ALIVE_FOR + timedelta(seconds=1)


def beat(store: Store, *, at: datetime = NOW, holder: str = "one", connected: bool = True) -> None:
    with store.write() as connection:
        listeners.beat(connection, Listener(holder, SUBSCRIPTION, connected, NOW, at, at))


def record(store: Store, status: Status = Status.SUCCESS, *, at: datetime = NOW, errors: tuple[str, ...] = ()) -> bool:
    with store.write(exclusive="layer:pubsub") as connection:
        return layer_runs.record_health(
            connection,
            LayerId.PUBSUB,
            status=status,
            now=at,
            items_synced=7,
            items_changed=2,
            as_of=at if status is Status.SUCCESS else None,
            errors=errors,
        )


def health(store: Store, now: datetime = NOW) -> SyncStatus:
    with store.read() as connection:
        return next(s for s in layer_runs.statuses(connection, now=now) if s.layer is LayerId.PUBSUB)


def working(store: Store, now: datetime = NOW) -> Listener | None:
    with store.read() as connection:
        return listeners.working(connection, now=now, subscription=SUBSCRIPTION)


def test_health_is_what_was_recorded(store: Store) -> None:
    assert record(store)
    status = health(store)
    assert (status.status, status.items_synced, status.items_changed) == (Status.SUCCESS, 7, 2)
    assert (status.last_sync, status.as_of) == (NOW, NOW)


def test_a_failure_keeps_what_was_last_true(store: Store) -> None:
    record(store)
    record(store, Status.FAILED, at=NOW + timedelta(minutes=1), errors=("no way",))
    status = health(store, NOW + timedelta(minutes=2))
    assert (status.status, status.errors, status.as_of, status.last_sync) == (Status.FAILED, ["no way"], NOW, NOW)
    assert status.consecutive_failures == 1


def test_only_a_status_that_differs_is_an_event(store: Store) -> None:
    for status in (Status.SUCCESS, Status.SUCCESS, Status.FAILED, Status.FAILED, Status.SUCCESS):
        record(store, status)
    with store.read() as connection:
        told = event_log.after(connection, 0, limit=10)
    assert [frame.data["status"] for frame in told] == ["success", "failed", "success"]
    assert {frame.event_type for frame in told} == {EventType.SYNC_STATUS}


def test_a_sync_that_is_under_way_is_the_one_that_writes(sqlite_store: Store, clock: SteppedClock) -> None:
    def work(run: LayerRun) -> LayerOutcome:
        assert not record(sqlite_store, Status.FAILED)
        return LayerOutcome(3, 1, clock())

    runs.attempt(sqlite_store, LayerId.PUBSUB, work, triggered_by="test", clock=clock, holder=runs.new_holder())
    assert (health(sqlite_store).status, health(sqlite_store).items_synced) == (Status.SUCCESS, 3)
    assert record(sqlite_store)


def test_a_listener_that_died_without_a_word_is_a_failure(store: Store) -> None:
    beat(store)
    record(store)
    assert health(store, NOW + timedelta(seconds=5)).status is Status.SUCCESS
    status = health(store, NOW + LATER)
    assert status.status is Status.FAILED
    assert "lz-sync listen" in status.errors[0]


def test_a_sync_after_the_listener_died_vouches_again(store: Store) -> None:
    beat(store)
    record(store, at=NOW + LATER)
    assert health(store, NOW + LATER).status is Status.SUCCESS


def test_without_a_listener_the_last_sync_counts(store: Store) -> None:
    record(store)
    assert health(store, NOW + LATER).status is Status.SUCCESS


@pytest.mark.parametrize(("connected", "age", "works"), [(True, 0, True), (False, 0, False), (True, 31, False)])
def test_a_listener_works_while_it_is_connected_and_heard_of(
    store: Store, connected: bool, age: int, works: bool
) -> None:
    beat(store, connected=connected)
    assert (working(store, NOW + timedelta(seconds=age)) is not None) is works


def test_a_listener_of_another_subscription_is_no_help(store: Store) -> None:
    beat(store)
    with store.read() as connection:
        assert listeners.working(connection, now=NOW, subscription="projects/ops/subscriptions/other") is None


def test_a_new_listener_takes_the_place_of_the_dead(store: Store) -> None:
    beat(store, holder="one")
    beat(store, holder="two", at=NOW + LATER)
    with store.read() as connection:
        assert listeners.last_sign(connection) == NOW + LATER
    with store.write() as connection:
        listeners.leave(connection, "two")
    with store.read() as connection:
        assert listeners.last_sign(connection) is None
