"""Trees in the object database: read one flat, write a changed one. No work tree, and nothing is followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pygit2

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
    escapes."""

    path: str
    blob: str
    mode: int
    readable: bool = True


def files_of(repository: pygit2.Repository, tree: pygit2.Tree) -> Iterator[TreeFile]:
    """Everything below a tree that is not a tree itself, in the byte order of git."""
    yield from _walk(repository, tree, b"")


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


def _walk(repository: pygit2.Repository, tree: pygit2.Tree, prefix: bytes) -> Iterator[TreeFile]:
    for entry in tree:
        raw = prefix + (entry.raw_name or b"")
        if entry.filemode == TREE_MODE:
            yield from _walk(repository, repository[entry.id].peel(pygit2.Tree), raw + b"/")
            continue
        try:
            yield TreeFile(raw.decode("utf-8"), str(entry.id), int(entry.filemode))
        except UnicodeDecodeError:
            yield TreeFile(raw.decode("utf-8", "backslashreplace"), str(entry.id), int(entry.filemode), readable=False)


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
