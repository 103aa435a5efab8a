"""How the demo's resources are related, as Cloud Asset's content type RELATIONSHIP tells it. It follows from what the
resources say of each other, so that it changes with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RELATIONSHIP = "RELATIONSHIP"

_COMPUTE = "//compute.googleapis.com/"
_COMPUTE_URL = "https://www.googleapis.com/compute/v1/"
_INSTANCE, _NODE_POOL = "compute.googleapis.com/Instance", "container.googleapis.com/NodePool"
#: Types of the organization that Google tells relations of. The demo has those of two of them.
SOURCES = frozenset(
    {
        "bigtableadmin.googleapis.com/Instance",
        "compute.googleapis.com/Disk",
        _INSTANCE,
        "container.googleapis.com/Cluster",
        _NODE_POOL,
        "storage.googleapis.com/Bucket",
    }
)


@dataclass(frozen=True, slots=True)
class Relation:
    """What an asset is related to. ``kind``: the relationship type."""

    kind: str
    asset: str
    asset_type: str
    ancestors: tuple[str, ...]

    def exported(self) -> dict[str, Any]:
        """As an export writes it."""
        return {
            "asset": self.asset,
            "asset_type": self.asset_type,
            "ancestors": list(self.ancestors),
            "relationship_type": self.kind,
        }


def relations_of(asset: Mapping[str, Any]) -> list[Relation]:
    """The relations of a resource in Cloud Asset's JSON form."""
    ancestors = tuple(asset["ancestors"])
    data = asset["resource"]["data"]
    if asset["assetType"] == _NODE_POOL:
        cluster = asset["name"].rpartition("/nodePools/")[0]
        return [Relation("GKE_NODE_POOL_TO_CLUSTER", cluster, "container.googleapis.com/Cluster", ancestors)]
    if asset["assetType"] != _INSTANCE:
        return []
    disks = [disk["source"].replace(_COMPUTE_URL, _COMPUTE) for disk in data.get("disks", []) if "source" in disk]
    found = [
        Relation("COMPUTE_INSTANCE_USE_DISK", disk, "compute.googleapis.com/Disk", ancestors) for disk in sorted(disks)
    ]
    place, _, name = asset["name"].partition("/instances/")
    if name.startswith("gke-"):
        group = f"{place}/instanceGroups/{name.rpartition('-')[0]}-grp"
        found.append(Relation("INSTANCE_TO_INSTANCEGROUP", group, "compute.googleapis.com/InstanceGroup", ancestors))
    return found
