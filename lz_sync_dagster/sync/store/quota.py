"""The quota budget: calls of Cloud Asset Inventory that all processes together may make, kept in the store.

A call is counted before it is made. Calls are taken as a `Lease`, several at once, so that a fast read does not pay a
transaction per call; what is not used is given back. Whatever the processes do, no sliding minute holds more calls
than the limit. After a 429 the limit is halved and nobody calls until the other side's wait is over; each quiet
minute gives a step back, up to what is configured.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store.engine import Store
from lz_sync_dagster.sync.store.schema import quota_limits, quota_usage
from lz_sync_dagster.sync.timing import Clock


class Quota(StrEnum):
    """What Google counts apart, per consumer project and minute."""

    LIST_ASSETS = "list_assets"
    SEARCH_ALL_RESOURCES = "search_all_resources"
    BATCH_GET_ASSETS_HISTORY = "batch_get_assets_history"
    EXPORT_ASSETS = "export_assets"


#: Calls are counted in slices of so many seconds.
SLICE_SECONDS = 5
#: A lease must be used within this, so that its calls are made close to where they are counted.
LEASE_SECONDS = 5
_WINDOW_SECONDS = 60
#: A call that was made in the last minute is counted in a slice that began less than this ago.
_COUNTED_SECONDS = _WINDOW_SECONDS + SLICE_SECONDS + LEASE_SECONDS
#: Slices are kept for the figure of the day.
_KEPT = timedelta(days=1, hours=1)
#: What a quiet minute gives back of the configured limit.
_RECOVERY_SHARE = 0.1
#: Calls that were under way together are told the same thing: within this, one 429 halves the limit.
_ONE_THROTTLING = timedelta(seconds=10)
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 60.0
_LONGEST_BLOCK = timedelta(hours=1)
#: A lease takes this share of the limit at most, and never more than `_LARGEST_LEASE` calls.
_LEASE_SHARE = 0.1
_LARGEST_LEASE = 100


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """A quota at an instant.

    Attributes:
        configured: calls per minute that the configuration allows.
        limit: calls per minute that are allowed now; less than configured after a 429.
        used: calls that count against the limit now: those of the last minute, and leased ones.
        left: calls that could be made now.
        blocked_until: nobody calls before; ``None`` if nobody is asked to wait.
        calls_per_day: calls of the last 24 hours.
    """

    quota: Quota
    configured: int
    limit: int
    used: int
    left: int
    blocked_until: datetime | None
    calls_per_day: int


@dataclass(frozen=True, slots=True)
class Limit:
    """What ``quota_limits`` has of a quota: ``per_minute`` as it was at ``adapted_at``."""

    per_minute: float
    adapted_at: datetime
    blocked_until: datetime | None = None
    throttled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Calls that were taken from a quota at once. They are counted in ``slice`` and void at ``expires_at``."""

    quota: Quota
    slice: int
    calls: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Wait:
    """No call is to be had for so many seconds. ``blocked``: since the other side asked for it."""

    seconds: float
    blocked: bool


class Cancelled(Exception):
    """Somebody asked to stop while a call waited for its quota."""


# --- the rules, pure --------------------------------------------------------------------------------------------------


def limit_now(limit: Limit | None, configured: int, now: datetime) -> int:
    """Calls per minute that are allowed at ``now``: at least 1. A throttled quota recovers by a tenth of what is
    configured per quiet minute."""
    if limit is None:
        return configured
    quiet_since = max(limit.adapted_at, limit.blocked_until or limit.adapted_at)
    minutes = max(0, math.floor((now - quiet_since).total_seconds() / 60))
    recovered = limit.per_minute + minutes * max(1.0, configured * _RECOVERY_SHARE)
    return max(1, min(configured, math.floor(recovered)))


def throttle(limit: Limit | None, configured: int, retry_after: float | None, now: datetime) -> Limit:
    """What a 429 makes of a limit: half of it, once per burst of calls, and a wait: the one that was asked for, else
    one that doubles with each halving."""
    allowed = limit_now(limit, configured, now)
    throttled_at = limit.throttled_at if limit is not None else None
    if limit is not None and throttled_at is not None and now - throttled_at < _ONE_THROTTLING:
        per_minute, adapted_at = limit.per_minute, limit.adapted_at
    else:
        per_minute, adapted_at, throttled_at = max(1.0, allowed / 2), now, now
    if retry_after is None:
        halvings = max(1.0, math.log2(max(1.0, configured / per_minute)))
        retry_after = min(_FIRST_BACKOFF * 2 ** (halvings - 1), _LONGEST_BACKOFF)
    until = now + min(timedelta(seconds=max(0.0, retry_after)), _LONGEST_BLOCK)
    if limit is not None and limit.blocked_until is not None:
        until = max(until, limit.blocked_until)
    return Limit(per_minute, adapted_at, until, throttled_at)


def decide(
    slices: Sequence[tuple[int, int]], limit: int, blocked_until: datetime | None, *, wanted: int, now: datetime
) -> int | Wait:
    """How many of the ``wanted`` calls may be taken now (1 or more), or how long to wait until there is one.

    Args:
        slices: (slice, calls) of the quota; those that no longer count are ignored.
    """
    if blocked_until is not None and blocked_until > now:
        return Wait((blocked_until - now).total_seconds(), blocked=True)
    second = now.timestamp()
    counted = sorted((begin, calls) for begin, calls in slices if begin > second - _COUNTED_SECONDS and calls > 0)
    used = sum(calls for _, calls in counted)
    if used < limit:
        return min(wanted, limit - used)
    for begin, calls in counted:
        used -= calls
        if used < limit:
            return Wait(max(begin + _COUNTED_SECONDS - second, 0.001), blocked=False)
    raise AssertionError("a limit is at least 1")


def lease_size(limit: int) -> int:
    """How many calls a process takes at once, so that others have their turn."""
    return max(1, min(_LARGEST_LEASE, int(limit * _LEASE_SHARE)))


# --- the same facts in the store --------------------------------------------------------------------------------------


def take(store: Store, quota: Quota, wanted: int, *, configured: int, now: datetime) -> Lease | Wait:
    """Take up to ``wanted`` calls of a quota, alone among all processes."""
    with store.write(exclusive=_lock(quota)) as connection:
        limit = _limit(connection, quota)
        slices = _slices(connection, quota, now)
        granted = decide(
            slices,
            limit_now(limit, configured, now),
            limit.blocked_until if limit else None,
            wanted=wanted,
            now=now,
        )
        if isinstance(granted, Wait):
            return granted
        slice_ = _slice(now)
        _count(connection, quota, slice_, granted)
    return Lease(quota, slice_, granted, now + timedelta(seconds=LEASE_SECONDS))


def give_back(store: Store, lease: Lease, unused: int) -> None:
    """Return calls of a lease that were not made."""
    if unused:
        with store.write(exclusive=_lock(lease.quota)) as connection:
            _count(connection, lease.quota, lease.slice, -unused)


def throttled(store: Store, quota: Quota, retry_after: float | None, *, configured: int, now: datetime) -> Limit:
    """Write down that the other side refused a call (429)."""
    with store.write(exclusive=_lock(quota)) as connection:
        before = _limit(connection, quota)
        after = throttle(before, configured, retry_after, now)
        values = {
            "per_minute": after.per_minute,
            "blocked_until": after.blocked_until,
            "throttled_at": after.throttled_at,
            "adapted_at": after.adapted_at,
        }
        if before is None:
            connection.execute(quota_limits.insert().values(quota=quota.value, **values))
        else:
            connection.execute(quota_limits.update().where(quota_limits.c.quota == quota.value).values(**values))
    return after


def usage(connection: sa.Connection, configured: Mapping[Quota, int], *, now: datetime) -> dict[Quota, QuotaUsage]:
    """Every quota of ``configured`` (calls per minute) as it is now."""
    second = now.timestamp()
    counted = sa.case((quota_usage.c.slice > second - _COUNTED_SECONDS, quota_usage.c.calls), else_=0)
    query = (
        sa.select(
            quota_usage.c.quota, sa.func.sum(counted).label("used"), sa.func.sum(quota_usage.c.calls).label("day")
        )
        .where(quota_usage.c.slice > second - 86_400)
        .group_by(quota_usage.c.quota)
    )
    calls = {row.quota: (int(row.used), int(row.day)) for row in connection.execute(query)}
    found = {}
    for quota, per_minute in configured.items():
        limit = _limit(connection, quota)
        allowed = limit_now(limit, per_minute, now)
        blocked = limit.blocked_until if limit and limit.blocked_until and limit.blocked_until > now else None
        used, day = calls.get(quota.value, (0, 0))
        left = 0 if blocked else max(0, allowed - used)
        found[quota] = QuotaUsage(quota, per_minute, allowed, used, left, blocked, day)
    return found


def prune(connection: sa.Connection, *, now: datetime) -> int:
    """Drop slices that no figure needs any more. Returns how many."""
    oldest = (now - _KEPT).timestamp()
    return connection.execute(quota_usage.delete().where(quota_usage.c.slice < oldest)).rowcount


def _lock(quota: Quota) -> str:
    return f"quota:{quota}"


def _slice(now: datetime) -> int:
    return int(now.timestamp()) // SLICE_SECONDS * SLICE_SECONDS


def _limit(connection: sa.Connection, quota: Quota) -> Limit | None:
    row = connection.execute(sa.select(quota_limits).where(quota_limits.c.quota == quota.value)).one_or_none()
    return None if row is None else Limit(row.per_minute, row.adapted_at, row.blocked_until, row.throttled_at)


def _slices(connection: sa.Connection, quota: Quota, now: datetime) -> list[tuple[int, int]]:
    rows = connection.execute(
        sa.select(quota_usage.c.slice, quota_usage.c.calls).where(
            quota_usage.c.quota == quota.value, quota_usage.c.slice > now.timestamp() - _COUNTED_SECONDS
        )
    )
    return [(row.slice, row.calls) for row in rows]


def _count(connection: sa.Connection, quota: Quota, slice_: int, calls: int) -> None:
    """Add calls to a slice, or take some off; the caller holds the quota's lock."""
    same = sa.and_(quota_usage.c.quota == quota.value, quota_usage.c.slice == slice_)
    changed = connection.execute(quota_usage.update().where(same).values(calls=quota_usage.c.calls + calls))
    if not changed.rowcount and calls > 0:
        connection.execute(quota_usage.insert().values(quota=quota.value, slice=slice_, calls=calls))


# --- for a process that makes calls -----------------------------------------------------------------------------------


class Calls(Protocol):
    """What a reader asks before each request, and tells after one that was refused for its quota."""

    def call(self, quota: Quota) -> None:
        """Take one call of a quota; returns when it may be made."""

    def throttled(self, quota: Quota, retry_after: float | None) -> None:
        """The other side refused a call (429), and asked to wait so many seconds, if it said so."""


class Allowance:
    """What one process takes from the budget, call by call; threads may share it. Use it as a context manager: what
    was leased and not used goes back at the end.

    Args:
        per_minute: what the configuration allows of each quota.
        wait: waits so many seconds and says whether somebody asked to stop, like ``threading.Event.wait``.
        patience: a call that would have to wait longer (seconds) fails with `Reason.QUOTA` instead.
    """

    def __init__(
        self,
        store: Store,
        per_minute: Mapping[Quota, int],
        *,
        clock: Clock,
        wait: Callable[[float], bool],
        patience: float = 120.0,
    ) -> None:
        self._store = store
        self._per_minute = per_minute
        self._clock = clock
        self._wait = wait
        self._patience = patience
        # A signal may end a thread between taking a lock and guarding it: then the same thread can still give back.
        self._locks = {quota: threading.RLock() for quota in per_minute}
        self._leases: dict[Quota, Lease] = {}
        self._made = dict.fromkeys(per_minute, 0)

    @property
    def made(self) -> dict[Quota, int]:
        """Calls that this process has taken and made, by quota."""
        return dict(self._made)

    def call(self, quota: Quota) -> None:
        """Take one call, waiting for it if there is none. To be called right before each request.

        Raises:
            SyncError: it would take longer than the caller's patience (`Reason.QUOTA`, with ``retry_after``).
            Cancelled: somebody asked to stop while it waited.
        """
        with self._locks[quota]:
            waited = 0.0
            while not self._use(quota):
                answer = self._lease(quota)
                if isinstance(answer, Lease):
                    self._leases[quota] = answer
                    continue
                if waited + answer.seconds > self._patience:
                    raise _used_up(quota, self._per_minute[quota], answer)
                if self._wait(answer.seconds):
                    raise Cancelled
                waited += answer.seconds

    def try_call(self, quota: Quota) -> bool:
        """Take one call if there is one now. Returns whether there was; also not while another thread waits for one."""
        lock = self._locks[quota]
        if not lock.acquire(blocking=False):
            return False
        try:
            if self._use(quota):
                return True
            answer = self._lease(quota)
            if isinstance(answer, Wait):
                return False
            self._leases[quota] = answer
            return self._use(quota)
        finally:
            lock.release()

    def permit(self, quota: Quota) -> Callable[[bool], bool]:
        """What a reader asks before each call of a quota: with ``True`` it waits for one, see `call`; with ``False`` it
        says whether there is one now."""

        def ask(wait: bool) -> bool:
            if not wait:
                return self.try_call(quota)
            self.call(quota)
            return True

        return ask

    def throttled(self, quota: Quota, retry_after: float | None) -> None:
        """The other side refused a call: tell all processes, and give back what is leased here."""
        now = self._clock()
        throttled(self._store, quota, retry_after, configured=self._per_minute[quota], now=now)
        with self._locks[quota]:
            self._return(quota)

    def release(self) -> None:
        """Give back what is leased, and drop what is too old to be of use."""
        for quota, lock in self._locks.items():
            with lock:
                self._return(quota)
        with self._store.write() as connection:
            prune(connection, now=self._clock())

    def __enter__(self) -> Allowance:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _use(self, quota: Quota) -> bool:
        lease = self._leases.get(quota)
        if lease is None:
            return False
        if not lease.calls or self._clock() >= lease.expires_at:
            self._return(quota)
            return False
        self._leases[quota] = Lease(quota, lease.slice, lease.calls - 1, lease.expires_at)
        self._made[quota] += 1
        return True

    def _lease(self, quota: Quota) -> Lease | Wait:
        configured = self._per_minute[quota]
        return take(self._store, quota, lease_size(configured), configured=configured, now=self._clock())

    def _return(self, quota: Quota) -> None:
        lease = self._leases.pop(quota, None)
        if lease is not None:
            give_back(self._store, lease, lease.calls)


def _used_up(quota: Quota, per_minute: int, wait: Wait) -> SyncError:
    why = "Google asked to wait" if wait.blocked else f"all {per_minute} calls a minute are used"
    return SyncError(
        f"the quota is used up: {why}",
        where=f"Cloud Asset Inventory, {quota}",
        remedy=f"wait {math.ceil(wait.seconds)} s, read less often, or raise the quota of the project that calls it "
        f"and sync_layers.api_sync.quotas.{quota}",
        reason=Reason.QUOTA,
        retry_after=wait.seconds,
    )
