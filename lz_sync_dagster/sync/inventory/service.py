"""Layer 3: a full read of every part of the inventory, into the state, the coverage ledger and Parquet.

Parts are isolated: one that fails leaves its reason in the ledger and its last good copy in place, and the others go
    on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime

import sqlalchemy as sa
import structlog

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool
from lz_sync_dagster.sync.inventory.letters import first_line
from lz_sync_dagster.sync.inventory.loading import Loaded, PartLoader, incomplete
from lz_sync_dagster.sync.inventory.parquet import export_inventory
from lz_sync_dagster.sync.inventory.reader import AssetReader, make_client
from lz_sync_dagster.sync.inventory.types import plan_parts
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.retry import RETRY_WAITS
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.state.reducer import Breaker, Part
from lz_sync_dagster.sync.store import Store, assets, coverage, findings, inbox, verdicts
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.inbox import Delivery
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.schema import coverage as coverage_table
from lz_sync_dagster.sync.store.schema import layer_runs
from lz_sync_dagster.sync.timing import Clock, from_ns, to_ns

log = structlog.get_logger(__name__)

#: Where the record of a run keeps what its attempts changed so far.
_APPLIED = "applied_so_far"
#: Assets that are not fresh while one part is served from its last good copy.
_RESTS_ON_ALL_PARTS = frozenset({"resources", "findings", "infrastructure_state"})


@dataclass
class _Tally:
    """What the parts of one sync came to."""

    applied: Applied = field(default_factory=Applied)
    read: int = 0
    missing: int = 0
    missed_by_feed: int = 0
    unusable: int = 0
    errors: list[SyncError] = field(default_factory=list)
    proven: set[Part] = field(default_factory=set)

    def take(self, part: Part, loaded: Loaded, error: SyncError | None) -> None:
        """Count what became of a part."""
        self.read += loaded.assets
        self.unusable += loaded.unusable
        self.applied += loaded.applied
        self.missed_by_feed += 0 if loaded.baseline else loaded.applied.changed
        if loaded.result is not None:
            self.missing += loaded.result.missing
            self.applied += Applied(deleted=loaded.result.deleted)
            self.missed_by_feed += loaded.result.deleted
        if error is None:
            self.proven.add(part)
        else:
            self.errors.append(error)


def sync_inventory(
    settings: Settings, store: Store, run: LayerRun, *, clock: Clock, progress: Progress
) -> LayerOutcome:
    """Read every configured part completely, and say of each whether it worked.

    An attempt after the first one reads only the parts that are not proven since the sync began. Requests of the inbox
    from before it began are done when it ends.

    Raises:
        SyncError: nothing could be read, or a transient error asks for another attempt.
    """
    config = settings.sync_layers.api_sync
    requests = _requests_before(store, run)
    if not config.scopes:
        raise SyncError(
            "names no scope to read",
            where="sync_layers.api_sync.scopes",
            remedy="list organizations/NUMBER, folders/NUMBER or projects/NUMBER",
            reason=Reason.INVALID,
        )
    plan = plan_parts(config.scopes, config.endpoints, config.content_types)
    controls = load_controls()
    verdicts.refresh(store, controls.fingerprint, controls.evaluate, layer=LayerId.API, now=clock())
    _open_ledger(store, plan.parts, now=clock())
    tally = _Tally()
    if run.attempt > 1:
        tally.proven, tally.applied = _proven_since(store, run.started_at), _applied_before(store, run)
    reader = AssetReader(
        make_client(settings.google_cloud.asset_endpoint),
        page_size=config.page_size,
        timeout_seconds=config.call_timeout_seconds,
    )
    parts = [part for part in plan.parts if part not in tally.proven]
    breaker = Breaker(config.mass_delete_share, config.mass_delete_minimum)
    try:
        with DecodePool(controls.evaluate) as pool:
            loader = PartLoader(store, reader, pool, controls.evaluate, breaker, clock=clock)
            for done, part in enumerate(parts):
                progress(f"reading {part[1]} {part[2].lower()} in {part[0]}", done, len(parts))
                _read_part(store, loader, part, tally, clock=clock)
                if tally.errors and tally.errors[-1].reason is Reason.QUOTA:
                    _leave_unread(store, parts[done + 1 :], tally, clock=clock)
                    break
    finally:
        reader.close()
    progress("reading", len(parts), len(parts))

    transient = [error for error in tally.errors if error.transient]
    if transient and run.attempt <= len(RETRY_WAITS):
        _keep_applied(store, run, tally.applied)
        raise max(transient, key=lambda error: error.retry_after or 0.0)
    written = export_inventory(store, settings.raw_dir, judged=controls.kinds, now=clock(), progress=progress)
    if tally.errors and len(tally.errors) == len(plan.parts):
        raise tally.errors[0]
    outcome = _outcome(store, tally, written, now=clock())
    with store.write() as connection:
        inbox.finish(connection, requests, run_id=str(run.number), now=clock())
    return outcome


def _requests_before(store: Store, run: LayerRun) -> list[Delivery]:
    """What asked for this sync before it began; what came since waits for the next one. A later attempt does not read
    everything again, so it settles no more than the first."""
    with store.read() as connection:
        return [request for request in inbox.pending(connection, LayerId.API) if request.asked_at <= run.started_at]


def _applied_before(store: Store, run: LayerRun) -> Applied:
    """What the attempts of this sync before this one changed."""
    with store.read() as connection:
        details = connection.scalar(sa.select(layer_runs.c.details).where(layer_runs.c.id == run.number)) or {}
    return Applied(**details.get(_APPLIED, {}))


def _keep_applied(store: Store, run: LayerRun, applied: Applied) -> None:
    with store.write() as connection:
        connection.execute(
            layer_runs.update().where(layer_runs.c.id == run.number).values(details={_APPLIED: asdict(applied)})
        )


def _leave_unread(store: Store, parts: list[Part], tally: _Tally, *, clock: Clock) -> None:
    """Say of parts that they were not asked for, since the quota is used up. What was read once keeps its coverage."""
    quota = tally.errors[-1]
    for part in parts:
        error = SyncError(
            "was not read in this sync, since the quota is used up",
            where=_where(part),
            remedy=quota.remedy,
            reason=Reason.QUOTA,
            retry_after=quota.retry_after,
        )
        tally.errors.append(error)
        _mark(store, part, error, clock=clock, only_unread=True)


def _open_ledger(store: Store, parts: tuple[Part, ...], *, now: datetime) -> None:
    """Give every planned part a row, and drop the rows of parts that the configuration no longer names."""
    with store.write() as connection:
        known = {(row.scope, row.asset_type, row.content_type) for row in connection.execute(sa.select(coverage_table))}
        new = [
            CoverageMark(*part, CoverageStatus.UNKNOWN, Reason.NOT_READ_YET, "not read yet", "wait for this sync")
            for part in parts
            if part not in known
        ]
        coverage.mark(connection, new, now=now)
        coverage.forget(connection, known - set(parts))


def _proven_since(store: Store, since: datetime) -> set[Part]:
    with store.read() as connection:
        rows = connection.execute(
            sa.select(coverage_table).where(
                coverage_table.c.status == CoverageStatus.COMPLETE.value,
                coverage_table.c.complete_read_ns >= to_ns(since),
            )
        )
        return {(row.scope, row.asset_type, row.content_type) for row in rows}


def _read_part(store: Store, loader: PartLoader, part: Part, tally: _Tally, *, clock: Clock) -> None:
    loaded = Loaded()
    error: SyncError | None
    try:
        loader.load(part, loaded)
        error = incomplete(part, loaded)
    except SyncError as failed:
        error = failed
    except Exception as defect:
        log.exception("part_failed", scope=part[0], asset_type=part[1], content_type=part[2])
        error = SyncError(
            f"{type(defect).__name__}: {first_line(defect)}",
            where=_where(part),
            remedy="please report this as a defect; the other types are read",
            reason=Reason.INTERNAL,
        )
    tally.take(part, loaded, error)
    if error is not None:
        _mark(store, part, error, clock=clock, was_read=bool(loaded.unusable))


def _where(part: Part) -> str:
    return f"{part[1]} in {part[0]}"


def _mark(
    store: Store, part: Part, error: SyncError, *, clock: Clock, was_read: bool = False, only_unread: bool = False
) -> None:
    """Write why a part is not known: ``partial`` if it ``was_read`` to its end now or completely once, else
    ``unknown``. With ``only_unread`` a part that was read completely once keeps what is written of it."""
    with store.write() as connection:
        known = connection.scalar(
            sa.select(coverage_table.c.complete_read_ns).where(
                coverage_table.c.scope == part[0],
                coverage_table.c.asset_type == part[1],
                coverage_table.c.content_type == part[2],
            )
        )
        if known is not None and only_unread:
            return
        status = CoverageStatus.UNKNOWN if known is None and not was_read else CoverageStatus.PARTIAL
        gap = CoverageMark(*part, status, error.reason, error.what, error.remedy)
        coverage.mark(connection, [gap], now=clock())


def _outcome(store: Store, tally: _Tally, written: int, *, now: datetime) -> LayerOutcome:
    with store.read() as connection:
        counts = assets.count_existing(connection)
        ledger = coverage.summary(connection, now=now, ttl=CACHE_TTL)
        open_findings = findings.count_open(connection)
        read_ns = {
            (row.scope, row.asset_type, row.content_type): row.complete_read_ns
            for row in connection.execute(
                sa.select(coverage_table).where(coverage_table.c.complete_read_ns.is_not(None))
            )
        }
    as_of = from_ns(min(read_ns.values())) if read_ns else now
    total = sum(counts.values())
    return LayerOutcome(
        items_synced=total,
        items_changed=tally.applied.changed,
        as_of=as_of,
        status=Status.PARTIAL if tally.errors else Status.SUCCESS,
        errors=tuple(_merged(tally.errors)),
        from_cache=_RESTS_ON_ALL_PARTS if read_ns.keys() - tally.proven else frozenset(),
        details={
            "resources": {
                "count": total,
                "read": tally.read,
                "created": tally.applied.created,
                "updated": tally.applied.updated,
                "deleted": tally.applied.deleted,
                "missing_once": tally.missing,
                "missed_by_feed": tally.missed_by_feed,
                "unusable": tally.unusable,
                "parquet_files_written": written,
            },
            "coverage": {
                "status": ledger.status.value,
                "complete": ledger.complete,
                "partial": ledger.partial,
                "stale": ledger.stale,
                "unknown": ledger.unknown,
            },
            "findings": {"open": open_findings},
            "infrastructure_state": {"asset_types": len(counts), "as_of": as_of.isoformat()},
        },
    )


def _merged(errors: list[SyncError]) -> list[str]:
    """One line per distinct failure; failures that differ only in what they struck share a line."""
    groups: dict[tuple[str, str], list[SyncError]] = {}
    for error in errors:
        groups.setdefault((error.reason.value, error.remedy), []).append(error)
    return [
        str(group[0]) if len(group) == 1 else f"{group[0]} (and {len(group) - 1} more parts alike)"
        for group in groups.values()
    ]
