"""The demo's Cloud Asset server, spoken to by Google's own client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.asset_v1 import AssetServiceClient, ListAssetsRequest
from google.cloud.asset_v1.services.asset_service.transports import AssetServiceGrpcTransport
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demo.asset_server import AssetServer, start_asset_server
from demo.faults import FAULTS, Faults
from demo.organization import CONTENT_TYPES, ORGANIZATION, Organization
from demo.relations import SOURCES, relations_of
from lz_sync_dagster.sync.inventory import wire
from lz_sync_dagster.sync.timing import utcnow

BUCKET, FIREWALL, SQL = (
    "storage.googleapis.com/Bucket",
    "compute.googleapis.com/Firewall",
    "sqladmin.googleapis.com/Instance",
)
FIRESTORE = "firestore.googleapis.com/Database"


class Demo:
    """A small organization, its server and a client of it."""

    def __init__(self) -> None:
        self.organization = Organization(400)
        self.faults = Faults(page_delay=0.3, retry_after=1.5)
        self.welcomed: list[str] = []
        self.server: AssetServer = start_asset_server(
            self.organization, self.faults, on_feed=lambda feed: self.welcomed.append(feed.name)
        )
        channel = grpc.insecure_channel(self.server.endpoint.removeprefix("http://"))
        self.client = AssetServiceClient(transport=AssetServiceGrpcTransport(channel=channel))

    def stop(self) -> None:
        self.client.transport.close()
        self.server.stop()

    def pages(self, **request: Any) -> Iterator[Any]:
        request = {"parent": ORGANIZATION, "content_type": "RESOURCE", "page_size": 1000, **request}
        for page in self.client.list_assets(request=request, retry=None, timeout=10).pages:
            yield page._pb

    def listed(self, **request: Any) -> list[dict[str, Any]]:
        return [MessageToDict(asset) for page in self.pages(**request) for asset in page.assets]

    def search(self, **request: Any) -> list[Any]:
        return list(self.client.search_all_resources(request={"scope": ORGANIZATION, **request}, retry=None))

    def of(self, content: str = "RESOURCE", *, scope: str = ORGANIZATION) -> list[dict[str, Any]]:
        return [
            asset
            for asset_type in self.organization.asset_types(content)
            for asset in self.organization.assets_of(asset_type, content, scope=scope)
        ]


@pytest.fixture(scope="module")
def started() -> Iterator[Demo]:
    demo = Demo()
    yield demo
    demo.stop()


@pytest.fixture
def demo(started: Demo) -> Demo:
    for name in FAULTS:
        started.faults.off(name)
    return started


def touch(demo: Demo, asset_type: str = BUCKET, which: int = 0) -> tuple[str, datetime]:
    name = list(demo.organization.names(asset_type))[which]
    asset = demo.organization.get(name)
    assert asset is not None
    asset["resource"]["data"]["touched"] = True
    at = utcnow()
    demo.organization.upsert(asset, at=at)
    return name, at


@pytest.mark.parametrize("content", CONTENT_TYPES)
def test_a_listing_is_exactly_the_organization(demo: Demo, content: str) -> None:
    assert demo.listed(content_type=content) == demo.of(content)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 1500), content=st.sampled_from(CONTENT_TYPES))
def test_pages_of_any_size_join_to_the_organization(demo: Demo, size: int, content: str) -> None:
    types = demo.organization.asset_types(content)[-6:]
    expected = [asset["name"] for asset_type in types for asset in demo.organization.assets_of(asset_type, content)]
    pages = list(demo.pages(content_type=content, asset_types=types, page_size=size))
    assert [asset.name for page in pages for asset in page.assets] == expected
    assert all(len(page.assets) == min(size, 1000) for page in pages[:-1])
    assert len({(page.read_time.seconds, page.read_time.nanos) for page in pages}) == 1


def test_a_listing_does_not_see_what_changes_while_it_is_read(demo: Demo) -> None:
    before = demo.listed(asset_types=[BUCKET])
    pages = demo.pages(asset_types=[BUCKET], page_size=7)
    read = list(next(pages).assets)
    touch(demo, which=0)
    name, _ = touch(demo, which=20)
    demo.organization.delete(list(demo.organization.names(BUCKET))[25], at=utcnow())
    fresh = demo.organization.get(name)
    assert fresh is not None
    demo.organization.upsert(fresh | {"name": "//storage.googleapis.com/brand-new"}, at=utcnow())
    read += [asset for page in pages for asset in page.assets]
    assert [MessageToDict(asset) for asset in read] == before
    assert demo.listed(asset_types=[BUCKET]) == list(demo.organization.assets_of(BUCKET)) != before


def test_a_listing_can_be_of_the_past(demo: Demo) -> None:
    name, at = touch(demo, FIREWALL)
    then = {asset["name"]: asset for asset in demo.listed(asset_types=[FIREWALL], read_time=at - timedelta(seconds=1))}
    assert then[name] == demo.organization.get(name, at=at - timedelta(seconds=1)) != demo.organization.get(name)


def test_a_scope_narrows_the_listing(demo: Demo) -> None:
    folder = demo.organization.projects[2].ancestors[1]
    assert demo.listed(parent=folder) == demo.of(scope=folder)
    assert 0 < len(demo.of(scope=folder)) < len(demo.of())


def test_a_token_belongs_to_its_request(demo: Demo) -> None:
    token = next(demo.pages(asset_types=[BUCKET], page_size=3)).next_page_token
    for request in ({"asset_types": [FIREWALL]}, {"asset_types": [BUCKET], "content_type": "IAM_POLICY"}):
        with pytest.raises(exceptions.InvalidArgument, match="another request"):
            next(demo.pages(page_token=token, **request))
    with pytest.raises(exceptions.InvalidArgument, match="another read_time"):
        next(demo.pages(asset_types=[BUCKET], page_token=token, read_time=datetime(2026, 1, 1, tzinfo=UTC)))
    with pytest.raises(exceptions.InvalidArgument, match="invalid"):
        next(demo.pages(asset_types=[BUCKET], page_token="x"))


def test_an_unknown_type_refuses_the_whole_call(demo: Demo) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="not supported"):
        demo.listed(asset_types=[BUCKET, "made.up/Thing"])
    assert demo.listed(asset_types=["dns.googleapis.com/ManagedZone"]) == []


def test_a_foreign_scope_is_denied(demo: Demo) -> None:
    with pytest.raises(exceptions.PermissionDenied):
        demo.listed(parent="organizations/1")


def test_a_search_finds_what_changed_since(demo: Demo) -> None:
    name, at = touch(demo, FIREWALL, which=3)
    found = demo.search(query=f'updateTime>="{at.isoformat()}"')
    assert [result.name for result in found] == [name]
    assert found[0].update_time == at
    assert demo.search(query=f'updateTime>="{at.isoformat()}"', asset_types=[BUCKET]) == []


def test_a_search_pages_over_everything_and_carries_no_content(demo: Demo) -> None:
    found = demo.search(page_size=50)
    assert [result.name for result in found] == [asset["name"] for asset in demo.of()]
    bucket = next(result for result in found if result.asset_type == BUCKET)
    assert bucket.project.startswith("projects/")
    assert bucket.organization == ORGANIZATION
    with pytest.raises(exceptions.InvalidArgument, match="only updateTime"):
        demo.search(query="name:anything")


def test_a_history_has_each_version_and_the_deletion(demo: Demo) -> None:
    name, at = touch(demo, FIREWALL, which=5)
    gone = utcnow()
    demo.organization.delete(name, at=gone)
    response = demo.client.batch_get_assets_history(
        request={
            "parent": ORGANIZATION,
            "asset_names": [name],
            "content_type": "RESOURCE",
            "read_time_window": {"start_time": datetime(2025, 1, 1, tzinfo=UTC)},
        }
    )
    assert [item.deleted for item in response.assets] == [False, False, True]
    assert [item.window.start_time for item in response.assets][1:] == [at, gone]
    assert response.assets[0].window.end_time == at
    with pytest.raises(exceptions.InvalidArgument, match="does not exist"):
        demo.client.batch_get_assets_history(
            request={
                "parent": ORGANIZATION,
                "asset_names": ["//storage.googleapis.com/never"],
                "content_type": "RESOURCE",
                "read_time_window": {"start_time": at},
            }
        )


def test_feeds_are_created_once_listed_and_deleted(demo: Demo) -> None:
    feed = {
        "name": "ignored",
        "asset_types": [BUCKET],
        "content_type": "RESOURCE",
        "feed_output_config": {"pubsub_destination": {"topic": "projects/lz-demo-ops/topics/t"}},
    }
    request = {"parent": ORGANIZATION, "feed_id": "lz-resources", "feed": feed}
    created = demo.client.create_feed(request=request)
    assert created.name == f"{ORGANIZATION}/feeds/lz-resources"
    assert demo.welcomed == [created.name]
    with pytest.raises(exceptions.AlreadyExists):
        demo.client.create_feed(request=request)
    assert demo.client.get_feed(request={"name": created.name}) == created
    assert list(demo.client.list_feeds(request={"parent": ORGANIZATION}).feeds) == [created]
    demo.client.delete_feed(request={"name": created.name})
    assert demo.server.feeds() == []
    with pytest.raises(exceptions.NotFound):
        demo.client.get_feed(request={"name": created.name})


def test_denied_names_the_permission_and_hits_only_some_types(demo: Demo) -> None:
    demo.faults.on("asset_denied")
    with pytest.raises(exceptions.PermissionDenied, match=r"cloudasset\.assets\.listResource") as caught:
        demo.listed(asset_types=[SQL])
    info = next(detail for detail in caught.value.details if isinstance(detail, ErrorInfo))
    assert info.metadata["permission"] == "cloudasset.assets.listResource"
    assert demo.listed(asset_types=[BUCKET])


def test_quota_says_when_to_come_back_and_then_recovers(demo: Demo) -> None:
    demo.faults.on("asset_quota")
    for _ in range(2):
        with pytest.raises(exceptions.ResourceExhausted) as caught:
            demo.listed(asset_types=[BUCKET])
        delay = next(detail for detail in caught.value.details if isinstance(detail, RetryInfo)).retry_delay
        assert (delay.seconds, delay.nanos) == (1, 500_000_000)
    assert demo.listed(asset_types=[BUCKET])


def test_unavailable_recovers(demo: Demo) -> None:
    demo.faults.on("asset_unavailable", calls=1)
    with pytest.raises(exceptions.ServiceUnavailable):
        demo.listed(asset_types=[BUCKET])
    assert demo.listed(asset_types=[BUCKET])


def test_a_page_token_expires_once(demo: Demo) -> None:
    demo.faults.on("asset_expired_token")
    with pytest.raises(exceptions.InvalidArgument, match="page token has expired"):
        demo.listed(asset_types=[BUCKET])
    assert len(demo.listed(asset_types=[BUCKET])) == demo.organization.count(BUCKET)


def test_a_type_can_become_unknown(demo: Demo) -> None:
    assert demo.listed(asset_types=[FIRESTORE])
    demo.faults.on("asset_unknown_type")
    with pytest.raises(exceptions.InvalidArgument, match=FIRESTORE):
        demo.listed(asset_types=[FIRESTORE])
    assert demo.listed(asset_types=[BUCKET])


def test_a_folder_can_be_denied_while_the_organization_is_read(demo: Demo) -> None:
    folder = demo.organization.projects[2].ancestors[1]
    demo.faults.on("asset_denied_folder")
    with pytest.raises(exceptions.PermissionDenied, match=folder):
        demo.listed(parent=folder, asset_types=[BUCKET])
    assert len(demo.listed(asset_types=[BUCKET])) == demo.organization.count(BUCKET)


@pytest.mark.parametrize(
    ("fault", "reason", "known"),
    [
        ("asset_api_disabled", "SERVICE_DISABLED", {"service": "cloudasset.googleapis.com"}),
        ("asset_perimeter", "SECURITY_POLICY_VIOLATED", {"uid": "demo-perimeter-1"}),
    ],
)
def test_an_api_that_is_off_and_a_perimeter_say_so_to_every_call(
    demo: Demo, fault: str, reason: str, known: dict[str, str]
) -> None:
    demo.faults.on(fault)
    for call in (demo.listed, demo.search):
        with pytest.raises(exceptions.PermissionDenied) as caught:
            call(asset_types=[BUCKET])
        (info,) = (detail for detail in caught.value.details if isinstance(detail, ErrorInfo))
        assert info.reason == reason
        assert known.items() <= dict(info.metadata).items()


def test_a_page_that_never_comes_ends_with_the_callers_deadline(demo: Demo) -> None:
    demo.faults.on("asset_page_timeout")
    with pytest.raises(exceptions.DeadlineExceeded):
        demo.client.list_assets(request={"parent": ORGANIZATION}, retry=None, timeout=0.2)
    assert demo.listed(asset_types=[BUCKET])


def test_the_wire_may_tell_the_same_content_in_another_order(demo: Demo) -> None:
    def told() -> list[Any]:
        return [asset for page in demo.pages(asset_types=[BUCKET]) for asset in page.assets]

    def read() -> list[bytes]:
        call = demo.client.transport.grpc_channel.unary_unary(
            "/google.cloud.asset.v1.AssetService/ListAssets", request_serializer=bytes, response_deserializer=bytes
        )
        request = ListAssetsRequest(parent=ORGANIZATION, asset_types=[BUCKET], content_type="RESOURCE", page_size=1000)
        return list(wire.Page.FromString(call(ListAssetsRequest.serialize(request))).assets)

    before, plain = told(), read()
    assert read() == plain
    demo.faults.on("asset_wire_order")
    once, twice = read(), read()
    assert len({tuple(plain), tuple(once), tuple(twice)}) == 3
    assert told() == before


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_each_relation_is_a_result_of_its_own(demo: Demo, size: int) -> None:
    listed = demo.listed(content_type="RELATIONSHIP", page_size=size)
    expected = [
        (asset["name"], relation.kind, relation.asset)
        for asset_type in sorted(SOURCES)
        for asset in demo.organization.assets_of(asset_type)
        for relation in relations_of(asset)
    ]
    found = [
        (asset["name"], asset["relatedAsset"]["relationshipType"], asset["relatedAsset"]["asset"]) for asset in listed
    ]
    assert found == expected
    assert all("resource" not in asset and asset["relatedAsset"]["ancestors"] for asset in listed)
    assert max(Counter(asset["name"] for asset in listed).values()) > 1


def test_a_type_without_relations_is_refused(demo: Demo) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="has no relationships"):
        demo.listed(content_type="RELATIONSHIP", asset_types=[FIREWALL])


def test_a_slow_page_runs_into_a_deadline(demo: Demo) -> None:
    demo.faults.on("asset_slow_page")
    with pytest.raises(exceptions.DeadlineExceeded):
        demo.client.list_assets(request={"parent": ORGANIZATION}, retry=None, timeout=0.1)
