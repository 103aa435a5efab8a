"""The freshness watch: what Dagster says of each layer's freshness becomes an alert, opened once and resolved once."""

from collections.abc import Iterable

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LAYERS, Layer
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.alerts import raise_alert, resolve_alert
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
