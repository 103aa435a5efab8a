"""The pages of the inventory in a real browser, served by a process of its own: the list, one resource, coverage, and
terraform."""

from __future__ import annotations

import csv
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.pages import words
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, breakers, open_store, schema, terraform_drift
from lz_sync_dagster.sync.store.terraform_drift import Compare, DriftRow, DriftStatus
from lz_sync_dagster.sync.timing import format_ns, to_ns, utcnow
from tests.e2e.conftest import portal_over

SCOPE = "organizations/1"
VM, BUCKET, SQL = "compute.googleapis.com/Instance", "storage.googleapis.com/Bucket", "sqladmin.googleapis.com/Instance"
HOSTILE = "<img src=x onerror='window.hacked = 1'>{{ constructor.constructor('window.hacked = 2')() }}"
VMS = 130
REPOSITORY = "https://git.example.com/lz"
DENIED = "the caller does not have permission"
NOW = utcnow()


def vm_name(number: int) -> str:
    return f"//compute.googleapis.com/projects/p-{number % 3}/zones/europe-west1-b/instances/vm-{number:03d}"


def vm_data(number: int, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "machineType": "https://www.googleapis.com/compute/v1/projects/p/zones/z/machineTypes/e2-small",
        "networkInterfaces": [{"name": "nic0", "networkIP": f"10.0.0.{number}", "network": NETWORK}],
        "labels": {"owner": HOSTILE} if number == 7 else {},
        "metadata": {"items": [{"key": "db-password", "value": "[redacted]"}]},
    }


NETWORK = "https://www.googleapis.com/compute/v1/projects/p-1/global/networks/hub"


class Filler:
    """Puts resources into the tables."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._contents = 0

    def content(self, data: dict[str, Any], redacted: tuple[str, ...] = ()) -> int:
        self._contents += 1
        row = {"id": self._contents, "data": data, "redacted": list(redacted)}
        self._connection.execute(schema.resource_contents.insert().values(row))
        return self._contents

    def resource(self, name: str, asset_type: str, data: dict[str, Any], at: datetime, **more: Any) -> dict[str, Any]:
        parts = name.split("/")
        redacted = ("metadata.items.0.value",) if asset_type == VM else ()
        row = {
            "name": name,
            "content_type": "RESOURCE",
            "asset_type": asset_type,
            "scope": SCOPE,
            "project": parts[parts.index("projects") + 1] if "projects" in parts else None,
            "location": "europe-west1-b" if asset_type == VM else None,
            "display_name": parts[-1],
            "deleted": False,
            "resource_id": "1",
            "update_ns": to_ns(at),
            "observed_ns": to_ns(at),
            "valid_from_ns": to_ns(at),
            "version": 1,
            "digest": str(data),
            "content_id": self.content(data, redacted),
            "source": "snapshot",
            "ancestors": ["organizations/1"],
            "changed_at": at,
        } | more
        self._connection.execute(schema.resources.insert().values(**row, seen_ns=to_ns(NOW), written=self._contents))
        return row

    def part(self, asset_type: str, status: str, since: datetime, **more: Any) -> None:
        key = {"scope": SCOPE, "asset_type": asset_type, "content_type": "RESOURCE", "status": status}
        read = None if status == "unknown" else to_ns(NOW)
        row = key | {
            "since": since,
            "complete_read_ns": read,
            "reason": more.get("reason"),
            "detail": more.get("detail"),
        }
        self._connection.execute(schema.coverage_history.insert().values(row))
        known = {"checked_at": NOW, "remedy": more.get("remedy"), "assets": more.get("assets")}
        self._connection.execute(schema.coverage.insert().values(row | known))


def fill(store: Store) -> Store:
    day = timedelta(days=1)
    with store.write() as connection:
        filler = Filler(connection)
        for number in range(VMS):
            filler.resource(vm_name(number), VM, vm_data(number, "RUNNING"), NOW - 9 * day + timedelta(minutes=number))
        changed = connection.execute(sa.select(schema.resources).where(schema.resources.c.name == vm_name(3))).one()
        old = {
            column.name: getattr(changed, column.name)
            for column in schema.resource_versions.c
            if column.name != "valid_to_ns"
        }
        connection.execute(schema.resource_versions.insert().values(**old, valid_to_ns=to_ns(NOW - day)))
        new = {
            "content_id": filler.content(vm_data(3, "TERMINATED"), ("metadata.items.0.value",)),
            "valid_from_ns": to_ns(NOW - day),
            "version": 2,
            "digest": "new",
        }
        connection.execute(schema.resources.update().where(schema.resources.c.name == vm_name(3)).values(**new))
        filler.resource("//storage.googleapis.com/logs", BUCKET, {"location": "EU"}, NOW - 2 * day)
        filler.resource(f"//storage.googleapis.com/{HOSTILE}", BUCKET, {"note": HOSTILE}, NOW - 2 * day)
        filler.part(VM, "complete", NOW - 10 * day, assets=VMS)
        filler.part(BUCKET, "complete", NOW - 5 * day, assets=2)
        remedy = "grant roles/cloudasset.viewer on organizations/1"
        filler.part(SQL, "unknown", NOW - 10 * day, reason="permission_denied", detail=DENIED, remedy=remedy)
        finding = {"framework": "cis", "severity": "high", "source": "cis", "resource": vm_name(3), "asset_type": VM}
        for control, resolved in (("4.1", None), ("4.2", NOW)):
            row = finding | {
                "control": control,
                "title": f"Rule {control}",
                "message": HOSTILE,
                "content_type": "RESOURCE",
            }
            connection.execute(schema.findings.insert().values(**row, opened_at=NOW - day, resolved_at=resolved))
        matched = DriftRow(
            "google_compute_instance.web", "terraform/vm.tf", 12, "google_compute_instance", VM, DriftStatus.CHANGED,
            None, vm_name(3), [{"field": "status", "terraform": "RUNNING", "actual": "TERMINATED"}], "ab" * 20,
        )  # fmt: skip
        unresolved = replace(matched, address="google_compute_instance.many", status=DriftStatus.UNRESOLVED)
        unresolved = replace(unresolved, resource=None, differences=[], reason="count comes from var.size", line=30)
        connection.execute(schema.policy_sets.insert().values(fingerprint="x", applied_at=NOW))
        terraform_drift.replace(connection, [matched, unresolved], Compare("x", 1, NOW))
    sync(store)
    return store


@pytest.fixture
def filled(sqlite_store: Store) -> Store:
    """A store of the test's own, for those that change it."""
    return fill(sqlite_store)


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a portal over a store that nobody changes."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(sqlite_template, folder / "store.db")
    with (
        open_store(f"sqlite:///{folder / 'store.db'}", migrate=False) as store,
        portal_over(fill(store), folder, REPOSITORY) as url,
    ):
        yield url


def sync(store: Store) -> None:
    done = LayerOutcome(items_synced=VMS + 2, items_changed=0, as_of=NOW)
    for layer in (LayerId.GIT, LayerId.API):
        run_to_end(store, layer, lambda _: done, triggered_by="test", clock=utcnow, sleep=time.sleep)


def names(page: Page) -> list[str]:
    return page.locator("tr[data-name] th a").all_inner_texts()


def open_list(page: Page, url: str, query: str = "") -> None:
    page.goto(f"{url}/lz-sync/infrastructure{query}")
    # The counts are read after the list, by the page that then is connected.
    expect(page.get_by_role("group", name="Location")).to_be_attached()


def test_filter_search_sort_and_reload(page: Page, served: str) -> None:
    page.goto(served)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Infrastructure").click()
    heading = page.locator(".lz-top h2")
    expect(heading).to_have_text("132 known resources")
    kinds = page.get_by_role("group", name="Type")
    expect(kinds.locator("li").first).to_contain_text("130")
    kinds.get_by_role("link", name="Instance · compute").click()
    expect(heading).to_have_text("130 resources")
    columns = page.locator(".lz-table thead th").all_inner_texts()
    assert columns[1:6] == ["Violations", "Status", "Machine type", "Internal addresses", "External addresses"]
    expect(page.locator("tr[data-name] td").nth(1)).to_have_text("RUNNING")
    page.get_by_role("group", name="Project").get_by_role("link", name="p-1").click()
    expect(heading).to_have_text("43 resources")
    page.get_by_role("searchbox", name="Search resources by name").press_sequentially("VM-00")
    expect(heading).to_have_text("3 resources")
    page.locator(".lz-table thead").get_by_role("link", name="Name").click()
    expect(page.locator("thead th").first).to_have_attribute("aria-sort", "descending")
    assert names(page) == ["vm-007", "vm-004", "vm-001"]
    page.reload()
    expect(heading).to_have_text("3 resources")
    assert names(page) == ["vm-007", "vm-004", "vm-001"]
    page.get_by_role("link", name="Without the filter Project: p-1").click()
    expect(heading).to_have_text("10 resources")
    page.go_back()
    expect(heading).to_have_text("3 resources")


def test_every_filter_that_holds_is_listed_and_counted(page: Page, served: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{served}/lz-sync/infrastructure?violations=true&type={VM}&q=vm")
    filters = page.get_by_role("list", name="Filters that hold")
    expect(filters.locator("li")).to_have_text([f"Type: {VM}×", "With open violations×", "Name has “vm”×", "Clear all"])
    expect(page.locator(".lz-filters > summary")).to_have_text("Filters (3)")
    filters.get_by_role("link", name="Without the filter With open violations").click()
    expect(page.locator(".lz-filters > summary")).to_have_text("Filters (2)")
    filters.get_by_role("link", name="Clear all").click()
    expect(filters).to_have_count(0)
    expect(page.locator(".lz-filters > summary")).to_have_text("Filters")
    expect(page.get_by_role("searchbox", name="Search resources by name")).to_have_value("")
    expect(page).to_have_url(re.compile("infrastructure$"))


def test_a_list_of_what_is_deleted_says_since_when_that_is_known(page: Page, served: str) -> None:
    open_list(page, served, f"?type={VM}&deleted=true")
    begun = (NOW - timedelta(days=10)).strftime("%Y-%m-%d %H:%M UTC")
    expect(page.locator(".lz-top h2")).to_have_text(f"0 resources deleted since {begun}, when reading began")
    expect(page.get_by_text("what was deleted before is not known")).to_be_visible()


def test_pages_forward_and_back_are_the_same(page: Page, served: str) -> None:
    open_list(page, served, f"?type={VM}")
    first = names(page)
    assert len(first) == 50
    pages = page.get_by_role("navigation", name="Pages of the list")
    expect(pages.get_by_role("link", name="Previous page")).to_have_count(0)
    expect(pages).to_contain_text("rows 1-50 of 130")
    entries = page.evaluate("history.length")
    pages.get_by_role("link", name="Next page").evaluate("e => { e.click(); e.click(); e.click(); }")
    expect(page.locator("tr[data-name] th a").first).not_to_have_text(first[0])
    expect(pages).to_contain_text("rows 51-100 of 130")
    assert page.evaluate("history.length") == entries + 1
    second = names(page)
    pages.get_by_role("link", name="Next page").click()
    expect(page.locator("tr[data-name]")).to_have_count(30)
    expect(pages.get_by_role("link", name="Next page")).to_have_count(0)
    third = names(page)
    page.reload()
    expect(page.locator("tr[data-name]")).to_have_count(30)
    expect(pages).to_contain_text("rows 101-130 of 130")
    expect(page.locator(".lz-main").get_by_role("status").last).to_have_text("130 resources")
    expect(page.get_by_role("heading", name="130 resources")).to_be_visible()
    assert sorted({*first, *second, *third}) == [f"vm-{number:03d}" for number in range(VMS)]
    pages.get_by_role("link", name="Previous page").click()
    expect(page.locator("tr[data-name] th a").first).to_have_text(second[0])
    assert names(page) == second
    pages.get_by_role("link", name="Previous page").click()
    expect(page.locator("tr[data-name] th a").first).to_have_text(first[0])
    assert names(page) == first


def test_what_was_not_read_is_said_and_no_zero(page: Page, served: str) -> None:
    open_list(page, served, f"?type={SQL}")
    expect(page.locator(".lz-top h2")).to_have_text("No known resource fits")
    expect(page.get_by_text("Nothing that is known fits, and not everything is known")).to_be_visible()
    note = page.get_by_role("note")
    expect(note).to_contain_text(DENIED)
    expect(note).to_contain_text("Remedy: grant roles/cloudasset.viewer on organizations/1")
    open_list(page, served, f"?type={BUCKET}&q=zzz")
    expect(page.get_by_text("Nothing fits: everything was read, and there is no such resource.")).to_be_visible()


def test_the_state_of_an_instant_by_slider_and_by_text(page: Page, served: str) -> None:
    open_list(page, served, "?q=vm-003")
    slider = page.get_by_role("slider", name="Instant: from")
    expect(slider).to_have_attribute("aria-valuetext", "now")
    width = slider.evaluate("e => e.offsetWidth")
    slider.focus()
    entries = page.evaluate("history.length")
    slider.press("ArrowLeft")
    expect(page.get_by_text("The state at")).to_be_visible()
    expect(page).to_have_url(re.compile("as_of="))
    before = page.url
    last = int(slider.get_attribute("max") or 0)
    for _ in range(5):
        slider.press("ArrowLeft")
    expect(page).not_to_have_url(before)
    expect(slider).to_have_js_property("value", str(last - 6))
    slider.press("Home")
    expect(slider).to_have_js_property("value", "0")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"))
    first = slider.get_attribute("aria-valuetext")
    expect(page.get_by_text(f"The state at {first}")).to_be_visible()
    expect(slider).to_be_focused()
    assert slider.evaluate("e => e.offsetWidth") == width
    assert page.evaluate("history.length") == entries + 1
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "now")
    expect(page.get_by_text("The state at")).to_have_count(0)
    slider.press("ArrowLeft")
    expect(page.get_by_text("The state at")).to_be_visible()
    page.get_by_role("button", name="Now").click()
    expect(page.get_by_text("The state at")).to_have_count(0)
    expect(slider).to_have_js_property("value", str(last))
    exact = page.get_by_role("textbox", name="Exact instant, in UTC")
    exact.fill("yesterday")
    exact.press("Enter")
    expect(page.get_by_text("“as of” is no instant")).to_be_visible()
    expect(exact).to_have_attribute("aria-invalid", "true")
    exact.fill((NOW - timedelta(days=8)).strftime("%Y-%m-%d %H:%M:%S UTC"))
    exact.press("Enter")
    expect(exact).not_to_have_attribute("aria-invalid", "true")
    expect(page.locator(".lz-top h2")).to_have_text("1 known resource")
    note = page.get_by_role("note")
    expect(note).to_contain_text("2 of 3 parts were not known completely then")
    expect(note).not_to_contain_text("Remedy")
    expect(note.get_by_role("link").first).to_have_attribute("href", re.compile("as_of="))
    expect(page.locator("tr[data-name] td.lz-nowrap").first).to_have_text("23 h ago")
    page.get_by_role("link", name="vm-003", exact=True).click()
    expect(page.get_by_text("As it was at")).to_be_visible()
    expect(page.locator(".lz-glance")).to_contain_text("RUNNING")
    expect(page.locator(".lz-pairs")).to_contain_text("(23 h ago then)")
    for name in ("Infrastructure", VM, "p-0"):
        expect(page.locator(".lz-main").get_by_role("link", name=name, exact=True)).to_have_attribute(
            "href", re.compile("as_of=")
        )
    page.get_by_role("link", name="As it is now").click()
    expect(page.locator(".lz-glance")).to_contain_text("TERMINATED")
    open_list(page, served, "?as_of=yesterday")
    expect(page.get_by_text("“as_of” is no instant")).to_be_visible()


def test_one_resource_with_its_differences_findings_and_terraform(page: Page, served: str) -> None:
    open_list(page, served, "?violations=true")
    expect(page.locator(".lz-top h2")).to_have_text("1 open violation on 1 known resource")
    page.get_by_role("link", name="vm-003", exact=True).click()
    expect(page.get_by_role("heading", name="vm-003")).to_be_visible()
    history = page.get_by_role("region", name="History").locator(".lz-history > li")
    expect(history).to_have_count(2)
    expect(history.first.locator(".lz-fields li")).to_have_text("statusRUNNING→TERMINATEDchanged")
    judged = f"Evaluated with version 2 at {NOW.strftime('%Y-%m-%d %H:%M:%S')} UTC."
    expect(page.get_by_role("region", name="Findings")).to_contain_text(judged)
    expect(page.get_by_label("Open findings")).to_contain_text("Rule 4.1")
    expect(page.get_by_label("Resolved findings")).to_be_hidden()
    page.get_by_text("1 resolved").click()
    expect(page.get_by_label("Resolved findings")).to_contain_text("Rule 4.2")
    terraform = page.get_by_role("region", name="Terraform")
    expect(terraform).to_contain_text("google_compute_instance.web")
    expect(terraform).to_contain_text("terraform/vm.tf:12")
    expect(terraform).to_contain_text("in terraform RUNNING is TERMINATED")
    expect(page.get_by_role("region", name="Cost")).to_contain_text("Not known")
    expect(page.get_by_role("region", name="Refers to")).to_contain_text("1 not in the inventory")
    tree = page.locator(".lz-tree")
    assert tree.evaluate("e => e.textContent").startswith("status: TERMINATED")
    tree.locator("summary", has_text="items").press("Enter")
    tree.locator("li", has_text="metadata").locator("details details > summary").last.press("Enter")
    expect(tree.get_by_text("Removed: may be a secret")).to_be_visible()


def test_text_of_the_organization_is_never_html(page: Page, served: str) -> None:
    open_list(page, served, f"?type={BUCKET}")
    page.get_by_role("link", name="window.hacked").first.click()
    expect(page.locator(".lz-main").get_by_role("heading").first).to_contain_text("<img src=x")
    expect(page.locator(".lz-tree")).to_contain_text("<img src=x")
    for name in (vm_name(3), vm_name(7)):
        page.goto(f"{served}/lz-sync/infrastructure/resource?name={name}")
        expect(page.locator(".lz-tree")).to_be_visible()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_an_unknown_name_is_said_to_be_unknown(page: Page, served: str) -> None:
    page.goto(f"{served}/lz-sync/infrastructure/resource?name=//x/y")
    expect(page.get_by_role("heading", name="The resource is not known")).to_be_visible()
    expect(page.get_by_role("note")).to_contain_text("1 of 3 parts was not read completely")


def test_a_name_that_was_not_known_then_is_said_to_be_so_with_what_was_not_read_of_its_part(
    page: Page, served: str
) -> None:
    then = format_ns(to_ns(NOW - timedelta(days=8)))
    page.goto(f"{served}/lz-sync/infrastructure/resource?name=//storage.googleapis.com/logs&as_of={then}")
    expect(page.get_by_role("heading", name="The resource was not known then")).to_be_visible()
    note = page.get_by_role("note")
    expect(note).to_contain_text("This part was not known completely then")
    expect(note).not_to_contain_text(SQL)
    page.goto(f"{served}/lz-sync/infrastructure/resource?name=//x/y&as_of=yesterday")
    expect(page.get_by_text("“as_of” is no instant")).to_be_visible()


@pytest.mark.parametrize(("title", "ending"), [("CSV", "csv"), ("JSON Lines", "jsonl"), ("Parquet", "parquet")])
def test_an_export_has_what_the_list_has(page: Page, served: str, tmp_path: Path, title: str, ending: str) -> None:
    open_list(page, served, f"?type={VM}&q=vm-00")
    with page.expect_download() as waiting:
        page.get_by_role("link", name=title, exact=True).click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.name == f"resources.{ending}"
    if ending == "csv":
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert [row["name"] for row in csv.DictReader(lines)] == sorted(vm_name(number) for number in range(10))
    else:
        assert path.stat().st_size > 100


def test_the_matrix_begins_with_problems_and_tells_why(page: Page, served: str) -> None:
    page.goto(f"{served}/lz-sync")
    page.get_by_role("region", name="Coverage").get_by_role("link", name="part by part").click()
    rows = page.locator("tr[data-type]")
    assert [row.get_attribute("data-type") for row in rows.all()] == [SQL, VM, BUCKET]
    denied = rows.first
    for said in ("Unknown", "never read completely", "count unknown"):
        expect(denied).to_contain_text(said)
    expect(denied).not_to_contain_text("0 assets")
    denied.locator("summary").press("Enter")
    expect(denied).to_contain_text(f"permission denied: {DENIED}")
    expect(denied).to_contain_text("Remedy: grant roles/cloudasset.viewer on organizations/1")
    expect(rows.nth(1)).to_contain_text("130 assets")
    expect(page.get_by_text("No deletion waits.")).to_be_visible()
    page.get_by_role("link", name="Problems only").click()
    expect(rows).to_have_count(1)
    expect(rows.first.get_by_text("Remedy: grant roles/cloudasset.viewer on organizations/1")).to_be_visible()
    page.get_by_role("link", name=f"History of {SQL} RESOURCE").click()
    expect(page.get_by_role("region", name="History of the part").locator("li")).to_have_count(1)
    page.goto(f"{served}/lz-sync/coverage?as_of={format_ns(to_ns(NOW - timedelta(days=8)))}")
    expect(page.locator(f"tr[data-type='{BUCKET}']")).to_contain_text("Unknown")
    expect(page.get_by_text("What was known at")).to_be_visible()
    complete = page.locator(f"tr[data-type='{VM}']")
    expect(complete).to_contain_text("Complete")
    expect(complete).to_contain_text("complete then, age not kept")
    expect(page.locator(".lz-provenance").first).to_contain_text("API sync now:")
    for name in (f"History of {VM} RESOURCE in {SCOPE}", f"Resources of {SCOPE}"):
        expect(page.get_by_role("link", name=name)).to_have_attribute("href", re.compile("as_of="))


def test_the_panels_tell_quota_breakers_and_the_feed(filled: Store, page: Page, url: str) -> None:
    with filled.write() as connection:
        lost = [vm_name(number) for number in range(80)]
        breakers.open_breaker(connection, (SCOPE, VM, "RESOURCE"), known=VMS, names=lost, read_ns=to_ns(NOW), now=NOW)
        hour = NOW.replace(minute=0, second=0, microsecond=0)
        told = {"delivered": 9, "missed": 1, "source_delays": {"1000": 9}, "own_delays": {"50": 8, "later": 1}}
        connection.execute(schema.feed_freshness.insert().values(asset_type=VM, hour=hour, **told))
    page.goto(f"{url}/lz-sync/coverage")
    waiting = page.get_by_role("region", name="Deletions that wait for a person")
    expect(waiting).to_contain_text(f"80 of 130 {VM}")
    expect(waiting).to_contain_text(f"lz-sync breaker confirm {SCOPE} {VM} RESOURCE")
    quota = page.locator("section[aria-label='Quota']")
    expect(quota.locator("tbody tr").first).to_contain_text("list assets")
    expect(quota).to_contain_text("unknown")
    expect(quota).to_contain_text("No scope is configured")
    feed = page.locator("section[aria-label='Freshness of the asset feed'] tbody tr")
    for said in ("Instance · compute", "1 (10.0 %)", "half ≤ 1 s", "95 % > 1 h"):
        expect(feed).to_contain_text(said)
    terraform = page.locator("section[aria-label='Terraform']")
    expect(terraform).to_contain_text("Unresolved")


def test_drift_lists_blocks_with_their_place_and_resources_without_one(page: Page, served: str) -> None:
    page.goto(f"{served}/lz-sync/drift")
    block = page.locator("[data-address='google_compute_instance.web']")
    for said in ("Changed", "terraform/vm.tf:12", "vm-003", "in terraform RUNNING is TERMINATED"):
        expect(block).to_contain_text(said)
    place = block.get_by_role("link", name="terraform/vm.tf:12")
    expect(place).to_have_attribute("href", f"{REPOSITORY}/blob/{'ab' * 20}/terraform/vm.tf#L12")
    expect(page.locator("[data-address='google_compute_instance.many']")).to_contain_text("count comes from var.size")
    page.get_by_role("link", name="1 unresolved").click()
    expect(page.locator("[data-address]")).to_have_count(1)
    page.get_by_role("link", name="131 known unmanaged").click()
    expect(page.locator("tr[data-name]")).to_have_count(50)
    expect(page.locator("tr[data-name]").first).to_contain_text("it may be one of them")
    expect(page.locator("tr[data-name] th").first.get_by_role("link")).to_have_text("vm-000")
    expect(page.locator("tr[data-name] th").first).to_contain_text(vm_name(0).removeprefix("//"))
    first = names(page)
    pages = page.get_by_role("navigation", name="Pages of the list")
    expect(pages.get_by_role("link", name="Previous page")).to_have_count(0)
    pages.get_by_role("link", name="Next page").click()
    expect(page.locator("tr[data-name] th a").first).not_to_have_text(first[0])
    second = names(page)
    pages.get_by_role("link", name="Next page").click()
    expect(pages.get_by_role("link", name="Next page")).to_have_count(0)
    pages.get_by_role("link", name="Previous page").click()
    expect(page.locator("tr[data-name] th a").first).to_have_text(second[0])
    assert names(page) == second
    pages.get_by_role("link", name="Previous page").click()
    expect(page.locator("tr[data-name] th a").first).to_have_text(first[0])
    assert names(page) == first
    expect(pages.get_by_role("link", name="Previous page")).to_have_count(0)
    pages.get_by_role("link", name="Next page").click()
    expect(pages.get_by_role("link", name="First page")).to_be_visible()
    box = page.get_by_role("searchbox", name="Search terraform blocks")
    box.fill("vm-129")
    box.press("Enter")
    expect(page.locator("tr[data-name]")).to_have_count(1)
    page.locator("tr[data-name] a").first.click()
    terraform = page.get_by_role("region", name="Terraform")
    expect(terraform).to_contain_text("No block was found to stand for it, but")
    expect(terraform).to_contain_text(re.compile("compared .* ago, landing zone at commit unknown"))


def test_drift_takes_nothing_that_was_not_read_for_nothing(page: Page, served: str) -> None:
    page.goto(f"{served}/lz-sync/drift?status=unmanaged&type={SQL}")
    expect(page.get_by_role("link", name="unknown unmanaged")).to_be_visible()
    expect(page.get_by_text("Not known: not everything that this is about was read")).to_be_visible()
    expect(page.get_by_text("Nothing fits")).to_have_count(0)
    note = page.get_by_role("note")
    expect(note).to_contain_text(DENIED)
    expect(note).to_contain_text("Remedy: grant roles/cloudasset.viewer on organizations/1")
    layers = page.locator(".lz-provenance").first
    expect(layers).to_contain_text("Git sync")
    expect(layers).to_contain_text("API sync")
    page.goto(f"{served}/lz-sync/drift?status=unmanaged&type={BUCKET}&q=zzz")
    expect(page.get_by_role("link", name="0 unmanaged")).to_be_visible()
    expect(page.get_by_text("Nothing fits what is asked for.")).to_be_visible()
    expect(page.get_by_role("note")).to_have_count(0)


def test_ages_go_on_in_the_words_of_the_server(page: Page, served: str) -> None:
    page.goto(f"{served}/lz-sync/drift")
    age = page.locator(".lz-provenance time").first
    expect(page.locator(".lz-updated")).to_have_text(re.compile(r"Read \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"))
    expect(age).to_have_attribute("title", re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"))
    for length in (timedelta(minutes=1.5), timedelta(hours=1.5), timedelta(hours=47.5), timedelta(days=2.5)):
        age.evaluate("(element, then) => element.setAttribute('datetime', then)", (utcnow() - length).isoformat())
        expect(age).to_have_text(words.ago(utcnow() - length, utcnow()))
    then = (utcnow() - timedelta(seconds=57)).isoformat()
    age.evaluate("(element, then) => element.setAttribute('datetime', then)", then)
    expect(age).to_have_text(re.compile(r"5\d s ago"))
    expect(age).to_have_text("1 min ago", timeout=10_000)


def test_a_search_of_drift_can_be_seen_and_taken_back(page: Page, served: str) -> None:
    page.goto(f"{served}/lz-sync/drift?status=unmanaged")
    box = page.get_by_role("searchbox", name="Search terraform blocks")
    page.wait_for_function("window.did_handshake")
    box.fill("vm-129")
    box.press("Enter")
    expect(page.get_by_label("Filters that hold")).to_contain_text("Has “vm-129”")
    expect(page.get_by_role("heading", name="Unmanaged")).to_be_focused()
    page.wait_for_function("window.did_handshake")
    page.locator(".lz-search").get_by_role("button").click()
    expect(page.get_by_label("Filters that hold")).to_have_count(0)
    expect(page.locator("tr[data-name]")).to_have_count(50)
    page.goto(f"{served}/lz-sync/drift?status=gone&after=x")
    expect(page.get_by_text("“status” is one of")).to_be_visible()
    expect(page.get_by_text("The address names no place in this list")).to_be_visible()


def test_everything_can_be_reached_by_keyboard(page: Page, served: str) -> None:
    open_list(page, served)
    link = page.get_by_role("group", name="Type").get_by_role("link", name="Bucket · storage")
    link.focus()
    link.press("Enter")
    expect(page.locator("tr[data-name]")).to_have_count(2)
    expect(page.get_by_role("group", name="Type").get_by_role("link", name="Bucket · storage")).to_be_focused()
    open_list(page, served, f"?type={VM}")
    following = page.get_by_role("link", name="Next page")
    following.focus()
    following.press("Enter")
    expect(page.get_by_role("link", name="Previous page")).to_be_visible()
    expect(page.locator(".lz-top h2")).to_be_focused()


def test_before_the_first_sync_nothing_is_known(page: Page, url: str) -> None:
    open_list(page, url)
    expect(page.get_by_role("alert")).to_contain_text("Nothing was read from the organization yet")
    expect(page.get_by_text("Nothing is known yet: nothing of this was read.")).to_be_visible()
    page.goto(f"{url}/lz-sync/coverage")
    expect(page.get_by_text("Nothing was read yet: what exists is not known.")).to_be_visible()
    page.goto(f"{url}/lz-sync/drift")
    expect(page.get_by_text("Not known: terraform was not compared with the inventory yet.")).to_be_visible()


def test_after_a_failed_sync_the_last_good_data_is_shown_and_said_to_be_so(filled: Store, page: Page, url: str) -> None:
    def work(_: Any) -> LayerOutcome:
        raise SyncError("is gone", where="the organization", remedy="look", reason=Reason.NOT_FOUND, transient=False)

    with pytest.raises(SyncError):
        run_to_end(filled, LayerId.API, work, triggered_by="test", clock=utcnow, sleep=time.sleep)
    page.goto(f"{url}/lz-sync/drift")
    expect(page.get_by_role("alert")).to_contain_text("The last inventory sync failed")
    open_list(page, url)
    expect(page.get_by_role("alert")).to_contain_text("The last inventory sync failed")
    expect(page.locator("tr[data-name]")).to_have_count(50)


def test_a_store_that_cannot_be_read_is_said_to_be_so(filled: Store, page: Page, url: str) -> None:
    with filled.write() as connection:
        connection.execute(sa.text("ALTER TABLE coverage RENAME TO elsewhere"))
    for address in ("infrastructure", f"infrastructure/resource?name={vm_name(3)}", "coverage", "drift"):
        page.goto(f"{url}/lz-sync/{address}")
        expect(page.get_by_role("alert")).to_contain_text("The store cannot be read")


@pytest.mark.parametrize(
    "address",
    [
        "infrastructure",
        f"infrastructure?type={VM}&q=vm",
        f"infrastructure/resource?name={vm_name(3)}",
        "coverage",
        "drift",
    ],
)
def test_a_phone_shows_the_page_without_sideways_scrolling(page: Page, served: str, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{served}/lz-sync/{address}")
    expect(page.locator(".lz-provenance").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if address == "infrastructure":
        expect(page.locator(".lz-filters")).not_to_have_attribute("open", "")
        page.locator(".lz-filters > summary").press("Enter")
        expect(page.get_by_role("group", name="Type")).to_be_visible()
