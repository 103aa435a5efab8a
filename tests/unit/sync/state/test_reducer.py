"""Rules of the truth core: any order, repetition or batching of the same observations ends in the same state."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.state.observation import ContentType, Observation, Source, digest_of
from lz_sync_dagster.sync.state.reducer import Breaker, Change, Knowledge, Known, Part, change_of

PART: Part = ("organizations/1", "t/T", "RESOURCE")


def observation(
    name: str = "a",
    *,
    update: int = 1,
    observed: int = 1,
    deleted: bool = False,
    body: str = "x",
    identifier: str | None = None,
    source: Source = Source.FEED,
) -> Observation:
    data = None if deleted else {"body": body}
    return Observation(
        name=name,
        content_type=ContentType.RESOURCE,
        asset_type=PART[1],
        scope=PART[0],
        update_ns=max(update, observed) if deleted else update,
        observed_ns=observed,
        source=source,
        deleted=deleted,
        resource_id=identifier,
        ancestors=(PART[0],),
        data=data,
        redacted=(),
        digest=digest_of(data),
    )


@dataclass(frozen=True)
class CompleteRead:
    read_ns: int


observations = st.builds(
    observation,
    st.sampled_from("abc"),
    update=st.integers(1, 6),
    observed=st.integers(1, 8),
    deleted=st.booleans(),
    body=st.sampled_from("xyz"),
    source=st.sampled_from(Source),
)
facts = st.lists(st.one_of(observations, st.builds(CompleteRead, st.integers(1, 10))), max_size=14)


def knowledge(items: list[Observation | CompleteRead]) -> Knowledge:
    known = Knowledge()
    for item in items:
        if isinstance(item, CompleteRead):
            known.complete_read(PART, item.read_ns)
        else:
            known.observe(item)
    return known


def content(known: Knowledge) -> dict[tuple[str, str], object]:
    return {key: item.order for key, item in known.existing().items()}


@pytest.mark.soak
@given(facts, st.data())
def test_any_permutation_and_repetition_ends_in_the_same_state(items, data) -> None:
    expected = content(knowledge(items))
    again = data.draw(st.permutations(items + data.draw(st.lists(st.sampled_from(items)) if items else st.just([]))))
    assert content(knowledge(again)) == expected


@pytest.mark.soak
@given(st.lists(observations, max_size=10), observations)
def test_a_late_old_event_changes_nothing(items, late) -> None:
    known = knowledge([*items, observation("a", update=9, observed=9, body="newest")])
    known.observe(late)
    assert known.existing()["a", "RESOURCE"].data == {"body": "newest"}


@given(facts)
def test_without_a_complete_read_or_a_deletion_nothing_is_ever_gone(items) -> None:
    told = [item for item in items if isinstance(item, Observation) and not item.deleted]
    assert {name for name, _ in knowledge(list(told)).existing()} == {item.name for item in told}


@pytest.mark.parametrize(
    ("reads", "exists"),
    [((), True), ((5,), True), ((5, 5), True), ((5, 6), False), ((1, 6), True), ((2, 3), False)],
)
def test_two_complete_reads_after_the_last_version_prove_absence(reads, exists) -> None:
    known = knowledge([observation(update=1, observed=1), *map(CompleteRead, reads)])
    assert bool(known.existing()) is exists


def test_a_sighting_between_two_reads_keeps_the_asset() -> None:
    seen_again = observation(update=1, observed=5, source=Source.SNAPSHOT)
    assert knowledge([observation(), CompleteRead(4), seen_again, CompleteRead(6)]).existing()


def test_an_asset_that_comes_back_with_another_id_was_recreated() -> None:
    before = observation(identifier="1")
    after = observation(update=2, observed=2, identifier="2")
    assert change_of(Known(before.order, "1", exists=True), after) is Change.RECREATED


def test_a_tombstone_beats_the_version_that_it_ends() -> None:
    gone = observation(update=1, observed=4, deleted=True)
    stale_snapshot = observation(update=1, observed=9, source=Source.SNAPSHOT)
    assert knowledge([observation(), gone, stale_snapshot]).existing() == {}


def test_an_equal_observation_is_no_news() -> None:
    same = observation()
    assert change_of(Known(same.order, None, exists=True), same) is None


@pytest.mark.parametrize(
    ("known", "lost", "opens"),
    [(100, 49, False), (100, 50, True), (1000, 200, False), (1000, 201, True), (10, 10, False)],
)
def test_the_breaker_opens_above_the_share_and_the_minimum(known, lost, opens) -> None:
    assert Breaker(share=0.2, minimum=50).opens(known=known, lost=lost) is opens
