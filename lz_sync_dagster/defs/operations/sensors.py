"""Two watches. Freshness: what Dagster says of each layer's becomes an alert, opened once and resolved once. Runs: one
whose process is gone is ended, so that it keeps no other one waiting."""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.configured import LAYER_TAG
from lz_sync_dagster.defs.layer_sync import holder_of
from lz_sync_dagster.layers import LAYERS, Layer, LayerId
from lz_sync_dagster.sync.runs import LEASE
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.alerts import raise_alert, resolve_alert
from lz_sync_dagster.sync.store.layer_runs import lease_holder
from lz_sync_dagster.sync.timing import Clock

#: The alert's name in section 9 of the architecture document.
ALERT = "DataFreshness"
_SEVERITY = {"WARN": "warning", "FAIL": "critical"}


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Opens an alert when a layer's assets are older than their freshness policy allows, and resolves it "
        "when they are fresh. A layer that is switched off has no alert."
    ),
)
def operations_freshness_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SkipReason:
    if context.repository_def is None:
        return dg.SkipReason("the definitions are not known to this tick")
    specs = [node for node in context.repository_def.asset_graph.asset_nodes if node.freshness_policy is not None]
    records = context.instance.get_freshness_state_records([node.key for node in specs])
    said: list[str] = []
    with store.write() as connection:
        for layer in LAYERS:
            subject = f"layer {layer.id}"
            if layer.id in settings.disabled_layers:
                if resolve_alert(connection, ALERT, subject, now=clock()):
                    said.append(f"{subject}: switched off")
                continue
            states = [
                records[node.key].freshness_state
                for node in specs
                if node.group_name == layer.group and node.key in records
            ]
            worst = worst_state(states)
            if worst in _SEVERITY:
                message = f"{subject}: {late(layer, worst)}"
                raise_alert(connection, ALERT, subject, severity=_SEVERITY[worst], message=message, now=clock())
                said.append(message)
            elif worst == "PASS" and resolve_alert(connection, ALERT, subject, now=clock()):
                said.append(f"{subject}: fresh again")
    return dg.SkipReason("; ".join(said) or "every layer that Dagster has seen is fresh")


def worst_state(states: Iterable[str]) -> str:
    """The worst of a layer's freshness states; ``UNKNOWN`` if none is known yet."""
    found = {str(getattr(state, "value", state)) for state in states}
    return next((state for state in ("FAIL", "WARN", "PASS") if state in found), "UNKNOWN")


def late(layer: Layer, state: str) -> str:
    """What the alert says, with what to do."""
    by = "twice its target" if state == "FAIL" else "its target"
    remedy = f"look at the errors of this layer in 'lz-sync status', then run 'lz-sync sync {layer.command}'"
    return f"data is older than {by}; {remedy}"


#: How long a run of a layer may say nothing while it holds no lease: before its sync begins, and while it is checked.
SILENCE = 2 * LEASE


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Ends a run of a layer that neither holds its layer's lease nor says anything: its process is gone, together "
        "with the code server that would have told. Dagster then starts it again."
    ),
)
def operations_runs_sensor(
    context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dg.SkipReason:
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    ended: list[str] = []
    for record in context.instance.get_run_records(started):
        run = record.dagster_run
        layer = run.tags.get(LAYER_TAG)
        if layer not in {item.id.value for item in LAYERS} or clock() - _last_word(context.instance, run) < SILENCE:
            continue
        with store.read() as connection:
            holder = lease_holder(connection, LayerId(layer), clock())
        if holder != holder_of(run.run_id):
            context.instance.report_run_failed(
                run, "The process of this run is gone: it holds no lease and says nothing."
            )
            ended.append(run.run_id[:8])
    return dg.SkipReason(f"ended: {', '.join(ended)}" if ended else "every run that is under way lives")


def _last_word(instance: dg.DagsterInstance, run: dg.DagsterRun) -> datetime:
    """When a run last wrote an event."""
    newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return datetime.fromtimestamp(newest[0].timestamp if newest else 0, UTC)
