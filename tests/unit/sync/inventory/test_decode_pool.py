"""Decoding beside the process changes its speed and nothing else, whatever happens to the other processes."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from google.cloud.asset_v1 import Asset, Resource

from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.inventory import decode_pool, wire
from lz_sync_dagster.sync.inventory.decode_pool import Batch, DecodePool, collecting_rarely
from lz_sync_dagster.sync.inventory.decoder import Decoded
from tests.conftest import until

BUCKET = "storage.googleapis.com/Bucket"
PART = ("folders/1", BUCKET, "RESOURCE")


def batch(first: int, count: int = 5) -> Batch:
    """Buckets, one of them with a secret and one without a name."""
    bodies = []
    for number in range(first, first + count):
        data = {"id": str(number), "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": number % 2 == 0}}}
        if number % 5 == 1:
            data["userData"] = "hunter2"
        name = "" if number % 5 == 2 else f"//storage.googleapis.com/b-{number}"
        asset = Asset(name=name, asset_type=BUCKET, resource=Resource(data=data), update_time={"seconds": 9})
        body = Asset.serialize(asset)
        bodies.append((wire.fingerprint(body), body))
    return PART, 10**9 * (100 + first), bodies


def told(decoded: Decoded) -> tuple[object, ...]:
    return (
        decoded.observations,
        [observation.data for observation in decoded.observations],
        decoded.verdicts,
        [(item.key, str(item.error), item.payload) for item in decoded.unusable],
    )


@pytest.fixture(scope="module")
def expected() -> list[tuple[object, ...]]:
    with DecodePool(load_controls().evaluate, processes=0) as pool:
        return [told(pool.decode(batch(first))()) for first in range(0, 60, 5)]


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(load_controls().evaluate, processes=1, worth_a_pool=0) as pool:
        yield pool


def workers(pool: DecodePool) -> list[int]:
    assert pool._pool is not None
    return list(pool._pool._processes)


def test_few_assets_start_no_process() -> None:
    with DecodePool(load_controls().evaluate, processes=1, worth_a_pool=20) as pool:
        for first in range(0, 20, 5):
            pool.decode(batch(first))
        assert pool._pool is None
        assert pool.depth == 1


def test_other_processes_decode_the_same_and_a_signal_for_the_whole_group_does_not_end_them(
    pool: DecodePool, expected: list[tuple[object, ...]]
) -> None:
    pending = [pool.decode(batch(first)) for first in range(0, 30, 5)]
    assert pool.depth > 1
    assert [told(item()) for item in pending] == expected[:6]
    (worker,) = workers(pool)
    os.kill(worker, signal.SIGINT)  # what Ctrl-C sends to all processes of a terminal
    assert [told(pool.decode(batch(first))()) for first in range(30, 60, 5)] == expected[6:]
    assert workers(pool) == [worker]


def test_what_a_killed_process_had_under_way_is_decoded_in_place(
    pool: DecodePool, expected: list[tuple[object, ...]]
) -> None:
    assert told(pool.decode(batch(0))()) == expected[0]
    (worker,) = workers(pool)
    os.kill(worker, signal.SIGSTOP)
    pending = [pool.decode(batch(first)) for first in range(5, 30, 5)]
    os.kill(worker, signal.SIGKILL)
    assert [told(item()) for item in pending] == expected[1:6]
    assert pool._pool is None, "no second pool is started"
    assert told(pool.decode(batch(30))()) == expected[6]


def test_leaving_ends_the_processes(pool: DecodePool) -> None:
    pool.decode(batch(0))()
    (process,) = pool._pool._processes.values()  # type: ignore[union-attr]
    pool.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    until(lambda: not process.is_alive(), what="the end of the process")


def test_where_no_process_can_be_started_it_is_decoded_in_place(
    monkeypatch: pytest.MonkeyPatch, expected: list[tuple[object, ...]]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr(decode_pool, "ProcessPoolExecutor", refuse)
    with DecodePool(load_controls().evaluate, processes=1, worth_a_pool=0) as pool:
        assert [told(pool.decode(batch(first))()) for first in range(0, 10, 5)] == expected[:2]


def test_an_error_of_the_controls_is_the_same_in_place(pool: DecodePool) -> None:
    """What fails for another reason than the process is not tried again in place: it is raised."""
    part, read_ns, bodies = batch(0)
    broken = ((part[0], part[1], "NO_CONTENT"), read_ns, bodies)
    with pytest.raises(ValueError, match="NO_CONTENT"):
        pool.decode(broken)()
    assert pool._pool is not None


def test_two_loads_at_once_leave_the_collector_as_it_was() -> None:
    before = gc.get_threshold()
    first, second = collecting_rarely(), collecting_rarely()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == decode_pool.COLLECT_AFTER
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
