"""What an address asks of the inventory's pages: every question has an address that asks for it again."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.portal.pages import asked
from lz_sync_dagster.portal.pages.asked import ListQuestion, Timeline
from lz_sync_dagster.sync.store.resource_views import Dimension, Place, ResourceFilter, Sort
from lz_sync_dagster.sync.timing import parse_ns, to_ns
from tests.conftest import NOW

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=30)
several = st.lists(texts, max_size=3, unique=True).map(lambda values: tuple(sorted(values)))
instants = st.none() | st.integers(0, to_ns(NOW))
numbers = st.integers(-(2**63) + 1, 2**63 - 1)


@st.composite
def questions(draw: st.DrawFn) -> ListQuestion:
    sort = draw(st.sampled_from(Sort))
    where = ResourceFilter(
        content_type=draw(st.sampled_from(("RESOURCE", "IAM_POLICY"))),
        asset_types=draw(several),
        projects=draw(several),
        scopes=draw(several),
        locations=draw(several),
        q=draw(st.none() | texts),
        has_findings=draw(st.none() | st.booleans()),
        deleted=draw(st.booleans()),
        changed_since_ns=draw(instants),
    )
    place = draw(st.none() | places(sort))
    forward = draw(st.booleans())
    return ListQuestion(
        where,
        sort,
        draw(st.booleans()),
        draw(instants),
        place if forward else None,
        None if forward else place,
    )


def places(sort: Sort) -> st.SearchStrategy[Place]:
    if sort is Sort.NAME:
        return st.tuples(st.just(0), st.none(), texts)
    key: st.SearchStrategy[str | int] = numbers if sort in (Sort.UPDATED, Sort.VIOLATIONS) else texts
    return st.tuples(st.just(0), key, texts) | st.tuples(st.just(1), st.none(), texts)


def pairs(address: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(address).query, keep_blank_values=True)


@given(questions())
def test_an_address_asks_what_it_was_made_of(question: ListQuestion) -> None:
    assert asked.list_question(pairs(asked.list_address(question)), NOW) == (question, [])


@given(st.lists(st.tuples(st.sampled_from(("q", "type", "sort", "as_of", "after", "since", "violations")), st.text())))
def test_no_address_is_refused(given_pairs: list[tuple[str, str]]) -> None:
    question, _ = asked.list_question(given_pairs, NOW)
    again, notes = asked.list_question(pairs(asked.list_address(question)), NOW)
    assert (again, notes) == (question, [])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sort", "size", "cannot be sorted"),
        ("as_of", "yesterday", "is no instant"),
        ("as_of", "2099-01-01T00:00:00Z", "not in the past"),
        ("after", "nowhere", "names no place"),
        ("violations", "perhaps", "true or false"),
        ("content_type", "resource", "no such content type"),
        ("q", "a\0b", "left out"),
    ],
)
def test_what_is_not_understood_is_said_and_left_out(name: str, value: str, said: str) -> None:
    question, notes = asked.list_question([(name, value)], NOW)
    assert question == ListQuestion()
    assert len(notes) == 1
    assert said in notes[0]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-01-31 12:00:09 UTC", "2026-01-31T12:00:09Z"),
        ("2026-01-31 12:00", "2026-01-31T12:00:00Z"),
        (" 2026-01-31T12:00:09.5 ", "2026-01-31T12:00:09.5Z"),
        ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z"),
        ("2026-01-31T12:00:00 01:00", "2026-01-31T11:00:00Z"),
    ],
)
def test_an_instant_may_be_written_as_the_pages_write_it(said: str, meant: str) -> None:
    notes: list[str] = []
    assert asked.instant(said, NOW, "as_of", notes) == parse_ns(meant)
    assert notes == []


def test_a_place_of_another_list_is_none_of_this_one() -> None:
    place = asked.write_place((0, 5, "name"))
    assert asked.list_question([("sort", "updated"), ("after", place)], NOW)[0].after == (0, 5, "name")
    assert asked.list_question([("sort", "project"), ("after", place)], NOW)[0].after is None


def test_another_question_begins_the_list_anew() -> None:
    question = ListQuestion(after=(0, None, "x"))
    others = (question.by(Sort.NAME), question.at(5), question.toggled(Dimension.PROJECT, "p"))
    assert [other.after for other in others] == [None, None, None]
    assert question.by(Sort.NAME).descending
    assert question.by(Sort.VIOLATIONS).descending
    assert not question.by(Sort.PROJECT).descending
    assert others[2].toggled(Dimension.PROJECT, "p").where == question.where


def test_an_export_has_the_filter_and_the_instant_but_no_place() -> None:
    question = ListQuestion(ResourceFilter(q="a b"), Sort.UPDATED, True, to_ns(NOW), (0, 1, "x"))
    assert pairs(asked.export_address(question, "csv")) == [
        ("format", "csv"),
        ("q", "a b"),
        ("as_of", "2026-03-01T12:00:00Z"),
    ]


@given(st.timedeltas(timedelta(0), timedelta(days=800)), st.integers(0, 1_000))
def test_a_timeline_goes_from_the_first_instant_to_now(length: timedelta, position: int) -> None:
    first: datetime = NOW - length
    timeline = Timeline.over(first, NOW)
    assert 1 <= timeline.count <= 900
    assert timeline.at(0) == to_ns(first)
    assert timeline.at(timeline.count) is None
    at = timeline.at(position)
    assert at is None or to_ns(first) <= at < to_ns(NOW) or length == timedelta(0)
    assert timeline.position(at) == min(position, timeline.count)
