"""Trees in the object database: read one flat, compare two, write a changed one. No work tree, and nothing is followed.

Subtrees that two trees share are never opened, so that comparing and writing cost what changed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pygit2

from lz_sync_dagster.sync.git.paths import decoded

REGULAR_MODE = 0o100644
EXECUTABLE_MODE = 0o100755
REGULAR_MODES = frozenset({0o100644, 0o100755, 0o100664})
SYMLINK_MODE = 0o120000
GITLINK_MODE = 0o160000
TREE_MODE = 0o040000


@dataclass(frozen=True, slots=True)
class Entry:
    """What a tree has at a path: the object's id (hex) and its file mode."""

    blob: str
    mode: int


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file, symlink or submodule of a tree. ``readable`` is ``False`` if its path is not UTF-8; ``path`` then has
    escapes. ``raw`` is the path as it is."""

    path: str
    blob: str
    mode: int
    raw: bytes
    readable: bool = True


def files_of(repository: pygit2.Repository, tree: pygit2.Tree) -> Iterator[TreeFile]:
    """Everything below a tree that is not a tree itself, in the byte order of git."""
    yield from _walk(repository, tree, b"")


@dataclass(frozen=True, slots=True)
class TreeChange:
    """What two trees have at one path: ``before`` or ``after`` is ``None`` where there is nothing."""

    path: str
    before: TreeFile | None
    after: TreeFile | None


def changes_between(
    repository: pygit2.Repository, before: pygit2.Tree | None, after: pygit2.Tree | None
) -> Iterator[TreeChange]:
    """Every path at which two trees differ, in content, mode or kind."""
    yield from _compare(repository, before, after, b"")


def entry_at(tree: pygit2.Tree, path: str) -> Entry | None:
    """What a tree has at a path, ``None`` for nothing and for a folder."""
    try:
        found = tree[path]
    except KeyError:
        return None
    return None if found.filemode == TREE_MODE else Entry(str(found.id), int(found.filemode))


def rivals(repository: pygit2.Repository, tree: pygit2.Tree, path: str) -> bool:
    """Whether a tree has anything in the way of a new file at ``path`` on a system that ignores letter case and Unicode
    forms: the path itself, a file at one of its folders, or a folder in its place."""
    parts = [fold(part) for part in path.split("/")]
    level = [tree]
    for depth, part in enumerate(parts):
        below = []
        for parent in level:
            for entry in parent:
                if fold(decoded(entry.raw_name or b"")[0]) != part:
                    continue
                if depth == len(parts) - 1 or entry.filemode != TREE_MODE:
                    return True
                below.append(repository[entry.id].peel(pygit2.Tree))
        level = below
    return False


def fold(path: str) -> str:
    """A path as a file system that ignores letter case and Unicode forms sees it."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def entries_of(repository: pygit2.Repository, tree: pygit2.Tree) -> dict[str, Entry]:
    """The same as a map from path to entry."""
    return {file.path: Entry(file.blob, file.mode) for file in files_of(repository, tree)}


def write_tree(
    repository: pygit2.Repository, base: pygit2.Tree | None, changes: Mapping[str, Entry | None]
) -> pygit2.Oid:
    """Write the tree that has ``changes`` on top of ``base`` and return its id.

    Args:
        changes: path → its new entry, whose object exists, or ``None`` to remove it. Only folders that contain a
        change are
            written anew, and a folder that becomes empty is gone.
    """
    written = _write(repository, base, {tuple(path.split("/")): entry for path, entry in changes.items()})
    return written if written is not None else repository.TreeBuilder().write()


def _compare(
    repository: pygit2.Repository, before: pygit2.Tree | None, after: pygit2.Tree | None, prefix: bytes
) -> Iterator[TreeChange]:
    old = {} if before is None else {entry.raw_name or b"": entry for entry in before}
    new = {} if after is None else {entry.raw_name or b"": entry for entry in after}
    for name in sorted(old.keys() | new.keys()):
        left, right = old.get(name), new.get(name)
        if left is not None and right is not None and (left.id, left.filemode) == (right.id, right.filemode):
            continue
        left_tree = None if left is None or left.filemode != TREE_MODE else repository[left.id].peel(pygit2.Tree)
        right_tree = None if right is None or right.filemode != TREE_MODE else repository[right.id].peel(pygit2.Tree)
        left_file = None if left is None or left_tree is not None else _file(prefix + name, left)
        right_file = None if right is None or right_tree is not None else _file(prefix + name, right)
        changed = left_file or right_file
        if changed is not None:
            yield TreeChange(changed.path, left_file, right_file)
        if left_tree is not None or right_tree is not None:
            yield from _compare(repository, left_tree, right_tree, prefix + name + b"/")


def _file(raw: bytes, entry: Any) -> TreeFile:
    path, readable = decoded(raw)
    return TreeFile(path, str(entry.id), int(entry.filemode), raw, readable)


def _walk(repository: pygit2.Repository, tree: pygit2.Tree, prefix: bytes) -> Iterator[TreeFile]:
    for entry in tree:
        raw = prefix + (entry.raw_name or b"")
        if entry.filemode == TREE_MODE:
            yield from _walk(repository, repository[entry.id].peel(pygit2.Tree), raw + b"/")
            continue
        yield _file(raw, entry)


def _write(
    repository: pygit2.Repository, base: pygit2.Tree | None, changes: Mapping[tuple[str, ...], Entry | None]
) -> pygit2.Oid | None:
    builder = repository.TreeBuilder() if base is None else repository.TreeBuilder(base)
    leaves: dict[str, Entry | None] = {}
    below: dict[str, dict[tuple[str, ...], Entry | None]] = {}
    for (name, *rest), entry in changes.items():
        if rest:
            below.setdefault(name, {})[tuple(rest)] = entry
        else:
            leaves[name] = entry
    for name, entry in leaves.items():
        if entry is None and builder.get(name) is not None:
            builder.remove(name)
    for name, inner in below.items():
        existing = builder.get(name)
        below_base = None
        if existing is not None and existing.filemode == TREE_MODE:
            below_base = repository[existing.id].peel(pygit2.Tree)
        subtree = _write(repository, below_base, inner)
        if subtree is not None:
            builder.insert(name, subtree, TREE_MODE)
        elif below_base is not None:
            builder.remove(name)
    for name, entry in leaves.items():
        if entry is not None:
            builder.insert(name, pygit2.Oid(hex=entry.blob), entry.mode)
    return builder.write() if len(builder) else None
