"""The feed against the snapshots: what it told, how late, and what a snapshot had to find. By asset type and hour.

Delays are counted in buckets with fixed bounds, so that hours add up, and a quantile is given with the bounds of its
bucket instead of a figure that nobody measured. The source's delay (from the change to Pub/Sub, by Google's clocks) is
kept apart from our own (from there to the commit).

A change that a snapshot finds counts as missed if the feed had the time to tell it: at least `GRACE` before it was
found, and before the instant up to which the feed had been heard. Of what is younger nobody knows whether the feed told
it later: it is ``undecided``, so ``missed`` is a lower bound, and with ``undecided`` an upper one. A type that the feed
never told anything of has no feed, as far as is known: nothing of it is missed, and nothing from before the feed's
first hour is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store.schema import feed_freshness, layer_status
from lz_sync_dagster.sync.timing import to_ns

#: Upper bounds of the buckets, in milliseconds: 50 ms to 1 h. What is later is in the last one, `LATER`.
BOUNDS_MS = (50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000)
LATER = "later"
#: How long the feed may take to tell a change before a snapshot that finds it calls it missed.
GRACE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that told something of an asset: when that changed, and when Pub/Sub had the message."""

    asset_type: str
    changed_ns: int
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Quantile:
    """So much of something took more than ``more_than_ms`` and at most ``at_most_ms`` (``None``: nobody knows)."""

    more_than_ms: int
    at_most_ms: int | None


@dataclass
class TypeFreshness:
    """What the feed did for one asset type through a window.

    Attributes:
        delivered: messages that told something of the type.
        missed: changes that a snapshot had to find, at least.
        undecided: changes that a snapshot found before the feed had had its time.
        source_delays: bucket (upper bound in milliseconds, or `LATER`) → messages; likewise ``own_delays``.
        last_delivered: the hour of the newest message.
    """

    asset_type: str
    delivered: int = 0
    missed: int = 0
    undecided: int = 0
    source_delays: Counter[str] = field(default_factory=Counter)
    own_delays: Counter[str] = field(default_factory=Counter)
    last_delivered: datetime | None = None

    @property
    def missed_rate(self) -> float | None:
        """Share of the changes that the feed did not tell (0 to 1), at least; ``None`` if there were none."""
        return self._rate(self.missed)

    @property
    def missed_rate_at_most(self) -> float | None:
        """The same if the feed told nothing of what is undecided."""
        return self._rate(self.missed + self.undecided)

    def _rate(self, missed: int) -> float | None:
        changes = self.delivered + missed
        return missed / changes if changes else None


# --- pure -------------------------------------------------------------------------------------------------------------


def bucket_of(delay: timedelta) -> str:
    """The bucket of a delay. Clocks differ: less than nothing is in the first one."""
    milliseconds = delay / timedelta(milliseconds=1)
    index = bisect_left(BOUNDS_MS, milliseconds)
    return str(BOUNDS_MS[index]) if index < len(BOUNDS_MS) else LATER


def quantile(delays: Mapping[str, int], share: float) -> Quantile | None:
    """Within which bounds a share (0 to 1) of the messages came; ``None`` without messages."""
    total = sum(delays.values())
    if not total:
        return None
    seen, below = 0, 0
    for bound in BOUNDS_MS:
        seen += delays.get(str(bound), 0)
        if seen >= share * total:
            return Quantile(below, bound)
        below = bound
    return Quantile(below, None)


def is_missed(changed_ns: int, found_ns: int, heard_ns: int, *, grace: timedelta = GRACE) -> bool:
    """Whether the feed had the time to tell of a change before a snapshot found it."""
    return changed_ns + grace // timedelta(microseconds=1) * 1_000 <= min(found_ns, heard_ns)


def hour_of(instant: datetime) -> datetime:
    """The hour that an instant is in."""
    return instant.replace(minute=0, second=0, microsecond=0)


# --- in the store -----------------------------------------------------------------------------------------------------


def record_delivered(connection: sa.Connection, deliveries: Sequence[Delivery], *, committed_at: datetime) -> None:
    """Count messages of one transaction. To be called in a transaction of ``store.write(exclusive=assets.LOCK)``."""
    told: dict[str, TypeFreshness] = {}
    for item in deliveries:
        kind = told.setdefault(item.asset_type, TypeFreshness(item.asset_type))
        kind.delivered += 1
        if item.published_at is not None:
            since_change = timedelta(microseconds=(to_ns(item.published_at) - item.changed_ns) // 1_000)
            kind.source_delays[bucket_of(since_change)] += 1
            kind.own_delays[bucket_of(committed_at - item.published_at)] += 1
    _add(connection, told, hour_of(committed_at))


def record_missed(
    connection: sa.Connection, changes: Iterable[tuple[str, int]], *, found_at: datetime, grace: timedelta = GRACE
) -> int:
    """Count changes, (asset type, when it changed in nanoseconds), that a snapshot found and the feed had not told.

    To be called in a transaction of ``store.write(exclusive=assets.LOCK)``.

    Returns:
        How many the feed missed; the others may still come, or have no feed.
    """
    by_type: dict[str, list[int]] = {}
    for asset_type, changed_ns in changes:
        by_type.setdefault(asset_type, []).append(changed_ns)
    if not by_type:
        return 0
    heard = connection.scalar(sa.select(layer_status.c.as_of).where(layer_status.c.layer == LayerId.PUBSUB.value))
    if heard is None:
        return 0
    began = _began(connection, sorted(by_type))
    found_ns, heard_ns = to_ns(found_at), to_ns(heard)
    told: dict[str, TypeFreshness] = {}
    for asset_type, since in began.items():
        since_then = [changed_ns for changed_ns in by_type[asset_type] if changed_ns >= to_ns(since)]
        missed = sum(is_missed(changed_ns, found_ns, heard_ns, grace=grace) for changed_ns in since_then)
        if since_then:
            told[asset_type] = TypeFreshness(asset_type, missed=missed, undecided=len(since_then) - missed)
    _add(connection, told, hour_of(found_at))
    return sum(kind.missed for kind in told.values())


def over(
    connection: sa.Connection, *, since: datetime, asset_types: Sequence[str] | None = None
) -> list[TypeFreshness]:
    """What the feed did since an instant, to the hour, of every type that it is known for; the types in their order."""
    query = (
        sa.select(feed_freshness)
        .where(feed_freshness.c.hour >= hour_of(since))
        .order_by(feed_freshness.c.asset_type, feed_freshness.c.hour)
    )
    if asset_types is not None:
        query = query.where(feed_freshness.c.asset_type.in_(asset_types))
    found: dict[str, TypeFreshness] = {}
    for row in connection.execute(query):
        kind = found.setdefault(row.asset_type, TypeFreshness(row.asset_type))
        kind.delivered += row.delivered
        kind.missed += row.missed
        kind.undecided += row.undecided
        kind.source_delays.update(row.source_delays)
        kind.own_delays.update(row.own_delays)
        if row.delivered:
            kind.last_delivered = row.hour
    return [found[asset_type] for asset_type in sorted(found)]


def _began(connection: sa.Connection, asset_types: Sequence[str]) -> dict[str, datetime]:
    """The first hour in which the feed told something, by type; types of which it never did are left out."""
    query = (
        sa.select(feed_freshness.c.asset_type, sa.func.min(feed_freshness.c.hour).label("first"))
        .where(feed_freshness.c.asset_type.in_(asset_types), feed_freshness.c.delivered > 0)
        .group_by(feed_freshness.c.asset_type)
    )
    return {row.asset_type: row.first for row in connection.execute(query)}


def _add(connection: sa.Connection, told: Mapping[str, TypeFreshness], hour: datetime) -> None:
    """Add to the rows of an hour: one look and one upsert for all types together."""
    if not told:
        return
    query = sa.select(feed_freshness).where(
        feed_freshness.c.hour == hour, feed_freshness.c.asset_type.in_(sorted(told))
    )
    before = {row.asset_type: row for row in connection.execute(query)}
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(feed_freshness)
    columns = ("delivered", "missed", "undecided", "source_delays", "own_delays")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["asset_type", "hour"], set_={name: statement.excluded[name] for name in columns}
        ),
        [_row(told[asset_type], before.get(asset_type), hour) for asset_type in sorted(told)],
    )


def _row(kind: TypeFreshness, before: sa.Row[Any] | None, hour: datetime) -> dict[str, Any]:
    known = TypeFreshness(kind.asset_type)
    if before is not None:
        known = TypeFreshness(
            kind.asset_type,
            before.delivered,
            before.missed,
            before.undecided,
            Counter(before.source_delays),
            Counter(before.own_delays),
        )
    return {
        "asset_type": kind.asset_type,
        "hour": hour,
        "delivered": known.delivered + kind.delivered,
        "missed": known.missed + kind.missed,
        "undecided": known.undecided + kind.undecided,
        "source_delays": dict(known.source_delays + kind.source_delays),
        "own_delays": dict(known.own_delays + kind.own_delays),
    }
