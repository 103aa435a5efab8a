"""The API of what layer 2 reads: documents, governance, gates, findings, runbooks, terraform."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lz_sync_dagster.config import load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.documents import read_document
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, repository, schema
from lz_sync_dagster.sync.store import source_findings as findings_store
from lz_sync_dagster.sync.store.repository import Gate, GovernanceValue, RunbookSection, SyncedFile, TerraformBlock
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding
from tests.conftest import NOW, SteppedClock

SHA = "a" * 40
OLD = "b" * 40
TEXTS = {
    "docs/net/firewalls.md": "# Firewalls\n\n## Review\n\nSee [the overview](overview.md#plan) and [code](main.tf).\n",
    "docs/net/overview.md": "# Overview\n\n## Plan\n\nThe hub has a firewall.\n",
    "docs/ä b.md": "# Umlaut\n\n<script>alert(1)</script>\n",
}


def commit(sha: str, days: int, subject: str) -> dict[str, Any]:
    return {
        "sha": sha,
        "committed_at": NOW - timedelta(days=days),
        "author_name": "Ada",
        "author_email": "ada@example.com",
        "subject": subject,
        "parents": [],
        "files_changed": 1,
        "insertions": 1,
        "deletions": 0,
    }


def fill(store: Store) -> None:
    """What a sync leaves in the tables."""
    old, new = NOW - timedelta(days=9), NOW - timedelta(days=1)
    with store.write() as connection:
        documents = [read_document(path, text, blob="0" * 40, commit=SHA) for path, text in TEXTS.items()]
        repository.replace_documents(connection, TEXTS, documents)
        connection.execute(schema.commits.insert(), [commit(OLD, 9, "Start"), commit(SHA, 1, "Rename it")])
        changes = [
            ("docs/net/firewalls.md", SHA, new, "renamed", "docs/fw.md", 2, 1),
            ("docs/fw.md", OLD, old, "added", None, None, None),
            ("docs/fw.md", "c" * 40, NOW, "added", None, 1, 1),
        ]
        names = ("path", "sha", "committed_at", "change", "old_path", "insertions", "deletions")
        connection.execute(schema.commit_files.insert(), [dict(zip(names, row, strict=True)) for row in changes])
        copies = [
            SyncedFile("docs/net/firewalls.md", "a/firewalls.md", "0" * 40, 0o100644, 9, "synced", None, SHA),
            SyncedFile("docs/net/firewalls.md", "b/x.md", "0" * 40, 0o100644, 9, "not_synced", "is in the way", SHA),
        ]
        repository._insert(connection, schema.synced_files, copies)
        values = {"teams.10.name": "web", "teams.2.name": "net", "owner": None, "compliance.target": 0.95, "owners": []}
        repository._insert(
            connection,
            schema.governance,
            [
                GovernanceValue(key, value, "pmo.yaml", SHA, 12 if key == "teams.2.name" else None)
                for key, value in values.items()
            ],
        )
        repository._insert(
            connection,
            schema.enforcement_gates,
            [
                Gate("GATE-2", "Second", None, "high", "merge", "a check", "active", "ENFORCEMENT_GATES.md", 9, SHA),
                Gate("GATE-1", "First", "plan", None, None, None, None, "ENFORCEMENT_GATES.md", 7, SHA),
            ],
        )
        items = [
            ("governance", "compliance.target", old, "added", None, 0.9),
            ("governance", "compliance.target", new, "modified", 0.9, 0.95),
            ("governance", "compliance_x", new, "added", None, 1),
            ("gate", "GATE-1", new, "added", None, {"title": "First"}),
        ]
        connection.execute(
            schema.item_changes.insert(),
            [
                {"kind": kind, "key": key, "path": "x", "sha": SHA, "committed_at": at, "change": change}
                | {"before": before, "after": after}
                for kind, key, at, change, before, after in items
            ],
        )
        found = [
            SourceFinding(FindingKind.GOVERNANCE_SCHEMA, "pmo.yaml", 12, "teams.2.name", "medium", "is no name", SHA),
            SourceFinding(FindingKind.SECRET, "docs/key.md", 3, "", "critical", "remove and revoke it", SHA),
        ]
        findings_store.replace(connection, found, kinds=list(FindingKind), paths=None, now=NOW)
        sections = [RunbookSection("RUNBOOKS.md", line, f"Step {line}", [], SHA) for line in (1, 5, 12)]
        repository._insert(connection, schema.runbooks, sections)
        for line, (module, kind, name) in enumerate(
            [("net", "compute_network", "hub"), ("net", "compute_firewall", "ssh"), ("app", "sql_database", "a_b")]
        ):
            block = TerraformBlock(
                path=f"terraform/{module}/main.tf",
                line=line + 1,
                address=f"google_{kind}.{name}",
                block_type="resource",
                resource_type=f"google_{kind}",
                name=name,
                module=f"terraform/{module}",
                provider="google",
                references=[],
                labels={},
                attributes={},
                blob="0" * 40,
                has_error=False,
                commit_sha=SHA,
            )
            repository._insert(connection, schema.terraform_blocks, [block])


def synced(store: Store, outcome: LayerOutcome | SyncError) -> None:
    def work(_: Any) -> LayerOutcome:
        if isinstance(outcome, SyncError):
            raise outcome
        return outcome

    with suppress(SyncError):
        run_to_end(store, LayerId.GIT, work, triggered_by="test", clock=SteppedClock(), sleep=lambda _: None)


def app_of(store: Store, folder: Path) -> FastAPI:
    config = folder / "config.yaml"
    config.write_text("landing_zone: {name: example/lz, page: 'https://git.example.com/lz'}\n")
    return create_app(load_settings(config, environ={}), store, clock=SteppedClock(), pages=False)


class Api:
    def __init__(self, client: TestClient) -> None:
        self.client = client

    def __call__(self, path: str, status: int = 200, **parameters: Any) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == status, answer.text
        return answer.json()

    def pages(self, path: str, **parameters: Any) -> list[list[Any]]:
        found, cursor = [], None
        while True:
            answer = self(path, **parameters, **({"cursor": cursor} if cursor else {}))
            found.append(answer["items"])
            cursor = answer["next_cursor"]
            if cursor is None:
                return found


@pytest.fixture
def empty(store: Store, tmp_path: Path) -> Any:
    with TestClient(app_of(store, tmp_path)) as client:
        yield Api(client)


@pytest.fixture
def api(store: Store, empty: Api) -> Api:
    synced(store, LayerOutcome(items_synced=3, items_changed=3, as_of=NOW))
    fill(store)
    return empty


LISTS = ("knowledge", "governance", "gates", "source-findings", "runbooks", "terraform")


def test_nothing_is_known_before_the_first_sync(empty: Api) -> None:
    for path in LISTS:
        answer = empty(path)
        assert answer["items"] == []
        assert (answer["as_of"], answer["source"]) == (None, "git")
        assert answer["coverage"]["status"] == "unknown"


def test_every_answer_says_as_of_when_and_how_much_is_known(store: Store, api: Api) -> None:
    paths = (*LISTS, "knowledge/docs/net/overview.md")
    for path in paths:
        answer = api(path)
        assert answer["as_of"] == "2026-03-01T12:00:00Z"
        assert answer["coverage"]["status"] == "complete"
    synced(store, SyncError("is gone", where="the repository", remedy="look", reason=Reason.NOT_FOUND, transient=False))
    for path in paths:
        answer = api(path)
        assert answer["as_of"] == "2026-03-01T12:00:00Z"
        assert answer["coverage"]["status"] == "stale"


def test_lists_are_paged_without_gap_or_repetition(api: Api) -> None:
    for path in LISTS:
        (whole,) = api.pages(path)
        pages = api.pages(path, limit=1)
        assert [item for page in pages for item in page] == whole
        assert len(pages) == len(whole) > 1
        assert api(path, 422, cursor="???")["errors"][0]["field"] == "query.cursor"
        assert api(path, 422, limit=0)["status"] == 422
    hits = api.pages("knowledge", q="firewall", limit=1)
    assert [page[0]["path"] for page in hits] == ["docs/net/firewalls.md", "docs/net/overview.md"]


def test_a_search_finds_ranks_and_shows_where(api: Api) -> None:
    first, second = api("knowledge", q="firewall")["items"]
    assert first["path"] == "docs/net/firewalls.md"
    assert second["page"] == "/lz-sync/knowledge/docs/net/overview.md"
    assert second["anchor"] == "doc-plan"
    assert {"text": "firewall", "match": True} in second["snippet"]
    assert api("knowledge", q='"*')["items"] == []
    assert api("knowledge", 422, q="x" * 10_001)
    assert api("knowledge", 422, q="x\0")


def test_a_document_is_whole_safe_and_has_its_history_through_a_rename(api: Api) -> None:
    found = api("knowledge/docs/net/firewalls.md")
    assert found["body"] == TEXTS["docs/net/firewalls.md"]
    assert 'href="/lz-sync/knowledge/docs/net/overview.md#doc-plan"' in found["html"]
    assert 'href="https://git.example.com/lz/blob/main/docs/net/main.tf"' in found["html"]
    assert [heading["anchor"] for heading in found["headings"]] == ["doc-firewalls", "doc-review"]
    assert found["destinations"] == [
        {"path": "a/firewalls.md", "status": "synced", "reason": None},
        {"path": "b/x.md", "status": "not_synced", "reason": "is in the way"},
    ]
    changes = [(item["sha"], item["change"], item["subject"], item["insertions"]) for item in found["history"]]
    assert changes == [(SHA, "renamed", "Rename it", 2), (OLD, "added", "Start", None)]
    umlaut = api("knowledge/docs/ä b.md")
    assert "<script" not in umlaut["html"]
    assert umlaut["history"] == []


def test_a_document_that_is_not_there_is_a_problem_with_a_remedy(api: Api) -> None:
    problem = api("knowledge/docs/none.md", 404)
    assert "/api/v1/source-findings" in problem["detail"]


def test_governance_has_values_in_order_issues_by_line_and_history_by_key(api: Api) -> None:
    answer = api("governance")
    keys = [item["key"] for item in answer["items"]]
    assert keys == ["compliance.target", "owner", "owners", "teams.2.name", "teams.10.name"]
    by_key = {item["key"]: item for item in answer["items"]}
    assert by_key["owner"]["value"] is None
    assert by_key["owners"]["value"] == []
    assert by_key["compliance.target"]["changed_at"] == "2026-02-28T12:00:00Z"
    assert by_key["teams.2.name"]["line"] == 12
    assert by_key["owner"]["line"] is None
    (issue,) = answer["issues"]
    assert (issue["line"], issue["message"]) == (12, "is no name")
    assert answer["history"] is None
    below = api("governance", key="compliance")
    assert [item["key"] for item in below["items"]] == ["compliance.target"]
    assert [(item["before"], item["after"]) for item in below["history"]] == [(0.9, 0.95), (None, 0.9)]


def test_gates_come_in_the_order_of_their_file_with_what_changed_them(api: Api) -> None:
    first, second = api("gates")["items"]
    assert (first["gate_id"], first["phase"], first["severity"], first["line"]) == ("GATE-1", "plan", None, 7)
    assert (second["gate_id"], second["blocks"], second["validation"]) == ("GATE-2", "merge", "a check")
    assert [item["after"] for item in first["history"]] == [{"title": "First"}]
    assert second["history"] == []


def test_findings_can_be_chosen_by_kind(api: Api) -> None:
    (found,) = api("source-findings", kind="secret")["items"]
    assert (found["path"], found["line"], found["opened_at"]) == ("docs/key.md", 3, "2026-03-01T12:00:00Z")
    assert len(api("source-findings", kind=["secret", "governance_schema"])["items"]) == 2
    assert api("source-findings", kind="drift")["items"] == []
    assert api("source-findings", 422, kind="nonsense")


def test_terraform_blocks_can_be_chosen(api: Api) -> None:
    def addresses(**parameters: Any) -> list[str]:
        return [item["address"] for item in api("terraform", **parameters)["items"]]

    assert addresses(module="terraform/app") == ["google_sql_database.a_b"]
    assert addresses(type="google_compute_network") == ["google_compute_network.hub"]
    assert len(addresses(type="resource")) == 3
    assert addresses(q="FIREWALL") == ["google_compute_firewall.ssh"]
    assert addresses(q="a%b") == []
    assert addresses(q="a_b") == ["google_sql_database.a_b"]
