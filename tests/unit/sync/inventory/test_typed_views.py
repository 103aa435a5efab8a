"""Typed views say what the data says, in both of its forms, and nothing that it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.inventory import types
from lz_sync_dagster.sync.inventory.typed_views import VIEWS, iam_bindings, typed_view

LINK = "https://www.googleapis.com/compute/v1/projects/p"


@dataclass(frozen=True)
class Row:
    asset_type: str
    name: str = "//service/projects/p/things/t"
    project: str | None = "p"
    location: str | None = "europe-west1"
    display_name: str | None = "t"


def view(asset_type: str, data: Any, **row: Any) -> dict[str, Any]:
    kind, fields = typed_view(Row(asset_type, **row), data)
    assert kind is not None
    assert fields is not None
    return fields


def has(fields: dict[str, Any], **wanted: Any) -> None:
    assert {name: fields[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    "data",
    [
        {
            "networkInterfaces": [
                {
                    "network": f"{LINK}/global/networks/n", "networkIP": "10.0.0.2", "ipv6Address": "fd20::1",
                    "ipv6AccessType": "INTERNAL", "accessConfigs": [{"natIP": "203.0.113.9"}],
                    "ipv6AccessConfigs": [{"externalIpv6": "2001:db8::1"}],
                }
            ],
            "serviceAccounts": [{"email": "a@p"}],
        },
        {
            "networkInterface": [
                {
                    "network": f"{LINK}/global/networks/n", "ipAddress": "10.0.0.2", "ipv6Address": "fd20::1",
                    "accessConfig": [{"externalIp": "203.0.113.9"}],
                    "ipv6AccessConfig": [{"externalIpv6": "2001:db8::1"}],
                }
            ],
            "serviceAccount": [{"email": "a@p"}],
        },
    ],
)  # fmt: skip
def test_an_instance_in_both_forms(data: dict[str, Any]) -> None:
    data |= {"status": "TERMINATED", "machineType": f"{LINK}/zones/z/machineTypes/e2-small", "zone": f"{LINK}/zones/z"}
    has(
        view(types.INSTANCE, data),
        status="TERMINATED",
        machine_type="e2-small",
        zone="z",
        internal_ips=["10.0.0.2"],
        external_ips=["203.0.113.9"],
        internal_ipv6s=["fd20::1"],
        external_ipv6s=["2001:db8::1"],
        networks=["n"],
        service_accounts=["a@p"],
    )


@pytest.mark.parametrize(
    ("asset_type", "data", "wanted"),
    [
        (
            "sqladmin.googleapis.com/Instance",
            {
                "databaseVersion": "POSTGRES_16", "region": "eu", "state": "RUNNABLE",
                "settings": {"tier": "db-custom-2", "availabilityType": "REGIONAL"},
                "ipAddresses": [{"type": "PRIVATE", "ipAddress": "10.1.1.1"},
                                {"type": "OUTGOING", "ipAddress": "34.1.2.3"},
                                {"type": "PRIMARY", "ipAddress": "34.1.1.1"}],
            },
            {"engine": "POSTGRES_16", "version": "POSTGRES_16", "tier": "db-custom-2", "high_availability": True,
             "private_addresses": ["10.1.1.1"], "public_addresses": ["34.1.1.1"], "location": "eu"},
        ),
        (
            "redis.googleapis.com/Instance",
            {"tier": "BASIC", "redisVersion": "REDIS_7_0", "host": "10.2.2.2", "locationId": "europe-west1-b"},
            {"tier": "BASIC", "high_availability": False, "private_addresses": ["10.2.2.2"], "version": "REDIS_7_0"},
        ),
        (
            "memorystore.googleapis.com/Instance",
            {"engineVersion": "VALKEY_8_0", "nodeType": "HIGHMEM_MEDIUM", "replicaCount": 1,
             "discoveryEndpoints": [{"address": "10.3.3.3"}], "state": "ACTIVE"},
            {"engine": "Memorystore", "version": "VALKEY_8_0", "tier": "HIGHMEM_MEDIUM", "high_availability": True,
             "private_addresses": ["10.3.3.3"]},
        ),
        ("spanner.googleapis.com/Instance", {"edition": "ENTERPRISE"}, {"engine": "Spanner", "tier": "ENTERPRISE",
                                                                         "high_availability": None, "version": None}),
    ],
)  # fmt: skip
def test_databases(asset_type: str, data: dict[str, Any], wanted: dict[str, Any]) -> None:
    has(view(asset_type, data), kind=asset_type, **wanted)


@pytest.mark.parametrize("data", [{}, {"networkInterfaces": "odd"}, {"networkInterfaces": ["odd"]}])
def test_what_the_data_does_not_tell_is_no_empty_list(data: dict[str, Any]) -> None:
    addresses = ("internal_ips", "external_ips", "internal_ipv6s", "external_ipv6s", "networks")
    has(view(types.INSTANCE, data), **dict.fromkeys((*addresses, "service_accounts", "labels")))
    has(view(types.FIREWALL, {"sourceRanges": [1]}), allowed=None, denied=None, source_ranges=None, target_tags=None)
    for told in ({}, {"ipAddresses": {}}, {"ipAddresses": [{"ipAddress": "34.1.1.1"}]}):
        has(view("sqladmin.googleapis.com/Instance", told), private_addresses=None, public_addresses=None)
    has(view("spanner.googleapis.com/Instance", {}), private_addresses=None, public_addresses=None)
    has(view(types.NETWORK, {"subnetworks": "odd"}), subnetworks=None)


def test_an_instance_without_external_access_has_no_external_address() -> None:
    inner = [{"networkIP": "10.0.0.2"}]
    has(view(types.INSTANCE, {"networkInterfaces": inner}), internal_ips=["10.0.0.2"], external_ips=[])
    odd = [*inner, {"networkIP": "10.0.0.3", "accessConfigs": "odd"}]
    has(view(types.INSTANCE, {"networkInterfaces": odd}), internal_ips=["10.0.0.2", "10.0.0.3"], external_ips=None)


def test_an_address_that_a_database_goes_out_from_is_not_public() -> None:
    told = [{"type": "PRIVATE", "ipAddress": "10.0.0.2"}, {"type": "OUTGOING", "ipAddress": "34.1.2.3"}]
    found = view("sqladmin.googleapis.com/Instance", {"ipAddresses": told})
    has(found, private_addresses=["10.0.0.2"], public_addresses=[])


def test_networks_clusters_storage_and_accounts() -> None:
    firewall = {
        "allowed": [{"IPProtocol": "tcp", "ports": ["22", "80-90"]}, {"IPProtocol": "icmp"}],
        "sourceRange": ["::/0"],
    }
    has(
        view(types.FIREWALL, firewall),
        allowed=["tcp:22,80-90", "icmp"],
        denied=None,
        source_ranges=["::/0"],
        logged=None,
    )
    subnetwork = {
        "ipCidrRange": "10.0.0.0/24",
        "secondaryIpRanges": [{"rangeName": "pods", "ipCidrRange": "10.1.0.0/16"}],
    }
    has(
        view(types.SUBNETWORK, subnetwork),
        secondary_ranges={"pods": "10.1.0.0/16"},
        flow_logs=None,
        region="europe-west1",
    )
    cluster = {
        "nodePools": [{}, {}],
        "releaseChannel": {"channel": "RAPID"},
        "privateClusterConfig": {"enablePrivateNodes": True},
    }
    has(view(types.CLUSTER, cluster), node_pools=2, release_channel="RAPID", private_nodes=True, private_endpoint=None)
    pool = view(types.NODE_POOL, {"autoscaling": {"maxNodeCount": 6}}, name="//c/clusters/c/nodePools/n")
    has(pool, cluster="//c/clusters/c", max_nodes=6, min_nodes=None)
    bucket = {"iamConfiguration": {"bucketPolicyOnly": {"enabled": True}}, "retentionPolicy": {"retentionPeriod": "60"}}
    has(view(types.BUCKET, bucket), uniform_access=True, retention_seconds=60, versioning=None)
    has(view(types.DATASET, {"access": [{"specialGroup": "allAuthenticatedUsers"}]}), public=True)
    has(view(types.DATASET, {"access": [{"role": "OWNER", "userByEmail": "a@b"}]}), public=False)
    has(view(types.DATASET, {}), public=None)
    key = "//iam.googleapis.com/projects/p/serviceAccounts/a@p/keys/k1"
    has(view(types.SERVICE_ACCOUNT_KEY, {"keyType": "USER_MANAGED"}, name=key), key_id="k1", service_account="a@p")
    has(
        view(types.FOLDER, {"parent": "organizations/1", "lifecycleState": "ACTIVE"}),
        parent="organizations/1",
        state="ACTIVE",
    )


def test_bindings_are_one_per_member() -> None:
    policy = {
        "bindings": [
            {"role": "roles/viewer", "members": ["user:a", "user:b"]},
            {
                "role": "roles/editor",
                "members": ["user:a"],
                "condition": {"title": "t", "expression": "request.time < x"},
            },
            "odd",
        ]
    }
    found = [(item.role, item.member, item.condition) for item in iam_bindings(Row(types.PROJECT), policy)]
    assert found == [
        ("roles/viewer", "user:a", None),
        ("roles/viewer", "user:b", None),
        ("roles/editor", "user:a", "request.time < x"),
    ]


def test_a_type_without_a_view_is_kept_raw() -> None:
    assert typed_view(Row("run.googleapis.com/Service"), {"a": 1}) == (None, None)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    "networkInterfaces",
    "accessConfigs",
    "labels",
    "parent",
    "settings",
    "ipAddresses",
    "access",
    "nodePools",
    "allowed",
    "autoscaling",
    "secondaryIpRanges",
    "retentionPolicy",
    "status",
    "machineType",
    "zone",
    "priority",
    "mtu",
    "tier",
    "projectNumber",
    "state",
    "logConfig",
    "region",
    "subnetworks",
    "routingConfig",
    "config",
    "replicaCount",
    "endpoints",
)


@given(st.sampled_from(VIEWS), st.dictionaries(st.sampled_from(NAMES), anything) | anything)
def test_no_change_of_shape_breaks_a_view(chosen: Any, data: Any) -> None:
    for asset_type in chosen.asset_types:
        view(asset_type, data)
