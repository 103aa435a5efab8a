"""The demo's Pub/Sub server with Google's clients; or Google's emulator, where ``PUBSUB_EMULATOR_HOST`` names one."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.protobuf.timestamp_pb2 import Timestamp

from demo.faults import Faults
from demo.pubsub_server import start_pubsub_server
from tests.conftest import until

PROJECT = "lz-demo-ops"


@dataclass
class Channel:
    """A topic with one subscription, and Google's clients for both."""

    publisher: pubsub_v1.PublisherClient
    subscriber: pubsub_v1.SubscriberClient
    topic: str
    subscription: str
    streams: list[Any] = field(default_factory=list)

    def publish(self, *bodies: bytes) -> list[str]:
        futures = [self.publisher.publish(self.topic, body) for body in bodies]
        return [future.result(timeout=10) for future in futures]

    def pull(self, limit: int = 100) -> list[Any]:
        answer = self.subscriber.pull(subscription=self.subscription, max_messages=limit, timeout=5)
        return list(answer.received_messages)

    def drain(self) -> list[bytes]:
        """Pull and acknowledge until two pulls in a row give nothing."""
        bodies: list[bytes] = []
        empty = 0
        while empty < 2:
            got = self.pull()
            empty = 0 if got else empty + 1
            if got:
                self.ack(got)
            bodies += [item.message.data for item in got]
        return bodies

    def ack(self, items: list[Any]) -> None:
        self.subscriber.acknowledge(subscription=self.subscription, ack_ids=[item.ack_id for item in items])

    def modify(self, items: list[Any], seconds: int) -> None:
        self.subscriber.modify_ack_deadline(
            subscription=self.subscription, ack_ids=[item.ack_id for item in items], ack_deadline_seconds=seconds
        )


def open_channel(deadline: int = 10) -> Channel:
    publisher = pubsub_v1.PublisherClient(batch_settings=pubsub_v1.types.BatchSettings(max_latency=0.01))
    subscriber = pubsub_v1.SubscriberClient()
    name = uuid.uuid4().hex
    topic = publisher.topic_path(PROJECT, f"t-{name}")
    subscription = subscriber.subscription_path(PROJECT, f"s-{name}")
    publisher.create_topic(name=topic)
    subscriber.create_subscription(name=subscription, topic=topic, ack_deadline_seconds=deadline)
    return Channel(publisher, subscriber, topic, subscription)


def close(channel: Channel) -> None:
    channel.publisher.stop()
    channel.publisher.transport.close()
    channel.subscriber.close()


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
def channel(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
    opened = open_channel()
    yield opened
    close(opened)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, Faults]]:
    faults = Faults()
    server = start_pubsub_server(faults=faults)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
    opened = open_channel()
    yield opened, faults
    close(opened)
    server.stop()


def test_what_is_published_is_pulled_once_acknowledged_gone(channel: Channel) -> None:
    ids = channel.publish(b"a", b"b")
    got: list[Any] = until(lambda: channel.pull())
    while len(got) < 2:
        got += channel.pull()
    assert sorted(item.message.data for item in got) == [b"a", b"b"]
    assert sorted(item.message.message_id for item in got) == sorted(ids)
    assert abs((datetime.now(UTC) - got[0].message.publish_time).total_seconds()) < 60
    channel.ack(got)
    assert channel.drain() == []


def test_streaming_pull_delivers_as_it_is_published(channel: Channel) -> None:
    got: list[bytes] = []
    done = threading.Event()

    def receive(message: Any) -> None:
        got.append(message.data)
        message.ack()
        if len(got) == 200:
            done.set()

    stream = channel.subscriber.subscribe(channel.subscription, callback=receive)
    channel.publish(*(str(number).encode() for number in range(200)))
    assert done.wait(20)
    stream.cancel()
    stream.result(timeout=10)
    assert sorted(got) == sorted(str(number).encode() for number in range(200))


def test_what_is_given_back_comes_again(channel: Channel) -> None:
    channel.publish(b"a")
    first = until(channel.pull)
    channel.modify(first, 0)
    second = until(channel.pull)
    assert second[0].message.message_id == first[0].message.message_id


def test_what_is_not_acknowledged_in_time_comes_again(channel: Channel) -> None:
    channel.publish(b"a")
    first = until(channel.pull)
    channel.modify(first, 1)
    second = until(channel.pull, what="the redelivery")
    assert second[0].message.message_id == first[0].message.message_id
    channel.ack(second)


def test_a_seek_to_a_time_brings_back_what_was_acknowledged(channel: Channel) -> None:
    channel.publish(b"a")
    got = until(channel.pull)
    channel.ack(got)
    time = Timestamp()
    time.FromNanoseconds(int(got[0].message.publish_time.timestamp() * 1e9) - 10**9)
    channel.subscriber.seek(request={"subscription": channel.subscription, "time": time})
    assert until(channel.pull)[0].message.data == b"a"


def test_every_subscription_gets_every_message(channel: Channel) -> None:
    other = channel.subscription + "-2"
    channel.subscriber.create_subscription(name=other, topic=channel.topic)
    channel.publish(b"a")
    assert until(channel.pull)[0].message.data == b"a"
    answer = until(lambda: channel.subscriber.pull(subscription=other, max_messages=5, timeout=5).received_messages)
    assert answer[0].message.data == b"a"


def test_topics_and_subscriptions_are_listed_and_deleted(channel: Channel) -> None:
    project = f"projects/{PROJECT}"
    assert channel.topic in {item.name for item in channel.publisher.list_topics(project=project)}
    assert channel.subscription in {item.name for item in channel.subscriber.list_subscriptions(project=project)}
    assert list(channel.publisher.list_topic_subscriptions(topic=channel.topic)) == [channel.subscription]
    channel.publisher.delete_topic(topic=channel.topic)
    assert channel.subscriber.get_subscription(subscription=channel.subscription).topic == "_deleted-topic_"
    channel.subscriber.delete_subscription(subscription=channel.subscription)
    with pytest.raises(exceptions.NotFound):
        channel.subscriber.get_subscription(subscription=channel.subscription)


def test_what_is_missing_or_there_already_is_said(channel: Channel) -> None:
    with pytest.raises(exceptions.AlreadyExists):
        channel.publisher.create_topic(name=channel.topic)
    with pytest.raises(exceptions.AlreadyExists):
        channel.subscriber.create_subscription(name=channel.subscription, topic=channel.topic)
    with pytest.raises(exceptions.NotFound):
        channel.publisher.get_topic(topic=channel.topic + "x")
    with pytest.raises(exceptions.NotFound):
        channel.subscriber.create_subscription(name=channel.subscription + "x", topic=channel.topic + "x")
    with pytest.raises(exceptions.NotFound):
        channel.publisher.publish(channel.topic + "x", b"a").result(timeout=10)
    stream = channel.subscriber.subscribe(channel.subscription + "x", callback=lambda message: message.ack())
    with pytest.raises(exceptions.NotFound):
        stream.result(timeout=10)


def test_duplicates_have_the_same_id_and_another(faulty: tuple[Channel, Faults]) -> None:
    channel, faults = faulty
    faults.on("feed_duplicate")
    (published,) = channel.publish(b"a")
    ids: list[str] = []
    while len(ids) < 3:
        ids += [item.message.message_id for item in channel.pull()]
    assert ids.count(published) == 2
    assert len(set(ids)) == 2


def test_reordered_messages_overtake_each_other_and_all_arrive(faulty: tuple[Channel, Faults]) -> None:
    channel, faults = faulty
    faults.on("feed_reorder")
    bodies = [str(number).encode() for number in range(6)]
    for body in bodies:
        channel.publish(body)
    got = channel.drain()
    assert sorted(got) == bodies
    assert got != bodies


def test_every_third_message_is_lost(faulty: tuple[Channel, Faults]) -> None:
    channel, faults = faulty
    faults.on("feed_lose")
    for number in range(6):
        channel.publish(str(number).encode())
    assert sorted(channel.drain()) == [b"0", b"1", b"3", b"4"]


def test_a_server_stops_and_its_port_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = start_pubsub_server()
    port = int(first.address.partition(":")[2])
    with pytest.raises(RuntimeError):
        start_pubsub_server(port)
    first.stop()
    second = start_pubsub_server(port)
    assert second.address == first.address
    second.stop()
