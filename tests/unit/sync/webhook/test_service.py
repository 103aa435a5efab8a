"""The webhook layer accounts for deliveries."""

from __future__ import annotations

from datetime import timedelta

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, attempt, new_holder
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.inbox import DeliveryStatus, NewDelivery
from lz_sync_dagster.sync.webhook.service import sync_webhook
from tests.conftest import SteppedClock


def put(store: Store, clock: SteppedClock, name: str, status: DeliveryStatus = DeliveryStatus.PENDING) -> None:
    with store.write() as connection:
        inbox.insert(connection, NewDelivery(name, name, "push", "example/lz", status=status), now=clock())


def settle(store: Store, clock: SteppedClock) -> None:
    with store.write() as connection:
        waiting = inbox.pending(connection)
        assert inbox.finish(connection, waiting, run_id="1", now=clock()) == len(waiting)


def account(store: Store, clock: SteppedClock) -> LayerOutcome:
    return attempt(
        store,
        LayerId.WEBHOOK,
        lambda run: sync_webhook(Settings(), store, run, clock=clock, progress=silent),
        triggered_by="test",
        clock=clock,
        holder=new_holder(),
    )


def test_it_counts_what_is_settled_and_what_is_new_since_the_last_time(store: Store, clock: SteppedClock) -> None:
    put(store, clock, "a")
    put(store, clock, "b", DeliveryStatus.IGNORED)
    first = account(store, clock)
    assert (first.items_synced, first.items_changed, first.as_of) == (1, 1, clock())

    clock.advance(timedelta(seconds=10))
    settle(store, clock)
    second = account(store, clock)
    assert (second.items_synced, second.items_changed, second.status) == (2, 1, Status.SUCCESS)
    assert second.details["deliveries"] == {
        "received": 2,
        "pending": 0,
        "done": 1,
        "ignored": 1,
        "newly_settled": 1,
    }

    clock.advance(timedelta(seconds=10))
    assert account(store, clock).items_changed == 0


def test_a_delivery_that_waits_too_long_makes_it_partial(store: Store, clock: SteppedClock) -> None:
    put(store, clock, "a")
    clock.advance(timedelta(seconds=300))
    assert account(store, clock).status is Status.SUCCESS

    clock.advance(timedelta(seconds=1))
    late = account(store, clock)
    assert late.status is Status.PARTIAL
    assert "wait for a git sync" in late.errors[0]
    assert "lz-sync sync git" in late.errors[0]


def test_an_empty_inbox_is_a_success(store: Store, clock: SteppedClock) -> None:
    outcome = account(store, clock)
    assert (outcome.items_synced, outcome.status) == (0, Status.SUCCESS)
