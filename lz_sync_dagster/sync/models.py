"""What leaves the system: the models that the API, the command line and the pages share. Their words are the
architecture document's.

Every model that carries a figure also carries ``as_of`` (the instant the figure was true), ``source`` and ``coverage``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason


class Status(StrEnum):
    """How a layer's last sync ended: a closed vocabulary.

    ``partial``: something could not be read, and ``coverage`` or ``errors`` say what. ``stale``: the last good copy is
    served, and it is older than the cache allows. ``unknown``: never synced. ``disabled``: switched off in the
    configuration.
    """

    SUCCESS = "success"
    IN_PROGRESS = "in_progress"
    PARTIAL = "partial"
    FAILED = "failed"
    STALE = "stale"
    UNKNOWN = "unknown"
    DISABLED = "disabled"


class CoverageStatus(StrEnum):
    """Whether a scope × type × content is known."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    STALE = "stale"
    UNKNOWN = "unknown"


class EventType(StrEnum):
    """The ``event_type`` of a feed frame."""

    RESOURCE_CREATED = "resource_created"
    RESOURCE_UPDATED = "resource_updated"
    RESOURCE_DELETED = "resource_deleted"
    POLICY_VIOLATED = "policy_violated"
    POLICY_RESOLVED = "policy_resolved"
    COMPLIANCE_DRIFT = "compliance_drift"
    COST_SPIKE = "cost_spike"
    SYNC_STATUS = "sync_status"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CoverageGap(_Model):
    """One scope × type that is not fully known, and why."""

    scope: str
    asset_type: str
    content_type: str
    status: CoverageStatus
    reason: Reason
    detail: str
    remedy: str
    since: datetime


class Coverage(_Model):
    """How much of what a figure speaks of is known: counts of scope × type × content rows, and every gap."""

    status: CoverageStatus
    complete: int = 0
    partial: int = 0
    stale: int = 0
    unknown: int = 0
    gaps: list[CoverageGap] = Field(default_factory=list)


class SyncStatus(_Model):
    """Health of one layer (section 5 of the architecture document).

    ``last_sync`` is the last time the layer succeeded; ``last_attempt`` the last time it tried. ``items_synced`` counts
    what the layer vouches for after its last sync, ``items_changed`` what that sync changed; both are ``None``
    while the layer never had data.
    """

    layer: LayerId
    status: Status
    last_sync: datetime | None
    items_synced: int | None
    errors: list[str]
    next_sync: datetime | None
    items_changed: int | None = None
    last_attempt: datetime | None = None
    consecutive_failures: int = 0
    as_of: datetime | None = None
    source: str
    coverage: Coverage


class Project(_Model):
    """A project. ``state`` is Resource Manager's lifecycle state."""

    name: str
    project_id: str
    project_number: str | None
    display_name: str | None
    parent: str | None
    state: str | None
    labels: dict[str, str] | None
    created_at: str | None = None


class Folder(_Model):
    """A folder. ``parent``: ``folders/1`` or ``organizations/1``."""

    name: str
    folder_id: str
    display_name: str | None
    parent: str | None
    state: str | None
    created_at: str | None = None


class VPC(_Model):
    """A VPC network."""

    name: str
    display_name: str
    project: str | None
    auto_create_subnetworks: bool | None
    subnetworks: int | None
    routing_mode: str | None
    mtu: int | None = None


class Subnetwork(_Model):
    """A subnetwork. ``network``: its name without the project."""

    name: str
    display_name: str
    project: str | None
    region: str | None
    network: str | None
    ip_cidr_range: str | None
    secondary_ranges: dict[str, str] | None
    private_google_access: bool | None
    flow_logs: bool | None
    purpose: str | None
    stack_type: str | None


class Firewall(_Model):
    """A VPC firewall rule. ``allowed`` and ``denied``: ``tcp:22,80-90``, or ``all``."""

    name: str
    display_name: str
    project: str | None
    network: str | None
    direction: str | None
    priority: int | None
    disabled: bool | None
    allowed: list[str] | None
    denied: list[str] | None
    source_ranges: list[str] | None
    destination_ranges: list[str] | None
    source_tags: list[str] | None
    target_tags: list[str] | None
    target_service_accounts: list[str] | None
    logged: bool | None


class VM(_Model):
    """A Compute Engine instance. ``status`` is what Compute Engine says, or ``None`` if the inventory does not carry
    it. ``internal_ips`` and ``external_ips`` are IPv4."""

    name: str
    display_name: str
    project: str | None
    zone: str | None
    machine_type: str | None
    status: str | None
    internal_ips: list[str] | None
    external_ips: list[str] | None
    labels: dict[str, str] | None
    internal_ipv6s: list[str] | None = None
    external_ipv6s: list[str] | None = None
    networks: list[str] | None = None
    service_accounts: list[str] | None = None
    created_at: str | None = None


class Cluster(_Model):
    """A GKE cluster. ``private_nodes``: nodes without external addresses; ``None`` where it is not told."""

    name: str
    display_name: str
    project: str | None
    location: str | None
    status: str | None
    version: str | None
    node_count: int | None
    node_pools: int | None = None
    release_channel: str | None = None
    autopilot: bool | None = None
    private_nodes: bool | None = None
    private_endpoint: bool | None = None
    network: str | None = None
    subnetwork: str | None = None
    endpoint: str | None = None
    created_at: str | None = None


class NodePool(_Model):
    """A node pool of a GKE cluster. ``cluster``: the cluster's full resource name."""

    name: str
    display_name: str
    project: str | None
    location: str | None
    cluster: str | None
    status: str | None
    version: str | None
    machine_type: str | None
    initial_node_count: int | None
    min_nodes: int | None
    max_nodes: int | None
    auto_upgrade: bool | None
    auto_repair: bool | None


class Database(_Model):
    """A database instance of any engine; ``kind`` is its Cloud Asset type. ``high_availability``: a replica stands by
    in another zone; ``None`` where the data does not say."""

    name: str
    display_name: str
    project: str | None
    location: str | None
    kind: str
    engine: str | None
    state: str | None
    version: str | None = None
    tier: str | None = None
    high_availability: bool | None = None
    private_addresses: list[str] | None = None
    public_addresses: list[str] | None = None
    created_at: str | None = None


class Bucket(_Model):
    """A Cloud Storage bucket."""

    name: str
    display_name: str
    project: str | None
    location: str | None
    storage_class: str | None
    uniform_access: bool | None
    public_access_prevention: str | None
    versioning: bool | None
    retention_seconds: int | None
    retention_locked: bool | None
    kms_key: str | None
    labels: dict[str, str] | None
    created_at: str | None


class Dataset(_Model):
    """A BigQuery dataset. ``public``: all users, or all authenticated ones, have access; ``None`` if it is not told."""

    name: str
    display_name: str
    project: str | None
    location: str | None
    dataset_id: str | None
    default_expiration_ms: int | None
    kms_key: str | None
    public: bool | None
    labels: dict[str, str] | None
    created_at: str | None


class ServiceAccount(_Model):
    """A service account."""

    name: str
    display_name: str | None
    project: str | None
    email: str | None
    unique_id: str | None
    disabled: bool | None


class ServiceAccountKey(_Model):
    """A key of a service account: never the key itself. ``service_account``: the email in its name."""

    name: str
    project: str | None
    key_id: str
    service_account: str | None
    key_type: str | None
    origin: str | None
    algorithm: str | None
    valid_after: str | None
    valid_before: str | None
    disabled: bool | None


class IamBinding(_Model):
    """One member with one role on one resource. ``condition``: its expression, ``None`` if it holds always."""

    resource: str
    asset_type: str
    project: str | None
    role: str
    member: str
    condition: str | None


class Violation(_Model):
    """A control that a resource does not meet. ``source`` is ``cis``, ``scc``, ``orgpolicy`` or ``gate``."""

    control: str
    framework: str
    title: str
    severity: str
    resource: str
    asset_type: str
    project: str | None
    message: str
    source: str
    opened_at: datetime


class LZInfrastructureState(_Model):
    """The landing zone as the Portal shows it (section 5 of the architecture document).

    A list holds at most the number of items that was asked for; ``counts`` has the true totals, and ``truncated`` names
    the lists that are shorter than their total. A count is ``None`` where none was found and not everything was read: a
    zero has to be proven. ``compliance_score`` is passed / decided control evaluations (0 to 1), and ``None`` while
    nothing was decided.
    """

    timestamp: datetime
    projects: list[Project]
    vpcs: list[VPC]
    compute_instances: list[VM]
    gke_clusters: list[Cluster]
    databases: list[Database]
    folders: list[Folder]
    subnetworks: list[Subnetwork]
    firewalls: list[Firewall]
    node_pools: list[NodePool]
    buckets: list[Bucket]
    datasets: list[Dataset]
    service_accounts: list[ServiceAccount]
    service_account_keys: list[ServiceAccountKey]
    iam_bindings: list[IamBinding]
    compliance_score: float | None
    policy_violations: list[Violation]
    sync_metadata: SyncStatus
    counts: dict[str, int | None]
    truncated: list[str]
    as_of: datetime | None
    source: str
    coverage: Coverage


class FeedFrame(_Model):
    """One entry of the event log as the live feed sends it."""

    seq: int
    event_type: EventType
    timestamp: datetime
    layer: LayerId
    resource: dict[str, Any] | None
    data: dict[str, Any]
