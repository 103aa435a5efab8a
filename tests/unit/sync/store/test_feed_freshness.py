"""What the feed told, how late, and what it missed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.store import Store, assets, feed_freshness, layer_runs
from lz_sync_dagster.sync.store.feed_freshness import BOUNDS_MS, Delivery, Quantile, bucket_of, is_missed, quantile
from lz_sync_dagster.sync.timing import format_ns, to_ns
from tests.conftest import NOW

TYPE, OTHER = "storage.googleapis.com/Bucket", "compute.googleapis.com/Instance"
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def deliver(
    store: Store, *, at: datetime = NOW, source: timedelta = SECOND, own: timedelta = SECOND, kind=TYPE
) -> None:
    with store.write(exclusive=assets.LOCK) as connection:
        published = at - own
        item = Delivery(kind, to_ns(published - source), published)
        feed_freshness.record_delivered(connection, [item], committed_at=at)


def hear(store: Store, until: datetime) -> None:
    with store.write(exclusive="layer:pubsub") as connection:
        layer_runs.record_health(
            connection, LayerId.PUBSUB, status=Status.SUCCESS, now=until, items_synced=1, items_changed=0, as_of=until
        )


def miss(store: Store, changed: datetime, *, found: datetime = NOW, kind: str = TYPE) -> int:
    with store.write(exclusive=assets.LOCK) as connection:
        return feed_freshness.record_missed(connection, [(kind, to_ns(changed))], found_at=found)


def over(store: Store, hours: int = 24) -> list[feed_freshness.TypeFreshness]:
    with store.read() as connection:
        return feed_freshness.over(connection, since=NOW - timedelta(hours=hours))


def test_hours_add_up_and_the_two_delays_stay_apart(store: Store) -> None:
    deliver(store, at=NOW - timedelta(hours=2), source=4 * SECOND, own=SECOND / 100)
    deliver(store, source=4 * SECOND, own=SECOND / 100)
    deliver(store, source=40 * SECOND, own=SECOND / 100)
    deliver(store, at=NOW - timedelta(hours=30))
    deliver(store, kind=OTHER)
    other, kind = over(store)
    assert (other.asset_type, other.delivered) == (OTHER, 1)
    assert (kind.delivered, kind.missed, kind.missed_rate, kind.last_delivered) == (3, 0, 0.0, NOW)
    assert kind.source_delays == {"5000": 2, "60000": 1}
    assert kind.own_delays == {"50": 3}
    assert quantile(kind.source_delays, 0.5) == Quantile(2_000, 5_000)
    assert quantile(kind.source_delays, 0.95) == Quantile(30_000, 60_000)


def test_a_change_that_the_feed_had_the_time_to_tell_is_missed(store: Store) -> None:
    deliver(store, at=NOW - timedelta(hours=3))
    hear(store, NOW)
    assert miss(store, NOW - 5 * MINUTE) == 1
    assert miss(store, NOW - feed_freshness.GRACE) == 1
    assert miss(store, NOW - feed_freshness.GRACE + SECOND) == 0, "it may still come"
    [kind] = over(store)
    assert (kind.delivered, kind.missed) == (1, 2)
    assert kind.missed_rate == pytest.approx(2 / 3)


def test_what_came_after_the_feed_was_last_heard_is_not_missed_yet(store: Store) -> None:
    deliver(store, at=NOW - timedelta(hours=3))
    assert miss(store, NOW - timedelta(hours=1)) == 0, "the feed was never heard"
    hear(store, NOW - timedelta(hours=2))
    assert miss(store, NOW - timedelta(hours=1)) == 0, "the listener has been away since"
    assert miss(store, NOW - timedelta(hours=2, minutes=5)) == 1


def test_a_type_without_a_feed_misses_nothing_nor_does_one_before_its_feed(store: Store) -> None:
    hear(store, NOW)
    deliver(store)
    assert miss(store, NOW - timedelta(hours=1), kind=OTHER) == 0
    assert miss(store, NOW - timedelta(days=9)) == 0
    assert [kind.asset_type for kind in over(store)] == [TYPE]


@pytest.mark.parametrize(("announce", "missed"), [(True, 1), (False, 0)])
def test_what_a_snapshot_finds_is_counted_where_it_is_applied(store: Store, announce: bool, missed: int) -> None:
    deliver(store, at=NOW - timedelta(hours=3))
    hear(store, NOW)

    def found(name: str, changed: datetime, source: Source):
        body = {"name": name, "assetType": TYPE, "resource": {"data": {}}, "updateTime": format_ns(to_ns(changed))}
        return observe(body, scope="organizations/1", observed_ns=to_ns(NOW), source=source)

    observations = [
        found("//b/old", NOW - MINUTE * 10, Source.SNAPSHOT),
        found("//b/new", NOW - MINUTE, Source.SNAPSHOT),
        found("//b/told", NOW - MINUTE * 10, Source.FEED),
    ]
    for _ in range(2):
        with store.write(exclusive=assets.LOCK) as connection:
            assets.apply(
                connection, observations, layer=LayerId.API, now=NOW, evaluate=lambda *_: [], announce=announce
            )
    assert over(store)[0].missed == missed


@pytest.mark.parametrize(
    ("delay", "bucket"),
    [(-5, "50"), (0, "50"), (0.05, "50"), (0.0501, "100"), (2, "2000"), (3600, "3600000"), (3601, "later")],
)
def test_the_bounds_of_a_bucket_are_upper_ones(delay: float, bucket: str) -> None:
    assert bucket_of(timedelta(seconds=delay)) == bucket


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_lies_within_its_bounds(delays: list[int], share: float) -> None:
    counts: dict[str, int] = {}
    for delay in delays:
        bucket = bucket_of(timedelta(milliseconds=delay))
        counts[bucket] = counts.get(bucket, 0) + 1
    found = quantile(counts, share)
    assert found is not None
    exact = sorted(delays)[max(0, -(-int(share * 100) * len(delays) // 100) - 1)]
    assert exact <= (found.at_most_ms or exact)
    assert exact > found.more_than_ms or found.more_than_ms == 0


def test_without_messages_there_is_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({"later": 3}, 0.5) == Quantile(BOUNDS_MS[-1], None)


def test_the_grace_is_counted_from_the_change() -> None:
    second = 1_000_000_000
    assert is_missed(0, 120 * second, 120 * second)
    assert not is_missed(0, 120 * second - 1, 500 * second)
    assert not is_missed(0, 500 * second, 120 * second - 1)
