"""From an asset's bytes to an observation: decoded, redacted, judged. Pure; what it remembers only makes it faster.

Assets of one organization repeat themselves: zones, machine types, labels, whole sub-objects. The bytes of a top-level
field stand for its decoded and redacted value as long as they are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.iam.v1 import policy_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from lz_sync_dagster.sync.compliance.verdict import Evaluator, Verdict
from lz_sync_dagster.sync.inventory import wire
from lz_sync_dagster.sync.state.observation import ContentType, InvalidAsset, Observation, Source, observe
from lz_sync_dagster.sync.state.redaction import redact_field, stands_alone
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.timing import format_ns

#: Doubles are exact integers below this.
_EXACT = 2**53
#: What converting an asset that is not of the expected form raises.
_ODD = (ValueError, TypeError, OverflowError, RecursionError, DecodeError)
#: Fields that are remembered: how many, and up to which size.
_REMEMBERED, _LARGEST = 40_000, 400


@dataclass(frozen=True, slots=True)
class Unusable:
    """An asset that was read but cannot be used. ``key``: its name, or its fingerprint if it has none. ``payload`` is
    its JSON, not redacted: it must be before it is kept."""

    key: str
    error: InvalidAsset
    payload: dict[str, Any]


@dataclass(slots=True)
class Decoded:
    """What a batch of assets came to. ``verdicts``: by full resource name."""

    observations: list[Observation] = field(default_factory=list)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    unusable: list[Unusable] = field(default_factory=list)


class Decoder:
    """Decodes assets of any part. Not safe to share between threads."""

    def __init__(self, evaluate: Evaluator) -> None:
        self._evaluate = evaluate
        self._fields: dict[bytes, tuple[str, Any, tuple[str, ...]]] = {}

    def decode(self, part: Part, read_ns: int, bodies: Sequence[tuple[bytes, bytes]]) -> Decoded:
        """Decode assets of a snapshot, given as (fingerprint, bytes)."""
        scope, _, content = part
        content_type = ContentType(content)
        found = Decoded()
        for fingerprint, body in bodies:
            known: dict[str, Any] = {"name": "", "assetType": part[1]}
            try:
                asset = wire.Asset.FromString(body)
                known = {"name": asset.name, "assetType": asset.asset_type}
                known, clean = self._body(asset, content_type)
                observation = observe(
                    known,
                    scope=scope,
                    observed_ns=read_ns,
                    source=Source.SNAPSHOT,
                    content_type=content_type,
                    clean=clean,
                    fingerprint=fingerprint,
                )
            except InvalidAsset as error:
                found.unusable.append(Unusable(known["name"] or fingerprint.hex(), error, known))
            except _ODD as error:
                unfit = InvalidAsset(
                    f"cannot be read ({type(error).__name__}: {error})", f"asset {known['name'][:80]!r}"
                )
                bare = {"name": known["name"], "assetType": part[1]}
                found.unusable.append(Unusable(known["name"] or fingerprint.hex(), unfit, bare))
            else:
                found.observations.append(observation)
                found.verdicts[observation.name] = self._evaluate(
                    observation.asset_type, content, observation.name, observation.data or {}
                )
        return found

    def _body(self, asset: Any, content_type: ContentType) -> tuple[dict[str, Any], tuple[str, ...] | None]:
        """An asset in Cloud Asset's JSON form, and the paths at which its content was redacted already, if it was."""
        body: dict[str, Any] = {
            "name": asset.name,
            "assetType": asset.asset_type,
            "ancestors": list(asset.ancestors),
        }
        if asset.update_time:
            moment = timestamp_pb2.Timestamp.FromString(asset.update_time)
            body["updateTime"] = format_ns(moment.seconds * 1_000_000_000 + moment.nanos)
        clean: tuple[str, ...] | None = None
        if content_type is ContentType.RESOURCE:
            resource = wire.Resource.FromString(asset.resource)
            data, clean = self._data(resource.data)
            body["resource"] = {"location": resource.location, "data": data}
        elif content_type is ContentType.IAM_POLICY:
            body["iamPolicy"] = MessageToDict(policy_pb2.Policy.FromString(asset.iam_policy))
        elif content_type is ContentType.ORG_POLICY:
            from google.cloud.orgpolicy.v1 import orgpolicy_pb2

            body["orgPolicy"] = [MessageToDict(orgpolicy_pb2.Policy.FromString(policy)) for policy in asset.org_policy]
        else:
            raise ValueError(f"content {content_type} is not decoded one by one")
        return body, clean

    def _data(self, body: bytes) -> tuple[dict[str, Any], tuple[str, ...] | None]:
        """A ``Struct``'s content, redacted; without paths if it is not, since its fields do not stand alone."""
        remembered = self._fields
        data: dict[str, Any] = {}
        redacted: tuple[str, ...] = ()
        for entry in wire.Struct.FromString(body).fields:
            known = remembered.get(entry)
            if known is None:
                known = self._field(entry)
            data[known[0]] = known[1]
            if known[2]:
                redacted += known[2]
        if stands_alone(data):
            return data, redacted
        return struct_dict(struct_pb2.Struct.FromString(body)), None

    def _field(self, entry: bytes) -> tuple[str, Any, tuple[str, ...]]:
        field_ = wire.Entry.FromString(entry)
        known = redact_field(field_.key, _value(struct_pb2.Value.FromString(field_.value)))
        if len(entry) <= _LARGEST:
            if len(self._fields) >= _REMEMBERED:
                self._fields.clear()
            self._fields[entry] = known
        return known


def group_relations(bodies: Sequence[bytes], relations: dict[str, dict[str, Any]]) -> None:
    """Take RELATIONSHIP assets in: each tells one relation of an asset, and an observation has all of them.

    Args:
        bodies: of one page.
        relations: by full resource name, the asset in JSON form with its ``relations``; it is added to.
    """
    from google.cloud.asset_v1 import Asset

    for body in bodies:
        asset = Asset.pb().FromString(body)
        related = asset.related_asset
        known = relations.setdefault(
            asset.name, {"name": asset.name, "assetType": asset.asset_type, "ancestors": [], "relations": []}
        )
        known["ancestors"] = list(asset.ancestors) or known["ancestors"]
        if asset.HasField("update_time"):
            moment = asset.update_time.seconds * 1_000_000_000 + asset.update_time.nanos
            known["updateTime"] = format_ns(moment)
        if related.asset:
            known["relations"].append(
                {"type": related.relationship_type, "asset": related.asset, "assetType": related.asset_type}
            )


def observe_relations(part: Part, read_ns: int, relations: dict[str, dict[str, Any]]) -> Decoded:
    """The observations of what `group_relations` gathered."""
    found = Decoded()
    for name, asset in relations.items():
        asset["relations"] = sorted(asset["relations"], key=lambda item: (item["type"], item["asset"]))
        try:
            observation = observe(
                asset,
                scope=part[0],
                observed_ns=read_ns,
                source=Source.SNAPSHOT,
                content_type=ContentType.RELATIONSHIP,
            )
        except InvalidAsset as error:
            found.unusable.append(Unusable(name, error, asset))
        else:
            found.observations.append(observation)
            found.verdicts[name] = []
    return found


def struct_dict(struct: Any) -> dict[str, Any]:
    """A ``Struct`` as a dict; several times faster than ``MessageToDict``."""
    return {key: _value(value) for key, value in struct.fields.items()}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return struct_dict(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None


def asset_body(asset: Any, content_type: str) -> dict[str, Any]:
    """A whole ``Asset`` protobuf message in Cloud Asset's JSON form, not redacted: the parts that an observation
    needs."""
    body: dict[str, Any] = {
        "name": asset.name,
        "assetType": asset.asset_type,
        "ancestors": list(asset.ancestors),
    }
    if asset.HasField("update_time"):
        moment = asset.update_time
        body["updateTime"] = format_ns(moment.seconds * 1_000_000_000 + moment.nanos)
    if content_type == ContentType.RESOURCE:
        body["resource"] = {"location": asset.resource.location, "data": struct_dict(asset.resource.data)}
    elif content_type == ContentType.IAM_POLICY:
        body["iamPolicy"] = MessageToDict(asset.iam_policy)
    else:
        body["orgPolicy"] = [MessageToDict(policy) for policy in asset.org_policy]
    return body
