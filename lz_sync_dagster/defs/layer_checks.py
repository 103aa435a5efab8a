"""Checks that every layer has, and how a check speaks: what is wrong, and what to do about it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store import Store, layer_runs

_LISTED = 20


def sync_check(layer_id: LayerId, asset: Sequence[str]) -> dg.AssetChecksDefinition:
    """The check ``sync_is_complete``: the newest sync of the layer left nothing out. What it left out is a warning,
    with its remedy."""

    @dg.asset_check(
        asset=list(asset),
        name="sync_is_complete",
        description=f"{layer(layer_id).title}: the newest sync left nothing out.",
    )
    def sync_is_complete(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
        return newest_sync(layer_id, store)

    return sync_is_complete


def newest_sync(layer_id: LayerId, store: Store) -> dg.AssetCheckResult:
    """The rule of `sync_check`."""
    with store.read() as connection:
        newest = next(
            (run for run in layer_runs.recent(connection, limit=5, layer=layer_id) if run.finished_at is not None),
            None,
        )
    if newest is None:
        return warning(["the layer was never synced; materialize its assets"])
    if newest.status == Status.SUCCESS:
        return dg.AssetCheckResult(passed=True, metadata={"run": newest.id})
    return warning(newest.errors or [f"the sync ended as {newest.status}"], run=newest.id)


def evaluation(asset: Sequence[str], name: str, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """The result as a sensor reports it: an asset that is materialized without a run has no run to be checked in."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(list(asset)),
        check_name=name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )


def warning(lines: Sequence[str], **figures: Any) -> dg.AssetCheckResult:
    """A check that did not pass, without blocking what comes after. One line per problem, each with its remedy."""
    return _result(dg.AssetCheckSeverity.WARN, lines, figures)


def error(lines: Sequence[str], **figures: Any) -> dg.AssetCheckResult:
    """A check that did not pass, and should have."""
    return _result(dg.AssetCheckSeverity.ERROR, lines, figures)


def _result(severity: dg.AssetCheckSeverity, lines: Sequence[str], figures: dict[str, Any]) -> dg.AssetCheckResult:
    shown = [f"- {line}" for line in lines[:_LISTED]]
    if len(lines) > _LISTED:
        shown.append(f"- … and {len(lines) - _LISTED} more")
    return dg.AssetCheckResult(
        passed=False,
        severity=severity,
        description=lines[0],
        metadata={"problems": dg.MetadataValue.md("\n".join(shown)), **figures},
    )
