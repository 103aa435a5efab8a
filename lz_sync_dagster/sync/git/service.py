"""The git layer's sync: bring the portal repository to the landing zone's head, and turn what was read into rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pygit2
import structlog

from lz_sync_dagster.config import RepositoryConfig, Settings
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git import documents, gates, governance, runbooks, terraform
from lz_sync_dagster.sync.git.history import reaches, read_commits, read_portal_commits
from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.mirror import Mirror
from lz_sync_dagster.sync.git.plan import SourceFile
from lz_sync_dagster.sync.git.portal import Published, publish
from lz_sync_dagster.sync.git.source import SECRET, SourceTree, read_source
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, inbox, repository
from lz_sync_dagster.sync.store.inbox import Delivery
from lz_sync_dagster.sync.store.repository import SyncedFile
from lz_sync_dagster.sync.timing import Clock

#: How often a sync starts again because the landing zone moved while it pushed. What comes later has a trigger of its
#: own.
MAX_ROUNDS = 5

log = structlog.get_logger(__name__)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class _Changes:
    """What a round changed in the store."""

    commits: int = 0
    dropped_commits: int = 0
    documents: int = 0
    governance: int = 0
    enforcement_gates: int = 0
    terraform_blocks: int = 0
    runbooks: int = 0
    errors: tuple[str, ...] = field(default=())
    from_cache: frozenset[str] = field(default=frozenset())

    def after(self, earlier: _Changes) -> _Changes:
        """The sum of two rounds, with the errors of the later one."""
        return _Changes(
            commits=self.commits + earlier.commits,
            dropped_commits=self.dropped_commits + earlier.dropped_commits,
            documents=self.documents + earlier.documents,
            governance=self.governance + earlier.governance,
            enforcement_gates=self.enforcement_gates + earlier.enforcement_gates,
            terraform_blocks=self.terraform_blocks + earlier.terraform_blocks,
            runbooks=self.runbooks + earlier.runbooks,
            errors=self.errors,
            from_cache=self.from_cache,
        )


def sync_git(settings: Settings, store: Store, run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
    """Sync the landing-zone repository to the portal repository and to the store.

    ``items_synced``: files that the portal repository has from the landing zone. ``items_changed``: files written or
    deleted there, and commits read or dropped. Partial if a file is withheld for a secret or cannot be read (its rows
    of before stay). Deliveries that were pending before the head was resolved are done afterwards; see `settled`.

    Raises:
        SyncError: a repository cannot be used; see `Mirror`.
    """
    config = settings.sync_layers.git_sync
    folder = settings.data_dir.absolute() / "git"
    source = Mirror(folder / "landing-zone.git", settings.landing_zone, key="landing_zone", token=settings.git_token)
    portal = Mirror(
        folder / "portal.git", settings.portal_repository, key="portal_repository", token=settings.git_token
    )
    mapping = Mapping(config.paths, config.mapping, config.exclude)
    changes, added, modified, deleted, restored = _Changes(), 0, 0, 0, 0
    pushed: str | None = None
    for _ in range(MAX_ROUNDS):
        with store.read() as connection:
            pending = inbox.pending(connection)
            before = repository.files(connection)
        as_of = clock()
        progress("fetching the landing zone", 0, None)
        head = source.fetch()
        tree = read_source(
            source.open(), head, mapping, max_file_bytes=config.max_file_bytes, known=before, progress=progress
        )
        progress("updating the portal repository", 0, None)
        published = publish(portal, tree, triggered_by=run.triggered_by, now=clock())
        progress("reading what changed", 0, None)
        patience = timedelta(seconds=settings.sync_layers.webhook.timeout_seconds) / 2
        deliveries = settled(tree.repository, head, pending, now=clock(), patience=patience)
        changes = _record(store, run, tree, published, portal, before, deliveries, clock).after(changes)
        added, modified, deleted = added + published.added, modified + published.modified, deleted + published.deleted
        restored += len(published.plan.restored)
        pushed = published.commit or pushed
        if published.commit is None or source.remote_head() == head:
            break
    refused = published.plan.refused
    with store.read() as connection:
        counts = repository.counts(connection)
    synced = len(published.plan.manifest.files)
    return LayerOutcome(
        items_synced=synced,
        items_changed=added + modified + deleted + changes.commits + changes.dropped_commits,
        as_of=as_of,
        status=Status.PARTIAL if changes.errors else Status.SUCCESS,
        errors=changes.errors,
        from_cache=changes.from_cache,
        details={
            "commits": {
                "count": counts.commits,
                "new": changes.commits,
                "dropped": changes.dropped_commits,
                "head": head,
                "branch": settings.landing_zone.branch,
                **_link(settings.landing_zone, head),
            },
            "documents": {"count": counts.documents, "changed": changes.documents},
            "governance": {"count": counts.governance, "changed": changes.governance},
            "enforcement_gates": {"count": counts.enforcement_gates, "changed": changes.enforcement_gates},
            "terraform_blocks": {
                "count": counts.terraform_blocks,
                "changed_files": changes.terraform_blocks,
                "with_errors": counts.terraform_errors,
            },
            "runbooks": {"count": counts.runbooks, "changed_files": changes.runbooks},
            "portal_commits": {
                "count": counts.portal_commits,
                "sha": pushed,
                "head": published.head,
                "source_commit": published.plan.manifest.commit,
                "files": synced,
                "added": added,
                "modified": modified,
                "deleted": deleted,
                "restored": restored,
                "not_synced": len(refused),
                **_link(settings.portal_repository, pushed or published.head),
            },
        },
    )


def settled(
    repository: pygit2.Repository, head: str, pending: Sequence[Delivery], *, now: datetime, patience: timedelta
) -> list[Delivery]:
    """The pending deliveries that a sync of ``head`` does what they ask for.

    A push says which commit it made. If ``head`` does not reach that one, the remote has answered with an older state,
    or the commit was pushed away since: the delivery waits for the next sync, but no longer than ``patience``.
    """
    claims = {delivery.commit_claim for delivery in pending if delivery.event == "push" and delivery.commit_claim}
    missing = {claim for claim in claims if not reaches(repository, head, claim)}
    return [
        delivery
        for delivery in pending
        if delivery.event != "push" or delivery.commit_claim not in missing or now - delivery.received_at >= patience
    ]


def _record(
    store: Store,
    run: LayerRun,
    tree: SourceTree,
    published: Published,
    portal: Mirror,
    before: dict[str, SyncedFile],
    deliveries: Sequence[Delivery],
    clock: Clock,
) -> _Changes:
    """Write everything that a round read, in one transaction: the tables and the deliveries never disagree."""
    refused = published.plan.refused
    rows = {file.path: _row(file, refused.get(file.path), tree.commit, before) for file in tree.files}
    synced = {file.path: file for file in tree.files if file.path not in refused}
    changed = [file for path, file in synced.items() if _is_new(before.get(path), file)]
    gone = {path for path, row in before.items() if row.status == "synced" and path not in synced}
    errors = [f"{path}: {reason}" for path, reason in sorted(refused.items()) if reason == SECRET]
    unread: set[str] = set()
    from_cache: set[str] = set()

    def these(
        noun: str, wanted: Callable[[str], bool], reader: Callable[[SourceFile], Sequence[Row]]
    ) -> tuple[set[str], list[Row]]:
        """The paths whose rows are to be replaced, and the rows. A file that cannot be read is in neither."""
        paths, found = {path for path in gone if wanted(path)}, list[Row]()
        for file in changed:
            if not wanted(file.path):
                continue
            read = _read(file, reader, errors)
            if read is None:
                unread.add(file.path)
                from_cache.add(noun)
            else:
                paths.add(file.path)
                found += read
        return paths, found

    def this(noun: str, path: str, reader: Callable[[str, str, str], Sequence[Row]]) -> Sequence[Row] | None:
        """The rows of a file that has a table of its own: none if the file is gone, ``None`` if the rows of before
        are to stay."""
        if path in synced:
            read = _read(synced[path], lambda file: reader(path, tree.text(file), tree.commit), errors)
        else:
            read = None if path in refused else []
        if read is None:
            from_cache.add(noun)
        return read

    document_paths, new_documents = these(
        "documents",
        documents.is_document,
        lambda file: [documents.read_document(file.path, tree.text(file), blob=file.entry.blob, commit=tree.commit)],
    )
    terraform_paths, new_blocks = these(
        "terraform_blocks",
        terraform.is_terraform,
        lambda file: terraform.read_terraform(file.path, tree.data(file), blob=file.entry.blob, commit=tree.commit),
    )
    runbook_paths, new_sections = these(
        "runbooks",
        runbooks.is_runbook,
        lambda file: runbooks.read_runbook(file.path, tree.text(file), commit=tree.commit),
    )
    values = this("governance", governance.GOVERNANCE_PATH, governance.read_governance)
    found_gates = this("enforcement_gates", gates.GATES_PATH, gates.read_gates)
    for path in unread:  # not recorded as synced, so that the next sync reads it again
        rows.pop(path)
        if path in before:
            rows[path] = before[path]
    with store.read() as connection:
        known, known_portal = repository.known_commits(connection), repository.known_portal_commits(connection)
    history = read_commits(tree.repository, tree.commit, known)
    new_portal_commits = read_portal_commits(portal.open(), published.head, known_portal, branch=portal.config.branch)
    with store.write(exclusive="git") as connection:
        repository.drop_commits(connection, history.dropped)
        repository.add_commits(connection, history.new)
        repository.add_portal_commits(connection, new_portal_commits)
        repository.replace_files(connection, before, rows.values())
        repository.replace_documents(connection, document_paths, new_documents)
        repository.replace_terraform(connection, terraform_paths, new_blocks)
        repository.replace_runbooks(connection, runbook_paths, new_sections)
        changed_values = 0 if values is None else repository.replace_governance(connection, values)
        changed_gates = 0 if found_gates is None else repository.replace_gates(connection, found_gates)
        inbox.finish(connection, deliveries, run_id=str(run.number), now=clock())
    return _Changes(
        commits=len(history.new),
        dropped_commits=len(history.dropped),
        documents=len(document_paths),
        governance=changed_values,
        enforcement_gates=changed_gates,
        terraform_blocks=len(terraform_paths),
        runbooks=len(runbook_paths),
        errors=tuple(errors),
        from_cache=frozenset(from_cache),
    )


def _read(file: SourceFile, reader: Callable[[SourceFile], Sequence[Row]], errors: list[str]) -> Sequence[Row] | None:
    """What a reader finds in a file, or ``None`` and a line in ``errors``: a file that breaks its reader costs only
    its own rows."""
    try:
        return reader(file)
    except SyncError as error:
        errors.append(str(error))
    except Exception as error:
        log.exception("file_not_read", path=file.path)
        errors.append(
            f"{file.path}: cannot be read ({type(error).__name__}); what was known of it is kept; "
            "please report this as a defect"
        )
    return None


def _row(file: SourceFile, reason: str | None, commit: str, before: dict[str, SyncedFile]) -> SyncedFile:
    row = SyncedFile(
        path=file.path,
        destination=file.destination,
        blob=file.entry.blob,
        mode=file.entry.mode,
        size=file.size,
        status="synced" if reason is None else "not_synced",
        reason=reason,
        commit_sha=commit,
    )
    known = before.get(file.path)
    return known if known is not None and replace(known, commit_sha=commit) == row else row


def _is_new(known: SyncedFile | None, file: SourceFile) -> bool:
    return known is None or known.status != "synced" or known.blob != file.entry.blob


def _link(config: RepositoryConfig, commit: str) -> dict[str, Any]:
    return {"url": f"{config.page.rstrip('/')}/commit/{commit}"} if config.page else {}
