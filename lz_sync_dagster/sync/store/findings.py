"""Findings: which control which resource does not meet, since when, and how it ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.models import Violation
from lz_sync_dagster.sync.store.engine import insert_many
from lz_sync_dagster.sync.store.schema import findings, resources


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts on one resource's content, all of them; ``None`` once the resource is gone. ``is_new``: it was never
    judged before."""

    resource: str
    content_type: str
    asset_type: str
    project: str | None
    verdicts: tuple[Verdict, ...] | None
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class FindingChange:
    """A finding that was opened or resolved."""

    opened: bool
    violation: Violation
    resolution: str | None


#: (framework, control): two frameworks may use one number.
_Rule = tuple[str, str]

_KEPT = sa.bindparam("b_kept", type_=sa.Integer)
_COUNT_AS_FAILED = (
    resources.update()
    .where(resources.c.name == sa.bindparam("b_name"), resources.c.content_type == sa.bindparam("b_content_type"))
    .values(
        controls_decided=resources.c.controls_decided + _KEPT,
        controls_failed=resources.c.controls_failed + _KEPT,
        controls_unknown=resources.c.controls_unknown - _KEPT,
    )
)


def record(connection: sa.Connection, judged: list[Judged], *, now: datetime, tell: bool = True) -> list[FindingChange]:
    """Open and resolve findings so that they match the verdicts, after the tallies of ``resources`` were written.

    With ``tell`` switched off nothing is returned: what a baseline finds is no news.

    An undecided control leaves its finding as it was: it counts as failed in the tally as long as the finding is open,
    so that the violations of a resource are its open findings.
    """
    if not judged:
        return []
    open_rows: dict[tuple[str, str], dict[_Rule, sa.Row[tuple[object, ...]]]] = {}
    judged_before = [item.resource for item in judged if not item.is_new]
    query = sa.select(findings).where(findings.c.resource.in_(judged_before), findings.c.resolved_at.is_(None))
    for row in connection.execute(query) if judged_before else ():
        open_rows.setdefault((row.resource, row.content_type), {})[row.framework, row.control] = row
    changes: list[FindingChange] = []
    inserts: list[dict[str, object]] = []
    resolved: dict[str, list[int]] = {}
    kept: list[dict[str, object]] = []
    for item in judged:
        before = open_rows.get((item.resource, item.content_type), {})
        verdicts = {(verdict.framework, verdict.control): verdict for verdict in item.verdicts or ()}
        for rule, verdict in verdicts.items():
            if verdict.outcome is Outcome.FAIL and rule not in before:
                values = values_of(
                    verdict, item.resource, item.content_type, item.asset_type, item.project, opened_at=now
                )
                inserts.append(values)
                if tell:
                    changes.append(FindingChange(True, _violation(values), None))
        undecided = sum(verdicts[rule].outcome is Outcome.UNKNOWN for rule in before.keys() & verdicts.keys())
        if undecided:
            kept.append({"b_name": item.resource, "b_content_type": item.content_type, "b_kept": undecided})
        for rule, row in before.items():
            resolution = _resolution(item, verdicts.get(rule))
            if resolution is not None:
                resolved.setdefault(resolution, []).append(row.id)
                if tell:
                    changes.append(FindingChange(False, _violation(row._mapping), resolution))
    insert_many(connection, findings, inserts)
    if kept:
        connection.execute(_COUNT_AS_FAILED, kept)
    for resolution, ids in resolved.items():
        connection.execute(
            findings.update().where(findings.c.id.in_(ids)).values(resolved_at=now, resolution=resolution)
        )
    return changes


def _resolution(item: Judged, verdict: Verdict | None) -> str | None:
    if item.verdicts is None:
        return "resource_deleted"
    if verdict is None:
        return "not_applicable"
    return "fixed" if verdict.outcome is Outcome.PASS else None


def values_of(
    verdict: Verdict, resource: str, content_type: str, asset_type: str, project: str | None, *, opened_at: datetime
) -> dict[str, object]:
    """The row of a new finding."""
    return {
        "control": verdict.control,
        "framework": verdict.framework,
        "title": verdict.title,
        "severity": verdict.severity,
        "source": verdict.source,
        "resource": resource,
        "content_type": content_type,
        "asset_type": asset_type,
        "project": project,
        "message": verdict.message,
        "opened_at": opened_at,
    }


def _violation(values: Mapping[Any, Any]) -> Violation:
    return Violation.model_validate({name: values[name] for name in Violation.model_fields})


def open_violations(
    connection: sa.Connection, *, limit: int, after: int = 0, severities: Collection[str] = ()
) -> list[tuple[int, Violation]]:
    """Open findings with an id greater than ``after``, in the order of their ids, at most ``limit``."""
    query = (
        sa.select(findings)
        .where(findings.c.resolved_at.is_(None), findings.c.id > after)
        .order_by(findings.c.id)
        .limit(limit)
    )
    if severities:
        query = query.where(findings.c.severity.in_(severities))
    return [(row.id, _violation(row._mapping)) for row in connection.execute(query)]


def count_open(connection: sa.Connection) -> int:
    """How many findings are open."""
    query = sa.select(sa.func.count()).select_from(findings).where(findings.c.resolved_at.is_(None))
    return int(connection.execute(query).scalar_one())
