"""A client of the live feed: bounded, in order, nothing twice."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lz_sync_dagster.portal.feed import FeedClient, FeedClosed, Message, SlowClient, _is_kept


def message(seq: int) -> Message:
    return Message(seq, str(seq))


def test_a_client_that_takes_nothing_is_slow_and_holds_nothing_any_more() -> None:
    client = FeedClient(0, max_pending=2)
    assert client.offer(1, message(1))
    assert client.offer(2, message(2))
    assert not client.offer(3, message(3))
    assert client.offer(4, message(4)), "it is reported once"
    with pytest.raises(SlowClient):
        asyncio.run(client.take(1))


def test_taking_waits_only_as_long_as_asked() -> None:
    assert asyncio.run(FeedClient(0, max_pending=2).take(0.001)) == []


def test_a_closed_client_gets_nothing_more() -> None:
    client = FeedClient(0, max_pending=2)
    client.offer(1, message(1))
    client.close()
    with pytest.raises(FeedClosed):
        asyncio.run(client.take(1))


@settings(max_examples=50)
@given(start=st.integers(0, 20), offers=st.lists(st.integers(1, 20), max_size=30))
def test_a_client_never_gets_an_event_twice_or_out_of_order(start: int, offers: list[int]) -> None:
    client = FeedClient(start, max_pending=100)
    for seq in offers:
        client.offer(seq, message(seq))
    taken = [int(item.text) for item in asyncio.run(client.take(0))] if any(o > start for o in offers) else []
    assert taken == sorted(set(taken))
    assert all(seq > start for seq in taken)


@pytest.mark.parametrize(
    ("after", "current", "oldest", "kept"),
    [
        (0, 0, None, True),
        (0, 5, 1, True),
        (5, 5, None, True),
        (3, 5, 4, True),
        (2, 5, 4, False),
        (2, 5, None, False),
        (9, 5, 1, False),
    ],
)
def test_resuming_needs_every_event_after_the_position(
    after: int, current: int, oldest: int | None, kept: bool
) -> None:
    assert _is_kept(after, current, oldest) is kept
