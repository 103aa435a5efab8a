"""What is wrong with files of the landing zone, or with their copies: one open row per (kind, path, subject).

A finding is what a person has to mend. It stays open until a later sync no longer finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import source_findings

_CHUNK = 400


class FindingKind(StrEnum):
    """What a finding is about.

    ``secret``: the file is withheld. ``unreadable``: a defect of ours kept it from being read. ``governance_yaml``,
    ``gates``: it cannot be read, and the values of before are shown. ``governance_schema``: a value that the schema of
    ``pmo.yaml`` does not allow. ``hcl_syntax``: terraform that was read in part. ``drift``: a synced file was edited in
    the portal repository. ``signature``: a commit without a good signature.
    """

    SECRET = "secret"  # noqa: S105
    UNREADABLE = "unreadable"
    GOVERNANCE_YAML = "governance_yaml"
    GOVERNANCE_SCHEMA = "governance_schema"
    GATES = "gates"
    HCL_SYNTAX = "hcl_syntax"
    DRIFT = "drift"
    SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class SourceFinding:
    """A finding.

    Attributes:
        path: the file of the landing zone; for ``drift`` the one of the portal repository.
        line: from 1, or ``None`` if it is about the whole file.
        subject: what in the file: a dotted key, a block's address; empty for the whole file.
        severity: ``low``, ``medium``, ``high`` or ``critical``.
        message: one line, with the remedy.
        commit_sha: the commit at which it was found.
    """

    kind: FindingKind
    path: str
    line: int | None
    subject: str
    severity: str
    message: str
    commit_sha: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What one open row is kept of."""
        return (self.kind.value, self.path, self.subject)

    @property
    def text(self) -> str:
        """The whole of it in one line: ``pmo.yaml:12: is not …``."""
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.message}"


@dataclass(frozen=True, slots=True)
class OpenFinding:
    """A finding that is kept, and since when."""

    id: int
    finding: SourceFinding
    opened_at: datetime


def open_findings(connection: sa.Connection, *, kinds: Collection[FindingKind] = ()) -> list[OpenFinding]:
    """The findings that are open now, by path; of these kinds only, if any are named."""
    query = sa.select(source_findings).where(source_findings.c.resolved_at.is_(None))
    if kinds:
        query = query.where(source_findings.c.kind.in_([kind.value for kind in kinds]))
    query = query.order_by(source_findings.c.path, source_findings.c.line, source_findings.c.id)
    return [_open(row) for row in connection.execute(query)]


def restored(connection: sa.Connection, *, limit: int) -> list[OpenFinding]:
    """The copies that somebody edited in the portal repository and that were put back at once, newest first."""
    query = (
        sa.select(source_findings)
        .where(source_findings.c.kind == FindingKind.DRIFT.value)
        .where(source_findings.c.resolved_at == source_findings.c.opened_at)
        .order_by(source_findings.c.id.desc())
        .limit(limit)
    )
    return [_open(row) for row in connection.execute(query)]


def replace(
    connection: sa.Connection,
    found: Sequence[SourceFinding],
    *,
    kinds: Collection[FindingKind],
    paths: Collection[str] | None,
    now: datetime,
) -> int:
    """Make ``found`` the open findings of these kinds and paths (``None``: all paths).

    One that is open already keeps its row and its age; one that is no longer found is resolved. Returns how many were
    opened or resolved.
    """
    scope = [item for item in open_findings(connection, kinds=kinds) if paths is None or item.finding.path in paths]
    before = {item.finding.key: item for item in scope}
    after = {finding.key: finding for finding in found}
    gone = [item.id for key, item in before.items() if key not in after]
    for start in range(0, len(gone), _CHUNK):
        ids = gone[start : start + _CHUNK]
        connection.execute(source_findings.update().where(source_findings.c.id.in_(ids)).values(resolved_at=now))
    new = [finding for key, finding in after.items() if key not in before]
    for key, finding in after.items():
        known = before.get(key)
        if known is not None and known.finding != finding:
            connection.execute(
                source_findings.update().where(source_findings.c.id == known.id).values(_values(finding))
            )
    if new:
        connection.execute(source_findings.insert(), [{**_values(finding), "opened_at": now} for finding in new])
    return len(gone) + len(new)


def record_settled(connection: sa.Connection, found: Sequence[SourceFinding], *, now: datetime) -> None:
    """Keep findings that were mended as soon as they were found."""
    if found:
        rows = [{**_values(finding), "opened_at": now, "resolved_at": now} for finding in found]
        connection.execute(source_findings.insert(), rows)


def prune(connection: sa.Connection, *, before: datetime) -> int:
    """Forget what was resolved before an instant. Returns how many."""
    return connection.execute(source_findings.delete().where(source_findings.c.resolved_at < before)).rowcount


def _values(finding: SourceFinding) -> dict[str, object]:
    return {
        "kind": finding.kind.value,
        "path": finding.path,
        "line": finding.line,
        "subject": finding.subject,
        "severity": finding.severity,
        "message": finding.message,
        "commit_sha": finding.commit_sha,
    }


def _open(row: sa.Row[tuple[object, ...]]) -> OpenFinding:
    finding = SourceFinding(
        FindingKind(row.kind), row.path, row.line, row.subject, row.severity, row.message, row.commit_sha
    )
    return OpenFinding(row.id, finding, row.opened_at)
