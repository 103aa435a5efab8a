"""A batch of messages, and the store after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.events.handler import BatchResult, ReceivedMessage, figures, handle_batch
from lz_sync_dagster.sync.models import EventType
from lz_sync_dagster.sync.store import Store, dead_letters, event_log, feed_freshness, messages
from lz_sync_dagster.sync.store.messages import MessageOutcome
from lz_sync_dagster.sync.store.schema import counters, findings, handled_messages, metadata, resources
from lz_sync_dagster.sync.timing import from_ns, to_ns
from tests.conftest import NOW, SOAK, SteppedClock

SUBSCRIPTION = "projects/ops/subscriptions/s"
FIREWALL = "compute.googleapis.com/Firewall"
WELCOME = b"You have successfully configured a feed. Feed name: f"


def evaluate(asset_type: str, content_type: str, name: str, data: Mapping[str, Any]) -> list[Verdict]:
    if data.get("broken"):
        raise TypeError("cannot judge this")
    outcome = Outcome.FAIL if "0.0.0.0/0" in data.get("sourceRanges", ()) else Outcome.PASS
    return [Verdict("3.6", "cis", "SSH is closed", "high", "cis", outcome, "open to the internet")]


def temporal(
    name: str, minute: int, *, ranges: Sequence[str] = ("10.0.0.0/8",), deleted: bool = False, **data: Any
) -> bytes:
    at = (NOW - timedelta(hours=2) + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")
    asset: dict[str, Any] = {
        "name": f"//compute.googleapis.com/projects/p/global/firewalls/{name}",
        "assetType": FIREWALL,
        "ancestors": ["projects/1", "organizations/3"],
    }
    content = {"resource": {"data": {"id": name, "name": name, "sourceRanges": list(ranges), **data}}}
    if deleted:
        return orjson.dumps(
            {"asset": asset, "deleted": True, "window": {"startTime": at}, "priorAsset": asset | content}
        )
    return orjson.dumps({"asset": asset | content | {"updateTime": at}, "window": {"startTime": at}})


def received(*bodies: bytes, first: int = 1) -> list[ReceivedMessage]:
    return [ReceivedMessage(str(number), body, NOW) for number, body in enumerate(bodies, first)]


def handle(store: Store, batch: Sequence[ReceivedMessage]) -> BatchResult:
    return handle_batch(store, SUBSCRIPTION, batch, scopes=["organizations/3"], evaluate=evaluate, clock=SteppedClock())


def state(store: Store) -> list[tuple[Any, ...]]:
    """What the store holds, without when it learned it. Of what is deleted only the tombstone counts."""
    r = resources.c
    resource_id = sa.case((r.deleted, None), else_=r.resource_id).label("resource_id")
    columns = [r.name, r.content_type, r.scope, r.deleted, resource_id, r.update_ns, r.observed_ns, r.digest]
    with store.read() as connection:
        rows = connection.execute(sa.select(*columns, r.controls_failed).order_by(r.name, r.content_type)).all()
        still_open = connection.execute(
            sa.select(findings.c.control, findings.c.resource)
            .where(findings.c.resolved_at.is_(None))
            .order_by(findings.c.control, findings.c.resource)
        ).all()
    return [tuple(row) for row in [*rows, *still_open]]


def event_types(store: Store) -> list[EventType]:
    with store.read() as connection:
        return [frame.event_type for frame in event_log.after(connection, 0, limit=100)]


def outcomes(store: Store) -> dict[MessageOutcome, int]:
    with store.read() as connection:
        return messages.counts(connection, SUBSCRIPTION)


def test_a_batch_becomes_state_findings_and_events(store: Store) -> None:
    result = handle(store, received(temporal("a", 0), temporal("b", 0, ranges=["0.0.0.0/0"])))
    assert (result.messages, result.observed, result.applied, result.state.created) == (2, 2, 2, 2)
    assert sorted(event_types(store)) == sorted([*[EventType.RESOURCE_CREATED] * 2, EventType.POLICY_VIOLATED])
    assert outcomes(store) == {MessageOutcome.OBSERVED: 2, MessageOutcome.WELCOME: 0, MessageOutcome.DEAD: 0}


def test_a_redelivered_message_changes_nothing(store: Store) -> None:
    batch = received(temporal("a", 0), WELCOME, b"not json")
    handle(store, batch)
    before, log = state(store), event_types(store)
    again = handle(store, batch)
    assert (again.duplicates, again.handled, again.applied) == (3, 0, 0)
    assert (state(store), event_types(store)) == (before, log)


def test_how_late_messages_were_is_counted_once(store: Store) -> None:
    batch = received(temporal("a", 0), temporal("b", 119), WELCOME, b"not json")
    handle(store, batch)
    handle(store, batch)
    with store.read() as connection:
        [kind] = feed_freshness.over(connection, since=NOW)
    assert (kind.asset_type, kind.delivered, kind.missed) == (FIREWALL, 2, 0)
    assert kind.source_delays == {"later": 1, "60000": 1}
    assert kind.own_delays == {"50": 2}


def test_a_message_that_comes_twice_in_a_batch_is_handled_once(store: Store) -> None:
    (message,) = received(temporal("a", 0))
    result = handle(store, [message, message])
    assert (result.observed, result.duplicates) == (1, 1)


def test_the_same_version_under_another_id_changes_nothing(store: Store) -> None:
    handle(store, received(temporal("a", 0)))
    log = event_types(store)
    again = handle(store, received(temporal("a", 0), first=9))
    assert (again.observed, again.applied, again.state.unchanged) == (1, 0, 1)
    assert event_types(store) == log


def test_an_older_version_that_comes_late_changes_nothing(store: Store) -> None:
    handle(store, received(temporal("a", 5)))
    before = state(store)
    late = handle(store, received(temporal("a", 1, ranges=["0.0.0.0/0"]), first=2))
    assert (late.applied, state(store)) == (0, before)


def test_a_change_that_comes_after_the_deletion_it_preceded_revives_nothing(store: Store) -> None:
    handle(store, received(temporal("a", 0), temporal("a", 9, deleted=True)))
    handle(store, received(temporal("a", 4), first=5))
    assert state(store)[0][3] is True


def test_bad_messages_are_counted_and_kept_and_the_rest_is_applied(store: Store) -> None:
    nameless = orjson.dumps(
        {"asset": {"assetType": FIREWALL, "resource": {"data": {"id": "1"}}, "updateTime": "2026-01-01T00:00:00Z"}}
    )
    result = handle(store, received(b"not json", nameless, temporal("a", 0)))
    assert (result.dead, result.observed, result.applied) == (2, 1, 1)
    with store.read() as connection:
        kept = {row.key: row for row in dead_letters.newest(connection, limit=10, layer=LayerId.PUBSUB)}
        assert dead_letters.counts(connection) == {LayerId.PUBSUB: 2}
    assert "is not JSON" in kept["1"].reason
    assert "has no name" in kept["2"].reason
    assert kept["1"].payload.endswith("beginning with: not json")
    assert kept["1"].origin == SUBSCRIPTION


def test_dead_letters_are_cut_and_carry_no_secrets(store: Store) -> None:
    secret = "ghp_" + "a1B2" * 9
    large = orjson.dumps({"note": f"token {secret}", "other": "x" * 100_000})
    handle(store, received(large, b"nul \x00 here"))
    with store.read() as connection:
        second, first = dead_letters.newest(connection, limit=10)
    assert secret not in first.payload
    assert len(first.payload) == dead_letters.PAYLOAD_CAP
    assert "\x00" not in second.payload


def test_a_welcome_is_handled_and_is_no_dead_letter(store: Store) -> None:
    result = handle(store, received(WELCOME))
    assert (result.welcome, result.dead) == (1, 0)
    assert outcomes(store)[MessageOutcome.WELCOME] == 1
    assert event_types(store) == []


@pytest.mark.parametrize("poison", [{"broken": True}], ids=["a defect in a control"])
def test_one_message_that_cannot_be_stored_does_not_hold_up_the_others(store: Store, poison: dict[str, Any]) -> None:
    bodies = [temporal("a", 0), temporal("b", 0), temporal("bad", 0, **poison), temporal("c", 0)]
    result = handle(store, received(*bodies))
    assert (result.observed, result.dead, result.applied) == (3, 1, 3)
    with store.read() as connection:
        (letter,) = dead_letters.newest(connection, limit=10)
    assert (letter.key, "cannot be stored" in letter.reason) == ("3", True)


def test_what_the_database_refuses_is_a_dead_letter(store: Store) -> None:
    far = orjson.loads(temporal("far", 0))
    far["asset"]["updateTime"] = "9999-12-31T23:59:59Z"
    result = handle(store, received(temporal("a", 0), orjson.dumps(far)))
    assert (result.observed, result.dead) == (1, 1)


def test_when_the_store_fails_nothing_is_half_done(store: Store) -> None:
    with store.write() as connection:
        connection.execute(sa.text("ALTER TABLE handled_messages RENAME TO elsewhere"))
    try:
        with pytest.raises(sa.exc.DBAPIError):
            handle(store, received(temporal("a", 0)))
    finally:
        with store.write() as connection:
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO handled_messages"))
    assert (state(store), event_types(store)) == ([], [])


NUMBERS = (b"1e300", b"18446744073709551616.0", b"-9e99", b"1e-300")


@pytest.mark.parametrize("value", [*NUMBERS, b"[" * 400 + b"]" * 400, b"[" * 2000 + b"]" * 2000, b'"\\u0000"'])
def test_no_value_stops_the_messages_around_it(store: Store, value: bytes) -> None:
    poison = temporal("bad", 0, n="@").replace(b'"@"', value)
    result = handle(store, received(temporal("a", 0), poison, temporal("b", 0)))
    assert (result.messages, result.dead) == (3, 0 if value in NUMBERS or b"u0000" in value else 1)


@pytest.mark.parametrize("location", [{"a": 1}, ["eu"], 7, "x" * 5000])
def test_a_location_that_is_none_is_a_dead_letter(store: Store, location: Any) -> None:
    poison = orjson.loads(temporal("bad", 0))
    poison["asset"]["resource"]["location"] = location
    result = handle(store, received(temporal("a", 0), orjson.dumps(poison)))
    assert result.observed + result.dead == 2
    assert result.observed >= 1


class Unstorable(dict[str, Any]):
    """What no driver takes for a text."""


@pytest.mark.parametrize("message", [Unstorable(a=1), "nul \x00", "\ud800"])
def test_what_the_driver_refuses_is_a_dead_letter(store: Store, message: Any) -> None:
    def judge(asset_type: str, content_type: str, name: str, data: Mapping[str, Any]) -> list[Verdict]:
        said = message if data["name"] == "bad" else "fine"
        return [Verdict("3.6", "cis", "SSH is closed", "high", "cis", Outcome.FAIL, said)]

    batch = received(temporal("a", 0), temporal("bad", 0), temporal("b", 0))
    result = handle_batch(store, SUBSCRIPTION, batch, scopes=[], evaluate=judge, clock=SteppedClock())
    assert result.observed + result.dead == 3
    assert result.observed >= 2
    with store.read() as connection:
        assert all("nul" not in row.reason for row in dead_letters.newest(connection, limit=5))


@pytest.mark.parametrize("table", ["findings", "event_log", "message_counts", "dead_letters", "resources"])
def test_a_store_that_does_not_work_makes_no_dead_letters(store: Store, table: str) -> None:
    """Else each message would become one, and be acknowledged."""
    with store.write() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO elsewhere"))
    try:
        with pytest.raises(sa.exc.DBAPIError):
            handle(store, received(temporal("a", 0, ranges=["0.0.0.0/0"]), b"?"))
    finally:
        with store.write() as connection:
            connection.execute(sa.text(f"ALTER TABLE elsewhere RENAME TO {table}"))
    assert sum(outcomes(store).values()) == 0


def test_without_its_counter_the_store_does_not_work(store: Store) -> None:
    with store.write() as connection:
        connection.execute(counters.delete())
    with pytest.raises(LookupError):
        handle(store, received(temporal("a", 0), temporal("b", 0)))
    with store.write() as connection:
        connection.execute(counters.insert(), [{"name": name, "value": 0} for name in ("event_log", "resources")])
    assert sum(outcomes(store).values()) == 0


def test_trying_the_store_leaves_nothing(store: Store) -> None:
    handle(store, received(temporal("bad", 0, broken=True)))
    assert (state(store), event_types(store)) == ([], [])
    with store.read() as connection:
        assert messages.counts(connection) == outcomes(store)
        assert dead_letters.counts(connection) == {LayerId.PUBSUB: 1}


def test_a_count_outlives_the_ids(store: Store) -> None:
    handle(store, received(WELCOME, temporal("a", 0)))
    handle(store, received(WELCOME, b"?", first=2))
    before = outcomes(store)
    with store.write() as connection:
        assert messages.prune(connection, before=NOW + timedelta(days=1)) == 3
    assert before == {MessageOutcome.OBSERVED: 1, MessageOutcome.WELCOME: 1, MessageOutcome.DEAD: 1}
    assert outcomes(store) == before


def test_a_count_belongs_to_its_subscription(store: Store) -> None:
    handle(store, received(WELCOME))
    with store.write() as connection:
        other = messages.HandledMessage("1", MessageOutcome.WELCOME, None)
        messages.record(connection, "projects/ops/subscriptions/other", [other], now=NOW)
        assert messages.counts(connection)[MessageOutcome.WELCOME] == 2
    assert outcomes(store)[MessageOutcome.WELCOME] == 1


def test_ids_are_forgotten_in_parts_the_oldest_first(store: Store) -> None:
    with store.write() as connection:
        for number in range(5):
            item = messages.HandledMessage(str(number), MessageOutcome.WELCOME, None)
            messages.record(connection, SUBSCRIPTION, [item], now=NOW + timedelta(seconds=number))
        before = NOW + timedelta(seconds=4)
        assert messages.prune(connection, before=before, limit=3) == 3
        assert messages.known(connection, SUBSCRIPTION, map(str, range(5))) == {"3", "4"}
        assert messages.prune(connection, before=before, limit=3) == 1


def test_figures_count_what_was_handled(store: Store) -> None:
    handle(store, received(temporal("a", 0), WELCOME, b"?"))
    with store.read() as connection:
        found = figures(connection, SUBSCRIPTION)
    assert found.total == 3
    assert found.details["feed_messages"] == {"handled": 3, "observed": 1, "welcome": 1, "dead": 1}
    assert found.details["feed_events"] == {"last_seq": 1}


def test_old_messages_are_forgotten(store: Store) -> None:
    handle(store, received(temporal("a", 0)))
    with store.write() as connection:
        assert messages.prune(connection, before=NOW) == 0
        assert messages.prune(connection, before=NOW + timedelta(seconds=1)) == 1
        assert dead_letters.prune(connection, before=NOW + timedelta(days=1)) == 0
        assert messages.known(connection, SUBSCRIPTION, ["1"]) == set()


VERSIONS = st.builds(
    lambda name, minute, is_open, deleted: temporal(
        name, minute, ranges=["0.0.0.0/0"] if is_open else ["10.0.0.0/8"], deleted=deleted
    ),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
)


@pytest.mark.soak
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200 if SOAK else 25)
@given(data=st.data())
def test_any_order_repetition_and_batching_ends_in_the_same_state(sqlite_store: Store, data: st.DataObject) -> None:
    bodies = data.draw(st.lists(VERSIONS | st.just(b"not json"), min_size=1, max_size=8))
    batch = received(*bodies)
    _empty(sqlite_store)
    handle(sqlite_store, batch)
    expected, counted = state(sqlite_store), outcomes(sqlite_store)

    _empty(sqlite_store)
    again = data.draw(st.permutations(batch + data.draw(st.lists(st.sampled_from(batch), max_size=5))))
    while again:
        size = data.draw(st.integers(1, len(again)))
        handle(sqlite_store, again[:size])
        again = again[size:]
    assert state(sqlite_store) == expected
    assert outcomes(sqlite_store) == counted


def _empty(store: Store) -> None:
    with store.write() as connection:
        for table in metadata.sorted_tables:
            if table.name != "counters":
                connection.execute(table.delete())


def test_times_of_messages_are_kept(sqlite_store: Store) -> None:
    handle(sqlite_store, received(WELCOME))
    with sqlite_store.read() as connection:
        row = connection.execute(sa.select(handled_messages)).one()
    assert (row.published_at, row.handled_at) == (from_ns(to_ns(NOW)), NOW)
