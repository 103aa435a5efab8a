"""Terraform against the inventory in the store: brought up to date when a side moved, listed, paged, and told by the
API. On SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any

import pygit2
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from demo.organization import ORGANIZATION, Organization
from demo.repositories import make_repositories
from lz_sync_dagster.config import GitSyncConfig, RepositoryConfig, Settings, SyncLayers, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.sync.drift import service
from lz_sync_dagster.sync.drift.mapping import ASSET_TYPES
from lz_sync_dagster.sync.drift.service import refresh, refreshed
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.git.service import sync_git
from lz_sync_dagster.sync.git.terraform import is_terraform, read_terraform
from lz_sync_dagster.sync.git.tree import entries_of
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, coverage, repository, schema, terraform_drift
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.repository import SyncedFile
from lz_sync_dagster.sync.store.terraform_drift import DriftStatus
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock

SHA = "a" * 40
SHARED = "lz-network-shared-rwz3"
FIREWALL = "compute.googleapis.com/Firewall"
MATCHED, CHANGED, MISSING, UNRESOLVED = DriftStatus


def write_files(store: Store, files: Mapping[str, str], *, blob: str = "b") -> None:
    with store.write() as connection:
        for path, text in files.items():
            blocks = read_terraform(path, dedent(text).encode(), blob=blob, commit=SHA)
            repository.replace_terraform(connection, [path], blocks)


_numbers = count(1)


def write_asset(store: Store, asset: Mapping[str, Any]) -> None:
    """An asset in Cloud Asset's form, as the inventory's row."""
    data = asset["resource"]["data"]
    number = next(_numbers)
    parts = asset["name"].split("/")
    project = parts[parts.index("projects") + 1] if "projects" in parts else None
    with store.write() as connection:
        connection.execute(schema.resource_contents.insert().values(id=number, data=data, redacted=[]))
        connection.execute(schema.resources.delete().where(schema.resources.c.name == asset["name"]))
        connection.execute(
            schema.resources.insert().values(
                name=asset["name"],
                content_type="RESOURCE",
                asset_type=asset["assetType"],
                scope=ORGANIZATION,
                project=project,
                display_name=str(data.get("displayName", data.get("name", ""))).rpartition("/")[2],
                deleted=False,
                update_ns=1,
                observed_ns=1,
                seen_ns=1,
                valid_from_ns=1,
                digest="d",
                content_id=number,
                source="snapshot",
                version=1,
                ancestors=asset["ancestors"],
                written=number,
                changed_at=NOW,
            )
        )


def cover(store: Store, clock: SteppedClock, status: CoverageStatus = CoverageStatus.COMPLETE, **more: Any) -> None:
    with store.write() as connection:
        marks = [
            CoverageMark(ORGANIZATION, kind, "RESOURCE", status, complete_read_ns=to_ns(clock()), **more)
            for kind in sorted(ASSET_TYPES)
        ]
        coverage.mark(connection, marks, now=clock())


@pytest.fixture(scope="module")
def organization() -> Iterator[Organization]:
    made = Organization(200)
    yield made
    made.close()


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The demo's terraform files."""
    made = make_repositories(tmp_path_factory.mktemp("drift"))
    git = pygit2.Repository(str(made.landing_zone))
    tree = git.references["refs/heads/main"].peel(pygit2.Commit).tree
    return {
        path: git[entry.blob].peel(pygit2.Blob).data.decode()
        for path, entry in entries_of(git, tree).items()
        if is_terraform(path)
    }


def fill(store: Store, organization: Organization, terraform: Mapping[str, str], clock: SteppedClock) -> None:
    write_files(store, terraform)
    project = organization.projects[0]
    for asset_type in sorted(ASSET_TYPES & set(organization.asset_types())):
        for asset in organization.assets_of(asset_type):
            if project.ancestors[0] in asset["ancestors"]:
                write_asset(store, asset)
    cover(store, clock)


def rows(store: Store) -> dict[str, terraform_drift.DriftRow]:
    with store.read() as connection:
        return {item.row.address: item.row for item in terraform_drift.listed(connection, limit=1000)}


def test_the_demo_shows_one_of_each(
    store: Store, organization: Organization, terraform: dict[str, str], clock: SteppedClock
) -> None:
    fill(store, organization, terraform, clock)
    details = refreshed(store, clock=clock)

    found = rows(store)
    network = found["google_compute_network.hub"]
    assert (network.status, network.resource) == (
        MATCHED,
        f"//compute.googleapis.com/projects/{SHARED}/global/networks/vpc-shared-rwz3",
    )
    assert found["google_compute_subnetwork.services"].status is MATCHED
    web = found["google_compute_firewall.web"]
    assert web.status is CHANGED
    assert web.differences == [
        {"field": "source_ranges", "terraform": ["35.191.0.0/16", "130.211.0.0/22"], "actual": ["0.0.0.0/0"]}
    ]
    assert (web.path, web.commit_sha) == ("terraform/02-networking/firewall.tf", SHA)
    assert terraform[web.path].splitlines()[web.line - 1].startswith('resource "google_compute_firewall" "web"')
    assert found["google_compute_firewall.iap_ssh"].status is MISSING
    assert found["google_compute_firewall.deny_all"].reason == (
        "project comes from var.host_project, which is set when terraform runs"
    )
    assert found["module.spoke.google_compute_network.spoke"].status is UNRESOLVED
    assert 'module.web.google_project.this["sandbox"]' in found
    assert {key: details[key] for key in ("matched", "changed", "missing")} == {
        "matched": 2,
        "changed": 1,
        "missing": 1,
    }
    assert details["count"] == len(found) == sum(details[str(status)] for status in DriftStatus)
    assert details["unmanaged"] > 10


def test_nothing_is_done_unless_a_side_moved(
    store: Store,
    organization: Organization,
    terraform: dict[str, str],
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(store, organization, terraform, clock)
    assert refresh(store, clock=clock)
    clock.advance(timedelta(minutes=10))
    assert not refresh(store, clock=clock)
    with store.read() as connection:
        state = terraform_drift.compared(connection)
        assert state is not None
        assert state.compared_at == clock(), "what holds still is not old"

    with monkeypatch.context() as patch:
        patch.setattr(service, "compare_all", lambda *_: pytest.fail("nothing moved that terraform can make"))
        key = {"name": "//x", "assetType": "apikeys.googleapis.com/Key", "ancestors": [], "resource": {"data": {}}}
        write_asset(store, key)
        assert not refresh(store, clock=clock)
        with store.read() as connection:
            state = terraform_drift.compared(connection)
            assert state is not None
            assert state.written == terraform_drift.newest_write(connection)

    firewall = next(organization.assets_of(FIREWALL))
    firewall = {**firewall, "resource": {"data": {**firewall["resource"]["data"], "priority": 1}}}
    firewall["resource"]["data"]["sourceRanges"] = ["130.211.0.0/22", "35.191.0.0/16"]
    write_asset(store, firewall)
    assert refresh(store, clock=clock)
    assert rows(store)["google_compute_firewall.web"].status is MATCHED

    path = "terraform/02-networking/firewall.tf"
    write_files(store, {path: terraform[path].replace("hub-allow-iap-ssh", "allow-web-rwz3")}, blob="c")
    assert refresh(store, clock=clock)
    assert rows(store)["google_compute_firewall.iap_ssh"].status is CHANGED
    write_files(store, {path: terraform[path]}, blob="f")
    assert refresh(store, clock=clock)
    assert rows(store)["google_compute_firewall.iap_ssh"].status is MISSING

    withheld = SyncedFile("terraform/07/main.tf", "x", "e", 0o100644, 9, "not_synced", "holds a secret", SHA)
    with store.write() as connection:
        key = (withheld.path, withheld.destination)
        repository.change_files(connection, [], {key: withheld})
    assert refresh(store, clock=clock)
    assert MISSING not in {row.status for row in rows(store).values()}
    with store.write() as connection:
        repository.change_files(connection, [key], {})
    assert refresh(store, clock=clock)

    cover(store, clock, CoverageStatus.PARTIAL, reason=Reason.PERMISSION_DENIED)
    assert refresh(store, clock=clock)
    assert MISSING not in {row.status for row in rows(store).values()}

    cover(store, clock)
    refresh(store, clock=clock)
    clock.advance(timedelta(hours=2))
    assert refresh(store, clock=clock), "what was complete is stale now"
    assert MISSING not in {row.status for row in rows(store).values()}


def test_somebody_who_was_faster_is_not_overwritten(
    store: Store,
    organization: Organization,
    terraform: dict[str, str],
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(store, organization, terraform, clock)
    compare_all = service.compare_all
    tries: list[int] = []

    def slow(*arguments: Any) -> Any:
        made = compare_all(*arguments)
        tries.append(1)
        if len(tries) == 1:
            write_files(store, {"terraform/02-networking/firewall.tf": ""}, blob="d")
            assert refresh(store, clock=clock)
        return made

    monkeypatch.setattr(service, "compare_all", slow)
    refresh(store, clock=clock)
    assert "google_compute_firewall.web" not in rows(store)


def test_a_block_that_breaks_the_comparison_costs_its_own_row(
    store: Store,
    organization: Organization,
    terraform: dict[str, str],
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(store, organization, terraform, clock)
    judge = service.judge

    def broken(instance: Any, world: Any) -> Any:
        if instance.address == "google_compute_firewall.web":
            raise ZeroDivisionError
        return judge(instance, world)

    monkeypatch.setattr(service, "judge", broken)
    refresh(store, clock=clock)
    found = rows(store)
    assert "ZeroDivisionError" in str(found["google_compute_firewall.web"].reason)
    assert found["google_compute_network.hub"].status is MATCHED


def test_lists_are_paged_and_filtered(
    store: Store, organization: Organization, terraform: dict[str, str], clock: SteppedClock
) -> None:
    fill(store, organization, terraform, clock)
    refresh(store, clock=clock)
    with store.read() as connection:
        whole = terraform_drift.listed(connection, limit=1000)
        paged: list[terraform_drift.ListedRow] = []
        while page := terraform_drift.listed(connection, limit=3, after=paged[-1].place if paged else None):
            paged += page
        assert paged == whole
        back: list[terraform_drift.ListedRow] = [whole[-1]]
        while page := terraform_drift.listed(connection, limit=3, before=back[0].place):
            back = page + back
        assert back == whole

        def addresses(**filters: Any) -> list[str]:
            return [item.row.address for item in terraform_drift.listed(connection, limit=1000, **filters)]

        assert addresses(statuses=[CHANGED]) == ["google_compute_firewall.web"]
        assert addresses(kind=FIREWALL) == addresses(kind="google_compute_firewall")
        assert len(addresses(kind=FIREWALL)) == 3
        assert set(addresses(path="terraform/04-platform")) == {
            item.row.address for item in whole if item.row.path.startswith("terraform/04-platform/")
        }
        assert addresses(words="VPC-SHARED") == ["google_compute_network.hub"]
        assert addresses(words="100%") == []
        name = f"//compute.googleapis.com/projects/{SHARED}/global/firewalls/allow-web-rwz3"
        assert addresses(resource=name) == ["google_compute_firewall.web"]
        (row,) = terraform_drift.address_of(connection, [name, "//other"])[name]
        assert row.address == "google_compute_firewall.web"
        assert row in terraform_drift.blocks_of(connection, row.path)
        assert terraform_drift.blocks_of(connection, row.path, row.line) == [row]

        free = terraform_drift.unmanaged(connection, ASSET_TYPES, limit=1000)
        assert name not in {item.name for item in free}
        pages: list[terraform_drift.Unmanaged] = []
        while page_of := terraform_drift.unmanaged(
            connection, ASSET_TYPES, limit=4, after=(pages[-1].asset_type, pages[-1].name) if pages else None
        ):
            pages += page_of
        assert pages == free
        ends = free[-1:]
        while page_of := terraform_drift.unmanaged(
            connection, ASSET_TYPES, limit=4, before=(ends[0].asset_type, ends[0].name)
        ):
            ends = page_of + ends
        assert ends == free
        counts = terraform_drift.count_unmanaged(connection, ASSET_TYPES)
        assert sum(counts.values()) == len(free)
        existing = connection.scalar(sa.select(sa.func.count()).where(schema.resources.c.asset_type.in_(ASSET_TYPES)))
        assert len(free) + 3 == existing


def test_the_api_tells_both_sides(
    store: Store, organization: Organization, terraform: dict[str, str], clock: SteppedClock, tmp_path: Path
) -> None:
    settings = load_settings(environ={"LZ_SYNC_DATA_DIR": str(tmp_path)})
    with TestClient(create_app(settings, store, clock=clock, pages=False)) as client:

        def get(path: str, **parameters: Any) -> dict[str, Any]:
            answer = client.get(f"/api/v1/{path}", params=parameters)
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            return body

        before = get("terraform-drift")
        assert (before["items"], set(before["counts"].values()), before["as_of"]) == ([], {None}, None)
        before = get("unmanaged-resources")
        assert (before["items"], before["counts"], before["unread_modules"]) == ([], None, None)

        fill(store, organization, terraform, clock)
        elsewhere = {"terraform/06/main.tf": 'module "m" {\n  source = "example/m/google"\n}\n'}
        write_files(store, elsewhere)
        refresh(store, clock=clock)
        for layer in (LayerId.GIT, LayerId.API):
            outcome = LayerOutcome(items_synced=1, items_changed=0, as_of=NOW - timedelta(minutes=5))
            run_to_end(store, layer, lambda _, done=outcome: done, triggered_by="t", clock=clock, sleep=pytest.fail)
        clock.advance(timedelta(minutes=1))

        found = get("terraform-drift", status="changed")
        assert [item["address"] for item in found["items"]] == ["google_compute_firewall.web"]
        assert found["items"][0]["differences"][0]["field"] == "source_ranges"
        assert found["counts"]["changed"] == found["counts"]["missing"] == 1
        assert found["as_of"] == "2026-03-01T11:55:00Z"
        assert found["coverage"]["status"] == "complete"
        first = get("terraform-drift", limit=2)
        second = get("terraform-drift", limit=2, cursor=first["next_cursor"])
        assert not {str(item) for item in first["items"]} & {str(item) for item in second["items"]}
        assert client.get("/api/v1/terraform-drift", params={"cursor": "x"}).status_code == 422
        assert client.get("/api/v1/terraform-drift", params={"status": "gone"}).status_code == 422

        free = get("unmanaged-resources", type="google_compute_instance")
        assert {item["asset_type"] for item in free["items"]} == {"compute.googleapis.com/Instance"}
        made = {item["resource"].rpartition("/")[2]: item["created_by"] for item in free["items"]}
        assert made["gke-api-rwz3"] == "GKE"
        assert free["unread_modules"] == 1
        assert free["items"][0]["note"] == "1 module is not in the repository: it may be made there"
        (count_of,) = free["counts"]
        assert count_of["unmanaged"] == len(free["items"])
        for text in ("fire", "api-rwz3"):
            counted = get("unmanaged-resources", q=text)["counts"]
            assert get("terraform-drift", q=text)["counts"]["unmanaged"] == sum(item["unmanaged"] for item in counted)
        one = free["items"][0]["resource"]
        assert get("terraform-drift", resource=one)["counts"]["unmanaged"] == 1
        firewalls = get("unmanaged-resources", type=FIREWALL, limit=1)
        assert "block of this type is unresolved" in firewalls["items"][0]["note"]
        assert get("unmanaged-resources", type="google_pubsub_topic")["items"] == []
        assert get("unmanaged-resources", project="nobody")["items"] == []


def test_blocks_of_before_the_upgrade_are_read_anew(sqlite_store: Store, tmp_path: Path) -> None:
    """Migration 0004 leaves blocks without attributes and a proof that holds for nothing."""
    made = make_repositories(tmp_path / "repositories")
    settings = Settings(
        data_dir=tmp_path / "data",
        sync_layers=SyncLayers(git_sync=GitSyncConfig()),
        landing_zone=RepositoryConfig(url=str(made.landing_zone)),
        portal_repository=RepositoryConfig(url=str(made.portal)),
    )
    clock = SteppedClock()

    def attributes() -> dict[Any, Any]:
        sync_git_once(settings, sqlite_store, clock)
        with sqlite_store.read() as connection:
            return {
                (block.path, block.line): (block.attributes, block.blob)
                for block in terraform_drift.read_blocks(connection)
            }

    before = attributes()
    assert any(found for found, _ in before.values())
    assert "google_compute_network.hub" in rows(sqlite_store)
    with sqlite_store.write() as connection:
        connection.execute(sa.text("UPDATE terraform_blocks SET attributes = '{}', blob = ''"))
        connection.execute(sa.text("UPDATE git_state SET fingerprint = ''"))
    assert attributes() == before


def sync_git_once(settings: Settings, store: Store, clock: SteppedClock) -> None:
    run_to_end(
        store,
        LayerId.GIT,
        lambda run: sync_git(settings, store, run, clock=clock, progress=silent),
        triggered_by="test",
        clock=clock,
        sleep=pytest.fail,
    )


def test_a_zero_of_a_side_that_was_never_read_is_not_known(sqlite_store: Store, tmp_path: Path) -> None:
    refresh(sqlite_store, clock=lambda: NOW)
    settings = load_settings(environ={"LZ_SYNC_DATA_DIR": str(tmp_path)})
    with TestClient(create_app(settings, sqlite_store, clock=lambda: NOW, pages=False)) as client:
        drift = client.get("/api/v1/terraform-drift").json()
        unmanaged = client.get("/api/v1/unmanaged-resources").json()
    assert set(drift["counts"].values()) == {None}
    assert (unmanaged["counts"], unmanaged["unread_modules"]) == (None, None)


@pytest.mark.parametrize(
    ("files", "resources", "known"),
    [(False, True, {"changed"}), (True, False, {"changed", "unresolved"}), (True, True, {*DriftStatus, "unmanaged"})],
)
def test_a_zero_needs_the_sides_that_it_is_about(files: bool, resources: bool, known: set[str]) -> None:
    found = {**dict.fromkeys((*DriftStatus, "unmanaged"), 0), "changed": 3}
    told = terraform_drift.proven(found, files_read=files, resources_read=resources)
    assert {name for name, number in told.items() if number is not None} == known
    assert told["changed"] == 3
