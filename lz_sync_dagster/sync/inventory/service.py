"""Layer 3: what Cloud Asset Inventory tells, into the state, the coverage ledger and Parquet.

The plan says what is read in full, what by delta and what not (`planner`). Parts are isolated: one that fails leaves
its reason in the ledger and its last good copy in place, and the others go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from lz_sync_dagster.config import ApiSyncConfig, Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.compliance.verdict import Evaluator
from lz_sync_dagster.sync.drift.service import refreshed as refreshed_drift
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool
from lz_sync_dagster.sync.inventory.delta import DeltaResult, read_delta
from lz_sync_dagster.sync.inventory.letters import first_line
from lz_sync_dagster.sync.inventory.loading import Loaded, PartLoader, incomplete, where
from lz_sync_dagster.sync.inventory.planner import DeltaRead, ReadPlan, plan_reads, policy_of, quotas_of
from lz_sync_dagster.sync.inventory.reader import AssetReader, make_client
from lz_sync_dagster.sync.inventory.types import plan_parts
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.picture import export_inventory, is_landed
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.retry import RETRY_WAITS
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Breaker, Part
from lz_sync_dagster.sync.store import Store, assets, breakers, coverage, findings, inbox, part_reads, quota, verdicts
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.inbox import Delivery
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.part_reads import KnownVersion
from lz_sync_dagster.sync.store.quota import Allowance, Quota
from lz_sync_dagster.sync.store.schema import coverage as coverage_table
from lz_sync_dagster.sync.store.schema import layer_runs
from lz_sync_dagster.sync.timing import Clock, from_ns, to_ns

#: Decides what is read: `plan_reads`.
Planner = Callable[..., ReadPlan]

#: The event of a request for a read of everything.
FULL_READ = "full_read"

log = structlog.get_logger(__name__)

#: Where the record of a run keeps what its attempts changed so far.
_APPLIED = "applied_so_far"
#: Assets that are not fresh while one part is served from its last good copy.
_RESTS_ON_ALL_PARTS = frozenset({"resources", "findings", "infrastructure_state", "terraform_drift"})


@dataclass
class _Tally:
    """What the parts of one sync came to.

    Attributes:
        errors: why a full read of a part proved nothing.
        late: why changes of a part could not be looked for; its proof is as good as before.
        waiting: parts that are not known, and that the plan leaves for later.
        looked_at: parts that were searched for changes.
    """

    applied: Applied = field(default_factory=Applied)
    read: int = 0
    decoded: int = 0
    calls: int = 0
    missing: int = 0
    missed_by_feed: int = 0
    unusable: int = 0
    drifted: int = 0
    errors: dict[Part, SyncError] = field(default_factory=dict)
    late: dict[Part, SyncError] = field(default_factory=dict)
    waiting: dict[Part, SyncError] = field(default_factory=dict)
    proven: set[Part] = field(default_factory=set)
    looked_at: set[Part] = field(default_factory=set)

    @property
    def transient(self) -> list[SyncError]:
        """What another attempt may cure."""
        return [error for error in (*self.errors.values(), *self.late.values()) if error.transient]

    def take(self, part: Part, loaded: Loaded, error: SyncError | None) -> None:
        """Count what became of a full read."""
        self.calls += loaded.calls
        self.read += loaded.assets
        self.decoded += loaded.decoded
        self.unusable += loaded.unusable
        self.drifted += loaded.drifted
        self.applied += loaded.applied
        self.missed_by_feed += 0 if loaded.baseline else loaded.applied.changed
        if loaded.result is not None:
            self.missing += loaded.result.missing
            self.applied += Applied(deleted=loaded.result.deleted)
            self.missed_by_feed += loaded.result.deleted
        if error is None:
            self.proven.add(part)
        else:
            self.errors[part] = error

    def take_delta(self, found: DeltaResult, loaded: Loaded) -> None:
        """Count what became of a delta read."""
        self.calls += sum(found.calls.values())
        self.read += found.changed
        self.decoded += loaded.decoded
        self.unusable += loaded.unusable
        self.drifted += loaded.drifted
        self.applied += loaded.applied
        self.missed_by_feed += loaded.applied.changed
        self.looked_at.update(found.looked_at)
        for asset_type, error in found.errors.items():
            self.late[found.scope, asset_type, ContentType.RESOURCE.value] = error


def sync_inventory(
    settings: Settings,
    store: Store,
    run: LayerRun,
    *,
    clock: Clock,
    progress: Progress,
    plan_with: Planner = plan_reads,
) -> LayerOutcome:
    """Read what the plan says of each configured part, and say of each whether it worked.

    An attempt after the first one reads only the parts that are not proven since the sync began, and so does a sync
    after one whose process died. Requests of the inbox from before it began are done when it ends.

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
    parts = plan_parts(config.scopes, config.endpoints, config.content_types).parts
    controls = load_controls()
    verdicts.refresh(store, controls.fingerprint, controls.evaluate, layer=LayerId.API, now=clock())
    _open_ledger(store, parts, now=clock())
    tally = _Tally(proven=_proven_already(store, run, config) & set(parts))
    if run.attempt > 1:
        tally.applied = _applied_before(store, run)
    plan = _plan(
        store,
        config,
        [part for part in parts if part not in tally.proven],
        everything=any(request.event == FULL_READ for request in requests),
        now=clock(),
        plan_with=plan_with,
    )
    with _reading(settings, store, controls.evaluate, tally, clock=clock) as session:
        session.read(plan, progress)
    if tally.transient and run.attempt <= len(RETRY_WAITS):
        _keep_applied(store, run, tally.applied)
        raise max(tally.transient, key=lambda error: error.retry_after or 0.0)
    _record_failures(store, tally, config, now=clock())
    written = 0
    if not is_landed(settings.raw_dir, now=clock()):
        written = export_inventory(store, settings.raw_dir, judged=controls.kinds, now=clock(), progress=progress)
    if tally.errors and not tally.proven and not tally.looked_at:
        raise next(iter(tally.errors.values()))
    outcome = _outcome(store, plan, tally, written, now=clock())
    outcome.details["terraform_drift"] = refreshed_drift(store, clock=clock)
    with store.write() as connection:
        inbox.finish(connection, requests, run_id=str(run.number), now=clock())
    return outcome


def request_full_read(connection: sa.Connection, *, actor: str, key: str, now: datetime) -> None:
    """Ask that the next sync reads every part in full, whatever the quota. ``key`` names the request."""
    inbox.request(connection, LayerId.API, key=key, event=FULL_READ, actor=actor, commit=None, now=now)


def _plan(
    store: Store,
    config: ApiSyncConfig,
    parts: Sequence[Part],
    *,
    everything: bool,
    now: datetime,
    plan_with: Planner,
) -> ReadPlan:
    with store.read() as connection:
        states = part_reads.states(connection, parts)
        budgets = quota.usage(connection, quotas_of(config), now=now)
    return plan_with(states, now=now, budgets=budgets, policy=policy_of(config), everything=everything)


@contextmanager
def _reading(
    settings: Settings, store: Store, evaluate: Evaluator, tally: _Tally, *, clock: Clock
) -> Iterator[_Session]:
    """Everything that reading needs, open."""
    config = settings.sync_layers.api_sync
    client = make_client(settings.google_cloud.asset_endpoint)
    breaker = Breaker(config.mass_delete_share, config.mass_delete_minimum)
    with (
        closing(client.transport),
        Allowance(store, quotas_of(config), clock=clock, wait=threading.Event().wait) as allowance,
        DecodePool(evaluate) as pool,
    ):
        reader = AssetReader(
            client,
            page_size=config.page_size,
            timeout_seconds=config.call_timeout_seconds,
            permit=allowance.permit(Quota.LIST_ASSETS),
        )
        loader = PartLoader(store, reader, pool, evaluate, breaker, clock=clock, scopes=config.scopes)
        yield _Session(store, config, client, loader, allowance, tally, clock)


@dataclass(frozen=True, slots=True)
class _Session:
    """Reads the parts of one plan."""

    store: Store
    config: ApiSyncConfig
    client: Any
    loader: PartLoader
    allowance: Allowance
    tally: _Tally
    clock: Clock

    def read(self, plan: ReadPlan, progress: Progress) -> None:
        """First what has changed, then the parts in full. Without quota, what is left stays as it was."""
        total = len(plan.deltas) + len(plan.full)
        for done, delta in enumerate(plan.deltas):
            progress(f"searching changes of {len(delta.asset_types)} types in {delta.scope}", done, total)
            self._read_delta(delta)
        for done, full in enumerate(plan.full):
            scope, asset_type, content_type = full.part
            progress(f"reading {asset_type} {content_type.lower()} in {scope}", len(plan.deltas) + done, total)
            self._read_full(full.part)
            error = self.tally.errors.get(full.part)
            if error is not None and error.reason is Reason.QUOTA:
                self._leave_unread([left.part for left in plan.full[done + 1 :]], error)
                break
        progress("reading", total, total)
        self._say_what_waits(plan)

    def _read_full(self, part: Part) -> None:
        loaded = Loaded()
        error: SyncError | None
        try:
            self.loader.load(part, loaded)
            error = incomplete(part, loaded)
        except SyncError as failed:
            error = failed
            if failed.reason is Reason.QUOTA:
                self.allowance.throttled(Quota.LIST_ASSETS, failed.retry_after)
        except Exception as defect:
            error = _defect(part, defect)
        self.tally.take(part, loaded, error)
        if error is None:
            with self.store.write() as connection:
                part_reads.record_full(connection, part, calls=loaded.calls)
        elif error.reason is not Reason.BREAKER_OPEN:  # the read has marked it, and somebody may have confirmed since
            self._mark(part, error, was_read=bool(loaded.unusable))

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
            self.tally.take_delta(found, self.loader.take_delta(found))
            with self.store.write() as connection:
                part_reads.record_delta(connection, found.looked_at, until_ns=found.until_ns)
        except SyncError as error:
            for part in delta.parts:
                self.tally.late[part] = error
        except Exception as defect:
            for part in delta.parts:
                self.tally.late[part] = _defect(part, defect)

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
            self._mark(part, error, only_unread=True)

    def _say_what_waits(self, plan: ReadPlan) -> None:
        """Parts that are not read in full and that are not known are no success: the ledger says why."""
        with self.store.read() as connection:
            gaps = {
                (row.scope, row.asset_type, row.content_type): row
                for row in connection.execute(
                    sa.select(coverage_table).where(coverage_table.c.status != CoverageStatus.COMPLETE.value)
                )
            }
        reasons = {skip.part: skip.reason for skip in plan.skipped}
        in_full = {full.part for full in plan.full}
        for part, row in gaps.items():
            if part in in_full or part in self.tally.proven:
                continue
            reason = Reason(row.reason) if row.reason else Reason.NOT_READ_YET
            remedy, why = row.remedy or "wait for a later sync", reasons.get(part)
            if reason is Reason.NOT_READ_YET and why is not None:
                self._mark(part, SyncError(why, where=where(part), remedy=remedy, reason=reason))
            what = f"{row.detail or 'not read yet'}{f' ({why})' if why else ''}"
            self.tally.waiting[part] = SyncError(what, where=where(part), remedy=remedy, reason=reason, transient=False)

    def _mark(self, part: Part, error: SyncError, *, was_read: bool = False, only_unread: bool = False) -> None:
        """Write why a part is not known: ``partial`` if it ``was_read`` to its end now or completely once, else
        ``unknown``. With ``only_unread`` a part that was read completely once keeps what is written of it."""
        with self.store.write() as connection:
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
            coverage.mark(connection, [gap], now=self.clock())


def _defect(part: Part, defect: Exception) -> SyncError:
    log.exception("part_failed", scope=part[0], asset_type=part[1], content_type=part[2])
    return SyncError(
        f"{type(defect).__name__}: {first_line(defect)}",
        where=where(part),
        remedy="please report this as a defect; the other types are read",
        reason=Reason.INTERNAL,
    )


def _record_failures(store: Store, tally: _Tally, config: ApiSyncConfig, *, now: datetime) -> None:
    quarantine = timedelta(hours=config.unknown_type_retry_hours)
    with store.write() as connection:
        for part, error in tally.errors.items():
            part_reads.record_failure(connection, part, error.reason, now=now, quarantine=quarantine)


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
        dropped = known - set(parts)
        coverage.forget(connection, dropped, now=now)
        part_reads.forget(connection, dropped)
        for part in dropped:
            breakers.close_breaker(connection, part, now=now)


def _proven_already(store: Store, run: LayerRun, config: ApiSyncConfig) -> set[Part]:
    """Parts that earlier attempts of this sync proved, or the sync before it whose process died not long ago."""
    with store.read() as connection:
        since = run.started_at
        cut_short = connection.scalar(
            sa.select(layer_runs.c.started_at)
            .where(layer_runs.c.layer == LayerId.API.value, layer_runs.c.finished_at == run.started_at)
            .order_by(layer_runs.c.id.desc())
            .limit(1)
        )
        if cut_short is not None and run.started_at - cut_short < timedelta(minutes=config.proof_age_minutes):
            since = cut_short
        elif run.attempt == 1:
            return set()
        rows = connection.execute(
            sa.select(coverage_table).where(
                coverage_table.c.status == CoverageStatus.COMPLETE.value,
                coverage_table.c.complete_read_ns >= to_ns(since),
            )
        )
        return {(row.scope, row.asset_type, row.content_type) for row in rows}


def _outcome(store: Store, plan: ReadPlan, tally: _Tally, written: int, *, now: datetime) -> LayerOutcome:
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
    errors = list({**tally.waiting, **tally.late, **tally.errors}.values())
    oldest = to_ns(now - CACHE_TTL)
    from_cache = {part for part, ns in read_ns.items() if part not in tally.proven and ns < oldest}
    from_cache |= read_ns.keys() & (tally.errors.keys() | tally.late.keys() | tally.waiting.keys())
    return LayerOutcome(
        items_synced=total,
        items_changed=tally.applied.changed,
        as_of=as_of,
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=tuple(_merged(errors)),
        from_cache=_RESTS_ON_ALL_PARTS if from_cache else frozenset(),
        details={
            "resources": {
                "count": total,
                "read": tally.read,
                "decoded": tally.decoded,
                "created": tally.applied.created,
                "updated": tally.applied.updated,
                "deleted": tally.applied.deleted,
                "missing_once": tally.missing,
                "missed_by_feed": tally.missed_by_feed,
                "unusable": tally.unusable,
                "new_fields": tally.drifted,
                "parquet_files_written": written,
            },
            "coverage": {
                "status": ledger.status.value,
                "complete": ledger.complete,
                "partial": ledger.partial,
                "stale": ledger.stale,
                "unknown": ledger.unknown,
                "read_in_full": len(plan.full),
                "read_by_delta": sum(len(delta.asset_types) for delta in plan.deltas),
                "not_due": len(plan.skipped),
                "calls": tally.calls,
                "rotation_minutes": round(plan.rotation_minutes, 1),
                "proof_age_attainable": plan.proof_age_attainable,
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
