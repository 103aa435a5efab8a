"""Reads parts of the inventory in full, page by page, one after the other and without a pause between them.

An asset whose bytes are known costs a hash and a look into a table. All others are decoded, judged and taken in while
the next pages are on their way, also those of the next part. What a page cannot give becomes a dead letter, and the
read proves no absence then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import structlog

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import wire
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool, Pending
from lz_sync_dagster.sync.inventory.decoder import Decoded, group_relations, observe_relations
from lz_sync_dagster.sync.inventory.reader import Page
from lz_sync_dagster.sync.inventory.taking import Loaded, Taker
from lz_sync_dagster.sync.state.observation import ContentType, Observation
from lz_sync_dagster.sync.state.reducer import Breaker, Part
from lz_sync_dagster.sync.store import Store, assets, breakers, reads
from lz_sync_dagster.sync.store.reads import Base
from lz_sync_dagster.sync.timing import Clock

log = structlog.get_logger(__name__)


class PartReader(Protocol):
    """What gives the pages of a part: the inventory itself, or an export of it."""

    def read(self, part: Part) -> Generator[Page]:
        """All pages of a part; the first may be on its way before somebody takes it, until the generator is closed.
        Raises `SyncError`, here or on the way, if it does not come to the end."""


class Ended(NamedTuple):
    """A part whose read is over. ``error``: why it did not come to its end. What it saw before is in the store as far
    as the store took it, and proves no absence."""

    part: Part
    loaded: Loaded
    error: Exception | None


@dataclass(slots=True)
class _Read:
    """A part that is being read.

    Attributes:
        names: of the assets that were decoded.
        relations: see `group_relations`.
        held: what waits for a transaction.
        is_refused: the store would not take in what was decoded; the rest is dropped.
    """

    part: Part
    loaded: Loaded = field(default_factory=Loaded)
    base: Base | None = None
    names: set[str] = field(default_factory=set)
    relations: dict[str, dict[str, object]] = field(default_factory=dict)
    held: Decoded = field(default_factory=Decoded)
    error: Exception | None = None
    is_refused: bool = False

    def forget(self) -> None:
        """Drop what only goes on mattering while the part is read, and what is known of another read time."""
        self.base, self.names, self.relations, self.held = None, set(), {}, Decoded()


#: What is to be done, in the order of the pages: to take in a batch that is being decoded, or to end a read.
_Line = deque[tuple[_Read, Pending | None]]


class PartLoader:
    """Loads parts into the store.

    Args:
        breaker: when a loss is too large to believe.
        scopes: all that are read, see `Taker`.
    """

    def __init__(
        self,
        store: Store,
        reader: PartReader,
        pool: DecodePool,
        taker: Taker,
        breaker: Breaker,
        *,
        clock: Clock,
        scopes: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._reader = reader
        self._pool = pool
        self._taker = taker
        self._breaker = breaker
        self._clock = clock
        self._scopes = tuple(dict.fromkeys(scopes))
        self._ancestors: dict[str, list[str]] = {}

    def load(self, parts: Iterable[Part]) -> Iterator[Ended]:
        """Read parts to their ends, and conclude what that proves.

        Yields each part when all of it was taken in, in their order. A part is begun while the one before it is still
        taken in, unless both are of one type and content; but nothing is begun before a read that failed was yielded.
        Who ends before the last part was yielded reads at most two parts again.
        """
        line: _Line = deque()
        for part in parts:
            read = _Read(part)
            yield from self._read(read, line)
            line.append((read, None))
            if read.error is not None:
                yield from self._settle(line)
        yield from self._settle(line)

    def _read(self, read: _Read, line: _Line) -> Iterator[Ended]:
        """Put the pages of a part in line. Yields what is over meanwhile."""
        loaded, ahead = read.loaded, self._pool.depth - 1
        try:
            with closing(self._reader.read(read.part)) as pages:
                # Other scopes of the same type have a say in what a read proves: they are concluded first.
                is_akin = any(other.part[1:] == read.part[1:] for other, _ in line)
                yield from self._settle(line, down_to=0 if is_akin else ahead)
                base = self._begin(read)
                for page in pages:
                    if page.read_ns != loaded.read_ns:
                        if loaded.read_ns:
                            yield from self._settle(line)
                            self._take_held(read)
                            base = self._begin(read)
                        loaded.read_ns, loaded.assets, loaded.decoded, loaded.unusable = page.read_ns, 0, 0, 0
                    loaded.calls = page.calls
                    self._look_at(page, read, base, line)
                    yield from self._settle(line, down_to=ahead)
                    if read.error is not None:
                        return
        except Exception as error:
            read.error = read.error or error

    def _look_at(self, page: Page, read: _Read, base: Base, line: _Line) -> None:
        read.loaded.assets += len(page.bodies)
        if read.part[2] == ContentType.RELATIONSHIP:
            group_relations(page.bodies, read.relations)
            return
        new = _unknown(page, base)
        read.loaded.decoded += len(new)
        if new:
            line.append((read, self._pool.decode((read.part, page.read_ns, new))))

    def _settle(self, line: _Line, *, down_to: int = 0) -> Iterator[Ended]:
        """Take in what was decoded until no more than ``down_to`` batches are in line, and the end of one read at most.
        Yields the reads that are over then."""
        ends = sum(pending is None for _, pending in line)
        batches = len(line) - ends
        while line and (batches > down_to or ends > 1 or line[0][1] is None):
            read, pending = line.popleft()
            try:
                if pending is not None:
                    batches -= 1
                    self._take_in(pending, read)
                else:
                    ends -= 1
                    self._end(read)
            except Exception as error:
                if read.error is None:
                    read.error = error
                else:  # why it failed first is what counts
                    log.exception("observations_not_kept", where=where(read.part))
                read.is_refused = True
            if pending is None:
                read.forget()
                yield Ended(read.part, read.loaded, read.error)

    def _take_in(self, pending: Pending, read: _Read) -> None:
        """Take in a batch, as soon as there is enough for a transaction."""
        if read.is_refused:
            return
        read.held.add(pending())
        if len(read.held.observations) + len(read.held.unusable) >= read.loaded.at_once:
            self._take_held(read)

    def _take_held(self, read: _Read) -> None:
        held, read.held = read.held, Decoded()
        if not read.is_refused and (held.observations or held.unusable):
            self._take(held, read)

    def _take(self, decoded: Decoded, read: _Read) -> None:
        read.names.update(observation.name for observation in decoded.observations)
        self._taker.take(read.part, decoded, read.loaded)

    def _end(self, read: _Read) -> None:
        """Take in the rest of a read, and conclude what it proves if it came to its end."""
        self._take_held(read)
        if read.error is not None or read.base is None:
            return
        if read.part[2] == ContentType.RELATIONSHIP:
            self._take(self._as_sets(observe_relations(read.part, read.loaded.read_ns, read.relations)), read)
            read.loaded.assets = read.loaded.decoded = len(read.relations)
        self._conclude(read.base, read.loaded, read.names)

    def _begin(self, read: _Read) -> Base:
        read.forget()
        with self._store.read() as connection:
            if len(self._scopes) > 1:
                unknown = [scope for scope in self._scopes if scope not in self._ancestors]
                self._ancestors |= reads.ancestors_of(connection, unknown)
            scope = read.part[0]
            within = [other for other, above in self._ancestors.items() if other != scope and scope in above]
            base = reads.base_of(connection, read.part, within=within)
        read.loaded.baseline, read.loaded.written = base.baseline, base.written
        read.base = base
        return base

    def _as_sets(self, decoded: Decoded) -> Decoded:
        """Relations have times of their own, and the set of them has none: one that is gone leaves no trace in the
        times of the others. So a set that changed without a newer relation dates from the read that saw it."""
        with self._store.read() as connection:
            known = assets.known_contents(
                connection, ContentType.RELATIONSHIP, [observation.name for observation in decoded.observations]
            )
        decoded.observations = [_as_set(observation, known) for observation in decoded.observations]
        return decoded

    def _conclude(self, base: Base, loaded: Loaded, names: set[str]) -> None:
        """Draw the conclusions of a read that reached the last page of a part."""
        if loaded.unusable:
            with self._store.write(exclusive=assets.LOCK) as connection:
                reads.record_incomplete(
                    connection, base.part, read_ns=loaded.read_ns, assets=loaded.assets, now=self._clock()
                )
            return
        loaded.result = reads.finish_read(
            self._store,
            base,
            read_ns=loaded.read_ns,
            names=names,
            total=loaded.assets,
            layer=LayerId.API,
            clock=self._clock,
            breaker=self._breaker,
        )


def incomplete(part: Part, loaded: Loaded) -> SyncError | None:
    """Why a read that reached its last page proves nothing, or less; ``None`` if it proves everything."""
    if loaded.unusable:
        return SyncError(
            f"{loaded.unusable} assets could not be used",
            where=where(part),
            remedy="look at the dead letters; nothing of this type is deleted meanwhile",
            reason=Reason.INVALID,
        )
    result = loaded.result
    if result is not None and result.withheld:
        return breakers.waiting(part, known=result.known, lost=result.lost)
    return None


def _as_set(observation: Observation, known: Mapping[str, tuple[int, str]]) -> Observation:
    update_ns, digest = known.get(observation.name, (-1, ""))
    if digest == observation.digest:
        return replace(observation, update_ns=max(update_ns, observation.update_ns))
    if observation.update_ns <= update_ns:
        return replace(observation, update_ns=max(update_ns, observation.observed_ns))
    return observation


def where(part: Part) -> str:
    """A part in words."""
    return f"{part[1]} in {part[0]}"


def _unknown(page: Page, base: Base) -> list[tuple[bytes, bytes]]:
    """The assets whose bytes are not those of a row, with their fingerprints."""
    seen, elsewhere, fingerprint = base.seen, base.elsewhere, wire.fingerprint
    new: list[tuple[bytes, bytes]] = []
    for body in page.bodies:
        known = fingerprint(body)
        if known in seen:
            seen[known] = True
        elif known not in elsewhere:
            new.append((known, body))
    return new
