"""Cloud Asset Inventory over gRPC, as far as the demo needs it, for Google's own client: list, search, history, feeds,
exports.

What is served is a `demo.organization.Organization`. Wire rules (limits, errors, tokens) are Google's; the faults are
`demo.faults`'. Assets go out as protobuf bytes that are encoded directly and kept in a bounded cache, since building
messages object by object is what a fake of this size would spend its time on.
"""

from __future__ import annotations

import base64
import itertools
import random
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NoReturn

import grpc
import orjson
from google.cloud.asset_v1.types import asset_service, assets
from google.cloud.orgpolicy.v1 import orgpolicy_pb2
from google.iam.v1 import policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, empty_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status  # type: ignore[import-untyped]

from demo.faults import Faults
from demo.organization import (
    BASE_END_NS,
    CONTENT_TYPES,
    RESOURCE,
    SHARED_PARTS,
    START,
    Organization,
    Position,
)
from demo.relations import RELATIONSHIP, SOURCES, Relation, relations_of
from demo.storage_server import Storage
from lz_sync_dagster.sync.timing import Clock, parse_ns, to_ns, utcnow

Json = dict[str, Any]
#: Where a listing goes on: at which type, at which of its entries, and how many relations of that one were told.
_Place = tuple[int, Position, int]

#: Google's limits.
MAX_LIST_PAGE, DEFAULT_LIST_PAGE = 1000, 100
MAX_SEARCH_PAGE, DEFAULT_SEARCH_PAGE = 500, 100
MAX_HISTORY_NAMES = 100
TOKEN_LIFETIME_NS = 72 * 3600 * 1_000_000_000

#: A page ends before it gets larger than this, whatever its page size: gRPC clients refuse 4 MiB by default.
_PAGE_BYTES = 3 * 1024 * 1024
#: What the encoded assets that are kept may take, by default: some 150,000 of them.
CACHE_BYTES = 256 * 1024 * 1024
#: An object of an export ends before it gets larger than this.
SHARD_BYTES = 64 * 1024 * 1024
#: While a page token is to expire, pages are short, so that there is a token at all.
_PAGE_WHILE_TOKENS_EXPIRE = 20

#: Types that Cloud Asset knows and this organization may have none of.
_OTHER_TYPES = frozenset(
    {
        "apikeys.googleapis.com/Key",
        "appengine.googleapis.com/Application",
        "artifactregistry.googleapis.com/Repository",
        "bigquery.googleapis.com/Table",
        "cloudfunctions.googleapis.com/Function",
        "cloudkms.googleapis.com/KeyRing",
        "compute.googleapis.com/Address",
        "compute.googleapis.com/Image",
        "compute.googleapis.com/Route",
        "compute.googleapis.com/Router",
        "compute.googleapis.com/SslPolicy",
        "compute.googleapis.com/Snapshot",
        "dataflow.googleapis.com/Job",
        "dataproc.googleapis.com/Cluster",
        "dns.googleapis.com/ManagedZone",
        "dns.googleapis.com/Policy",
        "iam.googleapis.com/Role",
        "logging.googleapis.com/LogBucket",
        "logging.googleapis.com/LogMetric",
        "logging.googleapis.com/LogSink",
        "pubsub.googleapis.com/Subscription",
        "pubsub.googleapis.com/Topic",
        "run.googleapis.com/Service",
        "secretmanager.googleapis.com/Secret",
        "serviceusage.googleapis.com/Service",
        "spanner.googleapis.com/Database",
    }
)

_PERMISSIONS = {
    "RESOURCE": "cloudasset.assets.listResource",
    "IAM_POLICY": "cloudasset.assets.listIamPolicy",
    "ORG_POLICY": "cloudasset.assets.listOrgPolicy",
    "RELATIONSHIP": "cloudasset.assets.listResource",
}
_PROJECT = "projects/123456789012"

# --- wire format ------------------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS = tuple(_varint(number) for number in range(1 << 14))


def _sized(tag: bytes, body: bytes) -> bytes:
    """A length-delimited field."""
    size = len(body)
    return tag + (_VARINTS[size] if size < 1 << 14 else _varint(size)) + body


#: Tag and length of fields up to 16 KiB, ready made.
_ITEM, _ENTRY_VALUE, _STRING = (tuple(tag + size for size in _VARINTS) for tag in (b"\x0a", b"\x12", b"\x1a"))
_SHORT = len(_VARINTS) - 64

#: Keys whose values are few, so that whole entries are kept.
_WORDS = frozenset(
    {
        "cost-center",
        "cpuPlatform",
        "data-class",
        "env",
        "interface",
        "key",
        "kind",
        "locationType",
        "mode",
        "networkTier",
        "onHostMaintenance",
        "owner",
        "physicalBlockSizeBytes",
        "purpose",
        "stackType",
        "status",
        "storageClass",
        "type",
    }
)
_SHARED_VALUES: dict[int, bytes] = {}
_KEYS: dict[str, bytes] = {}
_ENTRIES: dict[tuple[str, str], bytes] = {}


def _value(value: Any) -> bytes:
    """A JSON value as a ``google.protobuf.Value``."""
    if isinstance(value, str):
        return _sized(b"\x1a", value.encode())
    if isinstance(value, bool):
        return b"\x20\x01" if value else b"\x20\x00"
    if isinstance(value, dict):
        return _SHARED_VALUES.get(id(value)) or _sized(b"\x2a", _struct(value))
    if isinstance(value, int | float):
        return b"\x11" + struct.pack("<d", value)
    if isinstance(value, list):
        known = _SHARED_VALUES.get(id(value))
        return known or _sized(b"\x32", b"".join([_sized(b"\x0a", _value(item)) for item in value]))
    if value is None:
        return b"\x08\x00"
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _struct(data: Mapping[str, Any]) -> bytes:
    """A JSON object as a ``google.protobuf.Struct``."""
    parts = []
    for key, value in data.items():
        is_word = key in _WORDS and type(value) is str
        if is_word and (entry := _ENTRIES.get((key, value))) is not None:
            parts.append(entry)
            continue
        head = _KEYS.get(key)
        if head is None:
            head = _KEYS[key] = _sized(b"\x0a", key.encode())
        if type(value) is str and len(value) < _SHORT // 4:
            text = value.encode()
            body = _STRING[len(text)] + text
            entry = head + _ENTRY_VALUE[len(body)] + body
            entry = _ITEM[len(entry)] + entry
            if is_word and len(_ENTRIES) < 10_000:
                _ENTRIES[key, value] = entry
        else:
            entry = _sized(b"\x0a", head + _sized(b"\x12", _value(value)))
        parts.append(entry)
    return b"".join(parts)


_SHARED_VALUES.update({id(part): _value(part) for part in SHARED_PARTS})


def encode_asset(asset: Mapping[str, Any], content_type: str | None) -> bytes:
    """An asset in JSON form as a serialized ``google.cloud.asset.v1.Asset``; without a content type, only who it is."""
    moment, fraction = divmod(parse_ns(asset["updateTime"]), 1_000_000_000)
    stamp = b"\x08" + _varint(moment) + (b"\x10" + _varint(fraction) if fraction else b"")
    parts = [_sized(b"\x0a", asset["name"].encode()), _sized(b"\x12", asset["assetType"].encode())]
    if content_type == RESOURCE:
        resource = asset["resource"]
        body = [
            _sized(tag, str(resource[key]).encode())
            for tag, key in (
                (b"\x0a", "version"),
                (b"\x12", "discoveryDocumentUri"),
                (b"\x1a", "discoveryName"),
                (b"\x22", "resourceUrl"),
                (b"\x2a", "parent"),
                (b"\x42", "location"),
            )
            if resource.get(key)
        ]
        body.append(_sized(b"\x32", _struct(resource.get("data") or {})))
        parts.append(_sized(b"\x1a", b"".join(body)))
    elif content_type == "IAM_POLICY":
        policy = json_format.ParseDict(asset["iamPolicy"], policy_pb2.Policy())
        parts.append(_sized(b"\x22", policy.SerializeToString()))
    elif content_type == "ORG_POLICY":
        parts += [
            _sized(b"\x32", json_format.ParseDict(item, orgpolicy_pb2.Policy()).SerializeToString())
            for item in asset["orgPolicy"]
        ]
    parts += [_sized(b"\x52", ancestor.encode()) for ancestor in asset["ancestors"]]
    parts.append(_sized(b"\x5a", stamp))
    return b"".join(parts)


def encode_relation(asset: Mapping[str, Any], relation: Relation) -> bytes:
    """One relation of an asset as a serialized ``Asset``."""
    related = assets.RelatedAsset.pb()(
        asset=relation.asset,
        asset_type=relation.asset_type,
        ancestors=relation.ancestors,
        relationship_type=relation.kind,
    )
    return encode_asset(asset, None) + _sized(b"\x7a", related.SerializeToString())


def _reordered(value: Any, order: random.Random) -> Any:
    """The same JSON value, with the entries of its objects in another order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: _reordered(value[key], order) for key in keys}
    return [_reordered(item, order) for item in value] if isinstance(value, list) else value


class _Encoded:
    """Encoded base assets. Once it is full it keeps what it has: listings are scans, and a scan would push out its own
    beginning."""

    def __init__(self, organization: Organization, limit: int) -> None:
        self._organization = organization
        self._kept: dict[tuple[str, str], dict[int, bytes]] = {}
        self._room = limit

    def get(self, asset_type: str, content_type: str, index: int) -> bytes:
        kept = self._kept.setdefault((content_type, asset_type), {})
        found = kept.get(index)
        if found is None:
            asset = self._organization.base(asset_type, content_type, index)
            found = _sized(b"\x12", encode_asset(asset, content_type))
            if len(found) < self._room:
                kept[index] = found
                self._room -= len(found)
        return found


# --- the service ------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """An answer that is a gRPC status."""

    def __init__(self, code: int, message: str, *details: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


def _invalid(message: str, field_name: str = "") -> _Refused:
    if not field_name:
        return _Refused(code_pb2.INVALID_ARGUMENT, message)
    violation = error_details_pb2.BadRequest.FieldViolation(field=field_name, description=message)
    return _Refused(code_pb2.INVALID_ARGUMENT, message, error_details_pb2.BadRequest(field_violations=[violation]))


@dataclass
class _Service:
    organization: Organization
    faults: Faults
    clock: Clock
    on_feed: Callable[[Any], None] | None
    cache_bytes: int
    storage: Storage | None = None
    shard_bytes: int = SHARD_BYTES
    feeds: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, Any] = field(default_factory=dict)
    looked_at: set[str] = field(default_factory=set)
    exports: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.encoded = _Encoded(self.organization, self.cache_bytes)
        self.orders = itertools.count()

    def list_assets(self, request: Any, context: grpc.ServicerContext) -> bytes:
        content = _content_name(request.content_type)
        self._check_scope(request.parent, "parent")
        self._check_denied(request.parent, request.asset_types, content, _PERMISSIONS.get(content or RESOURCE, ""))
        self._check_load()
        types = self._types(request.asset_types, content or RESOURCE)
        now_ns = to_ns(self.clock())
        asked_ns = request.read_time.seconds * 1_000_000_000 + request.read_time.nanos
        if asked_ns > now_ns:
            raise _invalid("read_time is in the future", "read_time")
        bound = _digest(request.parent, content, types)
        if request.page_token:
            if self.faults.take("asset_expired_token"):
                raise _invalid("The page token has expired.", "page_token")
            read_ns, at_type, position, told = _open_token(request.page_token, bound)
            if asked_ns and asked_ns != read_ns:
                raise _invalid("The page token belongs to another read_time.", "page_token")
            if now_ns - read_ns > TOKEN_LIFETIME_NS:
                raise _invalid("The page token has expired.", "page_token")
        else:
            read_ns, at_type, position, told = asked_ns or now_ns, 0, START, 0
        limit = _page_size(request.page_size, DEFAULT_LIST_PAGE, MAX_LIST_PAGE)
        if self.faults.active("asset_expired_token"):
            limit = min(limit, _PAGE_WHILE_TOKENS_EXPIRE)
        if self.faults.take("asset_slow_page"):
            time.sleep(self.faults.page_delay)
        if self.faults.take("asset_page_timeout"):
            self._never_answer(context)

        seconds, nanos = divmod(read_ns, 1_000_000_000)
        parts = [_sized(b"\x0a", b"\x08" + _varint(seconds) + b"\x10" + _varint(nanos))]
        size, token = 0, ""
        place = (at_type, position, told)
        encoded = self._encoded_relations if content == RELATIONSHIP else self._encoded_assets
        for following, body in encoded(types, content, request.parent, read_ns, *place):
            if size and (len(parts) > limit or size + len(body) > _PAGE_BYTES):
                token = _make_token(read_ns, place, bound)
                break
            parts.append(body)
            size += len(body)
            place = following
        if token:
            parts.append(_sized(b"\x1a", token.encode()))
        return b"".join(parts)

    def _encoded_assets(
        self,
        types: Sequence[str],
        content: str | None,
        scope: str,
        at_ns: int,
        at_type: int,
        position: Position,
        _told: int,
    ) -> Iterator[tuple[_Place, bytes]]:
        stored = content or RESOURCE
        order = random.Random(next(self.orders)) if self.faults.active("asset_wire_order") else None
        for number in range(at_type, len(types)):
            start = position if number == at_type else START
            for entry in self.organization.entries(types[number], stored, scope=scope, at_ns=at_ns, start=start):
                if entry.index is not None and content is not None and order is None:
                    body = self.encoded.get(types[number], content, entry.index)
                else:
                    asset = entry.asset or self.organization.base(types[number], stored, entry.index)
                    asset = asset if order is None else _reordered(asset, order)
                    body = _sized(b"\x12", encode_asset(asset, content))
                yield (number, entry.position, 0), body

    def _encoded_relations(
        self,
        types: Sequence[str],
        _content: str | None,
        scope: str,
        at_ns: int,
        at_type: int,
        position: Position,
        told: int,
    ) -> Iterator[tuple[_Place, bytes]]:
        """One result per relation. ``told``: how many of the first asset's were on the page before."""
        for number in range(at_type, len(types)):
            before = position if number == at_type else START
            for entry in self.organization.entries(types[number], scope=scope, at_ns=at_ns, start=before):
                asset = entry.asset or self.organization.base(types[number], RESOURCE, entry.index)
                relations = relations_of(asset)
                for index in range(told, len(relations)):
                    last = index + 1 == len(relations)
                    place = (number, entry.position, 0) if last else (number, before, index + 1)
                    yield place, _sized(b"\x12", encode_relation(asset, relations[index]))
                before, told = entry.position, 0
            told = 0

    def _never_answer(self, context: grpc.ServicerContext) -> NoReturn:
        """Wait until nobody waits for the answer any more."""
        over = threading.Event()
        if context.add_callback(over.set):
            while not over.wait(0.1) and not self.stopping.is_set():
                pass
        raise _Refused(code_pb2.CANCELLED, "The caller went away.")

    def search_all_resources(self, request: Any) -> Any:
        self._check_scope(request.scope, "scope")
        self._check_denied(request.scope, request.asset_types, RESOURCE, "cloudasset.assets.searchAllResources")
        self._check_load()
        types = self._types(request.asset_types, RESOURCE)
        low, high = _parse_query(request.query)
        if request.order_by:
            raise _invalid("order_by is not served here", "order_by")
        bound = _digest(request.scope, request.query, types)
        place: tuple[int, Position] = (0, START)
        if request.page_token:
            _, at_type, position, _ = _open_token(request.page_token, bound)
            place = (at_type, position)
        limit = _page_size(request.page_size, DEFAULT_SEARCH_PAGE, MAX_SEARCH_PAGE)
        response = asset_service.SearchAllResourcesResponse.pb()()
        for number, following, asset in self._found(types, request.scope, low, high, *place):
            if len(response.results) >= limit:
                response.next_page_token = _make_token(0, (*place, 0), bound)
                break
            result = _search_result(asset)
            if request.read_mask.paths and "*" not in request.read_mask.paths:
                whole, result = result, type(result)()
                request.read_mask.MergeMessage(whole, result)
            response.results.append(result)
            place = (number, following)
        return response

    def _found(
        self, types: Sequence[str], scope: str, low: int, high: int, at_type: int, position: Position
    ) -> Iterator[tuple[int, Position, Json]]:
        if low >= BASE_END_NS:  # only what was changed can be that new
            names = (scope, _by_number(self.organization, scope))
            for name in self.organization.changed_names():
                asset = self.organization.changed(name) if name > position[1] else None
                if asset is None or asset["assetType"] not in types or not low <= parse_ns(asset["updateTime"]) <= high:
                    continue
                if any(ancestor in names for ancestor in asset["ancestors"]):
                    yield 0, (0, name), asset
            return
        for number in range(at_type, len(types)):
            start = position if number == at_type else START
            for entry in self.organization.entries(types[number], scope=scope, start=start):
                asset = entry.asset or self.organization.base(types[number], RESOURCE, entry.index)
                if low <= parse_ns(asset["updateTime"]) <= high:
                    yield number, entry.position, asset

    def batch_get_assets_history(self, request: Any) -> Any:
        self._check_scope(request.parent, "parent")
        if request.parent.startswith("folders/"):
            raise _invalid("parent must be an organization or a project", "parent")
        content = _content_name(request.content_type) or RESOURCE
        types = [self.organization.type_of(name) or "" for name in request.asset_names]
        self._check_denied(request.parent, types, content, "cloudasset.assets.exportResource")
        self._check_load()
        if not 0 < len(request.asset_names) <= MAX_HISTORY_NAMES:
            raise _invalid(f"asset_names must hold 1 to {MAX_HISTORY_NAMES} names", "asset_names")
        window = request.read_time_window
        if not window.HasField("start_time"):
            raise _invalid("read_time_window.start_time is required", "read_time_window")
        begin = window.start_time.seconds * 1_000_000_000 + window.start_time.nanos
        end = to_ns(self.clock())
        if window.HasField("end_time"):
            end = window.end_time.seconds * 1_000_000_000 + window.end_time.nanos
        response = asset_service.BatchGetAssetsHistoryResponse.pb()()
        for name, asset_type in zip(request.asset_names, types, strict=True):
            versions = self.organization.history(name, content)
            if not versions:
                raise _invalid(f"The asset {name} does not exist.", "asset_names")
            for version, after in zip(versions, [*versions[1:], None], strict=True):
                if version.at_ns > end or (after is not None and after.at_ns <= begin):
                    continue
                item = response.assets.add()
                item.window.start_time.FromNanoseconds(version.at_ns)
                if after is not None:
                    item.window.end_time.FromNanoseconds(after.at_ns)
                if version.asset is None:
                    item.deleted = True
                    item.asset.name, item.asset.asset_type = name, asset_type
                    item.asset.update_time.FromNanoseconds(version.at_ns)
                else:
                    item.asset.ParseFromString(encode_asset(version.asset, content))
        return response

    def create_feed(self, request: Any) -> Any:
        self._check_scope(request.parent, "parent")
        if not request.feed_id or not request.feed.feed_output_config.pubsub_destination.topic:
            raise _invalid("a feed needs an id and a Pub/Sub topic", "feed")
        with self.lock:
            name = f"{request.parent}/feeds/{request.feed_id}"
            if name in self.feeds:
                raise _Refused(code_pb2.ALREADY_EXISTS, f"The feed {name} exists already.")
            feed = type(request.feed)()
            feed.CopyFrom(request.feed)
            feed.name = name
            self.feeds[name] = feed
        if self.on_feed is not None:
            self.on_feed(feed)
        return feed

    def get_feed(self, request: Any) -> Any:
        with self.lock:
            if request.name not in self.feeds:
                raise _Refused(code_pb2.NOT_FOUND, f"The feed {request.name} does not exist.")
            return self.feeds[request.name]

    def list_feeds(self, request: Any) -> Any:
        self._check_scope(request.parent, "parent")
        with self.lock:
            found = [feed for name, feed in sorted(self.feeds.items()) if name.startswith(f"{request.parent}/feeds/")]
        return asset_service.ListFeedsResponse.pb()(feeds=found)

    def delete_feed(self, request: Any) -> Any:
        self.get_feed(request)
        with self.lock:
            self.feeds.pop(request.name, None)
        return empty_pb2.Empty()

    # --- exports ------------------------------------------------------------------------------------------------------

    def export_assets(self, request: Any) -> Any:
        """Begin an export to Cloud Storage; a thread goes on with it. To BigQuery, nothing is written here."""
        content = _content_name(request.content_type)
        self._check_scope(request.parent, "parent")
        permission = _PERMISSIONS.get(content or RESOURCE, "").replace("list", "export")
        self._check_denied(request.parent, request.asset_types, content, permission)
        self._check_load()
        types = self._types(request.asset_types, content or RESOURCE)
        read_ns = request.read_time.seconds * 1_000_000_000 + request.read_time.nanos or to_ns(self.clock())
        if read_ns > to_ns(self.clock()):
            raise _invalid("read_time is in the future", "read_time")
        output = request.output_config
        if output.WhichOneof("destination") is None:
            raise _invalid("output_config names no destination", "output_config")
        prefix = _gs_path(output.gcs_destination.uri_prefix) if output.HasField("gcs_destination") else None
        if prefix and self.storage is not None and self.storage.get(*prefix):
            raise _invalid(f"The object gs://{'/'.join(prefix)} exists already.", "output_config")
        with self.lock:
            name = f"{request.parent}/operations/ExportAssets/{content}/{len(self.operations) + 1:08x}"
            operation = operations_pb2.Operation(name=name)
            operation.metadata.Pack(request)
            self.operations[name] = operation
        if self.faults.take("export_hangs"):
            return operation
        broken = self.faults.take("export_fails")
        export = _Export(self, request.parent, types, content, read_ns, prefix, broken, output)
        thread = threading.Thread(target=export.run, args=(name,), name="asset-export", daemon=True)
        self.exports.append(thread)
        thread.start()
        return operation

    def get_operation(self, request: Any) -> Any:
        """At the first look an operation goes on, however fast it is, as it would at Google."""
        with self.lock:
            found = self.operations.get(request.name)
            first = request.name not in self.looked_at
            self.looked_at.add(request.name)
        if found is None:
            raise _Refused(code_pb2.NOT_FOUND, f"The operation {request.name} does not exist.")
        return operations_pb2.Operation(name=request.name, metadata=found.metadata) if first else found

    def finish(self, name: str, *, error: _Refused | None = None, response: Any = None) -> None:
        """End an operation."""
        operation = operations_pb2.Operation(name=name, done=True)
        if error is not None:
            operation.error.code, operation.error.message = error.code, error.message
        else:
            operation.response.Pack(response)
        with self.lock:
            self.operations[name] = operation

    def export_lines(self, asset_type: str, content: str | None, scope: str, at_ns: int) -> Iterator[bytes]:
        """The assets of a type as lines of an export."""
        stored = RESOURCE if content is None or content == RELATIONSHIP else content
        for entry in self.organization.entries(asset_type, stored, scope=scope, at_ns=at_ns):
            asset = entry.asset or self.organization.base(asset_type, stored, entry.index)
            if content == RELATIONSHIP:
                for relation in relations_of(asset):
                    yield _line(asset, None, related_asset=relation.exported())
            else:
                yield _line(asset, content)

    def _check_scope(self, scope: str, field_name: str) -> None:
        if not self.organization.has_scope(scope):
            if re.fullmatch(r"(organizations|folders)/\d+|projects/[^/]+", scope) is None:
                raise _invalid(f"{scope!r} is not an organization, folder or project", field_name)
            raise _Refused(code_pb2.PERMISSION_DENIED, f"The caller does not have permission on {scope}.")

    def _check_denied(self, scope: str, asset_types: Sequence[str], content: str | None, permission: str) -> None:
        faults = self.faults
        if faults.active("asset_api_disabled"):
            raise _service_disabled()
        if faults.active("asset_perimeter"):
            raise _kept_out()
        is_folder = scope in faults.denied_folders or (not faults.denied_folders and scope.startswith("folders/"))
        if is_folder and faults.active("asset_denied_folder"):
            raise _denied(permission, scope)
        if not faults.active("asset_denied") or (content or RESOURCE) not in faults.denied_contents:
            return
        wanted = asset_types or self.organization.asset_types(content or RESOURCE)
        if scope in faults.denied_scopes or any(name.startswith(faults.denied_types) for name in wanted):
            raise _denied(permission, scope)

    def _check_load(self) -> None:
        if self.faults.take("asset_quota"):
            delay = error_details_pb2.RetryInfo()
            delay.retry_delay.FromMilliseconds(int(self.faults.retry_after * 1000))
            message = "Quota exceeded for quota metric 'ListAssets Requests' of service 'cloudasset.googleapis.com'."
            raise _Refused(code_pb2.RESOURCE_EXHAUSTED, message, delay)
        if self.faults.take("asset_unavailable"):
            raise _Refused(code_pb2.UNAVAILABLE, "The service is currently unavailable.")

    def _types(self, asked: Sequence[str], content: str) -> list[str]:
        existing = sorted(SOURCES) if content == RELATIONSHIP else self.organization.asset_types(content)
        if content == RELATIONSHIP and (others := set(asked) - SOURCES):
            raise _invalid(f"The asset type {min(others)!r} has no relationships.", "asset_types")
        if not asked:
            return existing
        known = _OTHER_TYPES.union(self.organization.asset_types(), existing)
        if self.faults.active("asset_unknown_type"):
            known -= set(self.faults.unknown_types)
        for asset_type in asked:
            if asset_type not in known:
                raise _invalid(f"The asset type {asset_type!r} is not supported.", "asset_types")
        return sorted(set(asked))


@dataclass(frozen=True)
class _Export:
    service: _Service
    scope: str
    types: list[str]
    content: str | None
    read_ns: int
    prefix: tuple[str, str] | None
    broken: bool
    output: Any

    def run(self, operation: str) -> None:
        """Write all types, and say so."""
        response = asset_service.ExportAssetsResponse.pb()()
        response.read_time.FromNanoseconds(self.read_ns)
        response.output_config.CopyFrom(self.output)
        try:
            if self.prefix is not None:
                response.output_result.gcs_result.uris.extend(self._write(*self.prefix))
        except _Refused as error:
            self.service.finish(operation, error=error)
        else:
            self.service.finish(operation, response=response)

    def _write(self, bucket: str, prefix: str) -> list[str]:
        storage = self.service.storage
        if storage is None or not storage.has(bucket):
            agent = "service-123456789012@gcp-sa-cloudasset.iam.gserviceaccount.com"
            message = f"{agent} does not have storage.objects.create access to the Cloud Storage bucket {bucket}."
            raise _Refused(code_pb2.PERMISSION_DENIED, message)
        written: list[str] = []
        for done, asset_type in enumerate(self.types):
            if self.broken and 2 * done >= len(self.types):
                raise _Refused(code_pb2.INTERNAL, "Internal error encountered.")
            lines = self.service.export_lines(asset_type, self.content, self.scope, self.read_ns)
            for number, shard in enumerate(_shards(lines, self.service.shard_bytes)):
                content = b"".join(shard)
                if len(content) > 1 and self.service.faults.take("export_truncated"):
                    content = content[: len(content) - len(shard[-1]) // 2]
                name = f"{prefix}/{asset_type}/{number}"
                storage.put(bucket, name, [content])
                written.append(f"gs://{bucket}/{name}")
        return written


def _shards(lines: Iterator[bytes], limit: int) -> Iterator[list[bytes]]:
    shard: list[bytes] = []
    size = 0
    for line in lines:
        if shard and size + len(line) > limit:
            yield shard
            shard, size = [], 0
        shard.append(line)
        size += len(line)
    if shard:
        yield shard


def _line(asset: Json, content: str | None, **more: Any) -> bytes:
    """An asset as a line of an export: with the field names of the protobuf message, but for the resource's data."""
    line = {
        "name": asset["name"],
        "asset_type": asset["assetType"],
        "ancestors": asset["ancestors"],
        "update_time": asset["updateTime"],
        **more,
    }
    if content == RESOURCE:
        line["resource"] = {re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", k): v for k, v in asset["resource"].items()}
    elif content is not None:
        message = assets.Asset.pb().FromString(encode_asset(asset, content))
        told = json_format.MessageToDict(message, preserving_proto_field_name=True)
        line |= {key: told[key] for key in ("iam_policy", "org_policy") if key in told}
    return orjson.dumps(line) + b"\n"


def _gs_path(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket or not name:
        raise _invalid(f"{uri!r} is not a Cloud Storage URI prefix", "output_config.gcs_destination.uri_prefix")
    return bucket, name


def _denied(permission: str, scope: str) -> _Refused:
    info = error_details_pb2.ErrorInfo(
        reason="IAM_PERMISSION_DENIED",
        domain="cloudasset.googleapis.com",
        metadata={"permission": permission, "resource": scope},
    )
    message = f"The caller does not have permission: {permission} is required on {scope}."
    return _Refused(code_pb2.PERMISSION_DENIED, message, info)


def _service_disabled() -> _Refused:
    info = error_details_pb2.ErrorInfo(
        reason="SERVICE_DISABLED",
        domain="googleapis.com",
        metadata={"service": "cloudasset.googleapis.com", "consumer": _PROJECT},
    )
    number = _PROJECT.partition("/")[2]
    message = f"Cloud Asset API has not been used in project {number} before or it is disabled."
    return _Refused(code_pb2.PERMISSION_DENIED, message, info)


def _kept_out() -> _Refused:
    unique = "demo-perimeter-1"
    info = error_details_pb2.ErrorInfo(
        reason="SECURITY_POLICY_VIOLATED",
        domain="googleapis.com",
        metadata={"service": "cloudasset.googleapis.com", "uid": unique, "consumer": _PROJECT},
    )
    message = f"Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: {unique}"
    return _Refused(code_pb2.PERMISSION_DENIED, message, info)


def _by_number(organization: Organization, scope: str) -> str:
    """The scope as ancestors name it: projects by number."""
    for project in organization.projects:
        if scope == f"projects/{project.project_id}":
            return project.ancestors[0]
    return scope


def _content_name(number: int) -> str | None:
    """``None`` for an unspecified content type: names and times only."""
    name = str(asset_service.ContentType(number).name)
    if name in (*CONTENT_TYPES, RELATIONSHIP):
        return name
    if number == 0:
        return None
    raise _invalid(f"The content type {name} is not served here.", "content_type")


def _page_size(asked: int, default: int, most: int) -> int:
    if asked < 0:
        raise _invalid("page_size is negative", "page_size")
    return min(asked or default, most)


def _digest(*bound: Any) -> str:
    return sha256(orjson.dumps(bound)).hexdigest()[:16]


def _make_token(read_ns: int, place: _Place, bound: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([read_ns, *place, bound])).decode()


def _open_token(token: str, bound: str) -> tuple[int, int, Position, int]:
    try:
        read_ns, at_type, (index, name), told, made_for = orjson.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        raise _invalid("The page token is invalid.", "page_token") from None
    if made_for != bound:
        raise _invalid("The page token belongs to another request.", "page_token")
    return read_ns, at_type, (index, name), told


_CLAUSE = re.compile(r'\s*updateTime\s*(>=|<=|>|<|=)\s*"?([0-9T:.Z+\-]+)"?\s*(?:AND\s+|$|(?=updateTime))')


def _parse_query(query: str) -> tuple[int, int]:
    """Least and greatest update time (nanoseconds) of ``updateTime>=A AND updateTime<B``; other queries are refused."""
    low, high = 0, 2**63
    rest = query.strip()
    while rest:
        clause = _CLAUSE.match(rest)
        if clause is None:
            raise _invalid(f"the query {query!r} is not served here: only updateTime is compared", "query")
        operator, text = clause.groups()
        try:
            if text.isdigit():
                ns = int(text) * 1_000_000_000
            else:
                text = text if "T" in text else f"{text}T00:00:00"
                ns = parse_ns(text if re.search(r"(Z|[+-]\d\d:\d\d)$", text) else f"{text}Z")
        except ValueError as error:
            raise _invalid(str(error), "query") from None
        if operator in (">", ">=", "="):
            low = max(low, ns + (operator == ">"))
        if operator in ("<", "<=", "="):
            high = min(high, ns - (operator == "<"))
        rest = rest[clause.end() :]
    return low, high


_CREATED = ("creationTimestamp", "createTime", "timeCreated")
_STATE = ("status", "state", "lifecycleState")


def _search_result(asset: Json) -> Any:
    """The indexed metadata of an asset. It carries no content."""
    resource = asset["resource"]
    data = resource.get("data") or {}
    result = assets.ResourceSearchResult.pb()(
        name=asset["name"],
        asset_type=asset["assetType"],
        display_name=str(data.get("displayName") or data.get("name") or asset["name"].rpartition("/")[2]),
        location=resource.get("location") or "",
        parent_full_resource_name=resource.get("parent") or "",
        state=next((str(data[key]) for key in _STATE if key in data), ""),
    )
    for ancestor in asset["ancestors"]:
        if ancestor.startswith("projects/"):
            result.project = ancestor
        elif ancestor.startswith("folders/"):
            result.folders.append(ancestor)
        else:
            result.organization = ancestor
    for key, value in (data.get("labels") or data.get("resourceLabels") or {}).items():
        result.labels[key] = str(value)
    created = next((data[key] for key in _CREATED if key in data), None)
    if created is not None:
        result.create_time.FromNanoseconds(parse_ns(created))
    result.update_time.FromNanoseconds(parse_ns(asset["updateTime"]))
    return result


# --- the server -------------------------------------------------------------------------------------------------------


class AssetServer:
    """A running server. ``endpoint`` is what ``google_cloud.asset_endpoint`` takes: ``http://127.0.0.1:PORT``."""

    def __init__(self, service: _Service, port: int) -> None:
        self._service = service
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="asset-server")
        self._server = grpc.server(self._pool, options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("google.cloud.asset.v1.AssetService", _handlers(service)),
                grpc.method_handlers_generic_handler("google.longrunning.Operations", _operation_handlers(service)),
            )
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server.start()

    def feeds(self) -> list[Any]:
        """The feeds that exist now, as ``google.cloud.asset.v1.Feed`` messages."""
        with self._service.lock:
            return [feed for _, feed in sorted(self._service.feeds.items())]

    def settle(self) -> None:
        """Wait until every export that goes on has ended; one that never ends is not waited for."""
        for thread in self._service.exports:
            thread.join()

    def stop(self) -> None:
        """Stop answering; returns when the port is free."""
        self._service.stopping.set()
        self._server.stop(grace=0.2).wait()
        self._pool.shutdown()
        self.settle()


def start_asset_server(
    organization: Organization,
    faults: Faults | None = None,
    port: int = 0,
    *,
    clock: Clock = utcnow,
    on_feed: Callable[[Any], None] | None = None,
    cache_bytes: int = CACHE_BYTES,
    storage: Storage | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> AssetServer:
    """Serve an organization on a port of 127.0.0.1 (0: a free one).

    Args:
        clock: tells the ``read_time`` of requests that name none.
        on_feed: called with each feed (a ``Feed`` message) that was created, e.g. to send its welcome message.
        cache_bytes: how much of the encoded organization is kept for the next listing.
        storage: where exports are written; without it they have no bucket.
        shard_bytes: how large an object of an export may be.
    """
    service = _Service(organization, faults or Faults(), clock, on_feed, cache_bytes, storage, shard_bytes)
    return AssetServer(service, port)


def _handlers(service: _Service) -> dict[str, grpc.RpcMethodHandler]:
    types = asset_service
    methods: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "ExportAssets": (types.ExportAssetsRequest, service.export_assets),
        "SearchAllResources": (types.SearchAllResourcesRequest, service.search_all_resources),
        "BatchGetAssetsHistory": (types.BatchGetAssetsHistoryRequest, service.batch_get_assets_history),
        "CreateFeed": (types.CreateFeedRequest, service.create_feed),
        "GetFeed": (types.GetFeedRequest, service.get_feed),
        "ListFeeds": (types.ListFeedsRequest, service.list_feeds),
        "DeleteFeed": (types.DeleteFeedRequest, service.delete_feed),
    }
    handlers = {name: _handler(request_type.pb(), _alone(call)) for name, (request_type, call) in methods.items()}
    return handlers | {"ListAssets": _handler(types.ListAssetsRequest.pb(), service.list_assets)}


def _operation_handlers(service: _Service) -> dict[str, grpc.RpcMethodHandler]:
    return {"GetOperation": _handler(operations_pb2.GetOperationRequest, _alone(service.get_operation))}


#: Answers a request, knowing what is to be known of the call.
_Call = Callable[[Any, grpc.ServicerContext], Any]


def _alone(call: Callable[[Any], Any]) -> _Call:
    return lambda request, _context: call(request)


def _handler(request_type: Any, call: _Call) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        _answering(call),
        request_deserializer=request_type.FromString,
        response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
    )


def _answering(call: _Call) -> _Call:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(request, context)
        except _Refused as refused:
            _abort(context, refused)

    return answer


def _abort(context: grpc.ServicerContext, refused: _Refused) -> NoReturn:
    status = status_pb2.Status(code=refused.code, message=refused.message)
    for detail in refused.details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status does not return")
