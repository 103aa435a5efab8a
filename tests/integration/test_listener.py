"""The listener, from a published message to the store: Google's clients, the demo's server, a real store."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from google.cloud import pubsub_v1

from demo.faults import Faults
from demo.organization import CONTENT_TYPES, ORGANIZATION, Organization
from demo.pubsub_server import start_pubsub_server
from demo.repositories import make_repositories
from demo.simulator import Simulator, head_push
from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.events import listener, subscription
from lz_sync_dagster.sync.events.handler import ReceivedMessage, handle_batch
from lz_sync_dagster.sync.events.listener import run_listener
from lz_sync_dagster.sync.events.service import sync_events
from lz_sync_dagster.sync.models import Status, SyncStatus
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, dead_letters, event_log, layer_runs, messages
from lz_sync_dagster.sync.store.messages import MessageOutcome
from lz_sync_dagster.sync.store.schema import listeners, resources
from lz_sync_dagster.sync.timing import format_ns, utcnow
from tests.conftest import until

PROJECT = "lz-demo-ops"
FIREWALL = "compute.googleapis.com/Firewall"
WELCOME = b"You have successfully configured a feed. Feed name: f"


@dataclass(frozen=True)
class Feed:
    """A topic and a subscription of one test, and the settings that name them."""

    settings: Settings
    publisher: pubsub_v1.PublisherClient
    subscriber: pubsub_v1.SubscriberClient
    topic: str
    subscription: str

    def publish(self, *bodies: bytes) -> None:
        for future in [self.publisher.publish(self.topic, body) for body in bodies]:
            future.result(timeout=10)

    def waiting(self) -> list[Any]:
        answer = self.subscriber.pull(subscription=self.subscription, max_messages=100, timeout=5)
        return list(answer.received_messages)


@contextmanager
def opened(*, topic: bool = True, subscription: bool = True) -> Iterator[Feed]:
    name = uuid.uuid4().hex[:12]
    publisher = pubsub_v1.PublisherClient(batch_settings=pubsub_v1.types.BatchSettings(max_latency=0.01))
    subscriber = pubsub_v1.SubscriberClient()
    topic_path = publisher.topic_path(PROJECT, f"topic-{name}")
    subscription_path = subscriber.subscription_path(PROJECT, f"sub-{name}")
    if topic:
        publisher.create_topic(name=topic_path)
    if subscription:
        subscriber.create_subscription(name=subscription_path, topic=topic_path)
    pubsub = {"project": PROJECT, "topic": f"topic-{name}", "subscription": f"sub-{name}"}
    layers: Any = {"pubsub": pubsub, "api_sync": {"scopes": [ORGANIZATION]}}
    yield Feed(Settings(sync_layers=layers), publisher, subscriber, topic_path, subscription_path)
    publisher.stop()
    publisher.transport.close()
    subscriber.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    given = os.environ.get("PUBSUB_EMULATOR_HOST")
    if given:
        yield given
        return
    server = start_pubsub_server()
    yield server.address
    server.stop()


@pytest.fixture
def pubsub(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)


@pytest.fixture
def feed(pubsub: None) -> Iterator[Feed]:
    with opened() as made:
        yield made


def evaluate(asset_type: str, content_type: str, name: str, data: Mapping[str, Any]) -> list[Verdict]:
    outcome = Outcome.FAIL if "0.0.0.0/0" in data.get("sourceRanges", ()) else Outcome.PASS
    return [Verdict("3.6", "cis", "SSH is closed", "high", "cis", outcome, "open to the internet")]


def temporal(name: str, minute: int = 0) -> bytes:
    at = f"2026-02-01T10:{minute:02}:00Z"
    asset = {
        "name": f"//compute.googleapis.com/projects/p/global/firewalls/{name}",
        "assetType": FIREWALL,
        "updateTime": at,
        "ancestors": ["projects/1", ORGANIZATION],
        "resource": {"data": {"id": name, "name": name, "minute": minute}},
    }
    return orjson.dumps({"asset": asset, "window": {"startTime": at}})


class Listening:
    """A listener in a thread. Leaving the block stops it; ``error`` is what it raised."""

    def __init__(self, settings: Settings, store: Store, waits: tuple[float, ...] = ()) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._arguments = (settings, store, utcnow, self.stop)
        self._waits = waits
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            run_listener(*self._arguments, evaluate=evaluate, waits=self._waits)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Listening:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()


def health(store: Store) -> SyncStatus:
    with store.read() as connection:
        return next(s for s in layer_runs.statuses(connection, now=utcnow()) if s.layer is LayerId.PUBSUB)


def counts(store: Store) -> dict[MessageOutcome, int]:
    with store.read() as connection:
        return messages.counts(connection)


def names(store: Store) -> set[str]:
    with store.read() as connection:
        found = connection.scalars(sa.select(resources.c.name).where(resources.c.deleted.is_(False)))
        return {name.rpartition("/")[2] for name in found}


def test_a_published_change_is_in_the_store_and_acknowledged(feed: Feed, store: Store) -> None:
    with Listening(feed.settings, store):
        feed.publish(WELCOME, temporal("a"), temporal("b"))
        until(lambda: names(store) == {"a", "b"})
        status = until(lambda: health(store) if health(store).items_synced == 3 else None)
        assert (status.status, status.errors) == (Status.SUCCESS, [])
        assert status.as_of is not None
    assert feed.waiting() == []
    assert counts(store) == {MessageOutcome.OBSERVED: 2, MessageOutcome.WELCOME: 1, MessageOutcome.DEAD: 0}


def test_a_listener_that_stops_says_so(feed: Feed, sqlite_store: Store) -> None:
    with Listening(feed.settings, sqlite_store) as listening:
        until(lambda: health(sqlite_store).status is Status.SUCCESS)
    assert listening.error is None
    status = health(sqlite_store)
    assert status.status is Status.FAILED
    assert "lz-sync listen" in status.errors[0]


def test_what_is_no_feed_message_is_acknowledged_counted_and_kept(feed: Feed, sqlite_store: Store) -> None:
    nameless = orjson.loads(temporal("x"))
    del nameless["asset"]["name"]
    with Listening(feed.settings, sqlite_store):
        feed.publish(b"not json", orjson.dumps(nameless), temporal("a"))
        until(lambda: sum(counts(sqlite_store).values()) == 3)
    assert names(sqlite_store) == {"a"}
    assert counts(sqlite_store)[MessageOutcome.DEAD] == 2
    assert feed.waiting() == []
    with sqlite_store.read() as connection:
        reasons = " / ".join(row.reason for row in dead_letters.newest(connection, limit=5))
    assert "is not JSON" in reasons
    assert "has no name" in reasons


def test_a_crash_between_commit_and_acknowledgement_costs_nothing(feed: Feed, sqlite_store: Store) -> None:
    feed.publish(temporal("a"))
    (pulled,) = until(feed.waiting)
    message = ReceivedMessage(pulled.message.message_id, pulled.message.data, pulled.message.publish_time)
    handle_batch(sqlite_store, feed.subscription, [message], scopes=[], evaluate=evaluate, clock=utcnow)
    with sqlite_store.read() as connection:
        before = event_log.last_seq(connection)
        row = connection.execute(sa.select(resources)).one()
    feed.subscriber.modify_ack_deadline(subscription=feed.subscription, ack_ids=[pulled.ack_id], ack_deadline_seconds=0)
    with Listening(feed.settings, sqlite_store):
        feed.publish(temporal("b"))
        until(lambda: names(sqlite_store) == {"a", "b"})
    assert feed.waiting() == []
    with sqlite_store.read() as connection:
        assert connection.execute(sa.select(resources).where(resources.c.name == row.name)).one() == row
        told = [frame for frame in event_log.after(connection, before, limit=10) if frame.resource]
    assert [frame.resource["display_name"] for frame in told if frame.resource] == ["b"]


def test_a_missing_subscription_is_one_line_with_its_remedy(pubsub: None, sqlite_store: Store) -> None:
    with opened(subscription=False) as feed, Listening(feed.settings, sqlite_store) as listening:
        until(lambda: listening.ended)
    assert isinstance(listening.error, SyncError)
    assert listening.error.reason is Reason.NOT_FOUND
    assert f"gcloud pubsub subscriptions create {feed.subscription.rpartition('/')[2]}" in str(listening.error)
    assert "\n" not in str(listening.error)
    assert health(sqlite_store).errors == [str(listening.error)]


def test_a_missing_topic_is_named(pubsub: None, sqlite_store: Store) -> None:
    with opened(topic=False, subscription=False) as feed, Listening(feed.settings, sqlite_store) as listening:
        until(lambda: listening.ended)
    assert str(listening.error).startswith(f"topic {feed.topic}: does not exist; create it with 'gcloud pubsub topics")


def test_a_project_that_is_not_set_is_named(sqlite_store: Store) -> None:
    with Listening(Settings(), sqlite_store) as listening:
        until(lambda: listening.ended)
    assert "sync_layers.pubsub.project" in str(listening.error)


def test_a_subscription_of_another_topic_is_refused(feed: Feed, sqlite_store: Store) -> None:
    feed.publisher.delete_topic(topic=feed.topic)
    with Listening(feed.settings, sqlite_store) as listening:
        until(lambda: listening.ended)
    assert "its topic was deleted" in str(listening.error)


def test_a_subscription_that_goes_away_ends_the_listener(feed: Feed, sqlite_store: Store) -> None:
    with Listening(feed.settings, sqlite_store) as listening:
        until(lambda: health(sqlite_store).status is Status.SUCCESS)
        feed.subscriber.delete_subscription(subscription=feed.subscription)
        until(lambda: listening.ended)
    assert isinstance(listening.error, SyncError)
    assert listening.error.reason is Reason.NOT_FOUND
    assert health(sqlite_store).status is Status.FAILED


def test_a_server_that_is_away_is_tried_again_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch, sqlite_store: Store
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:9")
    pubsub_config: Any = {"pubsub": {"project": PROJECT}}
    with Listening(Settings(sync_layers=pubsub_config), sqlite_store, waits=(0.01, 0.01)) as listening:
        until(lambda: listening.ended, seconds=40)
    assert isinstance(listening.error, SyncError)
    assert listening.error.transient
    assert health(sqlite_store).status is Status.FAILED


def test_nothing_is_vouched_for_before_the_subscription_was_reached(
    feed: Feed, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = SyncError("is away", where="subscription", remedy="wait", reason=Reason.UNAVAILABLE)

    def unreachable(subscription: Any) -> None:
        raise away

    real = subscription.check
    monkeypatch.setattr(listener, "HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(listener, "check", unreachable)
    with Listening(feed.settings, sqlite_store):
        until(lambda: health(sqlite_store).errors)
        assert (health(sqlite_store).status, health(sqlite_store).as_of) == (Status.FAILED, None)
        with sqlite_store.read() as connection:
            assert connection.scalars(sa.select(listeners.c.as_of)).all() == [None]
        monkeypatch.setattr(listener, "check", real)
        until(lambda: health(sqlite_store).status is Status.SUCCESS and health(sqlite_store).as_of)


def test_a_message_that_nobody_can_use_does_not_stop_the_listener(feed: Feed, store: Store) -> None:
    poison = temporal("bad").replace(b'"minute":0', b'"minute":' + b"[" * 600 + b"]" * 600)
    with Listening(feed.settings, store):
        feed.publish(temporal("a"), poison, b"[" * 2000, temporal("b"))
        until(lambda: sum(counts(store).values()) == 4)
    assert counts(store)[MessageOutcome.DEAD] == 2
    assert feed.waiting() == []


def test_while_the_store_fails_messages_are_kept_and_then_handled(
    feed: Feed, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEALTH_SECONDS", 0.2)
    with Listening(feed.settings, sqlite_store, waits=(0.1,) * 200):
        with sqlite_store.write() as connection:
            connection.execute(sa.text("ALTER TABLE resource_contents RENAME TO elsewhere"))
        feed.publish(temporal("a"))
        until(lambda: any("was not stored" in line for line in health(sqlite_store).errors))
        with sqlite_store.write() as connection:
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO resource_contents"))
        until(lambda: names(sqlite_store) == {"a"})
        until(lambda: health(sqlite_store).status is Status.SUCCESS)
    assert feed.waiting() == []


def test_a_foreground_sync_handles_what_waits_and_ends(feed: Feed, sqlite_store: Store) -> None:
    feed.publish(WELCOME, temporal("a"), temporal("b"), b"?")
    first = foreground(feed, sqlite_store)
    assert (first.items_synced, first.items_changed, first.status) == (4, 2, Status.SUCCESS)
    assert first.details["feed_messages"]["new_dead"] == 1
    assert feed.waiting() == []
    again = foreground(feed, sqlite_store)
    assert (again.items_synced, again.items_changed) == (4, 0)
    assert health(sqlite_store).status is Status.SUCCESS


def test_a_foreground_sync_leaves_the_work_to_a_listener_that_works(feed: Feed, sqlite_store: Store) -> None:
    with Listening(feed.settings, sqlite_store):
        feed.publish(temporal("a"))
        until(lambda: health(sqlite_store).items_synced == 1)
        outcome = foreground(feed, sqlite_store)
        assert (outcome.items_synced, outcome.items_changed) == (1, 0)
        assert "listener" in outcome.details["feed_messages"]


def foreground(feed: Feed, store: Store) -> LayerOutcome:
    return run_to_end(
        store,
        LayerId.PUBSUB,
        lambda run: sync_events(feed.settings, store, run, clock=utcnow, progress=silent),
        triggered_by="test",
        clock=utcnow,
        sleep=lambda seconds: None,
    )


@pytest.mark.parametrize("fault", [None, "feed_duplicate", "feed_reorder"])
def test_whatever_the_feed_does_the_store_ends_like_the_organization(
    fault: str | None, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults()
    if fault:
        faults.on(fault)
    server = start_pubsub_server(faults=faults)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
    organization = Organization(assets=200)
    with opened() as feed, Listening(feed.settings, sqlite_store):
        simulator = Simulator(organization, feed.publisher, feed.topic, None, None, 3, utcnow)
        simulator.welcome()
        kinds = [change.kind for change in simulator.script()]
        assert kinds == ["create_vm", "open_firewall", "delete_disk", "change_iam", "fix_firewall"]
        assert simulator.script() == []
        for _ in range(15):
            simulator.step()
        until(lambda: known(sqlite_store) == expected(organization), what="the same state")
    server.stop()


def expected(organization: Organization) -> dict[tuple[str, str], str | None]:
    """When each changed asset was last updated; ``None`` if it is gone."""
    state: dict[tuple[str, str], str | None] = {}
    for content_type in CONTENT_TYPES:
        for name in organization.changed_names(content_type):
            asset = organization.get(name, content_type)
            state[name, content_type] = asset["updateTime"] if asset else None
    return state


def known(store: Store) -> dict[tuple[str, str], str | None]:
    with store.read() as connection:
        return {
            (row.name, row.content_type): None if row.deleted else format_ns(row.update_ns)
            for row in connection.execute(sa.select(resources))
        }


def test_a_commit_is_announced_like_github_does(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    repo = make_repositories(tmp_path).landing_zone
    simulator = Simulator(Organization(assets=200), NoPublisher(), "t", repo, sent.append, 1, utcnow)
    changes = [simulator.commit() for _ in range(40)]
    for change, payload in zip(changes, sent, strict=True):
        commit = payload["head_commit"]
        assert commit["added"] + commit["modified"] + commit["removed"] == [change.target]
    assert {PurePosixPath(change.target).parts[0] for change in changes} == {
        *("docs", "terraform", "pmo.yaml", "ENFORCEMENT_GATES.md", "RUNBOOKS.md")
    }
    pairs = [(payload["before"], payload["after"]) for payload in sent]
    assert [after for _, after in pairs[:-1]] == [before for before, _ in pairs[1:]]
    assert head_push(repo) == sent[-1]


class NoPublisher:
    """For a simulator that only commits."""

    def publish(self, topic: str, data: bytes) -> Any:
        raise AssertionError("nothing is published here")
