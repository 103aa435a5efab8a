"""Writes the portal repository: one commit without a work tree, pushed with a lease. A lost race is planned anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pygit2

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.history import ACTOR_TRAILER, SOURCE_TRAILER
from lz_sync_dagster.sync.git.mirror import LostRace, Mirror
from lz_sync_dagster.sync.git.plan import MANIFEST_PATH, Manifest, Plan, load_manifest, make_plan
from lz_sync_dagster.sync.git.source import SourceTree
from lz_sync_dagster.sync.git.tree import Entry, entries_of, write_tree

#: How often a push is tried while others push too.
MAX_PUSHES = 5
AUTHOR = ("Portal Sync Bot", "noreply@portal.local")


@dataclass(frozen=True, slots=True)
class Published:
    """The portal after a sync. ``commit`` is ``None`` if there was nothing to commit. Counts are of files."""

    head: str
    commit: str | None
    plan: Plan
    added: int
    modified: int
    deleted: int


def publish(portal: Mirror, source: SourceTree, *, triggered_by: str, now: datetime) -> Published:
    """Bring the portal repository to the landing zone's selected files.

    Raises:
        SyncError: the remote cannot be reached or refuses; nothing is selected although files were synced before; or
            others pushed each time (transient).
    """
    for _ in range(MAX_PUSHES):
        head = portal.fetch()
        repository = portal.open()
        tree = repository[head].peel(pygit2.Commit).tree
        present = entries_of(repository, tree)
        manifest = _manifest(repository, present, where=f"{MANIFEST_PATH} in {portal.shown_url}")
        if manifest.files and not source.files:
            raise SyncError(
                f"selects no file, and {len(manifest.files)} files of the portal repository would be deleted",
                where="sync_layers.git_sync.paths",
                remedy="check it and the branch of the landing zone; if it is meant, delete these files and "
                f"{MANIFEST_PATH} from the portal repository by hand",
                reason=Reason.INVALID,
            )
        plan = make_plan(source.files, manifest, present, commit=source.commit)
        added = sum(destination not in present for destination in plan.writes)
        counted = (plan, added, len(plan.writes) - added, len(plan.deletes))
        if plan.is_empty:
            return Published(head, None, *counted)
        message = _message(plan, added, source.commit, triggered_by, now)
        commit = _commit(repository, tree, head, plan, source, message, now)
        try:
            portal.push(commit, expected=head)
        except LostRace:
            continue
        return Published(commit, commit, *counted)
    raise SyncError(
        f"was pushed to by others {MAX_PUSHES} times during one sync",
        where=f"{portal.key} {portal.shown_url}",
        remedy="another attempt follows by itself",
        reason=Reason.CONFLICT,
    )


def _manifest(repository: pygit2.Repository, present: Mapping[str, Entry], *, where: str) -> Manifest:
    entry = present.get(MANIFEST_PATH)
    return load_manifest(None if entry is None else repository[entry.blob].peel(pygit2.Blob).data, where=where)


def _commit(
    repository: pygit2.Repository,
    tree: pygit2.Tree,
    head: str,
    plan: Plan,
    source: SourceTree,
    message: str,
    now: datetime,
) -> str:
    changes: dict[str, Entry | None] = dict.fromkeys(plan.deletes)
    for destination, file in plan.writes.items():
        if file.entry.blob not in repository:
            repository.create_blob(source.data(file))
        changes[destination] = file.entry
    changes[MANIFEST_PATH] = Entry(str(repository.create_blob(plan.manifest.dump())), 0o100644)
    signature = pygit2.Signature(*AUTHOR, int(now.timestamp()), 0)
    written = write_tree(repository, tree, changes)
    return str(repository.create_commit(None, signature, signature, message, written, [pygit2.Oid(hex=head)]))


def _message(plan: Plan, added: int, commit: str, triggered_by: str, now: datetime) -> str:
    counts = f"{added} added, {len(plan.writes) - added} modified, {len(plan.deletes)} deleted"
    actor = "".join(character for character in triggered_by if character.isprintable())
    return (
        f"chore(sync): update from landing zone [{now.date().isoformat()}]\n\n{counts}\n\n"
        f"{SOURCE_TRAILER}: {commit}\n{ACTOR_TRAILER}: {actor}\n"
    )
