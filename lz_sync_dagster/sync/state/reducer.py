"""How observations become state. Pure, deterministic, and the same in any order.

What is kept of an asset are two maxima: its newest observation, and the newest instant at which anybody saw it. What
    is kept of a
scope × type × content are the two newest complete reads. Whether an asset exists follows from these three, so any
order, repetition or batching of the same observations ends in the same state. `Knowledge` is that definition, in
memory; the store keeps the same facts in tables (`sync/store/assets.py`) and is tested against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from lz_sync_dagster.sync.state.observation import Observation

#: (full resource name, content type)
Key = tuple[str, str]
#: (scope, asset type, content type): what one complete read speaks of.
Part = tuple[str, str, str]


class Change(StrEnum):
    """What an observation did to an asset."""

    NONE = "none"
    CREATED = "created"
    UPDATED = "updated"
    RECREATED = "recreated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one asset before an observation arrives.

    Attributes:
        order: `Observation.order` of its newest observation.
        resource_id: ``resource.data.id`` of the newest observation that had one.
        exists: whether it is there.
    """

    order: tuple[int, int, bool, str]
    resource_id: str | None
    exists: bool


def change_of(known: Known | None, observation: Observation) -> Change | None:
    """What an observation changes; ``None`` if it is not news (older, or equal).

    `Change.NONE` means news of the same content: the version moves on, the asset stays as it was.
    """
    if known is not None and observation.order <= known.order:
        return None
    if observation.deleted:
        return Change.DELETED if known is not None and known.exists else Change.NONE
    if known is None:
        return Change.UPDATED if observation.existed else Change.CREATED
    if not known.exists:
        return Change.CREATED
    if None not in (known.resource_id, observation.resource_id) and known.resource_id != observation.resource_id:
        return Change.RECREATED
    return Change.NONE if known.order[3] == observation.digest else Change.UPDATED


def is_gone(*, update_ns: int, seen_ns: int, reads: tuple[int, ...]) -> bool:
    """Whether two complete reads in a row, both after an asset's last version and last sighting, lack it.

    Args:
        update_ns: the asset's last known change.
        seen_ns: the newest instant at which a snapshot or the feed saw it.
        reads: read times of the newest complete reads of its scope × type × content.
    """
    last = max(update_ns, seen_ns)
    return sum(read > last for read in reads) >= 2


def newest_reads(reads: tuple[int, ...], read_ns: int) -> tuple[int, ...]:
    """Add a complete read to a ledger that keeps the newest two."""
    return tuple(sorted({*reads, read_ns}, reverse=True)[:2])


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a loss is too large to believe: more than ``share`` of what was known, and at least ``minimum`` assets."""

    share: float = 0.2
    minimum: int = 50

    def opens(self, *, known: int, lost: int) -> bool:
        """Whether losing ``lost`` of ``known`` assets at once asks for a person."""
        return lost >= self.minimum and lost > self.share * known


@dataclass(frozen=True, slots=True)
class _Entry:
    newest: Observation
    seen_ns: int


class Knowledge:
    """The state in memory: the definition that everything else is tested against."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._reads: dict[Part, tuple[int, ...]] = {}

    def observe(self, observation: Observation) -> None:
        """Take in one observation, from any source, in any order."""
        key = (observation.name, observation.content_type.value)
        seen_ns = -1 if observation.deleted else observation.observed_ns
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(observation, seen_ns)
            return
        newest = observation if observation.order > entry.newest.order else entry.newest
        self._entries[key] = replace(entry, newest=newest, seen_ns=max(entry.seen_ns, seen_ns))

    def complete_read(self, part: Part, read_ns: int) -> None:
        """Say that a scope × type × content was read completely at an instant."""
        self._reads[part] = newest_reads(self._reads.get(part, ()), read_ns)

    def existing(self) -> dict[Key, Observation]:
        """The newest observation of every asset that exists."""
        return {key: entry.newest for key, entry in self._iterate()}

    def _iterate(self) -> Iterator[tuple[Key, _Entry]]:
        for key, entry in self._entries.items():
            newest = entry.newest
            part = (newest.scope, newest.asset_type, newest.content_type.value)
            reads = self._reads.get(part, ())
            if not newest.deleted and not is_gone(update_ns=newest.update_ns, seen_ns=entry.seen_ns, reads=reads):
                yield key, entry
