"""Each control: an asset that passes, one that fails, one that the data does not decide."""

from __future__ import annotations

from typing import Any

import pytest

from lz_sync_dagster.sync.compliance.controls import Controls, covers, load_controls, parse_controls
from lz_sync_dagster.sync.compliance.verdict import Outcome
from lz_sync_dagster.sync.errors import SyncError

KEY, PROJECT = "iam.googleapis.com/ServiceAccountKey", "cloudresourcemanager.googleapis.com/Project"
CRYPTO_KEY, NETWORK = "cloudkms.googleapis.com/CryptoKey", "compute.googleapis.com/Network"
FIREWALL, SUBNETWORK = "compute.googleapis.com/Firewall", "compute.googleapis.com/Subnetwork"
INSTANCE, COMPUTE_PROJECT = "compute.googleapis.com/Instance", "compute.googleapis.com/Project"
BUCKET, SQL, DATASET = (
    "storage.googleapis.com/Bucket",
    "sqladmin.googleapis.com/Instance",
    "bigquery.googleapis.com/Dataset",
)

Data = dict[str, Any]


def bound(role: str, *members: str) -> Data:
    return {"bindings": [{"role": role, "members": list(members)}]}


def metadata(**items: str) -> Data:
    return {"items": [{"key": key.replace("_", "-"), "value": value} for key, value in items.items()]}


def ingress(ports: list[str] | None, *sources: str, protocol: str = "tcp") -> Data:
    allowed: Data = {"IPProtocol": protocol} | ({} if ports is None else {"ports": ports})
    return {"direction": "INGRESS", "disabled": False, "allowed": [allowed], "sourceRanges": list(sources)}


def sql(**settings: Any) -> Data:
    return {"instanceType": "CLOUD_SQL_INSTANCE", "backendType": "SECOND_GEN", "settings": settings}


DEFAULT_ACCOUNT = "123-compute@developer.gserviceaccount.com"
OWN_ACCOUNT = "serviceAccount:app@p.iam.gserviceaccount.com"
EVERYTHING, NARROW = "https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/logging.write"
SHIELDED = {"enableVtpm": True, "enableIntegrityMonitoring": True}

# (control, asset type, content type, passes, fails, undecided)
CASES: list[tuple[str, str, str, Data, Data, Data]] = [
    ("1.4", KEY, "RESOURCE", {"keyType": "SYSTEM_MANAGED"}, {"keyType": "USER_MANAGED"}, {}),
    ("1.5", PROJECT, "IAM_POLICY", bound("roles/run.invoker", OWN_ACCOUNT), bound("roles/editor", OWN_ACCOUNT), {}),
    (
        "1.6",
        PROJECT,
        "IAM_POLICY",
        bound("roles/iam.serviceAccountUser", OWN_ACCOUNT),
        bound("roles/iam.serviceAccountTokenCreator", "user:a@example.com"),
        {"bindings": [{"role": "roles/iam.serviceAccountUser"}]},
    ),
    ("1.9", CRYPTO_KEY, "IAM_POLICY", bound("roles/x", "user:a@example.com"), bound("roles/x", "allUsers"), {}),
    (
        "1.10",
        CRYPTO_KEY,
        "RESOURCE",
        {"purpose": "ENCRYPT_DECRYPT", "rotationPeriod": "7776000s"},
        {"purpose": "ENCRYPT_DECRYPT", "rotationPeriod": "7776001s"},
        {"rotationPeriod": "7776000s"},
    ),
    ("3.1", NETWORK, "RESOURCE", {"name": "vpc"}, {"name": "default"}, {}),
    ("3.2", NETWORK, "RESOURCE", {"autoCreateSubnetworks": False}, {"IPv4Range": "10.240.0.0/16"}, {}),
    (
        "3.6",
        FIREWALL,
        "RESOURCE",
        ingress(["22"], "10.0.0.0/8"),
        ingress(["20-25"], "10.0.0.0/8", "0.0.0.0/0"),
        {"direction": "INGRESS", "sourceRanges": ["0.0.0.0/0"]},
    ),
    (
        "3.7",
        FIREWALL,
        "RESOURCE",
        ingress(["80", "443"], "0.0.0.0/0"),
        ingress(None, "::/0", protocol="all"),
        ingress(["rdp"], "0.0.0.0/0"),
    ),
    (
        "3.8",
        SUBNETWORK,
        "RESOURCE",
        {"purpose": "PRIVATE", "logConfig": {"enable": True}},
        {"purpose": "PRIVATE", "logConfig": {"enable": False}},
        {"purpose": "PRIVATE"},
    ),
    (
        "4.1",
        INSTANCE,
        "RESOURCE",
        {"serviceAccounts": [{"email": "app@p.iam.gserviceaccount.com"}]},
        {"serviceAccounts": [{"email": DEFAULT_ACCOUNT}]},
        {},
    ),
    (
        "4.2",
        INSTANCE,
        "RESOURCE",
        {"serviceAccounts": [{"email": DEFAULT_ACCOUNT, "scopes": [NARROW]}]},
        {"serviceAccounts": [{"email": DEFAULT_ACCOUNT, "scopes": [NARROW, EVERYTHING]}]},
        {"serviceAccounts": [{"email": DEFAULT_ACCOUNT}]},
    ),
    (
        "4.3",
        INSTANCE,
        "RESOURCE",
        {"metadata": metadata(block_project_ssh_keys="true")},
        {"metadata": {"fingerprint": "x"}},
        {"metadata": metadata(block_project_ssh_keys="[redacted]")},
    ),
    (
        "4.4",
        COMPUTE_PROJECT,
        "RESOURCE",
        {"commonInstanceMetadata": metadata(enable_oslogin="TRUE")},
        {"commonInstanceMetadata": metadata(ssh_keys="[redacted]")},
        {"commonInstanceMetadata": metadata(enable_oslogin="[redacted]")},
    ),
    (
        "4.4",
        INSTANCE,
        "RESOURCE",
        {"metadata": metadata(startup_script="[redacted]")},
        {"metadata": metadata(enable_oslogin="FALSE")},
        {},
    ),
    (
        "4.5",
        INSTANCE,
        "RESOURCE",
        {"metadata": metadata(serial_port_enable="false")},
        {"metadata": metadata(serial_port_enable="1")},
        {"metadata": metadata(serial_port_enable="[redacted]")},
    ),
    ("4.6", INSTANCE, "RESOURCE", {"canIpForward": False}, {"canIpForward": True}, {}),
    (
        "4.8",
        INSTANCE,
        "RESOURCE",
        {"shieldedInstanceConfig": SHIELDED},
        {"shieldedInstanceConfig": SHIELDED | {"enableVtpm": False}},
        {"shieldedInstanceConfig": {"enableVtpm": True}},
    ),
    (
        "4.9",
        INSTANCE,
        "RESOURCE",
        {"networkInterfaces": [{"name": "nic0"}]},
        {"networkInterfaces": [{"name": "nic0"}, {"name": "nic1", "accessConfigs": [{"natIP": "34.1.1.1"}]}]},
        {},
    ),
    (
        "5.1",
        BUCKET,
        "IAM_POLICY",
        bound("roles/storage.objectViewer", "group:a@example.com"),
        bound("roles/storage.objectViewer", "allAuthenticatedUsers"),
        {"etag": "x"},
    ),
    (
        "5.2",
        BUCKET,
        "RESOURCE",
        {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}},
        {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}}},
        {"iamConfiguration": {}},
    ),
    (
        "6.4",
        SQL,
        "RESOURCE",
        sql(ipConfiguration={"requireSsl": False, "sslMode": "ENCRYPTED_ONLY"}),
        sql(ipConfiguration={"requireSsl": False}),
        sql(ipConfiguration={}),
    ),
    (
        "6.5",
        SQL,
        "RESOURCE",
        sql(ipConfiguration={"authorizedNetworks": [{"value": "203.0.113.0/24"}]}),
        sql(ipConfiguration={"authorizedNetworks": [{"value": "0.0.0.0/0"}]}),
        sql(),
    ),
    (
        "6.6",
        SQL,
        "RESOURCE",
        sql() | {"ipAddresses": [{"type": "PRIVATE"}]},
        sql() | {"ipAddresses": [{"type": "PRIVATE"}, {"type": "PRIMARY"}]},
        sql(),
    ),
    (
        "6.7",
        SQL,
        "RESOURCE",
        sql(backupConfiguration={"enabled": True}),
        sql(backupConfiguration={"enabled": False}),
        sql(backupConfiguration={}),
    ),
    (
        "7.1",
        DATASET,
        "RESOURCE",
        {"access": [{"specialGroup": "projectOwners"}]},
        {"access": [{"specialGroup": "projectOwners"}, {"iamMember": "allUsers"}]},
        {},
    ),
]

NOT_ABOUT: list[tuple[str, str, Data]] = [
    ("1.10", CRYPTO_KEY, {"purpose": "ASYMMETRIC_SIGN"}),
    ("3.6", FIREWALL, {"direction": "EGRESS", "destinationRanges": ["0.0.0.0/0"]}),
    ("3.6", FIREWALL, ingress(["22"], "0.0.0.0/0") | {"disabled": True}),
    ("3.7", FIREWALL, {"direction": "INGRESS", "denied": [{"IPProtocol": "all"}]}),
    ("3.8", SUBNETWORK, {"purpose": "REGIONAL_MANAGED_PROXY"}),
    ("4.6", INSTANCE, {"labels": {"goog-gke-node": ""}, "canIpForward": True}),
    ("6.6", SQL, {"instanceType": "READ_REPLICA_INSTANCE", "backendType": "SECOND_GEN"}),
    ("6.7", SQL, {"instanceType": "READ_REPLICA_INSTANCE"}),
]

NAME = "//example.googleapis.com/projects/p/things/t"


@pytest.fixture(scope="module")
def controls() -> Controls:
    return load_controls()


def outcome(controls: Controls, control: str, asset_type: str, content_type: str, data: Data) -> Outcome | None:
    verdicts = {verdict.control: verdict for verdict in controls.evaluate(asset_type, content_type, NAME, data)}
    return verdicts[control].outcome if control in verdicts else None


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{case[1].partition('/')[2]}" for case in CASES])
def test_a_control_passes_fails_or_is_undecided(
    controls: Controls, case: tuple[str, str, str, Data, Data, Data]
) -> None:
    control, asset_type, content_type, *examples = case
    found = [outcome(controls, control, asset_type, content_type, data) for data in examples]
    assert found == [Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN]


@pytest.mark.parametrize(("control", "asset_type", "data"), NOT_ABOUT)
def test_exceptions_of_a_control_get_no_verdict(controls: Controls, control: str, asset_type: str, data: Data) -> None:
    assert outcome(controls, control, asset_type, "RESOURCE", data) is None


@pytest.mark.parametrize("member", ["user:a@b.c", "group:a@b.c", "domain:b.c", "allUsers", "allAuthenticatedUsers"])
def test_whoever_stands_for_people_may_not_act_as_every_service_account(controls: Controls, member: str) -> None:
    data = bound("roles/iam.serviceAccountUser", OWN_ACCOUNT, member)
    assert outcome(controls, "1.6", PROJECT, "IAM_POLICY", data) is Outcome.FAIL


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("service-123456@gcp-sa-pubsub.iam.gserviceaccount.com", Outcome.PASS),
        ("service-123456@container-engine-robot.iam.gserviceaccount.com", Outcome.PASS),
        ("123456@cloudservices.gserviceaccount.com", Outcome.PASS),
        ("service-deployer@p.iam.gserviceaccount.com", Outcome.FAIL),
        ("service-1x@p.iam.gserviceaccount.com", Outcome.FAIL),
        ("deployer@gcp-sa-mine.iam.gserviceaccount.com", Outcome.FAIL),
    ],
)
def test_only_service_agents_of_google_may_administer(controls: Controls, account: str, expected: Outcome) -> None:
    data = bound("roles/owner", f"serviceAccount:{account}")
    assert outcome(controls, "1.5", PROJECT, "IAM_POLICY", data) is expected


@pytest.mark.parametrize("period", ["0s", "-1s", "-7776000s"])
def test_a_period_that_is_not_positive_is_no_rotation(controls: Controls, period: str) -> None:
    data = {"purpose": "ENCRYPT_DECRYPT", "rotationPeriod": period}
    assert outcome(controls, "1.10", CRYPTO_KEY, "RESOURCE", data) is Outcome.FAIL


@pytest.mark.parametrize("protocol", ["tcp", "TCP", "Tcp", "6", "all", "ALL"])
@pytest.mark.parametrize(("control", "port"), [("3.6", "22"), ("3.7", "3389")])
def test_protocols_are_known_in_any_case(controls: Controls, control: str, port: str, protocol: str) -> None:
    data = ingress([port], "0.0.0.0/0", protocol=protocol)
    assert outcome(controls, control, FIREWALL, "RESOURCE", data) is Outcome.FAIL


@pytest.mark.parametrize("group", ["allUsers", "allAuthenticatedUsers"])
def test_a_dataset_is_open_to_everybody_by_either_name(controls: Controls, group: str) -> None:
    assert outcome(controls, "7.1", DATASET, "RESOURCE", {"access": [{"specialGroup": group}]}) is Outcome.FAIL


ON, OFF = ["true", "tRUE", "yes", "Y", "y", "1"], ["false", "False", "no", "N", "n", "0"]


@pytest.mark.parametrize(
    ("control", "asset_type", "key", "on", "off"),
    [
        ("4.3", INSTANCE, "block_project_ssh_keys", Outcome.PASS, Outcome.FAIL),
        ("4.4", COMPUTE_PROJECT, "enable_oslogin", Outcome.PASS, Outcome.FAIL),
        ("4.4", INSTANCE, "enable_oslogin", Outcome.PASS, Outcome.FAIL),
        ("4.5", INSTANCE, "serial_port_enable", Outcome.FAIL, Outcome.PASS),
    ],
)
def test_metadata_switches_are_read_as_compute_engine_reads_them(
    controls: Controls, control: str, asset_type: str, key: str, on: Outcome, off: Outcome
) -> None:
    for words, expected in ((ON, on), (OFF, off), (["", "perhaps", "2"], Outcome.UNKNOWN)):
        for word in words:
            items = metadata(**{key: word})
            data = {"metadata": items, "commonInstanceMetadata": items}
            assert outcome(controls, control, asset_type, "RESOURCE", data) is expected, word


def test_an_instance_with_an_address_under_either_name_has_one(controls: Controls) -> None:
    data = {"networkInterfaces": [{"accessConfig": [{"natIP": "34.1.1.1"}]}]}
    assert outcome(controls, "4.9", INSTANCE, "RESOURCE", data) is Outcome.FAIL


def test_each_control_has_its_examples(controls: Controls) -> None:
    shipped = {(control.id, asset_type) for control in controls.all for asset_type in control.asset_types}
    assert shipped == {(case[0], case[1]) for case in CASES}


def test_no_control_passes_on_an_empty_asset(controls: Controls) -> None:
    for asset_type, content_type in controls.kinds:
        verdicts = controls.evaluate(asset_type, content_type, NAME, {})
        assert verdicts
        assert {verdict.outcome for verdict in verdicts} == {Outcome.UNKNOWN}


def test_a_redacted_value_decides_nothing(controls: Controls) -> None:
    assert outcome(controls, "1.4", KEY, "RESOURCE", {"keyType": "[redacted]"}) is Outcome.UNKNOWN


def test_data_of_another_shape_decides_nothing(controls: Controls) -> None:
    assert outcome(controls, "5.1", BUCKET, "IAM_POLICY", {"bindings": "none"}) is Outcome.UNKNOWN


def test_a_type_without_controls_gets_no_verdict(controls: Controls) -> None:
    assert controls.evaluate("run.googleapis.com/Service", "RESOURCE", NAME, {}) == []


def test_a_failure_says_what_is_wrong_with_what(controls: Controls) -> None:
    (verdict,) = controls.evaluate(KEY, "RESOURCE", NAME, {"keyType": "USER_MANAGED"})
    assert verdict.message == f"{NAME} is a USER_MANAGED key"
    assert (verdict.control, verdict.framework, verdict.source, verdict.severity) == (
        "1.4",
        "cis-v1.2",
        "cis",
        "medium",
    )


def test_what_is_missing_is_named(controls: Controls) -> None:
    (verdict,) = controls.evaluate(KEY, "RESOURCE", NAME, {})
    assert verdict.message == "the inventory does not carry keyType"


@pytest.mark.parametrize(
    ("ports", "port", "expected"),
    [("22", 22, True), ("20-25", 22, True), ("2222", 22, False), ("23-25", 22, False), ("22-22", 22.0, True)],
)
def test_port_ranges(ports: str, port: float, expected: bool) -> None:
    assert covers(ports, port) is expected


GOOD = """
framework: cis-v1.2
source: cis
controls:
  - id: "1.1"
    title: Something
    severity: low
    asset_types: [a/B]
    needs: [x]
    passes: data.x == 1
    message: "{name} has {data[x]}"
"""


def test_the_fingerprint_follows_what_the_controls_say() -> None:
    other = GOOD.replace('"1.1"', '"1.2"')
    both = parse_controls({"x.yaml": GOOD, "y.yaml": other}).fingerprint
    assert parse_controls({"a.yaml": other, "b.yaml": "# a comment" + GOOD}).fingerprint == both
    for old, new in (("== 1", "== 2"), ("low", "high"), ("needs: [x]", "needs: [x, y]")):
        assert parse_controls({"x.yaml": GOOD.replace(old, new), "y.yaml": other}).fingerprint != both


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("severity: low", "severity: awful", "controls.0.severity"),
        ("    needs: [x]\n", "", "controls.0.needs"),
        ("source: cis", "source: cis\nextra: 1", "extra"),
        ("data.x == 1", "data.x ==", "passes"),
        ("{data[x]}", "{nothing}", "message"),
        ("framework: cis-v1.2", "framework: [", "YAML"),
        ('id: "1.1"', "id: 1.1", "controls.0.id"),
    ],
)
def test_a_bad_policy_file_gives_one_line(old: str, new: str, said: str) -> None:
    assert len(parse_controls({"x.yaml": GOOD})) == 1
    with pytest.raises(SyncError) as caught:
        parse_controls({"x.yaml": GOOD.replace(old, new)})
    assert str(caught.value).startswith("policies/x.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_control_twice_for_one_type_is_refused() -> None:
    with pytest.raises(SyncError, match=r"1\.1 is there twice"):
        parse_controls({"x.yaml": GOOD, "y.yaml": GOOD})
