"""Pages of one read time, one call ahead, within the quota; a read that is given up leaves no call behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.cloud.asset_v1 import Asset, ListAssetsRequest, ListAssetsResponse
from google.rpc import code_pb2

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.reader import AssetReader, make_client
from tests.integration.inventory_world import Refusal, denied, expired, throttled

PART = ("folders/1", "compute.googleapis.com/Network", "RESOURCE")


@dataclass
class Call:
    request: Any
    answer: bytes | Refusal
    taken: bool = False
    cancelled: bool = False

    def result(self) -> bytes:
        self.taken = True
        if isinstance(self.answer, Refusal):
            raise self.answer
        return self.answer

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Channel:
    """The channel of a client, which gives the answers that it was given: that of each call in its turn."""

    answers: list[bytes | Refusal]
    calls: list[Call] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    routes: list[Any] = field(default_factory=list)

    @property
    def transport(self) -> Channel:
        return self

    @property
    def grpc_channel(self) -> Channel:
        return self

    def unary_unary(self, method: str, **_codecs: Any) -> Channel:
        assert method == "/google.cloud.asset.v1.AssetService/ListAssets"
        return self

    def future(self, body: bytes, *, timeout: float, metadata: Any) -> Call:
        self.timeouts.append(timeout)
        self.routes.append(metadata)
        self.calls.append(Call(ListAssetsRequest.deserialize(body), self.answers[len(self.calls)]))
        return self.calls[-1]

    @property
    def left_open(self) -> list[Call]:
        return [call for call in self.calls if not call.taken and not call.cancelled]


def page(read_s: int, *names: str, token: str = "") -> bytes:
    assets = [Asset(name=name) for name in names]
    answer = ListAssetsResponse(read_time={"seconds": read_s} if read_s else None, assets=assets, next_page_token=token)
    body: bytes = ListAssetsResponse.serialize(answer)
    return body


def reader(channel: Channel, permit: Callable[[bool], bool] = lambda _: True) -> AssetReader:
    return AssetReader(channel, page_size=7, timeout_seconds=11, permit=permit)


def names(body: bytes) -> str:
    return str(Asset.deserialize(body).name)


def test_pages_are_pinned_to_the_first_ones_read_time() -> None:
    channel = Channel([page(50, "a", "b", token="t1"), page(50, "c", token="t2"), page(50, "d")])
    pages = list(reader(channel).read(PART))
    assert [[names(body) for body in item.bodies] for item in pages] == [["a", "b"], ["c"], ["d"]]
    assert [(item.read_ns, item.last, item.calls) for item in pages] == [
        (50 * 10**9, False, 1),
        (50 * 10**9, False, 2),
        (50 * 10**9, True, 3),
    ]
    first, *others = [call.request for call in channel.calls]
    assert (first.parent, list(first.asset_types), first.content_type.name) == (PART[0], [PART[1]], PART[2])
    assert (first.page_size, first.page_token) == (7, "")
    assert not ListAssetsRequest.pb(first).HasField("read_time")
    assert [(item.page_token, item.read_time.timestamp()) for item in others] == [("t1", 50), ("t2", 50)]
    assert channel.timeouts == [11, 11, 11]
    assert channel.routes[0] == (("x-goog-request-params", "parent=folders/1"),)


def test_the_next_page_is_asked_for_before_the_one_before_it_is_worked_on() -> None:
    channel = Channel([page(50, "a", token="t1"), page(50, "b", token="t2"), page(50, "c")])
    pages = reader(channel).read(PART)
    asked = []
    for _ in pages:
        asked.append(len(channel.calls))
    assert asked == [2, 3, 3]


def test_without_room_in_the_quota_it_waits_instead_of_reading_ahead() -> None:
    asked: list[bool] = []

    def permit(wait: bool) -> bool:
        asked.append(wait)
        return wait  # whoever does not want to wait gets none

    channel = Channel([page(50, "a", token="t1"), page(50, "b", token="t2"), page(50, "c")])
    seen = []
    for item in reader(channel, permit).read(PART):
        seen.append((names(item.bodies[0]), len(channel.calls)))
    assert seen == [("a", 1), ("b", 2), ("c", 3)]
    assert asked == [False, True] * 3, "each call is made when it was granted, and not before"


def test_each_call_has_a_permit_of_its_own() -> None:
    granted = []
    channel = Channel([page(50, token="t1"), expired(), page(60, token="t2"), page(60)])
    list(reader(channel, lambda wait: granted.append(wait) or True).read(PART))
    assert len(granted) == len(channel.calls) == 4


def test_a_permit_that_is_refused_makes_no_call() -> None:
    def permit(_wait: bool) -> bool:
        raise SyncError("is used up", where="quota", remedy="wait", reason=Reason.QUOTA)

    channel = Channel([])
    with pytest.raises(SyncError):
        list(reader(channel, permit).read(PART))
    assert channel.calls == []


def test_an_expired_token_starts_over_with_a_new_read_time() -> None:
    channel = Channel([page(50, "a", token="t1"), expired(), page(60, "a", token="t2"), page(60, "b")])
    pages = list(reader(channel).read(PART))
    assert [(item.read_ns // 10**9, [names(body) for body in item.bodies], item.last) for item in pages] == [
        (50, ["a"], False),
        (60, ["a"], False),
        (60, ["b"], True),
    ]
    assert pages[-1].calls == len(channel.calls) == 4, "the call that was refused counts"
    restarted = channel.calls[2].request
    assert restarted.page_token == ""
    assert not ListAssetsRequest.pb(restarted).HasField("read_time"), "the new read is not pinned to the old time"


def test_it_starts_over_a_bounded_number_of_times() -> None:
    channel = Channel([answer for time in range(50, 80) for answer in (page(time, token="t"), expired())])
    with pytest.raises(SyncError) as caught:
        list(reader(channel).read(PART))
    assert caught.value.reason is Reason.TOKEN_EXPIRED
    assert len(channel.calls) == 6


@pytest.mark.parametrize(
    ("refusal", "reason"), [(denied("folders/1"), Reason.PERMISSION_DENIED), (throttled(9), Reason.QUOTA)]
)
def test_any_other_error_ends_the_read_and_is_never_its_last_page(refusal: Refusal, reason: Reason) -> None:
    channel = Channel([page(50, "a", token="t1"), refusal])
    pages = reader(channel).read(PART)
    assert not next(pages).last
    with pytest.raises(SyncError) as caught:
        next(pages)
    assert caught.value.reason is reason
    assert caught.value.retry_after == (9 if reason is Reason.QUOTA else None)


def test_the_first_page_is_asked_for_before_somebody_takes_it_and_no_more_when_nobody_does() -> None:
    channel = Channel([page(50, "a")])
    pages = reader(channel).read(PART)
    assert len(channel.left_open) == 1
    pages.close()
    assert channel.left_open == []
    assert channel.calls[0].cancelled


@pytest.mark.parametrize("end", ["closed", "thrown into"])
def test_a_read_that_is_given_up_cancels_the_call_that_is_under_way(end: str) -> None:
    channel = Channel([page(50, "a", token="t1"), page(50, "b")])
    pages = reader(channel).read(PART)
    next(pages)
    assert len(channel.left_open) == 1
    if end == "closed":
        pages.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            pages.throw(KeyboardInterrupt)
    assert channel.left_open == []


def test_an_answer_without_a_read_time_proves_nothing() -> None:
    with pytest.raises(SyncError, match="carries no read time"):
        list(reader(Channel([page(0, "a")])).read(PART))


def test_a_status_that_nobody_foresaw_is_an_error_too() -> None:
    with pytest.raises(SyncError) as caught:
        list(reader(Channel([Refusal(code_pb2.DATA_LOSS, "lost")])).read(PART))
    assert caught.value.reason is Reason.INTERNAL


def test_a_client_of_an_endpoint_without_tls_takes_pages_of_any_size() -> None:
    client = make_client("http://127.0.0.1:1")
    assert isinstance(client.transport.grpc_channel, grpc.Channel)
    client.transport.close()


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_url_is_a_mistake_of_the_configuration(endpoint: str) -> None:
    with pytest.raises(SyncError, match="is not a URL") as caught:
        make_client(endpoint)
    assert caught.value.reason is Reason.INVALID
