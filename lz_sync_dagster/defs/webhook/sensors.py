"""From delivery to run: the inbox asks for a git sync, and the webhook layer's account is kept without a run."""

import dagster as dg
import structlog

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_schedule import is_syncing, why_not_yet
from lz_sync_dagster.defs.layer_sync import sync_without_run
from lz_sync_dagster.defs.webhook.checks import evaluations
from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.layer_runs import statuses
from lz_sync_dagster.sync.timing import Clock
from lz_sync_dagster.sync.webhook.plan import plan_runs
from lz_sync_dagster.sync.webhook.repair import watch_deliveries
from lz_sync_dagster.sync.webhook.service import sync_webhook

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
    with store.read() as connection:
        waiting = inbox.pending(connection)
    running = is_syncing(LayerId.GIT, store, clock()) or why_not_yet(context.instance, "git_job") is not None
    plan = plan_runs(waiting, running=running, cursor=context.cursor, now=clock())
    requests = [dg.RunRequest(run_key=plan.run_key, tags=plan.tags)] if plan else []
    accounts = _account(settings, store, clock)
    if not requests and not accounts:
        return dg.SkipReason(
            f"{len(waiting)} deliveries wait for the git sync under way" if running else "nothing to request"
        )
    return dg.SensorResult(run_requests=requests, cursor=plan.cursor if plan else context.cursor, asset_events=accounts)


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
