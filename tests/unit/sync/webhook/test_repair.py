"""Which failed deliveries GitHub is asked for again, and when that ends."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.config import Settings, SyncLayers, WebhookConfig
from lz_sync_dagster.sync.github.deliveries import REDELIVERY_WINDOW, Attempt, HookDelivery
from lz_sync_dagster.sync.store import Store, delivery_repairs
from lz_sync_dagster.sync.store.delivery_repairs import Repair, RepairOutcome
from lz_sync_dagster.sync.webhook.repair import LAST_WAIT, REPAIR_WAITS, RepairPlan, plan_repairs, why_not
from tests.conftest import NOW

CONFIG = WebhookConfig()
SECOND = timedelta(seconds=1)


def attempt(
    number: int = 1,
    *,
    code: int | None = 502,
    at: datetime = NOW,
    guid: str = "d-1",
    event: str = "push",
    action: str | None = None,
) -> Attempt:
    status = {None: "pending", 202: "OK"}.get(code, "failed to connect to host")
    return Attempt(number, guid, event, action, at, status, code)


def delivery(*attempts: Attempt) -> HookDelivery:
    return HookDelivery(attempts or (attempt(),))


def repair(attempts: int = 1, *, at: datetime = NOW, outcome: RepairOutcome = RepairOutcome.REQUESTED) -> Repair:
    return Repair("d-1", "push", NOW, "failed (502)", attempts, at, outcome)


def plan(
    one: HookDelivery | None, known: Repair | None = None, *, now: datetime = NOW, arrived: bool = False
) -> RepairPlan:
    return plan_repairs(
        [one] if one else [],
        {known.delivery_id: known} if known else {},
        now,
        config=CONFIG,
        arrived={"d-1"} if arrived else set(),
    )


def test_a_failed_delivery_is_asked_for_at_once() -> None:
    ((asked, row),) = plan(delivery()).redeliver
    assert asked.newest.id == 1
    assert (row.attempts, row.requested_at, row.outcome) == (1, NOW, RepairOutcome.REQUESTED)
    assert row.failure == "failed to connect to host (502)"


@pytest.mark.parametrize("code", [200, 202, 204])
def test_one_success_is_enough_whatever_came_later(code: int) -> None:
    assert plan(delivery(attempt(2), attempt(1, code=code))) == RepairPlan((), ())


@pytest.mark.parametrize("code", [0, 301, 401, 404, 500, 502, 504])
def test_everything_but_a_success_is_a_failure(code: int) -> None:
    assert plan(delivery(attempt(code=code))).redeliver


def test_a_delivery_under_way_is_let_alone() -> None:
    assert plan(delivery(attempt(2, code=None), attempt(1))) == RepairPlan((), ())


def test_a_delivery_that_the_inbox_has_is_never_asked_for() -> None:
    assert plan(delivery(), arrived=True) == RepairPlan((), ())
    (settled,) = plan(delivery(), repair(), arrived=True).settled
    assert settled.outcome is RepairOutcome.DELIVERED


def test_what_the_receiver_has_no_use_for_is_not_asked_for() -> None:
    wanted = [
        attempt(event="push"),
        attempt(event="repository_dispatch", action="lz-update"),
        attempt(event="pull_request", action="closed"),
    ]
    unwanted = [
        attempt(event="issues", action="opened"),
        attempt(event="ping"),
        attempt(event="repository_dispatch", action="other"),
        attempt(event="pull_request", action="opened"),
    ]
    assert all(plan(delivery(one)).redeliver for one in wanted)
    assert not any(plan(delivery(one)).redeliver for one in unwanted)


def test_the_waits_grow_and_end() -> None:
    now, known, numbers = NOW, None, [attempt()]
    for number, wait in enumerate(REPAIR_WAITS):
        if wait:
            assert plan(delivery(*numbers), known, now=now + wait - SECOND) == RepairPlan((), ())
        now += wait
        ((_, known),) = plan(delivery(*numbers), known, now=now).redeliver
        assert known.attempts == number + 1
        numbers.insert(0, attempt(number + 2, at=now))
    assert plan(delivery(*numbers), known, now=now + LAST_WAIT - SECOND) == RepairPlan((), ())
    (given_up,) = plan(delivery(*numbers), known, now=now + LAST_WAIT).settled
    assert (given_up.outcome, given_up.settled_at) == (RepairOutcome.GIVEN_UP, now + LAST_WAIT)
    assert plan(delivery(*numbers), given_up, now=now + timedelta(days=1)) == RepairPlan((), ())


def test_what_was_given_up_and_comes_all_the_same_is_delivered() -> None:
    known = repair(outcome=RepairOutcome.GIVEN_UP)
    (settled,) = plan(delivery(attempt(9, code=202), attempt()), known).settled
    assert settled.outcome is RepairOutcome.DELIVERED


def test_beyond_githubs_window_a_delivery_is_given_up() -> None:
    assert plan(delivery(), now=NOW + REDELIVERY_WINDOW).redeliver == ()
    for listed in (delivery(), None):
        (settled,) = plan(listed, repair(), now=NOW + REDELIVERY_WINDOW).settled
        assert settled.outcome is RepairOutcome.GIVEN_UP
    assert plan(None, repair(), now=NOW + REDELIVERY_WINDOW - SECOND) == RepairPlan((), ())


def test_what_is_settled_stays_settled() -> None:
    known = repair(outcome=RepairOutcome.DELIVERED)
    assert plan(delivery(), known, now=NOW + timedelta(hours=1)) == RepairPlan((), ())


@given(
    ticks=st.lists(st.integers(min_value=1, max_value=36_000), max_size=60),
    codes=st.lists(st.sampled_from([500, 502, 504]), min_size=60, max_size=60),
)
def test_however_often_one_looks_the_requests_are_bounded_and_far_apart(ticks: list[int], codes: list[int]) -> None:
    now, known, attempts, asked = NOW, None, [attempt()], []
    for seconds, code in zip(ticks, codes, strict=False):
        now += timedelta(seconds=seconds)
        made = plan(delivery(*attempts), known, now=now)
        for _, row in made.redeliver:
            known = row
            asked.append(now)
            attempts.insert(0, attempt(len(attempts) + 1, code=code, at=now))
        for row in made.settled:
            known = row
    assert len(asked) <= len(REPAIR_WAITS)
    waits = [later - before for before, later in itertools.pairwise(asked)]
    assert all(wait >= least for wait, least in zip(waits, REPAIR_WAITS[1:], strict=False))


def test_the_account_has_one_row_per_delivery(store: Store) -> None:
    with store.write() as connection:
        delivery_repairs.put(connection, [repair()])
        delivery_repairs.put(connection, [repair(2, at=NOW + SECOND)])
        old = Repair("d-0", "push", NOW - timedelta(days=9), "x", 6, NOW, RepairOutcome.GIVEN_UP, NOW)
        delivery_repairs.put(connection, [old])
    with store.read() as connection:
        assert delivery_repairs.since(connection, NOW - timedelta(days=3)) == {"d-1": repair(2, at=NOW + SECOND)}
        assert delivery_repairs.arrived(connection, ["d-1", "d-2"]) == frozenset()


def test_what_is_missing_for_a_repair_is_named() -> None:
    def settings(**webhook: object) -> Settings:
        return Settings(sync_layers=SyncLayers(webhook=WebhookConfig.model_validate(webhook)))

    assert "switched off" in str(why_not(settings(enabled=False, hook=1)))
    assert "sync_layers.webhook.hook" in str(why_not(settings()))
    assert "credential" in str(why_not(settings(hook="app")))
