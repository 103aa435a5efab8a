"""Which resources a resource's data names, in each of Google's ways to name one."""

from __future__ import annotations

import pytest

from lz_sync_dagster.sync.state.references import names_of, references

COMPUTE = "https://www.googleapis.com/compute/v1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "//compute.googleapis.com/projects/p/global/networks/n",
            "//compute.googleapis.com/projects/p/global/networks/n",
        ),
        (f"{COMPUTE}/projects/p/global/networks/n", "//compute.googleapis.com/projects/p/global/networks/n"),
        (
            "https://compute.googleapis.com/compute/beta/projects/p/global/networks/n",
            "//compute.googleapis.com/projects/p/global/networks/n",
        ),
        (
            "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c",
            "//container.googleapis.com/projects/p/locations/l/clusters/c",
        ),
        (
            "https://sqladmin.googleapis.com/sql/v1beta4/projects/p/instances/i",
            "//cloudsql.googleapis.com/projects/p/instances/i",
        ),
        ("https://www.googleapis.com/storage/v1/b/bucket", "//storage.googleapis.com/bucket"),
        ("gs://bucket/a/b", "//storage.googleapis.com/bucket"),
        ("storage.googleapis.com/bucket", "//storage.googleapis.com/bucket"),
        ("pubsub.googleapis.com/projects/p/topics/t", "//pubsub.googleapis.com/projects/p/topics/t"),
        ("projects/p/global/networks/n", "//compute.googleapis.com/projects/p/global/networks/n"),
        (
            "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7",
            "//cloudkms.googleapis.com/projects/p/locations/l/keyRings/r/cryptoKeys/k",
        ),
        ("folders/7", "//cloudresourcemanager.googleapis.com/folders/7"),
    ],
)
def test_a_name_is_understood(text: str, name: str) -> None:
    assert names_of(text)[0] == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a text",
        "projects/p/zones/z",
        f"{COMPUTE}/projects/p/zones/z",
        f"{COMPUTE}/projects/p/zones/z/machineTypes/e2-small",
        "https://www.googleapis.com/auth/cloud-platform",
        "logging.googleapis.com/kubernetes",
        "https://example.com/projects/p/global/networks/n",
        "//",
    ],
)
def test_what_is_no_resource_of_the_inventory_is_no_reference(text: str) -> None:
    assert names_of(text) == ()


def test_references_have_their_field_and_leave_the_resource_itself_out() -> None:
    own = "//compute.googleapis.com/projects/p/zones/z/instances/i"
    data = {
        "selfLink": f"{COMPUTE}/projects/p/zones/z/instances/i",
        "networkInterfaces": [{"network": f"{COMPUTE}/projects/host/global/networks/n"}],
        "serviceAccounts": [{"email": "robot@other.iam.gserviceaccount.com"}],
        "labels": {"note": 5, "none": None},
    }
    found = references(data, own_name=own, project="p")
    assert [(item.path, item.names[0], item.project) for item in found] == [
        ("networkInterfaces[0].network", "//compute.googleapis.com/projects/host/global/networks/n", None),
        (
            "serviceAccounts[0].email",
            "//iam.googleapis.com/projects/other/serviceAccounts/robot@other.iam.gserviceaccount.com",
            "other",
        ),
    ]


def test_bare_names_of_networks_belong_to_the_project_and_region() -> None:
    data = {"network": "n", "subnetwork": "s", "name": "c"}
    for location in ("europe-west1", "europe-west1-b"):
        found = references(data, own_name="//x", project="p", location=location)
        assert [item.names[0] for item in found] == [
            "//compute.googleapis.com/projects/p/global/networks/n",
            "//compute.googleapis.com/projects/p/regions/europe-west1/subnetworks/s",
        ]
    assert references(data, own_name="//x") == []


def test_they_are_bounded() -> None:
    data = {"users": [f"{COMPUTE}/projects/p/zones/z/instances/{number}" for number in range(20)]}
    assert len(references(data, own_name="//x", limit=7)) == 7
