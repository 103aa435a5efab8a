"""Reads Cloud Asset Inventory: pages of one part, pinned to one read time, as observations.

The Google client does the transport. Its retries are off: there is one retry policy (`sync/retry.py`), and an error is
data for the coverage ledger first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from google.api_core import exceptions as google
from google.protobuf.json_format import MessageToDict

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.errors import classify
from lz_sync_dagster.sync.state.observation import ContentType, InvalidAsset, Observation, Source, observe
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.timing import format_ns

#: How often a part is read anew, with a new read time, because its page token expired.
_MAX_RESTARTS = 2
#: Doubles are exact integers below this.
_EXACT = 2**53
#: What converting an asset that is not of the expected form raises.
_ODD = (ValueError, TypeError, OverflowError, RecursionError)
_KEY_CAP = 512


@dataclass(frozen=True, slots=True)
class Unusable:
    """An asset that was read but cannot be used. ``payload`` is its JSON, not redacted: it must be before it is
    kept."""

    key: str
    error: InvalidAsset
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a part. All pages of one ``read_ns`` belong together; a new ``read_ns`` starts over."""

    read_ns: int
    observations: list[Observation]
    unusable: list[Unusable]
    last: bool


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
    import grpc
    from google.cloud.asset_v1.services.asset_service.transports import AssetServiceGrpcTransport

    channel = grpc.insecure_channel(url.netloc, options=[("grpc.max_receive_message_length", -1)])
    return AssetServiceClient(transport=AssetServiceGrpcTransport(channel=channel))


class AssetReader:
    """Reads parts through an `AssetServiceClient`."""

    def __init__(self, client: Any, *, page_size: int, timeout_seconds: float) -> None:
        self._client = client
        self._page_size = page_size
        self._timeout = timeout_seconds

    def close(self) -> None:
        """Close the client's channel."""
        self._client.transport.close()

    def read(self, part: Part) -> Iterator[Page]:
        """Yield the pages of a part. An expired page token starts over, with a new read time, a bounded number of
        times.

        Raises:
            SyncError: classified, with the remedy; the pages so far are valid observations of an incomplete read.
        """
        restarts = 0
        while True:
            try:
                yield from self._read_once(part)
                return
            except SyncError as error:
                if error.reason is not Reason.TOKEN_EXPIRED or restarts >= _MAX_RESTARTS:
                    raise
                restarts += 1

    def _read_once(self, part: Part) -> Iterator[Page]:
        from google.cloud.asset_v1 import ListAssetsRequest

        scope, asset_type, content_type = part
        token, read_time, read_ns = "", None, 0
        while True:
            request = ListAssetsRequest(
                parent=scope,
                asset_types=[asset_type],
                content_type=content_type,
                page_size=self._page_size,
                page_token=token,
            )
            if read_time is not None:
                request._pb.read_time.CopyFrom(read_time)
            try:
                response = next(
                    iter(self._client.list_assets(request=request, retry=None, timeout=self._timeout).pages)
                )._pb
            except (google.GoogleAPICallError, google.RetryError) as error:
                raise classify(error, scope=scope, asset_type=asset_type) from error
            if read_time is None:
                read_time = response.read_time
                read_ns = read_time.seconds * 1_000_000_000 + read_time.nanos
                if not read_ns:
                    raise SyncError(
                        "the answer carries no read time, so it proves nothing",
                        where=f"{asset_type} in {scope}",
                        remedy="check google_cloud.asset_endpoint",
                        reason=Reason.INTERNAL,
                    )
            token = response.next_page_token
            yield _page(response, part, read_ns, last=not token)
            if not token:
                return


def _page(response: Any, part: Part, read_ns: int, *, last: bool) -> Page:
    scope, _, content_type = part
    observations: list[Observation] = []
    unusable: list[Unusable] = []
    for index, asset in enumerate(response.assets):
        known = body = {"name": asset.name, "assetType": asset.asset_type}
        try:
            body = asset_body(asset, content_type)
            observations.append(
                observe(
                    body,
                    scope=scope,
                    observed_ns=read_ns,
                    source=Source.SNAPSHOT,
                    content_type=ContentType(content_type),
                )
            )
        except InvalidAsset as error:
            unusable.append(Unusable(letter_key(part, asset.name or str(index)), error, body))
        except _ODD as error:
            unfit = InvalidAsset(f"cannot be read ({type(error).__name__}: {error})", f"asset {asset.name[:80]!r}")
            unusable.append(Unusable(letter_key(part, asset.name or str(index)), unfit, known))
    return Page(read_ns, observations, unusable, last)


def letter_key(part: Part, name: str) -> str:
    """What an asset of a part is called among the dead letters: text without NUL that fits, and no other's."""
    key = f"{'/'.join(part)}#{name}"
    if len(key) <= _KEY_CAP and "\x00" not in key:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{key.replace(chr(0), '')[: _KEY_CAP - len(digest) - 1]}#{digest}"


def asset_body(asset: Any, content_type: str) -> dict[str, Any]:
    """An ``Asset`` protobuf message in Cloud Asset's JSON form: only the parts that an observation needs."""
    body: dict[str, Any] = {
        "name": asset.name,
        "assetType": asset.asset_type,
        "ancestors": list(asset.ancestors),
    }
    if asset.HasField("update_time"):
        moment = asset.update_time
        body["updateTime"] = format_ns(moment.seconds * 1_000_000_000 + moment.nanos)
    if content_type == ContentType.RESOURCE:
        body["resource"] = {"location": asset.resource.location, "data": _struct(asset.resource.data)}
    elif content_type == ContentType.IAM_POLICY:
        body["iamPolicy"] = MessageToDict(asset.iam_policy)
    else:
        body["orgPolicy"] = [MessageToDict(policy) for policy in asset.org_policy]
    return body


def _struct(struct: Any) -> dict[str, Any]:
    """A ``Struct`` as a dict; several times faster than ``MessageToDict``."""
    return {key: _field(value) for key, value in struct.fields.items()}


def _field(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return [_field(item) for item in value.list_value.values]
    return None
