"""What the data of each asset type means: the one registry of typed views, for the state, the detail of a resource, and
pages. Pure.

A field that the inventory does not carry, or carries as something else than it should be, is ``None``, a list as much
as a text: nothing is assumed, and a change of Google's shapes breaks nothing. The plural names of the REST APIs and the
singular ones of older exports are both read. A type without a view is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from lz_sync_dagster.sync.inventory.types import (
    BUCKET,
    CLUSTER,
    DATABASES,
    DATASET,
    FIREWALL,
    FOLDER,
    INSTANCE,
    MORE_DATABASES,
    NETWORK,
    NODE_POOL,
    PROJECT,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_KEY,
    SUBNETWORK,
)
from lz_sync_dagster.sync.models import (
    VM,
    VPC,
    Bucket,
    Cluster,
    Database,
    Dataset,
    Firewall,
    Folder,
    IamBinding,
    NodePool,
    Project,
    ServiceAccount,
    ServiceAccountKey,
    Subnetwork,
)
from lz_sync_dagster.sync.state.authorship import created_at


class Described(Protocol):
    """What a view takes from a resource's row."""

    @property
    def name(self) -> str:
        """The full resource name."""

    @property
    def asset_type(self) -> str:
        """Its type."""

    @property
    def project(self) -> str | None:
        """Its project's id."""

    @property
    def location(self) -> str | None:
        """Where it is."""

    @property
    def display_name(self) -> str | None:
        """Its short name."""


class Data:
    """A resource's data, read by dotted paths; what is of another kind than asked for is ``None``."""

    def __init__(self, value: Any) -> None:
        self._value = value if isinstance(value, Mapping) else {}

    def _at(self, path: str) -> Any:
        value: Any = self._value
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def text(self, *paths: str) -> str | None:
        """The first of some texts that is there; a number is taken as text."""
        for path in paths:
            value = self._at(path)
            if isinstance(value, str) and value:
                return value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return str(value)
        return None

    def last(self, *paths: str) -> str | None:
        """Like `text`; of a link or a path, its last part."""
        text = self.text(*paths)
        return None if text is None else text.rstrip("/").rsplit("/", 1)[-1]

    def flag(self, *paths: str) -> bool | None:
        """The first of some booleans that is there."""
        for path in paths:
            value = self._at(path)
            if isinstance(value, bool):
                return value
        return None

    def whole(self, *paths: str) -> int | None:
        """The first of some whole numbers that is there; Google writes large ones as text."""
        for path in paths:
            value = self._at(path)
            if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 20:
                return int(value)
            if isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
                return int(value)
        return None

    def has(self, path: str) -> bool:
        """Whether there is any value."""
        return self._at(path) is not None

    def many(self, *paths: str) -> list[Any] | None:
        """The first of some lists that is there."""
        for path in paths:
            value = self._at(path)
            if isinstance(value, list):
                return value
        return None

    def objects(self, *paths: str) -> list[Data] | None:
        """The first of some lists that is there, of objects alone."""
        items = self.many(*paths)
        if items is None or not all(isinstance(item, Mapping) for item in items):
            return None
        return [Data(item) for item in items]

    def parts(self, *paths: str) -> list[Data] | None:
        """Like `objects`, of what is inside an object that is there: a list that is left out there is an empty one."""
        return self.objects(*paths) if any(self.has(path) for path in paths) else []

    def texts(self, *paths: str) -> list[str] | None:
        """The first of some lists that is there, of texts alone."""
        items = self.many(*paths)
        return None if items is None or not all(isinstance(item, str) for item in items) else items

    def labels(self, *paths: str) -> dict[str, str] | None:
        """The first of some maps of texts that is there."""
        for path in paths:
            value = self._at(path)
            if isinstance(value, Mapping):
                return {str(key): str(item) for key, item in sorted(value.items())}
        return None

    @property
    def created_at(self) -> str | None:
        """When it was made, as it says."""
        return created_at(self._value)


def _short(row: Described) -> str:
    return row.display_name or row.name.rsplit("/", 1)[-1]


def _some(*texts: str | None) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _each(items: Iterable[Data] | None, *paths: str) -> list[str] | None:
    """One text of each; ``None`` if it is not known what there is."""
    return None if items is None else _some(*(item.text(*paths) for item in items))


def _number(items: list[Any] | None) -> int | None:
    return None if items is None else len(items)


def _project(row: Described, data: Data) -> Project:
    kind, number = data.text("parent.type"), data.text("parent.id")
    short = row.name.rsplit("/", 1)[-1]
    digits = data.text("projectNumber") or short
    return Project(
        name=row.name,
        project_id=data.text("projectId") or row.project or short,
        project_number=digits if digits.isdigit() else None,
        display_name=data.text("displayName", "name"),
        parent=f"{kind}s/{number}" if kind and number else data.text("parent"),
        state=data.text("state", "lifecycleState"),
        labels=data.labels("labels"),
        created_at=data.created_at,
    )


def _folder(row: Described, data: Data) -> Folder:
    return Folder(
        name=row.name,
        folder_id=row.name.rsplit("/", 1)[-1],
        display_name=data.text("displayName"),
        parent=data.text("parent"),
        state=data.text("state", "lifecycleState"),
        created_at=data.created_at,
    )


def _vpc(row: Described, data: Data) -> VPC:
    return VPC(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        auto_create_subnetworks=data.flag("autoCreateSubnetworks"),
        subnetworks=_number(data.many("subnetworks", "subnetwork")),
        routing_mode=data.text("routingConfig.routingMode"),
        mtu=data.whole("mtu"),
    )


def _subnetwork(row: Described, data: Data) -> Subnetwork:
    ranges = data.objects("secondaryIpRanges", "secondaryIpRange")
    return Subnetwork(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        region=data.last("region") or row.location,
        network=data.last("network"),
        ip_cidr_range=data.text("ipCidrRange"),
        secondary_ranges=None
        if ranges is None
        else {item.text("rangeName") or "": item.text("ipCidrRange") or "" for item in ranges},
        private_google_access=data.flag("privateIpGoogleAccess"),
        flow_logs=data.flag("logConfig.enable", "enableFlowLogs"),
        purpose=data.text("purpose"),
        stack_type=data.text("stackType"),
    )


def _firewall(row: Described, data: Data) -> Firewall:
    return Firewall(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        network=data.last("network"),
        direction=data.text("direction"),
        priority=data.whole("priority"),
        disabled=data.flag("disabled"),
        allowed=_protocols(data, "allowed"),
        denied=_protocols(data, "denied"),
        source_ranges=data.texts("sourceRanges", "sourceRange"),
        destination_ranges=data.texts("destinationRanges", "destinationRange"),
        source_tags=data.texts("sourceTags", "sourceTag"),
        target_tags=data.texts("targetTags", "targetTag"),
        target_service_accounts=data.texts("targetServiceAccounts", "targetServiceAccount"),
        logged=data.flag("logConfig.enable", "enableLogging"),
    )


def _protocols(data: Data, field: str) -> list[str] | None:
    rules = data.objects(field)
    if rules is None:
        return None
    found = []
    for item in rules:
        protocol = item.text("IPProtocol", "ipProtocol")
        ports = [str(port) for port in item.many("ports", "port") or ()]
        if protocol:
            found.append(f"{protocol}:{','.join(ports)}" if ports else protocol)
    return found


def _vm(row: Described, data: Data) -> VM:
    interfaces = data.objects("networkInterfaces", "networkInterface")
    access = _inside(interfaces, "accessConfigs", "accessConfig")
    access6 = _inside(interfaces, "ipv6AccessConfigs", "ipv6AccessConfig")
    inner6: list[str] | None = None
    outer6: list[str] | None = None
    if interfaces is not None:
        # An address of the interface itself is internal unless the interface says that its IPv6 is external.
        inner6 = _each((item for item in interfaces if item.text("ipv6AccessType") != "EXTERNAL"), "ipv6Address")
    if interfaces is not None and access6 is not None:
        own = [item.text("ipv6Address") for item in interfaces if item.text("ipv6AccessType") == "EXTERNAL"]
        outer6 = _some(*own, *(item.text("externalIpv6") for item in access6))
    return VM(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        zone=data.last("zone") or row.location,
        machine_type=data.last("machineType"),
        status=data.text("status"),
        internal_ips=_each(interfaces, "networkIP", "ipAddress"),
        external_ips=_each(access, "natIP", "externalIp"),
        labels=data.labels("labels"),
        internal_ipv6s=inner6,
        external_ipv6s=outer6,
        networks=None if interfaces is None else _some(*(each.last("network") for each in interfaces)),
        service_accounts=_each(data.objects("serviceAccounts", "serviceAccount"), "email"),
        created_at=data.created_at,
    )


def _inside(interfaces: list[Data] | None, *paths: str) -> list[Data] | None:
    """What all interfaces have of something; ``None`` if one of them does not tell it."""
    found: list[Data] = []
    for each in interfaces or ():
        items = each.parts(*paths)
        if items is None:
            return None
        found += items
    return None if interfaces is None else found


def _cluster(row: Described, data: Data) -> Cluster:
    return Cluster(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        location=data.text("location", "zone") or row.location,
        status=data.text("status"),
        version=data.text("currentMasterVersion"),
        node_count=data.whole("currentNodeCount"),
        node_pools=_number(data.many("nodePools", "nodePool")),
        release_channel=data.text("releaseChannel.channel"),
        autopilot=data.flag("autopilot.enabled"),
        private_nodes=data.flag("privateClusterConfig.enablePrivateNodes", "networkConfig.defaultEnablePrivateNodes"),
        private_endpoint=data.flag("privateClusterConfig.enablePrivateEndpoint"),
        network=data.last("network"),
        subnetwork=data.last("subnetwork"),
        endpoint=data.text("endpoint"),
        created_at=data.created_at,
    )


def _node_pool(row: Described, data: Data) -> NodePool:
    cluster, found, _ = row.name.partition("/nodePools/")
    return NodePool(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        location=row.location,
        cluster=cluster if found else None,
        status=data.text("status"),
        version=data.text("version"),
        machine_type=data.text("config.machineType"),
        initial_node_count=data.whole("initialNodeCount"),
        min_nodes=data.whole("autoscaling.minNodeCount"),
        max_nodes=data.whole("autoscaling.maxNodeCount"),
        auto_upgrade=data.flag("management.autoUpgrade"),
        auto_repair=data.flag("management.autoRepair"),
    )


_AVAILABILITY = {"REGIONAL": True, "ZONAL": False, "STANDARD_HA": True, "BASIC": False}


def _database(row: Described, data: Data) -> Database:
    private, public = _addresses(row, data)
    return Database(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        location=data.last("region") or data.text("locationId") or row.location,
        kind=row.asset_type,
        engine=data.text("databaseVersion", "redisVersion") or {**DATABASES, **MORE_DATABASES}.get(row.asset_type),
        state=data.text("state"),
        version=data.text("databaseVersion", "redisVersion", "engineVersion"),
        tier=_tier(data),
        high_availability=_high_availability(row, data),
        private_addresses=private,
        public_addresses=public,
        created_at=data.created_at,
    )


def _tier(data: Data) -> str | None:
    return data.text("settings.tier", "tier", "nodeType", "edition", "databaseEdition", "type", "clusterType")


def _high_availability(row: Described, data: Data) -> bool | None:
    told = data.text("settings.availabilityType", "availabilityType", "tier")
    if told in _AVAILABILITY:
        return _AVAILABILITY[told]
    replicas = data.whole("replicaCount")
    if row.asset_type in MORE_DATABASES and replicas is not None:
        return replicas > 0
    return None


_CLOUD_SQL = "sqladmin.googleapis.com/Instance"
#: Addresses that Cloud SQL is reached at. One that it goes out from (``OUTGOING``) is neither.
_SQL_KINDS = ("PRIVATE", "PRIMARY")


def _addresses(row: Described, data: Data) -> tuple[list[str] | None, list[str] | None]:
    """Private and public ones. Memorystore has no public addresses; of other engines, no addresses are told."""
    if row.asset_type == _CLOUD_SQL:
        items = data.objects("ipAddresses", "ipAddress")
        if items is None or not all(item.text("type") for item in items):
            return None, None
        private, public = (_each((it for it in items if it.text("type") == kind), "ipAddress") for kind in _SQL_KINDS)
        return private, public
    if {**DATABASES, **MORE_DATABASES}.get(row.asset_type) != "Memorystore":
        return None, None
    endpoints = data.objects("endpoints")
    found = _some(
        data.text("host"),
        data.text("readEndpoint"),
        *(item.text("address") for item in data.objects("discoveryEndpoints") or ()),
        *(
            each.text("pscAutoConnection.ipAddress")
            for item in endpoints or ()
            for each in item.objects("connections") or ()
        ),
    )
    return found or None, []


def _bucket(row: Described, data: Data) -> Bucket:
    return Bucket(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        location=data.text("location") or row.location,
        storage_class=data.text("storageClass"),
        uniform_access=data.flag(
            "iamConfiguration.uniformBucketLevelAccess.enabled", "iamConfiguration.bucketPolicyOnly.enabled"
        ),
        public_access_prevention=data.text("iamConfiguration.publicAccessPrevention"),
        versioning=data.flag("versioning.enabled"),
        retention_seconds=data.whole("retentionPolicy.retentionPeriod"),
        retention_locked=data.flag("retentionPolicy.isLocked"),
        kms_key=data.text("encryption.defaultKmsKeyName"),
        labels=data.labels("labels"),
        created_at=data.created_at,
    )


_EVERYBODY = frozenset({"allUsers", "allAuthenticatedUsers"})


def _dataset(row: Described, data: Data) -> Dataset:
    entries = data.objects("access")
    public = None
    if entries is not None:
        public = any(
            _EVERYBODY.intersection(_some(entry.text("specialGroup"), entry.text("iamMember"))) for entry in entries
        )
    return Dataset(
        name=row.name,
        display_name=_short(row),
        project=row.project,
        location=data.text("location") or row.location,
        dataset_id=data.text("datasetReference.datasetId"),
        default_expiration_ms=data.whole("defaultTableExpirationMs"),
        kms_key=data.text("defaultEncryptionConfiguration.kmsKeyName"),
        public=public,
        labels=data.labels("labels"),
        created_at=data.created_at or data.text("creationTime"),
    )


def _service_account(row: Described, data: Data) -> ServiceAccount:
    return ServiceAccount(
        name=row.name,
        display_name=data.text("displayName"),
        project=row.project,
        email=data.text("email"),
        unique_id=data.text("uniqueId"),
        disabled=data.flag("disabled"),
    )


def _service_account_key(row: Described, data: Data) -> ServiceAccountKey:
    above, _, key = row.name.partition("/keys/")
    account = above.rsplit("/", 1)[-1]
    return ServiceAccountKey(
        name=row.name,
        project=row.project,
        key_id=key or row.name.rsplit("/", 1)[-1],
        service_account=account if key and account else None,
        key_type=data.text("keyType"),
        origin=data.text("keyOrigin"),
        algorithm=data.text("keyAlgorithm"),
        valid_after=data.text("validAfterTime"),
        valid_before=data.text("validBeforeTime"),
        disabled=data.flag("disabled"),
    )


def iam_bindings(row: Described, policy: Any) -> Iterator[IamBinding]:
    """The bindings of an IAM policy, one per member, in the order of the policy."""
    for item in Data(policy).many("bindings", "binding") or ():
        binding = Data(item)
        role = binding.text("role")
        for member in binding.many("members", "member") or ():
            if not isinstance(member, str):
                continue
            yield IamBinding(
                resource=row.name,
                asset_type=row.asset_type,
                project=row.project,
                role=role or "",
                member=member,
                condition=binding.text("condition.expression", "condition.title"),
            )


@dataclass(frozen=True, slots=True)
class View:
    """How a kind of resource is shown. ``kind``: the list of the state that has it."""

    kind: str
    asset_types: tuple[str, ...]
    make: Callable[[Described, Data], BaseModel]


#: Every view, in the order of the state's lists.
VIEWS: tuple[View, ...] = (
    View("projects", (PROJECT,), _project),
    View("folders", (FOLDER,), _folder),
    View("vpcs", (NETWORK,), _vpc),
    View("subnetworks", (SUBNETWORK,), _subnetwork),
    View("firewalls", (FIREWALL,), _firewall),
    View("compute_instances", (INSTANCE,), _vm),
    View("gke_clusters", (CLUSTER,), _cluster),
    View("node_pools", (NODE_POOL,), _node_pool),
    View("databases", (*DATABASES, *MORE_DATABASES), _database),
    View("buckets", (BUCKET,), _bucket),
    View("datasets", (DATASET,), _dataset),
    View("service_accounts", (SERVICE_ACCOUNT,), _service_account),
    View("service_account_keys", (SERVICE_ACCOUNT_KEY,), _service_account_key),
)
_VIEW_OF = {asset_type: view for view in VIEWS for asset_type in view.asset_types}


def typed_view(row: Described, data: Any) -> tuple[str | None, dict[str, Any] | None]:
    """The kind and the fields of a resource; ``None`` for a type without a view."""
    view = _VIEW_OF.get(row.asset_type)
    return (None, None) if view is None else (view.kind, view.make(row, Data(data)).model_dump(mode="json"))
