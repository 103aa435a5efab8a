"""Layer 3: what Cloud Asset Inventory tells, into the state, the coverage ledger and Parquet.

The plan says what is read in full, what by delta and what not (`planner`); large scopes may be read by export
(`bulk_reads`). This module puts a sync together: what earlier attempts did, what asked for it, and what it settles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta

import sqlalchemy as sa

from lz_sync_dagster.config import ApiSyncConfig, Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.compliance.verdict import Evaluator
from lz_sync_dagster.sync.drift.service import refreshed as refreshed_drift
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import requests
from lz_sync_dagster.sync.inventory.bulk_reads import BulkReads
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool, collecting_rarely
from lz_sync_dagster.sync.inventory.loading import PartLoader, PartReader
from lz_sync_dagster.sync.inventory.outcome import Counts, Tally, outcome_of
from lz_sync_dagster.sync.inventory.planner import ReadPlan, plan_reads, policy_of, quotas_of
from lz_sync_dagster.sync.inventory.reader import AssetReader, make_client
from lz_sync_dagster.sync.inventory.session import Session
from lz_sync_dagster.sync.inventory.taking import Taker
from lz_sync_dagster.sync.inventory.types import plan_parts
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.picture import export_inventory, is_landed
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.retry import RETRY_WAITS
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.state.reducer import Breaker, Part
from lz_sync_dagster.sync.store import Store, breakers, coverage, inbox, part_reads, quota, reads, verdicts
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.store.quota import Allowance, Quota
from lz_sync_dagster.sync.store.schema import coverage as coverage_table
from lz_sync_dagster.sync.store.schema import layer_runs
from lz_sync_dagster.sync.timing import Clock, to_ns

#: Decides what is read: `plan_reads`.
Planner = Callable[..., ReadPlan]

#: Where the record of a run keeps what its attempts did so far.
_SO_FAR = "so_far"


def sync_inventory(
    settings: Settings,
    store: Store,
    run: LayerRun,
    *,
    clock: Clock,
    progress: Progress,
    plan_with: Planner = plan_reads,
    wait: Callable[[float], bool] | None = None,
) -> LayerOutcome:
    """Read what the plan says of each configured part, and say of each whether it worked.

    An attempt after the first one reads only the parts that are not proven since the sync began, and so does a sync
    after one whose process died. Requests of the inbox from before it began are done when it ends, as far as what they
    are about was looked at.

    Args:
        wait: waits so many seconds, for a quota or an export, and says whether somebody asked to stop.

    Raises:
        SyncError: nothing could be read, or a transient error asks for another attempt.
        Cancelled: ``wait`` said that somebody asked to stop while a call waited for its quota.
    """
    config = settings.sync_layers.api_sync
    asked = requests.before(store, run.started_at)
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
    _apply_confirmed(store, clock=clock)
    asked_ns = requests.full_read_ns(asked)
    tally = Tally(counts=_so_far(store, run), proven=_proven_already(store, run, config, asked_ns) & set(parts))
    reading = _reading(settings, store, controls.evaluate, tally, clock=clock, wait=wait)
    with _kept(store, run, tally), reading as (session, bulk):
        bulk.begin(_states(store, parts), asked_ns=asked_ns, progress=progress)
        unread = [part for part in parts if part not in tally.proven]
        plan = _planned(store, config, unread, bulk.parts, bool(asked_ns), now=clock(), plan_with=plan_with)
        session.follow(plan, progress)
        if refused := bulk.finish(progress):
            plan = _planned(store, config, refused, (), bool(asked_ns), now=clock(), plan_with=plan_with)
            session.follow(plan, progress)
        session.say_what_waits()
    if tally.transient and run.attempt <= len(RETRY_WAITS):
        _keep(store, run, tally)
        raise max(tally.transient, key=lambda error: error.retry_after or 0.0)
    _record_failures(store, tally, config, now=clock())
    written = 0
    if not is_landed(settings.raw_dir, now=clock()):
        written = export_inventory(store, settings.raw_dir, judged=controls.kinds, now=clock(), progress=progress)
    if tally.is_fruitless:
        raise next(iter(tally.errors.values()))
    drift = refreshed_drift(store, clock=clock)
    outcome = outcome_of(store, tally, written=written, drift=drift, now=clock())
    with store.write() as connection:
        settled = requests.settled(connection, asked, parts, tally)
        inbox.finish(connection, settled, run_id=str(run.number), now=clock())
    return outcome


def _planned(
    store: Store,
    config: ApiSyncConfig,
    parts: Sequence[Part],
    exported: Collection[Part],
    everything: bool,
    *,
    now: datetime,
    plan_with: Planner,
) -> ReadPlan:
    with store.read() as connection:
        states = part_reads.states(connection, parts)
        budgets = quota.usage(connection, quotas_of(config), now=now)
    return plan_with(
        states, now=now, budgets=budgets, policy=policy_of(config), everything=everything, exported=frozenset(exported)
    )


def _states(store: Store, parts: Sequence[Part]) -> list[PartState]:
    with store.read() as connection:
        return part_reads.states(connection, parts)


@contextmanager
def _reading(
    settings: Settings,
    store: Store,
    evaluate: Evaluator,
    tally: Tally,
    *,
    clock: Clock,
    wait: Callable[[float], bool] | None,
) -> Iterator[tuple[Session, BulkReads]]:
    """Everything that reading needs, open."""
    config = settings.sync_layers.api_sync
    client = make_client(settings.google_cloud.asset_endpoint)
    breaker = Breaker(config.mass_delete_share, config.mass_delete_minimum)
    wait = wait or threading.Event().wait
    with (
        closing(client.transport),
        Allowance(store, quotas_of(config), clock=clock, wait=wait) as allowance,
        DecodePool(evaluate) as pool,
        collecting_rarely(),
    ):
        taker = Taker(store, evaluate, clock=clock, scopes=config.scopes)

        def loader(reader: PartReader) -> PartLoader:
            return PartLoader(store, reader, pool, taker, breaker, clock=clock, scopes=config.scopes)

        reader = AssetReader(
            client,
            page_size=config.page_size,
            timeout_seconds=config.call_timeout_seconds,
            permit=allowance.permit(Quota.LIST_ASSETS),
            refused=lambda wait_for: allowance.throttled(Quota.LIST_ASSETS, wait_for),
        )
        session = Session(store, config, client, loader(reader), taker, allowance, tally, clock)
        until = clock() + timedelta(minutes=config.frequency_minutes)
        try:
            with BulkReads(settings, session, loader, until=until, clock=clock, wait=wait) as bulk:
                yield session, bulk
        finally:
            tally.counts.calls += sum(allowance.made.values())


@contextmanager
def _kept(store: Store, run: LayerRun, tally: Tally) -> Iterator[None]:
    """Keep what was done for the next attempt, if this one fails altogether."""
    try:
        yield
    except SyncError:
        _keep(store, run, tally)
        raise


def _keep(store: Store, run: LayerRun, tally: Tally) -> None:
    with store.write() as connection:
        connection.execute(
            layer_runs.update().where(layer_runs.c.id == run.number).values(details={_SO_FAR: tally.counts.to_json()})
        )


def _so_far(store: Store, run: LayerRun) -> Counts:
    """What the attempts of this sync before this one did."""
    with store.read() as connection:
        details = connection.scalar(sa.select(layer_runs.c.details).where(layer_runs.c.id == run.number)) or {}
    return Counts.from_json(details.get(_SO_FAR))


def _record_failures(store: Store, tally: Tally, config: ApiSyncConfig, *, now: datetime) -> None:
    quarantine = timedelta(hours=config.unknown_type_retry_hours)
    with store.write() as connection:
        for part, error in tally.errors.items():
            part_reads.record_failure(connection, part, error.reason, now=now, quarantine=quarantine)


def _apply_confirmed(store: Store, *, clock: Clock) -> None:
    """Make the deletions that somebody has confirmed and that were cut short: their parts may not be read now."""
    with store.read() as connection:
        confirmed = breakers.confirmed(connection)
    for part in confirmed:
        reads.apply_confirmed(store, part, clock=clock)


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


def _proven_already(store: Store, run: LayerRun, config: ApiSyncConfig, asked_ns: int) -> set[Part]:
    """Parts that are proven since somebody asked for all to be read; without that (0), those that earlier attempts of
    this sync proved, or the sync before it whose process died not long ago."""
    with store.read() as connection:
        since_ns = asked_ns or _began_ns(connection, run, config)
        if since_ns is None:
            return set()
        rows = connection.execute(
            sa.select(coverage_table).where(
                coverage_table.c.status == CoverageStatus.COMPLETE.value, coverage_table.c.complete_read_ns >= since_ns
            )
        )
        return {(row.scope, row.asset_type, row.content_type) for row in rows}


def _began_ns(connection: sa.Connection, run: LayerRun, config: ApiSyncConfig) -> int | None:
    """When a sync began that this attempt goes on with; ``None``: it is a first one."""
    cut_short = connection.scalar(
        sa.select(layer_runs.c.started_at)
        .where(layer_runs.c.layer == LayerId.API.value, layer_runs.c.finished_at == run.started_at)
        .order_by(layer_runs.c.id.desc())
        .limit(1)
    )
    if cut_short is not None and run.started_at - cut_short < timedelta(minutes=config.proof_age_minutes):
        return to_ns(cut_short)
    return to_ns(run.started_at) if run.attempt > 1 else None
