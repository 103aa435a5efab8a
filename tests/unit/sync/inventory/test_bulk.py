"""Which exports are due, what stands in manifests, how lines are cut, what errors of exports mean; and the tables'
requests, against a client that records them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from google.api_core import exceptions as google
from google.cloud.asset_v1 import ExportAssetsResponse
from google.longrunning import operations_pb2
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lz_sync_dagster.config import BulkConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import exported
from lz_sync_dagster.sync.inventory.bulk import (
    Exporter,
    ExportPlan,
    Manifest,
    Output,
    Running,
    exportable,
    plan_exports,
)
from lz_sync_dagster.sync.inventory.errors import classify_export
from lz_sync_dagster.sync.inventory.export_files import _lines
from lz_sync_dagster.sync.inventory.export_tables import TableDestination, table_name
from lz_sync_dagster.sync.state.observation import ContentType, InvalidAsset
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.store.quota import Quota
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock

DISK, BUCKET = "compute.googleapis.com/Disk", "storage.googleapis.com/Bucket"
ON = BulkConfig(enabled=True, destination="gs://bucket/cai", from_assets=100, every_minutes=60)
ORG, PROJECT = "organizations/1", "projects/2"
PARTS = [(ORG, DISK, "RESOURCE"), (ORG, BUCKET, "RESOURCE"), (ORG, BUCKET, "IAM_POLICY"), (PROJECT, DISK, "RESOURCE")]
PLAN = ExportPlan(ORG, "RESOURCE", (DISK, BUCKET))


# --- what is due


def known(assets: dict[Part, int], quarantined: Part | None = None) -> list[PartState]:
    return [
        PartState(part, assets=assets.get(part), quarantined_until=NOW if part == quarantined else None)
        for part in PARTS
    ]


def test_large_scopes_are_exported_content_by_content() -> None:
    parts = exportable(ON, known({PARTS[0]: 60, PARTS[1]: 40, PARTS[3]: 99}))
    assert parts == PARTS[:3]
    assert plan_exports(ON, parts, {}, now=NOW) == [PLAN, ExportPlan(ORG, "IAM_POLICY", (BUCKET,))]
    assert exportable(ON, known({PARTS[0]: 99})) == []
    assert exportable(ON.model_copy(update={"enabled": False}), known({PARTS[0]: 100})) == []


def test_a_type_that_is_not_known_is_left_out_until_listing_knows_it() -> None:
    assert exportable(ON, known({PARTS[0]: 60, PARTS[1]: 40}, quarantined=PARTS[1])) == [PARTS[0], PARTS[2]]


def test_an_export_is_due_when_the_last_one_is_old_enough() -> None:
    for minutes, due in ((59, False), (60, True)):
        published = {(ORG, "RESOURCE"): to_ns(NOW - timedelta(minutes=minutes)), (ORG, "IAM_POLICY"): to_ns(NOW)}
        assert bool(plan_exports(ON, PARTS[:3], published, now=NOW)) is due


@pytest.mark.parametrize(
    "wrong",
    [
        {"enabled": True},
        {"destination": "s3://bucket"},
        {"destination": "gs://B"},
        {"destination": "gs://bucket/a b"},
        {"destination": "bigquery://dataset"},
        {"every_minutes": 5},
        {"from_assets": -1},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BulkConfig.model_validate(wrong)


@pytest.mark.parametrize("place", ["gs://bucket", "gs://my-bucket.example/a/b", "bigquery://my-project.data_set"])
def test_a_destination_is_a_prefix_or_a_dataset(place: str) -> None:
    assert BulkConfig(enabled=True, destination=place).destination == place


# --- what is written down


def test_manifests_and_marks_say_what_they_were_made_of() -> None:
    running = Running(PLAN, 1_772_366_400_000_000_001, NOW, "operations/1")
    assert Running.from_json(running.to_json(), where="x") == running
    assert running.stamp == "20260301T120000000000001Z"
    manifest = Manifest(
        ORG, "RESOURCE", 1, "operations/1", NOW, {DISK: (Output("a", 2, 9, 7, "c"), Output("b", 3)), BUCKET: ()}
    )
    assert Manifest.from_json(manifest.to_json(), where="x") == manifest
    assert (manifest.rows(DISK), manifest.rows(BUCKET)) == (5, 0)
    for text in (b"", b"{}", b"[]", manifest.to_json().replace(b'"form": 1', b'"form": 2')):
        with pytest.raises(SyncError, match="cannot be understood"):
            Manifest.from_json(text, where="gs://bucket/x")


@given(lines=st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line and line.strip())), data=st.data())
def test_lines_are_the_same_however_they_come(lines: list[bytes], data: st.DataObject) -> None:
    content = b"".join(line + b"\n" for line in lines)
    if lines and data.draw(st.booleans()):
        content = content[:-1]

    def pieces() -> Iterator[bytes]:
        rest = content
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            yield rest[:size]
            rest = rest[size:]

    assert [line for found in _lines(pieces(), "x") for line in found] == lines


# --- what an asset of an export is


def observed(asset: dict[str, Any], content_type: ContentType = ContentType.RESOURCE) -> Any:
    return exported.observation(exported.parse(orjson.dumps(asset)), content_type, ORG, 5, b"f")


@given(number=st.one_of(st.integers(-(2**80), 2**80), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_what_a_struct_makes_of_them(number: float) -> None:
    from google.protobuf.struct_pb2 import Struct

    from lz_sync_dagster.sync.inventory.structs import struct_dict

    if abs(number) >= 2**63:
        number = float(number)
    struct = Struct()
    struct.update({"n": float(number)})
    told = observed({"name": "//x/a", "asset_type": DISK, "resource": {"data": {"n": number, "b": True}}})
    assert orjson.dumps(told.data["n"]) == orjson.dumps(struct_dict(struct)["n"])
    assert told.data["b"] is True


def test_fields_may_be_spelled_either_way() -> None:
    snake = {
        "name": "//x/a",
        "asset_type": BUCKET,
        "update_time": "2026-01-01T00:00:00Z",
        "iam_policy": {"etag": "YQ=="},
    }
    camel = {"name": "//x/a", "assetType": BUCKET, "updateTime": "2026-01-01T00:00:00Z", "iamPolicy": {"etag": "YQ=="}}
    assert observed(snake, ContentType.IAM_POLICY) == observed(camel, ContentType.IAM_POLICY)


@pytest.mark.parametrize(
    "odd",
    [
        {"name": 5, "asset_type": DISK},
        {"name": "//x/a", "asset_type": DISK, "update_time": "yesterday"},
        {"name": "//x/a", "asset_type": DISK, "resource": []},
        {"name": "//x/a", "asset_type": DISK, "resource": {"data": [1]}},
        {"asset_type": DISK},
    ],
)
def test_an_odd_line_is_one_unusable_asset(odd: dict[str, Any]) -> None:
    from lz_sync_dagster.sync.compliance.controls import load_controls
    from lz_sync_dagster.sync.inventory.decoder import Decoder

    good = {"name": "//x/b", "asset_type": DISK, "resource": {"data": {}}}
    decoded = Decoder(load_controls().evaluate).decode(
        (ORG, DISK, "RESOURCE"), 5, [(b"1", orjson.dumps(odd)), (b"2", orjson.dumps(good))]
    )
    assert [item.name for item in decoded.observations] == ["//x/b"]
    assert len(decoded.unusable) == 1


def test_a_line_that_is_no_relation_fails_its_part() -> None:
    with pytest.raises(InvalidAsset, match="is no relation"):
        exported.parse_relation(orjson.dumps({"name": "//x/a", "asset_type": DISK, "related_asset": "//x/b"}))


# --- errors


@pytest.mark.parametrize(
    ("code", "message", "reason", "remedy"),
    [
        (7, "service-12@gcp-sa-cloudasset.iam.gserviceaccount.com does not have storage.objects.create access to the "
            "Google Cloud Storage bucket.", Reason.PERMISSION_DENIED, "service-12@gcp-sa-cloudasset"),
        (7, "Access Denied: Dataset p:d: Permission bigquery.tables.create denied", Reason.PERMISSION_DENIED,
            "roles/bigquery.dataEditor"),
        (7, "The caller does not have permission cloudasset.assets.exportResource", Reason.PERMISSION_DENIED,
            "roles/cloudasset.viewer"),
        (3, "Table lz_resource already exists", Reason.CONFLICT, "nothing is overwritten"),
        (6, "taken", Reason.CONFLICT, "nothing is overwritten"),
        (9, "A previous request to the same destination is still running", Reason.CONFLICT, "15 minutes"),
        (5, "Dataset p:d was not found", Reason.NOT_FOUND, "make the bucket or dataset"),
        (3, "The gs:// bucket is not valid", Reason.INVALID, "make the bucket or dataset"),
        (3, "The asset type 'bigquery.googleapis.com/Table' is not supported.", Reason.UNKNOWN_TYPE, "endpoints"),
        (3, "asset_types: unknown", Reason.UNKNOWN_TYPE, "endpoints"),
        (13, "Internal error", Reason.UNAVAILABLE, "tried again"),
        (8, "slow down", Reason.QUOTA, "export_assets"),
    ],
)  # fmt: skip
def test_a_failed_operation_says_what_to_do(code: int, message: str, reason: Reason, remedy: str) -> None:
    error = classify_export(status_pb2.Status(code=code, message=message), scope=ORG, content_type="RESOURCE")
    assert error.reason is reason
    assert remedy in error.remedy


# --- tables


class Warehouse:
    """A BigQuery client that keeps the rows of the manifest's table, and tells how many rows the others have."""

    def __init__(self, tables: dict[str, int]) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.tables = tables
        self.asked: list[str] = []

    def load_table_from_file(self, file: Any, table: str, *, size: int, job_id: str, job_config: Any) -> Any:
        assert table == "my-project.lake.lz_export_manifest"
        assert job_config.write_disposition == "WRITE_APPEND"
        if job_id in self.rows:
            raise google.Conflict("there is such a job")  # type: ignore[no-untyped-call]
        content = file.read()
        assert len(content) == size
        self.rows[job_id] = orjson.loads(content)
        return SimpleNamespace(result=lambda: None)

    def query(self, query: str, *, job_config: Any, retry: Any, timeout: float) -> Any:
        self.asked.append(query)
        said = {parameter.name: parameter.value for parameter in job_config.query_parameters}
        if "count(*)" in query:
            name = query.split("`")[1].rpartition(".")[2]
            if name not in self.tables:
                raise google.NotFound("no such table")  # type: ignore[no-untyped-call]
            return SimpleNamespace(result=lambda: [{"total": self.tables[name]}])
        if not self.rows:
            raise google.NotFound("no such table")  # type: ignore[no-untyped-call]
        found = [
            row
            for row in self.rows.values()
            if (row["scope"], row["content_type"]) == (said["scope"], said["content_type"])
            and said["state"] in (None, row["state"])
        ]
        found.sort(key=lambda row: (row["read_time"], row["step"]), reverse=True)
        return SimpleNamespace(result=lambda: found[:1])


class Inventory:
    """Answers an export with an operation, and looks at it with what is set."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.error: tuple[int, str] | None = None

    def export_assets(self, *, request: Any, retry: Any, timeout: float) -> Any:
        self.requests.append(request)
        return SimpleNamespace(operation=operations_pb2.Operation(name="operations/7"))

    def get_operation(self, *, request: Any, retry: Any, timeout: float) -> Any:
        operation = operations_pb2.Operation(name=request["name"], done=True)
        if self.error is not None:
            operation.error.code, operation.error.message = self.error
            return operation
        response = ExportAssetsResponse.pb()()
        response.read_time.CopyFrom(self.requests[-1]._pb.read_time)
        operation.response.Pack(response)
        return operation


class Calls:
    def __init__(self) -> None:
        self.made = 0

    def call(self, quota: Quota) -> None:
        assert quota is Quota.EXPORT_ASSETS
        self.made += 1

    def throttled(self, quota: Quota, retry_after: float | None) -> None:
        raise AssertionError((quota, retry_after))


def exporter(inventory: Inventory, destination: TableDestination, clock: SteppedClock, calls: Calls) -> Exporter:
    return Exporter(
        inventory,
        destination,
        calls=calls,
        clock=clock,
        wait=lambda _: False,
        deadline=timedelta(minutes=10),
        timeout_seconds=5,
    )


def test_tables_are_added_to_and_the_manifest_comes_last(clock: SteppedClock) -> None:
    warehouse, inventory, calls = Warehouse({table_name("RESOURCE", DISK): 12}), Inventory(), Calls()
    destination = TableDestination(warehouse, "my-project.lake", timeout_seconds=5)
    manifest = exporter(inventory, destination, clock, calls).export(PLAN)
    (request,) = inventory.requests
    place = request.output_config.bigquery_destination
    assert (place.dataset, place.table) == ("projects/my-project/datasets/lake", "lz_resource")
    assert (place.separate_tables_per_asset_type, place.force) == (True, False)
    assert place.partition_spec.partition_key.name == "READ_TIME"
    assert manifest.types == {DISK: (Output("lz_resource_compute_googleapis_com_Disk", 12),), BUCKET: ()}
    assert [row["state"] for row in warehouse.rows.values()] == ["running", "running", "published"]
    assert destination.latest(ORG, "RESOURCE") == manifest
    assert destination.running(ORG, "RESOURCE") is None


def test_tables_of_a_failed_export_have_no_manifest(clock: SteppedClock) -> None:
    warehouse, inventory, calls = Warehouse({}), Inventory(), Calls()
    destination = TableDestination(warehouse, "my-project.lake", timeout_seconds=5)
    inventory.error = (13, "Internal error")
    with pytest.raises(SyncError, match=r"what has readTime 2026-03-01T12:00:00Z in my-project.lake.lz_resource_\*"):
        exporter(inventory, destination, clock, calls).export(PLAN)
    assert destination.latest(ORG, "RESOURCE") is None
    assert destination.running(ORG, "RESOURCE") is None


def test_another_process_goes_on_with_tables_that_are_being_written(clock: SteppedClock) -> None:
    warehouse, inventory, calls = Warehouse({}), Inventory(), Calls()
    destination = TableDestination(warehouse, "my-project.lake", timeout_seconds=5)
    begun = destination.begin(Running(PLAN, to_ns(NOW), NOW))
    with pytest.raises(SyncError, match="another export"):
        destination.begin(begun)
    destination.named(Running(PLAN, to_ns(NOW), NOW, "operations/7"))
    inventory.requests.append(SimpleNamespace(_pb=SimpleNamespace(read_time=_timestamp(to_ns(NOW)))))
    clock.advance(timedelta(minutes=1))
    manifest = exporter(inventory, destination, clock, calls).export(PLAN)
    assert (manifest.read_ns, manifest.operation, calls.made) == (to_ns(NOW), "operations/7", 0)


def _timestamp(ns: int) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    moment = Timestamp()
    moment.FromNanoseconds(ns)
    return moment
