"""How the sync of a layer becomes Dagster's: the one adapter that every layer uses.

`sync.runs` decides what a sync is (single-flight, recorded, retried by one policy). This module translates: a
transient failure into a step retry, a busy layer into a run that makes nothing, a failure into `Failure` with its
remedy, an outcome into one materialization per asset. A failure is never a materialization, since that would make old
data look fresh.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import sqlalchemy as sa
import structlog

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.configured import LAYER_TAG, TRIGGERED_BY_TAG
from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.cadence import cadence_of
from lz_sync_dagster.sync.errors import LayerBusy, SyncError
from lz_sync_dagster.sync.progress import Progress, silent
from lz_sync_dagster.sync.retry import RETRY_WAITS
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, RetryLater, attempt, new_holder
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.schema import layer_runs
from lz_sync_dagster.sync.timing import Clock

#: One step of a layer's sync. The functions of `sync.work.WORK` are of this kind.
Work = Callable[..., LayerOutcome]

log = structlog.get_logger(__name__)

_QUIET = timedelta(seconds=10)
_ANCESTOR_TAGS = ("dagster/parent_run_id", "dagster/root_run_id")


def layer_assets(layer_id: LayerId, *, specs: Sequence[dg.AssetSpec], work: Work | None = None) -> dg.AssetsDefinition:
    """The assets of a layer that one sync makes together.

    Args:
        specs: one per asset, upstream ones first; ``outcome.details`` has an entry of each asset's noun.
        work: what makes them (default: the layer's function of `sync.work.WORK`).
    """
    group = layer(layer_id).group

    @dg.multi_asset(
        name=f"{group}_sync",
        specs=[spec.replace_attributes(group_name=group, skippable=True) for spec in specs],
    )
    def sync(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        store: dg.ResourceParam[Store],
        clock: dg.ResourceParam[Clock],
    ) -> Iterator[dg.MaterializeResult[Any]]:
        outcome = attempt_layer(context, layer_id, work or _work(layer_id), settings=settings, store=store, clock=clock)
        if outcome is not None:
            yield from materializations(layer_id, [spec.key for spec in specs], outcome, store=store)

    return sync


def layer_job(layer_id: LayerId, *, without: Sequence[dg.AssetCheckKey] = ()) -> Any:
    """The job that syncs a layer: ``git_job``.

    Args:
        without: checks that are not part of it, since their cost does not follow the change.
    """
    group = layer(layer_id).group
    selection: dg.AssetSelection = dg.AssetSelection.groups(group)
    if without:
        selection -= dg.AssetSelection.checks(*without)
    return dg.define_asset_job(
        f"{group}_job",
        selection=selection,
        description=f"{layer(layer_id).title}: syncs the layer once and checks it.",
        tags={LAYER_TAG: layer_id.value},
    )


def attempt_layer(
    context: dg.AssetExecutionContext,
    layer_id: LayerId,
    work: Work,
    *,
    settings: Settings,
    store: Store,
    clock: Clock,
    last: bool = True,
    waits: tuple[float, ...] = RETRY_WAITS,
) -> LayerOutcome | None:
    """Make one attempt, as a step of this Dagster run.

    Returns:
        The outcome, or ``None`` if there is nothing to record: the layer is switched off, or somebody else is syncing
        it.

    Raises:
        dg.RetryRequested: the failure is transient and another attempt is due.
        dg.Failure: the sync failed for good; the description has the remedy.
    """
    if layer_id in settings.disabled_layers:
        context.log.info(f"layer {layer_id} is switched off in the configuration: nothing to do")
        return None
    progress = log_progress(context.log.info, clock)
    cadence = cadence_of(layer_id, settings)

    def bound(run: LayerRun) -> LayerOutcome:
        return work(settings, store, run, clock=clock, progress=progress)

    try:
        return attempt(
            store,
            layer_id,
            bound,
            triggered_by=triggered_by(context.run.tags),
            clock=clock,
            holder=holder_of(context.run.run_id),
            next_sync=lambda now: cadence.after(now) if cadence else None,
            last=last,
            waits=waits,
            takes_over=_ended_ancestors(context),
        )
    except LayerBusy as busy:
        context.log.warning(f"{busy}. This run makes nothing; the sync under way covers it.")
        return None
    except RetryLater as later:
        context.log.warning(f"{later.error}. Trying again in {later.wait:g} s.")
        raise dg.RetryRequested(max_retries=len(waits), seconds_to_wait=later.wait) from later
    except SyncError as error:
        raise failure(error) from error


def _ended_ancestors(context: dg.AssetExecutionContext) -> list[str]:
    """The holders that this run is another try of: a run that crashed leaves a lease, which must not keep its own
    successor away."""
    ids = {context.run.tags[tag] for tag in _ANCESTOR_TAGS if tag in context.run.tags}
    runs = {run_id: context.instance.get_run_by_id(run_id) for run_id in ids}
    return [holder_of(run_id) for run_id, run in runs.items() if run is None or run.is_finished]


def holder_of(run_id: str) -> str:
    """The name under which a Dagster run holds the lease of its layer."""
    return f"dagster:{run_id}"


def failure(error: SyncError) -> dg.Failure:
    """Dagster's `Failure` with the four things a reader needs: what, where, why, and what to do."""
    return dg.Failure(
        description=str(error),
        metadata={
            "what": error.what,
            "where": error.where,
            "reason": error.reason.value,
            "remedy": dg.MetadataValue.md(f"**{error.remedy}**"),
        },
        allow_retries=False,
    )


def materializations(
    layer_id: LayerId, keys: Sequence[dg.AssetKey], outcome: LayerOutcome, *, store: Store
) -> Iterator[dg.MaterializeResult[Any]]:
    """One result per asset, save those that the sync served from what was known before: a fallback is no
    materialization. The data version stays the same for as long as syncs find nothing new."""
    version = dg.DataVersion(f"{layer_id}-{_last_change(store, layer_id)}")
    for key in keys:
        if key.path[-1] in outcome.from_cache:
            continue
        yield dg.MaterializeResult(asset_key=key, metadata=metadata(outcome, key.path[-1]), data_version=version)


def metadata(outcome: LayerOutcome, noun: str) -> dict[str, Any]:
    """The asset's own figures from ``outcome.details``, and those of the sync that made it."""
    shown: dict[str, Any] = {
        "status": outcome.status.value,
        "as_of": None if outcome.as_of is None else dg.MetadataValue.timestamp(outcome.as_of),
        "items_synced": outcome.items_synced,
        "items_changed": outcome.items_changed,
    }
    own = outcome.details.get(noun, {})
    if isinstance(rows := own.get("count", own.get("rows")), int):
        shown["dagster/row_count"] = rows
    for name, value in own.items():
        if value is not None and name not in shown:
            is_link = isinstance(value, str) and value.startswith(("https://", "http://"))
            shown[name] = dg.MetadataValue.url(value) if is_link else value
    if outcome.errors:
        shown["errors"] = dg.MetadataValue.md("\n".join(f"- {line}" for line in outcome.errors))
    return shown


def triggered_by(tags: Mapping[str, str]) -> str:
    """Who asked for a run, from its tags: ``webhook:<delivery>``, ``schedule:git_six_hourly_schedule``,
    ``manual:dagster``."""
    if TRIGGERED_BY_TAG in tags:
        return tags[TRIGGERED_BY_TAG]
    for kind in ("schedule", "sensor"):
        if name := tags.get(f"dagster/{kind}_name"):
            return f"{kind}:{name}"
    return f"manual:{tags.get('user', 'dagster')}"


def log_progress(write: Callable[[str], object], clock: Clock) -> Progress:
    """A `Progress` that writes a line at first, and then at most every ten seconds: each line is an event to keep."""
    said: list[datetime] = []

    def progress(what: str, done: int, total: int | None) -> None:
        now = clock()
        if not said or now - said[-1] >= _QUIET:
            said.append(now)
            write(f"{what}: {done}" if total is None else f"{what}: {done} of {total}")

    return progress


def _work(layer_id: LayerId) -> Work:
    from lz_sync_dagster.sync.work import WORK  # loads the Google clients: only a run needs them

    return WORK[layer_id]


def _last_change(store: Store, layer_id: LayerId) -> int:
    """The number of the newest sync of the layer that changed something, 0 if none did."""
    query = sa.select(sa.func.max(layer_runs.c.id)).where(
        layer_runs.c.layer == layer_id.value, layer_runs.c.items_changed > 0
    )
    with store.read() as connection:
        return connection.scalar(query) or 0


def sync_without_run(
    layer_id: LayerId, work: Work, *, settings: Settings, store: Store, clock: Clock
) -> list[dg.AssetMaterialization]:
    """Sync a layer within a sensor's tick: for work of milliseconds that no run is worth. Returns what to report to
    Dagster.

    Nothing is reported if somebody else is syncing the layer, or if the sync failed, which the layer's status then
    says. The next tick tries again.
    """

    def bound(run: LayerRun) -> LayerOutcome:
        return work(settings, store, run, clock=clock, progress=silent)

    try:
        outcome = attempt(
            store,
            layer_id,
            bound,
            triggered_by=f"sensor:{layer(layer_id).group}",
            clock=clock,
            holder=new_holder(),
            waits=(),
        )
    except SyncError as error:
        log.warning("sync_without_run_failed", layer=layer_id.value, error=str(error))
        return []
    return [
        dg.AssetMaterialization(asset_key=[layer(layer_id).group, noun], metadata=metadata(outcome, noun))
        for noun in outcome.details
        if noun not in outcome.from_cache
    ]
