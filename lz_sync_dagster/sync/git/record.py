"""What a sync writes into the store: rows of the files that it looked at, and of what the readers found in those that
changed. One transaction, so that the tables, the proof and the deliveries never disagree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pygit2
import sqlalchemy as sa
import structlog

from lz_sync_dagster.config import SignatureConfig
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git import documents, gates, governance, runbooks, terraform
from lz_sync_dagster.sync.git.history import History, read_history, read_portal_commits
from lz_sync_dagster.sync.git.mirror import Mirror
from lz_sync_dagster.sync.git.plan import EDITED, Drift, Plan, SourceFile, is_readable
from lz_sync_dagster.sync.git.portal import Published, Rows
from lz_sync_dagster.sync.git.signatures import verify
from lz_sync_dagster.sync.git.source import SECRET, Source
from lz_sync_dagster.sync.git.tree import Entry, changes_between
from lz_sync_dagster.sync.globs import touches
from lz_sync_dagster.sync.runs import LayerRun, require_lease
from lz_sync_dagster.sync.store import Store, file_history, inbox, repository, source_findings
from lz_sync_dagster.sync.store.file_history import HeadMove, MoveKind
from lz_sync_dagster.sync.store.inbox import Delivery
from lz_sync_dagster.sync.store.repository import GitState, GovernanceValue, PortalCommit, SyncedFile, TerraformBlock
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding
from lz_sync_dagster.sync.timing import Clock

log = structlog.get_logger(__name__)

Row = TypeVar("Row")

#: Findings about what a file says: they hold until the file is read again.
_OF_CONTENT = (
    FindingKind.UNREADABLE,
    FindingKind.GOVERNANCE_YAML,
    FindingKind.GOVERNANCE_SCHEMA,
    FindingKind.GATES,
    FindingKind.HCL_SYNTAX,
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a sync changed: files in the portal repository (``added``, ``modified``, ``deleted``, ``restored``), rows
    in the store, and lines of the landing zone (``insertions``, ``deletions`` of its new commits).

    ``pushed``: the newest commit. ``previous``: the landing zone's head before, if it moved. ``rewritten``: whether its
    history was rewritten.
    """

    added: int = 0
    modified: int = 0
    deleted: int = 0
    restored: int = 0
    commits: int = 0
    dropped_commits: int = 0
    documents: int = 0
    governance: int = 0
    enforcement_gates: int = 0
    terraform_blocks: int = 0
    runbooks: int = 0
    insertions: int = 0
    deletions: int = 0
    rewritten: bool = False
    pushed: str | None = None
    previous: str | None = None

    @property
    def written(self) -> int:
        """Files written or deleted in the portal repository."""
        return self.added + self.modified + self.deleted

    def after(self, earlier: Changes) -> Changes:
        """The sum of two rounds."""
        sums: dict[str, Any] = {
            item.name: getattr(self, item.name) + getattr(earlier, item.name)
            for item in fields(self)
            if item.name not in ("pushed", "previous", "rewritten")
        }
        return Changes(
            pushed=self.pushed or earlier.pushed,
            previous=earlier.previous or self.previous,
            rewritten=self.rewritten or earlier.rewritten,
            **sums,
        )


@dataclass
class _Content:
    """What the readers found in the files that changed."""

    findings: list[SourceFinding] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)


def unread(connection: sa.Connection) -> frozenset[str]:
    """Paths whose newest version no reader could read for a defect: they are read again each time."""
    found = source_findings.open_findings(connection, kinds=[FindingKind.UNREADABLE])
    return frozenset(item.finding.path for item in found)


def record(
    store: Store,
    run: LayerRun,
    source: Source,
    published: Published,
    portal: Mirror,
    *,
    before: GitState | None,
    after: GitState,
    deliveries: Sequence[Delivery],
    absent: Collection[str],
    inventory_paths: Sequence[str],
    retry: Collection[str],
    reread: bool,
    signatures: SignatureConfig,
    unsigned: Sequence[SourceFinding],
    clock: Clock,
) -> Changes:
    """Write what a round read and did.

    Args:
        before: what the sync before proved, also if it does not hold any more.
        after: what this one proved.
        absent: commits that deliveries claim and that the head does not reach.
        inventory_paths: globs of what makes the inventory worth reading when it changes.
        retry: paths to read although they did not change.
        reread: whether every file is to be read again, since the readers or the settings may be others.
        signatures: whether those of new commits are verified.
        unsigned: what is wrong with the head's.
    """
    moved = before is None or replace(before, proven_at=after.proven_at) != after
    with store.read() as connection:
        signed = source_findings.open_findings(connection, kinds=[FindingKind.SIGNATURE])
    moved = moved or [item.finding for item in signed if item.finding.subject != "history"] != list(unsigned)
    if published.plan is None and not moved and not deliveries and not retry:
        return Changes()
    plan = published.plan
    rows = {file.key: _row(file, source.commit, published.before) for file in (plan.files if plan else ())}
    # A file that is only kept from its place is read all the same: the store shows the landing zone.
    synced = {file.path: file for file in (plan.files if plan else ()) if is_readable(file.reason)}
    known = {row.path: row for row in published.before.values() if is_readable(row.reason)}
    gone = known.keys() - synced.keys()
    changed = [
        file
        for path, file in synced.items()
        if reread or path in retry or path not in known or known[path].blob != file.entry.blob
    ]
    changed += _again(store, retry - synced.keys() - gone)
    refused = {file.path: str(file.reason) for file in (plan.files if plan else ()) if file.path not in synced}
    content = _Content()
    found = _read_all(source, changed, gone, refused, content)
    findings = content.findings
    history = _history(store, source, before)
    if signatures.policy != "off":
        try:
            history = with_signatures(source, history, signatures)
        except SyncError as error:  # the head was checked before; what cannot be checked of the others is said
            finding = SourceFinding(FindingKind.SIGNATURE, "", None, "history", "medium", str(error), source.commit)
            unsigned = [*unsigned, finding]
    new_portal_commits = _portal_commits(store, portal, before, after)
    if published.proposal is not None:
        sha, branch = published.proposal.commit, published.proposal.branch
        new_portal_commits = [
            replace(commit, branch=branch) if commit.sha == sha else commit for commit in new_portal_commits
        ]
    now = clock()
    with store.write(exclusive="git") as connection:
        require_lease(connection, run)
        repository.drop_commits(connection, history.dropped)
        file_history.forget(connection, history.dropped)
        repository.add_commits(connection, history.new)
        file_history.add_commit_files(connection, history.files)
        file_history.add_item_changes(connection, history.items)
        if history.move is not None:
            old_head = None if before is None else before.source_commit
            move = HeadMove(old_head, source.commit, history.move, len(history.new), run.triggered_by, now)
            file_history.record_move(connection, move)
        repository.add_portal_commits(connection, new_portal_commits)
        if plan is not None:
            changed_rows = {key: row for key, row in rows.items() if published.before.get(key) != row}
            repository.change_files(connection, published.before.keys() - rows.keys(), changed_rows)
            secrets = [_secret(file, source.commit) for file in plan.files if file.reason == SECRET]
            looked_at = None if plan.is_whole else {path for path, _ in (*rows, *published.before)}
            source_findings.replace(connection, secrets, kinds=[FindingKind.SECRET], paths=looked_at, now=now)
            _record_drifts(connection, plan, source.commit, is_proposed=published.proposal is not None, now=now)
        counts = found(connection)
        read = content.read | content.unread | gone | refused.keys()
        source_findings.replace(connection, findings, kinds=_OF_CONTENT, paths=read, now=now)
        if moved:
            source_findings.replace(connection, unsigned, kinds=[FindingKind.SIGNATURE], paths=None, now=now)
            repository.set_git_state(connection, after)
        inbox.finish(connection, deliveries, run_id=str(run.number), now=now, head=source.commit, absent=absent)
        if _touches(inventory_paths, source, published, before):
            inbox.request(
                connection,
                LayerId.API,
                key=f"inventory-{source.commit}-{run.number}",
                event="terraform_change",
                actor=next((delivery.actor for delivery in reversed(deliveries) if delivery.actor), None),
                commit=source.commit,
                now=now,
            )
    return Changes(
        added=published.added,
        modified=published.modified,
        deleted=published.deleted,
        restored=sum(drift.restored for drift in plan.drifts) if plan else 0,
        commits=len(history.new),
        dropped_commits=len(history.dropped),
        insertions=sum(commit.insertions for commit in history.new),
        deletions=sum(commit.deletions for commit in history.new),
        rewritten=history.move is MoveKind.REWRITTEN,
        previous=before.source_commit if before is not None and history.move is not None else None,
        pushed=published.commit,
        **counts,
    )


def _touches(globs: Sequence[str], source: Source, published: Published, before: GitState | None) -> bool:
    """Whether something that globs cover changed since the last sync. Nothing did at the first one; what cannot be told
    counts as changed."""
    changes = published.source_changes
    if changes is None:
        if before is None or before.source_commit == source.commit:
            return False
        if before.source_commit not in source.repository:
            return bool(globs)
        old = source.repository[before.source_commit].peel(pygit2.Commit).tree
        changes = tuple(changes_between(source.repository, old, source.tree))
    return touches(globs, [change.path for change in changes])


def _history(store: Store, source: Source, before: GitState | None) -> History:
    def is_kept(shas: Collection[str]) -> set[str]:
        with store.read() as connection:
            return file_history.kept_among(connection, shas)

    def kept() -> dict[str, list[str]]:
        with store.read() as connection:
            return repository.known_commits(connection)

    return read_history(
        source.repository,
        old_head=None if before is None else before.source_commit,
        head=source.commit,
        is_kept=is_kept,
        kept=kept,
        mapping=source.mapping,
    )


def _portal_commits(store: Store, portal: Mirror, before: GitState | None, after: GitState) -> list[PortalCommit]:
    head = after.proposed_commit or after.portal_commit
    if before is not None and head == (before.proposed_commit or before.portal_commit):
        return []
    with store.read() as connection:
        return read_portal_commits(
            portal.open(),
            head,
            lambda sha: repository.is_known_portal_commit(connection, sha),
            branch=portal.config.branch,
        )


def with_signatures(source: Source, history: History, config: SignatureConfig) -> History:
    """The history with what each new commit's signature is worth.

    Raises:
        SyncError: signatures cannot be checked here.
    """
    checked = verify(Path(source.repository.path), [commit.sha for commit in history.new], config)
    return replace(history, new=[replace(commit, signature=checked[commit.sha].status.value) for commit in history.new])


def _read_all(
    source: Source,
    changed: Sequence[SourceFile],
    gone: Collection[str],
    refused: Mapping[str, str],
    content: _Content,
) -> Callable[[sa.Connection], dict[str, Any]]:
    """Read the files that changed; what comes back writes their rows and says how many files or rows changed.

    A file that cannot be read keeps its rows of before. A file that is withheld loses them, but for the ones that have
    a table of their own: a rule is not lifted by a secret beside it.
    """
    by_path = {file.path: file for file in changed}
    commit = source.commit

    def these(
        noun: str, wanted: Callable[[str], bool], reader: Callable[[SourceFile], Sequence[Row]]
    ) -> tuple[set[str], list[Row]]:
        paths, rows = {path for path in gone if wanted(path)}, list[Row]()
        for path, file in by_path.items():
            if wanted(path):
                read = _read(file, noun, FindingKind.UNREADABLE, reader, source, content)
                if read is not None:
                    paths.add(path)
                    rows += read
        return paths, rows

    def blocks(file: SourceFile) -> Sequence[TerraformBlock]:
        found = terraform.read(file.path, source.data(file), blob=file.entry.blob, commit=commit)
        content.findings.extend(found.findings)
        return found.blocks

    def governance_values(file: SourceFile) -> Sequence[GovernanceValue]:
        found = governance.read_governance(file.path, source.text(file), commit)
        content.findings.extend(found.issues)
        return found.values

    def this(
        noun: str, path: str, kind: FindingKind, reader: Callable[[SourceFile], Sequence[Row]]
    ) -> Sequence[Row] | None:
        if path in by_path:
            return _read(by_path[path], noun, kind, reader, source, content)
        if path in refused:
            message = f"{refused[path]}; until then what was known of it before is shown"
            content.findings.append(SourceFinding(kind, path, None, "", "high", message, commit))
            return None
        return [] if path in gone else None

    document_paths, new_documents = these(
        "documents",
        documents.is_document,
        lambda file: [documents.read_document(file.path, source.text(file), blob=file.entry.blob, commit=commit)],
    )
    terraform_paths, new_blocks = these("terraform_blocks", terraform.is_terraform, blocks)
    runbook_paths, new_sections = these(
        "runbooks",
        runbooks.is_runbook,
        lambda file: runbooks.read_runbook(file.path, source.text(file), commit=commit),
    )
    values = this("governance", governance.GOVERNANCE_PATH, FindingKind.GOVERNANCE_YAML, governance_values)
    found_gates = this(
        "enforcement_gates",
        gates.GATES_PATH,
        FindingKind.GATES,
        lambda file: gates.read_gates(file.path, source.text(file), commit),
    )

    def write(connection: sa.Connection) -> dict[str, Any]:
        repository.replace_documents(connection, document_paths, new_documents)
        repository.replace_terraform(connection, terraform_paths, new_blocks)
        repository.replace_runbooks(connection, runbook_paths, new_sections)
        return {
            "documents": len(document_paths),
            "terraform_blocks": len(terraform_paths),
            "runbooks": len(runbook_paths),
            "governance": 0 if values is None else repository.replace_governance(connection, values),
            "enforcement_gates": 0 if found_gates is None else repository.replace_gates(connection, found_gates),
        }

    content.read |= by_path.keys()
    return write


def _read(
    file: SourceFile,
    noun: str,
    kind: FindingKind,
    reader: Callable[[SourceFile], Sequence[Row]],
    source: Source,
    content: _Content,
) -> Sequence[Row] | None:
    """What a reader finds in a file, or ``None`` and a finding: a file that breaks its reader costs only its own
    rows."""

    def finding(kind: FindingKind, subject: str, line: int | None, message: str) -> SourceFinding:
        return SourceFinding(kind, file.path, line, subject, "high", message, source.commit)

    try:
        return reader(file)
    except SyncError as error:
        line = error.where.removeprefix(f"{file.path}:")
        subject = noun if kind is FindingKind.UNREADABLE else ""
        number = int(line) if line.isdigit() else None
        content.findings.append(finding(kind, subject, number, f"{error.what}; {error.remedy}"))
    except Exception as error:
        log.exception("file_not_read", path=file.path)
        content.findings.append(
            finding(
                FindingKind.UNREADABLE,
                noun,
                None,
                f"cannot be read ({type(error).__name__}); what was known of it is kept; please report this as a "
                "defect",
            )
        )
        content.unread.add(file.path)
    return None


def _again(store: Store, paths: Collection[str]) -> list[SourceFile]:
    """Files that did not change and are to be read again."""
    if not paths:
        return []
    with store.read() as connection:
        rows = repository.files_at(connection, paths, ())
    again = {row.path: row for row in rows.values() if row.status == "synced"}
    return [SourceFile(row.path, row.destination, Entry(row.blob, row.mode), row.size) for row in again.values()]


def _row(file: SourceFile, commit: str, before: Rows) -> SyncedFile:
    row = SyncedFile(
        path=file.path,
        destination=file.destination,
        blob=file.entry.blob,
        mode=file.entry.mode,
        size=file.size,
        status="synced" if file.reason is None else "not_synced",
        reason=file.reason,
        commit_sha=commit,
    )
    known = before.get(file.key)
    return known if known is not None and replace(known, commit_sha=commit) == row else row


def _secret(file: SourceFile, commit: str) -> SourceFinding:
    return SourceFinding(FindingKind.SECRET, file.path, None, "", "critical", SECRET, commit)


def _record_drifts(connection: sa.Connection, plan: Plan, commit: str, *, is_proposed: bool, now: datetime) -> None:
    restored = [_drift(drift, commit, is_proposed=is_proposed) for drift in plan.drifts if drift.restored]
    source_findings.record_settled(connection, restored, now=now)
    if plan.is_whole:
        refused = [_drift(drift, commit) for drift in plan.drifts if not drift.restored]
        source_findings.replace(connection, refused, kinds=[FindingKind.DRIFT], paths=None, now=now)


def _drift(drift: Drift, commit: str, *, is_proposed: bool = False) -> SourceFinding:
    what = "was removed from the portal repository" if drift.found is None else "was edited in the portal repository"
    done = "a pull request proposes to restore it" if is_proposed else "it was restored"
    message = f"{what}; {done}" if drift.restored else EDITED
    return SourceFinding(FindingKind.DRIFT, drift.destination, None, "", "medium", message, commit)
