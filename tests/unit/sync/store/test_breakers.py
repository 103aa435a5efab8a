"""What vanished at once waits for a person, who confirms what they looked at, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import CoverageStatus, EventType, Status
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, attempt
from lz_sync_dagster.sync.state.observation import Observation, Source, observe
from lz_sync_dagster.sync.state.reducer import Breaker
from lz_sync_dagster.sync.store import (
    Store,
    alerts,
    assets,
    audit,
    breakers,
    coverage,
    event_log,
    findings,
    inbox,
    layer_runs,
    reads,
)
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.reads import ReadResult
from lz_sync_dagster.sync.store.schema import breaker_losses, resources, snapshots
from lz_sync_dagster.sync.store.schema import breakers as breakers_table
from lz_sync_dagster.sync.timing import from_ns, to_ns
from tests.conftest import NOW, SteppedClock

SCOPE, TYPE = "organizations/1", "compute.googleapis.com/Firewall"
PART = (SCOPE, TYPE, "RESOURCE")
BREAKER = Breaker(share=0.2, minimum=5)
SECOND = 1_000_000_000
MINUTE = timedelta(minutes=1)


def name(number: int) -> str:
    return f"//n/{number:03}"


def names(numbers: range) -> list[str]:
    return [name(number) for number in numbers]


def seen(number: int, at: int) -> Observation:
    body = {"name": name(number), "assetType": TYPE, "resource": {"data": {"number": number}}}
    return observe(body, scope=SCOPE, observed_ns=at, source=Source.SNAPSHOT)


def judge(asset_type, content_type, resource, data) -> list[Verdict]:
    return [Verdict("3.6", "cis-v1.2", "No open ports", "high", "cis", Outcome.FAIL, f"{resource} is open")]


class Reader:
    """Reads that show what they are told to, a minute apart."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = SteppedClock()

    def read(self, numbers: range, *, before_the_end: Callable[[], object] = lambda: None) -> ReadResult:
        read_ns = to_ns(self.clock.advance(MINUTE))
        with self.store.read() as connection:
            base = reads.base_of(connection, PART)
        with self.store.write(exclusive=assets.LOCK) as connection:
            shown = [seen(number, read_ns) for number in numbers]
            assets.apply(connection, shown, layer=LayerId.API, now=self.clock(), evaluate=judge, announce=False)
        before_the_end()
        return reads.finish_read(
            self.store,
            base,
            read_ns=read_ns,
            names=set(names(numbers)),
            total=len(numbers),
            layer=LayerId.API,
            clock=self.clock,
            breaker=BREAKER,
        )

    def waiting(self) -> breakers.OpenBreaker:
        with self.store.read() as connection:
            return breakers.find(connection, PART)

    def confirm(self, fingerprint: str | None = None, limit: int | None = None) -> reads.Confirmation:
        return reads.confirm_losses(
            self.store,
            PART,
            fingerprint=fingerprint or self.waiting().fingerprint,
            actor="cli:ada",
            clock=self.clock,
            limit=limit,
        )


@pytest.fixture
def reader(store: Store) -> Reader:
    """Ten assets were there; six of them are gone by two reads in a row."""
    reader = Reader(store)
    reader.read(range(10))
    reader.read(range(4))
    assert reader.read(range(4)).withheld
    return reader


def existing(store: Store) -> list[str]:
    with store.read() as connection:
        query = sa.select(resources.c.name).where(resources.c.deleted.is_(False)).order_by(resources.c.name)
        return list(connection.scalars(query))


def known(store: Store, now: datetime) -> tuple[CoverageStatus, Reason | None]:
    with store.read() as connection:
        found = coverage.summary(connection, now=now, ttl=timedelta(hours=1))
    return found.status, found.gaps[0].reason if found.gaps else None


def open_alerts(store: Store) -> list[str]:
    with store.read() as connection:
        return [str(row.subject) for row in alerts.open_alerts(connection)]


def test_until_a_person_confirms_nothing_is_deleted_and_coverage_says_so(reader: Reader) -> None:
    store = reader.store
    assert existing(store) == names(range(10))
    assert open_alerts(store) == ["/".join(PART)]
    assert known(store, reader.clock()) == (CoverageStatus.PARTIAL, Reason.BREAKER_OPEN)
    waiting = reader.waiting()
    assert (waiting.known, waiting.lost) == (10, 6)
    with store.read() as connection:
        assert breakers.losses(connection, PART, limit=4) == names(range(4, 8))
        assert breakers.losses(connection, PART, limit=4, after=name(7)) == names(range(8, 10))


def test_a_confirmation_deletes_with_events_findings_alert_coverage_and_audit(reader: Reader) -> None:
    store = reader.store
    done = reader.confirm()
    assert (done.lost, done.deleted, done.remaining) == (6, 6, 0)
    assert existing(store) == names(range(4))
    assert open_alerts(store) == []
    assert known(store, reader.clock()) == (CoverageStatus.COMPLETE, None)
    with store.read() as connection:
        frames = event_log.after(connection, 0, limit=100)
        assert findings.count_open(connection) == 4
        [line] = audit.recent(connection, limit=5)
        [request] = inbox.pending(connection, LayerId.API)
        assert breakers.open_breakers(connection) == []
        assert connection.execute(sa.select(breakers_table)).all() == []
    deleted = [frame for frame in frames if frame.event_type is EventType.RESOURCE_DELETED]
    assert [frame.resource["name"] for frame in deleted if frame.resource] == names(range(4, 10))
    assert [frame.event_type for frame in frames].count(EventType.POLICY_RESOLVED) == 6
    assert (line.actor, line.action, line.target) == ("cli:ada", "confirm_deletions", "/".join(PART))
    assert (line.details["known"], line.details["lost"]) == (10, 6)
    assert (request.event, request.actor) == ("breaker_confirmed", "cli:ada")


def test_what_comes_after_a_confirmation_is_an_ordinary_read(reader: Reader) -> None:
    reader.confirm()
    result = reader.read(range(4))
    assert (result.withheld, result.deleted, result.lost) == (False, 0, 0)
    assert existing(reader.store) == names(range(4))


def test_what_was_seen_again_meanwhile_is_not_deleted(reader: Reader) -> None:
    with reader.store.write(exclusive=assets.LOCK) as connection:
        again = seen(7, to_ns(reader.clock.advance(MINUTE)))
        assets.apply(connection, [again], layer=LayerId.PUBSUB, now=NOW, evaluate=judge)
    done = reader.confirm()
    assert (done.lost, done.deleted) == (6, 5)
    assert name(7) in existing(reader.store)


def test_a_later_read_that_lacks_the_same_changes_nothing_for_who_looked(reader: Reader) -> None:
    looked_at = reader.waiting()
    reader.read(range(4))
    renewed = reader.waiting()
    assert renewed.read_ns > looked_at.read_ns
    assert (renewed.fingerprint, renewed.opened_at) == (looked_at.fingerprint, looked_at.opened_at)
    assert reader.confirm(looked_at.fingerprint).deleted == 6


def test_a_confirmation_of_something_else_than_what_waits_is_refused(reader: Reader) -> None:
    looked_at = reader.waiting()
    assert reader.read(range(5)).withheld
    with pytest.raises(SyncError, match=r"has changed since you looked: now 5 of 10 assets.*look again with") as error:
        reader.confirm(looked_at.fingerprint)
    assert error.value.reason is Reason.CONFLICT
    assert existing(reader.store) == names(range(10))
    assert open_alerts(reader.store) == ["/".join(PART)]


def test_as_many_others_are_something_else_too(reader: Reader) -> None:
    looked_at = reader.waiting()
    reader.read(range(10))
    reader.read(range(1, 5))
    reader.read(range(1, 5))
    assert reader.waiting().lost == looked_at.lost
    with pytest.raises(SyncError, match="has changed since you looked"):
        reader.confirm(looked_at.fingerprint)


def test_what_came_back_closes_the_breaker_and_nothing_is_left_to_confirm(reader: Reader) -> None:
    looked_at = reader.waiting()
    assert not reader.read(range(10)).withheld
    assert open_alerts(reader.store) == []
    with pytest.raises(SyncError, match="no deletions wait for a confirmation") as error:
        reader.confirm(looked_at.fingerprint)
    assert error.value.reason is Reason.NOT_FOUND
    assert existing(reader.store) == names(range(10))


def test_a_confirmation_while_a_sync_looks_holds(reader: Reader) -> None:
    """The sync read before the confirmation and draws its conclusions after it."""
    result = reader.read(range(4), before_the_end=reader.confirm)
    assert not result.withheld
    assert existing(reader.store) == names(range(4))
    assert open_alerts(reader.store) == []
    assert known(reader.store, reader.clock()) == (CoverageStatus.COMPLETE, None)


def test_a_confirmation_between_a_syncs_look_and_its_write_holds(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclusions, calls = reads._conclusions, []

    def and_then_somebody_confirms(*args):
        found = conclusions(*args)
        calls.append(1)
        if len(calls) == 1:
            reader.confirm(limit=0)
        return found

    monkeypatch.setattr(reads, "_conclusions", and_then_somebody_confirms)
    result = reader.read(range(4))
    assert (result.withheld, result.deleted, len(calls)) == (False, 6, 2)
    assert existing(reader.store) == names(range(4))
    assert open_alerts(reader.store) == []


@pytest.mark.parametrize("done_before_the_kill", [0, 2])
def test_the_next_sync_makes_what_a_killed_process_left(
    reader: Reader, done_before_the_kill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "_CHUNK", 2)
    done = reader.confirm(limit=done_before_the_kill)
    assert (done.deleted, done.remaining) == (done_before_the_kill, 6 - done_before_the_kill)
    with reader.store.read() as connection:
        assert breakers.open_breakers(connection) == [], "it does not wait for a person any more"
    with pytest.raises(SyncError, match="no deletions wait"):
        reader.waiting()
    result = reader.read(range(4))
    assert (result.withheld, result.deleted) == (False, 6 - done_before_the_kill)
    assert existing(reader.store) == names(range(4))
    with reader.store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(breaker_losses)) == 0
        assert connection.execute(sa.select(breakers_table)).all() == []


def test_a_gap_that_came_after_the_breaker_stays_a_gap(reader: Reader) -> None:
    with reader.store.write() as connection:
        denied = CoverageMark(*PART, CoverageStatus.PARTIAL, Reason.PERMISSION_DENIED, "no", "grant a role")
        coverage.mark(connection, [denied], now=reader.clock())
    reader.confirm()
    assert known(reader.store, reader.clock()) == (CoverageStatus.PARTIAL, Reason.PERMISSION_DENIED)


def test_the_withheld_read_counts_once(reader: Reader) -> None:
    read_ns = reader.waiting().read_ns
    reader.confirm()
    with reader.store.read() as connection:
        rows = connection.execute(sa.select(snapshots.c.complete).where(snapshots.c.read_ns == read_ns))
        assert list(rows.scalars()) == [True]


# --- the layer's status -----------------------------------------------------------------------------------------------


def sync_with(reader: Reader, *errors: str) -> None:
    def work(_: LayerRun) -> LayerOutcome:
        return LayerOutcome(10, 0, from_ns(reader.waiting().read_ns), Status.PARTIAL, errors)

    attempt(reader.store, LayerId.API, work, triggered_by="test", clock=reader.clock, holder="elsewhere:1:a")


def layer(reader: Reader):
    with reader.store.read() as connection:
        found = layer_runs.statuses(connection, now=reader.clock())
    return next(status for status in found if status.layer is LayerId.API)


def test_a_layer_that_only_the_breaker_kept_from_success_succeeds(reader: Reader) -> None:
    sync_with(reader, str(breakers.waiting(PART, known=10, lost=6)))
    assert layer(reader).status is Status.PARTIAL
    reader.confirm()
    status = layer(reader)
    assert (status.status, status.errors, status.items_synced) == (Status.SUCCESS, [], 4)
    assert status.coverage.status is CoverageStatus.COMPLETE
    with reader.store.read() as connection:
        frames = event_log.after(connection, 0, limit=100)
    assert frames[-1].event_type is EventType.SYNC_STATUS
    assert frames[-1].data["status"] == "success"


def test_other_errors_of_the_layer_stay(reader: Reader) -> None:
    sync_with(reader, str(breakers.waiting(PART, known=10, lost=6)), "something else")
    reader.confirm()
    assert (layer(reader).status, layer(reader).errors) == (Status.PARTIAL, ["something else"])


def test_the_status_of_a_sync_under_way_is_its_own(reader: Reader) -> None:
    def work(_: LayerRun) -> LayerOutcome:
        reader.confirm()
        return LayerOutcome(4, 0, NOW)

    attempt(reader.store, LayerId.API, work, triggered_by="test", clock=reader.clock, holder="elsewhere:1:a")
    assert layer(reader).status is Status.SUCCESS


# --- the audit log ----------------------------------------------------------------------------------------------------


def test_refusals_are_written_down_within_bounds(store: Store, clock: SteppedClock) -> None:
    def refuse() -> bool:
        return audit.record_refusal(
            store, actor="api:unknown", action="confirm_deletions", target="x\0" * 2000, details={}, now=clock()
        )

    assert [refuse() for _ in range(audit.REFUSALS_PER_HOUR + 2)] == [True] * audit.REFUSALS_PER_HOUR + [False] * 2
    clock.advance(timedelta(hours=1))
    assert refuse()
    with store.read() as connection:
        lines = audit.recent(connection, limit=3)
        assert [line.id for line in audit.recent(connection, limit=2, before=lines[0].id)] == [
            lines[1].id,
            lines[2].id,
        ]
    assert (lines[0].action, lines[0].details) == ("refused", {"action": "confirm_deletions"})


def test_of_several_who_confirm_at_once_one_does(reader: Reader) -> None:
    looked_at = reader.waiting()

    def confirm(_: int) -> reads.Confirmation | SyncError:
        try:
            return reader.confirm(looked_at.fingerprint)
        except SyncError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(confirm, range(4)))
    assert len([answer for answer in answers if isinstance(answer, reads.Confirmation)]) == 1
    assert existing(reader.store) == names(range(4))
    with reader.store.read() as connection:
        assert len(audit.recent(connection, limit=10, action="confirm_deletions")) == 1
