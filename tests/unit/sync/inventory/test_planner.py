"""The read planner: what a sync reads in full, by delta, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lz_sync_dagster.config import ApiSyncConfig
from lz_sync_dagster.sync.inventory.planner import (
    Mode,
    Policy,
    ReadPlan,
    expected_calls,
    plan_reads,
    policy_of,
    quotas_of,
    retry_at,
    rotation_syncs,
)
from lz_sync_dagster.sync.inventory.types import BUCKET, FIREWALL, INSTANCE, PROJECT
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.store.quota import Quota, QuotaUsage
from lz_sync_dagster.sync.timing import from_ns, to_ns
from tests.conftest import NOW

ORG, FOLDER_SCOPE = "organizations/1", "folders/2"
POLICY = Policy()
MINUTE = timedelta(minutes=1)


def quotas(per_minute: int = 100, **blocked: datetime) -> dict[Quota, QuotaUsage]:
    """Every quota with so many calls a minute, none used; ``blocked``: until when, by quota."""
    return {
        quota: QuotaUsage(quota, per_minute, per_minute, 0, per_minute, blocked.get(quota.value), 0) for quota in Quota
    }


def state(
    asset_type: str = BUCKET,
    *,
    age: float | None = 5,
    calls: int = 1,
    scope: str = ORG,
    content: str = "RESOURCE",
    **more: Any,
) -> PartState:
    """A part that was proven ``age`` minutes ago, in so many calls."""
    read_ns = None if age is None else to_ns(NOW - age * MINUTE)
    return PartState((scope, asset_type, content), read_ns, None if age is None else calls, **more)


def plan(states: list[PartState], *, per_minute: int = 100, policy: Policy = POLICY, **more: Any) -> ReadPlan:
    return plan_reads(states, now=NOW, budgets=more.pop("budgets", quotas(per_minute)), policy=policy, **more)


def large(count: int, *, calls: int = 100, age: float = 5) -> list[PartState]:
    """Parts that together do not fit into a sync of 400 calls (100 a minute, a share of 0.8, 5 minutes)."""
    return [state(f"a/T{number:02}", age=age, calls=calls) for number in range(count)]


def full_parts(made: ReadPlan) -> list[Part]:
    return [read.part for read in made.full]


# --- the rules


def test_what_fits_into_a_sync_is_read_in_full_each_time() -> None:
    made = plan([state(age=1), state(FIREWALL, age=59), state(INSTANCE, calls=390)])
    assert set(made.modes.values()) == {Mode.FULL}
    assert made.calls[Quota.LIST_ASSETS] == 392
    assert made.proof_age_attainable
    assert made.rotation_minutes == 5


def test_projects_are_read_first_since_they_tell_project_ids() -> None:
    made = plan(
        [state(BUCKET), state(PROJECT, content="IAM_POLICY"), state(PROJECT), state(PROJECT, scope=FOLDER_SCOPE)]
    )
    assert [part[:2] for part in full_parts(made)] == [
        (ORG, PROJECT),
        (FOLDER_SCOPE, PROJECT),
        (ORG, BUCKET),
        (ORG, PROJECT),
    ]


def test_what_was_never_read_is_read_in_full() -> None:
    made = plan([*large(8), state(BUCKET, age=None)])
    assert made.modes[(ORG, BUCKET, "RESOURCE")] is Mode.FULL
    assert "never read" in made.full[0].reason


def test_a_large_estate_is_rotated_the_oldest_proof_first() -> None:
    states = [state(f"a/T{number:02}", age=10 + number, calls=100) for number in range(20)]
    made = plan(states)
    assert full_parts(made) == [(ORG, "a/T19", "RESOURCE"), (ORG, "a/T18", "RESOURCE")]
    assert made.calls[Quota.LIST_ASSETS] == 200
    assert made.budget[Quota.LIST_ASSETS] == 400


def test_when_a_deadline_presses_the_whole_budget_is_used() -> None:
    made = plan([*large(18), state("a/Old", age=56, calls=100)])
    assert full_parts(made)[0] == (ORG, "a/Old", "RESOURCE")
    assert made.calls[Quota.LIST_ASSETS] == 400


def test_many_deadlines_at_once_press_long_before_they_come() -> None:
    made = plan(large(40, age=10))
    assert made.calls[Quota.LIST_ASSETS] == 400, "40 × 100 calls are ten syncs, and there are ten before the deadline"


def test_resources_that_are_not_due_are_read_by_delta_one_search_for_all_types_of_a_scope() -> None:
    states = [*large(20), state("b/Small", scope=FOLDER_SCOPE, age=3)]
    made = plan(states)
    assert [delta.scope for delta in made.deltas] == [ORG, FOLDER_SCOPE]
    assert len(made.deltas[0].asset_types) == 20 - len(made.full)
    assert made.deltas[0].since_ns == to_ns(NOW - 15 * MINUTE), "the oldest read, and ten minutes of overlap"
    assert made.calls[Quota.SEARCH_ALL_RESOURCES] == 2
    assert not made.skipped


def test_a_delta_goes_on_where_the_last_one_ended() -> None:
    states = [replace(item, delta_read_ns=to_ns(NOW - 1 * MINUTE)) for item in large(20, age=30)]
    made = plan(states)
    assert made.deltas[0].since_ns == to_ns(NOW - 11 * MINUTE)


@pytest.mark.parametrize("content", ["IAM_POLICY", "ORG_POLICY", "RELATIONSHIP"])
def test_a_policy_cannot_be_read_by_delta_so_it_waits_for_its_turn(content: str) -> None:
    made = plan([*large(20, age=30), state(BUCKET, age=1, content=content)])
    [skip] = made.skipped
    assert skip.part == (ORG, BUCKET, content)
    assert skip.until == NOW + 59 * MINUTE
    assert "the feed covers it meanwhile" in skip.reason


def test_a_part_that_lacked_an_asset_once_is_settled_by_a_second_read() -> None:
    made = plan([*large(20, age=20), state("b/Shrunk", age=5, missing_once=True)])
    assert made.modes[(ORG, "b/Shrunk", "RESOURCE")] is Mode.FULL


def test_settling_does_not_push_out_proofs_that_are_due() -> None:
    settling = [state(f"b/S{number}", age=5, calls=100, missing_once=True) for number in range(4)]
    due = large(4, age=58)
    assert {part[1] for part in full_parts(plan([*settling, *due]))} == {item.part[1] for item in due}


def test_a_failed_part_is_tried_again_at_once_then_later_and_later() -> None:
    waits = [retry_at(failures, NOW, POLICY) - NOW for failures in range(1, 7)]
    assert [wait / MINUTE for wait in waits] == [0, 5, 15, 35, 60, 60]
    failed = state(failures=3, failed_at=NOW - 14 * MINUTE)
    [skip] = plan([failed, *large(1, age=30)]).skipped or [None]
    assert skip is None, "a part that was read once is looked at by delta meanwhile"
    never = state(age=None, failures=3, failed_at=NOW - 14 * MINUTE)
    [skip] = [skip for skip in plan([never, *large(12)]).skipped if skip.part == never.part]
    assert (skip.until, "3 times in a row" in skip.reason) == (NOW + 1 * MINUTE, True)
    assert never.part in full_parts(plan([replace(never, failed_at=NOW - 15 * MINUTE), *large(12)]))


def test_where_calls_are_plenty_a_failed_part_is_tried_in_each_sync() -> None:
    failed = state(age=None, failures=9, failed_at=NOW)
    assert full_parts(plan([failed])) == [failed.part]


def test_a_part_that_cannot_be_proven_does_not_use_up_the_budget() -> None:
    made = plan([*large(18), state("b/Broken", age=300, calls=3, failures=5, failed_at=NOW - timedelta(hours=2))])
    assert full_parts(made)[0] == (ORG, "b/Broken", "RESOURCE")
    assert made.calls[Quota.LIST_ASSETS] < 210


def test_a_type_that_the_inventory_does_not_know_is_left_alone_until_its_quarantine_ends() -> None:
    unknown = state(quarantined_until=NOW + timedelta(hours=3))
    [skip] = plan([unknown]).skipped
    assert skip.until == NOW + timedelta(hours=3)
    assert plan([unknown], everything=True).full, "somebody asks for it"
    assert plan([replace(unknown, quarantined_until=NOW)]).full


def test_everything_can_be_asked_for() -> None:
    made = plan([*large(20), state(failures=9, failed_at=NOW)], everything=True)
    assert set(made.modes.values()) == {Mode.FULL}
    assert made.calls[Quota.LIST_ASSETS] == 2001
    assert made.minutes == pytest.approx((2001 - 100) / 100)


def test_what_exports_prove_is_searched_for_changes_and_costs_nothing_of_the_budget() -> None:
    huge, never = state(INSTANCE, calls=5_000), state(FIREWALL, age=None)
    for everything in (False, True):
        made = plan([huge, never, state()], exported={huge.part, never.part}, everything=everything)
        assert full_parts(made) == [(ORG, BUCKET, "RESOURCE")]
        assert made.calls[Quota.LIST_ASSETS] == 1
        assert made.modes[huge.part] is Mode.DELTA
        assert [(skip.part, skip.reason) for skip in made.skipped] == [(never.part, "exports prove it")]
        assert (made.rotation_minutes, made.proof_age_attainable) == (30, True)


def test_a_sync_goes_on_even_if_the_oldest_part_alone_exceeds_its_budget() -> None:
    made = plan([state("a/Huge", age=50, calls=900), *large(3, age=20)])
    assert full_parts(made) == [(ORG, "a/Huge", "RESOURCE")]


def test_while_the_quota_is_blocked_until_the_next_sync_nothing_is_read() -> None:
    until = NOW + timedelta(minutes=6)
    made = plan(
        [state(), state(BUCKET, content="IAM_POLICY")],
        budgets=quotas(list_assets=until, search_all_resources=until),
    )
    assert not made.full
    assert not made.deltas
    assert {skip.reason for skip in made.skipped} == {"the quota of full reads is blocked until the next sync"}


def test_a_block_that_ends_soon_leaves_a_smaller_budget() -> None:
    made = plan(large(1, calls=10), budgets=quotas(list_assets=NOW + 4 * MINUTE))
    assert made.budget[Quota.LIST_ASSETS] == 80
    assert made.full
    assert made.minutes == 4


def test_without_a_quota_for_searches_the_rest_is_skipped_and_said_so() -> None:
    made = plan(large(20), budgets=quotas(search_all_resources=NOW + timedelta(hours=1)))
    assert not made.deltas
    assert {skip.reason for skip in made.skipped} == {"no quota is left for searches"}


def test_what_is_older_than_histories_reach_is_no_delta() -> None:
    made = plan([*large(5, age=58), state("b/Ancient", age=40 * 24 * 60, calls=900)], per_minute=1)
    assert (ORG, "b/Ancient", "RESOURCE") in full_parts(made)
    made = plan([state("b/Older", age=50 * 24 * 60), state("b/Ancient", age=40 * 24 * 60, calls=900)], per_minute=1)
    assert made.modes[(ORG, "b/Ancient", "RESOURCE")] is Mode.SKIP


def test_the_plan_says_when_the_quota_does_not_permit_the_age() -> None:
    made = plan(large(100))
    assert made.calls[Quota.LIST_ASSETS] <= 400
    assert not made.proof_age_attainable
    assert 100 * 100 / 80 <= made.rotation_minutes <= 2 * 100 * 100 / 80


def test_a_part_that_grew_is_expected_to_take_more_calls() -> None:
    assert expected_calls(state(calls=3), 1000) == 3
    assert expected_calls(replace(state(calls=3), assets=4001), 1000) == 5
    assert expected_calls(state(age=None), 1000) == 1


def test_no_part_is_a_plan_with_nothing_in_it() -> None:
    made = plan([])
    assert not made.modes
    assert made.proof_age_attainable


def test_the_policy_and_the_quotas_are_those_of_the_configuration() -> None:
    assert policy_of(ApiSyncConfig()) == Policy()
    assert quotas_of(ApiSyncConfig()) == {
        Quota.LIST_ASSETS: 100,
        Quota.SEARCH_ALL_RESOURCES: 400,
        Quota.BATCH_GET_ASSETS_HISTORY: 100,
        Quota.EXPORT_ASSETS: 60,
    }
    config = ApiSyncConfig.model_validate(
        {
            "frequency_minutes": 15,
            "page_size": 10,
            "quota_share": 0.5,
            "proof_age_minutes": 120,
            "delta_overlap_minutes": 1,
            "unknown_type_retry_hours": 2,
            "quotas": {"list_assets": 7},
            "bulk": {"every_minutes": 45},
        }
    )
    assert policy_of(config) == Policy(
        120 * MINUTE, 15 * MINUTE, 0.5, MINUTE, 10, 120 * MINUTE, export_every=45 * MINUTE
    )
    assert quotas_of(config)[Quota.LIST_ASSETS] == 7


# --- for every estate


PARTS = st.lists(
    st.builds(
        lambda kind, age, calls, missing, failures, failed, quarantined, delta: PartState(
            (ORG if kind % 3 else FOLDER_SCOPE, f"a/T{kind // 2}", "RESOURCE" if kind % 2 else "IAM_POLICY"),
            None if age is None else to_ns(NOW - age * MINUTE),
            None if age is None else calls,
            None if age is None else calls * 900,
            None if delta is None or age is None else to_ns(NOW - min(age, delta) * MINUTE),
            failures,
            NOW - failed * MINUTE if failures else None,
            None if quarantined is None else NOW + quarantined * MINUTE,
            missing,
        ),
        kind=st.integers(0, 60),
        age=st.none() | st.integers(0, 200),
        calls=st.integers(1, 500),
        missing=st.booleans(),
        failures=st.integers(0, 5),
        failed=st.integers(0, 90),
        quarantined=st.none() | st.integers(-60, 60),
        delta=st.none() | st.integers(0, 200),
    ),
    unique_by=lambda item: item.part,
    max_size=30,
)


@given(states=PARTS, per_minute=st.integers(1, 200), everything=st.booleans(), exports=st.integers(0, 30))
def test_every_part_is_planned_exactly_once(
    states: list[PartState], per_minute: int, everything: bool, exports: int
) -> None:
    exported = {item.part for item in states[:exports]}
    made = plan(states, per_minute=per_minute, everything=everything, exported=exported)
    assert not exported & set(full_parts(made))
    covered = [
        *full_parts(made),
        *(part for delta in made.deltas for part in delta.parts),
        *(skip.part for skip in made.skipped),
    ]
    assert sorted(covered) == sorted(item.part for item in states)
    assert all(skip.reason for skip in made.skipped)


@given(states=PARTS, per_minute=st.integers(1, 200))
def test_a_plan_stays_within_the_budget_unless_one_part_alone_exceeds_it(
    states: list[PartState], per_minute: int
) -> None:
    made = plan(states, per_minute=per_minute)
    assert len(made.full) == 1 or made.calls[Quota.LIST_ASSETS] <= made.budget[Quota.LIST_ASSETS]


@given(states=PARTS, per_minute=st.integers(1, 200))
def test_whoever_may_read_reads_something_in_full(states: list[PartState], per_minute: int) -> None:
    made = plan(states, per_minute=per_minute)
    able = [
        item
        for item in states
        if not (item.quarantined_until and item.quarantined_until > NOW)
        and not (item.failed_at and retry_at(item.failures, item.failed_at, POLICY) > NOW)
    ]
    assert made.full or not able


@given(states=PARTS, per_minute=st.integers(1, 200))
def test_a_delta_is_of_resources_that_were_read_once(states: list[PartState], per_minute: int) -> None:
    known: Mapping[Part, PartState] = {item.part: item for item in states}
    for delta in plan(states, per_minute=per_minute).deltas:
        for part in delta.parts:
            read_ns = known[part].complete_read_ns
            assert read_ns is not None
            assert delta.since_ns <= max(read_ns, known[part].delta_read_ns or 0) - to_ns(from_ns(0) + POLICY.overlap)


# --- hours of syncs


SIZES = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 120), st.integers(1, 500)), min_size=1, max_size=25)


def live(
    sizes: list[int], per_minute: int, policy: Policy, *, until: timedelta, since: timedelta, start: str
) -> list[float]:
    """Sync for a while; returns how old proofs became (minutes), measured whenever a read ends, from ``since`` on.

    A sync begins at each cadence, or when the one before has ended, if that took longer than its cadence: it makes so
    many calls a minute as the policy's share of the quota.
    """
    parts = {
        (ORG, f"a/T{number:02}", "IAM_POLICY" if number % 3 else "RESOURCE"): size for number, size in enumerate(sizes)
    }
    known = {part: PartState(part) for part in parts}
    if start == "together":
        known = {part: PartState(part, to_ns(NOW), size, missing_once=bool(size % 2)) for part, size in parts.items()}
    now, ages = NOW, []
    while now < NOW + until:
        made = plan_reads(list(known.values()), now=now, budgets=quotas(per_minute), policy=policy)
        calls = 0
        for read in made.full:
            calls += parts[read.part]
            old = known[read.part]
            done = now + max(timedelta(0), timedelta(minutes=calls / (policy.share * per_minute)) - policy.cadence)
            if old.complete_read_ns is not None and now >= NOW + since:
                ages.append((done - from_ns(old.complete_read_ns)) / MINUTE)
            known[read.part] = replace(old, complete_read_ns=to_ns(now), full_calls=parts[read.part])
        spent = timedelta(minutes=calls / (policy.share * per_minute))
        now += policy.cadence * max(1, math.ceil(spent / policy.cadence))
    never = [item.part for item in known.values() if item.complete_read_ns is None]
    assert not never
    return [*ages, *((now - policy.cadence - from_ns(item.complete_read_ns or 0)) / MINUTE for item in known.values())]


@pytest.mark.soak
@given(sizes=SIZES, per_minute=st.integers(10, 120), start=st.sampled_from(["new", "together"]))
@example(sizes=[100] * 20, per_minute=100, start="together")
@example(sizes=[1, 1, 1, 38, 81], per_minute=10, start="together")
@example(sizes=[399, 2, 2, 2, 2, 399], per_minute=100, start="new")
def test_no_proof_gets_too_old_while_the_quota_permits_it(sizes: list[int], per_minute: int, start: str) -> None:
    budget = math.floor(POLICY.share * per_minute * 5)
    ages = live(sizes, per_minute, POLICY, until=timedelta(hours=6), since=timedelta(hours=2), start=start)
    if rotation_syncs(sizes, budget) * POLICY.cadence <= POLICY.proof_age:
        assert max(ages) <= POLICY.proof_age / MINUTE


@pytest.mark.soak
@given(sizes=SIZES, per_minute=st.integers(2, 20))
def test_every_part_is_proven_within_the_forecast_whatever_the_quota(sizes: list[int], per_minute: int) -> None:
    budget = math.floor(POLICY.share * per_minute * 5)
    within = max(rotation_syncs(sizes, budget) * POLICY.cadence, POLICY.proof_age)
    ages = live(sizes, per_minute, POLICY, until=7 * within, since=3 * within, start="new")
    assert max(ages) <= within / MINUTE


@given(sizes=SIZES, budget=st.integers(1, 400))
def test_a_rotation_is_no_shorter_than_its_calls_and_about_twice_as_long_at_most(sizes: list[int], budget: int) -> None:
    syncs = rotation_syncs(sizes, budget)
    assert syncs >= math.ceil(sum(sizes) / budget)
    largest = max(1, math.ceil(max(sizes) / budget))
    assert syncs <= 2 * math.ceil(sum(sizes) / budget) + len([size for size in sizes if size > budget]) + largest + 1
    assert rotation_syncs(sizes, 0) > 10_000
