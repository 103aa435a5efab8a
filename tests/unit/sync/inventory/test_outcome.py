"""What becomes of the parts of a sync: which error is told first, what another attempt may cure, what requests it
settles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import requests
from lz_sync_dagster.sync.inventory.outcome import Counts, Tally, merged, outcome_of
from lz_sync_dagster.sync.inventory.session import explained
from lz_sync_dagster.sync.inventory.types import BUCKET, SERVICE_ACCOUNT_KEY
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import Store, coverage, inbox, part_reads
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.quota import Cancelled
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW

ORG = "organizations/1"
PART: Part = (ORG, BUCKET, "RESOURCE")
POLICY: Part = (ORG, BUCKET, "IAM_POLICY")
KEY: Part = (ORG, SERVICE_ACCOUNT_KEY, "RESOURCE")
MINUTE = timedelta(minutes=1)


def error(reason: Reason, *, where: str = "x", remedy: str = "wait", transient: bool | None = None) -> SyncError:
    return SyncError("failed", where=where, remedy=remedy, reason=reason, transient=transient)


# --- what is said


def test_a_part_is_told_once_failures_first_then_what_is_not_known_then_what_is_late() -> None:
    a, b, c = (error(Reason.TIMEOUT, where=name) for name in "abc")
    tally = Tally(errors={PART: a}, waiting={PART: b, POLICY: b}, late={PART: c, POLICY: c, KEY: c})
    assert tally.said == [a, b, c]


def test_failures_that_differ_in_what_they_struck_share_a_line() -> None:
    lines = merged([error(Reason.TIMEOUT, where="a"), error(Reason.QUOTA, where="q"), error(Reason.TIMEOUT, where="b")])
    assert lines == ["a: failed; wait (and 1 more parts alike)", "q: failed; wait"]


def test_what_waits_asks_for_no_other_attempt() -> None:
    late, other = error(Reason.TIMEOUT), error(Reason.UNAVAILABLE)
    tally = Tally(late={PART: late}, others=[other], waiting={KEY: error(Reason.QUOTA, transient=False)})
    assert tally.transient == [late, other]


@pytest.mark.parametrize(
    ("tally", "fruitless"),
    [
        (Tally(), False),
        (Tally(errors={PART: error(Reason.TIMEOUT)}), True),
        (Tally(errors={PART: error(Reason.TIMEOUT)}, proven={KEY}), False),
        (Tally(errors={PART: error(Reason.TIMEOUT)}, looked_at={KEY}), False),
        (Tally(errors={PART: error(Reason.TIMEOUT)}, under_way={"an export": [KEY]}), False),
        (Tally(others=[error(Reason.TIMEOUT)]), False),
    ],
)
def test_a_sync_fails_if_parts_failed_and_nothing_else_came_of_it(tally: Tally, fruitless: bool) -> None:
    assert tally.is_fruitless is fruitless


@given(st.lists(st.integers(0, 9), min_size=12, max_size=12))
def test_what_attempts_did_is_kept_between_them(numbers: list[int]) -> None:
    counts = Counts(Applied(*numbers[:3]), *numbers[3:])
    assert Counts.from_json(counts.to_json()) == counts
    assert Counts.from_json(None) == Counts()


def prove(store: Store, *parts: Part, age: timedelta) -> None:
    with store.write() as connection:
        marks = [
            CoverageMark(*part, CoverageStatus.COMPLETE, complete_read_ns=to_ns(NOW - age), assets=1) for part in parts
        ]
        coverage.mark(connection, marks, now=NOW - age)


def test_an_outcome_is_as_old_as_the_oldest_proof_and_unknown_without_any(sqlite_store: Store) -> None:
    assert outcome_of(sqlite_store, Tally(), written=0, drift={}, now=NOW).as_of is None
    prove(sqlite_store, PART, age=30 * MINUTE)
    prove(sqlite_store, KEY, age=10 * MINUTE)
    outcome = outcome_of(sqlite_store, Tally(), written=0, drift={}, now=NOW)
    assert (outcome.status, outcome.as_of, outcome.from_cache) == (Status.SUCCESS, NOW - 30 * MINUTE, frozenset())


@pytest.mark.parametrize(
    ("tally", "age", "cached"),
    [
        (Tally(), 59 * MINUTE, False),
        (Tally(), 61 * MINUTE, True),
        (Tally(proven={PART}), 61 * MINUTE, False),
        (Tally(late={PART: error(Reason.TIMEOUT)}), MINUTE, True),
        (Tally(errors={PART: error(Reason.TIMEOUT)}), MINUTE, True),
        (Tally(errors={KEY: error(Reason.TIMEOUT)}), MINUTE, False),
        (Tally(under_way={"an export": [PART]}), 59 * MINUTE, False),
    ],
)
def test_what_a_sync_did_not_look_at_anew_is_served_from_before(
    sqlite_store: Store, tally: Tally, age: timedelta, cached: bool
) -> None:
    prove(sqlite_store, PART, age=age)
    outcome = outcome_of(sqlite_store, tally, written=0, drift={}, now=NOW)
    assert bool(outcome.from_cache) is cached
    assert "coverage" not in outcome.from_cache


# --- what a part failed on


def test_a_defect_costs_its_part_and_a_stop_or_a_store_that_is_away_is_passed_on() -> None:
    import sqlalchemy as sa

    known = error(Reason.TIMEOUT)
    assert explained(known, "x") is known
    assert explained(KeyError("x"), "x").reason is Reason.INTERNAL
    for raised in (Cancelled(), sa.exc.OperationalError("select", {}, Exception("database is locked"))):
        with pytest.raises(type(raised)):
            explained(raised, "x")
    refused = sa.exc.DataError("insert", {}, Exception("too large"))
    assert explained(refused, "x").reason is Reason.INTERNAL


# --- what is settled


def ask(store: Store, event: str) -> list[inbox.Delivery]:
    with store.write() as connection:
        inbox.request(connection, LayerId.API, key=event, event=event, actor=None, commit=None, now=NOW)
    return requests.before(store, NOW)


def is_settled(store: Store, event: str, tally: Tally) -> bool:
    asked = ask(store, event)
    with store.read() as connection:
        return bool(requests.settled(connection, asked, [PART, POLICY, KEY], tally))


def test_what_was_asked_after_a_sync_began_waits_for_the_next_one(sqlite_store: Store) -> None:
    ask(sqlite_store, requests.TERRAFORM_CHANGE)
    assert requests.before(sqlite_store, NOW - MINUTE) == []
    assert requests.full_read_ns(ask(sqlite_store, requests.FULL_READ)) == to_ns(NOW)
    assert requests.full_read_ns([]) == 0


@pytest.mark.parametrize(
    ("tally", "settled"),
    [
        (Tally(), False),
        (Tally(looked_at={PART}), True),
        (Tally(listed={PART}), True),
        (Tally(looked_at={KEY}), False),
        (Tally(errors={PART: error(Reason.PERMISSION_DENIED)}), True),
        (Tally(errors={PART: error(Reason.QUOTA)}), False),
        (Tally(late={PART: error(Reason.TIMEOUT)}), False),
        (Tally(waiting={PART: error(Reason.UNKNOWN_TYPE)}), True),
        (Tally(waiting={PART: error(Reason.NOT_READ_YET)}), False),
    ],
)
def test_a_change_of_terraform_is_settled_when_what_terraform_can_make_was_looked_at(
    sqlite_store: Store, tally: Tally, settled: bool
) -> None:
    assert is_settled(sqlite_store, requests.TERRAFORM_CHANGE, tally) is settled


def test_a_look_that_began_after_the_request_settles_it_whoever_looked(sqlite_store: Store) -> None:
    for until, settled in ((NOW - MINUTE, False), (NOW, True)):
        with sqlite_store.write() as connection:
            part_reads.record_delta(connection, [PART], until_ns=to_ns(until))
        assert is_settled(sqlite_store, requests.TERRAFORM_CHANGE, Tally()) is settled


def test_a_read_of_everything_is_settled_when_every_part_is_proven_since(sqlite_store: Store) -> None:
    prove(sqlite_store, PART, POLICY, age=timedelta(0))
    prove(sqlite_store, KEY, age=MINUTE)
    assert not is_settled(sqlite_store, requests.FULL_READ, Tally(looked_at={KEY}))
    assert is_settled(sqlite_store, requests.FULL_READ, Tally(listed={KEY}))
    assert is_settled(sqlite_store, requests.FULL_READ, Tally(errors={KEY: error(Reason.API_DISABLED)}))


def test_any_sync_settles_other_requests(sqlite_store: Store) -> None:
    assert is_settled(sqlite_store, "breaker_confirmed", Tally())
