"""Runs layers one after the other in this process, as the command line does: retried, recorded, reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LAYERS, LayerId
from lz_sync_dagster.sync.cadence import cadence_of
from lz_sync_dagster.sync.errors import LayerBusy, Reason, SyncError
from lz_sync_dagster.sync.inventory.requests import request_full_read
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import Status, SyncStatus
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, NextSync, never, run_to_end
from lz_sync_dagster.sync.store import Store, layer_runs, repository
from lz_sync_dagster.sync.timing import Clock
from lz_sync_dagster.sync.work import WORK

log = structlog.get_logger(__name__)

#: Deliveries are accounted for after the git sync that they asked for; the feed is drained before the inventory proves
#: it; the marts come last.
ORDER: tuple[LayerId, ...] = (LayerId.GIT, LayerId.WEBHOOK, LayerId.PUBSUB, LayerId.API, LayerId.BIGQUERY)


@dataclass(frozen=True, slots=True)
class ForegroundResult:
    """How one layer ended: its health afterwards, the seconds it took, and the figures of its assets."""

    status: SyncStatus
    seconds: float
    details: dict[str, Any]


def sync_layers(
    settings: Settings,
    store: Store,
    layers: Sequence[LayerId],
    *,
    triggered_by: str,
    clock: Clock,
    sleep: Callable[[float], None],
    progress: Callable[[LayerId], Progress],
    full: bool = False,
) -> list[ForegroundResult]:
    """Sync the layers that are enabled, in `ORDER`. A layer that fails does not stop the others.

    Args:
        layers: which ones; those that the configuration disables are reported as ``disabled`` and not run.
        progress: makes the `Progress` of a layer.
        full: look at everything anew. Only the git layer looks at what moved alone otherwise.

    Returns:
        One result per layer, in the order of the layers. Failures are in ``status``; they are not raised.
    """
    seconds: dict[LayerId, float] = {}
    details: dict[LayerId, dict[str, Any]] = {}
    errors: dict[LayerId, SyncError] = {}
    if full:
        with store.write() as connection:
            if LayerId.GIT in layers:
                repository.doubt_git_state(connection)
            if LayerId.API in layers:
                now = clock()
                request_full_read(connection, actor=triggered_by, key=f"full-{now.isoformat()}", now=now)
    for layer in ORDER:
        if layer not in layers or layer in settings.disabled_layers:
            continue
        started = time.monotonic()
        try:
            outcome = run_to_end(
                store,
                layer,
                _work(settings, store, layer, clock, progress(layer)),
                triggered_by=triggered_by,
                clock=clock,
                sleep=sleep,
                next_sync=_next_sync(settings, layer),
            )
            details[layer] = outcome.details
        except SyncError as error:
            errors[layer] = error
        except Exception as error:
            log.exception("layer_failed", layer=layer.value)
            errors[layer] = SyncError(
                f"failed ({type(error).__name__}: {error})",
                where=f"layer {layer}",
                remedy="please report this as a defect",
                reason=Reason.INTERNAL,
            )
        seconds[layer] = time.monotonic() - started
    with store.read() as connection:
        statuses = layer_runs.statuses(connection, now=clock(), disabled=settings.disabled_layers)
    return [
        ForegroundResult(
            _with_error(status, errors.get(status.layer)), seconds.get(status.layer, 0.0), details.get(status.layer, {})
        )
        for status in statuses
        if status.layer in layers
    ]


def _work(
    settings: Settings, store: Store, layer: LayerId, clock: Clock, progress: Progress
) -> Callable[[LayerRun], LayerOutcome]:
    def work(run: LayerRun) -> LayerOutcome:
        return WORK[layer](settings, store, run, clock=clock, progress=progress)

    return work


def _next_sync(settings: Settings, layer: LayerId) -> NextSync:
    cadence = cadence_of(layer, settings)
    return never if cadence is None else cadence.after


def _with_error(status: SyncStatus, error: SyncError | None) -> SyncStatus:
    """A sync that could not even start (`LayerBusy`) left no trace in the layer's health: say it here."""
    if error is None or (status.errors and not isinstance(error, LayerBusy)):
        return status
    return status.model_copy(update={"status": Status.FAILED, "errors": [*status.errors, str(error)]})


def report(settings: Settings, store: Store, results: Sequence[ForegroundResult], *, now: datetime) -> dict[str, Any]:
    """The JSON document of a foreground sync: ``layers``, ``state`` (counts by kind), ``coverage``, ``durations`` in
    seconds."""
    with store.read() as connection:
        state = infrastructure_state(connection, now=now, disabled=settings.disabled_layers, limit=0)
    return {
        "layers": [result.status.model_dump(mode="json") for result in results],
        "state": {
            "counts": state.counts,
            "compliance_score": state.compliance_score,
            "as_of": None if state.as_of is None else state.as_of.isoformat(),
            "source": state.source,
        },
        "coverage": state.coverage.model_dump(mode="json"),
        "durations": {result.status.layer.value: round(result.seconds, 3) for result in results},
        "details": {result.status.layer.value: result.details for result in results},
    }


def succeeded(results: Sequence[ForegroundResult]) -> bool:
    """Whether every layer that was asked for is in sync (or switched off)."""
    return all(result.status.status in (Status.SUCCESS, Status.DISABLED) for result in results)


def layers_of(command: str) -> tuple[LayerId, ...]:
    """The layers that a word of ``lz-sync sync`` names. Raises ``KeyError`` for an unknown word."""
    if command == "all":
        return tuple(layer.id for layer in LAYERS)
    return ({layer.command: layer.id for layer in LAYERS}[command],)
