"""An observation: what one source said of one asset at one instant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

import orjson

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.redaction import redact
from lz_sync_dagster.sync.timing import parse_ns


class ContentType(StrEnum):
    """Which part of an asset: Cloud Asset's content types."""

    RESOURCE = "RESOURCE"
    IAM_POLICY = "IAM_POLICY"
    ORG_POLICY = "ORG_POLICY"
    RELATIONSHIP = "RELATIONSHIP"


#: The plain text of a member of a `StrEnum`: what ``.value`` is, several times faster.
plain = str.__str__


class Source(StrEnum):
    """Who said it."""

    SNAPSHOT = "snapshot"
    FEED = "feed"


class InvalidAsset(SyncError):
    """An asset that cannot be used, e.g. because it has no name."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(
            what, where=where, remedy="look at it in the dead letters; the other assets are kept", reason=Reason.INVALID
        )


#: Doubles are exact integers up to here.
_EXACT = 2**53
#: The last instant that 64 bits of nanoseconds hold.
_LAST_NS = 2**63 - 1
#: What an index of the store takes; Google's names are far shorter.
_LONGEST_NAME = 1024
_LONGEST_TYPE = 128
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
_LOCATION_FIELDS = ("location", "zone", "region", "locationId")


@dataclass(frozen=True, slots=True)
class Observation:
    """What one source said of one asset.

    Attributes:
        name: full resource name, ``//compute.googleapis.com/projects/…``.
        content_type: which part of the asset ``data`` is.
        asset_type: ``compute.googleapis.com/Instance``.
        scope: the configured scope it belongs to, ``organizations/123``.
        update_ns: when the asset last changed, by its owner's clock; nanoseconds since the epoch.
        observed_ns: ``window.start_time`` of a feed message, or the ``read_time`` of a snapshot; nanoseconds.
        source: snapshot or feed.
        deleted: it is gone.
        resource_id: ``resource.data.id``, which a recreated asset does not keep; ``None`` if the type has none.
        ancestors: ``projects/1``, ``folders/2``, ``organizations/3``: nearest first.
        data: the redacted content (REST shape, camelCase keys); ``None`` if deleted.
        redacted: paths in ``data`` whose value was removed.
        digest: SHA-256 of the canonical ``data``; of the empty text if deleted.
        location: region, zone or multi-region, where the source or the content says so.
        existed: the source says that the asset was there before; whoever never saw it is told of a change, not of a
            creation.
        display_name: what a person calls it: its own name for itself, else the end of ``name``.
        fingerprint: of the bytes in which a snapshot told it; ``None`` from other sources.
    """

    name: str
    content_type: ContentType
    asset_type: str
    scope: str
    update_ns: int
    observed_ns: int
    source: Source
    deleted: bool
    resource_id: str | None
    ancestors: tuple[str, ...]
    data: Mapping[str, Any] | None
    redacted: tuple[str, ...]
    digest: str
    location: str | None = None
    existed: bool = False
    display_name: str | None = None
    fingerprint: bytes | None = None

    @property
    def order(self) -> tuple[int, int, bool, str]:
        """Observations of one asset are ordered by this; the greatest wins, an equal one is a no-op.

        The version comes first: ``(update_time, window.start_time | read_time)``. A deletion and the digest only make
            the order total
        when two sources give one version two contents.
        """
        return (self.update_ns, self.observed_ns, self.deleted, self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the arguments that make it: several times faster than field by field."""
        return (Observation, _VALUES_OF(self))


_VALUES_OF = attrgetter(*(field.name for field in fields(Observation)))


class JsonData(Mapping[str, Any]):
    """A content with its canonical text (JSON, keys sorted), each made from the other once, when somebody asks for it.

    What is equal as a mapping has the same text. Pickled, it is its text.
    """

    __slots__ = ("_data", "_text")

    def __init__(self, data: Mapping[str, Any] | None = None, *, text: str | None = None) -> None:
        if data is None and text is None:
            raise ValueError("a content is given as data or as text")
        self._data = data
        self._text = text

    @property
    def text(self) -> str:
        """The canonical text. Raises ``TypeError`` for what is not JSON."""
        if self._text is None:
            self._text = orjson.dumps(self._data, option=_CANONICAL).decode()
        return self._text

    @property
    def data(self) -> Mapping[str, Any]:
        """The mapping."""
        if self._data is None:
            loaded: Mapping[str, Any] = orjson.loads(self._text or "")
            self._data = loaded
        return self._data

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"JsonData({self.text})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_of_text, (self.text,))


def _of_text(text: str) -> JsonData:
    return JsonData(text=text)


def digest_of(data: Mapping[str, Any] | None) -> str:
    """SHA-256 (hex) of the canonical form: keys sorted, so the order on the wire does not matter."""
    if data is None:
        return hashlib.sha256(b"").hexdigest()
    content = data if isinstance(data, JsonData) else JsonData(data)
    return hashlib.sha256(content.text.encode()).hexdigest()


def whole_numbers(value: Any) -> Any:
    """Turn doubles that are whole into integers: a snapshot's ``Struct`` has doubles only, the feed's JSON has both.

    Whoever makes an asset's JSON normalizes it, so that one content has one digest, whichever source tells it.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, Mapping):
        return {key: whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole_numbers(item) for item in value]
    return value


def scope_of(ancestors: Sequence[str], scopes: Sequence[str]) -> str:
    """The configured scope that is nearest to an asset, else its topmost ancestor, else ``unscoped``."""
    for ancestor in ancestors:
        if ancestor in scopes:
            return ancestor
    return ancestors[-1] if ancestors else "unscoped"


def observe(
    asset: Mapping[str, Any],
    *,
    scope: str,
    observed_ns: int,
    source: Source,
    deleted: bool = False,
    content_type: ContentType | None = None,
    existed: bool = False,
) -> Observation:
    """Make an observation of an asset in Cloud Asset's JSON form (REST camelCase or export snake_case keys).

    Args:
        asset: ``name``, ``assetType``, ``updateTime``, ``ancestors``, and one of ``resource``, ``iamPolicy``,
            ``orgPolicy`` and ``relations``; its numbers as `whole_numbers` leaves them.
        content_type: which part to take; by default the one that is present, ``RESOURCE`` first.

    Raises:
        InvalidAsset: without a name, without a type, or with an unreadable time.
    """
    name, asset_type = asset.get("name"), _get(asset, "assetType", "asset_type")
    if not isinstance(name, str) or not name:
        raise InvalidAsset("has no name", f"asset of type {asset_type or 'unknown'}")
    if not isinstance(asset_type, str) or not asset_type:
        raise InvalidAsset("has no asset type", f"asset {name}")
    resource = asset.get("resource") or {}
    if not isinstance(resource, Mapping) or not isinstance(resource.get("location") or "", str):
        raise InvalidAsset("has a resource that is not of Cloud Asset's form", f"asset {name}")
    iam_policy = _get(asset, "iamPolicy", "iam_policy")
    org_policy = _get(asset, "orgPolicy", "org_policy")
    if content_type is None:
        if iam_policy is not None and not resource:
            content_type = ContentType.IAM_POLICY
        elif org_policy and not resource:
            content_type = ContentType.ORG_POLICY
        else:
            content_type = ContentType.RESOURCE
    data: dict[str, Any] | None
    if deleted:
        data = None
    elif content_type is ContentType.IAM_POLICY:
        data = dict(iam_policy or {})
    elif content_type is ContentType.ORG_POLICY:
        data = {"policies": list(org_policy or [])}
    elif content_type is ContentType.RELATIONSHIP:
        data = {"relations": list(asset.get("relations") or [])}
    else:
        data = dict(resource.get("data") or {})
    update_time = _get(asset, "updateTime", "update_time")
    try:
        update_ns = parse_ns(update_time) if update_time else observed_ns
    except (ValueError, TypeError) as error:
        raise InvalidAsset("has an unreadable update time", f"asset {name}") from error
    redacted: tuple[str, ...] = ()
    try:
        if data is not None:
            data, redacted = redact(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(name, error) from error
    return observation_of(
        name,
        asset_type,
        content_type,
        data,
        redacted,
        scope=scope,
        update_ns=max(update_ns, observed_ns) if deleted else update_ns,
        observed_ns=observed_ns,
        source=source,
        ancestors=tuple(asset.get("ancestors") or ()),
        location=resource.get("location"),
        existed=existed,
    )


def observation_of(
    name: str,
    asset_type: str,
    content_type: ContentType,
    data: Mapping[str, Any] | None,
    redacted: tuple[str, ...],
    *,
    scope: str,
    update_ns: int,
    observed_ns: int,
    source: Source,
    ancestors: tuple[str, ...],
    location: str | None,
    existed: bool = False,
    fingerprint: bytes | None = None,
) -> Observation:
    """Make an observation of content that is redacted already; ``None`` for a deletion.

    Raises:
        InvalidAsset: with a name or a time that cannot be kept, or content that is not JSON.
    """
    if not name:
        raise InvalidAsset("has no name", f"asset of type {asset_type or 'unknown'}")
    if len(name) > _LONGEST_NAME or len(asset_type) > _LONGEST_TYPE or "\x00" in name or "\x00" in asset_type:
        raise InvalidAsset("has a name or type that is too long or not text", f"asset {name[:80]!r}…")
    if not (0 <= update_ns <= _LAST_NS and 0 <= observed_ns <= _LAST_NS):
        raise InvalidAsset("has an update time out of range", f"asset {name}")
    try:
        content = None if data is None else JsonData(data)
        digest = digest_of(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(name, error) from error
    told: Mapping[str, Any] = {} if data is None else data
    identifier = told.get("id") if content_type is ContentType.RESOURCE else None
    return Observation(
        name=name,
        content_type=content_type,
        asset_type=asset_type,
        scope=scope,
        update_ns=update_ns,
        observed_ns=observed_ns,
        source=source,
        deleted=data is None,
        resource_id=None if identifier is None else str(identifier),
        ancestors=ancestors,
        data=content,
        redacted=redacted,
        digest=digest,
        location=location or _location(told),
        existed=existed,
        display_name=_display_name(name, told),
        fingerprint=fingerprint,
    )


def _not_json(name: str, error: Exception) -> InvalidAsset:
    return InvalidAsset(f"has content that is not JSON ({type(error).__name__})", f"asset {name}")


def _location(data: Mapping[str, Any]) -> str | None:
    for field in _LOCATION_FIELDS:
        value = data.get(field)
        if isinstance(value, str) and value:
            return value.rsplit("/", 1)[-1]
    return None


def _display_name(name: str, data: Mapping[str, Any]) -> str:
    for field in ("displayName", "name"):
        value = data.get(field)
        if isinstance(value, str) and value:
            return value.rsplit("/", 1)[-1]
    return name.rsplit("/", 1)[-1]


def _get(mapping: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if name in mapping:
            return mapping[name]
    return None
