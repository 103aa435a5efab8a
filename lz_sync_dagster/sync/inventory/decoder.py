"""From an asset's bytes to an observation: decoded, redacted, judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.iam.v1 import policy_pb2
from google.protobuf import timestamp_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from lz_sync_dagster.sync.compliance.verdict import Evaluator, Verdict
from lz_sync_dagster.sync.inventory import exported, wire
from lz_sync_dagster.sync.inventory.structs import StructDecoder
from lz_sync_dagster.sync.state.observation import (
    ContentType,
    InvalidAsset,
    JsonData,
    Observation,
    Source,
    observation_of,
    observe,
)
from lz_sync_dagster.sync.state.redaction import redact
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.timing import format_ns

#: What converting an asset that is not of the expected form raises.
_ODD = (ValueError, TypeError, OverflowError, RecursionError, DecodeError)


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

    def add(self, other: Decoded) -> None:
        """Take another batch in."""
        self.observations += other.observations
        self.verdicts |= other.verdicts
        self.unusable += other.unusable


class Decoder:
    """Decodes assets of any part. Not safe to share between threads."""

    def __init__(self, evaluate: Evaluator) -> None:
        self._evaluate = evaluate
        self._structs = StructDecoder()

    def decode(self, part: Part, read_ns: int, bodies: Sequence[tuple[bytes, bytes]]) -> Decoded:
        """Decode assets of a snapshot, given as (fingerprint, bytes)."""
        content_type = ContentType(part[2])
        found = Decoded()
        for fingerprint, body in bodies:
            known = {"name": "", "assetType": part[1]}
            try:
                if exported.is_exported(body):
                    line = exported.parse(body)
                    known |= {"name": line.name, "assetType": line.asset_type}
                    observation = exported.observation(line, content_type, part[0], read_ns, fingerprint)
                else:
                    asset = wire.Asset.FromString(body)
                    known = {"name": asset.name, "assetType": asset.asset_type}
                    observation = self._observation(asset, content_type, part[0], read_ns, fingerprint)
            except InvalidAsset as error:
                found.unusable.append(Unusable(known["name"] or fingerprint.hex(), error, known))
            except _ODD as error:
                unfit = InvalidAsset(
                    f"cannot be read ({type(error).__name__}: {error})", f"asset {known['name'][:80]!r}"
                )
                found.unusable.append(Unusable(known["name"] or fingerprint.hex(), unfit, known))
            else:
                found.observations.append(observation)
                found.verdicts[observation.name] = self._evaluate(
                    observation.asset_type,
                    part[2],
                    observation.name,
                    _content(observation),
                )
        return found

    def _observation(
        self, asset: Any, content_type: ContentType, scope: str, read_ns: int, fingerprint: bytes
    ) -> Observation:
        location = None
        if content_type is ContentType.RESOURCE:
            resource = wire.Resource.FromString(asset.resource)
            location = resource.location
            data, redacted = self._structs.decode(resource.data)
        else:
            data, redacted = redact(_policies(asset, content_type))
        return observation_of(
            asset.name,
            asset.asset_type,
            content_type,
            data,
            redacted,
            scope=scope,
            update_ns=_nanoseconds(asset.update_time) if asset.update_time else read_ns,
            observed_ns=read_ns,
            source=Source.SNAPSHOT,
            ancestors=tuple(asset.ancestors),
            location=location,
            fingerprint=fingerprint,
        )


def _content(observation: Observation) -> Mapping[str, Any]:
    data = observation.data
    return data.data if isinstance(data, JsonData) else data or {}


def _policies(asset: Any, content_type: ContentType) -> dict[str, Any]:
    if content_type is ContentType.IAM_POLICY:
        return MessageToDict(policy_pb2.Policy.FromString(asset.iam_policy))
    if content_type is ContentType.ORG_POLICY:
        from google.cloud.orgpolicy.v1 import orgpolicy_pb2

        return {"policies": [MessageToDict(orgpolicy_pb2.Policy.FromString(policy)) for policy in asset.org_policy]}
    raise ValueError(f"content {content_type} is not decoded one by one")


def _nanoseconds(body: bytes) -> int:
    moment = timestamp_pb2.Timestamp.FromString(body)
    return moment.seconds * 1_000_000_000 + moment.nanos


def group_relations(bodies: Sequence[bytes], relations: dict[str, dict[str, Any]]) -> None:
    """Take RELATIONSHIP assets in: each tells one relation of an asset, and an observation has all of them.

    Args:
        bodies: of one page.
        relations: by full resource name, the asset in JSON form with its ``relations``; it is added to.
    """
    for body in bodies:
        told = exported.parse_relation(body) if exported.is_exported(body) else _relation(body)
        known = relations.setdefault(
            told.name, {"name": told.name, "assetType": told.asset_type, "ancestors": [], "relations": [], "newest": 0}
        )
        known["ancestors"] = list(told.ancestors) or known["ancestors"]
        if told.update_ns > known["newest"]:  # each relation has a time of its own
            known |= {"newest": told.update_ns, "updateTime": format_ns(told.update_ns)}
        if told.related:
            known["relations"].append({"type": told.kind, "asset": told.related, "assetType": told.related_type})


def _relation(body: bytes) -> exported.Relation:
    from google.cloud.asset_v1 import Asset

    asset = Asset.pb().FromString(body)
    moment, related = asset.update_time, asset.related_asset
    return exported.Relation(
        name=asset.name,
        asset_type=asset.asset_type,
        ancestors=tuple(asset.ancestors),
        update_ns=moment.seconds * 1_000_000_000 + moment.nanos,
        kind=related.relationship_type,
        related=related.asset,
        related_type=related.asset_type,
    )


def observe_relations(part: Part, read_ns: int, relations: dict[str, dict[str, Any]]) -> Decoded:
    """The observations of what `group_relations` gathered."""
    found = Decoded()
    for name, asset in relations.items():
        told = {(item["type"], item["asset"]): item for item in asset["relations"]}  # one told twice is one
        asset["relations"] = [told[key] for key in sorted(told)]
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
