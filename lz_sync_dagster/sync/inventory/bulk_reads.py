"""What a sync reads by export instead of page by page.

Exports are begun first, so that Google works on them while the other parts are read; then the sync waits for them, but
not beyond its cadence. One that goes on then is the next sync's to wait for. Between two exports its parts are looked
after by deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.bulk import ExportPlan, Manifest, exportable, feeds_store
from lz_sync_dagster.sync.inventory.bulk_path import BulkPath
from lz_sync_dagster.sync.inventory.loading import PartLoader, PartReader
from lz_sync_dagster.sync.inventory.session import Session, explained
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import reads
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.store.quota import Cancelled
from lz_sync_dagster.sync.timing import Clock

_WHERE = "exports"


class BulkReads:
    """The exports of one sync. A context manager.

    Attributes:
        parts: parts that exports prove: they are not to be listed.

    Args:
        loader: makes what loads parts from a reader.
        until: the sync waits for exports no longer than until then.
        wait: waits so many seconds and says whether somebody asked to stop, like ``threading.Event.wait``.
    """

    def __init__(
        self,
        settings: Settings,
        session: Session,
        loader: Callable[[PartReader], PartLoader],
        *,
        until: datetime,
        clock: Clock,
        wait: Callable[[float], bool],
    ) -> None:
        self.parts: set[Part] = set()
        self._settings = settings
        self._session = session
        self._loader = loader
        self._until = until
        self._patience = _Patience(clock, wait)
        self._bulk: BulkPath | None = None
        self._going_on: list[ExportPlan] = []
        self._to_list: list[Part] = []

    def begin(self, states: Sequence[PartState], *, asked_ns: int, progress: Progress) -> None:
        """Begin what is due, and read what is published already.

        Args:
            states: one per part of the configuration.
            asked_ns: somebody asked for all to be read anew then; 0: nobody did.
        """
        parts = exportable(self._settings.sync_layers.api_sync.bulk, states)
        proven = self._session.tally.proven
        if not parts:
            return
        try:
            bulk = self._bulk = self._open()
            newest = bulk.newest(parts)
            due = bulk.due(parts, newest, asked_ns=asked_ns)
        except Exception as raised:
            error = explained(raised, _WHERE)
            if feeds_store(self._settings.sync_layers.api_sync.bulk):
                self.parts.update(parts)
                self._session.fail([part for part in parts if part not in proven], error)
            else:
                self._session.tally.others.append(error)
            return
        for plan in due:
            if set(plan.parts) - proven or not bulk.feeds_store:
                self._advance(bulk, plan, progress)
        if bulk.feeds_store:
            later = {(plan.scope, plan.content_type) for plan in due}
            self._read_published(parts, {key: item for key, item in newest.items() if key not in later}, progress)

    def finish(self, progress: Progress) -> list[Part]:
        """Wait for what was begun, and read it. Returns parts that have to be listed after all, for once."""
        self._patience.until = self._until
        going_on, self._going_on, self._to_list = self._going_on, [], []
        self._session.tally.under_way.clear()
        if self._bulk is not None:
            for plan in going_on:
                self._advance(self._bulk, plan, progress)
        return self._to_list

    def _open(self) -> BulkPath:
        session = self._session
        return BulkPath(
            self._settings, session.client, calls=session.allowance, clock=session.clock, wait=self._patience
        )

    def _advance(self, bulk: BulkPath, plan: ExportPlan, progress: Progress) -> None:
        """Begin an export, or go on with it, as far as patience permits."""
        if bulk.feeds_store:
            self.parts.update(plan.parts)
        words = f"export of {plan.content_type} in {plan.scope}"
        progress(f"waiting for the {words}", 0, None)
        try:
            try:
                manifest = bulk.export(plan)
            except Cancelled:
                running = bulk.running(plan)
                since = "" if running is None else f" since {running.started_at:%Y-%m-%d %H:%M} UTC"
                parts = plan.parts if bulk.feeds_store else []
                self._session.tally.under_way[f"an {words} is under way{since}"] = parts
                self._going_on.append(plan)
                return
        except Exception as raised:
            self._failed(bulk, plan, explained(raised, words))
            return
        if bulk.feeds_store:
            self._read(bulk, manifest, plan.parts, progress)

    def _failed(self, bulk: BulkPath, plan: ExportPlan, error: SyncError) -> None:
        if bulk.feeds_store and error.reason is not Reason.UNKNOWN_TYPE:
            self._session.fail([part for part in plan.parts if part not in self._session.tally.proven], error)
            return
        self._session.tally.others.append(error)
        if bulk.feeds_store:  # which type it is, only listing tells: it is left alone then, and the others are exported
            self.parts.difference_update(plan.parts)
            self._to_list.extend(plan.parts)

    def _read_published(
        self, parts: Iterable[Part], newest: dict[tuple[str, str], Manifest], progress: Progress
    ) -> None:
        """Read what a sync before this one did not come to. A part that an export was made without is listed."""
        assert self._bulk is not None
        with self._session.store.read() as connection:
            read_ns = reads.newest_reads_of(connection, parts := list(parts))
        for key, manifest in newest.items():
            held = [part for part in parts if (part[0], part[2]) == key and part[1] in manifest.types]
            self.parts.update(held)
            self._read(
                self._bulk, manifest, [part for part in held if read_ns.get(part, -1) < manifest.read_ns], progress
            )

    def _read(self, bulk: BulkPath, manifest: Manifest, parts: Sequence[Part], progress: Progress) -> None:
        loader = self._loader(reader := bulk.reader([manifest]))
        unread = [part for part in parts if part not in self._session.tally.proven and reader.has(part)]
        self._session.read_exported(unread, loader, progress)

    def __enter__(self) -> BulkReads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bulk is not None:
            self._bulk.__exit__(kind, error, trace)


class _Patience:
    """Waits, but not beyond ``until``; not at all while that is ``None``."""

    def __init__(self, clock: Clock, wait: Callable[[float], bool]) -> None:
        self.until: datetime | None = None
        self._clock = clock
        self._wait = wait

    def __call__(self, seconds: float) -> bool:
        if self.until is None or self._clock() + timedelta(seconds=seconds) > self.until:
            return True
        return self._wait(seconds)
