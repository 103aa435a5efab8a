"""A Pub/Sub server in memory, for demo and tests: ``google.pubsub.v1`` as far as the unmodified Google clients use
it (topics, subscriptions, publish, pull, streaming pull, acknowledge, deadlines, seek to a time).

At least once, in no promised order, like the real one: a message that is not acknowledged within its deadline comes
again. Not here: ordering keys, filters, snapshots, push, exactly-once, IAM. Faults are switched by name, see
`Queues.publish`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

DELETED_TOPIC = "_deleted-topic_"
ACK_DEADLINE_SECONDS = 10
#: How long a pull waits for a first message before it answers with none.
PULL_WAIT_SECONDS = 0.3
#: How long a reordered message is held back, so that later ones overtake it.
REORDER_SECONDS = 0.05
#: Messages that one answer carries at most.
MAX_MESSAGES = 1000
#: Messages that a subscription keeps for a seek.
RETAINED_MESSAGES = 100_000
MAX_REQUEST_BYTES = 20 * 1024 * 1024


class SwitchableFaults(Protocol):
    """Which faults are on: ``feed_duplicate``, ``feed_reorder``, ``feed_lose``."""

    def active(self, name: str) -> bool:
        """Whether the fault of this name is on now."""


@dataclass(slots=True)
class Message:
    """A published message. ``attempts`` counts deliveries, ``acked`` is per subscription."""

    proto: Any
    published: float
    acked: bool = False
    attempts: int = 0


@dataclass(slots=True)
class Lease:
    """A delivered message that waits for its acknowledgement. ``stream``: who holds it, for flow control."""

    message: Message
    expires: float
    stream: int


@dataclass
class Subscription:
    """One subscription and its queue. Only the server's event loop touches it."""

    proto: Any
    waiting: deque[Message] = field(default_factory=deque)
    leases: dict[str, Lease] = field(default_factory=dict)
    retained: OrderedDict[int, Message] = field(default_factory=OrderedDict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    deleted: bool = False

    @property
    def ack_deadline(self) -> int:
        return int(self.proto.ack_deadline_seconds) or ACK_DEADLINE_SECONDS


class _Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


def _not_found(path: str) -> _Refusal:
    return _Refusal(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={path.rpartition('/')[2]}).")


def _exists(path: str) -> _Refusal:
    return _Refusal(
        grpc.StatusCode.ALREADY_EXISTS, f"Resource already exists in the project (resource={path.rpartition('/')[2]})."
    )


class Queues:
    """Topics, subscriptions and what is under way between them."""

    def __init__(self, faults: SwitchableFaults | None) -> None:
        self.topics: dict[str, Any] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self._faults = faults
        self._ids = itertools.count(time.time_ns() // 1000)
        self._acks = itertools.count(1)
        self._published = 0

    def _fault(self, name: str) -> bool:
        return self._faults is not None and self._faults.active(name)

    def topic(self, path: str) -> Any:
        if path not in self.topics:
            raise _not_found(path)
        return self.topics[path]

    def subscription(self, path: str) -> Subscription:
        if path not in self.subscriptions:
            raise _not_found(path)
        return self.subscriptions[path]

    def publish(self, path: str, messages: Sequence[Any]) -> list[str]:
        """Queue messages on every subscription of a topic, and return their ids.

        ``feed_duplicate``: each message is delivered twice under its id, and once more under another.
        ``feed_reorder``: every other message is held back for a moment. ``feed_lose``: every third message is
        accepted and never delivered.
        """
        self.topic(path)
        ids = []
        for message in messages:
            if not message.data and not message.attributes:
                raise _Refusal(
                    grpc.StatusCode.INVALID_ARGUMENT, "A message must have either non-empty data, or an attribute."
                )
        for message in messages:
            self._published += 1
            first = self._stamped(message)
            ids.append(first.message_id)
            if self._fault("feed_lose") and self._published % 3 == 0:
                continue
            copies = [first]
            if self._fault("feed_duplicate"):
                copies += [first, self._stamped(message)]
            late = self._fault("feed_reorder") and self._published % 2 == 1
            for subscription in self.subscriptions.values():
                if subscription.proto.topic == path:
                    for copy in copies:
                        self._enqueue(subscription, Message(copy, time.time()), late=late)
        return ids

    def _stamped(self, message: Any) -> Any:
        stamped = type(message)()
        stamped.CopyFrom(message)
        stamped.message_id = str(next(self._ids))
        stamped.publish_time.GetCurrentTime()
        return stamped

    def _enqueue(self, subscription: Subscription, message: Message, *, late: bool) -> None:
        subscription.retained[id(message)] = message
        if len(subscription.retained) > RETAINED_MESSAGES:
            subscription.retained.popitem(last=False)
        if late:
            asyncio.get_running_loop().call_later(REORDER_SECONDS, self._offer, subscription, message)
        else:
            self._offer(subscription, message)

    @staticmethod
    def _offer(subscription: Subscription, message: Message) -> None:
        subscription.waiting.append(message)
        subscription.arrived.set()

    def take(
        self, subscription: Subscription, limit: int, *, stream: int = 0, deadline: int | None = None
    ) -> list[Any]:
        """Lease at most ``limit`` messages that wait. Returns ``ReceivedMessage`` protos."""
        seconds = deadline or subscription.ack_deadline
        received: list[Any] = []
        while subscription.waiting and len(received) < limit:
            message = subscription.waiting.popleft()
            if message.acked:
                continue
            message.attempts += 1
            ack_id = f"ack-{next(self._acks)}"
            subscription.leases[ack_id] = Lease(message, time.monotonic() + seconds, stream)
            received.append(types.ReceivedMessage.pb()(ack_id=ack_id, message=message.proto))
        if not subscription.waiting:
            subscription.arrived.clear()
        return received

    @staticmethod
    def acknowledge(subscription: Subscription, ack_ids: Sequence[str]) -> None:
        for ack_id in ack_ids:
            lease = subscription.leases.pop(ack_id, None)
            if lease is not None:
                lease.message.acked = True
        subscription.arrived.set()

    def modify_deadline(self, subscription: Subscription, ack_ids: Sequence[str], seconds: Sequence[int]) -> None:
        for ack_id, more in zip(ack_ids, seconds, strict=True):
            lease = subscription.leases.get(ack_id)
            if lease is None:
                continue
            if more:
                lease.expires = time.monotonic() + more
            else:
                del subscription.leases[ack_id]
                self._offer(subscription, lease.message)

    def seek(self, subscription: Subscription, instant: float) -> None:
        """Everything published before ``instant`` counts as acknowledged, everything else as not."""
        subscription.leases.clear()
        subscription.waiting.clear()
        for message in subscription.retained.values():
            message.acked = message.published < instant
            if not message.acked:
                self._offer(subscription, message)

    def expire(self) -> None:
        """Queue again what was not acknowledged in time."""
        now = time.monotonic()
        for subscription in self.subscriptions.values():
            late = [ack_id for ack_id, lease in subscription.leases.items() if lease.expires < now]
            for ack_id in late:
                self._offer(subscription, subscription.leases.pop(ack_id).message)


class _Servicer:
    def __init__(self, queues: Queues) -> None:
        self.queues = queues
        self._streams = itertools.count(1)

    async def create_topic(self, request: Any, _context: Any) -> Any:
        if request.name in self.queues.topics:
            raise _exists(request.name)
        self.queues.topics[request.name] = request
        return request

    async def get_topic(self, request: Any, _context: Any) -> Any:
        return self.queues.topic(request.topic)

    async def list_topics(self, request: Any, _context: Any) -> Any:
        found = [topic for name, topic in self.queues.topics.items() if name.startswith(f"{request.project}/topics/")]
        return types.ListTopicsResponse.pb()(topics=found)

    async def list_topic_subscriptions(self, request: Any, _context: Any) -> Any:
        self.queues.topic(request.topic)
        names = [name for name, item in self.queues.subscriptions.items() if item.proto.topic == request.topic]
        return types.ListTopicSubscriptionsResponse.pb()(subscriptions=names)

    async def delete_topic(self, request: Any, _context: Any) -> Any:
        self.queues.topic(request.topic)
        del self.queues.topics[request.topic]
        for subscription in self.queues.subscriptions.values():
            if subscription.proto.topic == request.topic:
                subscription.proto.topic = DELETED_TOPIC
        return empty_pb2.Empty()

    async def publish(self, request: Any, _context: Any) -> Any:
        return types.PublishResponse.pb()(message_ids=self.queues.publish(request.topic, request.messages))

    async def create_subscription(self, request: Any, _context: Any) -> Any:
        if request.name in self.queues.subscriptions:
            raise _exists(request.name)
        self.queues.topic(request.topic)
        if not request.ack_deadline_seconds:
            request.ack_deadline_seconds = ACK_DEADLINE_SECONDS
        self.queues.subscriptions[request.name] = Subscription(request)
        return request

    async def get_subscription(self, request: Any, _context: Any) -> Any:
        return self.queues.subscription(request.subscription).proto

    async def list_subscriptions(self, request: Any, _context: Any) -> Any:
        prefix = f"{request.project}/subscriptions/"
        found = [item.proto for name, item in self.queues.subscriptions.items() if name.startswith(prefix)]
        return types.ListSubscriptionsResponse.pb()(subscriptions=found)

    async def delete_subscription(self, request: Any, _context: Any) -> Any:
        gone = self.queues.subscription(request.subscription)
        del self.queues.subscriptions[request.subscription]
        gone.deleted = True
        gone.arrived.set()
        return empty_pb2.Empty()

    async def acknowledge(self, request: Any, _context: Any) -> Any:
        self.queues.acknowledge(self.queues.subscription(request.subscription), request.ack_ids)
        return empty_pb2.Empty()

    async def modify_ack_deadline(self, request: Any, _context: Any) -> Any:
        subscription = self.queues.subscription(request.subscription)
        seconds = [request.ack_deadline_seconds] * len(request.ack_ids)
        self.queues.modify_deadline(subscription, request.ack_ids, seconds)
        return empty_pb2.Empty()

    async def seek(self, request: Any, _context: Any) -> Any:
        subscription = self.queues.subscription(request.subscription)
        if request.WhichOneof("target") != "time":
            raise _Refusal(grpc.StatusCode.UNIMPLEMENTED, "Only a seek to a time is served here.")
        self.queues.seek(subscription, request.time.ToNanoseconds() / 1e9)
        return types.SeekResponse.pb()()

    async def pull(self, request: Any, _context: Any) -> Any:
        subscription = self.queues.subscription(request.subscription)
        if request.max_messages < 1:
            raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, "max_messages must be positive.")
        limit = min(request.max_messages, MAX_MESSAGES)
        received = self.queues.take(subscription, limit)
        if not received and not request.return_immediately:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(subscription.arrived.wait(), PULL_WAIT_SECONDS)
            received = self.queues.take(subscription, limit)
        return types.PullResponse.pb()(received_messages=received)

    async def streaming_pull(self, requests: AsyncIterator[Any], context: Any) -> None:
        try:
            first = await anext(requests)
        except StopAsyncIteration:
            return
        try:
            subscription = self.queues.subscription(first.subscription)
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.details)
            return
        stream = next(self._streams)
        reader = asyncio.create_task(self._read_stream(requests, subscription))
        limit = first.max_outstanding_messages or MAX_MESSAGES
        try:
            while not subscription.deleted and not reader.done():
                held = sum(1 for lease in subscription.leases.values() if lease.stream == stream)
                batch = self.queues.take(
                    subscription,
                    min(limit - held, MAX_MESSAGES),
                    stream=stream,
                    deadline=first.stream_ack_deadline_seconds,
                )
                if batch:
                    await context.write(types.StreamingPullResponse.pb()(received_messages=batch))
                    continue
                subscription.arrived.clear()
                arrival = asyncio.create_task(subscription.arrived.wait())
                try:
                    await asyncio.wait({arrival, reader}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    arrival.cancel()
            if subscription.deleted:
                await context.abort(grpc.StatusCode.NOT_FOUND, _not_found(first.subscription).details)
        finally:
            reader.cancel()

    async def _read_stream(self, requests: AsyncIterator[Any], subscription: Subscription) -> None:
        async for request in requests:
            self.queues.acknowledge(subscription, request.ack_ids)
            self.queues.modify_deadline(subscription, request.modify_deadline_ack_ids, request.modify_deadline_seconds)


_Method = Callable[[Any, Any], Awaitable[Any]]


def _unary(method: _Method, request: Any) -> grpc.RpcMethodHandler:
    async def answer(message: Any, context: Any) -> Any:
        try:
            return await method(message, context)
        except _Refusal as refusal:
            await context.abort(refusal.code, refusal.details)

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request.pb().FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _handlers(servicer: _Servicer) -> list[grpc.GenericRpcHandler]:
    publisher = {
        "CreateTopic": _unary(servicer.create_topic, types.Topic),
        "GetTopic": _unary(servicer.get_topic, types.GetTopicRequest),
        "ListTopics": _unary(servicer.list_topics, types.ListTopicsRequest),
        "ListTopicSubscriptions": _unary(servicer.list_topic_subscriptions, types.ListTopicSubscriptionsRequest),
        "DeleteTopic": _unary(servicer.delete_topic, types.DeleteTopicRequest),
        "Publish": _unary(servicer.publish, types.PublishRequest),
    }
    subscriber = {
        "CreateSubscription": _unary(servicer.create_subscription, types.Subscription),
        "GetSubscription": _unary(servicer.get_subscription, types.GetSubscriptionRequest),
        "ListSubscriptions": _unary(servicer.list_subscriptions, types.ListSubscriptionsRequest),
        "DeleteSubscription": _unary(servicer.delete_subscription, types.DeleteSubscriptionRequest),
        "Acknowledge": _unary(servicer.acknowledge, types.AcknowledgeRequest),
        "ModifyAckDeadline": _unary(servicer.modify_ack_deadline, types.ModifyAckDeadlineRequest),
        "Seek": _unary(servicer.seek, types.SeekRequest),
        "Pull": _unary(servicer.pull, types.PullRequest),
        "StreamingPull": grpc.stream_stream_rpc_method_handler(
            servicer.streaming_pull,
            request_deserializer=types.StreamingPullRequest.pb().FromString,
            response_serializer=lambda message: message.SerializeToString(),
        ),
    }
    return [
        grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
        grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", subscriber),
    ]


class PubsubServer:
    """A running server. ``address`` is what ``PUBSUB_EMULATOR_HOST`` wants: ``127.0.0.1:PORT``."""

    def __init__(self, port: int, faults: SwitchableFaults | None) -> None:
        self.address = ""
        self._port = port
        self._faults = faults
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pubsub-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        queues = Queues(self._faults)
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)]
        )
        server.add_generic_rpc_handlers(_handlers(_Servicer(queues)))
        port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        await server.start()
        self.address = f"127.0.0.1:{port}"
        self._ready.set()
        while not self._stopping.is_set():
            queues.expire()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 0.1)
        await server.stop(grace=0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def stop(self) -> None:
        """End every connection and forget every message."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()


def start_pubsub_server(port: int = 0, faults: SwitchableFaults | None = None) -> PubsubServer:
    """Start a server on 127.0.0.1 in a thread of its own; port 0 takes a free one.

    Raises:
        RuntimeError: the port is taken.
    """
    return PubsubServer(port, faults)
