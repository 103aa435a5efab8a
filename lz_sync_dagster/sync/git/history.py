"""Reads the history of the landing zone by commit: the commits, the selected files that each changed, and the items in
them; and the commits that the sync made in the portal repository.

What a sync costs follows the commits that are new, not those that are kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

import pygit2
from pygit2.enums import DeltaStatus, DiffFind, DiffOption, SortMode

from lz_sync_dagster.sync.git import items
from lz_sync_dagster.sync.git.items import ItemReader
from lz_sync_dagster.sync.git.manifest import is_manifest
from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.paths import decoded, shortened
from lz_sync_dagster.sync.git.tree import GITLINK_MODE, REGULAR_MODES, TreeFile, changes_between
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.store.file_history import CommitFile, FileChange, ItemChange, ItemDelta, ItemKind, MoveKind
from lz_sync_dagster.sync.store.repository import CommitRecord, PortalCommit

#: How far back the first sync reads.
FIRST_COMMITS = 500
#: A commit that changes more files of a kind than this is a bulk commit: of its items only the keys are kept.
BULK_FILES = 200
#: Lines of larger files are not counted.
MAX_COUNTED_BYTES = 4_000_000
#: If a commit removed or added more files than this, only files that moved unchanged are taken for renamed.
MAX_SIMILAR = 500

SOURCE_TRAILER = "Landing-Zone-Commit"
ACTOR_TRAILER = "Triggered-By"

_TRAILER = re.compile(r"^([A-Za-z\-]+): (.*)$", re.MULTILINE)
_CHUNK = 400
#: Git takes a file with a zero byte in its first so many bytes for a binary one.
_BINARY_BYTES = 8_000


@dataclass(frozen=True, slots=True)
class History:
    """What a new head changes.

    Attributes:
        move: how the head moved; ``None`` if it did not.
        new: commits to keep, newest first.
        dropped: ids of kept commits that the history has no more.
        files: the selected files that the new commits changed, oldest commit first. A merge lists only what differs
            from all its parents.
        items: the items that they changed in these files, oldest commit first. Of a merge likewise.
    """

    move: MoveKind | None
    new: list[CommitRecord]
    dropped: frozenset[str]
    files: list[CommitFile]
    items: list[ItemChange]


def read_history(
    repository: pygit2.Repository,
    *,
    old_head: str | None,
    head: str,
    is_kept: Callable[[Collection[str]], Set[str]],
    kept: Callable[[], MappingOf[str, Sequence[str]]],
    mapping: Mapping,
) -> History:
    """Read what is new since the head of the last sync.

    The first time, and if nothing that is kept is part of the history any more, the newest `FIRST_COMMITS` are read.
    Later it is every commit that ``head`` reaches and the heads of before did not, however old it is.

    Args:
        old_head: the head of the last sync; ``None`` if there was none.
        is_kept: says which of some commits are kept.
        kept: all commits that are kept, with their parents. Asked only if the old head is no part of the history, or
            not kept.
        mapping: which files are selected.
    """
    move = move_kind(repository, old_head, head)
    if old_head is not None and move is not MoveKind.REWRITTEN and is_kept([old_head]):
        dropped = frozenset[str]()
        found = _new(repository, head, {old_head}, is_kept) if move else []
    else:
        known = kept()
        # Only a rewritten history, or one whose kept part is not its newest, has to be looked through as a whole.
        tips = _tips(known)
        if not all(reaches(repository, head, tip) for tip in tips):
            reachable = {str(commit.id) for commit in repository.walk(pygit2.Oid(hex=head))}
            dropped = frozenset(known.keys() - reachable)
            known = {sha: parents for sha, parents in known.items() if sha in reachable}
            tips = _tips(known)
        else:
            dropped = frozenset()
        found = _new(repository, head, tips, known.keys().__and__)
        if not known:
            found = islice(found, FIRST_COMMITS)
    reader = _Reader(repository, mapping)
    for commit in found:
        reader.read(commit)
    return History(
        move,
        reader.commits,
        dropped,
        [file for files in reversed(reader.files) for file in files],
        [item for changes in reversed(reader.items) for item in changes],
    )


def move_kind(repository: pygit2.Repository, old_head: str | None, head: str) -> MoveKind | None:
    """How the head moved; ``None`` if it did not."""
    if old_head is None:
        return MoveKind.FIRST
    if old_head == head:
        return None
    return MoveKind.FORWARD if reaches(repository, head, old_head) else MoveKind.REWRITTEN


def read_portal_commits(
    repository: pygit2.Repository, head: str, is_known: Callable[[str], bool], *, branch: str
) -> list[PortalCommit]:
    """The sync's own commits on the portal's branch, those with its trailers, newest first, back to one that
    ``is_known``; at most `FIRST_COMMITS` commits are looked at."""
    found = []
    commit: pygit2.Commit | None = repository[head].peel(pygit2.Commit)
    for _ in range(FIRST_COMMITS):
        if commit is None:
            break
        trailers = dict(_TRAILER.findall(_decode(commit.raw_message)))
        if SOURCE_TRAILER in trailers:
            if is_known(str(commit.id)):
                break
            changes = Counter(
                change.kind
                for change in _compared(repository, commit, commit.parents[0] if commit.parent_ids else None)
                if not is_manifest(decoded(change.path)[0])
            )
            found.append(
                PortalCommit(
                    sha=str(commit.id),
                    source_sha=trailers[SOURCE_TRAILER][:64],
                    branch=branch,
                    added=changes[FileChange.ADDED],
                    modified=changes[FileChange.MODIFIED],
                    deleted=changes[FileChange.DELETED],
                    triggered_by=trailers.get(ACTOR_TRAILER, "unknown")[:200],
                    pushed_at=_instant(commit),
                )
            )
        commit = commit.parents[0] if commit.parent_ids else None
    return found


def reaches(repository: pygit2.Repository, head: str, commit: str) -> bool:
    """Whether ``commit``, which may be unknown, is part of the history of ``head``."""
    if len(commit) != len(head) or commit not in repository:
        return False
    return commit == head or repository.descendant_of(head, commit)


def _tips(known: MappingOf[str, Sequence[str]]) -> set[str]:
    """The commits that are no parent of another: the heads of the syncs before."""
    return known.keys() - {parent for parents in known.values() for parent in parents}


def _new(
    repository: pygit2.Repository, head: str, hidden: Iterable[str], is_kept: Callable[[Collection[str]], Set[str]]
) -> Iterator[pygit2.Commit]:
    """The commits that ``head`` reaches and the hidden ones do not, children before parents, newest first."""
    walker = repository.walk(pygit2.Oid(hex=head), SortMode.TOPOLOGICAL | SortMode.TIME)
    for sha in hidden:
        walker.hide(pygit2.Oid(hex=sha))
    # Where clocks were far off, the walk also comes by commits that are hidden.
    while part := list(islice(walker, _CHUNK)):
        known = is_kept({str(commit.id) for commit in part})
        yield from (commit for commit in part if str(commit.id) not in known)


@dataclass(frozen=True, slots=True)
class _Side:
    """A file on one side of a change."""

    path: bytes
    blob: pygit2.Oid
    mode: int


@dataclass(frozen=True, slots=True)
class _Change:
    """A changed file. A side is ``None`` where there is no such file; if there are two, their paths may differ."""

    old: _Side | None
    new: _Side | None

    @property
    def path(self) -> bytes:
        """The path afterwards; of a deleted file the one before."""
        side = self.new or self.old
        assert side is not None
        return side.path

    @property
    def kind(self) -> FileChange:
        if self.old is None:
            return FileChange.ADDED
        if self.new is None:
            return FileChange.DELETED
        return FileChange.MODIFIED if self.old.path == self.new.path else FileChange.RENAMED


class _Reader:
    """Reads commits one by one, newest first."""

    def __init__(self, repository: pygit2.Repository, mapping: Mapping) -> None:
        self._repository = repository
        self._mapping = mapping
        self._items = ItemReader(repository)
        self._selected: dict[bytes, bool] = {}
        self.commits: list[CommitRecord] = []
        self.files: list[list[CommitFile]] = []
        self.items: list[list[ItemChange]] = []

    def read(self, commit: pygit2.Commit) -> None:
        parents = commit.parents
        changes = _changes(self._repository, commit, parents[0] if parents else None)
        lines = [_lines(self._repository, change) for change in changes]
        self.commits.append(_record(commit, changes, lines))
        counted = list(zip(changes, lines, strict=True))
        if len(parents) > 1:
            counted = self._of_a_merge(commit, parents, counted)
        wanted = [(change, count) for change, count in counted if self._wants(change)]
        self.files.append(_files(commit, wanted))
        self.items.append(list(self._item_changes(commit, parents, [change for change, _ in wanted])))

    def _of_a_merge(
        self,
        commit: pygit2.Commit,
        parents: Sequence[pygit2.Commit],
        counted: Iterable[tuple[_Change, tuple[int, int] | None]],
    ) -> list[tuple[_Change, tuple[int, int] | None]]:
        """What differs from all parents, path by path: half of a rename may."""
        differs = None
        for parent in parents[1:]:
            paths = {change.path for change in _compared(self._repository, commit, parent)}
            differs = paths if differs is None else differs & paths
        found = []
        for change, count in counted:
            sides = (change.old, change.new)
            old, new = (side if side is not None and side.path in (differs or ()) else None for side in sides)
            if (old, new) == sides:
                found.append((change, count))
            elif old is not None or new is not None:
                half = _Change(old, new)
                found.append((half, _lines(self._repository, half)))
        return found

    def _wants(self, change: _Change) -> bool:
        return any(self._selects(side.path) for side in (change.old, change.new) if side is not None)

    def _selects(self, path: bytes) -> bool:
        selected = self._selected.get(path)
        if selected is None:
            selected = self._selected[path] = bool(self._mapping.destinations(decoded(path)[0]))
        return selected

    def _item_changes(
        self, commit: pygit2.Commit, parents: Sequence[pygit2.Commit], changes: Sequence[_Change]
    ) -> Iterator[ItemChange]:
        sides = [(kind, change) for change in changes for kind in self._kinds(change)]
        many = Counter(kind for kind, _ in sides)
        for kind, change in sides:
            old, new = self._path(change.old, kind), self._path(change.new, kind)
            # A version that cannot be read changes nothing: the readable one before it counts.
            after = self._items.version(commit, new, kind) if new is not None else {}
            before = self._items.last_readable(parents[0], old, kind) if old is not None and parents else {}
            if before is None or after is None:
                continue
            path = new or old or ""
            others = [self._items.last_readable(parent, path, kind) for parent in parents[1:]]
            for key, delta in items.compare(before, after):
                if any(other is not None and _agree(other, after, key) for other in others):
                    continue
                yield _item_change(
                    commit, kind, key, shortened(path), delta, before, after, bulk=many[kind] > BULK_FILES
                )

    def _kinds(self, change: _Change) -> list[ItemKind]:
        found = [
            kind
            for side in (change.old, change.new)
            if side is not None and self._selects(side.path) and (kind := items.kind_of(decoded(side.path)[0]))
        ]
        return list(dict.fromkeys(found))

    def _path(self, side: _Side | None, kind: ItemKind) -> str | None:
        """The path of a side, if items of this kind are read from it."""
        if side is None or not self._selects(side.path):
            return None
        path, readable = decoded(side.path)
        return path if readable and items.kind_of(path) is kind else None


def _compared(repository: pygit2.Repository, commit: pygit2.Commit, parent: pygit2.Commit | None) -> Iterator[_Change]:
    """What a commit changed against a parent, path by path."""
    for change in changes_between(repository, None if parent is None else parent.tree, commit.tree):
        yield _Change(_side(change.before), _side(change.after))


def _side(file: TreeFile | None) -> _Side | None:
    return None if file is None else _Side(file.raw, pygit2.Oid(hex=file.blob), file.mode)


def _changes(repository: pygit2.Repository, commit: pygit2.Commit, parent: pygit2.Commit | None) -> list[_Change]:
    """What a commit changed against a parent, in the order of paths, with renames."""
    changes = sorted(_compared(repository, commit, parent), key=lambda change: change.path)
    removed = [change.old for change in changes if change.new is None and change.old is not None]
    added = [change.new for change in changes if change.old is None and change.new is not None]
    if not removed or not added:
        return changes
    equal = _equal(removed, added)
    if len(equal) < min(len(removed), len(added)) and max(len(removed), len(added)) <= MAX_SIMILAR:
        diff = _diff(commit, parent)
        try:
            diff.find_similar(flags=DiffFind.FIND_RENAMES, rename_limit=MAX_SIMILAR)
            return [_change(delta) for delta in diff.deltas]
        except (KeyError, pygit2.GitError):
            # A partial clone does not have all contents; which ones are equal is known without.
            pass
    moved = {new.path: old for old, new in equal}
    gone = {old.path for old, _ in equal}
    kept = [change for change in changes if change.new is not None or (change.old and change.old.path not in gone)]
    return [
        replace(change, old=moved[change.new.path]) if change.new and change.new.path in moved else change
        for change in kept
    ]


def _equal(removed: Sequence[_Side], added: Sequence[_Side]) -> list[tuple[_Side, _Side]]:
    """Pairs of equal content, of equal name first."""
    pairs: list[tuple[_Side, _Side]] = []
    for naming in (_named, _unnamed):
        taken = {id(side) for pair in pairs for side in pair}
        there: dict[tuple[str, bool, bytes], list[_Side]] = {}
        for side in reversed([side for side in removed if id(side) not in taken]):
            there.setdefault(naming(side), []).append(side)
        for side in added:
            if id(side) not in taken and (found := there.get(naming(side))):
                pairs.append((found.pop(), side))
    return pairs


def _named(side: _Side) -> tuple[str, bool, bytes]:
    return (*_unnamed(side)[:2], side.path.rpartition(b"/")[2])


def _unnamed(side: _Side) -> tuple[str, bool, bytes]:
    return (str(side.blob), side.mode in REGULAR_MODES, b"")


def _diff(commit: pygit2.Commit, parent: pygit2.Commit | None) -> pygit2.Diff:
    if parent is None:
        return commit.tree.diff_to_tree(swap=True, flags=DiffOption.INCLUDE_TYPECHANGE)
    return parent.tree.diff_to_tree(commit.tree, flags=DiffOption.INCLUDE_TYPECHANGE)


def _change(delta: pygit2.DiffDelta) -> _Change:
    old, new = (_Side(file.raw_path, file.id, int(file.mode)) for file in (delta.old_file, delta.new_file))
    return _Change(
        None if delta.status == DeltaStatus.ADDED else old,
        None if delta.status == DeltaStatus.DELETED else new,
    )


def _lines(repository: pygit2.Repository, change: _Change) -> tuple[int, int] | None:
    """Inserted and deleted lines; ``None`` if they are not known."""
    if change.old is not None and change.new is not None and change.old.blob == change.new.blob:
        return (0, 0)
    old, new = (_content(repository, side) for side in (change.old, change.new))
    if old is None or new is None:
        return None
    if not old or not new:
        return (_count(new), _count(old))
    _, insertions, deletions = pygit2.Patch.create_from(old, new).line_stats
    return (insertions, deletions)


def _content(repository: pygit2.Repository, side: _Side | None) -> bytes | None:
    """The text of a side, empty if there is no file; ``None`` if it is binary, too large, or not at hand."""
    if side is None:
        return b""
    if side.mode == GITLINK_MODE:
        return b"Subproject commit " + str(side.blob).encode()
    try:
        if repository.odb.read_header(side.blob)[1] > MAX_COUNTED_BYTES:
            return None
        data: bytes = repository.odb.read(side.blob)[1]
    except (KeyError, pygit2.GitError):
        return None
    return None if b"\0" in data[:_BINARY_BYTES] else data


def _count(text: bytes) -> int:
    return text.count(b"\n") + (not text.endswith(b"\n") if text else 0)


def _record(commit: pygit2.Commit, changes: Sequence[_Change], lines: Sequence[tuple[int, int] | None]) -> CommitRecord:
    message = redact_text(_decode(commit.raw_message)).strip()
    return CommitRecord(
        sha=str(commit.id),
        committed_at=_instant(commit),
        author_name=redact_text(_decode(commit.author.raw_name or b"")),
        author_email=redact_text(_decode(commit.author.raw_email or b"")),
        subject=message.splitlines()[0] if message else "",
        parents=[str(parent) for parent in commit.parent_ids],
        files_changed=len(changes),
        insertions=sum(counted[0] for counted in lines if counted is not None),
        deletions=sum(counted[1] for counted in lines if counted is not None),
    )


def _files(commit: pygit2.Commit, wanted: Iterable[tuple[_Change, tuple[int, int] | None]]) -> list[CommitFile]:
    at, sha = _instant(commit), str(commit.id)
    found: dict[str, CommitFile] = {}
    for change, counted in wanted:
        side = change.new or change.old
        if side is None:
            continue
        path = shortened(decoded(side.path)[0])
        renamed = change.old if change.kind is FileChange.RENAMED else None
        old_path = shortened(decoded(renamed.path)[0]) if renamed is not None else None
        insertions, deletions = counted if counted is not None else (None, None)
        found.setdefault(path, CommitFile(path, sha, at, change.kind, old_path, insertions, deletions))
    return list(found.values())


def _item_change(
    commit: pygit2.Commit,
    kind: ItemKind,
    key: str,
    path: str,
    delta: ItemDelta,
    before: items.Items,
    after: items.Items,
    *,
    bulk: bool,
) -> ItemChange:
    def kept(side: items.Items) -> object:
        if key not in side:
            return None
        return items.OMITTED if bulk else items.shown(kind, side[key])

    return ItemChange(kind, key, path, str(commit.id), _instant(commit), delta, kept(before), kept(after))


def _agree(one: items.Items, other: items.Items, key: str) -> bool:
    if key in one and key in other:
        return items.same(one[key], other[key])
    return key not in one and key not in other


def _instant(commit: pygit2.Commit) -> datetime:
    return datetime.fromtimestamp(commit.commit_time, UTC)


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "")
