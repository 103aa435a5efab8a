"""The git layer's sync: bring the portal repository to the landing zone's head, and turn what was read into rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson
import pygit2
import structlog

from lz_sync_dagster import __version__
from lz_sync_dagster.config import RepositoryConfig, Settings
from lz_sync_dagster.sync.drift.service import refresh as refresh_drift
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.history import ACTOR_TRAILER, SOURCE_TRAILER, reaches
from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.mirror import LostRace, Mirror
from lz_sync_dagster.sync.git.portal import Commit, Published, Publisher, Rows
from lz_sync_dagster.sync.git.pull_request import GithubPullRequests
from lz_sync_dagster.sync.git.record import Changes, record, unread
from lz_sync_dagster.sync.git.signatures import check_head, verify
from lz_sync_dagster.sync.git.source import Source
from lz_sync_dagster.sync.github.credentials import git_credential
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, require_lease
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.store import Store, inbox, repository, source_findings
from lz_sync_dagster.sync.store.inbox import Delivery
from lz_sync_dagster.sync.store.repository import GitState
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding
from lz_sync_dagster.sync.timing import Clock

#: How often a sync starts again because the landing zone moved while it pushed. What comes later has a trigger of its
#: own.
MAX_ROUNDS = 5
#: Delivery ids that a commit's message names.
NAMED_DELIVERIES = 10

log = structlog.get_logger(__name__)

_OBJECT_ID = re.compile(r"[0-9a-f]{40}")

DELIVERY_TRAILER = "Landing-Zone-Delivery"
RANGE_TRAILER = "Landing-Zone-Range"
AUTHOR_TRAILER = "Landing-Zone-Actor"

#: Findings of which a person has to know that something is not in the portal, or not as it is in the landing zone.
_MISSING = {
    FindingKind.SECRET: "",
    FindingKind.UNREADABLE: "",
    FindingKind.GOVERNANCE_YAML: "governance",
    FindingKind.GATES: "enforcement_gates",
    FindingKind.DRIFT: "",
}


@dataclass(frozen=True, slots=True)
class _Rows:
    """The record of the last sync, as `Publisher` asks it."""

    store: Store

    def all(self) -> Rows:
        with self.store.read() as connection:
            return repository.files(connection)

    def at(self, paths: Sequence[str], destinations: Sequence[str]) -> Rows:
        with self.store.read() as connection:
            return repository.files_at(connection, paths, destinations)

    def refused(self) -> Rows:
        with self.store.read() as connection:
            return repository.refused_files(connection)


def sync_git(settings: Settings, store: Store, run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
    """Sync the landing-zone repository to the portal repository and to the store.

    ``items_synced``: files that the portal repository has from the landing zone, or a pull request proposes.
    ``items_changed``: files written or deleted there, and commits read or dropped. Partial if a file is withheld for a
    secret, was edited in the portal repository and is not restored, or cannot be read (its rows of before stay).
    Deliveries that were pending before the head was resolved are done afterwards; see `settled`.

    Raises:
        SyncError: a repository cannot be used; see `Mirror`.
    """
    source, portal = mirrors(settings)
    totals = Changes()
    with ThreadPoolExecutor(2, thread_name_prefix="git") as pool:
        for _ in range(MAX_ROUNDS):
            as_of = clock()
            progress("fetching the landing zone", 0, None)
            published, changes, head = _round_or_anew(settings, store, run, source, portal, pool, clock, progress)
            totals = changes.after(totals)
            if published.commit is None or source.remote_head() == head:
                break
    # Also after a sync that changed nothing: the one before may have been killed just here.
    refresh_drift(store, clock=clock)
    return _outcome(settings, store, totals, published, head, as_of)


def _round_or_anew(
    settings: Settings,
    store: Store,
    run: LayerRun,
    source: Mirror,
    portal: Mirror,
    pool: ThreadPoolExecutor,
    clock: Clock,
    progress: Progress,
) -> tuple[Published, Changes, str]:
    """`_round`, once more with new copies if something in them cannot be read, as a crash of the machine leaves it."""
    for is_last in (False, True):
        try:
            return _round(settings, store, run, source, portal, pool, clock, progress)
        except (pygit2.GitError, KeyError, OSError) as error:
            if isinstance(error, KeyError) and not _OBJECT_ID.fullmatch(str(error.args[0] if error.args else "")):
                raise
            failure = portal.failure(error)
            if is_last or failure.reason is not Reason.INTERNAL or isinstance(error, OSError):
                raise failure from error
            log.warning("mirrors_made_anew", error=str(error))
            source.forget()
            portal.forget()
    raise AssertionError


def mirrors(settings: Settings) -> tuple[Mirror, Mirror]:
    """The copies of the landing-zone repository and of the portal repository."""
    folder = settings.data_dir.absolute() / "git"
    source = Mirror(
        folder / "landing-zone.git",
        settings.landing_zone,
        key="landing_zone",
        credential=git_credential(settings, settings.landing_zone.name, write=False),
        max_blob_bytes=settings.sync_layers.git_sync.max_file_bytes,
    )
    portal = Mirror(
        folder / "portal.git",
        settings.portal_repository,
        key="portal_repository",
        credential=git_credential(settings, settings.portal_repository.name, write=True),
        borrows=source.path,
    )
    return source, portal


def remote_head(settings: Settings) -> str:
    """The landing zone's head as its remote has it now. Asked from a folder of its own, so that a fetch under way is in
    nobody's way.

    Raises:
        SyncError: see `Mirror`.
    """
    folder = settings.data_dir.absolute() / "git" / "landing-zone-head.git"
    credential = git_credential(settings, settings.landing_zone.name, write=False)
    return Mirror(folder, settings.landing_zone, key="landing_zone", credential=credential).remote_head()


def _round(
    settings: Settings,
    store: Store,
    run: LayerRun,
    source_mirror: Mirror,
    portal: Mirror,
    pool: ThreadPoolExecutor,
    clock: Clock,
    progress: Progress,
) -> tuple[Published, Changes, str]:
    config = settings.sync_layers.git_sync
    fingerprint = fingerprint_of(settings)
    with store.read() as connection:
        pending = inbox.pending(connection)
        state = repository.git_state(connection)
        retry = unread(connection)
    held = state if state is not None and state.fingerprint == fingerprint else None
    pull_requests = GithubPullRequests(settings) if config.publish == "pull_request" else None
    fetching = pool.submit(source_mirror.fetch)
    looking = pool.submit(portal.remote_heads, *([pull_requests.branch] if pull_requests else []))
    head = fetching.result()
    unsigned: list[SourceFinding] = []
    if config.signatures.policy != "off":
        finding = check_head(verify(source_mirror.path, [head], config.signatures)[head], config.signatures)
        unsigned = [] if finding is None else [finding]
    source = Source(
        source_mirror.open(),
        head,
        Mapping(config.paths, config.mapping, config.exclude),
        max_file_bytes=config.max_file_bytes,
    )
    heads = looking.result()
    portal.borrow(source_mirror)
    progress("updating the portal repository", 0, None)
    publisher = Publisher(
        portal,
        source,
        state=held,
        rows=_Rows(store),
        restore=config.drift == "restore",
        pull_requests=pull_requests,
        message=lambda commit: message(commit, run=run, pending=pending, author=_author(source), now=clock()),
        may_push=lambda: _require_lease(store, run),
        now=clock(),
        progress=progress,
    )
    if pull_requests is None and state is not None and state.proposed_commit is not None:
        _end_proposal(settings, portal, state.proposed_commit)
    published = publisher.publish(heads)
    progress("reading what changed", 0, None)
    patience = timedelta(seconds=settings.sync_layers.webhook.timeout_seconds) / 2
    absent = absent_claims(source.repository, head, pending)
    deliveries = settled(pending, absent, now=clock(), patience=patience)
    wanted = settings.sync_layers.webhook.triggers.api_sync if settings.sync_layers.api_sync.enabled else []
    after = GitState(
        source_commit=head,
        portal_commit=published.proposal.base if published.proposal else published.head,
        tree=published.tree,
        fingerprint=fingerprint,
        proposed_commit=published.proposal.commit if published.proposal else None,
        pull_request=published.proposal.pull_request if published.proposal else None,
        proven_at=clock(),
    )
    changes = record(
        store,
        run,
        source,
        published,
        portal,
        before=state,
        after=after,
        deliveries=deliveries,
        absent=absent,
        inventory_paths=wanted,
        retry=retry,
        reread=held is None,
        signatures=config.signatures,
        unsigned=unsigned,
        clock=clock,
    )
    return published, changes, head


def _end_proposal(settings: Settings, portal: Mirror, commit: str) -> None:
    """Close the pull request of before ``publish`` became ``push``, and delete its branch if nobody else pushed to it.
    That GitHub does not allow it is no reason not to sync."""
    try:
        pull_requests = GithubPullRequests(settings)
        pull_requests.withdraw("The sync pushes to the branch itself now.")
        portal.delete_branch(pull_requests.branch, expected=commit)
    except LostRace:
        pass
    except SyncError as error:
        if error.transient:
            raise
        log.warning("pull_request_left", error=str(error))


def _require_lease(store: Store, run: LayerRun) -> None:
    with store.write() as connection:
        require_lease(connection, run)


def fingerprint_of(settings: Settings) -> str:
    """What a proof of the last sync depends on besides the two repositories: settings, and this package's version."""
    config = settings.sync_layers.git_sync
    document = {
        "version": __version__,
        "config": config.model_dump(
            mode="json", include={"paths", "exclude", "mapping", "max_file_bytes", "drift", "publish", "pull_request"}
        ),
        "repositories": [
            [repository.url, repository.branch] for repository in (settings.landing_zone, settings.portal_repository)
        ],
    }
    return sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def message(commit: Commit, *, run: LayerRun, pending: Sequence[Delivery], author: str, now: datetime) -> str:
    """The message of a commit in the portal repository: what changed, and trailers that say from where, and why."""
    added, modified, deleted = commit.counts
    trailers = [(SOURCE_TRAILER, commit.source)]
    if commit.previous is not None and commit.previous != commit.source:
        trailers.append((RANGE_TRAILER, f"{commit.previous}..{commit.source}"))
    actors = [delivery.actor for delivery in pending if delivery.actor]
    trailers += [(AUTHOR_TRAILER, actors[-1] if actors else author), (ACTOR_TRAILER, run.triggered_by)]
    trailers += [(DELIVERY_TRAILER, delivery.delivery_id) for delivery in pending[-NAMED_DELIVERIES:]]
    lines = "\n".join(f"{name}: {_printable(value)}" for name, value in trailers)
    return (
        f"chore(sync): update from landing zone [{now.date().isoformat()}]\n\n"
        f"{added} added, {modified} modified, {deleted} deleted\n\n{lines}\n"
    )


def absent_claims(repository: pygit2.Repository, head: str, pending: Sequence[Delivery]) -> frozenset[str]:
    """The commits that deliveries claim and that are no part of the history of ``head``."""
    claims = {delivery.commit_claim for delivery in pending if delivery.commit_claim}
    return frozenset(claim for claim in claims if not reaches(repository, head, claim))


def settled(
    pending: Sequence[Delivery], absent: Collection[str], *, now: datetime, patience: timedelta
) -> list[Delivery]:
    """The pending deliveries for which a sync did what they ask for.

    A delivery may claim a commit. If the head does not reach that one, the remote has answered with an older state, or
    the commit was pushed away since, or never was: the delivery waits for the next sync, but no longer than
    ``patience``.
    """
    return [
        delivery
        for delivery in pending
        if delivery.commit_claim not in absent or now - delivery.received_at >= patience
    ]


def _outcome(
    settings: Settings, store: Store, changes: Changes, published: Published, head: str, as_of: datetime
) -> LayerOutcome:
    with store.read() as connection:
        counts = repository.counts(connection)
        findings = source_findings.open_findings(connection, kinds=_MISSING)
    errors = [item.finding.text for item in findings]
    nouns = {_MISSING[item.finding.kind] or item.finding.subject for item in findings}
    commit = changes.pushed or (published.proposal.commit if published.proposal else published.head)
    return LayerOutcome(
        items_synced=counts.synced_files,
        items_changed=changes.written + changes.commits + changes.dropped_commits,
        as_of=as_of,
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=tuple(errors),
        from_cache=frozenset(nouns - {""}),
        details={
            "commits": {
                "count": counts.commits,
                "new": changes.commits,
                "dropped": changes.dropped_commits,
                "insertions": changes.insertions,
                "deletions": changes.deletions,
                "rewritten": changes.rewritten,
                "head": head,
                "branch": settings.landing_zone.branch,
                "compare": _compare(settings.landing_zone, changes.previous, head),
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
                "sha": changes.pushed,
                "head": published.head,
                "source_commit": head,
                "files": counts.synced_files,
                "added": changes.added,
                "modified": changes.modified,
                "deleted": changes.deleted,
                "restored": changes.restored,
                "not_synced": counts.not_synced,
                "pull_request": published.proposal.pull_request if published.proposal else None,
                "pull_request_warning": published.proposal.warning if published.proposal else None,
                **_link(settings.portal_repository, commit),
            },
        },
    )


def _author(source: Source) -> str:
    commit = source.repository[source.commit].peel(pygit2.Commit)
    return (commit.author.raw_name or b"").decode("utf-8", "replace")


def _printable(value: str) -> str:
    """A trailer's value: one line, in which nothing closes an issue or calls a person."""
    plain = "".join(character for character in redact_text(value) if character.isprintable())
    return plain.replace("@", " at ").replace("#", "")[:200].strip()


def _compare(config: RepositoryConfig, before: str | None, after: str) -> str | None:
    return f"{config.page.rstrip('/')}/compare/{before}...{after}" if config.page and before else None


def _link(config: RepositoryConfig, commit: str) -> dict[str, Any]:
    return {"url": f"{config.page.rstrip('/')}/commit/{commit}"} if config.page else {}
