"""The REST API of what layer 2 reads from the landing-zone repository: documents, governance, gates, runbooks,
terraform, and what is wrong with its files."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal import markdown
from lz_sync_dagster.portal.answers import (
    ERRORS,
    Answer,
    InPage,
    Limit,
    NextCursor,
    layer_status,
)
from lz_sync_dagster.portal.context import InPortal, Portal
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store import documents, repository_views, source_findings
from lz_sync_dagster.sync.store.file_history import (
    FileVersion,
    ItemKind,
    ItemVersion,
    by_key,
    file_history,
    item_history,
)
from lz_sync_dagster.sync.store.source_findings import FindingKind, OpenFinding

#: Changes that an answer shows of one file or item.
HISTORY = 100
#: Changes of gates that are read for one page of them.
GATE_HISTORY = 2_000


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class SnippetPiece(_Item):
    """A part of a snippet; `match`: it is what was searched for."""

    text: str
    match: bool


class KnowledgeEntry(_Item):
    """A document in a list. `snippet`, `rank` and `anchor` are null where nothing was searched for.

    `rank`: greater is better, within one answer, among hits in the same place; hits in titles come first. `anchor`: the
    heading above the snippet, as an id on the document's page.
    """

    path: str
    title: str
    page: str
    snippet: list[SnippetPiece] | None = None
    rank: float | None = None
    anchor: str | None = None


class KnowledgeAnswer(Answer):
    """A page of documents: by path, or the hits of a search, best first."""

    items: list[KnowledgeEntry]
    next_cursor: NextCursor


class DocumentHeading(_Item):
    """A heading; `anchor` is its id in `html`."""

    level: int
    text: str
    anchor: str


class DocumentChange(_Item):
    """A commit that touched a file. `author` and `subject` are null if the commit is not kept, the line counts for a
    binary file."""

    sha: str
    committed_at: datetime
    path: str
    change: str
    old_path: str | None
    insertions: int | None
    deletions: int | None
    author: str | None
    subject: str | None


class Destination(_Item):
    """A place of a file in the portal repository, or why it is not there."""

    path: str
    status: str
    reason: str | None


class DocumentAnswer(Answer):
    """A document. `body`: its Markdown text; `html`: the same, safe to show; `html_cut`: not to its end."""

    path: str
    title: str
    commit: str
    blob: str
    headings: list[DocumentHeading]
    body: str
    html: str
    html_cut: bool
    destinations: list[Destination]
    history: list[DocumentChange]


class Change(_Item):
    """A commit that changed an item: a key of `pmo.yaml`, a gate."""

    key: str
    path: str
    sha: str
    committed_at: datetime
    change: str
    before: Any
    after: Any
    author: str | None


class GovernanceItem(_Item):
    """A value of `pmo.yaml` under its dotted key, and the commit that last changed it. `line` is its line in the last
    file that could be read. `changed_at` and `line` are null if they are not known."""

    key: str
    value: Any
    path: str
    commit: str
    changed_at: datetime | None
    line: int | None


class Finding(_Item):
    """What is wrong with a file of the landing zone, or with its copy. `line` is null for the whole file."""

    kind: FindingKind
    path: str
    line: int | None
    subject: str
    severity: str
    message: str
    commit: str
    opened_at: datetime


class GovernanceAnswer(Answer):
    """A page of values, in the order of their keys; every open issue; with `key`, its history."""

    items: list[GovernanceItem]
    issues: list[Finding]
    history: list[Change] | None
    next_cursor: NextCursor


class GateItem(_Item):
    """An enforcement gate, in the words of its file; null for what it does not say."""

    gate_id: str
    title: str
    phase: str | None
    severity: str | None
    blocks: str | None
    validation: str | None
    status: str | None
    path: str
    line: int
    commit: str
    history: list[Change]


class GatesAnswer(Answer):
    """A page of gates, in the order of their file."""

    items: list[GateItem]
    next_cursor: NextCursor


class SourceFindingsAnswer(Answer):
    """A page of open findings, the longest known first."""

    items: list[Finding]
    next_cursor: NextCursor


class RunbookItem(_Item):
    """A section of a runbook, and the commands in it."""

    path: str
    line: int
    section: str
    commands: list[dict[str, Any]]
    commit: str


class RunbooksAnswer(Answer):
    """A page of sections, by path and line."""

    items: list[RunbookItem]
    next_cursor: NextCursor


class TerraformItem(_Item):
    """A block of a terraform file. `has_error`: it could be read in part only."""

    path: str
    line: int
    address: str
    block_type: str
    resource_type: str | None
    name: str | None
    module: str
    provider: str | None
    references: list[str]
    labels: dict[str, str]
    has_error: bool
    commit: str


class TerraformAnswer(Answer):
    """A page of blocks, by path and line."""

    items: list[TerraformItem]
    next_cursor: NextCursor


Text = Annotated[str | None, Query(max_length=10_000, pattern=r"^[^\x00]*$")]
HitLimit = Annotated[int, Query(ge=1, le=200, description="How many documents a page may hold.")]

router = APIRouter(prefix="/api/v1", responses=ERRORS, tags=["repository"])


@router.get("/knowledge", summary="Documents: all of them, or a search")
def knowledge(
    portal: InPortal,
    page: InPage,
    q: Annotated[Text, Query(description="What to search for; without it, all documents by path.")] = None,
    limit: HitLimit = 50,
) -> KnowledgeAnswer:
    """Every word has to occur; the last one may go on, and so may words of four letters or more. Words between double
    quotes follow each other. Nothing is an operator. A `q` without a word finds nothing."""
    if q:
        offset = page.read_number() or 0
        with portal.store.read() as connection:
            hits = documents.search(connection, q, limit=limit + 1, offset=offset)
            base = _base(connection, portal)
        items = [
            KnowledgeEntry(
                path=hit.path,
                title=hit.title,
                page=markdown.page_of(hit.path),
                snippet=[SnippetPiece.model_validate(piece) for piece in hit.snippet],
                rank=hit.rank,
                anchor=anchor_of(hit),
            )
            for hit in hits[:limit]
        ]
        more = page.write_number(offset + limit) if len(hits) > limit else None
        return KnowledgeAnswer(items=items, next_cursor=more, **base)
    place = page.read_place(str)
    with portal.store.read() as connection:
        entries = documents.listed(connection, limit=limit + 1, after=place[0] if place else "")
        base = _base(connection, portal)
    items = [
        KnowledgeEntry(path=entry.path, title=entry.title, page=markdown.page_of(entry.path))
        for entry in entries[:limit]
    ]
    more = page.write_place(entries[limit - 1].path) if len(entries) > limit else None
    return KnowledgeAnswer(items=items, next_cursor=more, **base)


@router.get("/knowledge/{path:path}", summary="One document", responses={404: ERRORS[503] | {"description": "None."}})
def document(
    portal: InPortal, path: Annotated[str, Path(description="Where it is in the landing zone.")]
) -> DocumentAnswer:
    """Its text, the same as safe HTML, where it is copied to, and the commits that touched it."""
    with portal.store.read() as connection:
        found = None if "\0" in path else documents.read(connection, path)
        if found is None:
            raise SyncError(
                "no document is kept under this path",
                where=path,
                remedy="look it up in /api/v1/knowledge; /api/v1/source-findings says what is withheld",
                reason=Reason.NOT_FOUND,
            )
        place = place_of(connection, portal, path)
        places = repository_views.copies(connection, path)
        history = file_history(connection, path, HISTORY)
        base = _base(connection, portal)
    rendered = markdown.render(found.body, place)
    return DocumentAnswer(
        path=found.path,
        title=found.title,
        commit=found.commit_sha,
        blob=found.blob,
        headings=[DocumentHeading.model_validate(heading) for heading in rendered.headings],
        body=found.body,
        html=rendered.html,
        html_cut=rendered.cut,
        destinations=[Destination(path=copy.destination, status=copy.status, reason=copy.reason) for copy in places],
        history=[_document_change(change) for change in history],
        **base,
    )


@router.get("/governance", summary="pmo.yaml, value by value")
def governance(
    portal: InPortal,
    page: InPage,
    key: Annotated[Text, Query(description="Only this key and those below it, and their history.")] = None,
    limit: Limit = 1000,
) -> GovernanceAnswer:
    """The values of the last `pmo.yaml` that could be read, and what is wrong with the present one."""
    after = page.read_place(str)
    with portal.store.read() as connection:
        entries = repository_views.governance_entries(connection)
        issues = source_findings.open_findings(
            connection, kinds=(FindingKind.GOVERNANCE_SCHEMA, FindingKind.GOVERNANCE_YAML)
        )
        history = None
        if key:
            history = item_history(connection, ItemKind.GOVERNANCE, below=key, limit=HISTORY)
        base = _base(connection, portal)
    if key:
        entries = [entry for entry in entries if entry.value.key == key or entry.value.key.startswith(f"{key}.")]
    if after:
        least = repository_views.key_order(after[0])
        entries = [entry for entry in entries if repository_views.key_order(entry.value.key) > least]
    items = [
        GovernanceItem(
            key=entry.value.key,
            value=entry.value.value,
            path=entry.value.path,
            commit=entry.changed_by,
            changed_at=entry.changed_at,
            line=entry.value.line,
        )
        for entry in entries[:limit]
    ]
    return GovernanceAnswer(
        items=items,
        issues=[_finding(issue) for issue in issues],
        history=None if history is None else [_change(change) for change in history],
        next_cursor=page.write_place(items[-1].key) if len(entries) > limit else None,
        **base,
    )


@router.get("/gates", summary="Enforcement gates")
def gates(portal: InPortal, page: InPage, limit: Limit = 100) -> GatesAnswer:
    """The gates of `ENFORCEMENT_GATES.md`, each with what changed it, the newest first."""
    offset = page.read_number() or 0
    with portal.store.read() as connection:
        rows = repository_views.gates(connection)
        shown = rows[offset : offset + limit]
        ids = [gate.gate_id for gate in shown]
        changes = by_key(item_history(connection, ItemKind.GATE, keys=ids, limit=GATE_HISTORY))
        base = _base(connection, portal)
    items = [
        GateItem(
            gate_id=gate.gate_id,
            title=gate.title,
            phase=gate.phase,
            severity=gate.severity,
            blocks=gate.blocks,
            validation=gate.validation,
            status=gate.status,
            path=gate.path,
            line=gate.line,
            commit=gate.commit_sha,
            history=[_change(change) for change in changes.get(gate.gate_id, [])[:HISTORY]],
        )
        for gate in shown
    ]
    more = page.write_number(offset + limit) if len(rows) > offset + limit else None
    return GatesAnswer(items=items, next_cursor=more, **base)


@router.get("/source-findings", summary="What is wrong with the landing zone's files")
def findings(
    portal: InPortal,
    page: InPage,
    kind: Annotated[list[FindingKind] | None, Query(description="Only these kinds.")] = None,
    limit: Limit = 100,
) -> SourceFindingsAnswer:
    """Open findings: files that are withheld or could be read in part only, values that their schema does not allow,
    copies that were edited, commits without a good signature."""
    after = page.read_number() or 0
    with portal.store.read() as connection:
        opened = source_findings.open_findings(connection, kinds=kind or ())
        base = _base(connection, portal)
    rows = sorted((item for item in opened if item.id > after), key=lambda item: item.id)
    return SourceFindingsAnswer(
        items=[_finding(item) for item in rows[:limit]],
        next_cursor=page.write_number(rows[limit - 1].id) if len(rows) > limit else None,
        **base,
    )


@router.get("/runbooks", summary="Runbooks, section by section")
def runbooks(portal: InPortal, page: InPage, limit: Limit = 100) -> RunbooksAnswer:
    """The sections of the runbooks, with their commands."""
    after = page.read_place(str, int)
    with portal.store.read() as connection:
        rows = repository_views.runbook_sections(connection, limit=limit + 1, after=after)
        base = _base(connection, portal)
    items = [
        RunbookItem(path=row.path, line=row.line, section=row.section, commands=row.commands, commit=row.commit_sha)
        for row in rows[:limit]
    ]
    more = page.write_place(items[-1].path, items[-1].line) if len(rows) > limit else None
    return RunbooksAnswer(items=items, next_cursor=more, **base)


@router.get("/terraform", summary="Terraform blocks")
def terraform(
    portal: InPortal,
    page: InPage,
    block_type: Annotated[
        Text, Query(alias="type", description="Only this type: `resource`, `module`, … or a resource type.")
    ] = None,
    module: Annotated[Text, Query(description="Only blocks of files in this folder.")] = None,
    q: Annotated[Text, Query(description="Only blocks with this text in their address or path.")] = None,
    limit: Limit = 100,
) -> TerraformAnswer:
    """The blocks of the landing zone's `.tf` files. What they describe need not exist: see `resources`."""
    after = page.read_place(str, int, str)
    with portal.store.read() as connection:
        rows = repository_views.blocks(
            connection, limit=limit + 1, after=after, block_type=block_type, module=module, words=q
        )
        base = _base(connection, portal)
    items = [
        TerraformItem(
            path=row.path,
            line=row.line,
            address=row.address,
            block_type=row.block_type,
            resource_type=row.resource_type,
            name=row.name,
            module=row.module,
            provider=row.provider,
            references=row.references,
            labels=row.labels,
            has_error=row.has_error,
            commit=row.commit_sha,
        )
        for row in rows[:limit]
    ]
    more = page.write_place(items[-1].path, items[-1].line, items[-1].address) if len(rows) > limit else None
    return TerraformAnswer(items=items, next_cursor=more, **base)


def anchor_of(hit: documents.Hit) -> str | None:
    """The id of the heading above a hit's snippet."""
    return None if hit.heading is None else markdown.anchors(hit.headings)[hit.heading]


def place_of(connection: sa.Connection, portal: Portal, path: str) -> markdown.Place:
    """Where a document is, and what its links can lead to."""
    home = portal.settings.landing_zone
    return markdown.Place(path, documents.paths(connection), home.page, home.branch)


def _base(connection: sa.Connection, portal: Portal) -> dict[str, Any]:
    status = layer_status(connection, portal, LayerId.GIT, portal.clock())
    return {"as_of": status.as_of, "source": status.source, "coverage": status.coverage}


def _document_change(version: FileVersion) -> DocumentChange:
    file = version.file
    return DocumentChange(
        sha=file.sha,
        committed_at=file.committed_at,
        path=file.path,
        change=file.change,
        old_path=file.old_path,
        insertions=file.insertions,
        deletions=file.deletions,
        author=version.author_name,
        subject=version.subject,
    )


def _change(version: ItemVersion) -> Change:
    item = version.item
    return Change(
        key=item.key,
        path=item.path,
        sha=item.sha,
        committed_at=item.committed_at,
        change=item.change,
        before=item.before,
        after=item.after,
        author=version.author_name,
    )


def _finding(found: OpenFinding) -> Finding:
    finding = found.finding
    return Finding(
        kind=finding.kind,
        path=finding.path,
        line=finding.line,
        subject=finding.subject,
        severity=finding.severity,
        message=finding.message,
        commit=finding.commit_sha,
        opened_at=found.opened_at,
    )
