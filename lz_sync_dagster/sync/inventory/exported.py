"""Assets as exports write them: a line of JSON, with the field names of the protobuf message. Pure.

The observation is the same, digest for digest, as of the same asset that came page by page: what is a protobuf message
there goes through that message here, and numbers are what a ``Struct`` makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from google.iam.v1 import policy_pb2
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from lz_sync_dagster.sync.inventory.structs import number
from lz_sync_dagster.sync.state.observation import (
    ContentType,
    InvalidAsset,
    Observation,
    Source,
    observation_of,
)
from lz_sync_dagster.sync.state.redaction import redact
from lz_sync_dagster.sync.timing import parse_ns


@dataclass(frozen=True, slots=True)
class Line:
    """An asset of an export. ``body``: the whole of it."""

    name: str
    asset_type: str
    body: Mapping[str, Any]

    def get(self, snake: str, camel: str) -> Any:
        """A field, however it is spelled."""
        return self.body.get(snake, self.body.get(camel))


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation of an asset. ``related``: empty if it tells none. ``update_ns``: of the relation; 0: unknown."""

    name: str
    asset_type: str
    ancestors: tuple[str, ...]
    update_ns: int
    kind: str
    related: str
    related_type: str


def is_exported(body: bytes) -> bool:
    """Whether an asset's bytes are JSON: no protobuf message of an asset begins so."""
    return body[:1] == b"{"


def parse(body: bytes) -> Line:
    """Raises ``ValueError`` or ``TypeError`` for what is no asset."""
    asset = orjson.loads(body)
    name, asset_type = asset.get("name"), asset.get("asset_type", asset.get("assetType"))
    return Line(_text(name), _text(asset_type), asset)


def observation(line: Line, content_type: ContentType, scope: str, read_ns: int, fingerprint: bytes) -> Observation:
    """The observation of an asset. Raises ``ValueError``, ``TypeError`` or `InvalidAsset` for one of another form."""
    location = None
    if content_type is ContentType.RESOURCE:
        resource = _object(line.body.get("resource"))
        location = _text(resource.get("location")) or None
        data, redacted = redact(_as_struct(_object(resource.get("data"))))
    else:
        data, redacted = redact(_policies(line, content_type))
    update_time = line.get("update_time", "updateTime")
    return observation_of(
        line.name,
        line.asset_type,
        content_type,
        data,
        redacted,
        scope=scope,
        update_ns=parse_ns(update_time) if update_time else read_ns,
        observed_ns=read_ns,
        source=Source.SNAPSHOT,
        ancestors=tuple(_text(ancestor) for ancestor in line.body.get("ancestors") or ()),
        location=location,
        fingerprint=fingerprint,
    )


def parse_relation(body: bytes) -> Relation:
    """Raises `InvalidAsset` for what is none: a set of relations that lacks one says nothing true."""
    try:
        line = parse(body)
        related = _object(line.get("related_asset", "relatedAsset"))
        update_time = line.get("update_time", "updateTime")
        return Relation(
            name=line.name,
            asset_type=line.asset_type,
            ancestors=tuple(_text(ancestor) for ancestor in line.body.get("ancestors") or ()),
            update_ns=parse_ns(update_time) if update_time else 0,
            kind=_text(related.get("relationship_type", related.get("relationshipType"))),
            related=_text(related.get("asset")),
            related_type=_text(related.get("asset_type", related.get("assetType"))),
        )
    except (ValueError, TypeError) as error:
        raise InvalidAsset(f"is no relation ({error})", f"line {body[:80]!r}") from error


def _policies(line: Line, content_type: ContentType) -> dict[str, Any]:
    try:
        if content_type is ContentType.IAM_POLICY:
            policy = ParseDict(
                line.get("iam_policy", "iamPolicy") or {}, policy_pb2.Policy(), ignore_unknown_fields=True
            )
            return MessageToDict(policy)
        if content_type is ContentType.ORG_POLICY:
            from google.cloud.orgpolicy.v1 import orgpolicy_pb2

            policies = line.get("org_policy", "orgPolicy") or []
            told = [ParseDict(item, orgpolicy_pb2.Policy(), ignore_unknown_fields=True) for item in policies]
            return {"policies": [MessageToDict(policy) for policy in told]}
    except ParseError as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"content {content_type} is not decoded one by one")


def _as_struct(value: Any) -> Any:
    """JSON as it is after it was a ``Struct``, whose numbers are doubles."""
    if isinstance(value, dict):
        return {key: _as_struct(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_struct(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(float(value))
    return value


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} is no object")
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
