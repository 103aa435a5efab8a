"""``lz-sync doctor`` against the demo's servers: it names what is missing, with its remedy, without secrets."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from demo.faults import FAULTS, Faults
from demo.landing_zone import GIT_TOKEN, WEBHOOK_SECRET, DemoLandingZone
from demo.organization import ORGANIZATION
from lz_sync_dagster.cli import app
from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.sync.doctor import Report, Verdict, checks, examine
from lz_sync_dagster.sync.doctor.results import Result, run_checks
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store import breakers, coverage, open_store, quota
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.quota import Quota
from lz_sync_dagster.sync.timing import to_ns, utcnow
from tests.conftest import NOW

PART = (ORGANIZATION, "storage.googleapis.com/Bucket", "RESOURCE")


class Demo:
    """A demo landing zone, and settings that lead to it, with a store of their own."""

    def __init__(self, zone: DemoLandingZone, faults: Faults, folder: Path) -> None:
        self.zone = zone
        self.faults = faults
        settings = load_settings(zone.config, environ=zone.environment)
        self.settings: Settings = settings.model_copy(update={"data_dir": folder})

    def examine(self, **changed: Any) -> Report:
        return examine(self.settings.model_copy(update=changed), clock=utcnow, seconds=20, file=self.zone.config)

    def with_layer(self, layer: str, **values: Any) -> dict[str, Any]:
        """Settings in which values of a layer are others."""
        layers = self.settings.sync_layers
        changed = getattr(layers, layer).model_copy(update=values)
        return {"sync_layers": layers.model_copy(update={layer: changed})}

    def store(self) -> Any:
        return open_store(self.settings.store_url, migrate=False)


@pytest.fixture(scope="module")
def zone_and_faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DemoLandingZone, Faults]]:
    faults = Faults()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", "")  # the zone sets it
        with DemoLandingZone(tmp_path_factory.mktemp("demo"), assets=200, faults=faults, clock=utcnow) as zone:
            yield zone, faults


@pytest.fixture
def demo(zone_and_faults: tuple[DemoLandingZone, Faults], sqlite_template: Path, tmp_path: Path) -> Iterator[Demo]:
    made = Demo(*zone_and_faults, tmp_path)
    shutil.copy(sqlite_template, tmp_path / "store.db")
    yield made
    for name in FAULTS:
        made.faults.off(name)
    made.zone.mend()


def lines(report: Report, check: str) -> list[Result]:
    return [result for result in report.results if result.check == check]


def only(report: Report, check: str, verdict: Verdict = Verdict.FAILED) -> Result:
    [result] = [result for result in lines(report, check) if result.verdict is verdict]
    return result


def test_where_everything_is_there_nothing_fails_and_every_check_says_so(demo: Demo) -> None:
    report = demo.examine()
    assert report.ok, report.results
    names = list(dict.fromkeys(result.check for result in report.results))
    assert names == [
        "config",
        "store",
        "landing_zone",
        "portal_repository",
        "github",
        "credentials",
        "inventory",
        "quota",
        "coverage",
        "breakers",
        "subscription",
        "warehouse",
    ]
    inventory = {result.subject for result in lines(report, "inventory")}
    assert inventory == {
        *(f"{content} in {ORGANIZATION}" for content in ("RESOURCE", "IAM_POLICY", "ORG_POLICY")),
        f"searches in {ORGANIZATION}",
    }
    assert all(result.remedy for result in report.results if result.verdict in (Verdict.FAILED, Verdict.WARNING))
    assert not list(demo.settings.data_dir.glob("git")), "nothing is left behind"


def test_calls_are_counted_and_only_those_that_were_made(demo: Demo) -> None:
    demo.examine()
    with demo.store() as store, store.read() as connection:
        usage = quota.usage(connection, {Quota.LIST_ASSETS: 10, Quota.SEARCH_ALL_RESOURCES: 10}, now=utcnow())
    assert (usage[Quota.LIST_ASSETS].calls_per_day, usage[Quota.SEARCH_ALL_RESOURCES].calls_per_day) == (3, 1)


def test_a_denied_type_is_found_and_the_role_and_permission_are_named(demo: Demo) -> None:
    demo.faults.on("asset_denied")
    report = demo.examine()
    assert not report.ok
    denied = [result for result in lines(report, "inventory") if result.verdict is Verdict.FAILED]
    assert [result.subject for result in denied] == [
        f"sqladmin.googleapis.com/Instance RESOURCE in {ORGANIZATION}",
        f"sqladmin.googleapis.com/Instance searches in {ORGANIZATION}",
    ]
    assert denied[0].remedy == (
        f"grant roles/cloudasset.viewer (it has cloudasset.assets.listResource) on {ORGANIZATION} "
        "to the identity that runs lz-sync"
    )
    assert "cloudasset.assets.searchAllResources" in str(denied[1].remedy)
    readable = [result for result in lines(report, "inventory") if result.verdict is Verdict.OK]
    assert f"RESOURCE in {ORGANIZATION}" in {result.subject for result in readable}


def test_a_denied_content_is_one_line(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.faults, "denied_contents", ("IAM_POLICY",))
    monkeypatch.setattr(demo.faults, "denied_scopes", (ORGANIZATION,))
    demo.faults.on("asset_denied")
    denied = only(demo.examine(), "inventory")
    assert denied.subject == f"IAM_POLICY in {ORGANIZATION}"
    assert "cloudasset.assets.listIamPolicy" in str(denied.remedy)


def test_an_unknown_type_is_a_warning_since_the_others_are_read(demo: Demo) -> None:
    demo.faults.on("asset_unknown_type")
    report = demo.examine()
    assert report.ok
    unknown = [result for result in lines(report, "inventory") if result.verdict is Verdict.WARNING]
    assert {"firestore.googleapis.com/Database" in result.subject for result in unknown} == {True}


def test_an_inventory_that_does_not_answer_is_named(demo: Demo) -> None:
    from demo.landing_zone import free_port

    dead = demo.settings.google_cloud.model_copy(update={"asset_endpoint": f"http://127.0.0.1:{free_port()}"})
    report = demo.examine(google_cloud=dead)
    failed = [result for result in lines(report, "inventory") if result.verdict is Verdict.FAILED]
    assert failed
    assert all(result.remedy for result in failed)


def test_the_place_of_exports_is_looked_at_if_there_are_to_be_any(demo: Demo) -> None:
    api = demo.settings.sync_layers.api_sync
    on = api.bulk.model_copy(update={"enabled": True})
    found = lines(demo.examine(**demo.with_layer("api_sync", bulk=on)), "exports")
    assert {result.verdict for result in found} == {Verdict.OK}
    assert len(found) == len(api.content_types)
    gone = on.model_copy(update={"destination": "gs://nobody-made-it/cai"})
    failed = only(demo.examine(**demo.with_layer("api_sync", bulk=gone)), "exports")
    assert "sync_layers.api_sync.bulk.destination" in str(failed.remedy)


def test_a_used_up_quota_is_a_warning_and_nothing_is_asked(demo: Demo) -> None:
    with demo.store() as store:
        quota.throttled(store, Quota.LIST_ASSETS, 600, configured=1_000_000, now=utcnow())
    report = demo.examine()
    assert report.ok
    warned = [result.subject for result in lines(report, "inventory") if result.verdict is Verdict.WARNING]
    assert len(warned) == 3
    blocked = only(report, "quota", Verdict.WARNING)
    assert (blocked.subject, "Google asked to wait" in blocked.what) == ("list_assets", True)


def test_a_proof_age_that_the_quota_does_not_permit_is_told(demo: Demo) -> None:
    from lz_sync_dagster.sync.store import part_reads

    small = demo.settings.sync_layers.api_sync.quotas.model_copy(update={"list_assets": 1})
    with demo.store() as store, store.write() as connection:
        mark = CoverageMark(*PART, CoverageStatus.COMPLETE, complete_read_ns=to_ns(utcnow()), assets=9)
        coverage.mark(connection, [mark], now=utcnow())
        part_reads.record_full(connection, PART, calls=500)
    report = demo.examine(**demo.with_layer("api_sync", quotas=small))
    [told] = [result for result in lines(report, "quota") if result.subject.endswith("proof_age_minutes")]
    assert told.verdict is Verdict.WARNING
    assert "quotas.list_assets" in str(told.remedy)


def test_a_token_that_may_only_read_fails_for_the_portal_alone(demo: Demo) -> None:
    demo.faults.on("git_denied")
    demo.zone.make_trouble()
    report = demo.examine()
    assert only(report, "landing_zone", Verdict.OK)
    refused = only(report, "portal_repository")
    assert "does not grant the permission" in refused.what
    assert "write access" in str(refused.remedy)


def test_a_repository_that_is_not_there_is_named(demo: Demo, tmp_path: Path) -> None:
    gone = demo.settings.landing_zone.model_copy(update={"url": str(tmp_path / "nowhere")})
    assert "is not found" in only(demo.examine(landing_zone=gone), "landing_zone").what
    empty = demo.settings.landing_zone.model_copy(update={"url": ""})
    assert only(demo.examine(landing_zone=empty), "landing_zone").subject == "landing_zone.url"


def test_a_missing_subscription_names_the_command_that_makes_it(demo: Demo) -> None:
    report = demo.examine(**demo.with_layer("pubsub", subscription="nobody-made-it"))
    assert "gcloud pubsub subscriptions create nobody-made-it" in str(only(report, "subscription").remedy)


def test_a_store_that_is_not_there_or_not_migrated_is_not_made(demo: Demo) -> None:
    file = demo.settings.data_dir / "store.db"
    file.unlink()
    report = demo.examine()
    assert only(report, "store").remedy == "run 'lz-sync db migrate'"
    assert not file.exists()
    assert {lines(report, check)[0].verdict for check in ("quota", "coverage", "breakers")} == {Verdict.SKIPPED}
    assert lines(report, "inventory")[0].verdict is Verdict.OK, "what needs no store is looked at all the same"
    file.touch()
    assert "is at revision none" in only(demo.examine(), "store").what


def test_a_database_that_cannot_be_reached_is_told_without_its_password(demo: Demo) -> None:
    url = "postgresql://ada:hunter2@127.0.0.1:1/x"
    store = demo.settings.store.model_copy(update={"url": url})
    report = demo.examine(store=store)
    assert only(report, "store").remedy
    assert "hunter2" not in json.dumps(report.document())


def test_gaps_of_coverage_are_told_with_their_remedy_and_alike_ones_share_a_line(demo: Demo) -> None:
    with demo.store() as store, store.write() as connection:
        gaps = [
            CoverageMark(ORGANIZATION, f"a/T{n}", "RESOURCE", CoverageStatus.UNKNOWN, Reason.TIMEOUT, "slow", "wait")
            for n in range(5)
        ]
        good = CoverageMark(*PART, CoverageStatus.COMPLETE, complete_read_ns=to_ns(utcnow()), assets=9)
        fresh = CoverageMark(ORGANIZATION, "b/U", "RESOURCE", CoverageStatus.UNKNOWN, Reason.NOT_READ_YET, "x", "y")
        coverage.mark(connection, [*gaps, good, fresh], now=NOW)
    report = demo.examine()
    gap = only(report, "coverage")
    assert gap.subject.startswith("a/T0 RESOURCE in organizations/")
    assert gap.subject.endswith("and 2 more")
    assert gap.what == "unknown since 2026-03-01 12:00 UTC: timeout, slow"
    assert gap.remedy == "wait"
    assert only(report, "coverage", Verdict.WARNING).subject.startswith("b/U")
    assert only(report, "coverage", Verdict.OK).what == "1 parts were read completely"


def test_an_open_breaker_fails_with_the_command_that_confirms_it(demo: Demo) -> None:
    with demo.store() as store, store.write() as connection:
        breakers.open_breaker(connection, PART, known=100, names=["//a"] * 1, read_ns=1, now=NOW)
    opened = only(demo.examine(), "breakers")
    assert opened.what == "1 of 100 assets vanished at once; nothing was deleted"
    assert f"lz-sync breaker confirm {' '.join(PART)}" in str(opened.remedy)


def test_layers_that_are_switched_off_are_skipped(demo: Demo) -> None:
    layers = demo.settings.sync_layers
    off = layers.model_copy(
        update={name: getattr(layers, name).model_copy(update={"enabled": False}) for name in type(layers).model_fields}
    )
    report = demo.examine(sync_layers=off)
    assert report.ok
    skipped = {result.check for result in report.results if result.verdict is Verdict.SKIPPED}
    assert skipped >= {"landing_zone", "portal_repository", "inventory", "subscription", "warehouse"}


def test_a_warehouse_folder_that_may_not_be_written_is_named(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    raw = demo.settings.warehouse.model_copy(update={"raw": str(tmp_path / "file" / "raw")})
    assert "may not be written" in only(demo.examine(warehouse=raw), "warehouse").what


def test_what_the_configuration_lacks_is_told(demo: Demo) -> None:
    report = demo.examine(webhook_secrets=None, **demo.with_layer("api_sync", scopes=[]))
    assert only(report, "config").subject == "sync_layers.api_sync.scopes"
    assert only(report, "config", Verdict.WARNING).subject == "LZ_SYNC_WEBHOOK_SECRETS"


def test_without_a_file_nobody_says_that_it_is_right(demo: Demo) -> None:
    told = only(examine(demo.settings, clock=utcnow, seconds=20), "config", Verdict.WARNING)
    assert "there is no sync_config.yaml" in told.what


# --- running checks


def test_a_check_that_hangs_is_a_failure_and_does_not_keep_the_others() -> None:
    never = threading.Event()

    def hangs() -> Iterator[Result]:
        yield Result("a", "first", Verdict.OK, "said before")
        never.wait()

    def works() -> Iterator[Result]:
        yield Result("b", "second", Verdict.OK, "fine")

    results = run_checks([("a", hangs), ("b", works)], seconds=0.2)
    never.set()
    assert [(result.check, result.verdict) for result in results] == [
        ("a", Verdict.OK),
        ("a", Verdict.FAILED),
        ("b", Verdict.OK),
    ]
    assert results[1].remedy


def test_what_a_check_raises_is_its_result_and_secrets_are_removed() -> None:
    def known() -> Iterator[Result]:
        raise SyncError("no", where="https://x:ghp_%s@host" % ("a" * 36), remedy="mend it", reason=Reason.INVALID)
        yield

    def defect() -> Iterator[Result]:
        raise RuntimeError("ghp_" + "b" * 36)
        yield

    results = run_checks([("known", known), ("defect", defect)], seconds=5)
    assert [result.verdict for result in results] == [Verdict.FAILED, Verdict.FAILED]
    assert "ghp_" not in str(results)
    assert "defect" in str(results[1].remedy)


# --- the command


def run(demo: Demo, *words: str) -> Any:
    environment = {**demo.zone.environment, "LZ_SYNC_DATA_DIR": str(demo.settings.data_dir)}
    return CliRunner().invoke(app, ["doctor", *words], env=environment)


def test_the_command_prints_one_document_and_ends_with_zero(demo: Demo, kept_logs: None) -> None:
    done = run(demo, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["ok"], document["source"]) == (True, "lz_sync")
    assert {"check", "subject", "verdict", "what", "remedy"} == set(document["checks"][0])
    assert not any(secret in done.stdout for secret in (WEBHOOK_SECRET, GIT_TOKEN))


def test_the_command_prints_a_remedy_below_what_failed_and_ends_with_one(demo: Demo, kept_logs: None) -> None:
    demo.faults.on("asset_denied")
    done = run(demo)
    assert done.exit_code == 1
    at = next(n for n, line in enumerate(done.stdout.splitlines()) if line.startswith("failed"))
    assert "→ grant roles/cloudasset.viewer" in done.stdout.splitlines()[at + 1]
    assert GIT_TOKEN not in done.stdout


def test_settings_that_cannot_be_read_are_the_report(tmp_path: Path, kept_logs: None) -> None:
    (tmp_path / "wrong.yaml").write_text("sync_layers: {api_sync: {page_size: 0}}\nowner: me\n")
    done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(tmp_path / "wrong.yaml")])
    assert done.exit_code == 1
    found = json.loads(done.stdout)["checks"]
    assert len(found) == 2
    assert {(item["check"], item["verdict"]) for item in found} == {("config", "failed")}


def test_credentials_that_are_not_there_are_told(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth
    from google.auth import exceptions

    def none(**_: Any) -> Any:
        raise exceptions.DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", none)
    google_cloud = demo.settings.google_cloud.model_copy(update={"asset_endpoint": None})
    patient = checks._Patient(demo.settings.model_copy(update={"google_cloud": google_cloud}), utcnow)
    [result] = list(checks._credentials(patient))
    assert (result.verdict, "application-default login" in str(result.remedy)) == (Verdict.FAILED, True)


@pytest.mark.parametrize(("project", "verdict"), [("payer", Verdict.OK), (None, Verdict.WARNING)])
def test_credentials_that_work_say_who_and_who_pays(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, project: str | None, verdict: Verdict
) -> None:
    import google.auth

    class Fixed:
        service_account_email = "lz@example.iam.gserviceaccount.com"
        quota_project_id = None

        def refresh(self, _: Any) -> None: ...

    monkeypatch.setattr(google.auth, "default", lambda **_: (Fixed(), project))
    google_cloud = demo.settings.google_cloud.model_copy(update={"asset_endpoint": None})
    patient = checks._Patient(demo.settings.model_copy(update={"google_cloud": google_cloud}), utcnow)
    [result] = list(checks._credentials(patient))
    assert (result.subject, result.verdict) == ("lz@example.iam.gserviceaccount.com", verdict)


def test_nothing_is_pushed_when_a_push_is_tried(demo: Demo) -> None:
    before = demo.zone.repositories.portal
    refs = sorted(path.name for path in (Path(str(before)) / "refs" / "heads").rglob("*"))
    demo.examine()
    assert sorted(path.name for path in (Path(str(before)) / "refs" / "heads").rglob("*")) == refs
