"""The listener, a process of its own (``lz-sync listen``): receive → one transaction → acknowledge.

Google's client pulls and extends leases in its threads and puts messages into a queue; one worker takes what is there,
up to a batch, into the store, and acknowledges after the commit. While it runs, the listener is what vouches for the
layer's health. Several may run on one subscription.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from google.cloud.pubsub_v1.types import FlowControl

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.events.handler import BATCH, BatchResult, ReceivedMessage, figures, handle_batch
from lz_sync_dagster.sync.events.subscription import Subscription, check, open_subscription, sync_error
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.retry import RETRY_WAITS, next_wait
from lz_sync_dagster.sync.runs import new_holder
from lz_sync_dagster.sync.store import Store, layer_runs, listeners, messages
from lz_sync_dagster.sync.timing import Clock

#: Messages and bytes that are held at most, received and not yet acknowledged: this is what bounds the queue.
FLOW = FlowControl(max_messages=4 * BATCH, max_bytes=64 * 1024 * 1024)
#: The listener's health is written this often, and the subscription asked for that often.
HEALTH_SECONDS = 2.0
CHECK_SECONDS = 10.0
#: How long messages must have stayed away before "nothing waits" is believed.
QUIET_SECONDS = 0.5
#: How long the end may take: for the worker, and then for the stream.
DRAIN_SECONDS = 4.0
_TICK_SECONDS = 0.1
_TRANSIENT_STORE_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)

log = structlog.get_logger(__name__)


class Listener:
    """Listens to one subscription until told to stop. Used once."""

    def __init__(
        self,
        store: Store,
        subscription: Subscription,
        *,
        scopes: Sequence[str],
        evaluate: Evaluator,
        clock: Clock,
        waits: tuple[float, ...] = RETRY_WAITS,
    ) -> None:
        self._store = store
        self._subscription = subscription
        self._scopes = scopes
        self._evaluate = evaluate
        self._clock = clock
        self._waits = waits
        self._holder = new_holder()
        self._started_at = clock()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._draining = threading.Event()
        self._failure: BaseException | None = None
        self._trouble: str | None = None
        self._last = BatchResult()
        self._behind_at: datetime | None = None
        self._busy_until = time.monotonic()
        self._busy = False
        self._checked = False
        self._total: int | None = None
        self._details: dict[str, dict[str, Any]] = {}
        self._stale_figures = True

    def run(self, stop: threading.Event) -> None:
        """Listen until ``stop`` is set, then handle what was received, acknowledge it, and say good-bye.

        Raises:
            SyncError: the subscription or the store failed for good; what was not acknowledged will come again.
        """
        worker = threading.Thread(target=self._work, name="listener-worker", daemon=True)
        worker.start()
        stream = self._subscription.client.subscribe(
            self._subscription.path, callback=self._receive, flow_control=FLOW, await_callbacks_on_shutdown=True
        )
        log.info("listening", subscription=self._subscription.path)
        error: BaseException | None = None
        try:
            self._watch(stop, stream)
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._draining.set()
            self._queue.put(None)
            worker.join(DRAIN_SECONDS)
            stream.cancel()
            self._wait_for(stream)
            self._leave(error)

    def _receive(self, message: Any) -> None:
        if self._draining.is_set():
            message.nack()
        else:
            self._queue.put(message)

    def _watch(self, stop: threading.Event, stream: Any) -> None:
        self._check()
        checked = reported = time.monotonic()
        while not stop.wait(_TICK_SECONDS):
            if self._failure is not None:
                raise self._failure
            if stream.done():
                raise sync_error(stream.exception() or RuntimeError("the stream ended"), self._subscription.path)
            now = time.monotonic()
            if now - checked >= (CHECK_SECONDS if self._checked else HEALTH_SECONDS):
                checked = now
                self._check()
            if now - reported >= HEALTH_SECONDS or (self._total is None and self._caught_up()):
                reported = now
                self._report()

    def _check(self) -> None:
        try:
            check(self._subscription)
        except SyncError as error:
            if not error.transient:
                raise
            self._trouble = str(error)
            log.warning("subscription_not_reached", error=str(error))
        else:
            self._trouble = None
            if not self._checked:
                self._checked = True
                self._busy_until = time.monotonic()

    # --- the worker ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            self._busy = True
            while batch[-1] is not None and len(batch) < BATCH:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            ended = batch[-1] is None
            received = [message for message in batch if message is not None]
            if received and not self._handle(received):
                return
            self._busy_until = time.monotonic()
            self._busy = False
            if ended:
                return

    def _handle(self, batch: list[Any]) -> bool:
        received = [
            ReceivedMessage(message.message_id, message.data, message.publish_time, dict(message.attributes))
            for message in batch
        ]
        failures = 0
        while True:
            try:
                result = handle_batch(
                    self._store,
                    self._subscription.path,
                    received,
                    scopes=self._scopes,
                    evaluate=self._evaluate,
                    clock=self._clock,
                )
            except Exception as error:
                failures += 1
                failed = _store_error(error)
                self._trouble = str(failed)
                wait = next_wait(failed, failures, self._waits)
                log.error("batch_failed", messages=len(batch), error=str(error), wait_seconds=wait)
                if wait is not None and not self._draining.wait(wait):
                    continue
                for message in batch:
                    message.nack()
                self._failure = failed
                return False
            for message in batch:
                message.ack()
            if failures:
                self._trouble = None
            self._last = result
            self._behind_at = max((item.publish_time for item in received if item.publish_time), default=None)
            self._stale_figures = True
            log.debug("batch_handled", messages=result.messages, applied=result.applied, dead=result.dead)
            return True

    # --- health -------------------------------------------------------------------------------------------------------

    def _caught_up(self) -> bool:
        """Whether nothing waits. Who never reached the subscription cannot say so."""
        quiet = time.monotonic() - self._busy_until >= QUIET_SECONDS
        return self._checked and not self._busy and self._queue.empty() and quiet

    def _report(self) -> None:
        """Say how the layer is. While messages wait, its data is as old as the newest one that was handled."""
        trouble = self._trouble
        now = self._clock()
        as_of = now if self._caught_up() else self._behind_at
        try:
            self._refresh_figures()
            with self._store.write(exclusive=f"layer:{LayerId.PUBSUB}") as connection:
                beat = listeners.Listener(
                    self._holder, self._subscription.path, trouble is None, self._started_at, now, as_of
                )
                listeners.beat(connection, beat)
                self._record(connection, [trouble] if trouble else [], now=now, as_of=None if trouble else as_of)
        except sa.exc.SQLAlchemyError as error:
            log.warning("health_not_written", error=str(error))

    def _refresh_figures(self) -> None:
        if self._stale_figures or self._total is None:
            self._stale_figures = False
            with self._store.read() as connection:
                found = figures(connection, self._subscription.path)
            self._total, self._details = found.total, found.details

    def _record(
        self, connection: sa.Connection, errors: Sequence[str], *, now: datetime, as_of: datetime | None = None
    ) -> None:
        layer_runs.record_health(
            connection,
            LayerId.PUBSUB,
            status=Status.FAILED if errors else Status.SUCCESS,
            now=now,
            items_synced=self._total or 0,
            items_changed=self._last.applied,
            as_of=as_of,
            errors=errors,
            details=self._details,
        )

    def _leave(self, error: BaseException | None) -> None:
        """Take the health back, unless another listener vouches for it."""
        line = str(error) if error is not None else "the listener was stopped: start 'lz-sync listen' again"
        now = self._clock()
        self._stale_figures = True
        try:
            self._refresh_figures()
            with self._store.write(exclusive=f"layer:{LayerId.PUBSUB}") as connection:
                listeners.leave(connection, self._holder)
                if listeners.working(connection, now=now, subscription=self._subscription.path) is None:
                    self._record(connection, [line], now=now)
        except sa.exc.SQLAlchemyError as failed:
            log.warning("health_not_written", error=str(failed))
        log.info("stopped_listening", subscription=self._subscription.path, reason=line)

    def _wait_for(self, stream: Any) -> None:
        try:
            stream.result(timeout=DRAIN_SECONDS)
        except Exception as error:
            log.debug("stream_ended", error=str(error))


def _store_error(error: Exception) -> SyncError:
    line = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    if isinstance(error, _TRANSIENT_STORE_ERRORS):
        return SyncError(
            f"a batch of messages was not stored: {line}",
            where="store",
            remedy="check that the database runs; the messages stay on the subscription",
            reason=Reason.UNAVAILABLE,
        )
    return SyncError(
        f"a batch of messages was not stored: {type(error).__name__}: {line}",
        where="store",
        remedy="run 'lz-sync db migrate', and if that does not help report it as a defect",
        reason=Reason.INTERNAL,
    )


def run_listener(
    settings: Settings,
    store: Store,
    clock: Clock,
    stop: threading.Event,
    *,
    evaluate: Evaluator | None = None,
    waits: tuple[float, ...] = RETRY_WAITS,
) -> None:
    """Listen to the configured subscription until ``stop`` is set. Transient failures are retried by the one policy.

    Args:
        evaluate: judges changed content; by default the controls of this package.

    Raises:
        SyncError: the subscription is missing, may not be read, or failed for longer than the retries reach.
    """
    if evaluate is None:
        from lz_sync_dagster.sync.compliance.controls import load_controls

        evaluate = load_controls().evaluate
    failures = 0
    while not stop.is_set():
        started = time.monotonic()
        try:
            _listen_once(settings, store, clock, stop, evaluate=evaluate, waits=waits)
        except SyncError as error:
            lasted = time.monotonic() - started > CHECK_SECONDS
            failures = 1 if lasted else failures + 1
            wait = next_wait(error, failures, waits)
            _record_failure(store, str(error), clock=clock)
            if wait is None:
                raise
            log.warning("listener_retries", wait_seconds=wait, error=str(error))
            stop.wait(wait)


def _listen_once(
    settings: Settings,
    store: Store,
    clock: Clock,
    stop: threading.Event,
    *,
    evaluate: Evaluator,
    waits: tuple[float, ...],
) -> None:
    subscription = open_subscription(settings)
    try:
        scopes = settings.sync_layers.api_sync.scopes
        Listener(store, subscription, scopes=scopes, evaluate=evaluate, clock=clock, waits=waits).run(stop)
    finally:
        subscription.close()


def _record_failure(store: Store, line: str, *, clock: Clock) -> None:
    now = clock()
    try:
        with store.read() as connection:
            total = sum(messages.counts(connection).values())
        with store.write(exclusive=f"layer:{LayerId.PUBSUB}") as connection:
            if listeners.working(connection, now=now) is None:
                layer_runs.record_health(
                    connection,
                    LayerId.PUBSUB,
                    status=Status.FAILED,
                    now=now,
                    items_synced=total,
                    items_changed=0,
                    errors=[line],
                )
    except sa.exc.SQLAlchemyError as error:
        log.warning("health_not_written", error=str(error))


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. For the main thread of a process."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
