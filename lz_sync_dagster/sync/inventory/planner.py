"""Decides what a sync of the inventory reads: each part in full, by delta, or not at all, and why. Pure.

A *full* read proves a part: what is there, and what is gone. A *delta* read looks only for what changed; it proves
nothing. Within the budget of a sync everything is read in full. An estate that is larger is proven in rotation: the
oldest proof first, an even share in each sync, so that no proof gets older than `Policy.proof_age`; when that age is
in danger (a quota was throttled, reads failed), a sync uses its whole budget. If the quota does not permit the age at
all, the plan says so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from lz_sync_dagster.config import ApiSyncConfig
from lz_sync_dagster.sync.inventory.types import PROJECT
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.store.quota import Quota, QuotaUsage
from lz_sync_dagster.sync.timing import from_ns, to_ns

_MINUTE = timedelta(minutes=1)
#: Cloud Asset keeps histories for 35 days; a delta that would begin earlier is none.
_LONGEST_DELTA = timedelta(days=34)
#: How many syncs a rotation is ahead of its deadline before a sync uses its whole budget.
_MARGIN = 2
#: Syncs of a rotation that does not end.
_FOREVER = 1_000_000
_BY_EXPORT = "exports prove it"


class Mode(StrEnum):
    """How a part is read in a sync."""

    FULL = "full"
    DELTA = "delta"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the planner goes by.

    Attributes:
        proof_age: every part is to be proven by a full read that is not older.
        cadence: how often a sync begins.
        share: of the quota that a sync may plan to use.
        overlap: how much further back than the last read a delta read looks: searches lag behind.
        page_size: assets of a page of a full read.
        quarantine: how long a type that the inventory does not know is left alone.
        export_every: how often exports prove their parts.
    """

    proof_age: timedelta = timedelta(minutes=60)
    cadence: timedelta = timedelta(minutes=5)
    share: float = 0.8
    overlap: timedelta = timedelta(minutes=10)
    page_size: int = 1000
    quarantine: timedelta = timedelta(hours=24)
    export_every: timedelta = timedelta(minutes=30)


def policy_of(config: ApiSyncConfig) -> Policy:
    """The policy that the configuration asks for."""
    return Policy(
        proof_age=timedelta(minutes=config.proof_age_minutes),
        cadence=timedelta(minutes=config.frequency_minutes),
        share=config.quota_share,
        overlap=timedelta(minutes=config.delta_overlap_minutes),
        page_size=config.page_size,
        quarantine=timedelta(hours=config.unknown_type_retry_hours),
        export_every=timedelta(minutes=config.bulk.every_minutes),
    )


def quotas_of(config: ApiSyncConfig) -> dict[Quota, int]:
    """Calls per minute that the configuration allows of each quota."""
    return {quota: getattr(config.quotas, quota.value) for quota in Quota}


@dataclass(frozen=True, slots=True)
class FullRead:
    """A part to be read in full; ``calls``: how many it is expected to take."""

    part: Part
    calls: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeltaRead:
    """Types of one scope to be searched for what changed since ``since_ns`` (the overlap is in it)."""

    scope: str
    asset_types: tuple[str, ...]
    since_ns: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that it covers."""
        return tuple((self.scope, asset_type, ContentType.RESOURCE.value) for asset_type in self.asset_types)


@dataclass(frozen=True, slots=True)
class Skip:
    """A part that is not read, the reason in words, and until when that holds (``None``: the next sync decides)."""

    part: Part
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What a sync reads, in order.

    Attributes:
        calls: calls that the plan is expected to take, by quota.
        budget: calls that this sync may plan to use, by quota.
        minutes: how long these calls take at the quota's pace, waits included; 0 if the quota has room for all.
        rotation_minutes: within how many minutes each part is proven once, at most.
        proof_age_attainable: whether that is within the policy's age.
    """

    full: tuple[FullRead, ...]
    deltas: tuple[DeltaRead, ...]
    skipped: tuple[Skip, ...]
    calls: Mapping[Quota, int]
    budget: Mapping[Quota, int]
    minutes: float
    rotation_minutes: float
    proof_age_attainable: bool

    @property
    def modes(self) -> dict[Part, Mode]:
        """How each part is read."""
        return {
            **{skip.part: Mode.SKIP for skip in self.skipped},
            **{part: Mode.DELTA for delta in self.deltas for part in delta.parts},
            **{read.part: Mode.FULL for read in self.full},
        }


@dataclass
class _Draft:
    """A plan in the making."""

    budget: int
    full: dict[Part, FullRead] = field(default_factory=dict)
    used: int = 0

    def add(self, state: PartState, calls: int, reason: str) -> bool:
        """Take a full read into the plan if the budget has room, or if it is the first: a sync always goes on."""
        if self.budget == 0 or (self.full and self.used + calls > self.budget):
            return False
        self.full[state.part] = FullRead(state.part, calls, reason)
        self.used += calls
        return True


def plan_reads(
    states: Sequence[PartState],
    *,
    now: datetime,
    budgets: Mapping[Quota, QuotaUsage],
    policy: Policy,
    everything: bool = False,
    exported: Collection[Part] = frozenset(),
) -> ReadPlan:
    """Choose between full, delta and skip for each part.

    Args:
        states: one per part of the configuration, in its order.
        budgets: the quotas as they are now; `Quota.LIST_ASSETS` and those of delta reads.
        everything: read all parts in full, whatever the budget, and those of unknown types, too: somebody asked for it.
        exported: parts that exports prove: they are not read in full here, and cost nothing of the budget.
    """
    budget = {quota: _budget(budgets.get(quota), policy, now) for quota in Quota}
    listed = [state for state in states if state.part not in exported]
    calls = {state.part: expected_calls(state, policy.page_size) for state in listed}
    fits = sum(calls.values()) <= budget[Quota.LIST_ASSETS]
    waiting = {
        state.part: skip
        for state in listed
        if not everything and (skip := _must_wait(state, policy, now, at_once=fits)) is not None
    }
    able = [state for state in listed if state.part not in waiting]
    total = sum(calls[state.part] for state in able)
    if everything:
        draft = _Draft(total)
        for state in able:
            draft.add(state, calls[state.part], "everything was asked for")
    elif total <= budget[Quota.LIST_ASSETS]:
        draft = _Draft(total)
        for state in able:
            draft.add(state, calls[state.part], "everything fits into the budget of this sync")
    else:
        draft = _rotate(able, calls, budget[Quota.LIST_ASSETS], policy, now)
    deltas = _deltas([state for state in states if state.part not in draft.full], budget, policy, now)
    covered = {part for delta in deltas for part in delta.parts}
    skipped = tuple(
        waiting.get(state.part)
        or (Skip(state.part, _BY_EXPORT) if state.part in exported else _not_due(state, budget, policy, now))
        for state in states
        if state.part not in draft.full and state.part not in covered
    )
    needed = {
        Quota.LIST_ASSETS: draft.used,
        Quota.SEARCH_ALL_RESOURCES: len(deltas),
        Quota.BATCH_GET_ASSETS_HISTORY: len(deltas),
    }
    syncs = rotation_syncs([calls[state.part] for state in able], _budget_at_rest(budgets, policy))
    rotation = max(policy.cadence * min(syncs, _FOREVER), policy.export_every if exported else timedelta(0))
    return ReadPlan(
        full=tuple(sorted(draft.full.values(), key=lambda read: not _tells_project_ids(read.part))),
        deltas=deltas,
        skipped=skipped,
        calls=needed,
        budget=budget,
        minutes=max((_minutes(number, budgets.get(quota), now) for quota, number in needed.items()), default=0.0),
        rotation_minutes=rotation / _MINUTE,
        proof_age_attainable=rotation <= policy.proof_age,
    )


def expected_calls(state: PartState, page_size: int) -> int:
    """Calls that a full read of a part takes: what the last one took, more if the part has grown."""
    pages = math.ceil((state.assets or 0) / page_size)
    return max(1, state.full_calls or 0, pages)


def retry_at(failures: int, failed_at: datetime, policy: Policy) -> datetime:
    """When a part whose full read failed is tried again: the first time at once, then after 1, 3, 7 … cadences, and
    always within the proof age."""
    waits = min((1 << min(failures - 1, 30)) - 1, max(1, policy.proof_age // policy.cadence))
    return failed_at + policy.cadence * waits


def rotation_syncs(sizes: Iterable[int], budget: int) -> int:
    """How many syncs pass at most between two full reads of any part, if each sync takes the parts that fit into its
    budget, the oldest proof first.

    The part that waits is kept out of a sync only by older ones that fill it up to less than a part's size, or up to
    half; a part that is larger than the budget has syncs of its own.
    """
    if budget <= 0:
        return _FOREVER
    small: list[int] = []
    large: list[int] = []
    for size in sizes:
        (small if size <= budget else large).append(size)
    syncs = 0
    if small:
        total, largest = sum(small), max(small)
        bounds = [math.floor(2 * total / budget) + 1]
        if largest < budget:
            bounds.append(math.floor(total / (budget - largest)) + 1)
        syncs = 1 if total <= budget and not large else min(*bounds, len(small))
    own = [math.ceil(size / budget) for size in large]
    return syncs + sum(own) + max(own, default=0)


# --- the rotation -----------------------------------------------------------------------------------------------------


def _rotate(able: list[PartState], calls: Mapping[Part, int], budget: int, policy: Policy, now: datetime) -> _Draft:
    """Full reads of a sync that cannot read everything: what was never read; then, if a deadline presses, all that the
    budget holds, the oldest proof first; then what one more read settles; then an even share of the rotation."""
    draft = _Draft(budget)
    for state in able:
        if state.complete_read_ns is None:
            draft.add(state, calls[state.part], "it was never read completely")
    proven = sorted(
        (state for state in able if state.complete_read_ns is not None), key=lambda state: state.complete_read_ns or 0
    )
    total = sum(calls[state.part] for state in proven)
    if proven and _presses(proven, calls, draft, policy, now):
        for state in proven:
            draft.add(state, calls[state.part], f"its proof is {_age(state, now)} old, among the oldest")
        return draft
    for state in proven:
        if state.missing_once:
            draft.add(state, calls[state.part], "an asset was missing once; a second read settles it")
    syncs = max(1, policy.proof_age // policy.cadence - _MARGIN)
    target, rotated = math.ceil(total / syncs), 0
    for state in proven:
        if rotated >= target:
            break
        if state.part in draft.full or draft.add(
            state, calls[state.part], f"its turn in the rotation: its proof is {_age(state, now)} old"
        ):
            rotated += calls[state.part]
    return draft


def _presses(proven: list[PartState], calls: Mapping[Part, int], draft: _Draft, policy: Policy, now: datetime) -> bool:
    """Whether some proof gets too old if this sync does less than it can: try the next syncs, each with all its budget,
    and see how many syncs before its deadline a part is proven. One whose reads fail has lost its deadline; haste does
    not help it."""
    if draft.budget == 0:
        return False
    longest = max(math.ceil(calls[state.part] / draft.budget) for state in proven)
    margin = _MARGIN + longest - 1  # the sync after one that takes several cadences comes late
    left, sync, used, any_taken = list(proven), 0, draft.used, bool(draft.full)
    while left:
        later: list[PartState] = []
        for state in left:
            size = calls[state.part]
            if any_taken and used + size > draft.budget:
                later.append(state)
                continue
            any_taken, used = True, used + size
            done = sync + max(1, math.ceil(used / draft.budget)) - 1
            if state.failures:
                continue
            deadline = from_ns(state.complete_read_ns or 0) + policy.proof_age
            if (deadline - now) // policy.cadence - done < margin:
                return True
        sync += max(1, math.ceil(used / draft.budget))
        left, used, any_taken = later, 0, False
    return False


def _budget(usage: QuotaUsage | None, policy: Policy, now: datetime) -> int:
    """Calls that a sync may plan to use of a quota until the next one begins; at least 1 unless it is blocked until
    then."""
    if usage is None:
        return 0
    time = policy.cadence
    if usage.blocked_until is not None:
        time -= max(timedelta(0), usage.blocked_until - now)
    if time <= timedelta(0):
        return 0
    return max(1, math.floor(policy.share * usage.limit * (time / _MINUTE)))


def _budget_at_rest(budgets: Mapping[Quota, QuotaUsage], policy: Policy) -> int:
    """The same for full reads while nobody is blocked."""
    usage = budgets.get(Quota.LIST_ASSETS)
    return 0 if usage is None else max(1, math.floor(policy.share * usage.limit * (policy.cadence / _MINUTE)))


def _minutes(calls: int, usage: QuotaUsage | None, now: datetime) -> float:
    """How long calls take at a quota's pace."""
    if usage is None or calls == 0:
        return 0.0
    blocked = max(timedelta(0), usage.blocked_until - now) if usage.blocked_until is not None else timedelta(0)
    left = usage.limit if blocked else usage.left
    return blocked / _MINUTE + max(0, calls - left) / usage.limit


# --- what is not read in full -----------------------------------------------------------------------------------------


def _must_wait(state: PartState, policy: Policy, now: datetime, *, at_once: bool) -> Skip | None:
    """Why a part is not to be read in full now. Where calls are plenty, one that failed is tried in each sync."""
    if state.quarantined_until is not None and state.quarantined_until > now:
        reason = f"the inventory does not know the type; it is asked again at {_clock(state.quarantined_until)}"
        return Skip(state.part, reason, state.quarantined_until)
    if state.failures and state.failed_at is not None and not at_once:
        again = retry_at(state.failures, state.failed_at, policy)
        if again > now:
            times = "once" if state.failures == 1 else f"{state.failures} times in a row"
            return Skip(state.part, f"it failed {times}; it is tried again at {_clock(again)}", again)
    return None


def _deltas(
    states: Sequence[PartState], budget: Mapping[Quota, int], policy: Policy, now: datetime
) -> tuple[DeltaRead, ...]:
    """One delta read per scope, as far as the quotas of searches and histories have room for it."""
    since: dict[str, dict[str, int]] = {}
    for state in states:
        begin = _delta_begin(state, now)
        if begin is not None:
            since.setdefault(state.part[0], {})[state.part[1]] = begin
    room = min(budget[Quota.SEARCH_ALL_RESOURCES], budget[Quota.BATCH_GET_ASSETS_HISTORY])
    overlap = policy.overlap // timedelta(microseconds=1) * 1000
    oldest_first = sorted(since.items(), key=lambda item: min(item[1].values()))
    return tuple(DeltaRead(scope, tuple(types), min(types.values()) - overlap) for scope, types in oldest_first[:room])


def _delta_begin(state: PartState, now: datetime) -> int | None:
    """Since when a delta read of a part has to look, without overlap; ``None`` if it cannot be read so."""
    if state.part[2] != ContentType.RESOURCE or state.complete_read_ns is None:
        return None
    if state.quarantined_until is not None and state.quarantined_until > now:
        return None
    begin = max(state.complete_read_ns, state.delta_read_ns or 0)
    return begin if begin > to_ns(now - _LONGEST_DELTA) else None


def _not_due(state: PartState, budget: Mapping[Quota, int], policy: Policy, now: datetime) -> Skip:
    if budget[Quota.LIST_ASSETS] == 0:
        return Skip(state.part, "the quota of full reads is blocked until the next sync")
    if state.complete_read_ns is None:
        return Skip(state.part, "it was never read, and the budget of this sync is used up by others")
    due = from_ns(state.complete_read_ns) + policy.proof_age
    if due <= now:
        return Skip(state.part, f"its proof is {_age(state, now)} old, but the budget of this sync is used up", None)
    if state.part[2] == ContentType.RESOURCE:
        return Skip(state.part, "no quota is left for searches", None)
    reason = (
        f"a search does not tell when it changed; it is proven again by {_clock(due)}, the feed covers it meanwhile"
    )
    return Skip(state.part, reason, due)


def _tells_project_ids(part: Part) -> bool:
    return part[1] == PROJECT and part[2] == ContentType.RESOURCE


def _age(state: PartState, now: datetime) -> str:
    minutes = math.floor((now - from_ns(state.complete_read_ns or 0)) / _MINUTE)
    return f"{minutes} min"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
