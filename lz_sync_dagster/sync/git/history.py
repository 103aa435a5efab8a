"""Reads the commits of the landing zone, and those that the sync made in the portal repository."""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

import pygit2

from lz_sync_dagster.sync.git.plan import MANIFEST_PATH
from lz_sync_dagster.sync.store.repository import CommitRecord, PortalCommit

#: How far back the first sync reads.
FIRST_COMMITS = 500

SOURCE_TRAILER = "Landing-Zone-Commit"
ACTOR_TRAILER = "Triggered-By"

_TRAILER = re.compile(r"^([A-Za-z\-]+): (.*)$", re.MULTILINE)


def read_commits(repository: pygit2.Repository, head: str, known: Collection[str]) -> list[CommitRecord]:
    """The commits that ``head`` reaches and ``known`` lacks, newest first.

    The first time these are the newest `FIRST_COMMITS`. Later it is every new one, down to those that are known.
    """
    found: list[CommitRecord] = []
    for commit in _newest_first(repository, head, known):
        if not known and len(found) == FIRST_COMMITS:
            break
        found.append(_record(commit))
    return found


def read_portal_commits(
    repository: pygit2.Repository, head: str, known: Collection[str], *, branch: str
) -> list[PortalCommit]:
    """The sync's own commits on the portal's branch that ``known`` lacks: those with its trailers, newest first."""
    found = []
    commit: pygit2.Commit | None = repository[head].peel(pygit2.Commit)
    for _ in range(FIRST_COMMITS):
        if commit is None or str(commit.id) in known:
            break
        trailers = dict(_TRAILER.findall(_decode(commit.raw_message)))
        if SOURCE_TRAILER in trailers:
            changes = _changes(commit)
            found.append(
                PortalCommit(
                    sha=str(commit.id),
                    source_sha=trailers[SOURCE_TRAILER][:64],
                    branch=branch,
                    added=changes.count("A"),
                    modified=changes.count("M"),
                    deleted=changes.count("D"),
                    triggered_by=trailers.get(ACTOR_TRAILER, "unknown")[:200],
                    pushed_at=_instant(commit),
                )
            )
        commit = commit.parents[0] if commit.parents else None
    return found


def _newest_first(repository: pygit2.Repository, head: str, known: Collection[str]) -> Iterator[pygit2.Commit]:
    first = repository[head].peel(pygit2.Commit)
    queue = [(-first.commit_time, 0, first)]
    seen = {first.id}
    while queue:
        _, _, commit = heapq.heappop(queue)
        if str(commit.id) in known:
            continue
        yield commit
        for parent in commit.parents:
            if parent.id not in seen:
                seen.add(parent.id)
                heapq.heappush(queue, (-parent.commit_time, len(seen), parent))


def _record(commit: pygit2.Commit) -> CommitRecord:
    diff = _diff(commit)
    message = _decode(commit.raw_message).strip()
    return CommitRecord(
        sha=str(commit.id),
        committed_at=_instant(commit),
        author_name=_decode(commit.author.raw_name or b""),
        author_email=_decode(commit.author.raw_email or b""),
        subject=message.splitlines()[0] if message else "",
        parents=[str(parent) for parent in commit.parent_ids],
        files_changed=diff.stats.files_changed,
        insertions=diff.stats.insertions,
        deletions=diff.stats.deletions,
    )


def _changes(commit: pygit2.Commit) -> list[str]:
    return [delta.status_char() for delta in _diff(commit).deltas if delta.new_file.path != MANIFEST_PATH]


def _diff(commit: pygit2.Commit) -> pygit2.Diff:
    if commit.parents:
        return commit.parents[0].tree.diff_to_tree(commit.tree)
    return commit.tree.diff_to_tree(swap=True)


def _instant(commit: pygit2.Commit) -> datetime:
    return datetime.fromtimestamp(commit.commit_time, UTC)


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "")
