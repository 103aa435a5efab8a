"""``seq`` has no gaps and is ordered by commit, with writers that race."""

from __future__ import annotations

import threading

import pytest

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import EventType
from lz_sync_dagster.sync.store import Store, event_log
from lz_sync_dagster.sync.store.event_log import NewEvent
from tests.conftest import NOW

WRITERS, TRANSACTIONS = 6, 25


def event(text: str) -> NewEvent:
    return NewEvent(EventType.SYNC_STATUS, LayerId.GIT, NOW, data={"text": text})


def test_a_reader_that_follows_the_log_never_misses_an_event(store: Store) -> None:
    done = threading.Event()
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for turn in range(TRANSACTIONS):
                try:
                    with store.write() as connection:
                        event_log.append(connection, [event(f"{number}")] * (1 + turn % 3), recorded_at=NOW)
                        if turn % 5 == 4:
                            raise InterruptedError
                except InterruptedError:
                    continue
        except BaseException as error:
            failures.append(error)

    seen: list[int] = []

    def follow() -> None:
        cursor = 0
        while True:
            last_round = done.is_set()
            with store.read() as connection:
                frames = event_log.after(connection, cursor, limit=1000)
            seen.extend(frame.seq for frame in frames)
            cursor = seen[-1] if seen else 0
            if last_round:
                return

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()

    assert failures == []
    committed = WRITERS * sum(1 + turn % 3 for turn in range(TRANSACTIONS) if turn % 5 != 4)
    assert seen == list(range(1, committed + 1))


def test_a_rolled_back_event_leaves_no_gap(store: Store) -> None:
    def interrupted() -> None:
        with store.write() as connection:
            event_log.append(connection, [event("lost")], recorded_at=NOW)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    with store.write() as connection:
        assert event_log.append(connection, [event("kept")], recorded_at=NOW) == 1
    with store.read() as connection:
        (frame,) = event_log.after(connection, 0, limit=10)
    assert (frame.seq, frame.data) == (1, {"text": "kept"})
