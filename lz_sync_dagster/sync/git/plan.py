"""What a sync does to the portal repository: a pure function of the old manifest, both trees and the mapping.

The sync owns exactly the files that the manifest lists. It writes and deletes those and no others, so a file that a
person put into the portal repository stays as it is, even where the mapping points at it. Only a file that already
equals the one to be written is taken over: it is a copy that somebody made before.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.mapping import escapes
from lz_sync_dagster.sync.git.tree import Entry

MANIFEST_PATH = ".lz-sync-manifest.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A selected file of the landing zone. ``reason`` says why its content must not be synced, ``None`` if it may."""

    path: str
    destination: str
    entry: Entry
    size: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """A line of the manifest: the file at ``destination`` is ``path`` of the landing zone, with this blob."""

    destination: str
    path: str
    blob: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the portal repository's files are a copy of.

    ``commit`` is the landing-zone commit at which the set of files last changed, so that it changes only when they do.
    """

    commit: str | None = None
    files: tuple[Owned, ...] = ()

    def dump(self) -> bytes:
        """The manifest as the file that is committed: JSON, ordered by destination."""
        document = {
            "version": MANIFEST_VERSION,
            "commit": self.commit,
            "files": [
                {"destination": file.destination, "path": file.path, "blob": file.blob}
                for file in sorted(self.files, key=lambda file: file.destination)
            ],
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes to the portal's tree, by destination.

    Attributes:
        writes: files to write (new, changed, or changed by somebody else and restored).
        deletes: owned files that are no longer in the landing zone or no longer selected.
        refused: source path → why a file is not synced.
        manifest: the manifest afterwards.
        manifest_changed: whether it differs from the one before.
        restored: owned destinations that somebody changed or removed in the portal repository.
    """

    writes: dict[str, SourceFile]
    deletes: tuple[str, ...]
    refused: dict[str, str]
    manifest: Manifest
    manifest_changed: bool
    restored: tuple[str, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Nothing to commit."""
        return not self.writes and not self.deletes and not self.manifest_changed


def load_manifest(data: bytes | None, *, where: str) -> Manifest:
    """Read the manifest; ``None`` (no such file) is an empty one.

    Raises:
        SyncError: it cannot be read. Going on would forget what the sync owns.
    """
    if data is None:
        return Manifest()
    try:
        document = orjson.loads(data)
        if document["version"] != MANIFEST_VERSION:
            raise ValueError(f"version {document['version']}")
        files = tuple(
            Owned(str(file["destination"]), str(file["path"]), str(file["blob"])) for file in document["files"]
        )
        return Manifest(document["commit"], files)
    except (ValueError, KeyError, TypeError) as error:
        raise SyncError(
            f"is not a manifest of this program ({type(error).__name__}: {error})",
            where=where,
            remedy=f"restore {MANIFEST_PATH} from the portal repository's history",
            reason=Reason.INVALID,
        ) from error


def make_plan(files: Sequence[SourceFile], old: Manifest, portal: Mapping[str, Entry], *, commit: str) -> Plan:
    """Plan the portal's next tree.

    Args:
        files: the selected files of the landing zone. Where two claim one destination, the first in the order of
        paths has it.
        old: the manifest in the portal's tree.
        portal: path → entry of everything in the portal's tree.
        commit: the landing-zone commit that ``files`` is of.
    """
    owned = {file.destination: file for file in old.files}
    unowned = _Places(path for path in portal if path not in owned and path != MANIFEST_PATH)
    taken = _Places([MANIFEST_PATH])
    refused: dict[str, str] = {}
    wanted: dict[str, SourceFile] = {}
    for file in sorted(files, key=lambda file: file.path):
        reason = file.reason
        if reason is None and escapes(file.destination):
            reason = f"its destination {file.destination} is not a safe path; rename the file"
        if reason is None and (other := taken.conflict(file.destination)) is not None:
            reason = (
                f"its destination collides with {other}, which another file has (letter case aside); rename one of them"
            )
        in_place = portal.get(file.destination) == file.entry or (
            file.destination in owned and file.destination in portal
        )
        if reason is None and not in_place:
            other = unowned.conflict(file.destination)
            if other is not None:
                reason = f"the portal repository has a file of its own at {other}; remove it there to have it synced"
        if reason is not None:
            refused[file.path] = reason
            continue
        taken.add(file.destination)
        wanted[file.destination] = file
    writes = {destination: file for destination, file in wanted.items() if portal.get(destination) != file.entry}
    deletes = tuple(sorted(path for path in owned if path not in wanted and path in portal))
    kept = tuple(Owned(destination, file.path, file.entry.blob) for destination, file in sorted(wanted.items()))
    changed = bool(writes or deletes) or kept != tuple(sorted(old.files, key=lambda file: file.destination))
    restored = tuple(
        sorted(
            destination
            for destination in writes.keys() & owned.keys()
            if (found := portal.get(destination)) is None or found.blob != owned[destination].blob
        )
    )
    return Plan(
        writes=writes,
        deletes=deletes,
        refused=refused,
        manifest=Manifest(commit, kept) if changed else old,
        manifest_changed=changed,
        restored=restored,
    )


class _Places:
    """Paths that are taken, as a file system that ignores letter case and Unicode forms would see them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        key = _fold(path)
        self._files[key] = path
        for parent in _parents(key):
            self._folders.setdefault(parent, path)

    def conflict(self, path: str) -> str | None:
        """The path that stands in the way of a new file, if any: the same one, one above it, or one below it."""
        key = _fold(path)
        for candidate in (key, *_parents(key)):
            if candidate in self._files:
                return self._files[candidate]
        return self._folders.get(key)


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _parents(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
