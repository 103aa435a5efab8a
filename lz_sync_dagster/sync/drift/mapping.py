"""What terraform calls what Cloud Asset Inventory knows: per resource type the asset type, how the full resource name
is made, and which argument says the same as which field of the asset. Data; `sync.drift.compare` does the work.

Names and fields are those of the Google provider's and of Cloud Asset Inventory's documentation. A field that is not
listed here is not compared, and a row says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lz_sync_dagster.sync.drift.expressions import Unknown, text, unknown_in


class Kind(StrEnum):
    """How an argument and a field are compared.

    ``link``: a self link, a partial one or a name, equal as far as both tell. ``labels``: the keys that terraform
    names. ``values``: lists of texts in any order. ``rules``: those of a firewall. ``block``: whether the block is
    there and its ``enabled`` or ``enable`` is not false.
    """

    TEXT = "text"
    CASELESS = "caseless"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LINK = "link"
    LABELS = "labels"
    VALUES = "values"
    RULES = "rules"
    BLOCK = "block"


class _Nothing:
    def __repr__(self) -> str:
        return "NOTHING"


#: The default of `Field.lacking`: what an asset does not carry is not known.
NOTHING = _Nothing()


@dataclass(frozen=True, slots=True)
class Field:
    """An argument and the fields of the asset that say the same: the first one that is there counts.

    Attributes:
        argument: its name, dotted through nested blocks.
        actual: dotted paths in the asset's data, newest form first.
        lacking: what it means if the asset has none of them: the APIs leave false, zero and empty out.
    """

    argument: str
    actual: tuple[str, ...]
    kind: Kind = Kind.TEXT
    lacking: Any = NOTHING


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look for a resource.

    Attributes:
        names: templates of its full resource name. ``{project}`` is tried as id and as number.
        container: the template of the folder, organization or project whose coverage proves that it is missing.
        key: how to find it if no name is known: ``{"email": "{account_id}@…"}``, fields of its data.
    """

    names: tuple[str, ...] = ()
    container: str = "projects/{project}"
    key: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TypeMapping:
    """A resource type of terraform.

    Attributes:
        parts: placeholder → the arguments that give it, the first one that is set; ``provider.project`` is the
            provider's.
        patterns: placeholder → what its value may also be, with named groups for several parts.
        computed: attributes that follow from the parts: ``id``, ``self_link``, ``email``.
    """

    resource_type: str
    asset_type: str
    place: Place
    parts: Mapping[str, tuple[str, ...]]
    fields: tuple[Field, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, str] = field(default_factory=dict)

    @property
    def identifying(self) -> frozenset[str]:
        """The arguments that say which resource it is."""
        return frozenset(name for names in self.parts.values() for name in names)


PROJECT_TYPE = "cloudresourcemanager.googleapis.com/Project"
FOLDER_TYPE = "cloudresourcemanager.googleapis.com/Folder"

_COMPUTE = "//compute.googleapis.com/"
_PROJECT = {"project": ("project", "provider.project")}
_NAME = {"name": ("name",), **_PROJECT}
_REGION = {"region": ("region", "provider.region"), **_NAME}
_ZONE = {"zone": ("zone", "provider.zone"), **_NAME}
_LOCATION = {"location": ("location",), **_NAME}
_LABELS = Field("labels", ("labels",), Kind.LABELS, lacking={})


def _links(path: str) -> dict[str, str]:
    return {"id": path, "self_link": f"https://www.googleapis.com/compute/v1/{path}"}


def _compute(
    resource_type: str, kind: str, path: str, parts: Mapping[str, tuple[str, ...]], *fields: Field
) -> TypeMapping:
    return TypeMapping(
        resource_type,
        f"compute.googleapis.com/{kind}",
        Place((_COMPUTE + path,)),
        parts,
        fields,
        computed=_links(path),
    )


def _service(
    resource_type: str,
    asset_type: str,
    host: str,
    path: str,
    parts: Mapping[str, tuple[str, ...]],
    *fields: Field,
    more: tuple[str, ...] = (),
    patterns: Mapping[str, str] | None = None,
    container: str = "projects/{project}",
) -> TypeMapping:
    return TypeMapping(
        resource_type,
        asset_type,
        Place(tuple(f"//{host}/{one}" for one in (path, *more)), container),
        parts,
        fields,
        patterns or {},
        {"id": path},
    )


_CLUSTER_PATTERN = (
    r"projects/(?P<project>[^/]+)/(?:locations|zones|regions)/(?P<location>[^/]+)/clusters/(?P<cluster>[^/]+)"
)
_KEY_RING_PATTERN = r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/keyRings/(?P<key_ring>[^/]+)"

_NODE_FIELDS = tuple(
    Field(f"node_config.{argument}", (f"config.{actual}",), kind)
    for argument, actual, kind in (
        ("machine_type", "machineType", Kind.LINK),
        ("disk_size_gb", "diskSizeGb", Kind.NUMBER),
        ("disk_type", "diskType", Kind.LINK),
        ("image_type", "imageType", Kind.CASELESS),
        ("service_account", "serviceAccount", Kind.TEXT),
    )
)
_SINK_FIELDS = (
    Field("destination", ("destination",)),
    Field("filter", ("filter",)),
    Field("disabled", ("disabled",), Kind.BOOLEAN, lacking=False),
    Field("description", ("description",)),
)
_SINK = "logging.googleapis.com/LogSink"
_DISK_FIELDS = (
    Field("size", ("sizeGb",), Kind.NUMBER),
    Field("type", ("type",), Kind.LINK),
    _LABELS,
)

_TYPES = (
    TypeMapping(
        "google_project",
        PROJECT_TYPE,
        Place(key={"projectId": "{project}"}, container="{parent}"),
        {"project": ("project_id",), "parent": ("folder_id", "org_id")},
        (
            Field("name", ("displayName", "name")),
            Field("folder_id", ("parent.id", "parent"), Kind.LINK),
            Field("org_id", ("parent.id", "parent"), Kind.LINK),
            _LABELS,
        ),
        computed={"id": "projects/{project}"},
    ),
    TypeMapping(
        "google_folder",
        FOLDER_TYPE,
        Place(key={"displayName": "{display_name}", "parent": "{parent}"}, container="{parent}"),
        {"display_name": ("display_name",), "parent": ("parent",)},
    ),
    _compute(
        "google_compute_network",
        "Network",
        "projects/{project}/global/networks/{name}",
        _NAME,
        Field("auto_create_subnetworks", ("autoCreateSubnetworks",), Kind.BOOLEAN, lacking=False),
        Field("routing_mode", ("routingConfig.routingMode",)),
        Field("mtu", ("mtu",), Kind.NUMBER),
        Field("description", ("description",)),
    ),
    _compute(
        "google_compute_subnetwork",
        "Subnetwork",
        "projects/{project}/regions/{region}/subnetworks/{name}",
        _REGION,
        Field("ip_cidr_range", ("ipCidrRange",)),
        Field("network", ("network",), Kind.LINK),
        Field("private_ip_google_access", ("privateIpGoogleAccess",), Kind.BOOLEAN, lacking=False),
        Field("purpose", ("purpose",)),
        Field("log_config", ("logConfig.enable", "enableFlowLogs"), Kind.BLOCK, lacking=False),
        Field("log_config.flow_sampling", ("logConfig.flowSampling",), Kind.NUMBER),
        Field("log_config.aggregation_interval", ("logConfig.aggregationInterval",)),
        Field("description", ("description",)),
    ),
    _compute(
        "google_compute_firewall",
        "Firewall",
        "projects/{project}/global/firewalls/{name}",
        _NAME,
        Field("network", ("network",), Kind.LINK),
        Field("direction", ("direction",)),
        Field("priority", ("priority",), Kind.NUMBER),
        Field("disabled", ("disabled",), Kind.BOOLEAN, lacking=False),
        Field("allow", ("allowed",), Kind.RULES, lacking=[]),
        Field("deny", ("denied",), Kind.RULES, lacking=[]),
        Field("source_ranges", ("sourceRanges", "sourceRange"), Kind.VALUES, lacking=[]),
        Field("destination_ranges", ("destinationRanges", "destinationRange"), Kind.VALUES, lacking=[]),
        Field("source_tags", ("sourceTags", "sourceTag"), Kind.VALUES, lacking=[]),
        Field("target_tags", ("targetTags", "targetTag"), Kind.VALUES, lacking=[]),
        Field("source_service_accounts", ("sourceServiceAccounts", "sourceServiceAccount"), Kind.VALUES, lacking=[]),
        Field("target_service_accounts", ("targetServiceAccounts", "targetServiceAccount"), Kind.VALUES, lacking=[]),
        Field("log_config", ("logConfig.enable", "enableLogging"), Kind.BLOCK, lacking=False),
        Field("description", ("description",)),
    ),
    _compute(
        "google_compute_instance",
        "Instance",
        "projects/{project}/zones/{zone}/instances/{name}",
        _ZONE,
        Field("machine_type", ("machineType",), Kind.LINK),
        Field("can_ip_forward", ("canIpForward",), Kind.BOOLEAN, lacking=False),
        Field("deletion_protection", ("deletionProtection",), Kind.BOOLEAN, lacking=False),
        Field("tags", ("tags.items", "tags.item", "tags.tag"), Kind.VALUES, lacking=[]),
        Field("boot_disk.auto_delete", ("disks.0.autoDelete", "disk.0.autoDelete"), Kind.BOOLEAN, lacking=False),
        Field("network_interface.network", ("networkInterfaces.0.network", "networkInterface.0.network"), Kind.LINK),
        Field(
            "network_interface.subnetwork",
            ("networkInterfaces.0.subnetwork", "networkInterface.0.subnetwork"),
            Kind.LINK,
        ),
        Field("service_account.email", ("serviceAccounts.0.email", "serviceAccount.0.email")),
        Field(
            "shielded_instance_config.enable_secure_boot",
            ("shieldedInstanceConfig.enableSecureBoot",),
            Kind.BOOLEAN,
            lacking=False,
        ),
        _LABELS,
    ),
    _compute("google_compute_disk", "Disk", "projects/{project}/zones/{zone}/disks/{name}", _ZONE, *_DISK_FIELDS),
    _compute(
        "google_compute_region_disk", "Disk", "projects/{project}/regions/{region}/disks/{name}", _REGION, *_DISK_FIELDS
    ),
    _service(
        "google_container_cluster",
        "container.googleapis.com/Cluster",
        "container.googleapis.com",
        "projects/{project}/locations/{location}/clusters/{name}",
        _LOCATION,
        Field("network", ("networkConfig.network", "network"), Kind.LINK),
        Field("subnetwork", ("networkConfig.subnetwork", "subnetwork"), Kind.LINK),
        Field("resource_labels", ("resourceLabels",), Kind.LABELS, lacking={}),
        Field("release_channel.channel", ("releaseChannel.channel",)),
        Field("enable_shielded_nodes", ("shieldedNodes.enabled",), Kind.BOOLEAN, lacking=False),
        Field(
            "private_cluster_config.enable_private_nodes",
            ("privateClusterConfig.enablePrivateNodes",),
            Kind.BOOLEAN,
            lacking=False,
        ),
        Field(
            "private_cluster_config.enable_private_endpoint",
            ("privateClusterConfig.enablePrivateEndpoint",),
            Kind.BOOLEAN,
            lacking=False,
        ),
        Field("workload_identity_config.workload_pool", ("workloadIdentityConfig.workloadPool",)),
        more=("projects/{project}/zones/{location}/clusters/{name}",),
    ),
    _service(
        "google_container_node_pool",
        "container.googleapis.com/NodePool",
        "container.googleapis.com",
        "projects/{project}/locations/{location}/clusters/{cluster}/nodePools/{name}",
        {"cluster": ("cluster",), **_LOCATION},
        *_NODE_FIELDS,
        Field("autoscaling.min_node_count", ("autoscaling.minNodeCount",), Kind.NUMBER, lacking=0),
        Field("autoscaling.max_node_count", ("autoscaling.maxNodeCount",), Kind.NUMBER),
        Field("management.auto_repair", ("management.autoRepair",), Kind.BOOLEAN, lacking=False),
        Field("management.auto_upgrade", ("management.autoUpgrade",), Kind.BOOLEAN, lacking=False),
        more=("projects/{project}/zones/{location}/clusters/{cluster}/nodePools/{name}",),
        patterns={"cluster": _CLUSTER_PATTERN},
    ),
    _service(
        "google_sql_database_instance",
        "sqladmin.googleapis.com/Instance",
        "cloudsql.googleapis.com",
        "projects/{project}/instances/{name}",
        _NAME,
        Field("region", ("region",)),
        Field("database_version", ("databaseVersion",)),
        Field("settings.tier", ("settings.tier",)),
        Field("settings.availability_type", ("settings.availabilityType",)),
        Field("settings.disk_type", ("settings.dataDiskType",)),
        Field("settings.user_labels", ("settings.userLabels",), Kind.LABELS, lacking={}),
        Field(
            "settings.ip_configuration.ipv4_enabled",
            ("settings.ipConfiguration.ipv4Enabled",),
            Kind.BOOLEAN,
            lacking=False,
        ),
        Field("settings.ip_configuration.private_network", ("settings.ipConfiguration.privateNetwork",), Kind.LINK),
        Field("settings.ip_configuration.ssl_mode", ("settings.ipConfiguration.sslMode",)),
        Field(
            "settings.backup_configuration.enabled",
            ("settings.backupConfiguration.enabled",),
            Kind.BOOLEAN,
            lacking=False,
        ),
        Field(
            "settings.backup_configuration.point_in_time_recovery_enabled",
            ("settings.backupConfiguration.pointInTimeRecoveryEnabled",),
            Kind.BOOLEAN,
            lacking=False,
        ),
    ),
    _service(
        "google_spanner_instance",
        "spanner.googleapis.com/Instance",
        "spanner.googleapis.com",
        "projects/{project}/instances/{name}",
        _NAME,
        Field("config", ("config",), Kind.LINK),
        Field("display_name", ("displayName",)),
        Field("num_nodes", ("nodeCount",), Kind.NUMBER),
        Field("processing_units", ("processingUnits",), Kind.NUMBER),
        Field("edition", ("edition",)),
        _LABELS,
    ),
    _service(
        "google_bigtable_instance",
        "bigtableadmin.googleapis.com/Instance",
        "bigtable.googleapis.com",
        "projects/{project}/instances/{name}",
        _NAME,
        Field("display_name", ("displayName",)),
        _LABELS,
    ),
    _service(
        "google_firestore_database",
        "firestore.googleapis.com/Database",
        "firestore.googleapis.com",
        "projects/{project}/databases/{name}",
        _NAME,
        Field("location_id", ("locationId",), Kind.CASELESS),
        Field("type", ("type",)),
        Field("delete_protection_state", ("deleteProtectionState",)),
        Field("point_in_time_recovery_enablement", ("pointInTimeRecoveryEnablement",)),
        Field("concurrency_mode", ("concurrencyMode",)),
    ),
    _service(
        "google_alloydb_cluster",
        "alloydb.googleapis.com/Cluster",
        "alloydb.googleapis.com",
        "projects/{project}/locations/{location}/clusters/{name}",
        {"name": ("cluster_id",), "location": ("location",), **_PROJECT},
        Field("display_name", ("displayName",)),
        Field("network_config.network", ("networkConfig.network", "network"), Kind.LINK),
        Field("database_version", ("databaseVersion",)),
        _LABELS,
    ),
    _service(
        "google_alloydb_instance",
        "alloydb.googleapis.com/Instance",
        "alloydb.googleapis.com",
        "projects/{project}/locations/{location}/clusters/{cluster}/instances/{name}",
        {"name": ("instance_id",), "cluster": ("cluster",), "location": (), "project": ()},
        Field("instance_type", ("instanceType",)),
        Field("availability_type", ("availabilityType",)),
        Field("display_name", ("displayName",)),
        Field("machine_config.cpu_count", ("machineConfig.cpuCount",), Kind.NUMBER),
        _LABELS,
        patterns={"cluster": _CLUSTER_PATTERN},
    ),
    _service(
        "google_redis_instance",
        "redis.googleapis.com/Instance",
        "redis.googleapis.com",
        "projects/{project}/locations/{region}/instances/{name}",
        _REGION,
        Field("memory_size_gb", ("memorySizeGb",), Kind.NUMBER),
        Field("tier", ("tier",)),
        Field("redis_version", ("redisVersion",)),
        Field("authorized_network", ("authorizedNetwork",), Kind.LINK),
        Field("connect_mode", ("connectMode",)),
        Field("auth_enabled", ("authEnabled",), Kind.BOOLEAN, lacking=False),
        Field("transit_encryption_mode", ("transitEncryptionMode",)),
        Field("display_name", ("displayName",)),
        _LABELS,
    ),
    TypeMapping(
        "google_storage_bucket",
        "storage.googleapis.com/Bucket",
        Place(("//storage.googleapis.com/{name}",)),
        _NAME,
        (
            Field("location", ("location",), Kind.CASELESS),
            Field("storage_class", ("storageClass",)),
            Field(
                "uniform_bucket_level_access",
                (
                    "iamConfiguration.uniformBucketLevelAccess.enabled",
                    "iamConfiguration.bucketPolicyOnly.enabled",
                ),
                Kind.BOOLEAN,
                lacking=False,
            ),
            Field("public_access_prevention", ("iamConfiguration.publicAccessPrevention",)),
            Field("versioning.enabled", ("versioning.enabled",), Kind.BOOLEAN, lacking=False),
            Field("retention_policy.retention_period", ("retentionPolicy.retentionPeriod",), Kind.NUMBER),
            Field("retention_policy.is_locked", ("retentionPolicy.isLocked",), Kind.BOOLEAN, lacking=False),
            _LABELS,
        ),
        computed={"id": "{name}", "url": "gs://{name}"},
    ),
    TypeMapping(
        "google_bigquery_dataset",
        "bigquery.googleapis.com/Dataset",
        Place(("//bigquery.googleapis.com/projects/{project}/datasets/{dataset}",)),
        {"dataset": ("dataset_id",), **_PROJECT},
        (
            Field("location", ("location",), Kind.CASELESS),
            Field("friendly_name", ("friendlyName",)),
            Field("description", ("description",)),
            Field("default_table_expiration_ms", ("defaultTableExpirationMs",), Kind.NUMBER),
            _LABELS,
        ),
        computed={"id": "projects/{project}/datasets/{dataset}"},
    ),
    TypeMapping(
        "google_service_account",
        "iam.googleapis.com/ServiceAccount",
        Place(
            ("//iam.googleapis.com/projects/{project}/serviceAccounts/{account}@{project}.iam.gserviceaccount.com",),
            key={"email": "{account}@{project}.iam.gserviceaccount.com"},
        ),
        {"account": ("account_id",), **_PROJECT},
        (
            Field("display_name", ("displayName",), lacking=""),
            Field("description", ("description",), lacking=""),
            Field("disabled", ("disabled",), Kind.BOOLEAN, lacking=False),
        ),
        computed={
            "id": "projects/{project}/serviceAccounts/{account}@{project}.iam.gserviceaccount.com",
            "name": "projects/{project}/serviceAccounts/{account}@{project}.iam.gserviceaccount.com",
            "email": "{account}@{project}.iam.gserviceaccount.com",
            "member": "serviceAccount:{account}@{project}.iam.gserviceaccount.com",
        },
    ),
    _service(
        "google_kms_crypto_key",
        "cloudkms.googleapis.com/CryptoKey",
        "cloudkms.googleapis.com",
        "projects/{project}/locations/{location}/keyRings/{key_ring}/cryptoKeys/{name}",
        {"name": ("name",), "key_ring": ("key_ring",), "location": (), "project": ()},
        Field("rotation_period", ("rotationPeriod",), lacking=""),
        Field("purpose", ("purpose",)),
        Field("version_template.algorithm", ("versionTemplate.algorithm",)),
        Field("version_template.protection_level", ("versionTemplate.protectionLevel",)),
        _LABELS,
        patterns={"key_ring": _KEY_RING_PATTERN},
    ),
    _service(
        "google_logging_project_sink",
        _SINK,
        "logging.googleapis.com",
        "projects/{project}/sinks/{name}",
        _NAME,
        *_SINK_FIELDS,
    ),
    _service(
        "google_logging_folder_sink",
        _SINK,
        "logging.googleapis.com",
        "folders/{folder}/sinks/{name}",
        {"name": ("name",), "folder": ("folder",)},
        *_SINK_FIELDS,
        Field("include_children", ("includeChildren",), Kind.BOOLEAN, lacking=False),
        container="folders/{folder}",
    ),
    _service(
        "google_logging_organization_sink",
        _SINK,
        "logging.googleapis.com",
        "organizations/{organization}/sinks/{name}",
        {"name": ("name",), "organization": ("org_id",)},
        *_SINK_FIELDS,
        Field("include_children", ("includeChildren",), Kind.BOOLEAN, lacking=False),
        container="organizations/{organization}",
    ),
    _service(
        "google_dns_managed_zone",
        "dns.googleapis.com/ManagedZone",
        "dns.googleapis.com",
        "projects/{project}/managedZones/{name}",
        _NAME,
        Field("dns_name", ("dnsName",)),
        Field("visibility", ("visibility",), Kind.CASELESS),
        Field("description", ("description",)),
        Field("dnssec_config.state", ("dnssecConfig.state",), Kind.CASELESS),
        _LABELS,
    ),
)

#: By the type's name in terraform.
MAPPINGS: Mapping[str, TypeMapping] = {item.resource_type: item for item in _TYPES}
#: The asset types that terraform blocks can stand for.
ASSET_TYPES: frozenset[str] = frozenset(item.asset_type for item in _TYPES)

#: Types that are never compared and whose ``id`` others need.
_ONLY_COMPUTED: Mapping[str, tuple[Mapping[str, tuple[str, ...]], Mapping[str, str]]] = {
    "google_kms_key_ring": (
        {"name": ("name",), "location": ("location",), **_PROJECT},
        {"id": "projects/{project}/locations/{location}/keyRings/{name}"},
    ),
}

_PREFIXES = {"project": "projects/", "folder": "folders/", "organization": "organizations/"}
_LAST_SEGMENT = frozenset({"zone", "region", "location"})
#: What an address of a service account is made of. A data source may have a whole one as its ``account_id``; a project
#: by number, or one of a domain, is not written into it as it is.
_IN_ADDRESS = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_ADDRESS = "@{project}"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def parts_of(mapping: TypeMapping, argument: Callable[[str], Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a resource's name: a text, or `Unknown` with its reason."""
    return _parts(mapping.parts, mapping.patterns, argument, defaults)


def _parts(
    parts: Mapping[str, tuple[str, ...]],
    patterns: Mapping[str, str],
    argument: Callable[[str], Any],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    found = {part: _part(part, names, argument, defaults) for part, names in parts.items()}
    for part, pattern in patterns.items():
        value = found.get(part)
        if isinstance(value, str) and "/" in value:
            match = re.search(pattern + "$", value)
            found |= match.groupdict() if match else {part: Unknown(f"{value}, which is no path that is understood")}
        elif isinstance(value, Unknown):
            found |= {name: value for name, other in parts.items() if not other}
    return found


def _part(part: str, names: tuple[str, ...], argument: Callable[[str], Any], defaults: Mapping[str, Any]) -> Any:
    for name in names:
        source = name.removeprefix("provider.")
        value = defaults.get(source) if source != name else argument(name)
        if value is None:
            continue
        unknown = unknown_in(value)
        if unknown is not None:
            return unknown
        written = text(value)
        if not written:
            return Unknown(f"{name}, which is no text")
        if part == "parent":
            return _parent(name, written)
        written = written.removeprefix(_PREFIXES.get(part, ""))
        return written.rsplit("/", 1)[-1] if part in _LAST_SEGMENT else written
    return Unknown(f"{names[0]}, which is not set" if names else "an argument that does not tell it")


def _parent(argument: str, value: str) -> str:
    if value.startswith(("folders/", "organizations/")):
        return value
    return f"organizations/{value}" if argument == "org_id" else f"folders/{value}"


def fill(template: str, parts: Mapping[str, Any]) -> str | Unknown:
    """A template with its parts, or the first of them that is not known."""
    for name in _PLACEHOLDER.findall(template):
        if not isinstance(parts.get(name), str):
            unknown = parts.get(name)
            return unknown if isinstance(unknown, Unknown) else Unknown(f"{name}, which is not told")
    if _ADDRESS in template:
        for name in ("account", "project"):
            if not _IN_ADDRESS.fullmatch(parts[name]):
                return Unknown(f"{name} {parts[name]}, of which the address does not follow")
    return _PLACEHOLDER.sub(lambda match: str(parts[match[1]]), template)


def computed(
    resource_type: str, attribute: str, argument: Callable[[str], Any], defaults: Mapping[str, Any]
) -> str | Unknown | None:
    """An attribute that follows from the arguments of a block; ``None`` if it does not."""
    mapping = MAPPINGS.get(resource_type)
    if mapping is not None and attribute in mapping.computed:
        return fill(mapping.computed[attribute], parts_of(mapping, argument, defaults))
    if resource_type in _ONLY_COMPUTED:
        parts, made = _ONLY_COMPUTED[resource_type]
        if attribute in made:
            return fill(made[attribute], _parts(parts, {}, argument, defaults))
    return None
