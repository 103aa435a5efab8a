"""Reads one message of the asset feed. Pure: bytes in, what they mean out.

A feed publishes ``TemporalAsset`` as JSON, after a first message that is a plain text of welcome. Anything else is a
`BadMessage`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.observation import (
    ContentType,
    InvalidAsset,
    Observation,
    Source,
    observe,
    scope_of,
    whole_numbers,
)
from lz_sync_dagster.sync.state.redaction import REDACTED, redact_any, redact_text
from lz_sync_dagster.sync.timing import parse_ns

#: Characters that are kept of a body that cannot be redacted by its structure.
BEGINNING = 200
_LOOKED_AT = 4_000
#: A JSON string, complete or cut off; with its colon if it is a key.
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)(\s*:)?', re.DOTALL)

_WELCOME = "you have successfully configured"

#: Where an asset of the feed carries each content type; the first spelling is the feed's, the second that of exports.
_CONTENT: dict[ContentType, tuple[str, str]] = {
    ContentType.RESOURCE: ("resource", "resource"),
    ContentType.IAM_POLICY: ("iamPolicy", "iam_policy"),
    ContentType.ORG_POLICY: ("orgPolicy", "org_policy"),
}


class BadMessage(SyncError):
    """A message that is not what a feed publishes."""

    def __init__(self, what: str, where: str = "feed message") -> None:
        super().__init__(
            what,
            where=where,
            remedy="look at it in the dead letters; the other messages are kept",
            reason=Reason.INVALID,
        )

    @property
    def line(self) -> str:
        """What is wrong with it."""
        return f"{self.where} {self.what}"


@dataclass(frozen=True, slots=True)
class Welcome:
    """The first message of a feed: it says that the feed works, and nothing of an asset."""

    text: str


def parse_message(data: bytes, attributes: Mapping[str, str], *, scopes: Sequence[str]) -> Welcome | list[Observation]:
    """What a message says.

    Args:
        data: the body: ``TemporalAsset`` JSON (``asset``, ``window``, ``deleted``, ``priorAsset``), or the welcome.
        attributes: the message's attributes. A feed sets none; they only tell apart what else is on the topic.
        scopes: the configured scopes, to find out which one an asset belongs to.

    Returns:
        One observation per content type that the asset carries: with a feed, that is one.

    Raises:
        BadMessage: the message is not JSON, or not a usable ``TemporalAsset``.
    """
    try:
        document = whole_numbers(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        text = data.decode("utf-8", errors="replace")
        if text.strip().lower().startswith(_WELCOME):
            return Welcome(text)
        hint = f" (attributes: {', '.join(sorted(attributes))})" if attributes else ""
        raise BadMessage(f"is not JSON: {error}{hint}") from error
    except RecursionError as error:
        raise BadMessage("is nested too deeply") from error
    if isinstance(document, str) and document.strip().lower().startswith(_WELCOME):
        return Welcome(document)
    if not isinstance(document, dict):
        raise BadMessage("is not a JSON object")
    asset = _mapping(document, "asset")
    if asset is None:
        raise BadMessage("has no asset")
    return _observations(document, asset, scopes)


def _observations(document: Mapping[str, Any], asset: Mapping[str, Any], scopes: Sequence[str]) -> list[Observation]:
    name = asset.get("name")
    where = f"feed message of {name}" if isinstance(name, str) and name else "feed message"
    deleted = document.get("deleted", False)
    if not isinstance(deleted, bool):
        raise BadMessage("has a 'deleted' that is neither true nor false", where)
    prior = _mapping(document, "priorAsset", "prior_asset") or {}
    carried = _content_types(asset)
    gone = deleted
    if not carried:
        carried = _content_types(prior)
        if not deleted and (not carried or ContentType.RESOURCE in carried):
            raise BadMessage("has an asset without content: no resource, iamPolicy or orgPolicy", where)
        gone = True
    if not gone:
        _check_shapes(asset, carried, where)
    ancestors = _first(asset, "ancestors") or _first(prior, "ancestors") or []
    if not isinstance(ancestors, list) or not all(isinstance(item, str) for item in ancestors):
        raise BadMessage("has ancestors that are not a list of names", where)
    full = {**asset, "ancestors": ancestors}
    try:
        return [
            observe(
                full,
                scope=scope_of(ancestors, scopes),
                observed_ns=_observed_ns(document, asset, where),
                source=Source.FEED,
                deleted=gone,
                content_type=content_type,
                existed=_first(document, "priorAssetState", "prior_asset_state") == "PRESENT",
            )
            for content_type in carried or [ContentType.RESOURCE]
        ]
    except InvalidAsset as error:
        raise BadMessage(error.what, error.where) from error
    except RecursionError as error:
        raise BadMessage("is nested too deeply", where) from error


def _content_types(asset: Mapping[str, Any]) -> list[ContentType]:
    return [content_type for content_type, keys in _CONTENT.items() if _first(asset, *keys) is not None]


def _check_shapes(asset: Mapping[str, Any], carried: Sequence[ContentType], where: str) -> None:
    for content_type in carried:
        keys = _CONTENT[content_type]
        value = _first(asset, *keys)
        if content_type is ContentType.ORG_POLICY:
            right = isinstance(value, list)
        elif content_type is ContentType.IAM_POLICY:
            right = isinstance(value, dict)
        else:
            right = isinstance(value, dict) and isinstance(value.get("data"), dict)
        if not right:
            raise BadMessage(f"is unusable: its {keys[0]} has the wrong shape", where)


def _observed_ns(document: Mapping[str, Any], asset: Mapping[str, Any], where: str) -> int:
    window = _mapping(document, "window") or {}
    start = _first(window, "startTime", "start_time") or _first(asset, "updateTime", "update_time")
    if start is None:
        raise BadMessage("has neither a window nor an update time", where)
    try:
        return parse_ns(start)
    except (ValueError, TypeError) as error:
        raise BadMessage("has an unreadable window", where) from error


def _mapping(document: Mapping[str, Any], *keys: str) -> Mapping[str, Any] | None:
    value = _first(document, *keys)
    if value is not None and not isinstance(value, dict):
        raise BadMessage(f"is unusable: its {keys[0]} is not an object")
    return value


def _first(mapping: Mapping[str, Any], *keys: str) -> Any:
    for key in keys:
        if mapping.get(key) is not None:
            return mapping[key]
    return None


def printable(data: bytes) -> str:
    """A message's body as a text without secrets, for the dead letters. Never raises.

    JSON, and JSON line by line, is redacted by its structure. Of anything else only the length, the SHA-256 and the
    beginning are kept; where that looks like JSON, without its values.
    """
    try:
        return orjson.dumps(redact_any(orjson.loads(data))).decode()
    except (ValueError, TypeError, RecursionError):
        pass
    try:
        documents = [redact_any(orjson.loads(line)) for line in data.splitlines() if line.strip()]
        if documents:
            return b"\n".join(map(orjson.dumps, documents)).decode()
    except (ValueError, TypeError, RecursionError):
        pass
    return _outline(data)


def _outline(data: bytes) -> str:
    text = data[:_LOOKED_AT].decode("utf-8", errors="replace")
    if text.lstrip()[:1] in ("{", "[", '"') or '":' in text:
        text = _JSON_STRING.sub(lambda match: match[0] if match[1] else f'"{REDACTED}"', text)
    beginning = redact_text(text)[:BEGINNING]
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}, beginning with: {beginning}"
