"""What the pages show: one reading of the store, shared by every open page of this process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import Coverage, FeedFrame, LZInfrastructureState, SyncStatus
from lz_sync_dagster.sync.store import Store, daily_metrics, event_log, inbox, layer_runs
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store.daily_metrics import DailyMetric
from lz_sync_dagster.sync.store.inbox import DeliveryRecord
from lz_sync_dagster.sync.timing import Clock

EVENTS = 50
DELIVERIES = 8
DAYS = 120
#: How long a reading serves every page before the next one.
SHARED_SECONDS = 0.8
#: How long a reading waits for another one that is under way.
BUSY_SECONDS = 2.0
#: How often the figures that cost more to read are read, if something happened.
FIGURES_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The state's counts and score, and the daily metrics, oldest first."""

    state: LZInfrastructureState
    daily: list[DailyMetric]


@dataclass(frozen=True, slots=True)
class Board:
    """One reading. ``events`` and ``deliveries``: the newest ones, newest first."""

    read_at: datetime
    layers: list[SyncStatus]
    coverage: Coverage
    events: list[FeedFrame]
    deliveries: list[DeliveryRecord]
    figures: Figures


class BoardReader:
    """Reads boards, at most one at a time and not more often than needed. Call it from worker threads."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._read = 0.0
        self._figures_read = 0.0
        self._figures_key: object = None
        self.last: Board | None = None

    def read(self) -> Board:
        """The board now. Raises what the store raises; `last` keeps the last good one.

        Raises:
            TimeoutError: another reading is under way and does not end.
        """
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            raise TimeoutError("the store does not answer")
        try:
            if self.last is not None and time.monotonic() - self._read < SHARED_SECONDS:
                return self.last
            self.last = self._load()
            self._read = time.monotonic()
            return self.last
        finally:
            self._lock.release()

    def _load(self) -> Board:
        now = self._clock()
        disabled = self._settings.disabled_layers
        with self._store.read() as connection:
            layers = layer_runs.statuses(connection, now=now, disabled=disabled)
            coverage = coverage_ledger.summary(connection, now=now, ttl=layer_runs.CACHE_TTL)
            seq = event_log.last_seq(connection)
            events = event_log.after(connection, max(0, seq - EVENTS), limit=EVENTS)
            deliveries = inbox.records(connection, limit=DELIVERIES)
            figures = self.last.figures if self.last else None
            key = (seq, coverage, [(layer.last_attempt, layer.status, layer.as_of) for layer in layers])
            if figures is None or (
                key != self._figures_key and time.monotonic() - self._figures_read >= FIGURES_SECONDS
            ):
                figures = Figures(
                    state=infrastructure_state(connection, now=now, disabled=disabled, limit=1),
                    daily=daily_metrics.latest(connection, days=DAYS),
                )
                self._figures_key, self._figures_read = key, time.monotonic()
        return Board(
            read_at=now,
            layers=layers,
            coverage=coverage,
            events=events[::-1],
            deliveries=deliveries,
            figures=figures,
        )
