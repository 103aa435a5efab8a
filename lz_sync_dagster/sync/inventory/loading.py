"""Takes one part of the inventory into the store: a full read, page by page.

An asset whose bytes are known costs a hash and a look into a table. All others are decoded, judged and applied while
the next page is on its way. What a page cannot give becomes a dead letter, and the read proves no absence then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import sqlalchemy as sa
import structlog

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator, Verdict
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import wire
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool, Pending
from lz_sync_dagster.sync.inventory.decoder import Decoded, group_relations, observe_relations
from lz_sync_dagster.sync.inventory.delta import DeltaResult
from lz_sync_dagster.sync.inventory.letters import dead_letter, refusal
from lz_sync_dagster.sync.inventory.reader import Page
from lz_sync_dagster.sync.state.fields import fields_of
from lz_sync_dagster.sync.state.observation import ContentType, JsonData, Observation, scope_of
from lz_sync_dagster.sync.state.reducer import Breaker, Part
from lz_sync_dagster.sync.store import Store, assets, breakers, data_fields, dead_letters, reads
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.data_fields import FieldCache
from lz_sync_dagster.sync.store.dead_letters import DeadLetter
from lz_sync_dagster.sync.store.first_load import insert_new
from lz_sync_dagster.sync.store.reads import Base, ReadResult
from lz_sync_dagster.sync.timing import Clock

#: More assets of one transaction than this are not odd assets: then the part fails.
_MAX_REFUSED = 20
#: Assets that one transaction takes in: the feed waits no longer than it lasts. A baseline writes into all of the
#: store's indexes, so that larger transactions write far fewer pages.
_AT_ONCE, _AT_ONCE_IN_A_BASELINE = 1_000, 4_000
#: Assets of a baseline whose fields are noted; later every changed one's are.
_SAMPLE = 100
#: News of one batch and type that are looked up in the contents.
_LOOKED_UP = 50
_FIELDS_LOCK = "data_fields"

log = structlog.get_logger(__name__)


@dataclass
class Loaded:
    """What a read of a part came to, as far as it got.

    Attributes:
        assets: how many the read holds.
        decoded: how many of them had to be decoded.
        unusable: how many cannot be used; the read proves no absence then.
        baseline: no read of the part reached its end before.
        sampled: assets of a baseline whose fields were noted.
        written: the store's last write of resources before the read.
        drifted: fields that are new, or have another type.
        result: what the complete read proved; ``None`` if it proves nothing.
    """

    calls: int = 0
    assets: int = 0
    decoded: int = 0
    unusable: int = 0
    baseline: bool = False
    read_ns: int = 0
    sampled: int = 0
    written: int = 0
    drifted: int = 0
    applied: Applied = field(default_factory=Applied)
    result: ReadResult | None = None


class PartReader(Protocol):
    """What gives the pages of a part: the inventory itself, or an export of it."""

    def read(self, part: Part) -> Iterator[Page]:
        """Yield all pages of a part. Raises `SyncError` if it does not come to the end."""


class PartLoader:
    """Loads parts, one after the other.

    Args:
        evaluate: judges content that is decoded here.
        breaker: when a loss is too large to believe.
        scopes: all that are read. Where one lies within another, an asset belongs to the nearest one, whichever shows
            it.
    """

    def __init__(
        self,
        store: Store,
        reader: PartReader,
        pool: DecodePool,
        evaluate: Evaluator,
        breaker: Breaker,
        *,
        clock: Clock,
        scopes: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._reader = reader
        self._pool = pool
        self._evaluate = evaluate
        self._breaker = breaker
        self._clock = clock
        self._scopes = tuple(dict.fromkeys(scopes))
        self._within: dict[str, list[str]] = {}
        self._fields = FieldCache()
        self._held = Decoded()
        self._is_all_new = True

    def load(self, part: Part, loaded: Loaded) -> None:
        """Read a part to its end and conclude what that proves.

        Args:
            loaded: is filled in as the read goes on, so that it says how far a read got that failed.

        Raises:
            SyncError: the read did not reach its end; what it saw is in the store, and proves no absence.
        """
        self._held, self._is_all_new = Decoded(), True
        base, names = self._begin(part), set[str]()
        loaded.baseline, loaded.written = base.baseline, base.written
        relations: dict[str, dict[str, object]] = {}
        waiting: deque[Pending] = deque()
        try:
            for page in self._reader.read(part):
                loaded.calls = page.calls
                if page.read_ns != loaded.read_ns:
                    if loaded.read_ns:
                        self._take_all(part, waiting, loaded, names)
                        base, names, relations = self._begin(part), set(), {}
                    loaded.read_ns, loaded.assets, loaded.decoded, loaded.unusable = page.read_ns, 0, 0, 0
                loaded.assets += len(page.bodies)
                if part[2] == ContentType.RELATIONSHIP:
                    group_relations(page.bodies, relations)
                    continue
                new = _unknown(page, base)
                loaded.decoded += len(new)
                if new:
                    waiting.append(self._pool.decode((part, page.read_ns, new)))
                self._drain(part, waiting, loaded, names, down_to=self._pool.depth - 1)
        except SyncError:
            try:
                self._take_all(part, waiting, loaded, names)
            except Exception as error:
                if not is_about_data(error):
                    raise
                log.exception("observations_not_kept", where=where(part))
            raise
        self._take_all(part, waiting, loaded, names)
        if part[2] == ContentType.RELATIONSHIP:
            self._take(part, self._as_sets(observe_relations(part, loaded.read_ns, relations)), loaded, names)
            loaded.assets = loaded.decoded = len(relations)
        self._conclude(base, loaded, names)

    def _as_sets(self, decoded: Decoded) -> Decoded:
        """Relations have times of their own, and the set of them has none: one that is gone leaves no trace in the
        times of the others. So a set that changed without a newer relation dates from the read that saw it."""
        with self._store.read() as connection:
            known = assets.known_contents(
                connection, ContentType.RELATIONSHIP, [observation.name for observation in decoded.observations]
            )
        decoded.observations = [_as_set(observation, known) for observation in decoded.observations]
        return decoded

    def take_delta(self, found: DeltaResult) -> Loaded:
        """Take in what a delta read found: all of it is news."""
        with self._store.read() as connection:
            written = assets.written(connection)
        loaded = Loaded(decoded=len(found.observations), written=written)
        letters = [dead_letter(part, item) for part, item in found.unusable]
        self._take_observations(found.observations, Decoded(), loaded, letters)
        return loaded

    def _begin(self, part: Part) -> Base:
        scope = part[0]
        with self._store.read() as connection:
            if len(self._scopes) > 1 and scope not in self._within:
                self._within[scope] = reads.scopes_within(connection, scope, self._scopes)
            return reads.base_of(connection, part, within=self._within.get(scope, ()))

    def _owned(self, observation: Observation) -> Observation:
        """An observation with the scope that it belongs to."""
        if len(self._scopes) < 2 or not observation.ancestors:
            return observation
        owner = scope_of(observation.ancestors, self._scopes)
        return observation if owner == observation.scope else replace(observation, scope=owner)

    def _drain(self, part: Part, waiting: deque[Pending], loaded: Loaded, names: set[str], *, down_to: int) -> None:
        """Take in what was decoded, until no more than ``down_to`` batches wait, as soon as it fills a transaction."""
        while len(waiting) > down_to:
            self._held.add(waiting.popleft()())
            if len(self._held.observations) + len(self._held.unusable) >= _at_once(loaded):
                self._take_held(part, loaded, names)

    def _take_all(self, part: Part, waiting: deque[Pending], loaded: Loaded, names: set[str]) -> None:
        self._drain(part, waiting, loaded, names, down_to=0)
        self._take_held(part, loaded, names)

    def _take_held(self, part: Part, loaded: Loaded, names: set[str]) -> None:
        if self._held.observations or self._held.unusable:
            held, self._held = self._held, Decoded()
            self._take(part, held, loaded, names)

    def _take(self, part: Part, decoded: Decoded, loaded: Loaded, names: set[str]) -> None:
        names.update(observation.name for observation in decoded.observations)
        letters = [dead_letter(part, item) for item in decoded.unusable]
        self._take_observations(decoded.observations, decoded, loaded, letters)

    def _take_observations(
        self, observations: list[Observation], decoded: Decoded, loaded: Loaded, letters: list[DeadLetter]
    ) -> None:
        observations = [self._owned(observation) for observation in observations]
        at_once = _at_once(loaded)
        if loaded.baseline:
            observations.sort(key=lambda observation: observation.name)
        for start in range(0, len(observations), at_once):
            batch = observations[start : start + at_once]
            applied, refused = self._apply(batch, decoded, announce=not loaded.baseline)
            loaded.applied += applied
            letters += [refusal(observation, error) for observation, error in refused]
            self._note_fields(batch, loaded)
        loaded.unusable += len(letters)
        if letters:
            with self._store.write() as connection:
                dead_letters.add(connection, letters, now=self._clock())

    def _note_fields(self, batch: list[Observation], loaded: Loaded) -> None:
        """Record which fields the contents have, so that a new one is told. Of a baseline the first assets are noted;
        what they lack and others have is found when it comes up."""
        if loaded.baseline:
            batch = batch[: max(0, _SAMPLE - loaded.sampled)]
            loaded.sampled += len(batch)
        shown = [
            (
                (observation.asset_type, observation.content_type.value),
                observation.name,
                fields_of(observation.data.data),
            )
            for observation in batch
            if isinstance(observation.data, JsonData)
        ]
        with self._store.read() as connection:
            self._fields.know(connection, {key for key, _, _ in shown})
        news: dict[tuple[str, str], dict[str, tuple[frozenset[str], str]]] = {}
        for key, name, fields in shown:
            found = news.setdefault(key, {})
            for path in self._fields.news(key, fields):
                kinds, example = found.get(path, (frozenset[str](), name))
                found[path] = (kinds | fields[path], example)
        if not any(news.values()):
            return
        first_looks = {key for key in news if self._fields.is_empty(key)}
        missed = set() if loaded.baseline else self._missed(news, loaded.written)
        with self._store.write(exclusive=_FIELDS_LOCK) as connection:
            now = self._clock()
            for key, found in news.items():
                groups: dict[tuple[str, bool], dict[str, frozenset[str]]] = {}
                for path, (kinds, example) in found.items():
                    is_old = loaded.baseline or key in first_looks or (*key, path) in missed
                    groups.setdefault((example, is_old), {})[path] = kinds
                for (example, is_old), fields in groups.items():
                    drifted = data_fields.record(
                        connection, *key, fields, example=example, now=now, baseline=is_old, cache=self._fields
                    )
                    loaded.drifted += len(drifted)
        self._fields.forget(news)

    def _missed(self, news: Mapping[tuple[str, str], Mapping[str, object]], written: int) -> set[tuple[str, str, str]]:
        """Fields that are new to the record and not to the contents: the first look did not come across them."""
        with self._store.read() as connection:
            return {
                (*key, path)
                for key, found in news.items()
                for path in self._fields.unrecorded(key, found)[:_LOOKED_UP]
                if data_fields.was_there(connection, *key, path, written=written)
            }

    def _apply(
        self, batch: list[Observation], decoded: Decoded, *, announce: bool
    ) -> tuple[Applied, list[tuple[Observation, Exception]]]:
        """Take observations into the state; those that the store refuses are found by halving."""

        observed = {observation.name: observation.data for observation in batch}

        def judged(asset_type: str, content_type: str, name: str, data: Mapping[str, Any]) -> list[Verdict]:
            known = decoded.verdicts.get(name) if observed.get(name) is data else None
            return self._evaluate(asset_type, content_type, name, data) if known is None else known

        applied = Applied()
        refused: list[tuple[Observation, Exception]] = []
        batches = [batch]
        while batches:
            current = batches.pop()
            try:
                with self._store.write(exclusive=assets.LOCK) as connection:
                    now = self._clock()
                    taken = None
                    if self._is_all_new and not announce:
                        taken = insert_new(connection, current, now=now, evaluate=judged)
                        self._is_all_new = taken is not None  # to try in vain again would hold the others up
                    applied += taken or assets.apply(
                        connection, current, layer=LayerId.API, now=now, evaluate=judged, announce=announce
                    )
            except Exception as error:
                if not is_about_data(error) or len(refused) == _MAX_REFUSED:
                    raise
                if len(current) == 1:
                    refused.append((current[0], error))
                else:
                    middle = len(current) // 2
                    batches += [current[middle:], current[:middle]]
        return applied, refused

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


def _at_once(loaded: Loaded) -> int:
    return _AT_ONCE_IN_A_BASELINE if loaded.baseline else _AT_ONCE


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


def is_about_data(error: Exception) -> bool:
    """Whether the store refused what it was given, rather than failed."""
    if isinstance(error, sa.exc.DBAPIError):
        too_large = str(getattr(error.orig, "pgcode", None)).startswith("54")
        return too_large or isinstance(error, sa.exc.DataError | sa.exc.ProgrammingError)
    return isinstance(error, sa.exc.StatementError | ValueError | TypeError | OverflowError | RecursionError)
