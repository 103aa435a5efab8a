"""Reads the commits of the landing zone, and those that the sync made in the portal repository."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import pygit2

from lz_sync_dagster.sync.git.manifest import is_manifest
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.store.repository import CommitRecord, PortalCommit

#: How far back the first sync reads.
FIRST_COMMITS = 500

SOURCE_TRAILER = "Landing-Zone-Commit"
ACTOR_TRAILER = "Triggered-By"

_TRAILER = re.compile(r"^([A-Za-z\-]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class History:
    """What a new head changes: commits to keep, newest first, and ids of those that history has no more."""

    new: list[CommitRecord]
    dropped: frozenset[str]


def read_commits(repository: pygit2.Repository, head: str, known: Mapping[str, Sequence[str]]) -> History:
    """Compare a head with the commits that are kept.

    Args:
        known: the commits that are kept, with their parents.

    The first time, and if history was rewritten from the start, the newest `FIRST_COMMITS` are read. Later it is
    every commit that ``head`` reaches and the heads of before did not, however old it is.
    """
    kept = known
    if not all(reaches(repository, head, tip) for tip in _tips(known)):
        reachable = {str(commit.id) for commit in repository.walk(pygit2.Oid(hex=head))}
        kept = {sha: parents for sha, parents in known.items() if sha in reachable}
    walker = repository.walk(pygit2.Oid(hex=head), pygit2.enums.SortMode.TIME)
    for tip in _tips(kept):
        walker.hide(pygit2.Oid(hex=tip))
    # The walk goes by commit time: where clocks were far off, it also comes by commits that are hidden.
    found = islice((commit for commit in walker if str(commit.id) not in kept), None if kept else FIRST_COMMITS)
    new = [_record(commit) for commit in found]
    return History(new, frozenset(known.keys() - kept.keys()))


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


def reaches(repository: pygit2.Repository, head: str, commit: str) -> bool:
    """Whether ``commit``, which may be unknown, is part of the history of ``head``."""
    if len(commit) != len(head) or commit not in repository:
        return False
    return commit == head or repository.descendant_of(head, commit)


def _tips(known: Mapping[str, Sequence[str]]) -> set[str]:
    """The commits that are no parent of another: the heads of the syncs before."""
    return known.keys() - {parent for parents in known.values() for parent in parents}


def _record(commit: pygit2.Commit) -> CommitRecord:
    diff = _diff(commit)
    message = redact_text(_decode(commit.raw_message)).strip()
    return CommitRecord(
        sha=str(commit.id),
        committed_at=_instant(commit),
        author_name=redact_text(_decode(commit.author.raw_name or b"")),
        author_email=redact_text(_decode(commit.author.raw_email or b"")),
        subject=message.splitlines()[0] if message else "",
        parents=[str(parent) for parent in commit.parent_ids],
        files_changed=diff.stats.files_changed,
        insertions=diff.stats.insertions,
        deletions=diff.stats.deletions,
    )


def _changes(commit: pygit2.Commit) -> list[str]:
    return [delta.status_char() for delta in _diff(commit).deltas if not is_manifest(delta.new_file.path)]


def _diff(commit: pygit2.Commit) -> pygit2.Diff:
    if commit.parents:
        return commit.parents[0].tree.diff_to_tree(commit.tree)
    return commit.tree.diff_to_tree(swap=True)


def _instant(commit: pygit2.Commit) -> datetime:
    return datetime.fromtimestamp(commit.commit_time, UTC)


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "")
