"""Which asset types an endpoint of the configuration stands for, and which kinds of resource a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Part

PROJECT = "cloudresourcemanager.googleapis.com/Project"
FOLDER = "cloudresourcemanager.googleapis.com/Folder"
ORGANIZATION = "cloudresourcemanager.googleapis.com/Organization"
NETWORK = "compute.googleapis.com/Network"
SUBNETWORK = "compute.googleapis.com/Subnetwork"
FIREWALL = "compute.googleapis.com/Firewall"
INSTANCE = "compute.googleapis.com/Instance"
DISK = "compute.googleapis.com/Disk"
#: A project as Compute Engine sees it: common instance metadata and the like.
COMPUTE_PROJECT = "compute.googleapis.com/Project"
CLUSTER = "container.googleapis.com/Cluster"
NODE_POOL = "container.googleapis.com/NodePool"
BUCKET = "storage.googleapis.com/Bucket"
SERVICE_ACCOUNT = "iam.googleapis.com/ServiceAccount"
SERVICE_ACCOUNT_KEY = "iam.googleapis.com/ServiceAccountKey"
DATASET = "bigquery.googleapis.com/Dataset"
CRYPTO_KEY = "cloudkms.googleapis.com/CryptoKey"
LOG_SINK = "logging.googleapis.com/LogSink"
MANAGED_ZONE = "dns.googleapis.com/ManagedZone"

#: Databases of every engine, with the name a person uses for it.
DATABASES: dict[str, str] = {
    "sqladmin.googleapis.com/Instance": "Cloud SQL",
    "spanner.googleapis.com/Instance": "Spanner",
    "bigtableadmin.googleapis.com/Instance": "Bigtable",
    "firestore.googleapis.com/Database": "Firestore",
    "alloydb.googleapis.com/Cluster": "AlloyDB",
    "redis.googleapis.com/Instance": "Memorystore",
}

#: Databases that are shown if they are there.
MORE_DATABASES: dict[str, str] = {
    "redis.googleapis.com/Cluster": "Memorystore",
    "memorystore.googleapis.com/Instance": "Memorystore",
}

#: ``sync_layers.api_sync.endpoints`` → asset types. Projects come first: they tell project ids for the others.
ENDPOINTS: dict[str, tuple[str, ...]] = {
    "/projects": (PROJECT, FOLDER, ORGANIZATION),
    "/vpcs": (NETWORK, SUBNETWORK, FIREWALL),
    "/compute": (INSTANCE, DISK, COMPUTE_PROJECT),
    "/gke": (CLUSTER, NODE_POOL),
    "/databases": (*DATABASES, "alloydb.googleapis.com/Instance"),
    "/storage": (BUCKET,),
    "/iam": (SERVICE_ACCOUNT, SERVICE_ACCOUNT_KEY),
    "/bigquery": (DATASET,),
    "/compliance": (CRYPTO_KEY, LOG_SINK, MANAGED_ZONE),
}

#: Types that carry an IAM policy of their own in Cloud Asset Inventory, among those above.
_WITH_IAM_POLICY = frozenset({PROJECT, FOLDER, ORGANIZATION, BUCKET, DATASET, SERVICE_ACCOUNT, CRYPTO_KEY, SUBNETWORK})
_WITH_ORG_POLICY = frozenset({PROJECT, FOLDER, ORGANIZATION})
#: Types that Google tells relations of (https://cloud.google.com/asset-inventory/docs/relationship-types), among those
#: above; another one is refused. Google serves them with Security Command Center Premium only.
_WITH_RELATIONSHIPS = frozenset({INSTANCE, DISK, CLUSTER, NODE_POOL, BUCKET, "bigtableadmin.googleapis.com/Instance"})


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts to read, in order: each a scope × type × content."""

    parts: tuple[Part, ...]


def plan_parts(scopes: Sequence[str], endpoints: Sequence[str], content_types: Sequence[str]) -> Plan:
    """What to read for a configuration, each part once. The order of ``ENDPOINTS`` holds, whatever that of the
    configuration."""
    chosen = [asset_type for endpoint, types in ENDPOINTS.items() if endpoint in endpoints for asset_type in types]
    carriers = {
        ContentType.RESOURCE: frozenset(chosen),
        ContentType.IAM_POLICY: _WITH_IAM_POLICY,
        ContentType.ORG_POLICY: _WITH_ORG_POLICY,
        ContentType.RELATIONSHIP: _WITH_RELATIONSHIPS,
    }
    return Plan(
        tuple(
            (scope, asset_type, content_type.value)
            for scope in dict.fromkeys(scopes)
            for content_type in ContentType
            if content_type.value in content_types
            for asset_type in chosen
            if asset_type in carriers[content_type]
        )
    )
