"""Which runs pending deliveries ask for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.store.inbox import Delivery, DeliveryStatus
from lz_sync_dagster.sync.webhook.plan import MAX_REQUESTS, plan_runs
from tests.conftest import NOW


def delivery(number: int, actor: str | None = "alice") -> Delivery:
    return Delivery(number, f"d-{number}", "push", "example/lz", None, actor, DeliveryStatus.PENDING, NOW)


def test_nothing_pending_asks_for_nothing() -> None:
    assert plan_runs([], running=False, cursor=None) is None


def test_many_deliveries_ask_for_one_run_named_by_the_newest() -> None:
    plan = plan_runs([delivery(1), delivery(2), delivery(3)], running=False, cursor=None)

    assert plan is not None
    assert plan.run_key == "d-3"
    assert plan.tags["lz_sync/deliveries"] == "d-1,d-2,d-3"
    assert plan.tags["lz_sync/actor"] == "alice"


def test_deliveries_that_come_during_a_run_wait_for_it_and_then_ask_for_exactly_one_more() -> None:
    first = plan_runs([delivery(1)], running=False, cursor=None)
    assert first is not None
    assert plan_runs([delivery(1), delivery(2), delivery(3)], running=True, cursor=first.cursor) is None

    second = plan_runs([delivery(2), delivery(3)], running=False, cursor=first.cursor)
    assert second is not None
    assert second.run_key == "d-3"


def test_a_delivery_whose_run_failed_asks_again_under_another_key_a_bounded_number_of_times() -> None:
    keys, cursor = [], None
    for _ in range(MAX_REQUESTS + 3):
        plan = plan_runs([delivery(7)], running=False, cursor=cursor)
        if plan is not None:
            keys.append(plan.run_key)
            cursor = plan.cursor

    assert keys == ["d-7", "d-7#1", "d-7#2"]
    assert plan_runs([delivery(7), delivery(8)], running=False, cursor=cursor) is not None


def test_a_cursor_of_another_version_starts_anew() -> None:
    for cursor in ("", "garbage", "[]", '{"version": 99, "delivery": "d-1", "requests": 3}'):
        plan = plan_runs([delivery(1)], running=False, cursor=cursor)
        assert plan is not None
        assert plan.run_key == "d-1"


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_every_run_key_is_requested_once(steps: list[tuple[int, bool]]) -> None:
    """Deliveries arrive, runs succeed or fail: no key comes twice, and none is asked for while one runs."""
    pending: list[Delivery] = []
    cursor, number, keys = None, 0, []
    for arrivals, succeeds in steps:
        for _ in range(arrivals):
            number += 1
            pending.append(delivery(number))
        plan = plan_runs(pending, running=False, cursor=cursor)
        if plan is None:
            continue
        cursor = plan.cursor
        keys.append(plan.run_key)
        assert plan_runs(pending, running=True, cursor=cursor) is None
        if succeeds:
            pending = []

    assert len(keys) == len(set(keys))


def test_a_tag_stays_short_for_a_flood() -> None:
    plan = plan_runs([delivery(number) for number in range(500)], running=False, cursor=None)

    assert plan is not None
    assert "480 more" in plan.tags["lz_sync/deliveries"]
