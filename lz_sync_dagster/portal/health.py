"""For the machines around: ``/healthz`` (the process lives), ``/readyz`` (it can serve), ``/metrics`` (Prometheus)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

import sqlalchemy as sa
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lz_sync_dagster.portal.context import InPortal, Portal
from lz_sync_dagster.portal.problems import problem
from lz_sync_dagster.sync.inventory.forecast import Forecast, forecast
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.store import Store, alerts, event_log, feed_freshness, inbox, layer_runs
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store.feed_freshness import TypeFreshness
from lz_sync_dagster.sync.store.inbox import DeliveryStatus
from lz_sync_dagster.sync.store.schema import counters, metadata

log = structlog.get_logger(__name__)

router = APIRouter(tags=["health"])

#: Through which the asset feed's figures are told.
_FEED_WINDOW = timedelta(hours=24)


@router.get("/healthz", summary="Whether the process lives", response_class=PlainTextResponse)
async def healthz() -> str:
    """Looks at nothing but the process itself."""
    return "ok"


@router.get("/readyz", summary="Whether the portal can serve", response_class=PlainTextResponse)
def readyz(request: Request, portal: InPortal) -> Response:
    """503 with the reason while the store cannot be read or lacks its schema."""
    reason = unready(portal.store)
    return problem(request, 503, reason) if reason else PlainTextResponse("ok")


def unready(store: Store) -> str | None:
    """Why the store cannot serve, with the remedy; ``None`` if it can."""
    try:
        with store.read() as connection:
            missing = sorted(set(metadata.tables) - set(sa.inspect(connection).get_table_names()))
            if missing:
                return f"the store lacks its schema ({', '.join(missing[:3])} …); run 'lz-sync db migrate'"
            if connection.scalar(sa.select(counters.c.value).where(counters.c.name == "event_log")) is None:
                return "the store lacks the event log's counter; run 'lz-sync db migrate'"
    except sa.exc.SQLAlchemyError as error:
        log.warning("store_not_ready", error=str(error))
        return "the store cannot be read; check that the database runs and that store.url is right"
    return None


@router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
def metrics(portal: InPortal) -> Response:
    """Status and age of each layer, coverage, and the feed's clients. What is not known is left out, never 0."""
    registry = CollectorRegistry()
    registry.register(_PortalCollector(portal))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _PortalCollector:
    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def collect(self) -> Iterator[Metric]:
        feed = self._portal.feed
        yield GaugeMetricFamily("lz_sync_feed_clients", "Clients of the live feed in this process.", feed.clients)
        yield CounterMetricFamily(
            "lz_sync_feed_slow_clients", "Clients that were let go because they were too slow.", feed.slow_clients
        )
        store_up = GaugeMetricFamily("lz_sync_store_up", "Whether the store can be read.")
        try:
            families = self._from_store()
        except sa.exc.SQLAlchemyError as error:
            log.warning("metrics_without_store", error=str(error))
            store_up.add_metric([], 0)
            yield store_up
            return
        store_up.add_metric([], 1)
        yield store_up
        yield from families

    def _from_store(self) -> list[Metric]:
        portal = self._portal
        now = portal.clock()
        with portal.store.read() as connection:
            layers = layer_runs.statuses(connection, now=now, disabled=portal.settings.disabled_layers)
            ledger = coverage_ledger.summary(connection, now=now, ttl=layer_runs.CACHE_TTL)
            seq = event_log.last_seq(connection)
            kept = inbox.counts(connection)
            missed = inbox.missed(connection)
            told = feed_freshness.over(connection, since=now - _FEED_WINDOW)
            planned = forecast(connection, portal.settings.sync_layers.api_sync, now=now)
            raised = Counter(alert.name for alert in alerts.open_alerts(connection))
        status = GaugeMetricFamily(
            "lz_sync_layer_status", "1 for the status that a layer has.", labels=["layer", "status"]
        )
        since = GaugeMetricFamily(
            "lz_sync_layer_last_sync_age_seconds", "Seconds since a layer last succeeded.", labels=["layer"]
        )
        age = GaugeMetricFamily("lz_sync_layer_data_age_seconds", "Age of a layer's data.", labels=["layer"])
        items = GaugeMetricFamily("lz_sync_layer_items_synced", "Items that a layer vouches for.", labels=["layer"])
        failures = GaugeMetricFamily(
            "lz_sync_layer_consecutive_failures", "Syncs that failed in a row.", labels=["layer"]
        )
        for layer in layers:
            for value in Status:
                status.add_metric([layer.layer, value], 1 if layer.status is value else 0)
            failures.add_metric([layer.layer], layer.consecutive_failures)
            if layer.last_sync is not None:
                since.add_metric([layer.layer], (now - layer.last_sync).total_seconds())
            if layer.as_of is not None:
                age.add_metric([layer.layer], (now - layer.as_of).total_seconds())
            if layer.items_synced is not None:
                items.add_metric([layer.layer], layer.items_synced)
        rows = GaugeMetricFamily(
            "lz_sync_coverage_rows", "Scopes × types × contents by coverage status.", labels=["status"]
        )
        for coverage_status in CoverageStatus:
            rows.add_metric([coverage_status], getattr(ledger, coverage_status.value))
        last = GaugeMetricFamily("lz_sync_event_log_seq", "The newest event's seq.", seq)
        deliveries = GaugeMetricFamily(
            "lz_sync_deliveries", "Deliveries that the inbox keeps, by status.", labels=["status"]
        )
        for delivery_status in DeliveryStatus:
            deliveries.add_metric([delivery_status], getattr(kept, delivery_status.value))
        unheard = GaugeMetricFamily(
            "lz_sync_deliveries_missed", "Heads that polling found and no delivery has told of.", missed
        )
        alarms = GaugeMetricFamily("lz_sync_alerts_open", "Open alerts by name.", labels=["name"])
        for name, number in sorted(raised.items()):
            alarms.add_metric([name], number)
        return [
            status,
            since,
            age,
            items,
            failures,
            rows,
            last,
            deliveries,
            unheard,
            alarms,
            *_of_quotas(planned),
            *_of_the_asset_feed(told),
        ]


def _of_quotas(planned: Forecast) -> list[Metric]:
    limit = GaugeMetricFamily(
        "lz_sync_quota_limit", "Calls a minute that a quota of Cloud Asset Inventory allows now.", labels=["quota"]
    )
    used = GaugeMetricFamily("lz_sync_quota_used", "Calls that count against the limit now.", labels=["quota"])
    blocked = GaugeMetricFamily(
        "lz_sync_quota_blocked", "1 while nobody calls, since the other side asked to wait.", labels=["quota"]
    )
    for usage in planned.quotas.values():
        limit.add_metric([usage.quota], usage.limit)
        used.add_metric([usage.quota], usage.used)
        blocked.add_metric([usage.quota], 1 if usage.blocked_until is not None else 0)
    rotation = GaugeMetricFamily(
        "lz_sync_inventory_rotation_seconds", "Within how many seconds each part is proven once, at most."
    )
    attainable = GaugeMetricFamily(
        "lz_sync_inventory_proof_age_attainable", "Whether the quota permits the configured proof age."
    )
    if planned.plan is not None:
        rotation.add_metric([], planned.plan.rotation_minutes * 60)
        attainable.add_metric([], 1 if planned.plan.proof_age_attainable else 0)
    return [limit, used, blocked, rotation, attainable]


def _of_the_asset_feed(told: Sequence[TypeFreshness]) -> list[Metric]:
    delivered = GaugeMetricFamily(
        "lz_sync_asset_feed_delivered", "Messages of the asset feed in the last 24 hours.", labels=["asset_type"]
    )
    missed = GaugeMetricFamily(
        "lz_sync_asset_feed_missed",
        "Changes of the last 24 hours that the feed did not tell and a snapshot found, at least.",
        labels=["asset_type"],
    )
    delay = GaugeMetricFamily(
        "lz_sync_asset_feed_delay_seconds",
        "Within how many seconds messages of the last 24 hours came: upper bounds.",
        labels=["asset_type", "of", "quantile"],
    )
    for kind in told:
        delivered.add_metric([kind.asset_type], kind.delivered)
        missed.add_metric([kind.asset_type], kind.missed)
        for of, delays in (("source", kind.source_delays), ("own", kind.own_delays)):
            for share in (0.5, 0.95):
                found = feed_freshness.quantile(delays, share)
                if found is not None:
                    most = float("inf") if found.at_most_ms is None else found.at_most_ms / 1000
                    delay.add_metric([kind.asset_type, of, str(share)], most)
    return [delivered, missed, delay]
