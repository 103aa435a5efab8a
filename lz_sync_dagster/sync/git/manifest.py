"""The manifest: which files of the portal repository are the sync's, and what each is a copy of.

It is part of every commit that the sync makes, below `MANIFEST_ROOT`: a header, and one page per folder that has synced
files. Pages follow folders as git's own trees do, so that a change rewrites the pages of the folders it touches and
leaves the others alone, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pygit2

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.tree import REGULAR_MODE, Entry, entry_at, files_of, fold

MANIFEST_ROOT = ".lz-sync"
HEADER_PATH = f"{MANIFEST_ROOT}/manifest.json"
#: The name of a page, in the folder below ``.lz-sync/files`` that stands for the folder it is about.
PAGE_NAME = "_files.json"
VERSION = 2

_PAGES = f"{MANIFEST_ROOT}/files"
_ABOUT = "Written by lz-sync: the files of this repository that are copies of the landing zone's. Do not edit."
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS


@dataclass(frozen=True, slots=True)
class Owned:
    """The file at ``destination`` is ``path`` of the landing zone, with this blob and file mode."""

    destination: str
    path: str
    blob: str
    mode: int = REGULAR_MODE

    @property
    def entry(self) -> Entry:
        """What the portal's tree is to have there."""
        return Entry(self.blob, self.mode)


@dataclass(frozen=True, slots=True)
class Header:
    """``commit``: the landing-zone commit at which the set of files last changed. ``files``: how many there are."""

    commit: str | None = None
    files: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole manifest. ``files`` by destination."""

    commit: str | None = None
    files: Mapping[str, Owned] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ManifestChange:
    """What a sync changes in the manifest. Nothing changes where both are empty."""

    added: Mapping[str, Owned] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Nothing changes."""
        return not self.added and not self.removed

    def applied_to(self, files: Mapping[str, Owned]) -> dict[str, Owned]:
        """The files afterwards."""
        kept = {destination: owned for destination, owned in files.items() if destination not in self.removed}
        return {**kept, **self.added}


def difference(before: Mapping[str, Owned], after: Mapping[str, Owned]) -> ManifestChange:
    """What leads from one set of files to another."""
    added = {destination: owned for destination, owned in after.items() if before.get(destination) != owned}
    return ManifestChange(added, frozenset(before.keys() - after.keys()))


def is_reserved(destination: str) -> bool:
    """Whether a destination would be in the way of the manifest."""
    *folders, _ = destination.split("/")
    return fold(destination).split("/")[0] == MANIFEST_ROOT or PAGE_NAME in map(fold, folders)


def is_manifest(path: str) -> bool:
    """Whether a path of the portal's tree belongs to the manifest."""
    return path == HEADER_PATH or path.startswith(f"{_PAGES}/")


def load_header(repository: pygit2.Repository, tree: pygit2.Tree, *, where: str) -> Header:
    """Read the header; a tree without one has an empty manifest.

    Raises:
        SyncError: it cannot be read. Going on would forget what the sync owns.
    """
    document = _load(repository, tree, HEADER_PATH, where)
    if document is None:
        return Header()
    try:
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}")
        return Header(document["commit"], int(document["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(HEADER_PATH, where, error) from error


def load_manifest(repository: pygit2.Repository, tree: pygit2.Tree, *, where: str) -> Manifest:
    """Read all of it.

    Raises:
        SyncError: it cannot be read, or pages are missing.
    """
    header = load_header(repository, tree, where=where)
    try:
        root = repository[tree[_PAGES].id].peel(pygit2.Tree)
    except KeyError:
        root = None
    except pygit2.InvalidSpecError as no_folder:
        raise _unusable(_PAGES, where, no_folder) from no_folder
    files: dict[str, Owned] = {}
    for file in files_of(repository, root) if root is not None else ():
        folder, _, name = file.path.rpartition("/")
        if name == PAGE_NAME:
            files |= _page(repository, tree, folder, where)
    if len(files) != header.files:
        error = ValueError(f"{header.files} files are announced, {len(files)} are listed")
        raise _unusable(HEADER_PATH, where, error)
    return Manifest(header.commit, files)


def owned_at(repository: pygit2.Repository, tree: pygit2.Tree, places: Iterable[str], *, where: str) -> set[str]:
    """Those of the places that the manifest lists.

    Raises:
        SyncError: a page cannot be read.
    """
    wanted = set(places)
    pages = (_page(repository, tree, folder, where) for folder in {_folder(place) for place in wanted})
    return {place for page in pages for place in page.keys() & wanted}


def manifest_entries(
    repository: pygit2.Repository, tree: pygit2.Tree, change: ManifestChange, *, commit: str, where: str
) -> dict[str, Entry | None]:
    """Write the pages and the header that a change touches; the entries are for `tree.write_tree`.

    Args:
        tree: the portal's tree before, whose manifest is changed.
        commit: the landing-zone commit of the change.
    """
    header = load_header(repository, tree, where=where)
    added: dict[str, list[Owned]] = {}
    for owned in change.added.values():
        added.setdefault(_folder(owned.destination), []).append(owned)
    removed: dict[str, list[str]] = {}
    for destination in change.removed:
        removed.setdefault(_folder(destination), []).append(destination)
    entries: dict[str, Entry | None] = {}
    count = header.files
    for folder in added.keys() | removed.keys():
        before = _page(repository, tree, folder, where)
        after = {key: owned for key, owned in before.items() if key not in change.removed}
        after |= {owned.destination: owned for owned in added.get(folder, ())}
        count += len(after) - len(before)
        entries[_page_path(folder)] = _write(repository, _dump(after.values())) if after else None
    document = {"about": _ABOUT, "version": VERSION, "commit": commit, "files": count}
    entries[HEADER_PATH] = _write(repository, orjson.dumps(document, option=_OPTIONS))
    return entries


def _dump(files: Iterable[Owned]) -> bytes:
    page: dict[str, dict[str, str]] = {}
    for owned in files:
        line = {"path": owned.path, "blob": owned.blob}
        if owned.mode != REGULAR_MODE:
            line["mode"] = f"{owned.mode:o}"
        page[owned.destination.rpartition("/")[2]] = line
    return orjson.dumps(page, option=_OPTIONS)


def _page(repository: pygit2.Repository, tree: pygit2.Tree, folder: str, where: str) -> dict[str, Owned]:
    document = _load(repository, tree, _page_path(folder), where)
    prefix = f"{folder}/" if folder else ""
    try:
        if any("/" in name for name in document or ()):
            raise ValueError("a line about another folder")
        return {
            prefix + name: Owned(
                prefix + name, str(line["path"]), str(line["blob"]), int(line.get("mode", f"{REGULAR_MODE:o}"), 8)
            )
            for name, line in (document or {}).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(_page_path(folder), where, error) from error


def _load(repository: pygit2.Repository, tree: pygit2.Tree, path: str, where: str) -> dict[str, Any] | None:
    entry = entry_at(tree, path)
    if entry is None:
        return None
    try:
        document = orjson.loads(repository[entry.blob].peel(pygit2.Blob).data)
    except (ValueError, KeyError, pygit2.GitError) as error:
        raise _unusable(path, where, error) from error
    if not isinstance(document, dict):
        raise _unusable(path, where, TypeError(f"a {type(document).__name__}"))
    return document


def _unusable(path: str, where: str, error: Exception) -> SyncError:
    return SyncError(
        f"is not a manifest of this program ({type(error).__name__}: {error})",
        where=f"{path} in {where}",
        remedy=f"restore {MANIFEST_ROOT}/ from the portal repository's history",
        reason=Reason.INVALID,
    )


def _write(repository: pygit2.Repository, data: bytes) -> Entry:
    return Entry(str(repository.create_blob(data)), REGULAR_MODE)


def _folder(destination: str) -> str:
    return destination.rpartition("/")[0]


def _page_path(folder: str) -> str:
    return f"{_PAGES}/{folder}/{PAGE_NAME}" if folder else f"{_PAGES}/{PAGE_NAME}"
