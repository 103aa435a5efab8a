"""The Sync Status page in a real browser, served by a process of its own."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from lz_sync_dagster.layers import LAYERS, LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import EventType
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, event_log, inbox
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.inbox import NewDelivery
from lz_sync_dagster.sync.store.schema import head_moves
from lz_sync_dagster.sync.timing import utcnow
from tests.conftest import until


def append(store: Store, name: str) -> int:
    resource = {"name": f"//compute.googleapis.com/{name}", "asset_type": "compute.googleapis.com/Instance"}
    event = NewEvent(EventType.RESOURCE_CREATED, LayerId.PUBSUB, datetime.now(UTC), resource | {"display_name": name})
    with store.write() as connection:
        return event_log.append(connection, [event], recorded_at=datetime.now(UTC))


def test_the_page_shows_five_layers_and_takes_nothing_unknown_for_zero(page: Page, url: str) -> None:
    page.goto(url)
    layers = page.locator(".lz-layer")
    expect(layers).to_have_count(5)
    assert layers.locator("h3").all_inner_texts() == [layer.title for layer in LAYERS]
    for index in range(5):
        expect(layers.nth(index).locator(".lz-chip")).to_contain_text("Unknown")
        expect(layers.nth(index).locator("dl > div", has_text="Items synced").locator("dd")).to_have_text("unknown")
    for index in range(7):
        expect(page.locator(".lz-figure").nth(index).locator(".lz-value")).to_have_text("unknown")
    expect(page.get_by_text("Not computed yet.")).to_be_visible()


def test_what_is_shown_says_how_old_it_is_and_what_was_tried(page: Page, url: str, sqlite_store: Store) -> None:
    def work(_: Any) -> LayerOutcome:
        raise SyncError("is gone", where="the organization", remedy="look", reason=Reason.NOT_FOUND, transient=False)

    page.goto(url)
    for name in ("State of the landing zone", "Coverage"):
        provenance = page.get_by_role("region", name=name).locator(".lz-provenance")
        expect(provenance).to_contain_text("as of unknown")
        expect(provenance).to_contain_text("from cloud asset inventory")
    with pytest.raises(SyncError):
        run_to_end(sqlite_store, LayerId.API, work, triggered_by="test", clock=utcnow, sleep=lambda _: None)
    layer = page.locator('[data-layer="api"]')
    expect(layer.locator("dl > div", has_text="Last attempt").locator("dd")).to_have_text(
        re.compile(r"\d+ s ago"), timeout=10_000
    )
    expect(layer.locator("dl > div", has_text="Last success").locator("dd")).to_have_text("never")


def test_a_lost_connection_is_said_and_takes_the_green_away(page: Page, url: str, sqlite_store: Store) -> None:
    done = LayerOutcome(1, 1, utcnow())
    run_to_end(sqlite_store, LayerId.GIT, lambda _: done, triggered_by="test", clock=utcnow, sleep=lambda _: None)
    page.goto(url)
    page.wait_for_function("window.socket && window.socket.connected")
    green = page.locator('[data-layer="git"] .lz-good')
    expect(green).to_have_css("background-color", "rgb(227, 244, 234)")
    page.evaluate("window.socket.disconnect()")
    banner = page.get_by_role("alert").filter(has_text=re.compile(r"Not live since \d{4}-\d\d-\d\d .* UTC"))
    expect(banner).to_be_visible(timeout=10_000)
    expect(green).to_have_css("background-color", "rgb(237, 240, 243)")
    page.evaluate("window.socket.connect()")
    expect(banner).to_have_count(0, timeout=10_000)
    expect(green).to_have_css("background-color", "rgb(227, 244, 234)")


def test_what_happens_appears_without_a_reload(page: Page, url: str, sqlite_store: Store) -> None:
    append(sqlite_store, "first-vm")
    page.goto(url)
    expect(page.get_by_text("Instance first-vm was created")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    seq = append(sqlite_store, "second-vm")
    newest = page.locator(".lz-feed > li").first
    expect(newest).to_contain_text("Instance second-vm was created", timeout=5000)
    assert newest.get_attribute("data-seq") == str(seq)
    run_to_end(
        sqlite_store,
        LayerId.GIT,
        lambda _: LayerOutcome(412, 3, utcnow()),
        triggered_by="test",
        clock=utcnow,
        sleep=lambda _: None,
    )
    git = page.locator('[data-layer="git"]')
    expect(git.locator(".lz-chip")).to_contain_text("Success", timeout=5000)
    expect(git).to_contain_text("412")
    for number in range(60):
        append(sqlite_store, f"vm-{number}")
    expect(page.locator(".lz-feed > li").first).to_contain_text("vm-59", timeout=5000)
    expect(page.locator(".lz-feed > li")).to_have_count(50)
    assert page.evaluate("window.sameDocument") is True


def test_a_missed_webhook_is_marked_until_its_delivery_comes(page: Page, url: str, sqlite_store: Store) -> None:
    page.goto(url)
    expect(page.get_by_text("Nothing was delivered yet.")).to_be_visible()
    with sqlite_store.write() as connection:
        connection.execute(
            head_moves.insert().values(new_sha="a" * 40, kind="first", commits=1, triggered_by="t", seen_at=utcnow())
        )
        inbox.insert_head(connection, "b" * 40, repository="example/lz", ref="refs/heads/main", now=utcnow())
    newest = page.locator(".lz-deliveries > li").first
    expect(newest.locator(".lz-chip")).to_contain_text("Missed", timeout=5000)
    expect(newest).to_contain_text("missed webhook, found by polling")
    with sqlite_store.write() as connection:
        told = NewDelivery("d-1", "h-1", "push", "example/lz", commit_claim="b" * 40, actor="<b>ada</b>")
        inbox.insert(connection, told, now=utcnow())
    expect(newest).to_contain_text("push of bbbbbbb by <b>ada</b>", timeout=5000)
    expect(newest).to_contain_text("late: polling had found it")
    expect(page.get_by_text("missed webhook, found by polling")).to_have_count(0)


def test_data_is_text_never_markup(page: Page, url: str, sqlite_store: Store) -> None:
    run = "document.title='owned'"
    hostile = f'<img src=x onerror="{run}">{{{{ 1 + 1 }}}}</script><script>{run}</script>'
    append(sqlite_store, hostile)
    page.goto(url)
    expect(page.locator(".lz-feed > li").first).to_contain_text(hostile)
    append(sqlite_store, f"later {hostile}")
    expect(page.locator(".lz-feed > li").first).to_contain_text(f"later {hostile}", timeout=5000)
    assert page.locator(".lz-feed img").count() == 0
    assert page.title() == "LZ Sync · Status"


def test_a_store_that_fails_is_said_and_the_last_figures_stay(page: Page, url: str, sqlite_store: Store) -> None:
    append(sqlite_store, "first-vm")
    page.goto(url)
    expect(page.get_by_text("Instance first-vm was created")).to_be_visible()
    banner = page.get_by_role("alert").filter(has_text="could not be refreshed since")
    expect(banner).to_have_count(0)
    with sqlite_store.write() as connection:
        connection.execute(sa.text("ALTER TABLE layer_status RENAME TO layer_status_gone"))
    expect(banner).to_be_visible(timeout=5000)
    expect(page.get_by_text("Instance first-vm was created")).to_be_visible()
    with sqlite_store.write() as connection:
        connection.execute(sa.text("ALTER TABLE layer_status_gone RENAME TO layer_status"))
    expect(banner).to_be_hidden(timeout=5000)


def test_the_page_fits_a_phone(page: Page, url: str, sqlite_store: Store) -> None:
    append(sqlite_store, "a-virtual-machine-with-a-name-that-is-longer-than-a-phone-is-wide" * 2)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    expect(page.locator(".lz-feed > li")).to_have_count(1)
    until(lambda: page.evaluate("document.documentElement.scrollWidth") <= 390, seconds=5, what="fitting the width")
