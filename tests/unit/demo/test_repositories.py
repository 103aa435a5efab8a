"""The demo's repositories are the same each time, and as a landing zone and a portal are."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pygit2
import pytest

from demo.repositories import Repositories, commit_change, commit_changes, make_repositories, read_file
from lz_sync_dagster.sync.git.gates import read_gates
from lz_sync_dagster.sync.git.governance import read_governance
from lz_sync_dagster.sync.git.terraform import read_terraform
from lz_sync_dagster.sync.git.tree import entries_of

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    return make_repositories(tmp_path / "repositories")


def head(path: Path) -> pygit2.Commit:
    return pygit2.Repository(str(path)).references["refs/heads/main"].peel(pygit2.Commit)


def files(path: Path) -> dict[str, bytes]:
    repository = pygit2.Repository(str(path))
    entries = entries_of(repository, head(path).tree)
    return {name: repository[entry.blob].peel(pygit2.Blob).data for name, entry in entries.items()}


def test_they_are_the_same_each_time_and_kept_when_there(repositories: Repositories, tmp_path: Path) -> None:
    again = make_repositories(tmp_path / "again")
    assert head(again.landing_zone).id == head(repositories.landing_zone).id
    assert head(again.portal).id == head(repositories.portal).id

    changed = commit_change(repositories.landing_zone, "docs/new.md", b"# New\n", message="New", at=AT)
    assert make_repositories(tmp_path / "repositories") == repositories
    assert str(head(repositories.landing_zone).id) == changed


def test_the_landing_zone_has_what_a_landing_zone_has(repositories: Repositories) -> None:
    found = files(repositories.landing_zone)
    layers = {name.split("/")[1] for name in found if name.startswith("terraform/")}
    history = list(pygit2.Repository(str(repositories.landing_zone)).walk(head(repositories.landing_zone).id))

    assert sorted(layers) == ["01-organization", "02-networking", "03-security", "04-platform", "05-workloads"]
    assert len([name for name in found if name.startswith("docs/") and name.endswith(".md")]) >= 10
    assert len(history) >= 12
    assert len({commit.author.name for commit in history}) >= 3
    governance = read_governance("pmo.yaml", found["pmo.yaml"].decode(), "c")
    assert (len(governance.values) > 10, governance.issues) == (True, [])
    gates = read_gates("ENFORCEMENT_GATES.md", found["ENFORCEMENT_GATES.md"].decode(), "c")
    assert [gate.gate_id for gate in gates] == [f"GATE-0{number}" for number in range(1, 9)]
    assert all(gate.phase and gate.severity and gate.blocks and gate.validation and gate.status for gate in gates)


def test_every_terraform_file_parses(repositories: Repositories) -> None:
    for name, data in files(repositories.landing_zone).items():
        if name.endswith(".tf"):
            blocks = read_terraform(name, data, blob="b", commit="c")
            assert blocks, name
            assert not any(block.has_error for block in blocks), name


def test_links_between_documents_lead_somewhere(repositories: Repositories) -> None:
    found = files(repositories.landing_zone)
    links = 0
    for name, data in found.items():
        for target in re.findall(r"\]\(([^)#]+)\)", data.decode()) if name.endswith(".md") else ():
            parts: list[str] = []
            for part in (PurePosixPath(name).parent / target).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in found, f"{name} → {target}"
            links += 1
    assert links >= 20


def test_a_change_is_a_commit_without_a_work_tree(repositories: Repositories) -> None:
    before = head(repositories.landing_zone)
    commit_changes(
        repositories.landing_zone,
        {"docs/cost.md": None, "docs/money.md": b"# Money\n"},
        message="Rename",
        author="Eve Ito <eve@example.com>",
        at=AT,
    )
    after = head(repositories.landing_zone)

    assert after.parent_ids == [before.id]
    assert (after.author.name, after.author.email, after.commit_time) == (
        "Eve Ito",
        "eve@example.com",
        int(AT.timestamp()),
    )
    assert read_file(repositories.landing_zone, "docs/money.md") == b"# Money\n"
    assert read_file(repositories.landing_zone, "docs/cost.md") is None
