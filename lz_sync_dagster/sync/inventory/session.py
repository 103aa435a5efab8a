"""Reads the parts of one sync. Parts are isolated: of one that fails, the reason goes to the ledger, its last good copy
stays, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from lz_sync_dagster.config import ApiSyncConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.delta import read_delta
from lz_sync_dagster.sync.inventory.letters import first_line
from lz_sync_dagster.sync.inventory.loading import Ended, PartLoader, incomplete, where
from lz_sync_dagster.sync.inventory.outcome import Tally
from lz_sync_dagster.sync.inventory.planner import DeltaRead, ReadPlan
from lz_sync_dagster.sync.inventory.taking import Taker, is_about_data
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import STORE_ERRORS
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import Store, coverage, part_reads
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.part_reads import KnownVersion
from lz_sync_dagster.sync.store.quota import Allowance, Cancelled
from lz_sync_dagster.sync.store.schema import coverage as coverage_table
from lz_sync_dagster.sync.timing import Clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """What reads parts, and says in the ledger and in ``tally`` what became of each.

    Args:
        client: an ``AssetServiceClient``.
        loader: loads parts page by page from the inventory.
        taker: takes in what deltas find.
    """

    store: Store
    config: ApiSyncConfig
    client: Any
    loader: PartLoader
    taker: Taker
    allowance: Allowance
    tally: Tally
    clock: Clock

    def follow(self, plan: ReadPlan, progress: Progress) -> None:
        """First what has changed, then the parts in full. Without quota, what is left stays as it was."""
        self.tally.plans.append(plan)
        total = len(plan.deltas) + len(plan.full)
        for done, delta in enumerate(plan.deltas):
            progress(f"searching changes of {len(delta.asset_types)} types in {delta.scope}", done, total)
            self._read_delta(delta)
        parts = [full.part for full in plan.full]
        announced = _announced(parts, progress, done=len(plan.deltas), total=total)
        for number, ended in enumerate(self.loader.load(announced), start=1):
            error = self._settle(ended, by_list=True)
            if error is not None and error.reason is Reason.QUOTA:
                self._leave_unread(parts[number:], error)
                break
        progress("reading", total, total)

    def read_exported(self, parts: Sequence[Part], loader: PartLoader, progress: Progress) -> None:
        """Read parts from an export."""
        for ended in loader.load(_announced(parts, progress, total=len(parts), of=" of the export")):
            self._settle(ended, by_list=False)

    def fail(self, parts: Sequence[Part], error: SyncError) -> None:
        """Say of parts why they could not be read."""
        self.tally.errors |= dict.fromkeys(parts, error)
        self._mark(parts, error)

    def say_what_waits(self) -> None:
        """Parts that nobody asked for in this sync and that are not known are no success: the ledger says why."""
        with self.store.read() as connection:
            gaps = {
                (row.scope, row.asset_type, row.content_type): row
                for row in connection.execute(
                    sa.select(coverage_table).where(coverage_table.c.status != CoverageStatus.COMPLETE.value)
                )
            }
        reasons = {skip.part: skip.reason for plan in self.tally.plans for skip in plan.skipped}
        reasons |= {part: words for words, parts in self.tally.under_way.items() for part in parts}
        for part, row in gaps.items():
            if part in self.tally.errors or part in self.tally.proven:
                continue
            reason = Reason(row.reason) if row.reason else Reason.NOT_READ_YET
            remedy, what, why = row.remedy or "wait for a later sync", row.detail or "not read yet", reasons.get(part)
            if why is not None and reason is Reason.NOT_READ_YET:
                what = why
                self._mark([part], SyncError(what, where=where(part), remedy=remedy, reason=reason))
            elif why is not None:
                what = f"{what} ({why})"
            self.tally.waiting[part] = SyncError(what, where=where(part), remedy=remedy, reason=reason, transient=False)

    def _settle(self, ended: Ended, *, by_list: bool) -> SyncError | None:
        """Say what became of a full read. Returns why it proves nothing, or less."""
        part, loaded, raised = ended
        if raised is None:
            error = incomplete(part, loaded)
            self.tally.count(part, by_list=by_list)
        else:
            error = explained(raised, where(part))
        self.tally.take(part, loaded, error)
        if error is None:
            with self.store.write() as connection:
                part_reads.record_full(connection, part, calls=loaded.calls if by_list else None)
        elif error.reason is not Reason.BREAKER_OPEN:  # the read has marked it, and somebody may have confirmed since
            self._mark([part], error, was_read=bool(loaded.unusable))
        return error

    def _read_delta(self, delta: DeltaRead) -> None:
        def known(names: Sequence[str]) -> Mapping[str, KnownVersion]:
            with self.store.read() as connection:
                return part_reads.known_versions(connection, names, ContentType.RESOURCE.value)

        try:
            found = read_delta(
                self.client,
                delta.scope,
                delta.asset_types,
                delta.since_ns,
                known,
                calls=self.allowance,
                clock=self.clock,
                timeout_seconds=self.config.call_timeout_seconds,
            )
            self.tally.take_delta(found, self.taker.take_delta(found))
            with self.store.write() as connection:
                part_reads.record_delta(connection, found.looked_at, until_ns=found.until_ns)
        except Exception as raised:
            error = explained(raised, f"changes in {delta.scope}")
            self.tally.late |= dict.fromkeys(delta.parts, error)

    def _leave_unread(self, parts: Sequence[Part], quota: SyncError) -> None:
        """Say of parts that they were not asked for, since the quota is used up. What was read once keeps its
        coverage."""
        for part in parts:
            error = SyncError(
                "was not read in this sync, since the quota is used up",
                where=where(part),
                remedy=quota.remedy,
                reason=Reason.QUOTA,
                retry_after=quota.retry_after,
            )
            self.tally.errors[part] = error
            self._mark([part], error, only_unread=True)

    def _mark(
        self, parts: Sequence[Part], error: SyncError, *, was_read: bool = False, only_unread: bool = False
    ) -> None:
        """Write why parts are not known: ``partial`` if they were (``was_read``) read to their end now or completely
        once, else ``unknown``. With ``only_unread`` one that was read completely once keeps what is written of it."""
        with self.store.write() as connection:
            once = {
                (row.scope, row.asset_type, row.content_type)
                for row in connection.execute(
                    sa.select(coverage_table).where(coverage_table.c.complete_read_ns.is_not(None))
                )
            }
            gaps = [
                CoverageMark(
                    *part,
                    CoverageStatus.PARTIAL if was_read or part in once else CoverageStatus.UNKNOWN,
                    error.reason,
                    error.what,
                    error.remedy,
                )
                for part in parts
                if not (only_unread and part in once)
            ]
            coverage.mark(connection, gaps, now=self.clock())


def _announced(parts: Sequence[Part], progress: Progress, *, total: int, done: int = 0, of: str = "") -> Iterator[Part]:
    """The parts; of each is said that it is read, when somebody takes it."""
    for number, part in enumerate(parts, start=done):
        scope, asset_type, content_type = part
        progress(f"reading {asset_type} {content_type.lower()}{of} in {scope}", number, total)
        yield part


def explained(raised: Exception, place: str) -> SyncError:
    """Why a part failed, as its own error; what is no `SyncError` is a defect that costs this part alone.

    Raises:
        Exception: ``raised``, if it concerns more than a part: the store is away, or somebody asked to stop.
    """
    if isinstance(raised, SyncError):
        return raised
    if isinstance(raised, Cancelled) or (isinstance(raised, STORE_ERRORS) and not is_about_data(raised)):
        raise raised
    log.error("part_failed", where=place, exc_info=raised)
    return SyncError(
        f"{type(raised).__name__}: {first_line(raised)}",
        where=place,
        remedy="please report this as a defect; the other types are read",
        reason=Reason.INTERNAL,
    )
