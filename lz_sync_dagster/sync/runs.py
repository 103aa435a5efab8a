"""The life of a sync: single-flight, recorded, retried by the one policy, and never hiding a failure.

Every layer runs through `attempt`, whoever starts it. A layer is single-flight across processes by a lease in the
store, renewed while the work goes on; a process that dies leaves a lease that ends by itself (at once, if it ran on
this host).
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import LayerBusy, Reason, SyncError
from lz_sync_dagster.sync.models import EventType, Status
from lz_sync_dagster.sync.retry import RETRY_WAITS, next_wait
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.store import Store, event_log
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.layer_runs import is_held
from lz_sync_dagster.sync.store.quota import Cancelled
from lz_sync_dagster.sync.store.schema import layer_runs, layer_status
from lz_sync_dagster.sync.timing import Clock

LEASE = timedelta(seconds=60)
HEARTBEAT_SECONDS = 15.0
#: How long a layer stays reserved between two steps of one sync.
STEP_GAP = timedelta(minutes=5)

#: When a layer is due again, given the present; ``None`` if it waits for a call.
NextSync = Callable[[datetime], datetime | None]

log = structlog.get_logger(__name__)


def never(now: datetime) -> None:
    """The `NextSync` of a layer that waits for a call."""


@dataclass(frozen=True, slots=True)
class LayerOutcome:
    """What a sync made.

    Attributes:
        items_synced: what the layer vouches for now (resources, files, messages …).
        items_changed: what this sync changed.
        as_of: the instant at which the data was true at its source; ``None``: nothing is known yet.
        status: `Status.SUCCESS`, or `Status.PARTIAL` if ``errors`` or the coverage ledger name something that is
            missing.
        errors: one line each, with the remedy.
        details: figures for the run's record and for Dagster's metadata.
        from_cache: the assets (nouns of ``details``) that this sync could not read anew and that keep what was known
            before. They are not recorded as made.
    """

    items_synced: int
    items_changed: int
    as_of: datetime | None
    status: Status = Status.SUCCESS
    errors: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    from_cache: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LayerRun:
    """A sync that is under way. ``number`` is its row in ``layer_runs``; ``attempt`` counts from 1."""

    number: int
    layer: LayerId
    holder: str
    triggered_by: str
    attempt: int
    started_at: datetime


class RetryLater(Exception):
    """The attempt failed on a transient error; another one is due in ``wait`` seconds. The layer stays reserved."""

    def __init__(self, error: SyncError, wait: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


def new_holder() -> str:
    """A name for the process that holds a lease: host, process id, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


#: The store is away for a moment: what it raises is worth another attempt.
STORE_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)


def _store_failed(error: sa.exc.SQLAlchemyError) -> SyncError:
    return SyncError(
        f"did not answer ({type(error).__name__}: {str(getattr(error, 'orig', error)).strip()})",
        where="store",
        remedy="check that the database runs and has room",
        reason=Reason.UNAVAILABLE,
    )


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except STORE_ERRORS as error:
        raise _store_failed(error) from error


@_store_errors()
def attempt(
    store: Store,
    layer: LayerId,
    work: Callable[[LayerRun], LayerOutcome],
    *,
    triggered_by: str,
    clock: Clock,
    holder: str,
    next_sync: NextSync = never,
    waits: tuple[float, ...] = RETRY_WAITS,
    last: bool = True,
    takes_over: Collection[str] = (),
) -> LayerOutcome:
    """Make one attempt at a layer's sync and record how it ended.

    Args:
        work: does the sync. A `SyncError` that it raises is recorded as one line; anything else is a defect, recorded
            as ``internal`` and raised.
        triggered_by: who or what asked (``schedule``, ``webhook:<delivery>``, ``manual:<user>`` …).
        holder: the same value in each attempt of one sync; see `new_holder`.
        next_sync: when the layer is due again, given the present.
        last: ``False`` if further work of the same sync follows under the same ``holder``; the layer then stays in
            progress.
        takes_over: holders that are known to be gone; a lease of theirs does not make the layer busy.

    Raises:
        LayerBusy: somebody else is syncing this layer.
        RetryLater: call again with the same ``holder`` after the wait.
        SyncError: the sync failed for good.
    """
    run = _start(
        store,
        layer,
        holder=holder,
        triggered_by=triggered_by,
        now=clock(),
        next_sync=next_sync,
        takes_over=takes_over,
    )
    try:
        with _renewed(store, run, clock):
            outcome = work(run)
    except (SyncError, *STORE_ERRORS) as raised:
        error = raised if isinstance(raised, SyncError) else _store_failed(raised)
        wait = next_wait(error, run.attempt, waits)
        if wait is not None:
            _reserve(store, run, until=clock() + timedelta(seconds=wait) + LEASE, error=error)
            raise RetryLater(error, wait) from error
        _fail(store, run, str(error), now=clock(), next_sync=next_sync)
        raise error from raised.__cause__
    except (KeyboardInterrupt, SystemExit, Cancelled):
        _fail(
            store, run, f"layer {layer}: was interrupted; the next sync begins anew", now=clock(), next_sync=next_sync
        )
        raise
    except BaseException as defect:
        message = f"layer {layer}: {type(defect).__name__}: {defect}; please report this as a defect"
        _fail(store, run, message, now=clock(), next_sync=next_sync)
        raise
    if last:
        _finish(store, run, outcome, now=clock(), next_sync=next_sync)
    else:
        _hold(store, run, until=clock() + STEP_GAP)
    return outcome


def run_to_end(
    store: Store,
    layer: LayerId,
    work: Callable[[LayerRun], LayerOutcome],
    *,
    triggered_by: str,
    clock: Clock,
    sleep: Callable[[float], None],
    next_sync: NextSync = never,
    waits: tuple[float, ...] = RETRY_WAITS,
) -> LayerOutcome:
    """`attempt`, again after each wait, until it succeeds or fails for good. For the foreground."""
    holder = new_holder()
    while True:
        try:
            return attempt(
                store,
                layer,
                work,
                triggered_by=triggered_by,
                clock=clock,
                holder=holder,
                next_sync=next_sync,
                waits=waits,
            )
        except RetryLater as later:
            log.warning("sync_retries", layer=layer.value, wait_seconds=later.wait, error=str(later.error))
            try:
                sleep(later.wait)
            except BaseException:
                release(store, layer, holder, str(later.error), now=clock())
                raise


def _start(
    store: Store,
    layer: LayerId,
    *,
    holder: str,
    triggered_by: str,
    now: datetime,
    next_sync: NextSync,
    takes_over: Collection[str],
) -> LayerRun:
    with store.write(exclusive=f"layer:{layer}") as connection:
        row = connection.execute(sa.select(layer_status).where(layer_status.c.layer == layer.value)).one_or_none()
        if row is not None and row.lease_holder not in (None, holder, *takes_over) and is_held(row, now):
            raise LayerBusy(layer.value, row.lease_holder)
        resumed = None
        if row is not None and row.lease_holder == holder:
            resumed = connection.execute(
                sa.select(layer_runs).where(
                    layer_runs.c.layer == layer.value, layer_runs.c.holder == holder, layer_runs.c.finished_at.is_(None)
                )
            ).first()
        if resumed is not None:
            number, count, started_at = resumed.id, resumed.attempts, resumed.started_at
        else:
            _close_abandoned(connection, layer, now)
            count, started_at = 1, now
            number = connection.execute(
                layer_runs.insert()
                .values(
                    layer=layer.value,
                    status=Status.IN_PROGRESS.value,
                    triggered_by=triggered_by,
                    holder=holder,
                    started_at=now,
                    errors=[],
                    details={},
                )
                .returning(layer_runs.c.id)
            ).scalar_one()
        values = {
            "status": Status.IN_PROGRESS.value,
            "last_attempt": now,
            "next_sync": next_sync(now),
            "lease_holder": holder,
            "lease_expires_at": now + LEASE,
        }
        if row is None:
            connection.execute(
                layer_status.insert().values(
                    layer=layer.value,
                    errors=[],
                    details={},
                    items_synced=0,
                    items_changed=0,
                    consecutive_failures=0,
                    **values,
                )
            )
        else:
            connection.execute(layer_status.update().where(layer_status.c.layer == layer.value).values(**values))
    return LayerRun(number, layer, holder, triggered_by, count, started_at)


def _close_abandoned(connection: sa.Connection, layer: LayerId, now: datetime) -> None:
    connection.execute(
        layer_runs.update()
        .where(layer_runs.c.layer == layer.value, layer_runs.c.finished_at.is_(None))
        .values(
            status=Status.FAILED.value,
            finished_at=now,
            errors=["the process that ran this sync is gone; the sync after it starts anew"],
        )
    )


@contextmanager
def _renewed(store: Store, run: LayerRun, clock: Clock) -> Iterator[None]:
    """Renew the lease in the background while the block runs."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                with store.write() as connection:
                    connection.execute(
                        layer_status.update().where(_own_row(run)).values(lease_expires_at=clock() + LEASE)
                    )
            except sa.exc.SQLAlchemyError as error:
                log.warning("lease_not_renewed", layer=run.layer.value, error=str(error))

    thread = threading.Thread(target=renew, name=f"lease-{run.layer}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _clean(text: str) -> str:
    """One line for the record: without secrets, and of characters that a database takes."""
    return " ".join(redact_text(text).replace("\x00", "").split())


def release(store: Store, layer: LayerId, holder: str, error: str, *, now: datetime) -> None:
    """End a sync that waits for another attempt and will not make it."""
    with store.write(exclusive=f"layer:{layer}") as connection:
        row = connection.execute(
            sa.select(layer_runs).where(
                layer_runs.c.layer == layer.value, layer_runs.c.holder == holder, layer_runs.c.finished_at.is_(None)
            )
        ).first()
    if row is not None:
        run = LayerRun(row.id, layer, holder, row.triggered_by, row.attempts, row.started_at)
        _fail(store, run, error, now=now, next_sync=never)


def require_lease(connection: sa.Connection, run: LayerRun) -> None:
    """Make sure that the layer is still this run's, until the transaction ends. Call it before anything that another
    run must not find undone: a process that was stopped for a while may wake up as the second one.

    Raises:
        SyncError: another run has taken the layer over.
    """
    query = sa.select(layer_status.c.lease_holder).where(layer_status.c.layer == run.layer.value).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is not None and row.lease_holder != run.holder:
        raise SyncError(
            "was taken over by another sync while this one stood still",
            where=f"layer {run.layer}",
            remedy="nothing is to be done: the other one covers it",
            reason=Reason.BUSY,
            transient=False,
        )


def _own_row(run: LayerRun) -> sa.ColumnElement[bool]:
    """The layer's health row, as long as this run holds its lease: what somebody else took over is theirs."""
    return sa.and_(layer_status.c.layer == run.layer.value, layer_status.c.lease_holder == run.holder)


def _hold(store: Store, run: LayerRun, *, until: datetime) -> None:
    with store.write() as connection:
        connection.execute(layer_status.update().where(_own_row(run)).values(lease_expires_at=until))


def _reserve(store: Store, run: LayerRun, *, until: datetime, error: SyncError) -> None:
    with store.write() as connection:
        connection.execute(
            layer_status.update()
            .where(_own_row(run))
            .values(lease_expires_at=until, errors=[f"attempt {run.attempt} failed: {_clean(str(error))}"])
        )
        connection.execute(
            layer_runs.update()
            .where(layer_runs.c.id == run.number)
            .values(errors=[_clean(str(error))], attempts=run.attempt + 1)
        )


def _finish(
    store: Store,
    run: LayerRun,
    outcome: LayerOutcome,
    *,
    now: datetime,
    next_sync: NextSync,
) -> None:
    good = outcome.status is Status.SUCCESS
    status_values: dict[str, Any] = {
        "items_synced": outcome.items_synced,
        "items_changed": outcome.items_changed,
        "details": outcome.details,
        "as_of": outcome.as_of,
        "consecutive_failures": 0,
    }
    if good:
        status_values["last_sync"] = now
    _close(store, run, outcome.status, list(outcome.errors), status_values, now=now, next_sync=next_sync)


def _fail(store: Store, run: LayerRun, error: str, *, now: datetime, next_sync: NextSync) -> None:
    values = {"consecutive_failures": layer_status.c.consecutive_failures + 1}
    _close(store, run, Status.FAILED, [error], values, now=now, next_sync=next_sync)


def _close(
    store: Store,
    run: LayerRun,
    status: Status,
    errors: list[str],
    status_values: dict[str, Any],
    *,
    now: datetime,
    next_sync: NextSync,
) -> None:
    errors = [_clean(error) for error in errors]
    with store.write(exclusive=f"layer:{run.layer}") as connection:
        before = connection.scalar(
            sa.select(layer_runs.c.status)
            .where(layer_runs.c.layer == run.layer.value, layer_runs.c.finished_at.is_not(None))
            .order_by(layer_runs.c.id.desc())
            .limit(1)
        )
        closed = connection.execute(
            layer_status.update()
            .where(_own_row(run))
            .values(
                status=status.value,
                errors=errors,
                next_sync=next_sync(now),
                lease_holder=None,
                lease_expires_at=None,
                **status_values,
            )
        )
        if not closed.rowcount:
            log.warning("lease_was_taken_over", layer=run.layer.value, run=run.number)
            return
        connection.execute(
            layer_runs.update()
            .where(layer_runs.c.id == run.number)
            .values(
                status=status.value,
                errors=errors,
                finished_at=now,
                items_synced=status_values.get("items_synced", 0),
                items_changed=status_values.get("items_changed", 0),
                details=status_values.get("details", {}),
            )
        )
        changed = status_values.get("items_changed", 0)
        if before != status.value or changed:
            event = NewEvent(
                EventType.SYNC_STATUS,
                run.layer,
                now,
                data={
                    "status": status.value,
                    "items_changed": changed,
                    "errors": errors,
                    "triggered_by": run.triggered_by,
                },
            )
            event_log.append(connection, [event], recorded_at=now)
