"""Layer 5: land the billing export, build the marts, publish them. Each step also stands alone, for Dagster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.analytics import bigquery, billing, raw, transform
from lz_sync_dagster.sync.analytics.billing import Landing, RefusedLine
from lz_sync_dagster.sync.analytics.publish import Published, publish
from lz_sync_dagster.sync.analytics.resource_versions import land_versions
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.picture import export_inventory
from lz_sync_dagster.sync.progress import Progress, silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, dead_letters
from lz_sync_dagster.sync.store.dead_letters import DeadLetter
from lz_sync_dagster.sync.timing import Clock

#: Refusals that are told one by one; the dead letters have the rest.
_TOLD = 20


def sync_analytics(
    settings: Settings,
    store: Store,
    run: LayerRun,  # noqa: ARG001
    *,
    clock: Clock,
    progress: Progress,
) -> LayerOutcome:
    """Land billing, build all marts and publish them.

    ``items_synced`` counts rows of the mart, ``items_changed`` published rows and billing days that changed. Without
    a billing export, costs are unknown: `Status.SUCCESS`, and ``details`` say so. `Status.PARTIAL` if billing lines
    were refused or there is no data at all.

    Raises:
        SyncError: raw data cannot be read, a model or its test failed, or the warehouse cannot be reached.
    """
    landing = land_billing(settings, store, clock=clock, progress=progress)
    result = build_marts(settings, store, clock=clock, progress=progress)
    published = publish_marts(settings, store, progress=progress)
    return outcome(settings, landing, published, clock=clock, build=result)


def land_billing(settings: Settings, store: Store, *, clock: Clock, progress: Progress = silent) -> Landing:
    """Step 1: bring raw billing and the day's picture of the inventory up to date, and see to it that every raw table
    can be read.

    Raises:
        SyncError: see `billing.land`; also for a warehouse that cannot read this raw folder.
    """
    _check(settings)

    def refuse(lines: Sequence[RefusedLine]) -> None:
        letters = [
            DeadLetter(LayerId.BIGQUERY, f"billing/{line.file}"[-512:], line.key, line.reason, line.payload)
            for line in lines
        ]
        with store.write() as connection:
            dead_letters.add(connection, letters, now=clock())

    export_inventory(store, settings.raw_dir, judged=load_controls().kinds, now=clock(), progress=progress)
    export = settings.sync_layers.bigquery.billing_export
    landing = billing.land(export, settings.raw_dir, refuse=refuse, progress=progress)
    raw.ensure_tables(settings.raw_dir)
    return landing


def load_warehouse(settings: Settings, store: Store, *, clock: Clock, progress: Progress = silent) -> int:
    """Before step 2: land the versions of resources that were written since the last time, and, where the warehouse is
    BigQuery, load the days of raw data that changed. Returns their number; 0 on DuckDB, which reads the files
    themselves.
    """
    progress("landing versions of resources", 0, None)
    land_versions(store, settings.raw_dir, now=clock())
    if settings.warehouse.engine != "bigquery":
        return 0
    return bigquery.load_raw(settings, bigquery.connect(settings), progress=progress)


def build_marts(
    settings: Settings, store: Store, *, clock: Clock, progress: Progress = silent
) -> transform.BuildResult:
    """Step 2: load what the warehouse lacks, and run dbt once."""
    load_warehouse(settings, store, clock=clock, progress=progress)
    return transform.build(settings, progress=progress)


def publish_marts(settings: Settings, store: Store, *, progress: Progress = silent) -> Published:
    """Step 3: copy the finished mart to the store."""
    progress("publishing marts", 0, None)
    published = publish(settings, store)
    progress("publishing marts", published.rows, published.rows)
    return published


def outcome(
    settings: Settings,
    landing: Landing,
    published: Published,
    *,
    clock: Clock,
    build: transform.BuildResult | None = None,
) -> LayerOutcome:
    """What the three steps made together, as the layer's outcome. ``build`` is ``None`` where somebody else ran dbt."""
    errors = [str(refusal) for refusal in landing.refusals[:_TOLD]]
    if len(landing.refusals) > _TOLD:
        errors.append(f"{len(landing.refusals) - _TOLD} more files with refused billing lines; see the dead letters")
    if published.rows == 0:
        errors.append("marts: there is no raw data yet; run 'lz-sync sync inventory', then 'lz-sync sync analytics'")
    details: dict[str, Any] = {"raw_billing": billing_details(settings, landing)}
    if build is not None:
        details["dbt"] = {"models": build.models, "tests": build.tests, "seconds": round(build.seconds, 1)}
    details["daily_metrics"] = metrics_details(published)
    return LayerOutcome(
        items_synced=published.rows,
        items_changed=published.changed + landing.changed_days,
        as_of=published.as_of or clock(),
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=tuple(errors),
        details=details,
    )


def billing_details(settings: Settings, landing: Landing) -> dict[str, Any]:
    """Figures of the landed billing. ``coverage`` is ``unknown`` while there is no billing line."""
    refused = sum(refusal.lines for refusal in landing.refusals)
    coverage = CoverageStatus.PARTIAL if refused else CoverageStatus.COMPLETE
    if not landing.lines:
        coverage = CoverageStatus.UNKNOWN
    if not landing.configured:
        note = "no billing export is configured (sync_layers.bigquery.billing_export), so costs are unknown"
    elif not landing.lines:
        note = "the billing export has no line, so costs are unknown"
    else:
        note = None
    return {
        "days": landing.days,
        "changed_days": landing.changed_days,
        "lines": landing.lines,
        "refused_lines": refused,
        "coverage": coverage.value,
        "as_of": landing.as_of.isoformat() if landing.as_of else None,
        "export": settings.sync_layers.bigquery.billing_export,
        "note": note,
    }


def metrics_details(published: Published) -> dict[str, Any]:
    """Figures of the published mart."""
    return {
        "rows": published.rows,
        "changed_rows": published.changed,
        "days": published.days,
        "days_without_cost": published.days_without_cost,
        "as_of": published.as_of.isoformat() if published.as_of else None,
    }


def _check(settings: Settings) -> None:
    if settings.warehouse.engine == "duckdb" and "://" in settings.raw_dir:
        raise SyncError(
            "cannot be read by the embedded warehouse",
            where=f"warehouse.raw {settings.raw_dir}",
            remedy="use a local folder, or warehouse.engine: bigquery",
            reason=Reason.INVALID,
        )
