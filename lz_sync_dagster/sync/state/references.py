"""Which other resources a resource's data names, as full resource names. Pure: whether they exist is another matter.

Google's data names a resource in several ways: by full name (``//…``), by the link of its API, by a relative name that
leaves the service out, by the email of a service account, and, in GKE, by the bare name of a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: References that one resource's data may have.
LIMIT = 500

_LINK = re.compile(r"https?://([a-z0-9-]+)\.googleapis\.com/(.+)")
_VERSION = re.compile(r"v\d+[a-z0-9]*|alpha|beta")
_RELATIVE = re.compile(r"(?:projects|folders|organizations)/[^/\s]+(?:/[^\s]+)?")
_EMAIL = re.compile(
    r"(?:deleted:)?(?:serviceAccount:)?([a-z0-9._-]+@([a-z0-9.-]+)\.gserviceaccount\.com)(?:\?uid=\d+)?"
)
_SERVICE_NAME = re.compile(r"([a-z0-9-]+\.googleapis\.com)/(.+)")
_BUCKET = re.compile(r"gs://([a-z0-9._-]+)(?:/.*)?")

#: Hosts of links that are not those of full resource names.
_HOSTS = {"sqladmin": "cloudsql", "bigtableadmin": "bigtable", "www": ""}
#: The services whose resources are in a collection.
_SERVICES: dict[str, tuple[str, ...]] = {
    "addresses": ("compute",),
    "backendServices": ("compute",),
    "disks": ("compute",),
    "firewalls": ("compute",),
    "images": ("compute",),
    "instanceGroupManagers": ("compute",),
    "instanceGroups": ("compute",),
    "instanceTemplates": ("compute",),
    "networks": ("compute",),
    "routers": ("compute",),
    "snapshots": ("compute",),
    "subnetworks": ("compute",),
    "urlMaps": ("compute",),
    "instances": ("compute", "cloudsql", "spanner", "bigtable", "redis", "memorystore", "alloydb", "file"),
    "clusters": ("container", "alloydb", "dataproc"),
    "nodePools": ("container",),
    "cryptoKeys": ("cloudkms",),
    "keyRings": ("cloudkms",),
    "serviceAccounts": ("iam",),
    "datasets": ("bigquery",),
    "databases": ("spanner", "firestore"),
    "topics": ("pubsub",),
    "subscriptions": ("pubsub",),
    "secrets": ("secretmanager",),
    "managedZones": ("dns",),
    "repositories": ("artifactregistry",),
    "services": ("run",),
    "functions": ("cloudfunctions",),
    "sinks": ("logging",),
}
#: What is named like a resource, and is none of the inventory's.
_CATALOGUES = frozenset(
    {"zones", "regions", "locations", "machineTypes", "diskTypes", "acceleratorTypes", "instanceConfigs", "auth"}
)
_ABOVE = re.compile(r"(?:projects|folders|organizations)/[^/]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """One value that names another resource.

    Attributes:
        path: where it stands: ``networkInterfaces[0].network``.
        text: what stands there.
        names: the full resource names that it may mean, the likeliest first.
        email: of a service account, whose full name may have its number instead.
        project: the project that the email tells, if it does.
    """

    path: str
    text: str
    names: tuple[str, ...]
    email: str | None = None
    project: str | None = None


def references(
    data: Any, *, own_name: str, project: str | None = None, location: str | None = None, limit: int = LIMIT
) -> list[Reference]:
    """What a resource's data refers to, in the order of paths; itself left out.

    Args:
        project: of the resource: it tells where bare names of networks belong.
        location: of the resource: the region of bare names of subnetworks.
    """
    found = []
    for path, key, text in _strings("", "", data):
        reference = _reference(path, key, text, project, location)
        if reference is not None and own_name not in reference.names:
            found.append(reference)
            if len(found) == limit:
                break
    return found


def _strings(path: str, key: str, value: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, str):
        if 0 < len(value) <= 2_000:
            yield path, key, value
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield from _strings(f"{path}.{name}" if path else str(name), str(name), value[name])
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _strings(f"{path}[{place}]", key, item)


def _reference(path: str, key: str, text: str, project: str | None, location: str | None) -> Reference | None:
    email = _EMAIL.fullmatch(text)
    if email is not None:
        address, domain = email.groups()
        owner = domain.removesuffix(".iam") if domain.endswith(".iam") else None
        home = owner or project
        names = (f"//iam.googleapis.com/projects/{home}/serviceAccounts/{address}",) if home else ()
        return Reference(path, text, names, address, home)
    found = names_of(text)
    if not found and project and key in ("network", "subnetwork") and re.fullmatch(r"[a-z][a-z0-9-]{0,62}", text):
        found = _bare(key, text, project, location)
    return Reference(path, text, found) if found else None


def names_of(text: str) -> tuple[str, ...]:
    """The full resource names that a text may mean; none if it is no name."""
    if text.startswith("//"):
        return (_without_version(text),) if "/" in text[2:] else ()
    link = _LINK.fullmatch(text)
    if link is not None:
        return _of_link(*link.groups())
    bucket = _BUCKET.fullmatch(text)
    if bucket is not None:
        return (f"//storage.googleapis.com/{bucket.group(1)}",)
    service = _SERVICE_NAME.fullmatch(text)
    if service is not None and ("/" in service.group(2) or service.group(1) == "storage.googleapis.com"):
        return (f"//{text}",)
    return _of_relative(text) if _RELATIVE.fullmatch(text) else ()


def _of_link(host: str, path: str) -> tuple[str, ...]:
    parts = path.split("/")
    service = _HOSTS.get(host, host)
    if not service or (host == "sqladmin" and parts[0] == "sql") or (host == service == parts[0]):
        service = service or parts[0]
        parts = parts[1:]
    if parts and _VERSION.fullmatch(parts[0]):
        parts = parts[1:]
    if service == "storage" and parts[:1] == ["b"]:
        parts = parts[1:2]
    if service == "auth" or (len(parts) > 1 and parts[-2] in _CATALOGUES):
        return ()
    return (_without_version(f"//{service}.googleapis.com/{'/'.join(parts)}"),) if parts else ()


def _of_relative(text: str) -> tuple[str, ...]:
    if _ABOVE.fullmatch(text):
        return (f"//cloudresourcemanager.googleapis.com/{text}",)
    path = _without_version(text)
    parts = path.split("/")
    if parts[-2] in _CATALOGUES:
        return ()
    services = _SERVICES.get(parts[-2], ()) if len(parts) >= 4 else ()
    return tuple(f"//{service}.googleapis.com/{path}" for service in services)


def _without_version(name: str) -> str:
    """Keys are named with the version in use."""
    return name.partition("/cryptoKeyVersions/")[0]


def _bare(key: str, text: str, project: str, location: str | None) -> tuple[str, ...]:
    home = f"//compute.googleapis.com/projects/{project}"
    if key == "network":
        return (f"{home}/global/networks/{text}",)
    if location is None:
        return ()
    region = location.rpartition("-")[0] if re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", location) else location
    return (f"{home}/regions/{region}/subnetworks/{text}",)
