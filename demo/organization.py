"""The generated organization: what a landing zone looks like to Cloud Asset Inventory, flaws included.

Base assets are not stored: each is computed from ``(seed, asset type, index)``, so a million of them take no memory.
Changes lie over them as versions, and a journal of the changes makes a later process see the same organization. Serving
it is `demo.asset_server`'s work, changing it the simulator's.
"""

from __future__ import annotations

import copy
import re
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import orjson

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.timing import format_ns, parse_ns, to_ns

Json = dict[str, Any]

ORGANIZATION = "organizations/100000000001"
RESOURCE, IAM_POLICY, ORG_POLICY = CONTENT_TYPES = ("RESOURCE", "IAM_POLICY", "ORG_POLICY")

#: No base asset changed after this instant; every change lies after it.
BASE_END_NS = parse_ns("2026-01-01T00:00:00Z")

FEWEST, MOST = 200, 1_000_000

_ORGANIZATION_TYPE = "cloudresourcemanager.googleapis.com/Organization"
_FOLDER_TYPE = "cloudresourcemanager.googleapis.com/Folder"
_PROJECT_TYPE = "cloudresourcemanager.googleapis.com/Project"

_TOKEN_SPACE = 36**4
_TOKEN_FACTOR = 1_036_583
_TOKEN_INVERSE = pow(_TOKEN_FACTOR, -1, _TOKEN_SPACE)
_TOKEN_OFFSET = 12_345
_KEY_SPACE = 2**32
_KEY_FACTOR = 2_654_435_761
_KEY_INVERSE = pow(_KEY_FACTOR, -1, _KEY_SPACE)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple(a + b for a in _DIGITS for b in _DIGITS)

_DAYS_2025 = tuple((date(2025, 1, 1) + timedelta(days=day)).isoformat() for day in range(365))
_DAYS_BEFORE = tuple((date(2023, 1, 1) + timedelta(days=day)).isoformat() for day in range(731))
_CLOCK = tuple(f"T{minute // 60:02}:{minute % 60:02}" for minute in range(1440))

_DOMAINS = (
    "payments",
    "catalog",
    "orders",
    "identity",
    "risk",
    "search",
    "mobile",
    "data",
    "ml",
    "billing",
    "crm",
    "web",
)
_ENVIRONMENTS = ("prod", "prod", "nonprod", "dev", "dev", "sandbox")
_TOP_FOLDERS = ("Platform", "Production", "Non-Production", "Sandbox")
_TOP_OF_ENVIRONMENT = {"shared": 0, "prod": 1, "nonprod": 2, "dev": 2, "sandbox": 3}
_REGIONS = ("europe-west1", "europe-west1", "europe-west4", "us-central1", "us-east4")
_ROLES = ("web", "api", "worker", "batch", "cache", "bastion", "build", "etl")
_MACHINES = ("e2-small", "e2-standard-2", "n2-standard-4", "n2-highmem-8", "c3-standard-8")
_CENTERS = ("cc-1010", "cc-1020", "cc-2040", "cc-3100")
_PEOPLE = ("alex", "bea", "chris", "dana", "eli", "farah", "gus", "hana")

_COMPUTE = "https://www.googleapis.com/compute/v1"
_TRUE_TEXT, _FALSE_TEXT = "TRUE", "FALSE"

# Parts that many assets share. One object each, so that a server can keep their encoded form.
_SCHEDULING: Json = {
    "automaticRestart": True,
    "onHostMaintenance": "MIGRATE",
    "preemptible": False,
    "provisioningModel": "STANDARD",
}
_SHIELDED: Json = {"enableIntegrityMonitoring": True, "enableSecureBoot": True, "enableVtpm": True}
_NOT_SHIELDED: Json = {"enableIntegrityMonitoring": False, "enableSecureBoot": False, "enableVtpm": False}
_INTEGRITY_POLICY: Json = {"updateAutoLearnPolicy": True}
_FULL_SCOPE = ["https://www.googleapis.com/auth/cloud-platform"]
_NARROW_SCOPES = [
    "https://www.googleapis.com/auth/devstorage.read_only",
    "https://www.googleapis.com/auth/logging.write",
    "https://www.googleapis.com/auth/monitoring.write",
]
_EXTERNAL_NAT = "External NAT"
_MANAGEMENT: Json = {"autoRepair": True, "autoUpgrade": True}
_FLOW_LOGS: Json = {"aggregationInterval": "INTERVAL_5_SEC", "enable": True, "flowSampling": 0.5}
_NO_FLOW_LOGS: Json = {"enable": False}
_LIFECYCLE: Json = {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 365}}]}
_UNIFORM: Json = {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"}
_FINE_GRAINED: Json = {"uniformBucketLevelAccess": {"enabled": False}, "publicAccessPrevention": "inherited"}
_GUEST_FEATURES = [{"type": "UEFI_COMPATIBLE"}, {"type": "VIRTIO_SCSI_MULTIQUEUE"}, {"type": "GVNIC"}]
_MAINTENANCE: Json = {"day": 7, "hour": 3, "kind": "sql#maintenanceWindow", "updateTrack": "stable"}

#: Parts of base assets that are one and the same object in all of them.
SHARED_PARTS: tuple[Json | list[Any], ...] = (
    _SCHEDULING,
    _SHIELDED,
    _NOT_SHIELDED,
    _INTEGRITY_POLICY,
    _FULL_SCOPE,
    _NARROW_SCOPES,
    _MANAGEMENT,
    _FLOW_LOGS,
    _NO_FLOW_LOGS,
    _LIFECYCLE,
    _UNIFORM,
    _FINE_GRAINED,
    _GUEST_FEATURES,
    _MAINTENANCE,
)


class _Draw:
    """A few hundred deterministic bits for one asset, taken in order."""

    __slots__ = ("_bits",)

    def __init__(self, seed: int, salt: str, index: int) -> None:
        self._bits = int.from_bytes(blake2b(f"{seed}/{salt}/{index}".encode()).digest(), "little")

    def below(self, limit: int) -> int:
        self._bits, value = divmod(self._bits, limit)
        return value

    def pick(self, options: Sequence[Any]) -> Any:
        self._bits, value = divmod(self._bits, len(options))
        return options[value]

    def percent(self, chance: int) -> bool:
        self._bits, value = divmod(self._bits, 100)
        return value < chance


#: Project numbers.
_FIRST_NUMBER, _NUMBER_STEP = 300_000_000_013, 104_729


def _token(index: int) -> str:
    high, low = divmod((index + _TOKEN_OFFSET) * _TOKEN_FACTOR % _TOKEN_SPACE, 1296)
    return _PAIRS[high] + _PAIRS[low]


@dataclass(frozen=True, slots=True)
class Project:
    """A base project. ``ancestors`` are nearest first and begin with the project itself."""

    index: int
    project_id: str
    number: str
    display_name: str
    environment: str
    domain: str
    region: str
    parent: str
    ancestors: tuple[str, ...]
    labels: Json

    @property
    def full_name(self) -> str:
        """The inventory names projects by number."""
        return f"//cloudresourcemanager.googleapis.com/projects/{self.number}"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one content of an asset, since ``at_ns`` (nanoseconds); a deletion has no ``asset``."""

    at_ns: int
    asset: Json | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One asset of an iteration.

    ``position`` continues the iteration after this entry. ``index`` is set for an asset that is as generated: it is
    ``Organization.base(asset_type, content_type, index)``. Else ``asset`` is the asset.
    """

    position: Position
    index: int | None
    asset: Json | None


#: Where an iteration stands: the next base index, then the last created name.
Position = tuple[int, str]
START: Position = (0, "")

_Builder = Callable[["_Item"], Json]
_Namer = Callable[["_Item"], str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one asset type is made. ``share``: per mille of what remains after folders, projects and networks."""

    asset_type: str
    host: str
    collection: str
    discovery: str
    version: str
    share: int
    name: _Namer
    data: _Builder


class Organization:
    """A deterministic organization of ``assets`` resources.

    Args:
        assets: how many assets of content ``RESOURCE`` it starts with, 200 to 1,000,000; policies come on top.
        seed: another seed, another organization.
        journal: where changes are kept (JSON lines). An existing one is replayed.

    Raises:
        SyncError: for another size or seed than the journal was written with, or a damaged journal.
    """

    def __init__(self, assets: int = 2000, seed: int = 7, journal: Path | None = None) -> None:
        if not FEWEST <= assets <= MOST:
            raise SyncError(
                f"{assets} assets are not possible",
                where="demo organization",
                remedy=f"choose between {FEWEST:,} and {MOST:,}",
                reason=Reason.INVALID,
            )
        self.assets = assets
        self.seed = seed
        self._lock = threading.RLock()
        self._totals = _distribute(assets)
        self.folders = self._make_folders()
        self.projects: tuple[Project, ...] = tuple(self._make_project(i) for i in range(self._totals[_PROJECT_TYPE]))
        self._scopes = self._make_scopes()
        self._versions: dict[tuple[str, str], list[Version]] = {}
        self._type_of: dict[str, str] = {}
        self._changed: dict[tuple[str, str], dict[int, str]] = {}
        self._created: dict[tuple[str, str], list[str]] = {}
        self._live: dict[tuple[str, str], int] = {}
        self._journal: IO[bytes] | None = None
        if journal is not None:
            self._journal = self._replay(journal)

    def close(self) -> None:
        """Close the journal."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    # --- reading ------------------------------------------------------------------------------------------------------

    def asset_types(self, content_type: str = RESOURCE) -> list[str]:
        """Asset types that have, or had, assets with this content, sorted."""
        types = {t for t in self._totals if self._step(t, content_type)}
        types.update(t for content, t in list(self._created) if content == content_type)
        return sorted(types)

    def count(self, asset_type: str, content_type: str = RESOURCE) -> int:
        """How many assets of the type exist now."""
        return len(self._indices(asset_type, content_type)) + self._live.get((content_type, asset_type), 0)

    def counts(self, content_type: str = RESOURCE) -> dict[str, int]:
        """How many assets of each type exist now."""
        return {asset_type: self.count(asset_type, content_type) for asset_type in self.asset_types(content_type)}

    def get(self, name: str, content_type: str = RESOURCE, at: datetime | int | None = None) -> Json | None:
        """The asset in Cloud Asset's JSON form with one content, or ``None``.

        ``at``: as it was at that instant (a datetime or nanoseconds); by default now.
        """
        at_ns = to_ns(at) if isinstance(at, datetime) else at
        versions = self._versions.get((content_type, name))
        if versions is not None:
            index = len(versions) if at_ns is None else bisect_right(versions, at_ns, key=lambda version: version.at_ns)
            if index:
                return copy.deepcopy(versions[index - 1].asset)
        found = self._locate(name)
        if found is None or found[1] not in self._indices(found[0], content_type):
            return None
        asset = self.base(found[0], content_type, found[1])
        return None if at_ns is not None and parse_ns(asset["updateTime"]) > at_ns else copy.deepcopy(asset)

    def changed(self, name: str, content_type: str = RESOURCE) -> Json | None:
        """What one of `changed_names` is now, ``None`` if it is gone. It is shared: not to be written to."""
        return self._versions[(content_type, name)][-1].asset

    def history(self, name: str, content_type: str = RESOURCE) -> list[Version]:
        """All versions, oldest first; empty if the asset never was."""
        versions: list[Version] = []
        found = self._locate(name)
        if found is not None and found[1] in self._indices(found[0], content_type):
            asset = self.base(found[0], content_type, found[1])
            versions.append(Version(parse_ns(asset["updateTime"]), asset))
        return versions + list(self._versions.get((content_type, name), ()))

    def type_of(self, name: str) -> str | None:
        """The asset type behind a full resource name that is, or was, there."""
        if name in self._type_of:
            return self._type_of[name]
        found = self._locate(name)
        return None if found is None else found[0]

    def names(self, asset_type: str, content_type: str = RESOURCE) -> Iterator[str]:
        """Full resource names of all that exist now, in the order of `entries`."""
        for entry in self.entries(asset_type, content_type):
            yield self._base_name(asset_type, entry.index) if entry.asset is None else entry.asset["name"]

    def assets_of(
        self,
        asset_type: str,
        content_type: str = RESOURCE,
        *,
        scope: str = ORGANIZATION,
        at: datetime | None = None,
    ) -> Iterator[Json]:
        """All assets of a type below a scope, now or at an instant, in the order of `entries`; not to be changed."""
        at_ns = None if at is None else to_ns(at)
        for entry in self.entries(asset_type, content_type, scope=scope, at_ns=at_ns):
            yield entry.asset if entry.asset is not None else self.base(asset_type, content_type, entry.index)

    def has_scope(self, scope: str) -> bool:
        """Whether ``organizations/1``, ``folders/2``, ``projects/3`` or ``projects/my-id`` is in the organization."""
        return scope in self._scopes or self._created_scope(scope) is not None

    def entries(
        self,
        asset_type: str,
        content_type: str = RESOURCE,
        *,
        scope: str = ORGANIZATION,
        at_ns: int | None = None,
        start: Position = START,
    ) -> Iterator[Entry]:
        """Iterate without making the assets that are as generated.

        The order is fixed for the life of the organization: generated assets by index, then created ones by name. With
        ``at_ns`` the result is the same however often, and in whatever pieces, it is read.

        Raises:
            KeyError: if the scope is not part of the organization.
        """
        wanted = self._scopes.get(scope)
        ancestor = scope
        if wanted is None:
            created = self._created_scope(scope)
            if created is None:
                raise KeyError(scope)
            wanted, ancestor = frozenset(), created
        elif scope.startswith("projects/"):
            ancestor = self.projects[next(iter(wanted))].ancestors[0]
        index, last = start
        indices = self._indices(asset_type, content_type)
        everything = scope == ORGANIZATION
        for i in indices[bisect_left(indices, index) :]:
            if not everything and not self._inside(asset_type, i, ancestor, wanted):
                continue
            name = self._changed.get((content_type, asset_type), {}).get(i)
            if name is None:
                yield Entry((i + 1, ""), i, None)
                continue
            version = self._version_at(content_type, name, at_ns)
            if version is None:
                yield Entry((i + 1, ""), i, None)
            elif version.asset is not None:
                yield Entry((i + 1, ""), None, version.asset)
        end = indices.stop
        while True:
            with self._lock:
                names = self._created.get((content_type, asset_type), [])
                following = names[(place := bisect_right(names, last)) : place + 500]
            if not following:
                return
            for last in following:
                version = self._version_at(content_type, last, at_ns)
                if version is None or version.asset is None:
                    continue
                if everything or ancestor in version.asset["ancestors"]:
                    yield Entry((end, last), None, version.asset)

    def base(self, asset_type: str, content_type: str, index: int | None) -> Json:
        """The generated asset with one content. It shares parts with other assets: not to be changed."""
        if index is None:
            raise ValueError("an entry without an index carries its asset")
        kind = _KINDS[asset_type]
        item = _Item(self, kind, index)
        project, draw = item.project, item.draw
        if asset_type == _ORGANIZATION_TYPE:
            ancestors: tuple[str, ...] = (ORGANIZATION,)
        elif asset_type == _FOLDER_TYPE:
            ancestors = self.folders[index][2]
        else:
            ancestors = project.ancestors
        asset: Json = {
            "name": item.name,
            "assetType": asset_type,
            "updateTime": f"{draw.pick(_DAYS_2025)}{draw.pick(_CLOCK)}:{10 + draw.below(50)}.{100 + draw.below(900)}Z",
            "ancestors": list(ancestors),
        }
        if content_type == RESOURCE:
            data = kind.data(item)
            asset["resource"] = {
                "version": kind.version,
                "discoveryDocumentUri": f"https://{kind.host}/$discovery/rest",
                "discoveryName": kind.discovery,
                **({"parent": parent} if (parent := _parent_name(asset_type, ancestors, project)) else {}),
                "location": data.pop("_location", "global"),
                "data": data,
            }
        elif content_type == IAM_POLICY:
            asset["iamPolicy"] = _iam_policy(self, asset_type, project, _Draw(self.seed, f"iam/{asset_type}", index))
        else:
            asset["orgPolicy"] = _org_policies(
                asset_type, asset["updateTime"], _Draw(self.seed, f"org/{asset_type}", index)
            )
        return asset

    def latest_ns(self) -> int:
        """When the last change was made; the end of the base if there was none."""
        return max((versions[-1].at_ns for versions in list(self._versions.values())), default=BASE_END_NS)

    def changed_names(self, content_type: str = RESOURCE) -> list[str]:
        """Names of all assets that were ever changed, created or deleted, sorted."""
        return sorted(name for content, name in list(self._versions) if content == content_type)

    # --- changing -----------------------------------------------------------------------------------------------------

    def upsert(self, asset: Mapping[str, Any], *, content_type: str = RESOURCE, at: datetime) -> Json:
        """Create or replace one content of an asset.

        Args:
            asset: at least ``name``, ``assetType`` and the content (``resource``, ``iamPolicy`` or ``orgPolicy``);
                without ``ancestors`` those of its project are taken.
            at: when; becomes ``updateTime``.

        Returns:
            The asset as it is now kept.

        Raises:
            ValueError: for an asset without a name, type or content, or a change that is not newer than the last one.
        """
        key = {RESOURCE: "resource", IAM_POLICY: "iamPolicy", ORG_POLICY: "orgPolicy"}[content_type]
        for needed in ("name", "assetType", key):
            if not asset.get(needed):
                raise ValueError(f"an asset to upsert as {content_type} needs {needed!r}")
        kept = copy.deepcopy({k: asset[k] for k in ("name", "assetType", "ancestors", key) if k in asset})
        kept["updateTime"] = format_ns(to_ns(at))
        kept["ancestors"] = list(kept.get("ancestors") or self._ancestors_of(kept["name"], kept["assetType"]))
        with self._lock:
            self._apply(content_type, kept["name"], kept["assetType"], Version(to_ns(at), kept))
            self._write({"op": "upsert", "content_type": content_type, "at": kept["updateTime"], "asset": kept})
        return copy.deepcopy(kept)

    def delete(self, name: str, *, content_type: str = RESOURCE, at: datetime) -> list[str]:
        """Delete one content of an asset; deleting the ``RESOURCE`` takes its policies along.

        Returns:
            The content types that are gone.

        Raises:
            KeyError: if it is not there.
        """
        with self._lock:
            contents = CONTENT_TYPES if content_type == RESOURCE else (content_type,)
            gone = [content for content in contents if self.get(name, content) is not None]
            if content_type not in gone:
                raise KeyError(name)
            asset_type = self.type_of(name)
            assert asset_type is not None
            for content in gone:
                self._apply(content, name, asset_type, Version(to_ns(at), None))
                self._write({"op": "delete", "content_type": content, "at": format_ns(to_ns(at)), "name": name})
            return gone

    def _apply(self, content_type: str, name: str, asset_type: str, version: Version) -> None:
        found = self._locate(name)
        is_base = found is not None and found[1] in self._indices(found[0], content_type)
        if found is not None and found[0] != asset_type:
            raise ValueError(f"{name} is a {found[0]}, not a {asset_type}")
        versions = self._versions.get((content_type, name))
        newest = versions[-1].at_ns if versions else BASE_END_NS if is_base else 0
        if version.at_ns <= newest:
            raise ValueError(f"{name}: a change at {format_ns(version.at_ns)} is not newer than {format_ns(newest)}")
        was = versions[-1].asset is not None if versions else is_base
        key = (content_type, asset_type)
        self._live[key] = self._live.get(key, 0) + (version.asset is not None) - was
        self._type_of[name] = asset_type
        self._versions.setdefault((content_type, name), []).append(version)
        if versions is None:
            if is_base and found is not None:
                self._changed.setdefault(key, {})[found[1]] = name
            else:
                insort(self._created.setdefault(key, []), name)

    def _write(self, line: Json) -> None:
        if self._journal is not None:
            self._journal.write(orjson.dumps(line) + b"\n")
            self._journal.flush()

    def _replay(self, path: Path) -> IO[bytes]:
        header = {"assets": self.assets, "seed": self.seed}
        path.parent.mkdir(parents=True, exist_ok=True)
        complete = 0
        if path.exists():
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if not line.endswith(b"\n"):
                        break  # the process that wrote it was killed in the middle
                    try:
                        self._replay_line(orjson.loads(line), header if number == 1 else None)
                    except (ValueError, KeyError, TypeError) as error:
                        raise SyncError(
                            f"cannot be replayed ({error})",
                            where=f"{path}:{number}",
                            remedy="delete the demo's data folder, or use the --assets it was made with",
                            reason=Reason.INVALID,
                        ) from error
                    complete += len(line)
        journal = path.open("r+b" if path.exists() else "w+b")
        journal.truncate(complete)
        journal.seek(complete)
        if not complete:
            journal.write(orjson.dumps(header) + b"\n")
            journal.flush()
        return journal

    def _replay_line(self, line: Json, header: Json | None) -> None:
        if header is not None:
            if line != header:
                raise ValueError(f"it was made with {line}, not {header}")
        elif line["op"] == "upsert":
            asset = line["asset"]
            self._apply(line["content_type"], asset["name"], asset["assetType"], Version(parse_ns(line["at"]), asset))
        else:
            asset_type = self.type_of(line["name"])
            if asset_type is None:
                raise ValueError(f"{line['name']} was never there")
            self._apply(line["content_type"], line["name"], asset_type, Version(parse_ns(line["at"]), None))

    # --- structure ----------------------------------------------------------------------------------------------------

    def _make_folders(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """(number, display name, ancestors including itself) of each folder; the first four are the top ones."""
        folders: list[tuple[str, str, tuple[str, ...]]] = []
        for i in range(self._totals[_FOLDER_TYPE]):
            number = str(200_000_000_003 + i * 7_919)
            if i < len(_TOP_FOLDERS):
                folders.append((number, _TOP_FOLDERS[i], (f"folders/{number}", ORGANIZATION)))
            else:
                domain = _DOMAINS[(i // 4 - 1) % len(_DOMAINS)].title()
                folders.append((number, f"{domain} {i // 4}", (f"folders/{number}", *folders[i % 4][2])))
        return folders

    def _make_project(self, index: int) -> Project:
        draw = _Draw(self.seed, "project", index)
        environment = "shared" if index == 0 else draw.pick(_ENVIRONMENTS)
        domain = "network" if index == 0 else draw.pick(_DOMAINS)
        region = draw.pick(_REGIONS)
        below = list(range(_TOP_OF_ENVIRONMENT[environment], len(self.folders), 4))
        folder = self.folders[below[0] if len(below) == 1 else draw.pick(below[1:])]
        number = str(_FIRST_NUMBER + index * _NUMBER_STEP)
        project_id = f"lz-{domain}-{environment}-{_token(index)}"
        return Project(
            index=index,
            project_id=project_id,
            number=number,
            display_name=f"{domain.title()} {environment}",
            environment=environment,
            domain=domain,
            region=region,
            parent=folder[0],
            ancestors=(f"projects/{number}", *folder[2]),
            labels={
                "cost-center": draw.pick(_CENTERS),
                "env": environment,
                "owner": f"team-{domain}",
            }
            | ({} if draw.percent(15) else {"data-class": draw.pick(("internal", "confidential", "public"))}),
        )

    def _make_scopes(self) -> dict[str, frozenset[int]]:
        """Indices of the projects below each scope."""
        scopes: dict[str, set[int]] = {ORGANIZATION: set()}
        for number, _, _ in self.folders:
            scopes[f"folders/{number}"] = set()
        for project in self.projects:
            scopes[f"projects/{project.project_id}"] = {project.index}
            for ancestor in project.ancestors:
                scopes.setdefault(ancestor, set()).add(project.index)
        return {scope: frozenset(indices) for scope, indices in scopes.items()}

    def _created_scope(self, scope: str) -> str | None:
        """The ancestor's name (by number) of a scope that was created later."""
        for collection, asset_type in (("projects", _PROJECT_TYPE), ("folders", _FOLDER_TYPE)):
            for name in self._created.get((RESOURCE, asset_type), []):
                asset = self.get(name)
                if asset is None:
                    continue
                ancestors: list[str] = asset["ancestors"]
                if scope in (ancestors[0], f"{collection}/{name.rsplit('/', 1)[1]}"):
                    return ancestors[0]
        return None

    def _inside(self, asset_type: str, index: int, ancestor: str, wanted: frozenset[int]) -> bool:
        if asset_type == _ORGANIZATION_TYPE:
            return False
        if asset_type == _FOLDER_TYPE:
            return ancestor in self.folders[index][2]
        return index % len(self.projects) in wanted

    def _ancestors_of(self, name: str, asset_type: str) -> Sequence[str]:
        existing = self.get(name)
        if existing is not None:
            return list(existing["ancestors"])
        match = re.search(r"/projects/([^/]+)", name)
        if match is not None and asset_type != _PROJECT_TYPE:
            for project in self.projects:
                if match[1] in (project.project_id, project.number):
                    return project.ancestors
            created = self.get(f"//cloudresourcemanager.googleapis.com/projects/{match[1]}")
            if created is not None:
                return list(created["ancestors"])
        raise ValueError(f"{name}: its ancestors are not known, so the asset must carry them")

    def _step(self, asset_type: str, content_type: str) -> int:
        """Each how manieth base asset of the type has the content; 0 for none."""
        if content_type == RESOURCE:
            return 1
        return (_IAM_STEPS if content_type == IAM_POLICY else _ORG_POLICY_STEPS).get(asset_type, 0)

    def _indices(self, asset_type: str, content_type: str) -> range:
        step = self._step(asset_type, content_type)
        return range(0, self._totals.get(asset_type, 0), step) if step else range(0)

    def _version_at(self, content_type: str, name: str, at_ns: int | None) -> Version | None:
        versions = self._versions[content_type, name]
        place = len(versions) if at_ns is None else bisect_right(versions, at_ns, key=lambda version: version.at_ns)
        return versions[place - 1] if place else None

    def _base_name(self, asset_type: str, index: int | None) -> str:
        assert index is not None
        return _Item(self, _KINDS[asset_type], index).name

    def _locate(self, name: str) -> tuple[str, int] | None:
        """(asset type, index) of a base asset's name, which carries the index, scrambled; checked by remaking it."""
        host, _, path = name.removeprefix("//").partition("/")
        parts = path.split("/")
        leaf = parts[-1]
        asset_type = _BY_COLLECTION.get((host, parts[-2] if len(parts) > 1 else ""))
        if asset_type is None:
            return None
        for index in _indices_in(asset_type, leaf, parts):
            if 0 <= index < self._totals[asset_type] and self._base_name(asset_type, index) == name:
                return asset_type, index
        return None

    def count_in(self, asset_type: str, project: Project) -> int:
        """How many generated assets of a type the project started with."""
        return len(range(project.index, self._totals[asset_type], len(self.projects)))

    def resource_name(self, asset_type: str, project: Project, wish: int) -> str | None:
        """The full resource name of one of the project's generated assets of a type; ``None`` if it has none."""
        count = self.count_in(asset_type, project)
        return self._base_name(asset_type, project.index + wish % count * len(self.projects)) if count else None

    def reference(self, asset_type: str, project: Project, wish: int) -> str | None:
        """Like `resource_name`, without the host."""
        name = self.resource_name(asset_type, project, wish)
        return None if name is None else name[2:].partition("/")[2]


def _indices_in(asset_type: str, leaf: str, parts: list[str]) -> Iterator[int]:
    if asset_type == _ORGANIZATION_TYPE:
        yield 0
    elif asset_type == _FOLDER_TYPE:
        if leaf.isdigit():
            yield (int(leaf) - 200_000_000_003) // 7_919
    elif asset_type == _PROJECT_TYPE:
        if leaf.isdigit():
            yield (int(leaf) - _FIRST_NUMBER) // _NUMBER_STEP
    elif asset_type == "iam.googleapis.com/ServiceAccountKey":
        if re.fullmatch(r"[0-9a-f]{40}", leaf):
            yield int(leaf[:8], 16) * _KEY_INVERSE % _KEY_SPACE
    else:
        for text in (leaf.split("@")[0], *(parts[1:2] if leaf == "default" else ())):
            if re.fullmatch(r"[0-9a-z]{4}", token := text[-4:]):
                yield int(token, 36) * _TOKEN_INVERSE % _TOKEN_SPACE - _TOKEN_OFFSET


def _distribute(assets: int) -> dict[str, int]:
    """How many assets of each type: together exactly ``assets``."""
    projects = max(6, min(assets // 50, 2500))
    totals = {
        _ORGANIZATION_TYPE: 1,
        _FOLDER_TYPE: max(4, min(projects // 4, 48)),
        _PROJECT_TYPE: projects,
        "compute.googleapis.com/Project": projects,
        "compute.googleapis.com/Network": projects,
    }
    rest = assets - sum(totals.values())
    for kind in _KINDS.values():
        if kind.share:
            totals[kind.asset_type] = max(1, rest * kind.share // 1000)
    totals[_DISK_TYPE] += assets - sum(totals.values())
    return totals


def _parent_name(asset_type: str, ancestors: Sequence[str], project: Project) -> str:
    if asset_type == _ORGANIZATION_TYPE:
        return ""
    if asset_type in (_FOLDER_TYPE, _PROJECT_TYPE):
        return f"//cloudresourcemanager.googleapis.com/{ancestors[1]}"
    return f"//cloudresourcemanager.googleapis.com/projects/{project.number}"


# --- what each type looks like ----------------------------------------------------------------------------------------


class _Item:
    """One base asset in the making."""

    __slots__ = ("draw", "index", "local", "name", "org", "project")

    def __init__(self, org: Organization, kind: _Kind, index: int) -> None:
        self.org = org
        self.index = index
        self.project = org.projects[index % len(org.projects)]
        self.local = index // len(org.projects)
        self.draw = _Draw(org.seed, kind.asset_type, index)
        self.name = ""
        self.name = kind.name(self)

    @property
    def path(self) -> str:
        """The name without its host."""
        return self.name[2:].partition("/")[2]

    @property
    def leaf(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def token(self) -> str:
        return _token(self.index)

    @property
    def home(self) -> str:
        return f"projects/{self.project.project_id}"

    @property
    def zone(self) -> str:
        return f"{self.project.region}-{'bcd'[self.index % 3]}"

    @property
    def network(self) -> str:
        return self.reference("compute.googleapis.com/Network", 0) or ""

    def reference(self, asset_type: str, wish: int) -> str | None:
        return self.org.reference(asset_type, self.project, wish)

    def labels(self) -> Json:
        """Most resources carry their project's labels; some carry too few, as in life."""
        return {"env": self.project.environment} if self.draw.percent(12) else self.project.labels

    def created_at(self) -> str:
        draw = self.draw
        return f"{_DAYS_BEFORE[draw.below(731)]}{_CLOCK[draw.below(1440)]}:{draw.below(50) + 10}.000Z"

    def number(self) -> str:
        return str(10**18 + self.draw.below(8 * 10**18))


def _name_instance(item: _Item) -> str:
    role = item.draw.pick(_ROLES)
    prefix = "gke" if item.draw.percent(12) else "vm"
    zone = item.zone
    return f"//compute.googleapis.com/{item.home}/zones/{zone}/instances/{prefix}-{role}-{item.token}"


def _instance(item: _Item) -> Json:
    path = item.path
    name = item.leaf
    zone = item.zone
    prefix = f"{_COMPUTE}/projects/{item.project.project_id}"
    by_gke = name.startswith("gke-")
    local = item.local
    subnetwork = item.reference("compute.googleapis.com/Subnetwork", local)
    labels = item.labels()
    address = f"10.{item.draw.below(200)}.{item.draw.below(250)}.{item.draw.below(250) + 2}"
    interface: Json = {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": f"{_COMPUTE}/{item.network}",
        "networkIP": address,
        "stackType": "IPV4_ONLY",
    }
    if subnetwork is not None:
        interface["subnetwork"] = f"{_COMPUTE}/{subnetwork}"
    if not by_gke and item.draw.percent(14):
        interface["accessConfigs"] = [
            {
                "kind": "compute#accessConfig",
                "name": _EXTERNAL_NAT,
                "natIP": f"34.{item.draw.below(100) + 70}.{item.draw.below(250)}.{item.draw.below(250) + 2}",
                "networkTier": "PREMIUM",
                "type": "ONE_TO_ONE_NAT",
            }
        ]
    items: list[Json] = [{"key": "block-project-ssh-keys", "value": "false" if item.draw.percent(18) else "true"}]
    if item.draw.percent(60):
        items.append({"key": "enable-oslogin", "value": _FALSE_TEXT if item.draw.percent(10) else _TRUE_TEXT})
    if item.draw.percent(5):
        items.append({"key": "serial-port-enable", "value": "true"})
    if item.draw.percent(25):
        items.append({"key": "startup-script", "value": _startup_script(name, item.draw)})
    if item.draw.percent(6):
        items.append({"key": "db-password", "value": f"demo-{item.draw.below(10**9):09d}"})
    if item.draw.percent(10):
        items.append(
            {
                "key": "ssh-keys",
                "value": f"{item.draw.pick(_PEOPLE)}:ssh-ed25519 AAAAC3Nza{item.draw.below(10**12):012d} demo",
            }
        )
    default_account = item.draw.percent(15)
    account = item.reference("iam.googleapis.com/ServiceAccount", local)
    if default_account or account is None:
        email = f"{item.project.number}-compute@developer.gserviceaccount.com"
    else:
        email = account.rsplit("/", 1)[1]
    disk: Json = {
        "autoDelete": True,
        "boot": True,
        "deviceName": name,
        "diskSizeGb": str(item.draw.pick((20, 50, 100, 200))),
        "guestOsFeatures": _GUEST_FEATURES,
        "index": 0,
        "interface": "SCSI",
        "mode": "READ_WRITE",
        "source": f"{_COMPUTE}/{item.reference(_DISK_TYPE, item.local)}",
        "type": "PERSISTENT",
    }
    return {
        "_location": zone,
        "canIpForward": by_gke or item.draw.percent(3),
        "cpuPlatform": "Intel Ice Lake",
        "creationTimestamp": item.created_at(),
        "deletionProtection": item.project.environment == "prod",
        "disks": [disk],
        "id": item.number(),
        "labels": {**labels, "goog-gke-node": "", "goog-k8s-cluster-name": f"gke-{item.project.domain}"}
        if by_gke
        else labels,
        "machineType": f"{prefix}/zones/{zone}/machineTypes/{item.draw.pick(_MACHINES)}",
        "metadata": {"fingerprint": f"{item.draw.below(10**8):08d}", "items": items, "kind": "compute#metadata"},
        "name": name,
        "networkInterfaces": [interface],
        "scheduling": _SCHEDULING,
        "selfLink": f"{_COMPUTE}/{path}",
        "serviceAccounts": [{"email": email, "scopes": _FULL_SCOPE if item.draw.percent(40) else _NARROW_SCOPES}],
        "shieldedInstanceConfig": _NOT_SHIELDED if item.draw.percent(12) else _SHIELDED,
        "shieldedInstanceIntegrityPolicy": _INTEGRITY_POLICY,
        "status": "TERMINATED" if item.draw.percent(9) else "RUNNING",
        "tags": {"fingerprint": "42WmSpB8rSM=", "items": [name.split("-")[1]]},
        "zone": f"{prefix}/zones/{zone}",
    }


def _startup_script(name: str, draw: _Draw) -> str:
    if draw.percent(35):
        return (
            "#!/bin/bash\n"
            f"export DB_PASSWORD='demo-{draw.below(10**9):09d}'\n"
            f"curl -H 'Authorization: Bearer demo-token-{draw.below(10**9):09d}' https://config.example.com/{name}\n"
        )
    return "#!/bin/bash\napt-get update && apt-get install -y nginx\nsystemctl enable --now nginx\n"


def _name_disk(item: _Item) -> str:
    zone = item.zone
    return f"//compute.googleapis.com/{item.home}/zones/{zone}/disks/disk-{item.draw.pick(_ROLES)}-{item.token}"


def _disk(item: _Item) -> Json:
    path = item.path
    zone = item.zone
    prefix = f"{_COMPUTE}/projects/{item.project.project_id}/zones/{zone}"
    data: Json = {
        "_location": zone,
        "creationTimestamp": item.created_at(),
        "guestOsFeatures": _GUEST_FEATURES,
        "id": item.number(),
        "labels": item.labels(),
        "name": item.leaf,
        "physicalBlockSizeBytes": "4096",
        "selfLink": f"{_COMPUTE}/{path}",
        "sizeGb": str(item.draw.pick((20, 50, 100, 200, 500))),
        "status": "READY",
        "type": f"{prefix}/diskTypes/{item.draw.pick(('pd-balanced', 'pd-ssd', 'pd-standard'))}",
        "zone": prefix,
    }
    user = item.reference("compute.googleapis.com/Instance", item.local)
    if user is not None and not item.draw.percent(8):
        data["users"] = [f"{_COMPUTE}/{user}"]
    key = item.reference("cloudkms.googleapis.com/CryptoKey", 0)
    if key is not None and item.draw.percent(40):
        data["diskEncryptionKey"] = {"kmsKeyName": f"{key}/cryptoKeyVersions/1"}
    return data


def _name_network(item: _Item) -> str:
    leaf = "default" if item.draw.percent(8) else f"vpc-{item.project.environment}-{item.token}"
    return f"//compute.googleapis.com/{item.home}/global/networks/{leaf}"


def _network(item: _Item) -> Json:
    path = item.path
    leaf = item.leaf
    subnetworks = item.org.count_in("compute.googleapis.com/Subnetwork", item.project)
    return {
        "autoCreateSubnetworks": leaf == "default",
        "creationTimestamp": item.created_at(),
        "description": f"VPC of {item.project.display_name}",
        "id": item.number(),
        "mtu": 1460,
        "name": leaf,
        "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
        "routingConfig": {"routingMode": "GLOBAL" if item.project.environment == "shared" else "REGIONAL"},
        "selfLink": f"{_COMPUTE}/{path}",
        "subnetworks": [
            f"{_COMPUTE}/{item.reference('compute.googleapis.com/Subnetwork', i)}" for i in range(subnetworks)
        ],
    }


def _name_subnetwork(item: _Item) -> str:
    return f"//compute.googleapis.com/{item.home}/regions/{item.project.region}/subnetworks/subnet-{item.token}"


def _subnetwork(item: _Item) -> Json:
    path = item.path
    flow_logs = not item.draw.percent(25)
    third = item.local % 250
    return {
        "_location": item.project.region,
        "creationTimestamp": item.created_at(),
        "enableFlowLogs": flow_logs,
        "fingerprint": f"{item.draw.below(10**8):08d}",
        "gatewayAddress": f"10.{item.project.index % 250}.{third}.1",
        "id": item.number(),
        "ipCidrRange": f"10.{item.project.index % 250}.{third}.0/24",
        "logConfig": _FLOW_LOGS if flow_logs else _NO_FLOW_LOGS,
        "name": item.leaf,
        "network": f"{_COMPUTE}/{item.network}",
        "privateIpGoogleAccess": not item.draw.percent(10),
        "purpose": "PRIVATE",
        "region": f"{_COMPUTE}/projects/{item.project.project_id}/regions/{item.project.region}",
        "selfLink": f"{_COMPUTE}/{path}",
        "stackType": "IPV4_ONLY",
    }


_RULES = ("allow-ssh", "allow-rdp", "allow-web", "allow-health-checks", "allow-internal", "deny-egress")


def _name_firewall(item: _Item) -> str:
    rule = item.draw.pick(_RULES)
    return f"//compute.googleapis.com/{item.home}/global/firewalls/{rule}-{item.token}"


def _firewall(item: _Item) -> Json:
    path = item.path
    leaf = item.leaf
    rule = leaf[:-5]
    data: Json = {
        "creationTimestamp": item.created_at(),
        "description": f"{rule} for {item.project.display_name}",
        "direction": "EGRESS" if rule == "deny-egress" else "INGRESS",
        "disabled": item.draw.percent(4),
        "id": item.number(),
        "logConfig": {"enable": item.draw.percent(60)},
        "name": leaf,
        "network": f"{_COMPUTE}/{item.network}",
        "priority": 65534 if rule == "deny-egress" else 1000,
        "selfLink": f"{_COMPUTE}/{path}",
    }
    open_wide = item.draw.percent(15)
    if rule == "deny-egress":
        data |= {"denied": [{"IPProtocol": "all"}], "destinationRanges": ["0.0.0.0/0"]}
    elif rule == "allow-ssh":
        ports = ["20-25"] if open_wide and item.draw.percent(30) else ["22"]
        source = ["0.0.0.0/0"] if open_wide else ["35.235.240.0/20"]
        data |= {"allowed": [{"IPProtocol": "tcp", "ports": ports}], "sourceRanges": source}
    elif rule == "allow-rdp":
        source = ["0.0.0.0/0"] if open_wide else ["35.235.240.0/20"]
        data |= {"allowed": [{"IPProtocol": "tcp", "ports": ["3389"]}], "sourceRanges": source}
    elif rule == "allow-web":
        data |= {
            "allowed": [{"IPProtocol": "tcp", "ports": ["80", "443"]}],
            "sourceRanges": ["0.0.0.0/0"],
            "targetTags": ["web"],
        }
    elif rule == "allow-health-checks":
        data |= {"allowed": [{"IPProtocol": "tcp"}], "sourceRanges": ["35.191.0.0/16", "130.211.0.0/22"]}
    else:
        data |= {"allowed": [{"IPProtocol": "all"}], "sourceRanges": ["10.0.0.0/8"]}
    return data


def _name_compute_project(item: _Item) -> str:
    return f"//compute.googleapis.com/projects/{item.project.project_id}"


def _compute_project(item: _Item) -> Json:
    items: list[Json] = []
    if not item.draw.percent(20):
        items.append({"key": "enable-oslogin", "value": _TRUE_TEXT})
    if item.draw.percent(30):
        items.append(
            {
                "key": "ssh-keys",
                "value": f"{item.draw.pick(_PEOPLE)}:ssh-rsa AAAAB3Nza{item.draw.below(10**12):012d} demo",
            }
        )
    metadata: Json = {"fingerprint": f"{item.draw.below(10**8):08d}", "kind": "compute#metadata"}
    if items:
        metadata["items"] = items
    return {
        "commonInstanceMetadata": metadata,
        "creationTimestamp": item.created_at(),
        "defaultNetworkTier": "PREMIUM",
        "defaultServiceAccount": f"{item.project.number}-compute@developer.gserviceaccount.com",
        "id": item.number(),
        "name": item.project.project_id,
        "selfLink": f"{_COMPUTE}/projects/{item.project.project_id}",
        "xpnProjectStatus": "HOST" if item.project.environment == "shared" else "UNSPECIFIED_XPN_PROJECT_STATUS",
    }


def _name_cluster(item: _Item) -> str:
    return (
        f"//container.googleapis.com/{item.home}/locations/{item.project.region}"
        f"/clusters/gke-{item.project.domain}-{item.token}"
    )


def _cluster(item: _Item) -> Json:
    path = item.path
    leaf = item.leaf
    version = item.draw.pick(("1.31.6-gke.1064001", "1.32.2-gke.1297001", "1.33.1-gke.1386000"))
    pools = [
        {
            "autoscaling": {"enabled": True, "maxNodeCount": 6, "minNodeCount": 1},
            "config": {"diskSizeGb": 100, "imageType": "COS_CONTAINERD", "machineType": item.draw.pick(_MACHINES)},
            "initialNodeCount": 1 + item.draw.below(3),
            "management": _MANAGEMENT,
            "name": pool,
            "status": "RUNNING",
            "version": version,
        }
        for pool in ("default-pool", "batch-pool")[: 1 + item.draw.below(2)]
    ]
    subnetwork = item.reference("compute.googleapis.com/Subnetwork", item.local)
    return {
        "_location": item.project.region,
        "createTime": item.created_at(),
        "currentMasterVersion": version,
        "currentNodeCount": 3 * sum(pool["initialNodeCount"] for pool in pools),
        "currentNodeVersion": version,
        "endpoint": f"10.{item.draw.below(200)}.{item.draw.below(250)}.2",
        "id": f"{item.draw.below(10**18):064x}",
        "legacyAbac": {"enabled": item.draw.percent(4)},
        "location": item.project.region,
        "locations": [f"{item.project.region}-{letter}" for letter in "bcd"],
        "loggingService": "logging.googleapis.com/kubernetes",
        "masterAuth": {"clusterCaCertificate": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"},
        "masterAuthorizedNetworksConfig": {"enabled": not item.draw.percent(20)},
        "monitoringService": "monitoring.googleapis.com/kubernetes",
        "name": leaf,
        "network": item.network.rsplit("/", 1)[1],
        "nodePools": pools,
        "privateClusterConfig": {"enablePrivateNodes": not item.draw.percent(15)},
        "releaseChannel": {"channel": "REGULAR"},
        "resourceLabels": item.labels(),
        "selfLink": f"https://container.googleapis.com/v1/{path}",
        "shieldedNodes": {"enabled": True},
        "status": "RUNNING",
        "subnetwork": (subnetwork or "").rsplit("/", 1)[-1],
        "workloadIdentityConfig": {"workloadPool": f"{item.project.project_id}.svc.id.goog"},
    }


def _name_node_pool(item: _Item) -> str:
    cluster = item.reference("container.googleapis.com/Cluster", item.local)
    parent = (
        cluster
        or f"projects/{item.project.project_id}/locations/{item.project.region}/clusters/gke-{item.project.domain}"
    )
    return f"//container.googleapis.com/{parent}/nodePools/pool-{item.token}"


def _node_pool(item: _Item) -> Json:
    path = item.path
    return {
        "_location": item.project.region,
        "autoscaling": {"enabled": True, "maxNodeCount": 6, "minNodeCount": 1},
        "config": {
            "diskSizeGb": 100,
            "imageType": "COS_CONTAINERD",
            "machineType": item.draw.pick(_MACHINES),
            "oauthScopes": _FULL_SCOPE,
            "shieldedInstanceConfig": {
                "enableIntegrityMonitoring": True,
                "enableSecureBoot": not item.draw.percent(20),
            },
        },
        "initialNodeCount": 1 + item.draw.below(3),
        "locations": [f"{item.project.region}-{letter}" for letter in "bcd"],
        "management": _MANAGEMENT,
        "name": item.leaf,
        "selfLink": f"https://container.googleapis.com/v1/{path}",
        "status": "RUNNING",
        "version": item.draw.pick(("1.31.6-gke.1064001", "1.32.2-gke.1297001", "1.33.1-gke.1386000")),
    }


def _name_sql(item: _Item) -> str:
    engine = item.draw.pick(("pg", "pg", "mysql", "mssql"))
    return f"//cloudsql.googleapis.com/{item.home}/instances/{engine}-{item.project.domain}-{item.token}"


def _sql(item: _Item) -> Json:
    leaf = item.leaf
    engine = leaf.split("-")[0]
    version = {"pg": "POSTGRES_16", "mysql": "MYSQL_8_0", "mssql": "SQLSERVER_2022_STANDARD"}[engine]
    public = item.draw.percent(22)
    addresses = [{"ipAddress": f"10.{item.draw.below(200)}.{item.draw.below(250)}.5", "type": "PRIVATE"}]
    networks: list[Json] = []
    if public:
        addresses.append({"ipAddress": f"35.{item.draw.below(200)}.{item.draw.below(250)}.9", "type": "PRIMARY"})
        networks.append(
            {"kind": "sql#aclEntry", "name": "anyone", "value": "0.0.0.0/0"}
            if item.draw.percent(30)
            else {"kind": "sql#aclEntry", "name": "office", "value": "203.0.113.0/24"}
        )
    encrypted = not item.draw.percent(20)
    flags: list[Json] = []
    if engine == "pg":
        flags = [{"name": "log_connections", "value": "on"}, {"name": "log_min_duration_statement", "value": "-1"}]
    elif engine == "mysql":
        flags = [{"name": "local_infile", "value": "on" if item.draw.percent(25) else "off"}]
    return {
        "_location": item.project.region,
        "backendType": "SECOND_GEN",
        "connectionName": f"{item.project.project_id}:{item.project.region}:{leaf}",
        "createTime": item.created_at(),
        "databaseVersion": version,
        "gceZone": item.zone,
        "instanceType": "CLOUD_SQL_INSTANCE",
        "ipAddresses": addresses,
        "kind": "sql#instance",
        "name": leaf,
        "project": item.project.project_id,
        "region": item.project.region,
        "selfLink": f"https://sqladmin.googleapis.com/sql/v1beta4/projects/{item.project.project_id}/instances/{leaf}",
        "serviceAccountEmailAddress": f"p{item.project.number}-sql@gcp-sa-cloud-sql.iam.gserviceaccount.com",
        "settings": {
            "activationPolicy": "ALWAYS",
            "availabilityType": "REGIONAL" if item.project.environment == "prod" else "ZONAL",
            "backupConfiguration": {
                "enabled": not item.draw.percent(12),
                "kind": "sql#backupConfiguration",
                "pointInTimeRecoveryEnabled": True,
                "startTime": "02:00",
            },
            "dataDiskSizeGb": str(item.draw.pick((20, 100, 500))),
            "dataDiskType": "PD_SSD",
            "databaseFlags": flags,
            "ipConfiguration": {
                "authorizedNetworks": networks,
                "ipv4Enabled": public,
                "privateNetwork": item.network,
                "requireSsl": encrypted,
                "sslMode": "ENCRYPTED_ONLY" if encrypted else "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
            },
            "kind": "sql#settings",
            "maintenanceWindow": _MAINTENANCE,
            "settingsVersion": str(1 + item.draw.below(40)),
            "tier": item.draw.pick(("db-custom-2-7680", "db-custom-4-15360", "db-custom-8-30720")),
            "userLabels": item.labels(),
        },
        "state": "SUSPENDED" if item.draw.percent(3) else "RUNNABLE",
    }


def _name_spanner(item: _Item) -> str:
    return f"//spanner.googleapis.com/{item.home}/instances/spanner-{item.project.domain}-{item.token}"


def _spanner(item: _Item) -> Json:
    path = item.path
    nodes = 1 + item.draw.below(3)
    return {
        "_location": item.project.region,
        "config": f"projects/{item.project.project_id}/instanceConfigs/regional-{item.project.region}",
        "createTime": item.created_at(),
        "displayName": f"{item.project.display_name} ledger",
        "edition": "ENTERPRISE",
        "labels": item.labels(),
        "name": path,
        "nodeCount": nodes,
        "processingUnits": 1000 * nodes,
        "state": "READY",
    }


def _name_bigtable(item: _Item) -> str:
    return f"//bigtable.googleapis.com/{item.home}/instances/bt-{item.project.domain}-{item.token}"


def _bigtable(item: _Item) -> Json:
    path = item.path
    return {
        "_location": item.project.region,
        "createTime": item.created_at(),
        "displayName": f"{item.project.display_name} events",
        "labels": item.labels(),
        "name": path,
        "state": "READY",
        "type": "PRODUCTION" if item.project.environment == "prod" else "DEVELOPMENT",
    }


def _name_firestore(item: _Item) -> str:
    return f"//firestore.googleapis.com/{item.home}/databases/app-{item.token}"


def _firestore(item: _Item) -> Json:
    path = item.path
    return {
        "_location": item.project.region,
        "concurrencyMode": "PESSIMISTIC",
        "createTime": item.created_at(),
        "deleteProtectionState": "DELETE_PROTECTION_ENABLED",
        "locationId": item.project.region,
        "name": path,
        "pointInTimeRecoveryEnablement": "POINT_IN_TIME_RECOVERY_ENABLED",
        "type": "FIRESTORE_NATIVE",
        "uid": f"{item.draw.below(16**8):08x}-{item.draw.below(16**4):04x}-4000-8000-{item.draw.below(16**12):012x}",
    }


def _name_alloydb_cluster(item: _Item) -> str:
    return (
        f"//alloydb.googleapis.com/{item.home}/locations/{item.project.region}"
        f"/clusters/alloy-{item.project.domain}-{item.token}"
    )


def _alloydb_cluster(item: _Item) -> Json:
    path = item.path
    return {
        "_location": item.project.region,
        "clusterType": "PRIMARY",
        "createTime": item.created_at(),
        "databaseVersion": "POSTGRES_16",
        "displayName": f"{item.project.display_name} store",
        "labels": item.labels(),
        "name": path,
        "network": item.network,
        "state": "READY",
        "uid": f"{item.draw.below(16**8):08x}",
    }


def _name_alloydb_instance(item: _Item) -> str:
    cluster = item.reference("alloydb.googleapis.com/Cluster", item.local)
    parent = (
        cluster
        or f"projects/{item.project.project_id}/locations/{item.project.region}/clusters/alloy-{item.project.domain}"
    )
    return f"//alloydb.googleapis.com/{parent}/instances/alloy-node-{item.token}"


def _alloydb_instance(item: _Item) -> Json:
    path = item.path
    return {
        "_location": item.project.region,
        "availabilityType": "REGIONAL" if item.project.environment == "prod" else "ZONAL",
        "createTime": item.created_at(),
        "displayName": f"{item.project.display_name} store",
        "gceZone": item.zone,
        "instanceType": "PRIMARY",
        "ipAddress": f"10.{item.draw.below(200)}.{item.draw.below(250)}.7",
        "labels": item.labels(),
        "machineConfig": {"cpuCount": item.draw.pick((2, 4, 8))},
        "name": path,
        "state": "READY",
    }


def _name_redis(item: _Item) -> str:
    return (
        f"//redis.googleapis.com/{item.home}/locations/{item.project.region}"
        f"/instances/redis-{item.project.domain}-{item.token}"
    )


def _redis(item: _Item) -> Json:
    path = item.path
    return {
        "_location": item.project.region,
        "authEnabled": not item.draw.percent(25),
        "authorizedNetwork": item.network,
        "connectMode": "PRIVATE_SERVICE_ACCESS",
        "createTime": item.created_at(),
        "displayName": f"{item.project.display_name} cache",
        "host": f"10.{item.draw.below(200)}.{item.draw.below(250)}.11",
        "labels": item.labels(),
        "locationId": item.zone,
        "memorySizeGb": item.draw.pick((1, 4, 16)),
        "name": path,
        "port": 6379,
        "redisVersion": "REDIS_7_2",
        "state": "READY",
        "tier": "STANDARD_HA" if item.project.environment == "prod" else "BASIC",
        "transitEncryptionMode": "SERVER_AUTHENTICATION" if item.draw.percent(70) else "DISABLED",
    }


def _name_bucket(item: _Item) -> str:
    use = item.draw.pick(("assets", "backups", "exports", "logs", "uploads", "tfstate"))
    return f"//storage.googleapis.com/{item.project.project_id}-{use}-{item.token}"


def _bucket(item: _Item) -> Json:
    leaf = item.leaf
    created = item.created_at()
    data: Json = {
        "_location": item.project.region,
        "etag": "CAE=",
        "iamConfiguration": _FINE_GRAINED if item.draw.percent(15) else _UNIFORM,
        "id": leaf,
        "kind": "storage#bucket",
        "labels": item.labels(),
        "lifecycle": _LIFECYCLE,
        "location": item.project.region.upper(),
        "locationType": "region",
        "metageneration": str(1 + item.draw.below(9)),
        "name": leaf,
        "projectNumber": item.project.number,
        "selfLink": f"https://www.googleapis.com/storage/v1/b/{leaf}",
        "storageClass": item.draw.pick(("STANDARD", "STANDARD", "NEARLINE", "COLDLINE")),
        "timeCreated": created,
        "updated": created,
        "versioning": {"enabled": item.draw.percent(60)},
    }
    if "-logs-" in leaf:
        data["retentionPolicy"] = {"isLocked": item.draw.percent(60), "retentionPeriod": "31536000"}
    return data


def _name_service_account(item: _Item) -> str:
    email = f"sa-{item.draw.pick(_ROLES)}-{item.token}@{item.project.project_id}.iam.gserviceaccount.com"
    return f"//iam.googleapis.com/{item.home}/serviceAccounts/{email}"


def _service_account(item: _Item) -> Json:
    path = item.path
    email = item.leaf
    unique = str(10**20 + item.draw.below(9 * 10**20))
    return {
        "disabled": item.draw.percent(4),
        "displayName": f"{email.split('-')[1].title()} of {item.project.display_name}",
        "email": email,
        "etag": "MDEwMjE5MjA=",
        "name": path,
        "oauth2ClientId": unique,
        "projectId": item.project.project_id,
        "uniqueId": unique,
    }


def _name_key(item: _Item) -> str:
    account = item.reference("iam.googleapis.com/ServiceAccount", item.local)
    parent = account or (
        f"projects/{item.project.project_id}/serviceAccounts/{item.project.number}-compute@developer.gserviceaccount.com"
    )
    return (
        f"//iam.googleapis.com/{parent}/keys/{item.index * _KEY_FACTOR % _KEY_SPACE:08x}{item.draw.below(16**32):032x}"
    )


def _key(item: _Item) -> Json:
    path = item.path
    mine = item.draw.percent(30)
    day = item.draw.below(700)
    clock = f"{_CLOCK[item.draw.below(1440)]}:00Z"
    return {
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "keyOrigin": "GOOGLE_PROVIDED",
        "keyType": "USER_MANAGED" if mine else "SYSTEM_MANAGED",
        "name": path,
        "validAfterTime": f"{_DAYS_BEFORE[day]}{clock}",
        "validBeforeTime": f"9999-12-31{clock}" if mine else f"{_DAYS_BEFORE[day + 16]}{clock}",
    }


def _name_crypto_key(item: _Item) -> str:
    return (
        f"//cloudkms.googleapis.com/{item.home}/locations/{item.project.region}"
        f"/keyRings/{item.project.domain}/cryptoKeys/key-{item.token}"
    )


def _crypto_key(item: _Item) -> Json:
    path = item.path
    created = item.created_at()
    data: Json = {
        "_location": item.project.region,
        "createTime": created,
        "labels": item.labels(),
        "name": path,
        "primary": {
            "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION",
            "createTime": created,
            "name": f"{path}/cryptoKeyVersions/1",
            "protectionLevel": "SOFTWARE",
            "state": "ENABLED",
        },
        "purpose": "ENCRYPT_DECRYPT",
        "versionTemplate": {"algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "protectionLevel": "SOFTWARE"},
    }
    if not item.draw.percent(15):
        data["rotationPeriod"] = "31536000s" if item.draw.percent(20) else "7776000s"
        data["nextRotationTime"] = "2026-03-01T00:00:00Z"
    return data


def _name_dataset(item: _Item) -> str:
    layer = item.draw.pick(("raw", "staging", "mart", "export"))
    return f"//bigquery.googleapis.com/{item.home}/datasets/{layer}_{item.project.domain}_{item.token}"


def _dataset(item: _Item) -> Json:
    leaf = item.leaf
    access: list[Json] = [
        {"role": "WRITER", "specialGroup": "projectWriters"},
        {"role": "OWNER", "specialGroup": "projectOwners"},
        {"groupByEmail": f"data-{item.project.domain}@example.com", "role": "READER"},
    ]
    if item.draw.percent(4):
        access.append({"role": "READER", "specialGroup": "allAuthenticatedUsers"})
    data: Json = {
        "_location": item.project.region,
        "access": access,
        "creationTime": str(1_672_531_200_000 + item.draw.below(60_000_000) * 1000),
        "datasetReference": {"datasetId": leaf, "projectId": item.project.project_id},
        "etag": f"{item.draw.below(10**8):08d}",
        "id": f"{item.project.project_id}:{leaf}",
        "kind": "bigquery#dataset",
        "labels": item.labels(),
        "location": item.project.region,
        "selfLink": f"https://bigquery.googleapis.com/bigquery/v2/projects/{item.project.project_id}/datasets/{leaf}",
        "type": "DEFAULT",
    }
    if item.draw.percent(10):
        data["defaultTableExpirationMs"] = "7776000000"
    return data


def _name_organization(_item: _Item) -> str:
    return f"//cloudresourcemanager.googleapis.com/{ORGANIZATION}"


def _organization(_item: _Item) -> Json:
    return {
        "createTime": "2023-01-01T08:00:00.000Z",
        "directoryCustomerId": "C00demo01",
        "displayName": "example.com",
        "name": ORGANIZATION,
        "state": "ACTIVE",
    }


def _name_folder(item: _Item) -> str:
    return f"//cloudresourcemanager.googleapis.com/folders/{item.org.folders[item.index][0]}"


def _folder(item: _Item) -> Json:
    number, display_name, ancestors = item.org.folders[item.index]
    return {
        "createTime": item.created_at(),
        "displayName": display_name,
        "lifecycleState": "ACTIVE",
        "name": f"folders/{number}",
        "parent": ancestors[1],
    }


def _name_project(item: _Item) -> str:
    return item.project.full_name


def _project(item: _Item) -> Json:
    return {
        "createTime": item.created_at(),
        "labels": item.project.labels,
        "lifecycleState": "ACTIVE",
        "name": item.project.display_name,
        "parent": {"id": item.project.parent, "type": "folder"},
        "projectId": item.project.project_id,
        "projectNumber": item.project.number,
    }


def _iam_policy(org: Organization, asset_type: str, project: Project, draw: _Draw) -> Json:
    group = f"group:gcp-{project.domain}@example.com"
    if asset_type == "storage.googleapis.com/Bucket":
        bindings: list[Json] = [
            {"role": "roles/storage.legacyBucketOwner", "members": [f"projectOwner:{project.project_id}"]},
            {"role": "roles/storage.objectAdmin", "members": [group]},
        ]
        if draw.percent(5):
            anyone = "allUsers" if draw.percent(60) else "allAuthenticatedUsers"
            bindings.append({"role": "roles/storage.objectViewer", "members": [anyone]})
    elif asset_type == "iam.googleapis.com/ServiceAccount":
        bindings = [
            {
                "role": "roles/iam.workloadIdentityUser",
                "members": [f"serviceAccount:{project.project_id}.svc.id.goog[app/app]"],
            }
        ]
    elif asset_type == "cloudkms.googleapis.com/CryptoKey":
        bindings = [{"role": "roles/cloudkms.cryptoKeyEncrypterDecrypter", "members": [group]}]
        if draw.percent(3):
            bindings.append({"role": "roles/cloudkms.viewer", "members": ["allAuthenticatedUsers"]})
    elif asset_type == "bigquery.googleapis.com/Dataset":
        bindings = [{"role": "roles/bigquery.dataViewer", "members": [f"group:data-{project.domain}@example.com"]}]
    elif asset_type == _ORGANIZATION_TYPE:
        bindings = [
            {
                "role": "roles/resourcemanager.organizationAdmin",
                "members": ["group:gcp-organization-admins@example.com"],
            },
            {
                "role": "roles/cloudasset.viewer",
                "members": ["serviceAccount:lz-sync@lz-demo-ops.iam.gserviceaccount.com"],
            },
        ]
    elif asset_type == _FOLDER_TYPE:
        bindings = [{"role": "roles/resourcemanager.folderViewer", "members": ["group:gcp-developers@example.com"]}]
    else:
        owner = f"user:{draw.pick(_PEOPLE)}@example.com"
        robot = org.reference("iam.googleapis.com/ServiceAccount", project, draw.below(4))
        bindings = [
            {"role": "roles/viewer", "members": [group]},
            {
                "role": "roles/logging.logWriter",
                "members": [f"serviceAccount:{project.number}@cloudservices.gserviceaccount.com"],
            },
        ]
        if robot is not None:
            role = draw.pick(("roles/editor", "roles/storage.admin")) if draw.percent(20) else "roles/run.invoker"
            bindings.append({"role": role, "members": [f"serviceAccount:{robot.rsplit('/', 1)[1]}"]})
        if draw.percent(15):
            bindings.append({"role": "roles/iam.serviceAccountUser", "members": [owner]})
        if draw.percent(10):
            bindings.append({"role": "roles/owner", "members": [owner]})
    policy: Json = {"bindings": bindings, "etag": "BwYl0demo00=", "version": 1}
    if asset_type == _PROJECT_TYPE and draw.percent(40):
        kinds = ("ADMIN_READ", "DATA_READ", "DATA_WRITE")
        policy["auditConfigs"] = [{"service": "allServices", "auditLogConfigs": [{"logType": kind} for kind in kinds]}]
    return policy


def _org_policies(asset_type: str, update_time: str, draw: _Draw) -> list[Json]:
    common = {"etag": "CJS2demo", "updateTime": update_time}
    if asset_type == _ORGANIZATION_TYPE:
        return [
            {"constraint": "constraints/compute.requireOsLogin", "booleanPolicy": {"enforced": True}, **common},
            {
                "constraint": "constraints/iam.disableServiceAccountKeyCreation",
                "booleanPolicy": {"enforced": True},
                **common,
            },
            {
                "constraint": "constraints/gcp.resourceLocations",
                "listPolicy": {"allowedValues": ["in:europe-locations", "in:us-locations"]},
                **common,
            },
        ]
    if asset_type == _FOLDER_TYPE:
        return [
            {"constraint": "constraints/compute.vmExternalIpAccess", "listPolicy": {"allValues": "DENY"}, **common},
            {
                "constraint": "constraints/gcp.restrictServiceUsage",
                "listPolicy": {"deniedValues": ["dataproc.googleapis.com"], "inheritFromParent": True},
                **common,
            },
        ]
    return [
        {
            "constraint": "constraints/iam.disableServiceAccountKeyCreation",
            "booleanPolicy": {"enforced": True} if draw.percent(50) else {},
            **common,
        },
        *(
            [{"constraint": "constraints/compute.requireOsLogin", "restoreDefault": {}, **common}]
            if draw.percent(20)
            else []
        ),
    ]


_DISK_TYPE = "compute.googleapis.com/Disk"


def _kinds() -> Iterator[_Kind]:
    manager, compute = "cloudresourcemanager.googleapis.com", "compute.googleapis.com"
    yield _Kind(
        _ORGANIZATION_TYPE, manager, "organizations", "Organization", "v1", 0, _name_organization, _organization
    )
    yield _Kind(_FOLDER_TYPE, manager, "folders", "Folder", "v2", 0, _name_folder, _folder)
    yield _Kind(_PROJECT_TYPE, manager, "projects", "Project", "v1", 0, _name_project, _project)
    yield _Kind(f"{compute}/Project", compute, "projects", "Project", "v1", 0, _name_compute_project, _compute_project)
    yield _Kind(f"{compute}/Network", compute, "networks", "Network", "v1", 0, _name_network, _network)
    yield _Kind(f"{compute}/Subnetwork", compute, "subnetworks", "Subnetwork", "v1", 80, _name_subnetwork, _subnetwork)
    yield _Kind(f"{compute}/Firewall", compute, "firewalls", "Firewall", "v1", 110, _name_firewall, _firewall)
    yield _Kind(f"{compute}/Instance", compute, "instances", "Instance", "v1", 220, _name_instance, _instance)
    yield _Kind(_DISK_TYPE, compute, "disks", "Disk", "v1", 200, _name_disk, _disk)
    container, alloydb = "container.googleapis.com", "alloydb.googleapis.com"
    yield _Kind(f"{container}/Cluster", container, "clusters", "Cluster", "v1", 15, _name_cluster, _cluster)
    yield _Kind(f"{container}/NodePool", container, "nodePools", "NodePool", "v1", 25, _name_node_pool, _node_pool)
    sql = "sqladmin.googleapis.com/Instance"
    yield _Kind(sql, "cloudsql.googleapis.com", "instances", "DatabaseInstance", "v1beta4", 22, _name_sql, _sql)
    spanner = "spanner.googleapis.com"
    yield _Kind(f"{spanner}/Instance", spanner, "instances", "Instance", "v1", 6, _name_spanner, _spanner)
    bigtable = "bigtableadmin.googleapis.com/Instance"
    yield _Kind(bigtable, "bigtable.googleapis.com", "instances", "Instance", "v2", 6, _name_bigtable, _bigtable)
    firestore = "firestore.googleapis.com"
    yield _Kind(f"{firestore}/Database", firestore, "databases", "Database", "v1", 8, _name_firestore, _firestore)
    yield _Kind(f"{alloydb}/Cluster", alloydb, "clusters", "Cluster", "v1", 4, _name_alloydb_cluster, _alloydb_cluster)
    yield _Kind(
        f"{alloydb}/Instance", alloydb, "instances", "Instance", "v1", 6, _name_alloydb_instance, _alloydb_instance
    )
    redis, storage, iam = "redis.googleapis.com", "storage.googleapis.com", "iam.googleapis.com"
    yield _Kind(f"{redis}/Instance", redis, "instances", "Instance", "v1", 10, _name_redis, _redis)
    yield _Kind(f"{storage}/Bucket", storage, "", "Bucket", "v1", 100, _name_bucket, _bucket)
    accounts = f"{iam}/ServiceAccount"
    yield _Kind(accounts, iam, "serviceAccounts", "ServiceAccount", "v1", 80, _name_service_account, _service_account)
    yield _Kind(f"{iam}/ServiceAccountKey", iam, "keys", "ServiceAccountKey", "v1", 50, _name_key, _key)
    kms, bigquery = "cloudkms.googleapis.com", "bigquery.googleapis.com"
    yield _Kind(f"{kms}/CryptoKey", kms, "cryptoKeys", "CryptoKey", "v1", 18, _name_crypto_key, _crypto_key)
    yield _Kind(f"{bigquery}/Dataset", bigquery, "datasets", "Dataset", "v2", 40, _name_dataset, _dataset)


_KINDS: dict[str, _Kind] = {kind.asset_type: kind for kind in _kinds()}
_BY_COLLECTION: dict[tuple[str, str], str] = {(kind.host, kind.collection): kind.asset_type for kind in _KINDS.values()}
_IAM_STEPS: dict[str, int] = {
    _ORGANIZATION_TYPE: 1,
    _FOLDER_TYPE: 1,
    _PROJECT_TYPE: 1,
    "storage.googleapis.com/Bucket": 1,
    "cloudkms.googleapis.com/CryptoKey": 1,
    "bigquery.googleapis.com/Dataset": 1,
    "iam.googleapis.com/ServiceAccount": 2,
}
_ORG_POLICY_STEPS: dict[str, int] = {_ORGANIZATION_TYPE: 1, _FOLDER_TYPE: 1, _PROJECT_TYPE: 5}
