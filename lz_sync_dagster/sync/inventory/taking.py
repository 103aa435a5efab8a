"""Takes observations of the inventory into the store: a transaction's worth at a time, with what they say of fields.

What the store refuses becomes a dead letter; the others are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator, Verdict
from lz_sync_dagster.sync.inventory.decoder import Decoded
from lz_sync_dagster.sync.inventory.delta import DeltaResult
from lz_sync_dagster.sync.inventory.letters import dead_letter, refusal
from lz_sync_dagster.sync.state.fields import fields_of
from lz_sync_dagster.sync.state.observation import JsonData, Observation, scope_of
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import Store, assets, data_fields, dead_letters
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.data_fields import FieldCache
from lz_sync_dagster.sync.store.dead_letters import DeadLetter
from lz_sync_dagster.sync.store.first_load import insert_new
from lz_sync_dagster.sync.store.reads import ReadResult
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


@dataclass
class Loaded:
    """What a read of a part came to, as far as it got.

    Attributes:
        calls: how many it took.
        assets: how many the read holds.
        decoded: how many of them had to be decoded.
        unusable: how many cannot be used; the read proves no absence then.
        baseline: no read of the part reached its end before.
        all_new: no asset of a baseline was known so far.
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
    all_new: bool = True
    read_ns: int = 0
    sampled: int = 0
    written: int = 0
    drifted: int = 0
    applied: Applied = field(default_factory=Applied)
    result: ReadResult | None = None

    @property
    def at_once(self) -> int:
        """How many of its assets one transaction takes in."""
        return _AT_ONCE_IN_A_BASELINE if self.baseline else _AT_ONCE


class Taker:
    """Takes in what was observed, and counts it.

    Args:
        evaluate: judges content that was not judged when it was decoded.
        scopes: all that are read. Where one lies within another, an asset belongs to the nearest one, whichever shows
            it.
    """

    def __init__(self, store: Store, evaluate: Evaluator, *, clock: Clock, scopes: Sequence[str] = ()) -> None:
        self._store = store
        self._evaluate = evaluate
        self._clock = clock
        self._scopes = tuple(dict.fromkeys(scopes))
        self._fields = FieldCache()

    def take(self, part: Part, decoded: Decoded, loaded: Loaded) -> None:
        """Take in what a read of a part decoded.

        Args:
            loaded: of the read; what is taken in is counted there.
        """
        self._take_observations(
            decoded.observations, decoded, loaded, [dead_letter(part, item) for item in decoded.unusable]
        )

    def take_delta(self, found: DeltaResult) -> Loaded:
        """Take in what a delta read found: all of it is news."""
        with self._store.read() as connection:
            written = assets.written(connection)
        loaded = Loaded(decoded=len(found.observations), written=written)
        letters = [dead_letter(part, item) for part, item in found.unusable]
        self._take_observations(found.observations, Decoded(), loaded, letters)
        return loaded

    def _take_observations(
        self, observations: list[Observation], decoded: Decoded, loaded: Loaded, letters: list[DeadLetter]
    ) -> None:
        observations = [self._owned(observation) for observation in observations]
        at_once = loaded.at_once
        if loaded.baseline:
            observations.sort(key=lambda observation: observation.name)
        for start in range(0, len(observations), at_once):
            batch = observations[start : start + at_once]
            applied, refused = self._apply(batch, decoded, loaded)
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
        self, batch: list[Observation], decoded: Decoded, loaded: Loaded
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
                    if loaded.baseline and loaded.all_new:
                        taken = insert_new(connection, current, now=now, evaluate=judged)
                        loaded.all_new = taken is not None  # to try in vain again would hold the others up
                    applied += taken or assets.apply(
                        connection,
                        current,
                        layer=LayerId.API,
                        now=now,
                        evaluate=judged,
                        announce=not loaded.baseline,
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

    def _owned(self, observation: Observation) -> Observation:
        """An observation with the scope that it belongs to."""
        if len(self._scopes) < 2 or not observation.ancestors:
            return observation
        owner = scope_of(observation.ancestors, self._scopes)
        return observation if owner == observation.scope else replace(observation, scope=owner)


def is_about_data(error: Exception) -> bool:
    """Whether the store refused what it was given, rather than failed."""
    if isinstance(error, sa.exc.DBAPIError):
        too_large = str(getattr(error.orig, "pgcode", None)).startswith("54")
        return too_large or isinstance(error, sa.exc.DataError | sa.exc.ProgrammingError)
    return isinstance(error, sa.exc.StatementError | ValueError | TypeError | OverflowError | RecursionError)
