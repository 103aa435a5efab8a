"""Which runs pending deliveries ask for."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store.inbox import Delivery, DeliveryStatus
from lz_sync_dagster.sync.webhook.plan import REQUEST_WAITS, RunPlan
from lz_sync_dagster.sync.webhook.plan import plan_runs as plan_runs_at
from tests.conftest import NOW


def delivery(number: int, actor: str | None = "alice", asked_at: datetime | None = None) -> Delivery:
    asked_at = asked_at or NOW + timedelta(seconds=number)
    return Delivery(number, f"d-{number}", "push", "example/lz", None, actor, DeliveryStatus.PENDING, NOW, asked_at)


def plan_runs(
    pending: list[Delivery], *, running: bool = False, cursor: str | None, now: datetime = NOW
) -> RunPlan | None:
    return plan_runs_at(pending, running=running, cursor=cursor, now=now)


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


def test_a_delivery_whose_run_failed_asks_again_under_another_key_after_growing_waits() -> None:
    plan = plan_runs([delivery(7)], cursor=None)
    assert plan is not None
    now, keys = NOW, [plan.run_key]
    for wait in (*REQUEST_WAITS, REQUEST_WAITS[-1]):
        assert plan_runs([delivery(7)], cursor=plan.cursor, now=now + wait - timedelta(seconds=1)) is None
        now += wait
        plan = plan_runs([delivery(7)], cursor=plan.cursor, now=now)
        assert plan is not None
        keys.append(plan.run_key)

    assert keys == ["d-7", "d-7#1", "d-7#2", "d-7#3", "d-7#4", "d-7#5"]
    assert plan_runs([delivery(7)], cursor=plan.cursor, now=now) is None
    assert plan_runs([delivery(7), delivery(8)], cursor=plan.cursor, now=now) is not None


def test_a_delivery_that_is_sent_again_asks_at_once_under_another_key_and_the_waits_begin_anew() -> None:
    first = plan_runs([delivery(7)], cursor=None)
    assert first is not None
    again = delivery(7, asked_at=NOW + timedelta(hours=1))
    second = plan_runs([again], cursor=first.cursor)
    assert second is not None
    assert second.run_key == "d-7#1"
    assert plan_runs([again], cursor=second.cursor) is None
    assert plan_runs([again], cursor=second.cursor, now=NOW + REQUEST_WAITS[0]) is not None


def test_an_older_delivery_that_stays_after_the_newest_is_settled_asks_under_a_key_of_its_own() -> None:
    first = plan_runs([delivery(1)], cursor=None)
    assert first is not None
    second = plan_runs([delivery(1), delivery(2)], cursor=first.cursor)
    assert second is not None
    third = plan_runs([delivery(1)], cursor=second.cursor)
    assert third is not None
    assert (first.run_key, second.run_key, third.run_key) == ("d-1", "d-2", "d-1#2")


def test_a_cursor_of_another_version_starts_anew() -> None:
    for cursor in ("", "garbage", "[]", '{"version": 99, "delivery": "d-1", "requests": 3}'):
        plan = plan_runs([delivery(1)], running=False, cursor=cursor)
        assert plan is not None
        assert plan.run_key == "d-1"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 40)), max_size=30))
def test_every_run_key_is_requested_once(steps: list[tuple[int, int, int]]) -> None:
    """Deliveries arrive, runs settle some of them, time passes: no key comes twice, and none is asked for while one
    runs."""
    pending: list[Delivery] = []
    now, cursor, number, keys = NOW, None, 0, []
    for arrivals, settles, minutes in steps:
        now += timedelta(minutes=minutes)
        for _ in range(arrivals):
            number += 1
            pending.append(delivery(number))
        plan = plan_runs(pending, cursor=cursor, now=now)
        if plan is None:
            continue
        cursor = plan.cursor
        keys.append(plan.run_key)
        assert plan_runs(pending, running=True, cursor=cursor) is None
        pending = pending[: len(pending) - settles] if settles < 3 else []

    assert len(keys) == len(set(keys))


def test_a_tag_stays_short_for_a_flood() -> None:
    plan = plan_runs([delivery(number) for number in range(500)], running=False, cursor=None)

    assert plan is not None
    assert "480 more" in plan.tags["lz_sync/deliveries"]


def test_a_run_says_which_layer_it_is_of_and_who_asked() -> None:
    sha = "a" * 40
    found = Delivery(1, f"poll-{sha}", "head_poll", "example/lz", sha, None, DeliveryStatus.PENDING, NOW, NOW)
    plan = plan_runs_at([found], running=False, cursor=None, now=NOW)
    assert plan is not None
    assert (plan.tags["lz_sync/layer"], plan.tags["lz_sync/triggered_by"]) == ("git", f"poll:{sha}")

    key, pending = f"inventory-{sha}", DeliveryStatus.PENDING
    change = Delivery(2, key, "terraform_change", "", sha, "ada", pending, NOW, NOW, layer=LayerId.API)
    plan = plan_runs_at([change], running=False, cursor=None, now=NOW, layer=LayerId.API)
    assert plan is not None
    assert (plan.tags["lz_sync/layer"], plan.tags["lz_sync/triggered_by"]) == ("api", f"git:{sha}")
