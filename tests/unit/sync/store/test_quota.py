"""The quota budget: never more calls than the limit in any minute, whoever makes them."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store import Store, open_store, quota
from lz_sync_dagster.sync.store.quota import Allowance, Cancelled, Lease, Limit, Quota, Wait
from tests.conftest import NOW, SteppedClock

LIST, SEARCH = Quota.LIST_ASSETS, Quota.SEARCH_ALL_RESOURCES
SECOND = timedelta(seconds=1)


class Waits:
    """Waiting that moves the clock instead. ``stop_after``: how many waits until somebody asks to stop."""

    def __init__(self, clock: SteppedClock, stop_after: int | None = None) -> None:
        self.clock = clock
        self.seconds: list[float] = []
        self._stop_after = stop_after

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))
        return self._stop_after is not None and len(self.seconds) > self._stop_after


def allowance(store: Store, clock: SteppedClock, per_minute: int, **more: float) -> tuple[Allowance, Waits]:
    waits = Waits(clock)
    return Allowance(store, {LIST: per_minute, SEARCH: per_minute}, clock=clock, wait=waits, **more), waits


def used(store: Store, clock: SteppedClock, per_minute: int = 100) -> quota.QuotaUsage:
    with store.read() as connection:
        return quota.usage(connection, {LIST: per_minute}, now=clock())[LIST]


def busiest_minute(times: list[datetime]) -> int:
    """The greatest number of calls in any 60 seconds."""
    times = sorted(times)
    first = most = 0
    for last, at in enumerate(times):
        while at - times[first] >= 60 * SECOND:
            first += 1
        most = max(most, last - first + 1)
    return most


# --- the limit


def test_calls_are_taken_until_the_limit_and_then_wait(store: Store, clock: SteppedClock) -> None:
    budget, waits = allowance(store, clock, 7)
    for _ in range(7):
        budget.call(LIST)
    assert waits.seconds == []
    assert (used(store, clock, 7).used, used(store, clock, 7).left) == (7, 0)
    budget.call(LIST)
    assert 60 <= sum(waits.seconds) <= 75
    assert budget.made == {LIST: 8, SEARCH: 0}


def test_quotas_are_apart(store: Store, clock: SteppedClock) -> None:
    budget, waits = allowance(store, clock, 1)
    budget.call(LIST)
    budget.call(SEARCH)
    assert waits.seconds == []


def test_a_lease_pays_one_transaction_for_many_calls_and_what_is_unused_goes_back(
    store: Store, clock: SteppedClock
) -> None:
    with allowance(store, clock, 1000)[0] as budget:
        budget.call(LIST)
        assert used(store, clock, 1000).used == 100, "a tenth of the limit is leased"
        budget.call(LIST)
    assert used(store, clock, 1000).used == 2


def test_a_lease_that_was_not_used_in_time_is_void(store: Store, clock: SteppedClock) -> None:
    budget, _ = allowance(store, clock, 50)
    budget.call(LIST)
    clock.advance(quota.LEASE_SECONDS * SECOND)
    budget.call(LIST)
    assert used(store, clock, 50).used == 1 + 5, "of the first lease one call was made; the second is open"


def test_another_process_takes_what_is_left(store: Store, clock: SteppedClock) -> None:
    first = quota.take(store, LIST, 8, configured=10, now=clock())
    second = quota.take(store, LIST, 8, configured=10, now=clock())
    third = quota.take(store, LIST, 8, configured=10, now=clock())
    assert isinstance(first, Lease)
    assert isinstance(second, Lease)
    assert (first.calls, second.calls) == (8, 2)
    assert isinstance(third, Wait)
    assert not third.blocked


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),
        st.floats(0, 20, allow_nan=False),
        st.integers(1, 30),
        st.none() | st.floats(0, 90, allow_nan=False),
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.soak
@given(per_minute=st.integers(1, 120), steps=STEPS)
def test_no_sliding_minute_holds_more_calls_than_the_limit(
    per_minute: int, steps: list[tuple[int, float, int, float | None]]
) -> None:
    slices: dict[int, int] = {}
    limit: Limit | None = None
    leases: dict[int, Lease] = {}
    now, made = NOW, []
    for process, pause, wanted, throttled in steps:
        now += timedelta(seconds=pause)
        if throttled is not None:
            limit = quota.throttle(limit, per_minute, throttled, now)
        for _ in range(wanted):
            lease = leases.get(process)
            if lease is not None and (not lease.calls or now >= lease.expires_at):
                slices[lease.slice] -= lease.calls
                lease = None
            while lease is None:
                answer = quota.decide(
                    list(slices.items()),
                    quota.limit_now(limit, per_minute, now),
                    limit.blocked_until if limit else None,
                    wanted=quota.lease_size(per_minute),
                    now=now,
                )
                if isinstance(answer, Wait):
                    now += timedelta(seconds=answer.seconds)
                    continue
                begin = int(now.timestamp()) // 5 * 5
                slices[begin] = slices.get(begin, 0) + answer
                lease = Lease(LIST, begin, answer, now + 5 * SECOND)
            leases[process] = Lease(LIST, lease.slice, lease.calls - 1, lease.expires_at)
            made.append(now)
    assert busiest_minute(made) <= per_minute
    assert all(calls >= 0 for calls in slices.values())


def test_threads_that_share_an_allowance_and_others_stay_within_the_limit(store: Store) -> None:
    lock, now, made = threading.Lock(), [NOW], []
    looked = threading.local()

    def clock() -> datetime:
        with lock:
            looked.at = now[0]
            return now[0]

    def wait(seconds: float) -> bool:
        with lock:  # waits of several threads overlap, as they do in life
            now[0] += min(timedelta(seconds=seconds), SECOND)
        return False

    budgets = [Allowance(store, {LIST: 40}, clock=clock, wait=wait, patience=1e9) for _ in range(3)]

    def work(which: int) -> None:
        for _ in range(20):
            budgets[which % 3].call(LIST)
            with lock:
                made.append(looked.at)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    for budget in budgets:
        budget.release()
    assert len(made) == 120
    assert busiest_minute(made) <= 40
    with store.read() as connection:
        assert quota.usage(connection, {LIST: 40}, now=now[0])[LIST].calls_per_day == 120


def test_processes_that_ask_at_once_get_as_many_calls_as_there_are(store: Store, clock: SteppedClock) -> None:
    url = store.engine.url.render_as_string(hide_password=False)

    def work(_: int) -> int:
        with open_store(url, migrate=False) as own:
            budget = allowance(own, clock, 90, patience=0)[0]
            with contextlib.suppress(SyncError):
                while True:
                    budget.call(LIST)
            return budget.made[LIST]

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 90


# --- what the other side says


def test_a_refused_call_halves_the_limit_and_makes_everybody_wait_as_long_as_asked(
    store: Store, clock: SteppedClock
) -> None:
    budget, waits = allowance(store, clock, 100)
    budget.call(LIST)
    budget.throttled(LIST, 30)
    shown = used(store, clock)
    assert (shown.limit, shown.left, shown.blocked_until) == (50, 0, NOW + 30 * SECOND)
    assert shown.used == 1, "the rest of the lease went back"
    allowance(store, clock, 100)[0].call(SEARCH)
    other, waits = allowance(store, clock, 100)
    other.call(LIST)
    assert waits.seconds == [30]


def test_refusals_of_one_burst_halve_the_limit_once(store: Store, clock: SteppedClock) -> None:
    for seconds in (1, 2, 3):
        quota.throttled(store, LIST, 10, configured=100, now=clock.advance(seconds * SECOND))
    assert used(store, clock).limit == 50
    assert used(store, clock).blocked_until == clock() + 10 * SECOND
    quota.throttled(store, LIST, None, configured=100, now=clock.advance(30 * SECOND))
    assert used(store, clock).limit == 25


def test_without_a_word_the_wait_doubles_with_each_refusal() -> None:
    limit, now, waited = None, NOW, []
    for _ in range(6):
        limit = quota.throttle(limit, 1000, None, now)
        assert limit.blocked_until is not None
        waited.append((limit.blocked_until - now).total_seconds())
        now = limit.blocked_until + 10 * SECOND
    assert waited == pytest.approx([5, 10, 20, 40, 60, 60], abs=2)


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    limit = quota.throttle(None, 100, 50, NOW)
    assert quota.throttle(limit, 100, 1, NOW + SECOND).blocked_until == NOW + 50 * SECOND


def test_a_quota_recovers_by_a_tenth_per_quiet_minute_up_to_what_is_configured() -> None:
    limit = Limit(25, NOW, blocked_until=NOW + 60 * SECOND)
    minutes = [quota.limit_now(limit, 100, NOW + timedelta(minutes=m)) for m in (0, 1, 2, 3, 8, 9, 600)]
    assert minutes == [25, 25, 35, 45, 95, 100, 100]
    assert quota.limit_now(limit, 10, NOW) == 10, "the configuration was lowered meanwhile"
    assert quota.limit_now(Limit(0.3, NOW), 4, NOW) == 1
    assert quota.limit_now(None, 77, NOW) == 77


@given(configured=st.integers(1, 1000), waits=st.lists(st.none() | st.floats(0, 1e9, allow_nan=False), max_size=12))
def test_a_limit_is_between_one_and_what_is_configured_and_no_block_lasts_for_ever(
    configured: int, waits: list[float | None]
) -> None:
    limit, now = None, NOW
    for wait in waits:
        limit = quota.throttle(limit, configured, wait, now)
        assert 1 <= quota.limit_now(limit, configured, now) <= configured
        assert limit.blocked_until is not None
        assert limit.blocked_until - now <= timedelta(hours=1)
        now += 15 * SECOND


# --- patience


def test_a_wait_that_is_longer_than_patience_is_an_error_that_says_how_long(store: Store, clock: SteppedClock) -> None:
    budget, waits = allowance(store, clock, 100, patience=20)
    budget.throttled(LIST, 300)
    with pytest.raises(SyncError, match="Google asked to wait") as caught:
        budget.call(LIST)
    assert (caught.value.reason, caught.value.retry_after) == (Reason.QUOTA, 300)
    assert "quotas.list_assets" in caught.value.remedy
    assert waits.seconds == []


def test_whoever_waits_stops_when_asked_to(store: Store, clock: SteppedClock) -> None:
    waits = Waits(clock, stop_after=0)
    budget = Allowance(store, {LIST: 1}, clock=clock, wait=waits)
    budget.call(LIST)
    with pytest.raises(Cancelled):
        budget.call(LIST)
    assert len(waits.seconds) == 1


def test_whoever_does_not_want_to_wait_is_told_that_there_is_none(store: Store, clock: SteppedClock) -> None:
    budget, waits = allowance(store, clock, 2)
    permit = budget.permit(LIST)
    assert [permit(False), permit(False), permit(False)] == [True, True, False]
    assert waits.seconds == []
    assert permit(True)
    assert waits.seconds
    assert budget.made[LIST] == 3


# --- what is shown


def test_calls_of_the_day_are_counted_and_old_slices_go(store: Store, clock: SteppedClock) -> None:
    for _ in range(3):
        allowance(store, clock, 100)[0].call(LIST)
        clock.advance(timedelta(hours=9))
    shown = used(store, clock)
    assert (shown.used, shown.left, shown.limit, shown.configured) == (0, 100, 100, 100)
    assert shown.calls_per_day == 20, "two leases of ten lie within 24 hours"
    with store.write() as connection:
        assert quota.prune(connection, now=clock()) == 1
        assert quota.prune(connection, now=clock()) == 0
