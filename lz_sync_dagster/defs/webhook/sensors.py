"""From delivery to run: the inbox asks for a git sync, polling finds what no delivery told of, and the webhook layer's
account is kept without a run.

A tick of `webhook_deliveries_sensor` lasts almost until the daemon looks again, so that a delivery has its run a moment
after it came.
"""

from datetime import timedelta

import dagster as dg
import structlog

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_requests import look, wait_for_run
from lz_sync_dagster.defs.layer_sync import sync_without_run
from lz_sync_dagster.defs.webhook.checks import evaluations
from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.layer_runs import statuses
from lz_sync_dagster.sync.timing import Clock
from lz_sync_dagster.sync.webhook import polling
from lz_sync_dagster.sync.webhook.repair import watch_deliveries
from lz_sync_dagster.sync.webhook.service import sync_webhook

#: How long a tick waits for a delivery: short enough to be done when the daemon looks again, five seconds after it
#: started the tick.
TICK_SECONDS = 4.5

log = structlog.get_logger(__name__)

_ACCOUNT_EVERY = layer(LayerId.WEBHOOK).target / 2


@dg.sensor(
    job_name="git_job",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests one git sync for all deliveries that wait. Its run key is the newest delivery's id.",
)
def webhook_deliveries_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult | dg.SkipReason:
    if LayerId.WEBHOOK in settings.disabled_layers or LayerId.GIT in settings.disabled_layers:
        return dg.SkipReason("webhook or git_sync is switched off in the configuration")
    asked = wait_for_run(
        lambda: look(context.instance, context.cursor, LayerId.GIT, store, clock), seconds=TICK_SECONDS
    )
    accounts = _account(settings, store, clock)
    if asked.plan is None and not accounts:
        return dg.SkipReason(asked.why_nothing)
    return dg.SensorResult(
        run_requests=asked.requests,
        cursor=asked.plan.cursor if asked.plan else context.cursor,
        asset_events=accounts,
    )


@dg.sensor(
    minimum_interval_seconds=int(polling.TICK.total_seconds()),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks up the landing zone's head every `sync_layers.webhook.head_poll_seconds`. A head that no delivery told "
        "of and no sync has seen goes to the inbox as a missed delivery."
    ),
)
def webhook_head_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SkipReason:
    every = timedelta(seconds=settings.sync_layers.webhook.head_poll_seconds)
    if reason := polling.why_not(settings):
        return dg.SkipReason(reason)
    if not polling.is_due(context.cursor, every, clock()):
        return dg.SkipReason("the next look is not due yet")
    zone = settings.landing_zone
    seen = polling.poll_head(
        store, lambda: _remote_head(settings), zone, cursor=context.cursor, every=every, now=clock()
    )
    context.update_cursor(seen.cursor)
    return dg.SkipReason(seen.said)


def _remote_head(settings: Settings) -> str:
    from lz_sync_dagster.sync.git.service import remote_head  # loads git: only a look needs it

    return remote_head(settings)


def _account(
    settings: Settings, store: Store, clock: Clock
) -> list[dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation]:
    """Account for the deliveries, and check them, when one was settled and at least twice within the layer's target.

    A defect here is logged and costs the account alone: a delivery still gets its run.
    """
    try:
        if not _is_due(store, clock):
            return []
        accounts = sync_without_run(LayerId.WEBHOOK, sync_webhook, settings=settings, store=store, clock=clock)
        return [*accounts, *evaluations(settings, store, clock)] if accounts else []
    except Exception:
        log.exception("deliveries_not_accounted_for")
        return []


def _is_due(store: Store, clock: Clock) -> bool:
    with store.read() as connection:
        before = statuses(connection, now=clock())[0]
        settled = inbox.finished_since(connection, before.as_of)
    return before.as_of is None or clock() - before.as_of >= _ACCOUNT_EVERY or settled > 0


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Asks GitHub to send deliveries again that failed; it does not do so by itself. Needs sync_layers.webhook.hook "
        "and a credential of GitHub's API. What became of each is in the table delivery_repairs."
    ),
)
def webhook_repair_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult:
    watch = watch_deliveries(settings, store, clock=clock, cursor=context.cursor)
    return dg.SensorResult(skip_reason=watch.said, cursor=watch.cursor)
