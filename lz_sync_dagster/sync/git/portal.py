"""Writes the portal repository: one commit without a work tree, pushed with a lease to the portal's branch, or to a
branch of the sync's own that a pull request asks to merge. A lost race is planned anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import pygit2

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.history import SOURCE_TRAILER
from lz_sync_dagster.sync.git.manifest import (
    HEADER_PATH,
    MANIFEST_ROOT,
    Owned,
    is_manifest,
    load_header,
    load_manifest,
    manifest_entries,
    owned_at,
)
from lz_sync_dagster.sync.git.mirror import LostRace, Mirror
from lz_sync_dagster.sync.git.paths import shortened
from lz_sync_dagster.sync.git.plan import Known, Plan, amend_plan, make_plan
from lz_sync_dagster.sync.git.source import Source
from lz_sync_dagster.sync.git.tree import Entry, TreeChange, changes_between, entries_of, entry_at, rivals, write_tree
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.store.repository import GitState, SyncedFile

#: How often a push is tried while others push too.
MAX_PUSHES = 5
AUTHOR = ("Portal Sync Bot", "noreply@portal.local")

Rows = Mapping[tuple[str, str], SyncedFile]


class SyncedRows(Protocol):
    """The store's record of the last sync, as far as planning needs it."""

    def all(self) -> Rows:
        """Every selected file."""

    def at(self, paths: Sequence[str], destinations: Sequence[str]) -> Rows:
        """The files of these paths, and those at these places."""

    def refused(self) -> Rows:
        """The files that are not synced."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that waits to be merged: its commit on the sync's own branch, on top of ``base``, and the pull request's
    address. ``warning``: what was asked for and GitHub did not do."""

    commit: str
    branch: str
    base: str
    pull_request: str | None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Proposed:
    """A pull request as GitHub left it: its address, what was asked for and not done, whether it is merged already."""

    url: str
    warning: str | None = None
    is_merged: bool = False


class PullRequests(Protocol):
    """Asks for the merge of the sync's own branch."""

    @property
    def branch(self) -> str:
        """The sync's own branch."""

    def propose(self, title: str, body: str) -> Proposed:
        """Open the pull request, or bring the open one up to date."""

    def is_declined(self, url: str) -> bool:
        """Whether a pull request was closed and not merged."""

    def withdraw(self, comment: str) -> None:
        """Close the open pull request, if there is one."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit of the sync says. ``counts`` are of files: added, modified, deleted."""

    source: str
    previous: str | None
    counts: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Published:
    """The portal after a sync.

    Attributes:
        head: of the portal's branch.
        commit: what was pushed, ``None`` if nothing was.
        plan: what was planned, ``None`` if nothing had moved.
        before: rows of the store about the files that the plan looked at, as they were.
        tree: the tree that holds the landing zone's files now.
        proposal: where that tree waits to be merged, if it does.
        source_changes: what changed in the landing zone since the last sync, ``None`` if that cannot be told.
        added, modified, deleted: files, the manifest aside.
    """

    head: str
    commit: str | None
    plan: Plan | None
    before: Rows
    tree: str
    proposal: Proposal | None
    source_changes: tuple[TreeChange, ...] | None
    added: int = 0
    modified: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree of the portal as `amend_plan` asks it."""

    repository: pygit2.Repository
    tree: pygit2.Tree

    def entry(self, path: str) -> Entry | None:
        return entry_at(self.tree, path)

    def has_rival(self, path: str) -> bool:
        return rivals(self.repository, self.tree, path)


class Publisher:
    """Brings the portal repository to the landing zone's selected files.

    Args:
        state: what the last sync proved, if it holds for the present settings.
        rows: the record of the last sync. What it says of blobs is believed as long as the settings are the same.
        restore: what becomes of edited files; see `make_plan`.
        pull_requests: ``None`` pushes to the portal's branch.
        message: words a commit.
        may_push: raises `SyncError` if the layer is no longer this sync's.
    """

    def __init__(
        self,
        portal: Mirror,
        source: Source,
        *,
        state: GitState | None,
        rows: SyncedRows,
        restore: bool,
        pull_requests: PullRequests | None,
        message: Callable[[Commit], str],
        may_push: Callable[[], None],
        now: datetime,
        progress: Progress,
    ) -> None:
        self._portal = portal
        self._source = source
        self._state = state
        self._rows = rows
        self._restore = restore
        self._pull_requests = pull_requests
        self._message = message
        self._may_push = may_push
        self._now = now
        self._progress = progress

    def publish(self, heads: Mapping[str, str]) -> Published:
        """Plan, commit and push.

        Args:
            heads: the portal's branches as they were seen last (ref → commit).

        Raises:
            SyncError: the remote cannot be reached or refuses; nothing is selected although files were synced before;
                or others pushed each time (transient).
        """
        for _ in range(MAX_PUSHES):
            try:
                return self._publish(heads)
            except LostRace:
                heads = self.look()
        raise SyncError(
            f"was pushed to by others {MAX_PUSHES} times during one sync",
            where=f"{self._portal.key} {self._portal.shown_url}",
            remedy="another attempt follows by itself",
            reason=Reason.CONFLICT,
        )

    def look(self) -> dict[str, str]:
        """The portal's branches as they are now."""
        return self._portal.remote_heads(*([self._pull_requests.branch] if self._pull_requests else []))

    def _publish(self, heads: Mapping[str, str]) -> Published:
        base = heads.get(self._portal.ref)
        if base is None or not self._portal.has(base):
            base = self._portal.fetch()
        repository = self._portal.open()
        branch_head = None if self._pull_requests is None else heads.get(f"refs/heads/{self._pull_requests.branch}")
        base_tree = _tree_of(repository, base)
        state = self._state
        if state is not None and (state.tree not in repository or state.source_commit not in self._source.repository):
            state = None
        proposal = None
        tip = base_tree
        if state is not None and state.proposed_commit is not None and self._pull_requests is not None:
            held = Proposal(state.proposed_commit, self._pull_requests.branch, state.portal_commit, state.pull_request)
            if (base, branch_head) == (held.base, held.commit):
                proposal = held
                tip = repository[state.tree].peel(pygit2.Tree)
            elif (changes := self._if_declined(state)) is not None:
                return Published(base, None, None, {}, state.tree, held, changes)
        plan, before, changes = self._plan(repository, tip, state)
        if plan is None or plan.is_empty:
            if proposal is None and branch_head is not None and self._is_ours(repository, branch_head):
                self._withdraw(branch_head)
            return Published(base, None, plan, before, str(tip.id), proposal, changes)
        written = repository[self._write(repository, tip, plan)].peel(pygit2.Tree)
        differing = list(changes_between(repository, base_tree, written))
        counts = _count(differing)
        if self._pull_requests is not None and all(change.path == HEADER_PATH for change in differing):
            if branch_head is not None and self._is_ours(repository, branch_head):
                self._withdraw(branch_head)
            return Published(base, None, plan, before, str(base_tree.id), None, changes)
        previous = state.source_commit if state is not None else None
        if previous is None or self._pull_requests is not None:
            previous = load_header(repository, base_tree, where=self._portal.shown_url).commit
        message = self._message(Commit(self._source.commit, previous, counts))
        signature = pygit2.Signature(*AUTHOR, int(self._now.timestamp()), 0)
        commit = str(repository.create_commit(None, signature, signature, message, written.id, [pygit2.Oid(hex=base)]))
        self._may_push()
        if self._pull_requests is None:
            self._portal.push(commit, expected=base)
            return Published(commit, commit, plan, before, str(written.id), None, changes, *counts)
        self._portal.push(commit, expected=branch_head, branch=self._pull_requests.branch)
        title, _, body = message.partition("\n\n")
        proposed = self._pull_requests.propose(title, body)
        proposal = Proposal(commit, self._pull_requests.branch, base, proposed.url, proposed.warning)
        published = Published(base, commit, plan, before, str(written.id), proposal, changes, *counts)
        return self._merged(published) if proposed.is_merged else published

    def _merged(self, published: Published) -> Published:
        """The portal after a pull request that was merged as soon as it was asked for; as it was if more was merged."""
        assert self._pull_requests is not None and published.commit is not None  # noqa: PT018
        head = self._portal.fetch()
        if str(_tree_of(self._portal.open(), head).id) != published.tree:
            return published
        branch = self._pull_requests.branch
        if self.look().get(f"refs/heads/{branch}") == published.commit:
            self._portal.delete_branch(branch, expected=published.commit)
        return replace(published, head=head, proposal=None)

    def _if_declined(self, state: GitState) -> tuple[TreeChange, ...] | None:
        """What changed in the landing zone, if a person closed the pull request and nothing of that is selected: then
        the same is not proposed again. Else ``None``."""
        old = _tree_of(self._source.repository, state.source_commit)
        changes = tuple(changes_between(self._source.repository, old, self._source.tree))
        if self._pull_requests is None or state.pull_request is None or self._source.selects(changes):
            return None
        return changes if self._pull_requests.is_declined(state.pull_request) else None

    def _is_ours(self, repository: pygit2.Repository, branch_head: str) -> bool:
        """Whether the sync made the head of its own branch: what somebody else put there is not removed."""
        if self._pull_requests is None:
            return False
        if self._state is not None and self._state.proposed_commit == branch_head:
            return True
        if branch_head not in repository:
            return False
        return SOURCE_TRAILER.encode() in repository[branch_head].peel(pygit2.Commit).raw_message

    def _withdraw(self, branch_head: str) -> None:
        assert self._pull_requests is not None
        self._pull_requests.withdraw("The portal has all of this: nothing is left to merge.")
        self._portal.delete_branch(self._pull_requests.branch, expected=branch_head)

    def _plan(
        self, repository: pygit2.Repository, tip: pygit2.Tree, state: GitState | None
    ) -> tuple[Plan | None, Rows, tuple[TreeChange, ...] | None]:
        """The plan (``None`` if nothing moved), the rows of before, and what changed in the landing zone."""
        changes: tuple[TreeChange, ...] | None = None
        if state is not None:
            old_source = _tree_of(self._source.repository, state.source_commit)
            changes = tuple(changes_between(self._source.repository, old_source, self._source.tree))
            touched = [
                change.path for change in changes_between(repository, repository[state.tree].peel(pygit2.Tree), tip)
            ]
            if not changes and not touched:
                return None, {}, changes
            amended = self._amend(repository, tip, changes, touched)
            if amended is not None:
                return (*amended, changes)
        before = self._rows.all()
        files = self._source.all_files(before if self._state is not None else {}, self._progress)
        self._progress("comparing with the portal repository", 0, None)
        manifest = load_manifest(repository, tip, where=self._portal.shown_url)
        if manifest.files and not files:
            raise SyncError(
                f"selects no file, and {len(manifest.files)} files of the portal repository would be deleted",
                where="sync_layers.git_sync.paths",
                remedy="check it and the branch of the landing zone; if it is meant, delete these files and "
                f"{MANIFEST_ROOT}/ from the portal repository by hand",
                reason=Reason.INVALID,
            )
        plan = make_plan(files, manifest, entries_of(repository, tip), restore=self._restore)
        return plan, before, changes

    def _amend(
        self, repository: pygit2.Repository, tip: pygit2.Tree, changes: Sequence[TreeChange], touched: Sequence[str]
    ) -> tuple[Plan, Rows] | None:
        changed_paths = {shortened(change.path) for change in changes}
        rows = self._rows.at(sorted(changed_paths), touched)
        known = Known(
            synced={
                row.destination: Owned(row.destination, row.path, row.blob, row.mode)
                for row in rows.values()
                if row.status == "synced"
            },
            refused=[row.destination for row in self._rows.refused().values()],
        )
        plan = amend_plan(
            self._source.files(changes),
            changed_paths,
            touched,
            known,
            _Tree(repository, tip),
            restore=self._restore,
        )
        if plan is None or self._deletes_everything(repository, tip, plan):
            return None
        if not self._restore:
            # A file of the sync's that was edited and is gone from the landing zone has no row.
            unknown = [place for place in touched if place not in known.synced]
            if owned_at(repository, tip, unknown, where=self._portal.shown_url):
                return None
        return plan, {key: row for key, row in rows.items() if row.path in changed_paths}

    def _deletes_everything(self, repository: pygit2.Repository, tip: pygit2.Tree, plan: Plan) -> bool:
        if not plan.manifest.removed or plan.manifest.added:
            return False
        return load_header(repository, tip, where=self._portal.shown_url).files <= len(plan.manifest.removed)

    def _write(self, repository: pygit2.Repository, tip: pygit2.Tree, plan: Plan) -> pygit2.Oid:
        changes: dict[str, Entry | None] = dict.fromkeys(plan.deletes)
        for destination, file in plan.writes.items():
            changes[destination] = file.entry
        if not plan.manifest.is_empty:
            changes |= manifest_entries(
                repository, tip, plan.manifest, commit=self._source.commit, where=self._portal.shown_url
            )
        return write_tree(repository, tip, changes)


def _tree_of(repository: pygit2.Repository, commit: str) -> pygit2.Tree:
    return repository[commit].peel(pygit2.Commit).tree


def _count(changes: Sequence[TreeChange]) -> tuple[int, int, int]:
    kinds = [(change.before is None, change.after is None) for change in changes if not is_manifest(change.path)]
    return kinds.count((True, False)), kinds.count((False, False)), kinds.count((False, True))
