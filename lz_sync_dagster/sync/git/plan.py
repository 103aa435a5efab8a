"""What a sync does to the portal repository: pure functions of the manifest, the landing zone's files and the portal's
tree.

The sync owns exactly the files that the manifest lists. It writes and deletes those and no others, so a file that a
person put into the portal repository stays as it is, even where the mapping points at it. Only a file that already
equals the one to be written is taken over: it is a copy that somebody made before.

`make_plan` looks at everything. `amend_plan` looks at what moved since a plan that is known to hold, and gives up
wherever more than that could matter; both come to the same result, which a property test holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lz_sync_dagster.sync.git.manifest import Manifest, ManifestChange, Owned, difference, is_manifest, is_reserved
from lz_sync_dagster.sync.git.mapping import escapes
from lz_sync_dagster.sync.git.tree import Entry, fold

#: Why a file that somebody edited in the portal repository is left alone. Used with ``drift: refuse``.
EDITED = (
    "was edited in the portal repository, and sync_layers.git_sync.drift is 'refuse'; undo the edit there, or move it "
    "into the landing zone"
)


#: How the other reasons begin that are about a file's place, and not about what it holds.
_OF_PLACE = ("its destination ", "the portal repository has a file of its own at ")


def is_readable(reason: str | None) -> bool:
    """Whether a file with this reason may be read: it is synced, or only its place keeps it out."""
    return reason is None or reason == EDITED or reason.startswith(_OF_PLACE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A selected file of the landing zone and one of its places. ``reason`` says why its content must not be synced,
    ``None`` if it may."""

    path: str
    destination: str
    entry: Entry
    size: int
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other one: its path and its place."""
        return (self.path, self.destination)

    @property
    def owned(self) -> Owned:
        """Its line in the manifest."""
        return Owned(self.destination, self.path, self.entry.blob, self.entry.mode)


@dataclass(frozen=True, slots=True)
class Drift:
    """A synced file that the portal repository has otherwise than the sync left it. ``found``: ``None`` if it is gone.
    ``restored``: whether this sync undoes that."""

    destination: str
    expected: Entry
    found: Entry | None
    restored: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes to the portal's tree, by destination.

    Attributes:
        writes: files to write (new, changed, or changed by somebody else and restored).
        deletes: owned files that are no longer in the landing zone or no longer selected.
        files: each file that was looked at, with the reason why it is not synced (``None``: it is).
        manifest: what changes in the manifest.
        drifts: owned files that somebody changed or removed in the portal repository.
        is_whole: whether every file was looked at, and not only what moved.
    """

    writes: dict[str, SourceFile]
    deletes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    manifest: ManifestChange
    drifts: tuple[Drift, ...] = field(default=())
    is_whole: bool = True

    @property
    def is_empty(self) -> bool:
        """Nothing to commit."""
        return not self.writes and not self.deletes and self.manifest.is_empty


def make_plan(files: Sequence[SourceFile], old: Manifest, portal: Mapping[str, Entry], *, restore: bool = True) -> Plan:
    """Plan the portal's next tree.

    Args:
        files: all selected files of the landing zone. Where two claim one destination, the first in the order of
            paths has it.
        old: the manifest in the portal's tree.
        portal: path → entry of everything in the portal's tree.
        restore: whether an owned file that somebody edited is restored; else it is left alone, and not synced.
    """
    owned = old.files
    drifts = {
        destination: Drift(destination, line.entry, portal.get(destination), restore)
        for destination, line in owned.items()
        if portal.get(destination) != line.entry
    }
    # An edit that is not restored is its author's: it is in the way of others, too.
    unowned = _Places(
        path for path in portal if not is_manifest(path) and (path not in owned or (path in drifts and not restore))
    )
    taken = _Places(())
    wanted: dict[str, SourceFile] = {}
    placed: list[SourceFile] = []
    for file in sorted(files, key=lambda file: file.key):
        reason = file.reason or _unsafe(file.destination)
        if reason is None and (other := taken.conflict(file.destination)) is not None:
            reason = _collides(other)
        found = portal.get(file.destination)
        in_place = found == file.entry or (file.destination in owned and found is not None)
        if reason is None and not in_place and (other := unowned.conflict(file.destination)) is not None:
            reason = f"the portal repository has a file of its own at {other}; remove it there to have it synced"
        if reason is None and file.destination in drifts and not restore and found != file.entry:
            reason = EDITED
        placed.append(_with(file, reason))
        if reason is None:
            taken.add(file.destination)
            wanted[file.destination] = file
        elif reason == EDITED:
            taken.add(file.destination)
    claimed = {file.destination for file in placed if file.reason == EDITED}
    left = (
        set()
        if restore
        else {place for place in drifts if place in claimed or (place not in wanted and place in portal)}
    )
    writes = {place: file for place, file in wanted.items() if portal.get(place) != file.entry}
    after = {place: file.owned for place, file in wanted.items()} | {place: owned[place] for place in left}
    return Plan(
        writes=writes,
        deletes=tuple(sorted(place for place in owned if place not in after and place in portal)),
        files=tuple(placed),
        manifest=difference(owned, after),
        drifts=tuple(
            drift
            for place, drift in sorted(drifts.items())
            # A person who made the edit that was to come, or the deletion, did no harm.
            if not (place in wanted and wanted[place].entry == drift.found)
            and not (place not in wanted and place not in left and drift.found is None)
        ),
    )


class PortalTree(Protocol):
    """What `amend_plan` asks of the portal's tree."""

    def entry(self, path: str) -> Entry | None:
        """The file at a path, if there is one."""

    def has_rival(self, path: str) -> bool:
        """Whether anything is in the way of a new file at a path, letter case aside."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a plan that holds left, as far as `amend_plan` needs it.

    Attributes:
        synced: owned files by destination: all those of the paths that changed in the landing zone, and those at the
            paths that changed in the portal.
        refused: the destinations of every file that is not synced.
    """

    synced: Mapping[str, Owned]
    refused: Collection[str]


def amend_plan(
    changed: Sequence[SourceFile],
    changed_paths: Collection[str],
    touched: Collection[str],
    known: Known,
    portal: PortalTree,
    *,
    restore: bool = True,
) -> Plan | None:
    """The plan after a few changes, from what moved alone.

    Args:
        changed: the selected files among those that changed in the landing zone since the plan that holds.
        changed_paths: every path that changed there, also those that are gone or not selected.
        touched: the paths at which the portal's tree is not the one that the plan left.
        known: what the plan that holds left.

    Returns:
        ``None`` if more than these files could matter (a collision, a place that becomes free, a file of the portal's
        own in the way, an edited manifest): then only `make_plan` knows.
    """
    before = {place: owned for place, owned in known.synced.items() if owned.path in changed_paths}
    at_risk = {place: known.synced[place] for place in touched if place in known.synced}
    if any(is_manifest(path) for path in touched) or (at_risk and not restore):
        return None
    refused = _Places(known.refused)
    moving = {*before, *(file.destination for file in changed), *touched}
    if any(refused.conflict(place) is not None for place in moving):
        return None
    wanted = {file.destination: file for file in changed if file.reason is None}
    if len(wanted) != sum(file.reason is None for file in changed):
        return None
    missing = [place for place in at_risk if portal.entry(place) is None]
    fresh = [place for place in wanted if place not in before]
    occupied = _Places(())
    for place in (*fresh, *missing):
        if _unsafe(place) is not None or occupied.conflict(place) is not None:
            return None
        if place in fresh and (place in known.synced or portal.has_rival(place)):
            return None
        if place in missing and portal.has_rival(place):
            return None
        occupied.add(place)
    # An edited file whose source did not change is written again as it was.
    again = {
        place: SourceFile(owned.path, place, owned.entry, 0) for place, owned in at_risk.items() if place not in before
    }
    found = {place: portal.entry(place) for place in (*wanted, *again)}
    writes = {place: file for place, file in {**again, **wanted}.items() if found[place] != file.entry}
    gone = [place for place in before if place not in wanted]
    drifts = (
        Drift(place, owned.entry, portal.entry(place), restored=True)
        for place, owned in sorted(at_risk.items())
        if portal.entry(place) != owned.entry
    )
    return Plan(
        writes=writes,
        deletes=tuple(sorted(place for place in gone if portal.entry(place) is not None)),
        files=tuple(sorted(changed, key=lambda file: file.key)),
        manifest=ManifestChange(
            {place: file.owned for place, file in wanted.items() if before.get(place) != file.owned}, frozenset(gone)
        ),
        drifts=tuple(
            drift
            for drift in drifts
            if not (drift.destination in wanted and wanted[drift.destination].entry == drift.found)
            and not (drift.destination in gone and drift.found is None)
        ),
        is_whole=False,
    )


def _with(file: SourceFile, reason: str | None) -> SourceFile:
    return file if file.reason == reason else SourceFile(file.path, file.destination, file.entry, file.size, reason)


def _unsafe(destination: str) -> str | None:
    if escapes(destination):
        return f"its destination {destination} is not a safe path; rename the file"
    if is_reserved(destination):
        return f"its destination {destination} is a place that the manifest needs; set another one in the mapping"
    return None


def _collides(other: str) -> str:
    return f"its destination collides with {other}, which another file has (letter case aside); rename one of them"


class _Places:
    """Paths that are taken, as a file system that ignores letter case and Unicode forms would see them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        key = fold(path)
        self._files[key] = path
        for parent in _parents(key):
            self._folders.setdefault(parent, path)

    def conflict(self, path: str) -> str | None:
        """The path that stands in the way of a new file, if any: the same one, one above it, or one below it."""
        key = fold(path)
        for candidate in (key, *_parents(key)):
            if candidate in self._files:
                return self._files[candidate]
        return self._folders.get(key)


def _parents(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
