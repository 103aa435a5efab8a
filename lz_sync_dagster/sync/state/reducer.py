"""How observations become state. Pure, deterministic, and the same in any order.

What is kept of an asset are two maxima: its newest observation, and the newest instant at which anybody saw it. What
is kept of a scope × type × content are its newest complete reads. Whether an asset exists follows from these, so any
order, repetition or batching of the same observations ends in the same state. `Knowledge` is that definition, in
memory; the store keeps the same facts in tables (`sync/store/assets.py`) and is tested against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from lz_sync_dagster.sync.state.observation import Observation

#: Complete reads that are kept of a part. Two prove an absence; the others date it.
KEPT_READS = 10

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


@dataclass(frozen=True, slots=True)
class Ledger:
    """What complete reads say of absence.

    Attributes:
        reads: read times of a part's newest complete reads, newest first.
        others: the read time up to which every other scope was read completely, too; ``None`` if there is no other one.
            An asset that a scope lacks may have moved into another one, which shows it as soon as it is read.
    """

    reads: tuple[int, ...] = ()
    others: int | None = None

    def absence(self, *, update_ns: int, seen_ns: int, absent_ns: int | None = None) -> tuple[int | None, bool]:
        """The earliest read that lacks an asset (``None``: none does), and whether the asset is gone: two complete
        reads in a row, both after its last version and last sighting, lack it, and the other scopes were read since.

        Args:
            update_ns: the asset's last known change.
            seen_ns: the newest instant at which a snapshot or the feed saw it.
            absent_ns: the earliest read that lacks it, if that is known.
        """
        lacking = [read for read in self.reads if read > max(update_ns, seen_ns)]
        if not lacking:
            return None, False
        first = min(lacking) if absent_ns is None else min(absent_ns, *lacking)
        return first, len(lacking) >= 2 and (self.others is None or self.others > first)

    def with_read(self, read_ns: int) -> Ledger:
        """The ledger with one more complete read of the part."""
        return replace(self, reads=newest_reads(self.reads, read_ns))


def newest_reads(reads: tuple[int, ...], read_ns: int) -> tuple[int, ...]:
    """Add a complete read to those that are kept."""
    return tuple(sorted({*reads, read_ns}, reverse=True)[:KEPT_READS])


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

    def _ledger(self, part: Part) -> Ledger:
        others = [
            reads[0] for other, reads in self._reads.items() if other[1:] == part[1:] and other[0] != part[0] and reads
        ]
        return Ledger(self._reads.get(part, ()), min(others, default=None))

    def _iterate(self) -> Iterator[tuple[Key, _Entry]]:
        for key, entry in self._entries.items():
            newest = entry.newest
            ledger = self._ledger((newest.scope, newest.asset_type, newest.content_type.value))
            _, gone = ledger.absence(update_ns=newest.update_ns, seen_ns=entry.seen_ns)
            if not newest.deleted and not gone:
                yield key, entry
