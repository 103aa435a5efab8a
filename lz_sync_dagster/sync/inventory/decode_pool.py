"""Decodes beside the process that reads and writes: a first load is mostly decoding, and Python does one thing at a
time.

A pool costs a second to start, so few assets are decoded in place; and so are those that the pool has no room for.
Whatever happens to the pool, they are decoded.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType

import structlog

from lz_sync_dagster.sync.compliance.verdict import Evaluator
from lz_sync_dagster.sync.inventory.decoder import Decoded, Decoder
from lz_sync_dagster.sync.state.reducer import Part

#: Assets that are decoded in place before a pool is worth its start.
WORTH_A_POOL = 5_000
#: More processes would wait for the one that writes; and each holds a page that is decoded.
MOST_PROCESSES = 3

#: Batches beside those of the processes that may wait for the store: one that is done does not wait for its turn then.
_AHEAD = 4

#: Containers that are made before Python looks for cycles. Contents have none, and there are very many of them.
COLLECT_AFTER = 200_000

log = structlog.get_logger(__name__)

#: (part, read time, [(fingerprint, bytes)]): what `Decoder.decode` takes.
Batch = tuple[Part, int, Sequence[tuple[bytes, bytes]]]
#: Gives what was decoded, when it is there.
Pending = Callable[[], Decoded]


class DecodePool:
    """Decodes batches, in place or in other processes. A context manager.

    Args:
        evaluate: judges what is decoded in place.
        processes: how many to use at most; 0 decodes everything in place.
        worth_a_pool: how many assets are decoded in place first.
    """

    def __init__(self, evaluate: Evaluator, *, processes: int | None = None, worth_a_pool: int = WORTH_A_POOL) -> None:
        self._decoder = Decoder(evaluate)
        self._processes = min((os.cpu_count() or 1) - 1, MOST_PROCESSES) if processes is None else processes
        self._left_in_place = worth_a_pool
        self._pool: ProcessPoolExecutor | None = None
        self._under_way: list[Future[Decoded]] = []

    @property
    def depth(self) -> int:
        """How many batches may be under way before the first one has to be waited for."""
        return 1 if self._pool is None else self._processes + _AHEAD

    def decode(self, batch: Batch) -> Pending:
        """Decode a batch now or later: what is returned waits for it."""
        if self._pool is None and self._processes and self._left_in_place <= 0:
            self._start()
        if self._pool is None:
            self._left_in_place -= len(batch[2])
            return self._here(batch)
        self._under_way = [future for future in self._under_way if not future.done()]
        if len(self._under_way) > self._processes:  # they have enough to do: better to help than to wait
            return self._here(batch)
        try:
            future = self._pool.submit(_decode, batch)
        except (BrokenProcessPool, RuntimeError) as error:
            return self._without_pool(batch, error)
        self._under_way.append(future)
        return lambda: self._result(future, batch)

    def _here(self, batch: Batch) -> Pending:
        decoded = self._decoder.decode(*batch)
        return lambda: decoded

    def _start(self) -> None:
        try:
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
            )
        except (OSError, AssertionError, ValueError) as error:
            log.warning("decodes_in_place", error=repr(error))
            self._processes = 0

    def _result(self, future: Future[Decoded], batch: Batch) -> Decoded:
        self._under_way = [other for other in self._under_way if other is not future]
        try:
            return future.result()
        except (BrokenProcessPool, CancelledError, OSError, AssertionError) as error:
            return self._without_pool(batch, error)()

    def _without_pool(self, batch: Batch, error: Exception) -> Pending:
        log.warning("decodes_in_place", error=repr(error))
        self._close()
        self._processes = 0
        return self._here(batch)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            self._under_way = []

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


#: How many loads there are in this process now, and what was set before the first of them.
_LOADS, _loads, _threshold = threading.Lock(), 0, gc.get_threshold()


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Let Python look for cycles rarely, and only in what is made from here on: each look passes over every content
    that waits to be written, which is a good part of a load's time."""
    global _loads, _threshold
    with _LOADS:
        _loads += 1
        if _loads == 1:
            _threshold = gc.get_threshold()
            gc.freeze()
            gc.set_threshold(COLLECT_AFTER, *_threshold[1:])
    try:
        yield
    finally:
        with _LOADS:
            _loads -= 1
            if not _loads:
                gc.set_threshold(*_threshold)
                gc.unfreeze()


_decoder: Decoder | None = None


def _begin() -> None:
    """Make ready to decode: in a process of its own, which ends with the one that started it."""
    from lz_sync_dagster.sync.compliance.controls import load_controls

    global _decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    _decoder = Decoder(load_controls().evaluate)
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _end_with_parent() -> None:
    """A process that is killed cannot tell its pool to end, which would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _decode(batch: Batch) -> Decoded:
    assert _decoder is not None
    return _decoder.decode(*batch)
