"""A small organization with all its past, and the side that serves it: the truth that the inventory is measured by.

What is faked is Google's end of the channel and nothing else: bytes of ``ListAssets`` pages, searches and histories, as
`AssetReader` and `read_delta` get them from a client. `serve` puts the same answers behind a real gRPC server, for
Google's own client, which is slower.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

import grpc
import orjson
from google.api_core import exceptions as google
from google.cloud.asset_v1.types import asset_service
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from demo.asset_server import encode_asset

RESOURCE, IAM_POLICY = "RESOURCE", "IAM_POLICY"
BUCKET, ACCOUNT, KEY = (
    "storage.googleapis.com/Bucket",
    "iam.googleapis.com/ServiceAccount",
    "iam.googleapis.com/ServiceAccountKey",
)
ORGANIZATION, FOLDERS = "organizations/1", ("folders/1", "folders/2")
SECOND = 1_000_000_000

#: (full resource name, content type)
Key = tuple[str, str]
#: (scope, asset type, content type)
Part = tuple[str, str, str]

NAMES: dict[str, str] = {
    **{f"//storage.googleapis.com/bucket-{n}": BUCKET for n in range(5)},
    **{f"//iam.googleapis.com/projects/p-1/serviceAccounts/account-{n}": ACCOUNT for n in range(4)},
    **{f"//iam.googleapis.com/projects/p-1/serviceAccounts/account-1/keys/key-{n}": KEY for n in range(4)},
}
WITH_POLICY = frozenset({BUCKET, ACCOUNT})


@dataclass(frozen=True)
class Version:
    """What an asset was from ``at_ns`` on; without data it was not there."""

    at_ns: int
    update_ns: int
    data: dict[str, Any] | None
    home: str


@dataclass
class Organization:
    """Every version of every asset, and the feed's messages about them."""

    rng: random.Random
    past: dict[Key, list[Version]] = field(default_factory=dict)
    serial: int = 0

    def now(self, key: Key) -> Version | None:
        """What an asset is now; ``None`` if it is not there."""
        return self.at(key, 2**63)

    def at(self, key: Key, at_ns: int) -> Version | None:
        """What an asset was at an instant."""
        found = None
        for version in self.past.get(key, ()):
            if version.at_ns > at_ns:
                break
            found = version
        return found if found is not None and found.data is not None else None

    def existing(self) -> dict[Key, Version]:
        return {key: version for key in self.past if (version := self.now(key)) is not None}

    def part(self, part: Part, at_ns: int) -> list[tuple[str, Version]]:
        """What a read of a part at an instant holds."""
        scope, asset_type, content_type = part
        return [
            (name, version)
            for name, kind in NAMES.items()
            if kind == asset_type
            and (version := self.at((name, content_type), at_ns)) is not None
            and scope in (ORGANIZATION, version.home)
        ]

    def ever(self, key: Key) -> list[dict[str, Any]]:
        """Each content that an asset ever had."""
        return [version.data for version in self.past.get(key, ()) if version.data is not None]

    def change(self, now_ns: int) -> list[bytes]:
        """One thing happens. Returns what an honest feed says of it."""
        rng = self.rng
        name = rng.choice(list(NAMES))
        key = (name, RESOURCE)
        before = self.now(key)
        if before is None:
            told = [self._set(key, now_ns, now_ns, self._data(name), rng.choice(FOLDERS))]
            if NAMES[name] in WITH_POLICY and rng.random() < 0.7:
                told.append(self._set((name, IAM_POLICY), now_ns, now_ns, self._policy(), self.past[key][-1].home))
            return told
        contents = [content for content in (RESOURCE, IAM_POLICY) if self.now((name, content)) is not None]
        action = rng.random()
        if action < 0.22:
            return [self._set((name, content), now_ns, now_ns, None, before.home) for content in contents]
        if action < 0.3:  # recreated: the same name, another id
            data = self._data(name)
            return [self._set(key, now_ns, now_ns, data, before.home)]
        if action < 0.45:
            home = FOLDERS[before.home == FOLDERS[0]]
            told = []
            for content in contents:
                version = self.now((name, content))
                assert version is not None
                told.append(self._set((name, content), now_ns, version.update_ns, version.data, home))
            return told if rng.random() < 0.6 else []  # a move may change no asset, so that no feed tells of it
        if action < 0.7 and NAMES[name] in WITH_POLICY:
            gone = IAM_POLICY in contents and rng.random() < 0.2
            policy = None if gone else self._policy()
            return [self._set((name, IAM_POLICY), now_ns, now_ns, policy, before.home)]
        data = {**before.data, "revision": now_ns // SECOND, "labels": self._labels()} if before.data else None
        if NAMES[name] == BUCKET and data:
            data["iamConfiguration"] = {"uniformBucketLevelAccess": {"enabled": rng.random() < 0.5}}
        return [self._set(key, now_ns, now_ns, data, before.home)]

    def _data(self, name: str) -> dict[str, Any]:
        self.serial += 1
        data: dict[str, Any] = {"id": str(self.serial), "name": name.rpartition("/")[2], "labels": self._labels()}
        if NAMES[name] == BUCKET:
            data["iamConfiguration"] = {"uniformBucketLevelAccess": {"enabled": self.rng.random() < 0.5}}
        if NAMES[name] == KEY:
            data["keyType"] = self.rng.choice(["USER_MANAGED", "SYSTEM_MANAGED"])
        return data

    def _labels(self) -> dict[str, str]:
        return {f"label-{n}": str(self.rng.randint(0, 9)) for n in range(self.rng.randint(0, 4))}

    def _policy(self) -> dict[str, Any]:
        member = self.rng.choice(["allUsers", "user:ann@example.com", "user:bob@example.com"])
        return {"version": 1, "bindings": [{"role": "roles/storage.objectViewer", "members": [member]}]}

    def _set(self, key: Key, at_ns: int, update_ns: int, data: dict[str, Any] | None, home: str) -> bytes:
        before = self.now(key)
        self.past.setdefault(key, []).append(Version(at_ns, update_ns, data, home))
        return _message(key, self.past[key][-1], before)


def _message(key: Key, version: Version, before: Version | None) -> bytes:
    """A feed's message: ``TemporalAsset`` as JSON."""
    document: dict[str, Any] = {
        "asset": _asset(key, version),
        "window": {"startTime": _rfc3339(version.at_ns)},
        "priorAssetState": "PRESENT" if before else "DOES_NOT_EXIST",
    }
    if before is not None:
        document["priorAsset"] = _asset(key, before)
    if version.data is None:
        document["deleted"] = True
    return orjson.dumps(document)


def _asset(key: Key, version: Version) -> dict[str, Any]:
    name, content_type = key
    asset: dict[str, Any] = {
        "name": name,
        "assetType": NAMES[name],
        "updateTime": _rfc3339(version.update_ns),
        "ancestors": ancestors_of(version.home),
    }
    if version.data is not None:
        if content_type == RESOURCE:
            asset["resource"] = {"version": "v1", "data": version.data}
        else:
            asset["iamPolicy"] = version.data
    return asset


def ancestors_of(home: str) -> list[str]:
    """Where an asset of a folder is, the nearest first."""
    return [f"projects/1{home[-1]}", home, ORGANIZATION]


def _rfc3339(ns: int) -> str:
    seconds, fraction = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


# --- the side that serves ---------------------------------------------------------------------------------------------


class Refusal(grpc.RpcError):  # type: ignore[misc]
    """An answer that is a gRPC status, with its details, as a client sees it."""

    def __init__(self, code: int, message: str, *details: Any) -> None:
        super().__init__(message)
        self._status = status_pb2.Status(code=code, message=message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self._status.details.append(packed)

    def code(self) -> grpc.StatusCode:
        return next(code for code in grpc.StatusCode if code.value[0] == self._status.code)

    def details(self) -> str:
        return self._status.message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return (("grpc-status-details-bin", self._status.SerializeToString()),)

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        """Give it as the answer of a real server."""
        context.abort_with_status(rpc_status.to_status(self._status))
        raise AssertionError("abort_with_status does not return")


def denied(scope: str) -> Refusal:
    info = error_details_pb2.ErrorInfo(reason="IAM_PERMISSION_DENIED", domain="cloudasset.googleapis.com")
    return Refusal(code_pb2.PERMISSION_DENIED, f"The caller does not have permission on {scope}.", info)


def disabled() -> Refusal:
    info = error_details_pb2.ErrorInfo(reason="SERVICE_DISABLED", domain="googleapis.com")
    return Refusal(code_pb2.PERMISSION_DENIED, "Cloud Asset API has not been used in project 11 before.", info)


def throttled(seconds: float) -> Refusal:
    delay = error_details_pb2.RetryInfo()
    delay.retry_delay.FromMilliseconds(int(seconds * 1000))
    return Refusal(code_pb2.RESOURCE_EXHAUSTED, "Quota exceeded for quota metric 'ListAssets Requests'.", delay)


def invalid(field_name: str, message: str) -> Refusal:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field_name, description=message)
    return Refusal(code_pb2.INVALID_ARGUMENT, message, error_details_pb2.BadRequest(field_violations=[violation]))


def expired() -> Refusal:
    return invalid("page_token", "The page token has expired.")


def unknown_type(asset_type: str) -> Refusal:
    return invalid("asset_types", f"The asset type {asset_type!r} is not supported.")


def timed_out() -> Refusal:
    return Refusal(code_pb2.DEADLINE_EXCEEDED, "Deadline Exceeded")


def unavailable() -> Refusal:
    return Refusal(code_pb2.UNAVAILABLE, "The service is currently unavailable.")


@dataclass
class Faults:
    """What is wrong on the serving side. The sets last until they are emptied; ``next_calls`` holds what the calls that
    come say (``None``: they work), the first one first."""

    denied: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    disabled: bool = False
    next_calls: list[Refusal | None] = field(default_factory=list)
    expire_next_token: bool = False
    #: Nanoseconds by which a read's time is before now, by which its content is older than that (a lie), and by which
    #: a search is behind.
    read_lag_ns: int = 0
    lie_ns: int = 0
    search_lag_ns: int = 0
    whole_seconds: bool = False

    def end(self) -> None:
        """All is well again."""
        for name, value in vars(Faults()).items():
            setattr(self, name, value)


@dataclass
class Read:
    """A read that began: its pages belong to one read time. ``names``: what the pages that were taken told."""

    part: Part
    read_ns: int
    order: int
    names: set[str] = field(default_factory=set)
    odd: bool = False
    complete: bool = False


@dataclass
class Served:
    """What the serving side remembers of what it said."""

    reads: list[Read] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    searches: int = 0
    histories: int = 0
    #: Versions that a history told: (key, instant, whether it was there).
    told: list[tuple[Key, int, bool]] = field(default_factory=list)

    def complete(self, part: Part) -> dict[int, Read]:
        return {read.read_ns: read for read in self.reads if read.part == part and read.complete}

    def newest(self, part: Part) -> Read | None:
        return next((read for read in reversed(self.reads) if read.part == part), None)


class Server:
    """Answers like Cloud Asset Inventory, for a client that is `client()`.

    Args:
        now_ns: the clock, in nanoseconds; each question moves it.
        before_answer: called before an answer is taken: others act meanwhile, or the process is killed.
    """

    def __init__(
        self,
        organization: Organization,
        faults: Faults,
        rng: random.Random,
        now_ns: Callable[[], int],
        before_answer: Callable[[], None],
    ) -> None:
        self.organization, self.faults, self.rng, self.now_ns = organization, faults, rng, now_ns
        self.before_answer = before_answer
        self.served = Served()
        self.open: dict[str, tuple[Read, list[bytes], list[str]]] = {}
        self.asked: list[_Call] = []
        self.alone = threading.Lock()

    def client(self, _endpoint: str | None = None) -> _Client:
        return _Client(self)

    # --- ListAssets ---

    def list_assets(self, body: bytes) -> tuple[bytes, Callable[[], None]]:
        """The answer, and what is to be remembered once it is taken."""
        request = asset_service.ListAssetsRequest.pb().FromString(body)
        now_ns = self.now_ns()
        self.served.calls.append(now_ns)
        (asset_type,) = request.asset_types
        part = (request.parent, asset_type, asset_service.ContentType(request.content_type).name)
        if request.page_token:
            assert request.page_token in self.open, "a token was asked for twice, or is of another read"
            read, bodies, names = self.open.pop(request.page_token)
            asked_ns = request.read_time.seconds * SECOND + request.read_time.nanos
            assert (read.part, read.read_ns) == (part, asked_ns), "two reads are mixed"
        else:
            read_ns = now_ns - self.faults.read_lag_ns
            read = Read(part, read_ns, len(self.served.reads))
            self.served.reads.append(read)
            bodies, names = self._bodies(part, read)
        self._check(request.parent, asset_type, is_next=bool(request.page_token))
        size = request.page_size
        page, rest = bodies[:size], bodies[size:]
        answer = asset_service.ListAssetsResponse.pb()()
        answer.read_time.FromNanoseconds(read.read_ns)
        if rest:
            answer.next_page_token = f"token-{self.rng.getrandbits(60)}"
            self.open[answer.next_page_token] = (read, rest, names[size:])

        def taken() -> None:
            read.names.update(names[:size])
            read.complete = not rest

        return answer.SerializeToString() + b"".join(page), taken

    def _bodies(self, part: Part, read: Read) -> tuple[list[bytes], list[str]]:
        """The assets as they go over the wire, the entries of each map in any order."""
        bodies, names = [], []
        for name, version in self.organization.part(part, read.read_ns - self.faults.lie_ns):
            asset = _shuffled(_asset((name, part[2]), version), self.rng)
            bodies.append(_framed(encode_asset(asset, part[2])))
            names.append(name)
        if part[1] in self.faults.odd:
            bodies.append(_framed(b"\x12" + bytes([len(part[1])]) + part[1].encode()))
            names.append("")
            read.odd = True
        return bodies, names

    def _check(self, scope: str, asset_type: str | None, *, is_next: bool = False) -> None:
        faults = self.faults
        if faults.next_calls:
            refusal = faults.next_calls.pop(0)
            if refusal is not None:
                raise refusal
        if faults.disabled:
            raise disabled()
        if {scope, asset_type} & faults.denied:
            raise denied(scope)
        if asset_type in faults.unknown:
            raise unknown_type(str(asset_type))
        if is_next and faults.expire_next_token:
            faults.expire_next_token = False
            raise expired()

    # --- searches and histories ---

    def search(self, request: Any) -> Any:
        self.before_answer()
        self.served.searches += 1
        at_ns = self.now_ns() - self.faults.search_lag_ns
        self._check_types(request.scope, request.asset_types)
        since_ns = int(request.query.removeprefix("updateTime>=")) * SECOND
        answer = asset_service.SearchAllResourcesResponse.pb()()
        for asset_type in request.asset_types:
            for name, version in self.organization.part((request.scope, asset_type, RESOURCE), at_ns):
                if version.update_ns >= since_ns:
                    home = ancestors_of(version.home)
                    found = answer.results.add(
                        name=name, asset_type=asset_type, project=home[0], organization=ORGANIZATION
                    )
                    whole = version.update_ns // SECOND * SECOND
                    found.update_time.FromNanoseconds(whole if self.faults.whole_seconds else version.update_ns)
        return answer

    def history(self, request: Any) -> Any:
        self.before_answer()
        self.served.histories += 1
        now_ns = self.now_ns()
        assert not request.parent.startswith("folders/"), "a history has no folder"
        self._check_types(request.parent, dict.fromkeys(NAMES[name] for name in request.asset_names))
        since_ns = request._pb.read_time_window.start_time.ToNanoseconds()
        answer = asset_service.BatchGetAssetsHistoryResponse.pb()()
        for name in request.asset_names:
            versions = self.organization.past[name, RESOURCE]
            for version, after in zip(versions, [*versions[1:], None], strict=True):
                if version.at_ns > now_ns or (after is not None and after.at_ns <= since_ns):
                    continue
                item = answer.assets.add()
                item.window.start_time.FromNanoseconds(version.at_ns)
                asset = _asset((name, RESOURCE), version)
                item.deleted = version.data is None
                content_type = None if version.data is None else RESOURCE
                item.asset.ParseFromString(encode_asset(asset, content_type))
                self.served.told.append(((name, RESOURCE), version.at_ns, version.data is not None))
        return answer

    def _check_types(self, scope: str, asset_types: Iterable[str]) -> None:
        """The same for a call about several types."""
        later: list[Refusal | None] = self.faults.next_calls[1:]
        try:
            for asset_type in asset_types:
                self._check(scope, asset_type)
                self.faults.next_calls = []
        except Refusal as refusal:
            raise google.from_grpc_error(refusal) from refusal
        finally:
            self.faults.next_calls = later

    def refuse_or_answer(self, call: Callable[[], Any]) -> Any:
        """An answer for a client in another thread, or the `Refusal`."""
        with self.alone:
            try:
                return call()
            except google.GoogleAPICallError as error:
                raise error.errors[0] from error

    def assert_all_calls_ended(self) -> None:
        assert all(call.ended for call in self.asked), "a call was left open"
        self.asked.clear()


def _framed(body: bytes) -> bytes:
    """An asset as a field of a page."""
    size, out = len(body), bytearray(b"\x12")
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + body


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: _shuffled(item, rng) for key, item in items}
    return value


@dataclass
class _Call:
    """A call under way, like that of a channel. The other side answers when it is asked."""

    server: Server
    answer: bytes | Refusal
    taken: Callable[[], None] = lambda: None
    ended: bool = False

    def result(self) -> bytes:
        self.server.before_answer()
        self.ended = True
        if isinstance(self.answer, Refusal):
            raise self.answer
        self.taken()
        return self.answer

    def cancel(self) -> None:
        self.ended = True


@dataclass(frozen=True)
class _Page:
    _pb: Any


@dataclass(frozen=True)
class _Pages:
    pages: Iterable[_Page]


class _Client:
    """As much of an ``AssetServiceClient`` as the package uses. It is also its transport and its channel."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.transport = self.grpc_channel = self

    def close(self) -> None:
        self._server.assert_all_calls_ended()

    def unary_unary(self, method: str, **_codecs: Any) -> _Client:
        assert method == "/google.cloud.asset.v1.AssetService/ListAssets"
        return self

    def future(self, body: bytes, *, timeout: float, metadata: Any) -> _Call:
        assert timeout > 0
        assert metadata, "a call says where it is to go"
        try:
            answer, taken = self._server.list_assets(body)
            call = _Call(self._server, answer, taken)
        except Refusal as refusal:
            call = _Call(self._server, refusal)
        self._server.asked.append(call)
        return call

    def search_all_resources(self, *, request: Any, retry: Any, timeout: float) -> _Pages:
        assert retry is None
        assert timeout > 0
        return _Pages([_Page(self._server.search(request))])

    def batch_get_assets_history(self, *, request: Any, retry: Any, timeout: float) -> _Page:
        assert retry is None
        assert timeout > 0
        return _Page(self._server.history(request))


@contextmanager
def serve(server: Server) -> Iterator[str]:
    """The same answers over gRPC, at the endpoint that is yielded. A page that was sent counts as taken."""

    def list_assets(body: bytes) -> bytes:
        answer, taken = server.list_assets(body)
        taken()
        return answer

    def answering(call: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return server.refuse_or_answer(lambda: call(request))
            except Refusal as refusal:
                refusal.abort(context)

        return answer

    types = asset_service
    handlers = {
        "ListAssets": grpc.unary_unary_rpc_method_handler(answering(list_assets)),
        "SearchAllResources": grpc.unary_unary_rpc_method_handler(
            answering(server.search),
            types.SearchAllResourcesRequest.deserialize,
            lambda answer: answer.SerializeToString(),
        ),
        "BatchGetAssetsHistory": grpc.unary_unary_rpc_method_handler(
            answering(server.history),
            types.BatchGetAssetsHistoryRequest.deserialize,
            lambda answer: answer.SerializeToString(),
        ),
    }
    with ThreadPoolExecutor(2) as pool:
        running = grpc.server(pool)
        service = "google.cloud.asset.v1.AssetService"
        running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = running.add_insecure_port("127.0.0.1:0")
        running.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.stop(0).wait()
