"""Reads Cloud Asset Inventory: pages of one part, pinned to one read time, as bytes.

Google's client makes the channel, so credentials, endpoints and quota projects are its own. Its retries are off: there
is one retry policy (`sync/retry.py`), and an error is data for the coverage ledger first. The next page is on its way
while the one before it is worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.api_core import exceptions as google
from google.api_core.gapic_v1 import routing_header

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import wire
from lz_sync_dagster.sync.inventory.errors import classify
from lz_sync_dagster.sync.state.reducer import Part

#: How often a part is read anew, with a new read time, because its page token expired.
_MAX_RESTARTS = 2
_LIST_ASSETS = "/google.cloud.asset.v1.AssetService/ListAssets"

#: Whether the quota allows one more call now; asked with ``True``, it waits until it does.
Permit = Callable[[bool], bool]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a part: the bytes of its assets. All pages of one ``read_ns`` belong together; a new ``read_ns``
    starts over. ``calls``: how many the read took so far."""

    read_ns: int
    bodies: list[bytes]
    last: bool
    calls: int


def make_client(endpoint: str | None) -> Any:
    """An `AssetServiceClient`: Google's, or the one at ``http://host:port`` without TLS and credentials.

    Raises:
        SyncError: there are no credentials, or the endpoint is not a URL.
    """
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud.asset_v1 import AssetServiceClient

    if endpoint is None:
        try:
            return AssetServiceClient()
        except DefaultCredentialsError as error:
            raise SyncError(
                "no Google Cloud credentials were found",
                where="Cloud Asset Inventory",
                remedy="run 'gcloud auth application-default login', or run where a service account is attached",
                reason=Reason.UNAUTHENTICATED,
            ) from error
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise SyncError(
            "is not a URL",
            where=f"google_cloud.asset_endpoint {endpoint!r}",
            remedy="use https://host or http://host:port",
            reason=Reason.INVALID,
        )
    if url.scheme == "https":
        return AssetServiceClient(client_options={"api_endpoint": url.netloc})
    from google.cloud.asset_v1.services.asset_service.transports import AssetServiceGrpcTransport

    channel = grpc.insecure_channel(url.netloc, options=[("grpc.max_receive_message_length", -1)])
    return AssetServiceClient(transport=AssetServiceGrpcTransport(channel=channel))


class AssetReader:
    """Reads parts through the channel of an `AssetServiceClient`.

    Args:
        permit: asked before each call.
        refused: told of a call that was refused for its quota, with the wait (seconds) that was asked for, if any.
    """

    def __init__(
        self,
        client: Any,
        *,
        page_size: int,
        timeout_seconds: float,
        permit: Permit = lambda _: True,
        refused: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        self._page_size = page_size
        self._timeout = timeout_seconds
        self._permit = permit
        self._refused = refused
        self._list_assets = client.transport.grpc_channel.unary_unary(
            _LIST_ASSETS, request_serializer=bytes, response_deserializer=bytes
        )

    def read(self, part: Part) -> Generator[Page]:
        """The pages of a part; the first one is asked for now, if the quota allows it, until the generator is closed.
        An expired page token starts over, with a new read time, a bounded number of times.

        Raises:
            SyncError: when the pages are taken; classified, with the remedy. The pages so far are valid observations of
                an incomplete read.
        """
        pages = self._pages(part)
        next(pages)
        return pages

    def _pages(self, part: Part) -> Generator[Any]:
        """At first nothing, when the first page is asked for, and then the pages."""
        restarts = calls = 0
        asked = self._ask(part, "", b"") if self._permit(False) else None
        try:
            yield None
        except GeneratorExit:
            if asked is not None:
                asked.cancel()
            raise
        while True:
            try:
                for page in self._read_once(part, asked, calls):
                    calls = page.calls
                    yield page
                return
            except SyncError as error:
                if error.reason is not Reason.TOKEN_EXPIRED or restarts >= _MAX_RESTARTS:
                    raise
                restarts += 1
                calls += 1
                asked = None

    def _read_once(self, part: Part, asked: Any, calls: int) -> Iterator[Page]:
        if asked is None:
            self._permit(True)
            asked = self._ask(part, "", b"")
        read_time = b""
        try:
            while True:
                calls += 1
                page = self._answer(part, asked)
                if not read_time:
                    read_time = page.read_time
                token = page.next_page_token
                ahead = bool(token) and self._permit(False)
                if ahead:
                    asked = self._ask(part, token, read_time)
                yield Page(_read_ns(part, read_time), list(page.assets), not token, calls)
                if not token:
                    return
                if not ahead:
                    self._permit(True)
                    asked = self._ask(part, token, read_time)
        finally:
            asked.cancel()

    def _ask(self, part: Part, token: str, read_time: bytes) -> Any:
        from google.cloud.asset_v1 import ListAssetsRequest

        scope, asset_type, content_type = part
        request = ListAssetsRequest.pb()(parent=scope, asset_types=[asset_type], page_size=self._page_size)
        request.content_type = (
            ListAssetsRequest.pb()
            .DESCRIPTOR.fields_by_name["content_type"]
            .enum_type.values_by_name[content_type]
            .number
        )
        if token:
            request.page_token = token
            request.read_time.ParseFromString(read_time)
        route = routing_header.to_grpc_metadata((("parent", scope),))  # type: ignore[no-untyped-call]
        return self._list_assets.future(request.SerializeToString(), timeout=self._timeout, metadata=(route,))

    def _answer(self, part: Part, asked: Any) -> Any:
        try:
            return wire.Page.FromString(asked.result())
        except grpc.RpcError as error:
            raised = google.from_grpc_error(error)  # type: ignore[no-untyped-call]
            classified = classify(raised, scope=part[0], asset_type=part[1], content_type=part[2])
            if classified.reason is Reason.QUOTA:
                self._refused(classified.retry_after)
            raise classified from raised


def _read_ns(part: Part, read_time: bytes) -> int:
    from google.protobuf.timestamp_pb2 import Timestamp

    moment = Timestamp.FromString(read_time)
    read_ns = moment.seconds * 1_000_000_000 + moment.nanos
    if not read_ns:
        raise SyncError(
            "the answer carries no read time, so it proves nothing",
            where=f"{part[1]} in {part[0]}",
            remedy="check google_cloud.asset_endpoint",
            reason=Reason.INTERNAL,
        )
    return read_ns
