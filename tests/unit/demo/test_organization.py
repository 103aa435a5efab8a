"""The generated organization: the same each time, changed as asked, and cheap however large."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.organization import CONTENT_TYPES, IAM_POLICY, ORGANIZATION, RESOURCE, START, Organization
from lz_sync_dagster.sync.errors import SyncError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIREWALL = "compute.googleapis.com/Firewall"
BUCKET = "storage.googleapis.com/Bucket"
PROJECT = "cloudresourcemanager.googleapis.com/Project"


@pytest.fixture(scope="module")
def untouched() -> Organization:
    return Organization(1000)


def everything(organization: Organization, scope: str = ORGANIZATION) -> dict[tuple[str, str], Any]:
    return {
        (content, asset["name"]): asset
        for content in CONTENT_TYPES
        for asset_type in organization.asset_types(content)
        for asset in organization.assets_of(asset_type, content, scope=scope)
    }


def a_firewall(name: str, project: str) -> dict[str, Any]:
    return {
        "name": f"//compute.googleapis.com/projects/{project}/global/firewalls/{name}",
        "assetType": FIREWALL,
        "resource": {"version": "v1", "data": {"name": name, "sourceRanges": ["0.0.0.0/0"]}},
    }


@pytest.mark.parametrize("assets", [200, 777, 2000, 30_000])
def test_it_has_as_many_resources_as_asked_for(assets: int) -> None:
    assert sum(Organization(assets).counts().values()) == assets


@pytest.mark.parametrize("assets", [0, 199, 1_000_001])
def test_a_size_out_of_bounds_is_refused(assets: int) -> None:
    with pytest.raises(SyncError, match="choose between 200 and 1,000,000"):
        Organization(assets)


def test_the_same_seed_gives_the_same_organization_and_another_seed_another(untouched: Organization) -> None:
    assert everything(Organization(1000)) == everything(untouched)
    assert everything(Organization(1000, seed=8)) != everything(untouched)


def test_counts_and_names_agree_with_what_is_there(untouched: Organization) -> None:
    for content in CONTENT_TYPES:
        for asset_type, count in untouched.counts(content).items():
            names = list(untouched.names(asset_type, content))
            assert len(names) == len(set(names)) == count > 0


def test_each_asset_is_found_by_its_name(untouched: Organization) -> None:
    for (content, name), asset in everything(untouched).items():
        assert untouched.get(name, content) == asset
        assert untouched.type_of(name) == asset["assetType"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "//compute.googleapis.com/projects/none/global/firewalls/allow-ssh-0000",
        "//storage.googleapis.com/other-0000",
    ],
)
def test_a_name_that_never_was_is_not_found(untouched: Organization, name: str) -> None:
    assert untouched.get(name) is None
    assert untouched.history(name) == []


def test_a_scope_holds_what_has_it_as_an_ancestor(untouched: Organization) -> None:
    all_of_it = everything(untouched)
    project = untouched.projects[3]
    for scope in (*project.ancestors, f"projects/{project.project_id}"):
        ancestor = project.ancestors[0] if scope.startswith("projects/") else scope
        expected = {key for key, asset in all_of_it.items() if ancestor in asset["ancestors"]}
        assert set(everything(untouched, scope)) == expected, scope
    with pytest.raises(KeyError):
        everything(untouched, "folders/1")


def test_flaws_are_there_but_not_the_rule() -> None:
    organization = Organization(5000)
    firewalls = [asset["resource"]["data"] for asset in organization.assets_of(FIREWALL)]
    open_ssh = [
        rule for rule in firewalls if rule["name"].startswith("allow-ssh") and rule["sourceRanges"] == ["0.0.0.0/0"]
    ]
    assert 0 < len(open_ssh) < len(firewalls) / 10
    policies = [asset["iamPolicy"] for asset in organization.assets_of(BUCKET, IAM_POLICY)]
    public = [policy for policy in policies if "allUsers" in str(policy)]
    assert 0 < len(public) < len(policies) / 10


def test_changes_become_versions(tmp_path: Path) -> None:
    organization = Organization(300, journal=tmp_path / "journal.jsonl")
    name = next(organization.names(FIREWALL))
    before = organization.get(name)
    assert before is not None
    opened = organization.upsert({**before, "resource": {"data": {"sourceRanges": ["0.0.0.0/0"]}}}, at=NOW)
    assert opened["updateTime"] == "2026-03-01T12:00:00Z"
    assert opened["ancestors"] == before["ancestors"]
    assert organization.delete(name, at=NOW + timedelta(hours=1)) == [RESOURCE]

    assert organization.get(name) is None
    assert organization.get(name, at=NOW) == opened
    assert organization.get(name, at=NOW - timedelta(seconds=1)) == before
    assert [version.asset for version in organization.history(name)] == [before, opened, None]
    assert organization.count(FIREWALL) == Organization(300).count(FIREWALL) - 1
    organization.close()


def test_a_new_asset_takes_the_ancestors_of_its_project_and_comes_after_the_others() -> None:
    organization = Organization(300)
    project = organization.projects[1]
    organization.upsert(a_firewall("b", project.project_id), at=NOW)
    organization.upsert(a_firewall("a", project.project_id), at=NOW)
    names = list(organization.names(FIREWALL))
    assert [name[-2:] for name in names[-2:]] == ["/a", "/b"]
    assert organization.count(FIREWALL) == len(names)
    created = organization.get(names[-1])
    assert created is not None
    assert created["ancestors"] == list(project.ancestors)
    assert names[-1] in {key[1] for key in everything(organization, f"projects/{project.project_id}")}


def test_a_new_project_is_a_scope() -> None:
    organization = Organization(300)
    organization.upsert(
        {
            "name": "//cloudresourcemanager.googleapis.com/projects/fresh",
            "assetType": PROJECT,
            "ancestors": ["projects/42", ORGANIZATION],
            "resource": {"data": {"projectId": "fresh"}},
        },
        at=NOW,
    )
    organization.upsert(a_firewall("first", "fresh"), at=NOW)
    assert organization.has_scope("projects/42")
    assert len(everything(organization, "projects/fresh")) == 2


def test_deleting_a_resource_takes_its_policies_along() -> None:
    organization = Organization(300)
    bucket = next(organization.names(BUCKET))
    assert organization.delete(bucket, at=NOW) == [RESOURCE, IAM_POLICY]
    assert organization.get(bucket, IAM_POLICY) is None
    with pytest.raises(KeyError):
        organization.delete(bucket, at=NOW + timedelta(seconds=1))


def test_a_change_that_is_not_newer_is_refused() -> None:
    organization = Organization(300)
    rule = a_firewall("a", organization.projects[0].project_id)
    organization.upsert(rule, at=NOW)
    with pytest.raises(ValueError, match="not newer"):
        organization.upsert(rule, at=NOW)


def test_what_callers_do_to_an_asset_does_not_change_the_organization() -> None:
    organization = Organization(300)
    name = next(organization.names(FIREWALL))
    asset = organization.get(name)
    assert asset is not None
    asset["resource"]["data"].clear()
    assert organization.get(name) != asset
    stored = organization.upsert(a_firewall("a", organization.projects[0].project_id), at=NOW)
    stored["resource"]["data"].clear()
    assert organization.get(stored["name"]) != stored


changes = st.lists(
    st.tuples(st.sampled_from(["create", "update", "delete", "delete-created"]), st.integers(0, 9)), max_size=25
)


@settings(max_examples=15, deadline=None)
@given(changes=changes)
def test_a_replayed_journal_gives_the_same_organization(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "changes.jsonl"
    organization = Organization(200, journal=path)
    project = organization.projects[0].project_id
    names = list(organization.names(FIREWALL))[:10]
    for minute, (what, which) in enumerate(changes, start=1):
        at = NOW + timedelta(minutes=minute)
        created = a_firewall(f"new-{which}", project)
        if what == "create":
            organization.upsert(created, at=at)
        elif what == "update":
            base = a_firewall("x", project) | {"name": names[which]}
            organization.upsert(base, at=at)
        else:
            name = names[which] if what == "delete" else created["name"]
            if organization.get(name) is not None:
                organization.delete(name, at=at)
    organization.close()

    replayed = Organization(200, journal=path)
    assert everything(replayed) == everything(organization)
    assert replayed.counts() == organization.counts()
    assert replayed.latest_ns() == organization.latest_ns()
    assert all(replayed.history(name) == organization.history(name) for name in organization.changed_names())
    replayed.close()


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    organization = Organization(200, journal=path)
    organization.upsert(a_firewall("a", organization.projects[0].project_id), at=NOW)
    organization.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op": "ups')
    replayed = Organization(200, journal=path)
    assert everything(replayed) == everything(organization)
    replayed.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"not json\n", b'{"op":"delete","content_type":"RESOURCE","at":"x","name":"y"}\n'])
def test_a_damaged_journal_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Organization(200, journal=path).close()
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(SyncError, match=r"journal\.jsonl:2"):
        Organization(200, journal=path)


def test_a_journal_of_another_organization_is_refused(tmp_path: Path) -> None:
    Organization(200, journal=tmp_path / "j").close()
    with pytest.raises(SyncError, match="--assets"):
        Organization(300, journal=tmp_path / "j")


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 60))
def test_an_iteration_can_be_continued_anywhere(untouched: Organization, size: int) -> None:
    whole = [entry.position for entry in untouched.entries(BUCKET)]
    pieces, position = [], START
    while True:
        piece = [
            entry.position for entry, _ in zip(untouched.entries(BUCKET, start=position), range(size), strict=False)
        ]
        if not piece:
            break
        pieces += piece
        position = piece[-1]
    assert pieces == whole


def test_walking_a_large_organization_takes_little_memory() -> None:
    tracemalloc.start()
    organization = Organization(100_000)
    walked = sum(1 for asset_type in organization.asset_types() for _ in organization.entries(asset_type))
    made = sum(1 for _ in zip(organization.assets_of("compute.googleapis.com/Disk"), range(3000), strict=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (walked, made) == (100_000, 3000)
    assert peak < 20 * 1024 * 1024
