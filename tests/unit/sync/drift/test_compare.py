"""A block against the inventory: what is certain on both sides, and nothing else, is matched, changed or missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.drift.compare import World, identify, judge
from lz_sync_dagster.sync.drift.mapping import MAPPINGS, fill
from lz_sync_dagster.sync.drift.modules import resolve
from lz_sync_dagster.sync.drift.origin import created_by, note_of
from lz_sync_dagster.sync.store.terraform_drift import Asset, DriftRow, DriftStatus, Part
from tests.unit.sync.drift.test_modules import blocks, configurations, with_outside

FIREWALL = "compute.googleapis.com/Firewall"
NETWORK = "compute.googleapis.com/Network"
SCOPE = "organizations/1"
MATCHED, CHANGED, MISSING, UNRESOLVED = DriftStatus
HOST = "//compute.googleapis.com/projects"


def world(*assets: Asset, parts: Sequence[Part] | None = None, **more: Any) -> World:
    types = sorted({mapping.asset_type for mapping in MAPPINGS.values()})
    proven = [Part(SCOPE, kind, True, "complete", None) for kind in types]
    above = frozenset({"projects/p", "projects/77", "folders/5", SCOPE})
    return World(
        by_name={asset.name: asset for asset in assets},
        numbers=more.pop("numbers", {"p": "77"}),
        above={"projects/p": above, "folders/5": frozenset({"folders/5", SCOPE}), SCOPE: frozenset({SCOPE})},
        parts=proven if parts is None else parts,
        **more,
    )


def asset(name: str, asset_type: str, **data: Any) -> Asset:
    return Asset(name, asset_type, "p", ("projects/77", "folders/5", SCOPE), data)


def row(text: str, known: World) -> DriftRow:
    (instance,) = resolve(blocks({"main.tf": text}))
    return judge(instance, known)


def firewall(arguments: str) -> str:
    return f'resource "google_compute_firewall" "it" {{\n  name = "f"\n  project = "p"\n{arguments}\n}}\n'


def rule(**data: Any) -> Asset:
    return asset(f"{HOST}/p/global/firewalls/f", FIREWALL, **data)


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        ('network = "n"', {"network": "https://www.googleapis.com/compute/v1/projects/p/global/networks/n"}),
        ('network = "projects/p/global/networks/n"', {"network": "https://compute/v1/projects/77/global/networks/n"}),
        ("priority = 1000", {"priority": "1000"}),
        ("disabled = false", {}),
        ("disabled = true", {"disabled": "TRUE"}),
        ('source_ranges = ["b", "a"]', {"sourceRanges": ["a", "b"]}),
        ('source_ranges = ["a"]', {"sourceRange": ["a"]}),
        ("source_ranges = []", {}),
        (
            'allow {\n protocol = "TCP"\n ports = ["80", "443"]\n}',
            {"allowed": [{"IPProtocol": "tcp", "ports": ["443", "80"]}]},
        ),
        ('allow {\n protocol = "icmp"\n}', {"allowed": [{"ip_protocol": "x", "ipProtocol": "icmp"}]}),
        ('log_config {\n metadata = "ALL"\n}', {"logConfig": {"enable": True}}),
        ('description = "a\\n"', {"description": "a"}),
    ],
)
def test_the_same_in_another_form_is_no_change(arguments: str, data: dict[str, Any]) -> None:
    found = row(firewall(arguments), world(rule(**data)))
    assert (found.status, found.differences) == (MATCHED, [])
    assert found.resource == f"{HOST}/p/global/firewalls/f"


@pytest.mark.parametrize(
    ("arguments", "data", "field", "terraform", "actual"),
    [
        (
            'network = "n"',
            {"network": "projects/p/global/networks/other"},
            "network",
            "n",
            "projects/p/global/networks/other",
        ),
        (
            'network = "projects/p/global/networks/n"',
            {"network": "projects/q/global/networks/n"},
            "network",
            "projects/p/global/networks/n",
            "projects/q/global/networks/n",
        ),
        ("priority = 1000", {"priority": 900}, "priority", 1000, 900),
        ("disabled = true", {}, "disabled", True, False),
        (
            'source_ranges = ["10.0.0.0/8"]',
            {"sourceRanges": ["0.0.0.0/0"]},
            "source_ranges",
            ["10.0.0.0/8"],
            ["0.0.0.0/0"],
        ),
        (
            'allow {\n protocol = "tcp"\n ports = ["80"]\n}',
            {"allowed": [{"IPProtocol": "tcp"}]},
            "allow",
            [{"protocol": "tcp", "ports": ["80"]}],
            [{"IPProtocol": "tcp"}],
        ),
        ('log_config {\n metadata = "ALL"\n}', {"logConfig": {"enable": False}}, "log_config", True, False),
    ],
)
def test_a_difference_says_what_each_side_has(
    arguments: str, data: dict[str, Any], field: str, terraform: Any, actual: Any
) -> None:
    found = row(firewall(arguments), world(rule(**data)))
    assert found.status is CHANGED
    assert found.differences == [{"field": field, "terraform": terraform, "actual": actual}]


@pytest.mark.parametrize(
    ("arguments", "data", "reason"),
    [
        (
            "priority = var.p",
            {"priority": 1},
            "not compared: priority (comes from var.p, which is set when terraform runs)",
        ),
        ("priority = 1", {}, "not compared: priority (the inventory does not carry it)"),
        ("priority = 1", {"priority": "first"}, "not compared: priority (is in a form that is not understood)"),
        (
            'description = "a"',
            {"description": "[redacted]"},
            "not compared: description (is withheld, since it may be a secret)",
        ),
        (
            "enable_logging = true\nlifecycle {\n ignore_changes = [priority]\n}\npriority = 1",
            {"priority": 2},
            "not compared: priority (its lifecycle ignores changes); not looked at: enable_logging",
        ),
        (
            "lifecycle {\n ignore_changes = all\n}\npriority = 1",
            {"priority": 2},
            "not compared: priority (its lifecycle ignores changes)",
        ),
        (
            'dynamic "allow" {\n for_each = var.x\n}',
            {"allowed": []},
            "not compared: allow (comes from dynamic block allow)",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_and_is_no_change(arguments: str, data: dict[str, Any], reason: str) -> None:
    found = row(firewall(arguments), world(rule(**data)))
    assert (found.status, found.differences, found.reason) == (MATCHED, [], reason)


def test_labels_are_compared_key_by_key_and_others_may_be_there() -> None:
    text = (
        'resource "google_storage_bucket" "it" {\n  name = "b"\n  location = "eu"\n'
        '  labels = { team = "a", env = var.env, gone = "x", same = "1" }\n}\n'
    )
    bucket = asset(
        "//storage.googleapis.com/b", "storage.googleapis.com/Bucket", location="EU",
        labels={"team": "b", "env": "e", "same": 1, "more": "m"},
    )  # fmt: skip
    found = row(text, world(bucket))
    assert found.status is CHANGED
    assert found.differences == [
        {"field": "labels.gone", "terraform": "x", "actual": None},
        {"field": "labels.team", "terraform": "a", "actual": "b"},
    ]
    assert row(text.replace('"x"', "null").replace('"a"', '"b"'), world(bucket)).status is MATCHED
    assert found.reason == "not compared: labels.env (comes from var.env, which is set when terraform runs)"


def test_missing_needs_a_place_that_was_read_completely() -> None:
    text = firewall("")
    assert row(text, world()).status is MISSING
    assert row(text, world()).reason == f"the inventory has no {HOST}/p/global/firewalls/f"
    partial = world(parts=[Part(SCOPE, FIREWALL, False, "partial", "permission_denied")])
    found = row(text, partial)
    assert found.status is UNRESOLVED
    assert found.reason == f"not read completely: {FIREWALL} in {SCOPE} is partial, permission_denied"
    both = [Part("folders/9", FIREWALL, True, "complete", None)]
    found = row(text, world(parts=both))
    assert found.reason == f"not found, and no scope that is read for {FIREWALL} covers projects/p"
    unread = row(text, world(unread=["a.tf", "b.tf"]))
    assert unread.status is UNRESOLVED
    assert unread.reason == ("not found, but a.tf and 1 more could not be read, and may say that it is not to be there")
    elsewhere = row(text.replace('"p"', '"other"'), world())
    assert elsewhere.status is UNRESOLVED
    assert "projects/other is not in the inventory" in str(elsewhere.reason)


def test_a_name_alone_makes_candidates_never_a_match() -> None:
    name = f"{HOST}/p/global/firewalls/f"
    known = world(rule(), leaves={FIREWALL: {"f": [name, f"{HOST}/q/global/firewalls/f"]}})
    text = 'resource "google_compute_firewall" "it" {\n  name = "f"\n  project = var.p\n}\n'
    found = row(text, known)
    assert (found.status, found.resource) == (UNRESOLVED, None)
    assert found.reason == (
        f"project comes from var.p, which is set when terraform runs; it may be {name}, {HOST}/q/global/firewalls/f"
    )


def test_a_type_without_a_mapping_is_unresolved() -> None:
    found = row('resource "google_pubsub_topic" "it" {\n  name = "t"\n}\n', world())
    assert (found.status, found.asset_type, found.reason) == (UNRESOLVED, None, "no mapping for google_pubsub_topic")


def test_projects_by_number_service_accounts_by_email_folders_by_name() -> None:
    zone = asset("//dns.googleapis.com/projects/77/managedZones/z", "dns.googleapis.com/ManagedZone", dnsName="a.b.")
    text = 'resource "google_dns_managed_zone" "it" {\n  name = "z"\n  project = "p"\n  dns_name = "a.b."\n}\n'
    assert row(text, world(zone)).status is MATCHED

    by_number = world(rule(), numbers={"77": "p"})
    assert row(firewall("").replace('"p"', '"77"'), by_number).status is MATCHED

    email = "nodes@p.iam.gserviceaccount.com"
    accounts = "iam.googleapis.com/ServiceAccount"
    account = asset("//iam.googleapis.com/projects/p/serviceAccounts/10262837", accounts, email=email)
    text = 'resource "google_service_account" "it" {\n  account_id = "nodes"\n  project = "p"\n}\n'
    assert row(text, world(by_key={(accounts, (email,)): [account]})).resource == account.name
    assert row(text, world()).status is MISSING

    for changed in (text.replace('"p"', '"77"'), text.replace('"p"', '"example.com:p"')):
        found = row(changed, world(account))
        assert found.status is UNRESOLVED
        assert "of which the address does not follow" in str(found.reason)

    kind = "cloudresourcemanager.googleapis.com/Folder"
    folder = Asset("//cloudresourcemanager.googleapis.com/folders/9", kind, None, ("folders/9", SCOPE), {})
    text = f'resource "google_folder" "it" {{\n  display_name = "f"\n  parent = "{SCOPE}"\n}}\n'
    assert row(text, world(by_key={(kind, ("f", SCOPE)): [folder]})).resource == folder.name
    assert row(text, world()).status is MISSING
    assert row(text, world(by_key={(kind, ("f", SCOPE)): [folder, folder]})).status is UNRESOLVED


_EXAMPLES = {
    "project": "p",
    "parent": SCOPE,
    "folder": "5",
    "organization": "1",
    "cluster": "projects/p/locations/here/clusters/c",
    "key_ring": "projects/p/locations/here/keyRings/r",
}


@pytest.mark.parametrize("resource_type", sorted(MAPPINGS))
def test_every_mapping_finds_its_resource(resource_type: str) -> None:
    mapping = MAPPINGS[resource_type]
    arguments = {
        names[0]: _EXAMPLES.get(part, "here" if part == "location" else f"the-{part}")
        for part, names in mapping.parts.items()
        if names
    }
    text = "".join(f'  {name} = "{value}"\n' for name, value in arguments.items())
    (instance,) = resolve(blocks({"main.tf": f'resource "{resource_type}" "it" {{\n{text}}}\n'}))
    identity = identify(instance)
    assert identity is not None
    assert (identity.missing, identity.container is not None) == (None, True)
    found = judge(instance, world())
    assert found.status is MISSING
    for name in identity.names:
        made = judge(instance, world(Asset(name, mapping.asset_type, "p", (), {})))
        assert (made.status, made.resource) == (MATCHED, name)
    if identity.key is not None:
        known = Asset("//it", mapping.asset_type, "p", (), {})
        made = judge(instance, world(by_key={(mapping.asset_type, identity.key): [known]}))
        assert made.resource == "//it"
    for template in mapping.computed.values():
        assert isinstance(fill(template, identity.parts), str)


# --- nothing certain rests on what is not known

_DATA = st.fixed_dictionaries({}, optional={"description": st.sampled_from(["p", "q"])})


@st.composite
def _worlds(draw: st.DrawFn) -> Mapping[str, Asset]:
    names = draw(st.lists(st.sampled_from(["p", "q", "net", "p-p", "p-net", "net-p", "p+p"]), max_size=6))
    return {
        name: Asset(name, NETWORK, "p", (), draw(_DATA))
        for project in ("p", "q", "net")
        for leaf in names
        for name in [f"{HOST}/{project}/global/networks/{leaf}"]
    }


@given(configurations, _worlds())
def test_a_certain_status_holds_whatever_comes_from_outside(files: dict[str, str], assets: Mapping[str, Asset]) -> None:
    above = {f"projects/{project}": frozenset({SCOPE}) for project in ("p", "q", "net", "p-p")}
    known = World(by_name=dict(assets), above=above, parts=[Part(SCOPE, NETWORK, True, "complete", None)])
    unsure = [judge(item, known) for item in resolve(with_outside(files, "var.u"))]
    for outside in ('"p"', '"q"'):
        sure = {item.address: judge(item, known) for item in resolve(with_outside(files, outside))}
        for found in unsure:
            if found.status is UNRESOLVED:
                continue
            other = sure[found.address]
            assert other.resource == found.resource
            assert (found.status is MISSING) == (other.status is MISSING)
            assert all(difference in other.differences for difference in found.differences)


# --- who made it

_COMPUTE = "compute.googleapis.com"


@pytest.mark.parametrize(
    ("kind", "leaf", "data", "maker"),
    [
        ("Instance", "n", {"labels": {"goog-gke-node": ""}}, "GKE"),
        ("Disk", "d", {"labels": {"goog-gke-volume": ""}}, "GKE"),
        ("Disk", "d", {"description": '{"kubernetes.io/created-for/pvc/name":"x"}'}, "Kubernetes"),
        (
            "Instance",
            "n",
            {"metadata": {"items": [{"key": "created-by", "value": "projects/1/zones/z/instanceGroupManagers/m"}]}},
            "an instance group",
        ),
        ("Instance", "n", {"metadata": {"items": [{"key": "created-by", "value": "me"}]}}, None),
        ("Network", "default", {"autoCreateSubnetworks": True}, "Google Cloud"),
        ("Network", "default", {"autoCreateSubnetworks": False}, None),
        ("Firewall", "default-allow-ssh", {"network": "projects/p/global/networks/default"}, "Google Cloud"),
        ("Firewall", "default-allow-ssh", {"network": "projects/p/global/networks/vpc"}, None),
        ("Instance", "n", None, None),
    ],
)
def test_created_by_needs_a_proof(kind: str, leaf: str, data: dict[str, Any] | None, maker: str | None) -> None:
    assert created_by(f"{_COMPUTE}/{kind}", f"{HOST}/p/x/{leaf}", data) == maker


def test_a_note_says_why_a_resource_may_be_managed_all_the_same() -> None:
    assert note_of(0, 0) is None
    assert note_of(1, 0) == "1 block of this type is unresolved: it may be one of them"
    assert note_of(2, 3) == (
        "2 blocks of this type are unresolved: it may be one of them; "
        "3 modules are not in the repository: it may be made there"
    )
