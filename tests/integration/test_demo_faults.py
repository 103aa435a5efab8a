"""The demo's GitHub, and what its faults do to production code that is pointed at it by configuration alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.faults import FAULTS, Faults, parse_faults
from demo.landing_zone import HOST, DemoLandingZone
from demo.repositories import read_file
from demo.simulator import head_push
from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.portal.server import bind, server_for
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.service import remote_head, sync_git
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, inbox, repository_views, source_findings
from lz_sync_dagster.sync.store.source_findings import FindingKind
from lz_sync_dagster.sync.timing import utcnow
from lz_sync_dagster.sync.webhook import polling
from lz_sync_dagster.sync.webhook.repair import watch_deliveries
from tests.conftest import until

COPY = "docs/lz-reference/cost.md"


class Demo:
    """A demo landing zone, settings that lead to it, and the portal that its GitHub calls."""

    def __init__(self, zone: DemoLandingZone, faults: Faults, store: Store, folder: Path) -> None:
        self.zone = zone
        self.faults = faults
        self.store = store
        settings = load_settings(zone.config, environ=zone.environment)
        self.settings: Settings = settings.model_copy(update={"data_dir": folder})

    def sync(self) -> LayerOutcome:
        run = LayerRun(1, LayerId.GIT, "host:1", "test", 1, utcnow())
        return sync_git(self.settings, self.store, run, clock=utcnow, progress=silent)

    def deliveries(self) -> list[inbox.DeliveryRecord]:
        with self.store.read() as connection:
            return inbox.records(connection, limit=10)

    def target_score(self) -> Any:
        with self.store.read() as connection:
            entries = repository_views.governance_entries(connection)
        return next(entry.value.value for entry in entries if entry.value.key == "compliance.target_score")


@pytest.fixture(scope="module")
def zone_and_faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DemoLandingZone, Faults]]:
    faults = Faults()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", "")  # the zone sets it
        folder = tmp_path_factory.mktemp("demo")
        with DemoLandingZone(folder, assets=200, faults=faults, clock=utcnow) as zone:
            yield zone, faults


@pytest.fixture
def demo(zone_and_faults: tuple[DemoLandingZone, Faults], sqlite_store: Store, tmp_path: Path) -> Iterator[Demo]:
    made = Demo(*zone_and_faults, sqlite_store, tmp_path / "data")
    with portal(made):
        yield made
    for name in FAULTS:
        made.faults.off(name)
    made.zone.mend()


@contextmanager
def portal(demo: Demo) -> Iterator[None]:
    with bind(HOST, demo.zone.portal_port) as listener:
        server = server_for(create_app(demo.settings, demo.store, clock=utcnow, pages=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started, what="the portal")
            yield
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_without_a_fault_a_push_is_delivered_and_synced_and_a_commit_has_a_page(demo: Demo) -> None:
    assert demo.zone.deliver_head() == httpx.codes.ACCEPTED
    assert demo.zone.deliver_head() == httpx.codes.ACCEPTED, "the same delivery once more"
    assert len(demo.deliveries()) == 1
    assert demo.sync().status is Status.SUCCESS
    assert demo.sync().items_changed == 0
    link = demo.sync().details["commits"]["url"]
    page = httpx.get(link)
    assert page.headers["content-type"].startswith("text/plain")
    assert "docs: write down why the hub has no internet gateway" in page.text
    file = httpx.get(link.partition("/commit/")[0] + "/blob/main/docs/cost.md")
    assert file.text.startswith("# Cost")
    for missing in ("/commit/" + "0" * 40, "/commit/--help", "/blob/main/none.md"):
        assert httpx.get(link.partition("/commit/")[0] + missing).status_code == httpx.codes.NOT_FOUND


def test_a_lost_webhook_is_sent_again_by_the_repair(demo: Demo) -> None:
    demo.faults.on("webhook_lost")
    assert demo.zone.push(head_push(demo.zone.repositories.landing_zone)) is None
    assert demo.deliveries() == []
    assert "1 asked for again" in watch_deliveries(demo.settings, demo.store, clock=utcnow, cursor=None).said
    until(demo.deliveries, what="the delivery")
    assert "1 delivered after all" in watch_deliveries(demo.settings, demo.store, clock=utcnow, cursor=None).said
    (delivery,) = demo.deliveries()
    assert delivery.repair is not None
    assert delivery.repair.outcome == "delivered"


def test_a_missing_webhook_is_found_by_polling(demo: Demo) -> None:
    demo.faults.on("webhook_missing")
    demo.sync()
    demo.zone.simulator.commit()
    assert demo.deliveries() == []
    cursor = None
    for _ in range(2):  # a head that is news is looked at twice
        look = polling.poll_head(
            demo.store,
            lambda: remote_head(demo.settings),
            demo.settings.landing_zone,
            cursor=cursor,
            every=timedelta(seconds=60),
            now=utcnow(),
        )
        cursor = look.cursor
    (delivery,) = demo.deliveries()
    assert delivery.missed
    assert watch_deliveries(demo.settings, demo.store, clock=utcnow, cursor=None).said == "failed deliveries: none"


def test_a_token_that_may_not_push_is_one_line_and_the_last_good_state_stays(demo: Demo) -> None:
    demo.faults.on("git_denied")
    assert demo.sync().status is Status.SUCCESS
    before, score = read_file(demo.zone.repositories.portal, COPY), demo.target_score()
    assert demo.zone.has_trouble
    assert len(demo.zone.make_trouble()) == 1
    with pytest.raises(SyncError) as caught:
        demo.sync()
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert "\n" not in str(caught.value)
    assert "LZ_SYNC_GIT_TOKEN" in str(caught.value)
    assert read_file(demo.zone.repositories.portal, COPY) == before
    assert demo.target_score() == score


def test_an_edit_in_the_portal_repository_is_restored_and_said(demo: Demo) -> None:
    demo.faults.on("portal_edited")
    demo.sync()
    before = read_file(demo.zone.repositories.portal, COPY)
    demo.zone.make_trouble()
    assert read_file(demo.zone.repositories.portal, COPY) != before
    assert demo.sync().details["portal_commits"]["restored"] == 1
    assert read_file(demo.zone.repositories.portal, COPY) == before
    with demo.store.read() as connection:
        (found,) = source_findings.restored(connection, limit=5)
        assert source_findings.open_findings(connection) == []
    assert (found.finding.kind, found.finding.path) == (FindingKind.DRIFT, COPY)


def test_a_broken_pmo_shows_the_values_of_before_until_it_is_mended(demo: Demo) -> None:
    demo.faults.on("pmo_invalid")
    assert demo.sync().status is Status.SUCCESS
    score = demo.target_score()
    demo.zone.make_trouble()
    broken = demo.sync()
    assert broken.status is Status.PARTIAL
    assert broken.errors[0].startswith("pmo.yaml:34: is not valid YAML")
    assert demo.target_score() == score
    demo.faults.off("pmo_invalid")
    demo.zone.mend()
    assert demo.sync().status is Status.SUCCESS


def test_faults_of_scopes_and_exports_are_in_the_configuration_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "")
    faults = parse_faults(["asset_denied_folder", "export_fails"])
    with DemoLandingZone(tmp_path, assets=200, faults=faults, clock=utcnow) as zone:
        config = load_settings(zone.config, environ=zone.environment).sync_layers.api_sync
    assert len(config.scopes) == 4
    assert faults.denied_folders == (config.scopes[0],)
    assert (config.bulk.enabled, config.bulk.from_assets) == (True, 0)
