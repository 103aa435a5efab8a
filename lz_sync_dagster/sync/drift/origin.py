"""Who made a resource that no terraform block stands for, where its data proves it: default networks, nodes and disks
of GKE, instances of a group and the like are nobody's to write in terraform."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_GOOGLE = "Google Cloud"
_DEFAULT_ACCOUNT = re.compile(r"\d+-compute@developer\.gserviceaccount\.com|[^@]+@appspot\.gserviceaccount\.com")
_DEFAULT_RULES = frozenset({"default-allow-icmp", "default-allow-internal", "default-allow-rdp", "default-allow-ssh"})
_GOOGLE_SINKS = frozenset({"_Default", "_Required"})
#: Beginnings of label keys that only the product itself may set: ``goog-`` is reserved.
_LABELS = (
    ("goog-gke-", "GKE"),
    ("goog-k8s-", "GKE"),
    ("goog-dataproc-", "Dataproc"),
    ("goog-composer-", "Composer"),
    ("goog-dataflow-", "Dataflow"),
)


def created_by(asset_type: str, name: str, data: Mapping[str, Any] | None) -> str | None:
    """Who made a resource, in words; ``None`` if its data does not prove it."""
    if data is None:
        return None
    leaf = name.rpartition("/")[2]
    for key in _mapping(data.get("labels")) | _mapping(data.get("resourceLabels")):
        for beginning, maker in _LABELS:
            if str(key).startswith(beginning):
                return maker
    kind = asset_type.partition("/")[2]
    if asset_type.startswith("compute.googleapis.com/"):
        return _of_compute(kind, leaf, data)
    if kind == "ServiceAccount" and _DEFAULT_ACCOUNT.fullmatch(str(data.get("email", leaf))):
        return _GOOGLE
    if kind == "LogSink" and leaf in _GOOGLE_SINKS:
        return _GOOGLE
    return None


def note_of(unresolved: int, modules: int) -> str | None:
    """Why a resource may have a block all the same. ``unresolved``: blocks of its type of which it is not known which
    resource they are; ``modules``: calls of modules of which it is not known what they make."""
    notes = []
    if unresolved:
        notes.append(
            f"{_many(unresolved, 'block of this type', 'blocks of this type')} unresolved: it may be one of them"
        )
    if modules:
        notes.append(f"{_many(modules, 'module', 'modules')} not in the repository: it may be made there")
    return "; ".join(notes) or None


def _many(number: int, one: str, several: str) -> str:
    return f"{number} {several} are" if number > 1 else f"1 {one} is"


def _of_compute(kind: str, leaf: str, data: Mapping[str, Any]) -> str | None:
    network = str(data.get("network", "")).rpartition("/")[2]
    if kind == "Network" and leaf == "default" and data.get("autoCreateSubnetworks") is True:
        return _GOOGLE
    if kind == "Subnetwork" and leaf == network == "default":
        return _GOOGLE
    if kind == "Firewall" and leaf in _DEFAULT_RULES and network == "default":
        return _GOOGLE
    if "kubernetes.io/" in str(data.get("description", "")) and kind in ("Disk", "Firewall"):
        return "Kubernetes"
    if kind == "Instance":
        items = _mapping(data.get("metadata")).get("items")
        for item in items if isinstance(items, list) else ():
            if not isinstance(item, Mapping) or item.get("key") != "created-by":
                continue
            if "/instanceGroupManagers/" in str(item.get("value")):
                return "an instance group"
    return None


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
