"""The Knowledge and Governance pages in a real browser, served by a process of its own."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.documents import read_document
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, repository, schema, source_findings
from lz_sync_dagster.sync.store.repository import Gate, GovernanceValue, SyncedFile
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding
from lz_sync_dagster.sync.timing import utcnow

SHA = "ab" * 20
TEXTS = {
    "docs/firewalls.md": "# Firewalls\n\nWhich ranges: see [the plan](net/overview.md#address-plan).\n",
    "docs/net/overview.md": "# Overview\n\n" + "Text.\n\n" * 80 + "## Address plan\n\nThe hub has the first range.\n",
    "docs/attack.md": "# Attack\n\n<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\n\n"
    "<form action='https://evil.example'><input autofocus onfocus='window.hacked = 3'></form>\n\n"
    "<div style='position:fixed;inset:0;background:red' class='fullscreen' id='app'>over it all</div>\n\n"
    "<a href='javascript:window.hacked=4'>press</a> {{ constructor.constructor('window.hacked = 5')() }}\n",
}


@pytest.fixture
def filled(sqlite_store: Store) -> Store:
    now = utcnow()
    done = LayerOutcome(items_synced=3, items_changed=3, as_of=now)
    run_to_end(sqlite_store, LayerId.GIT, lambda _: done, triggered_by="test", clock=utcnow, sleep=time.sleep)
    with sqlite_store.write() as connection:
        records = [read_document(path, text, blob="0" * 40, commit=SHA) for path, text in TEXTS.items()]
        repository.replace_documents(connection, TEXTS, records)
        author = {"author_name": "Ada", "author_email": "a@example.com", "subject": "Plan the ranges", "parents": []}
        counts = {"files_changed": 1, "insertions": 5, "deletions": 2}
        at = {"sha": SHA, "committed_at": now - timedelta(days=3)}
        connection.execute(schema.commits.insert().values(**at, **author, **counts))
        touched = {"path": "docs/net/overview.md", "change": "modified", "insertions": 5, "deletions": 2}
        connection.execute(schema.commit_files.insert().values(**at, **touched))
        values: list[Any] = [GovernanceValue("budget.eur", "a lot", "pmo.yaml", SHA)]
        repository._insert(connection, schema.governance, values)
        gate = Gate("GATE-1", "Plan is clean", "pull request", "high", "merge", "terraform plan", None, "G.md", 7, SHA)
        repository._insert(connection, schema.enforcement_gates, [gate])
        file = SyncedFile("docs/key.md", "x/key.md", "0" * 40, 0o100644, 1, "not_synced", "contains a secret", SHA)
        repository._insert(connection, schema.synced_files, [file])
        changed = {"kind": "governance", "key": "budget.eur", "path": "pmo.yaml", "change": "modified"}
        connection.execute(schema.item_changes.insert().values(**at, **changed, before=5, after="a lot"))
        found = [
            SourceFinding(FindingKind.GOVERNANCE_SCHEMA, "pmo.yaml", 12, "budget.eur", "medium", "is no number", SHA),
            SourceFinding(FindingKind.SECRET, "docs/key.md", 3, "", "critical", "remove and revoke it", SHA),
        ]
        source_findings.replace(connection, found, kinds=list(FindingKind), paths=None, now=now)
    return sqlite_store


def fail_a_sync(store: Store) -> None:
    def work(_: Any) -> LayerOutcome:
        raise SyncError("is gone", where="the landing zone", remedy="look", reason=Reason.NOT_FOUND, transient=False)

    with pytest.raises(SyncError):
        run_to_end(store, LayerId.GIT, work, triggered_by="test", clock=utcnow, sleep=time.sleep)


def test_search_open_follow_a_link_and_see_the_history(filled: Store, page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Knowledge").click()
    expect(page.get_by_role("link", name="Overview")).to_be_visible()
    box = page.get_by_role("searchbox", name="Search the documents")
    box.press_sequentially("rang")
    hits = page.locator(".lz-hits > li")
    expect(hits).to_have_count(2)
    expect(page.locator(".lz-hits mark").first).to_contain_text("range")
    expect(page).to_have_url(f"{url}/lz-sync/knowledge?q=rang")
    page.reload()
    expect(hits).to_have_count(2)
    hits.get_by_role("link", name="Firewalls").press("Enter")
    expect(page.locator(".lz-article h1")).to_have_text("Firewalls")
    page.get_by_role("link", name="the plan").click()
    expect(page).to_have_url(f"{url}/lz-sync/knowledge/docs/net/overview.md#doc-address-plan")
    expect(page.locator(".lz-article h2")).to_be_in_viewport()
    history = page.locator(".lz-history > li")
    expect(history).to_have_count(1)
    expect(history).to_contain_text("Plan the ranges")
    expect(history).to_contain_text("by Ada · +5 −2")
    contents = page.get_by_role("navigation", name="On this page")
    assert contents.get_by_role("link").all_inner_texts() == ["Overview", "Address plan"]


def test_a_search_that_finds_nothing_says_so(filled: Store, page: Page, url: str) -> None:
    page.goto(f"{url}/lz-sync/knowledge?q=nowhere")
    expect(page.get_by_text("None of the 3 documents has every one of these words.")).to_be_visible()
    page.get_by_role("searchbox").fill('"*&')
    expect(page.get_by_text("There is no word to search for.")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    expect(page.get_by_role("heading", name="All documents")).to_be_visible()


def test_a_document_that_attacks_does_nothing(filled: Store, page: Page, url: str) -> None:
    page.goto(f"{url}/lz-sync/knowledge/docs/attack.md")
    article = page.locator(".lz-article")
    expect(article).to_contain_text("over it all")
    expect(article).to_contain_text("{{ constructor")
    assert article.locator("script, img, form, input, [style], [class*=fullscreen], #app").count() == 0
    article.get_by_text("press").click()
    assert page.evaluate("window.hacked") is None


def test_governance_shows_values_issues_gates_findings_and_what_is_not_synced(
    filled: Store, page: Page, url: str
) -> None:
    page.goto(f"{url}/lz-sync/governance")
    values = page.get_by_role("region", name="Values of budget")
    expect(values).to_contain_text("a lot")
    expect(values).to_contain_text("3 d ago")
    expect(page.get_by_label("Issues of pmo.yaml")).to_have_text("pmo.yaml:12: is no number")
    gate = page.locator("[data-gate='GATE-1']")
    for cell in ("Plan is clean", "pull request", "High", "merge", "terraform plan", "unknown"):
        expect(gate).to_contain_text(cell)
    expect(page.get_by_role("region", name="Findings")).to_contain_text("docs/key.md:3")
    expect(page.get_by_role("region", name="Files that are not synced")).to_contain_text("contains a secret")
    expect(page.get_by_label("Recent changes")).to_contain_text("5 → a lot")


def test_after_a_failed_sync_the_last_good_data_is_shown_and_said_to_be_so(filled: Store, page: Page, url: str) -> None:
    fail_a_sync(filled)
    for address in ("knowledge", "knowledge/docs/firewalls.md", "governance"):
        page.goto(f"{url}/lz-sync/{address}")
        expect(page.get_by_role("alert")).to_contain_text("The last git sync failed")
        expect(page.get_by_role("alert")).to_contain_text("the last good data, as of")
    expect(page.get_by_text("a lot", exact=True)).to_be_visible()


def test_before_the_first_sync_nothing_is_known(page: Page, url: str) -> None:
    page.goto(f"{url}/lz-sync/governance")
    expect(page.get_by_role("alert")).to_contain_text("Nothing was read from the landing zone yet")
    expect(page.get_by_label("Enforcement gates")).to_contain_text("Not known yet")
    page.goto(f"{url}/lz-sync/knowledge/docs/none.md")
    expect(page.get_by_role("heading", name="There is no such document")).to_be_visible()


def test_a_store_that_cannot_be_read_is_said_to_be_so(filled: Store, page: Page, url: str) -> None:
    with filled.write() as connection:
        connection.execute(sa.text("ALTER TABLE documents RENAME TO elsewhere"))
    page.goto(f"{url}/lz-sync/knowledge")
    expect(page.get_by_role("alert")).to_contain_text("The store cannot be read")


@pytest.mark.parametrize("address", ["knowledge?q=range", "knowledge/docs/net/overview.md", "governance"])
def test_a_phone_shows_the_page_without_sideways_scrolling(filled: Store, page: Page, url: str, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{url}/lz-sync/{address}")
    expect(page.locator(".lz-provenance")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
