"""Sensors and schedules tick on a real store: what they request, what they report, and why they do nothing."""

import shutil
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import git
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from lz_sync_dagster.config import GithubConfig, RepositoryConfig, Settings, SyncLayers, WebhookConfig
from lz_sync_dagster.defs.analytics.checks import newest_day_is_whole
from lz_sync_dagster.defs.events.sensors import Cursor, read_cursor, wait_for_events, write_cursor
from lz_sync_dagster.defs.git.checks import gates_were_read, terraform_parses
from lz_sync_dagster.defs.layer_requests import Asked, look, wait_for_run
from lz_sync_dagster.defs.layer_sync import holder_of
from lz_sync_dagster.defs.operations.sensors import worst_state
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.cadence import Cadence, cadence_of
from lz_sync_dagster.sync.git.gates import GATES_PATH
from lz_sync_dagster.sync.models import EventType, Status
from lz_sync_dagster.sync.runs import LayerOutcome, attempt
from lz_sync_dagster.sync.store import (
    Store,
    daily_metrics,
    dead_letters,
    delivery_repairs,
    event_log,
    file_history,
    inbox,
    layer_runs,
    listeners,
    repository_views,
    source_findings,
)
from lz_sync_dagster.sync.store import repository as repository_rows
from lz_sync_dagster.sync.store.alerts import open_alerts
from lz_sync_dagster.sync.store.daily_metrics import DailyMetric
from lz_sync_dagster.sync.store.dead_letters import DeadLetter
from lz_sync_dagster.sync.store.delivery_repairs import Repair, RepairOutcome
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.file_history import HeadMove, MoveKind
from lz_sync_dagster.sync.store.inbox import Delivery, NewDelivery
from lz_sync_dagster.sync.store.layer_runs import statuses
from lz_sync_dagster.sync.store.repository import Gate, GitState, SyncedFile
from lz_sync_dagster.sync.store.schema import handled_messages, head_moves
from lz_sync_dagster.sync.store.schema import inbox as inbox_table
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding
from lz_sync_dagster.sync.timing import utcnow
from tests.conftest import NOW, SteppedClock

Tick = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lz_sync_dagster.defs.webhook.sensors.TICK_SECONDS", 0.0)


@pytest.fixture
def resources(sqlite_store: Store, clock: SteppedClock, default_settings: Settings) -> dict[str, Any]:
    return {"settings": default_settings, "store": sqlite_store, "clock": clock}


@pytest.fixture
def tick(repository: dg.RepositoryDefinition, resources: dict[str, Any], instance: dg.DagsterInstance) -> Tick:
    def evaluate(name: str, cursor: str | None = None) -> Any:
        sensor = repository.get_sensor_def(name)
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources=resources, repository_def=repository, sensor_name=name
        )
        return sensor.evaluate_tick(context)

    return evaluate


@pytest.fixture(scope="module")
def stored_instance(tmp_path_factory: pytest.TempPathFactory) -> dg.DagsterInstance:
    """An instance with a reference, as a schedule's tick needs it."""
    return dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster")))


@pytest.fixture
def at(repository: dg.RepositoryDefinition, resources: dict[str, Any], stored_instance: dg.DagsterInstance) -> Tick:
    def evaluate(name: str, when: datetime, **overrides: Any) -> Any:
        context = dg.build_schedule_context(
            instance=stored_instance, scheduled_execution_time=when, resources={**resources, **overrides}
        )
        return repository.get_schedule_def(name).evaluate_tick(context)

    return evaluate


def deliver(store: Store, number: int, *, now: datetime = NOW) -> str:
    delivery = f"delivery-{number}"
    with store.write() as connection:
        new = NewDelivery(delivery, f"hash-{number}", "push", "example/gcp-landing-zone", ref="refs/heads/main")
        assert inbox.insert(connection, new, now=now)
    return delivery


def log_events(store: Store, count: int, *, layer: LayerId = LayerId.PUBSUB) -> None:
    with store.write() as connection:
        events = [NewEvent(EventType.RESOURCE_UPDATED, layer, NOW) for _ in range(count)]
        event_log.append(connection, events, recorded_at=NOW)


def start_sync(store: Store, layer: LayerId, clock: SteppedClock) -> None:
    attempt(
        store,
        layer,
        lambda run: LayerOutcome(1, 1, clock()),
        triggered_by="manual:someone",
        clock=clock,
        holder="another-host:1:x",
        last=False,
    )


# --- webhook ----------------------------------------------------------------------------------------------------------


def test_a_delivery_asks_for_a_git_run_under_its_own_id(tick: Tick, sqlite_store: Store) -> None:
    delivery = deliver(sqlite_store, 1)
    (request,) = tick("webhook_deliveries_sensor").run_requests
    assert request.run_key == delivery
    assert request.tags["lz_sync/triggered_by"] == f"webhook:{delivery}"
    assert request.tags["lz_sync/layer"] == "git"


def test_deliveries_that_wait_coalesce_into_one_run(tick: Tick, sqlite_store: Store) -> None:
    deliver(sqlite_store, 1)
    newest = deliver(sqlite_store, 2)
    requests = tick("webhook_deliveries_sensor").run_requests
    assert [request.run_key for request in requests] == [newest]


def test_a_delivery_waits_for_the_git_sync_under_way(tick: Tick, sqlite_store: Store, clock: SteppedClock) -> None:
    deliver(sqlite_store, 1)
    start_sync(sqlite_store, LayerId.GIT, clock)
    tick("webhook_deliveries_sensor")  # accounts for the delivery
    result = tick("webhook_deliveries_sensor")
    assert result.run_requests == []
    assert result.skip_message == "1 requests wait for the sync under way"


def test_a_delivery_waits_for_a_run_that_did_not_begin_yet(
    tick: Tick, sqlite_store: Store, instance: dg.DagsterInstance
) -> None:
    deliver(sqlite_store, 1)
    instance.add_run(dg.DagsterRun(job_name="git_job", status=dg.DagsterRunStatus.STARTED))
    assert tick("webhook_deliveries_sensor").run_requests == []


def test_the_layer_is_accounted_for_without_a_run(tick: Tick, sqlite_store: Store, clock: SteppedClock) -> None:
    event, *checks = tick("webhook_deliveries_sensor").asset_events
    assert event.asset_key == dg.AssetKey(["webhook", "deliveries"])
    assert {(check.check_name, check.passed) for check in checks} == {
        ("none_waits_too_long", True),
        ("sync_is_complete", True),
    }, "nobody runs the checks of an asset that is made without a run"
    assert tick("webhook_deliveries_sensor").asset_events == [], "nothing is new"

    delivery = deliver(sqlite_store, 1, now=clock())
    clock.advance(timedelta(seconds=1))
    with sqlite_store.write() as connection:
        waiting = inbox.pending(connection)
        inbox.finish(connection, waiting, run_id=delivery, now=clock())
    clock.advance(timedelta(seconds=1))
    event, *_ = tick("webhook_deliveries_sensor").asset_events
    assert event.metadata["items_changed"].value == 1
    with sqlite_store.read() as connection:
        assert statuses(connection, now=clock())[0].status == "success"

    clock.advance(timedelta(minutes=3))
    assert tick("webhook_deliveries_sensor").asset_events, "confirmed twice within the layer's target"


def test_an_account_that_fails_does_not_keep_a_delivery_from_its_run(
    tick: Tick, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_args: object, **_options: object) -> LayerOutcome:
        raise ZeroDivisionError

    monkeypatch.setattr("lz_sync_dagster.defs.webhook.sensors.sync_webhook", defect)
    delivery = deliver(sqlite_store, 1)
    result = tick("webhook_deliveries_sensor")
    assert [request.run_key for request in result.run_requests] == [delivery]
    assert result.asset_events == []


def test_the_repair_of_deliveries_says_why_it_does_nothing(tick: Tick, resources: dict[str, Any]) -> None:
    assert "sync_layers.webhook.hook is not set" in tick("webhook_repair_sensor").skip_message


def test_the_repair_of_deliveries_reports_that_github_cannot_be_asked(
    tick: Tick, resources: dict[str, Any], sqlite_store: Store
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    resources["settings"] = Settings(
        sync_layers=SyncLayers(webhook=WebhookConfig(hook=7)),
        landing_zone=RepositoryConfig(name="example/landing-zone"),
        github=GithubConfig(api_url=f"http://127.0.0.1:{port}"),
        github_token=SecretStr("a token"),
    )
    result = tick("webhook_repair_sensor")
    assert "cannot be reached" in result.skip_message
    with sqlite_store.read() as connection:
        assert [alert.name for alert in open_alerts(connection)] == ["DeliveryRepair"]


def test_a_tick_waits_for_a_delivery_and_returns_as_soon_as_it_can_ask(
    tick: Tick, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick("webhook_deliveries_sensor")
    pauses: list[float] = []

    class Pause:
        def wait(self, seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                deliver(sqlite_store, 1)
            assert len(pauses) < 10, "it went on waiting"

    monkeypatch.setattr("lz_sync_dagster.defs.webhook.sensors.TICK_SECONDS", 60.0)
    monkeypatch.setattr("lz_sync_dagster.defs.layer_requests.threading.Event", Pause)
    (request,) = tick("webhook_deliveries_sensor").run_requests
    assert request.run_key == "delivery-1"
    assert len(pauses) == 3


def test_a_tick_without_deliveries_ends_when_its_time_is_over() -> None:
    now = iter(range(100))
    asked = wait_for_run(
        lambda: Asked(0, running=False, plan=None), seconds=5, monotonic=lambda: next(now), wait=lambda _: None
    )
    assert asked.requests == []
    assert next(now) == 6


STEPS = st.lists(st.sampled_from(["push", "push", "redeliver", "tick", "tick", "begin", "end", "fail"]), max_size=30)


def test_pushes_in_any_order_with_runs_lose_nothing_and_ask_for_no_run_too_many(
    sqlite_store: Store, instance: dg.DagsterInstance
) -> None:
    """Deliveries, ticks and runs in any order: one run at a time, none for nothing, the last one at the newest head."""

    @given(STEPS)
    def rule(steps: list[str]) -> None:
        world = _World(sqlite_store, instance)
        for step in steps:
            getattr(world, step)()
        for _ in range(5):  # then everything works, and time passes
            if not world.waiting():
                break
            for step in ("tick", "begin", "end"):
                getattr(world, step)()
            world.clock.advance(timedelta(minutes=31))
        assert world.waiting() == [], "nothing is lost"
        assert world.synced == world.head, "the last run was at the newest head"
        assert len(world.keys) == len(set(world.keys))

    rule()


class _World:
    """A landing zone whose head moves, the inbox, Dagster's runs, and the sensor between them."""

    def __init__(self, store: Store, instance: dg.DagsterInstance) -> None:
        self.head = self.synced = 0
        self.clock = SteppedClock()
        self.keys: list[str] = []
        self._store, self._instance = store, instance
        self.clear()
        self._cursor: str | None = None
        self._read: tuple[int, list[Delivery]] | None = None

    def waiting(self) -> list[Delivery]:
        with self._store.read() as connection:
            return inbox.pending(connection)

    def runs(self) -> list[dg.DagsterRun]:
        return list(self._instance.get_runs())

    def push(self) -> None:
        self.head += 1
        deliver(self._store, self.head, now=self.clock.advance(timedelta(seconds=1)))

    def redeliver(self) -> None:
        if self.head:
            with self._store.write() as connection:
                again = NewDelivery(f"delivery-{self.head}", f"hash-{self.head}", "push", "example/gcp-landing-zone")
                assert not inbox.insert(connection, again, now=self.clock())

    def tick(self) -> None:
        self.clock.advance(timedelta(seconds=5))
        asked = look(self._instance, self._cursor, LayerId.GIT, self._store, self.clock)
        if asked.plan is not None:
            assert self.runs() == [], "two runs at once"
            self._cursor = asked.plan.cursor
            self.keys.append(asked.plan.run_key)
            self._instance.add_run(dg.DagsterRun(job_name="git_job", status=dg.DagsterRunStatus.STARTED))

    def begin(self) -> None:
        if self.runs() and self._read is None:
            self._read = self.head, self.waiting()
            assert self._read[1], "a run for nothing"

    def end(self) -> None:
        if self._read is not None:
            self.synced, settled = self._read
            with self._store.write() as connection:
                inbox.finish(connection, settled, run_id="1", now=self.clock(), head=f"{self.synced:040x}")
            self._stop()

    def fail(self) -> None:
        if self._read is not None:
            self._stop()

    def clear(self) -> None:
        with self._store.write() as connection:
            connection.execute(inbox_table.delete())
        self._stop()

    def _stop(self) -> None:
        for run in self.runs():
            self._instance.delete_run(run.run_id)
        self._read = None


def test_a_head_that_no_delivery_told_of_is_found_by_polling(
    tick: Tick, sqlite_store: Store, resources: dict[str, Any], tmp_path: Path
) -> None:
    zone = git.Repo.init(tmp_path / "zone", initial_branch="main")
    head = zone.index.commit("first").hexsha
    resources["settings"] = Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "landing_zone": {"url": str(tmp_path / "zone"), "name": "example/lz"},
            "sync_layers": {"webhook": {"head_poll_seconds": 10}},
        }
    )
    with sqlite_store.write() as connection:
        seen = {"new_sha": head, "kind": "first", "commits": 1, "triggered_by": "test", "seen_at": NOW}
        connection.execute(head_moves.insert().values(**seen))
    result = tick("webhook_head_sensor")
    assert "is known" in result.skip_message
    assert "not due" in tick("webhook_head_sensor", result.cursor).skip_message

    moved = zone.index.commit("second").hexsha
    zone.close()
    assert f"poll-{moved}" in tick("webhook_head_sensor").skip_message
    (request,) = tick("webhook_deliveries_sensor").run_requests
    assert (request.run_key, request.tags["lz_sync/triggered_by"]) == (f"poll-{moved}", f"poll:{moved}")

    shutil.rmtree(tmp_path / "zone")
    assert "check landing_zone.url" in tick("webhook_head_sensor").skip_message
    with sqlite_store.read() as connection:
        assert [row.name for row in open_alerts(connection)] == ["HeadPolling"]


# --- requests of the git layer ----------------------------------------------------------------------------------------


def ask_for_inventory(store: Store, sha: str) -> None:
    with store.write() as connection:
        assert inbox.request(
            connection,
            LayerId.API,
            key=f"inventory-{sha}",
            event="terraform_change",
            actor="ada",
            commit=sha,
            now=NOW,
        )


def test_changes_of_terraform_ask_for_one_inventory_sync(
    tick: Tick, sqlite_store: Store, clock: SteppedClock, instance: dg.DagsterInstance
) -> None:
    assert tick("inventory_requests_sensor").skip_message == "nothing to request"
    for sha in ("a" * 40, "b" * 40):
        ask_for_inventory(sqlite_store, sha)
    assert tick("webhook_deliveries_sensor").run_requests == [], "they are no business of the git layer"
    first = tick("inventory_requests_sensor")
    (request,) = first.run_requests
    assert request.run_key == f"inventory-{'b' * 40}"
    assert request.tags["lz_sync/layer"] == "api"
    assert request.tags["lz_sync/triggered_by"] == f"git:{'b' * 40}"
    assert not tick("inventory_requests_sensor", first.cursor).run_requests

    clock.advance(timedelta(minutes=1))
    run = instance.add_run(dg.DagsterRun(job_name="inventory_job", status=dg.DagsterRunStatus.STARTED))
    assert not tick("inventory_requests_sensor", first.cursor).run_requests
    instance.delete_run(run.run_id)
    (again,) = tick("inventory_requests_sensor", first.cursor).run_requests
    assert again.run_key == f"inventory-{'b' * 40}#1"


def test_no_inventory_sync_is_asked_for_where_it_is_switched_off(
    tick: Tick, sqlite_store: Store, resources: dict[str, Any]
) -> None:
    ask_for_inventory(sqlite_store, "a" * 40)
    resources["settings"] = Settings.model_validate({"sync_layers": {"api_sync": {"enabled": False}}})
    assert "switched off" in tick("inventory_requests_sensor").skip_message


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lz_sync_dagster.defs.events.sensors.TICK_SECONDS", 0.0)


@pytest.mark.usefixtures("short_ticks")
def test_events_are_reported_in_batches_without_a_run(
    tick: Tick, sqlite_store: Store, instance: dg.DagsterInstance
) -> None:
    log_events(sqlite_store, 3)
    log_events(sqlite_store, 2, layer=LayerId.API)
    result = tick("events_feed_sensor")

    assert "reported 5 events" in result.skip_message
    assert instance.get_runs() == []
    messages = instance.get_latest_materialization_event(dg.AssetKey(["events", "feed_messages"]))
    events = instance.get_latest_materialization_event(dg.AssetKey(["events", "feed_events"]))
    assert messages is not None
    assert messages.asset_materialization is not None
    assert messages.asset_materialization.metadata["events"].value == 3
    assert events is not None
    assert events.asset_materialization is not None
    assert events.asset_materialization.metadata["last_seq"].value == 5


@pytest.mark.usefixtures("short_ticks")
def test_the_next_tick_goes_on_where_this_one_ended(tick: Tick, sqlite_store: Store) -> None:
    log_events(sqlite_store, 3)
    cursor = tick("events_feed_sensor").cursor
    assert read_cursor(cursor).seq == 3
    log_events(sqlite_store, 1)
    assert "reported 1 events" in tick("events_feed_sensor", cursor).skip_message


@pytest.mark.usefixtures("short_ticks")
@pytest.mark.parametrize(("connected", "confirmed"), [(True, True), (False, False)])
def test_silence_is_confirmed_only_by_a_connected_listener(
    connected: bool, confirmed: bool, tick: Tick, sqlite_store: Store, clock: SteppedClock, instance: dg.DagsterInstance
) -> None:
    beat = listeners.Listener("host:1:x", "projects/p/subscriptions/s", connected, clock(), clock(), clock())
    with sqlite_store.write() as connection:
        listeners.beat(connection, beat)
    tick("events_feed_sensor")
    found = instance.get_latest_materialization_event(dg.AssetKey(["events", "feed_messages"]))
    assert (found is not None) is confirmed


@pytest.mark.usefixtures("short_ticks")
def test_one_tick_makes_one_report_per_asset_however_many_events_there_are(
    tick: Tick, sqlite_store: Store, instance: dg.DagsterInstance
) -> None:
    log_events(sqlite_store, 2_500)
    tick("events_feed_sensor")
    for noun in ("feed_messages", "feed_events"):
        key = dg.AssetKey(["events", noun])
        (record,) = instance.fetch_materializations(key, limit=10).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["events"].value == 2_500


@pytest.mark.usefixtures("short_ticks")
def test_checks_are_made_beside_reports_and_not_with_each_of_them(
    tick: Tick, sqlite_store: Store, clock: SteppedClock, instance: dg.DagsterInstance
) -> None:
    def found(name: str) -> list[bool]:
        key = dg.AssetCheckKey(dg.AssetKey(["events", "feed_messages"]), name)
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        evaluations = [record.event.dagster_event.event_specific_data for record in records if record.event]
        return [evaluation.passed for evaluation in evaluations]

    with sqlite_store.write() as connection:
        letter = DeadLetter(LayerId.PUBSUB, "projects/p/subscriptions/s", "7", "is no asset", "{}")
        dead_letters.add(connection, [letter], now=clock())
        layer_runs.record_health(
            connection, LayerId.PUBSUB, status=Status.SUCCESS, now=clock(), items_synced=1, items_changed=0
        )
    cursor = None
    for _ in range(2):
        log_events(sqlite_store, 1)
        cursor = tick("events_feed_sensor", cursor).cursor
    assert found("no_new_dead_letters") == [False]
    assert found("sync_is_complete") == [True], "a listener's health counts, though it has no run"

    clock.advance(timedelta(minutes=3))
    log_events(sqlite_store, 1)
    tick("events_feed_sensor", cursor)
    assert len(found("no_new_dead_letters")) == 2


@pytest.mark.usefixtures("short_ticks")
def test_a_silent_asset_is_confirmed_while_the_other_one_is_busy(
    tick: Tick, sqlite_store: Store, clock: SteppedClock, instance: dg.DagsterInstance
) -> None:
    beat = listeners.Listener("host:1:x", "projects/p/subscriptions/s", True, clock(), clock(), clock())
    with sqlite_store.write() as connection:
        listeners.beat(connection, beat)
    log_events(sqlite_store, 1, layer=LayerId.API)
    tick("events_feed_sensor")
    assert instance.get_latest_materialization_event(dg.AssetKey(["events", "feed_messages"])) is not None


def test_a_tick_waits_for_what_is_logged_while_it_reads(sqlite_store: Store) -> None:
    frames = wait_for_events(
        sqlite_store, 0, seconds=10, monotonic=lambda: 0.0, wait=lambda _seconds: log_events(sqlite_store, 4)
    )
    assert [frame.seq for frame in frames] == [1, 2, 3, 4]


@pytest.mark.parametrize("cursor", [None, "", '{"version": 0, "seq": 9}'])
def test_a_cursor_of_another_version_starts_over(cursor: str | None) -> None:
    assert read_cursor(cursor) == Cursor()


def test_a_cursor_reads_back() -> None:
    cursor = Cursor(41, 12.5, 10.0)
    assert read_cursor(write_cursor(cursor)) == cursor


# --- freshness --------------------------------------------------------------------------------------------------------


def test_a_late_layer_opens_one_alert_that_is_resolved_when_it_is_fresh_or_switched_off(
    tick: Tick,
    sqlite_store: Store,
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dagster._core.definitions.freshness import FreshnessState, FreshnessStateRecord, FreshnessStateRecordBody

    def say(state: FreshnessState) -> None:
        def records(keys: list[dg.AssetKey]) -> dict[dg.AssetKey, FreshnessStateRecord]:
            return {
                key: FreshnessStateRecord(
                    entity_key=key,
                    freshness_state=state if key.path == ["git", "commits"] else FreshnessState.PASS,
                    updated_at=NOW,
                    record_body=FreshnessStateRecordBody(metadata=None),
                )
                for key in keys
            }

        monkeypatch.setattr(instance, "get_freshness_state_records", records)

    def alerts() -> list[tuple[str, str, str]]:
        with sqlite_store.read() as connection:
            return [(row.name, row.subject, row.severity) for row in open_alerts(connection)]

    say(FreshnessState.WARN)
    tick("operations_freshness_sensor")
    assert alerts() == [("DataFreshness", "layer git", "warning")]
    say(FreshnessState.FAIL)
    tick("operations_freshness_sensor")
    assert alerts() == [("DataFreshness", "layer git", "critical")]
    say(FreshnessState.PASS)
    tick("operations_freshness_sensor")
    assert alerts() == []

    say(FreshnessState.FAIL)
    tick("operations_freshness_sensor")
    resources["settings"] = Settings.model_validate({"sync_layers": {"git_sync": {"enabled": False}}})
    tick("operations_freshness_sensor")
    assert alerts() == [], "a layer that is switched off is not late"
    tick("operations_freshness_sensor")
    assert alerts() == []


def test_the_worst_state_of_a_layer_counts() -> None:
    assert worst_state(["PASS", "FAIL", "WARN"]) == "FAIL"
    assert worst_state(["PASS", "UNKNOWN"]) == "PASS"
    assert worst_state([]) == "UNKNOWN"


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_due_tick_requests_a_run_and_says_who_asked(at: Tick) -> None:
    (request,) = at("inventory_five_minutely_schedule", NOW).run_requests
    assert request.run_key == NOW.isoformat()
    assert request.tags["lz_sync/triggered_by"] == "schedule:inventory_five_minutely_schedule"


def test_a_tick_that_finds_its_layer_syncing_is_skipped(at: Tick, sqlite_store: Store, clock: SteppedClock) -> None:
    start_sync(sqlite_store, LayerId.API, clock)
    result = at("inventory_five_minutely_schedule", NOW)
    assert not result.run_requests
    assert result.skip_message == "layer api is syncing already"


def test_a_tick_that_finds_a_run_under_way_is_skipped(at: Tick, stored_instance: dg.DagsterInstance) -> None:
    run = stored_instance.add_run(dg.DagsterRun(job_name="inventory_job", status=dg.DagsterRunStatus.STARTED))
    message = at("inventory_five_minutely_schedule", NOW).skip_message
    stored_instance.delete_run(run.run_id)
    assert message == f"run {run.run_id[:8]} of inventory_job is started"


def test_a_layer_that_is_switched_off_is_skipped(at: Tick) -> None:
    off = Settings.model_validate({"sync_layers": {"git_sync": {"enabled": False}}})
    assert "switched off" in at("git_six_hourly_schedule", NOW, settings=off).skip_message


@pytest.mark.parametrize(
    ("every", "word", "cron", "after_noon"),
    [
        (timedelta(minutes=5), "five_minutely", "*/5 * * * *", "2026-03-01T12:05"),
        (timedelta(minutes=7), "7_minutely", "* * * * *", "2026-03-01T12:06"),
        (timedelta(minutes=90), "90_minutely", "*/30 * * * *", "2026-03-01T13:30"),
        (timedelta(hours=6), "six_hourly", "0 */6 * * *", "2026-03-01T18:00"),
        (timedelta(hours=9), "9_hourly", "0 */3 * * *", "2026-03-01T21:00"),
        (timedelta(days=1), "daily", "0 0 * * *", "2026-03-02T00:00"),
    ],
)
def test_a_cadence_falls_on_round_instants(every: timedelta, word: str, cron: str, after_noon: str) -> None:
    cadence = Cadence(every)
    assert (cadence.word, cadence.cron) == (word, cron)
    due = cadence.after(NOW)
    assert due.strftime("%Y-%m-%dT%H:%M") == after_noon
    assert cadence.is_due(due)
    assert not cadence.is_due(due - timedelta(minutes=1))
    assert cadence.after(due) == due + every


@pytest.mark.parametrize(("schedule", "due"), [("daily", "2026-03-02T01:00"), ("weekly", "2026-03-02T01:00")])
def test_marts_are_due_at_one_o_clock_and_weekly_ones_on_mondays(schedule: str, due: str) -> None:
    settings = Settings.model_validate({"sync_layers": {"bigquery": {"schedule": schedule}}})
    cadence = cadence_of(LayerId.BIGQUERY, settings)
    assert cadence is not None
    assert cadence.after(NOW).strftime("%Y-%m-%dT%H:%M") == due
    assert cadence.after(NOW).tzinfo is UTC


# --- retention --------------------------------------------------------------------------------------------------------


def test_retention_removes_what_is_old_and_nothing_else(
    repository: dg.RepositoryDefinition, resources: dict[str, Any], sqlite_store: Store, clock: SteppedClock
) -> None:
    old, new = clock() - timedelta(days=40), clock()
    with sqlite_store.write() as connection:
        connection.execute(
            handled_messages.insert(),
            [
                {"subscription": "s", "message_id": str(at), "outcome": "observed", "handled_at": at}
                for at in (old, new)
            ],
        )
        far = clock() - timedelta(days=400)
        for number, (at, is_done) in enumerate(((far, True), (new, True), (far, False))):
            inbox.insert(connection, NewDelivery(f"d{number}", f"d{number}", "push", "r"), now=at)
            if is_done:
                done = {"status": "done", "finished_at": at}
                connection.execute(inbox_table.update().where(inbox_table.c.delivery_id == f"d{number}").values(done))
        for at, status in (
            (far, RepairOutcome.DELIVERED),
            (new, RepairOutcome.GIVEN_UP),
            (far, RepairOutcome.REQUESTED),
        ):
            settled = None if status is RepairOutcome.REQUESTED else at
            repair = Repair(f"{status}", "push", at, "failed", 1, at, status, settled)
            delivery_repairs.put(connection, [repair])
        for at in (far, new):
            finding = SourceFinding(FindingKind.DRIFT, str(at), None, "", "low", "m", "c")
            source_findings.record_settled(connection, [finding], now=at)
        source_findings.replace(
            connection,
            [SourceFinding(FindingKind.GATES, "open", None, "", "low", "m", "c")],
            kinds=[FindingKind.GATES],
            paths=None,
            now=far,
        )
        for sha in ("a", "b"):
            file_history.record_move(connection, HeadMove(None, sha, MoveKind.FORWARD, 1, "s", far))
    with dg.instance_for_test() as instance:
        instance.add_run(dg.DagsterRun(job_name="git_job", status=dg.DagsterRunStatus.SUCCESS))
        result = repository.get_job("operations_job").execute_in_process(
            instance=instance,
            resources={"store": sqlite_store, "clock": dg.ResourceDefinition.hardcoded_resource(clock)},
        )
        assert result.output_for_node("prune") == {
            "messages": 1,
            "dead_letters": 0,
            "events": 0,
            "deliveries": 1,
            "findings": 1,
            "repairs": 1,
            "head_moves": 1,
            "runs": 0,
            **dict.fromkeys(
                ("quota_usage", "violations", "history", "tombstones", "coverage_history", "snapshots", "syncs"), 0
            ),
            **dict.fromkeys(("feed_freshness", "data_fields", "refusals"), 0),
        }
    with sqlite_store.read() as connection:
        assert repository_views.head(connection) == "b", "the newest move is what the head is"


def test_heads_that_polling_found_keep_their_numbers(store: Store, clock: SteppedClock) -> None:
    def found(at: datetime, head: str) -> str | None:
        with store.write() as connection:
            key = inbox.insert_head(connection, head, repository="r", ref="refs/heads/main", now=at)
            connection.execute(
                inbox_table.update().where(inbox_table.c.delivery_id == key).values(status="done", finished_at=at)
            )
            return key

    def prune() -> int:
        with store.write() as connection:
            return inbox.prune(connection, before=clock() - timedelta(days=90))

    with store.write() as connection:
        repository_rows.set_git_state(connection, GitState("b", "p", "t", "f", None, None, NOW))
    assert found(clock() - timedelta(days=200), "a") == "poll-a"
    assert found(clock() - timedelta(days=10), "a") == "poll-a-2"
    assert prune() == 0
    assert found(clock(), "a") == "poll-a-3"
    clock.advance(timedelta(days=100))
    assert prune() == 3
    assert found(clock(), "a") == "poll-a"


def test_the_newest_success_of_a_job_outlives_its_retention(
    repository: dg.RepositoryDefinition, resources: dict[str, Any], sqlite_store: Store
) -> None:
    with dg.instance_for_test() as instance:
        success, failure = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
        older, newest, _failed, other = (
            instance.add_run(dg.DagsterRun(job_name=job, status=status)).run_id
            for job, status in (
                ("git_job", success),
                ("git_job", success),
                ("git_job", failure),
                ("inventory_job", success),
            )
        )
        repository.get_job("operations_job").execute_in_process(
            instance=instance,
            run_config={"ops": {"prune": {"config": {"runs": -1}}}},
            resources={"store": sqlite_store, "clock": dg.ResourceDefinition.hardcoded_resource(utcnow)},
        )
        left = {run.run_id for run in instance.get_runs() if run.job_name != "operations_job"}
    assert left == {newest, other}
    assert older not in left


# --- the marts' own check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("costs_of_the_day_before_yesterday", "passed"), [("complete", True), ("unknown", False), ("partial", False)]
)
def test_costs_are_missed_only_when_they_are_due(
    costs_of_the_day_before_yesterday: str, passed: bool, sqlite_store: Store, clock: SteppedClock
) -> None:
    settings = Settings.model_validate({"sync_layers": {"bigquery": {"billing_export": "/export"}}})

    def day(ago: int, costs: str) -> DailyMetric:
        cost = None if costs == "unknown" else 1.0
        date = (clock() - timedelta(days=ago)).date()
        return DailyMetric(date, "zone", "USD", 1, 0, cost, 1.0, "partial", "complete", costs, clock())

    with sqlite_store.write() as connection:
        rows = [day(0, "unknown"), day(1, "unknown"), day(2, costs_of_the_day_before_yesterday), day(3, "unknown")]
        daily_metrics.publish(connection, rows)
    result = newest_day_is_whole(settings=settings, store=sqlite_store, clock=clock)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed is passed


# --- runs whose process is gone ---------------------------------------------------------------------------------------


def test_a_run_without_lease_and_words_is_ended_so_that_it_keeps_no_other_one_waiting(
    tick: Tick, sqlite_store: Store, instance: dg.DagsterInstance, clock: SteppedClock
) -> None:
    def add(layer: LayerId) -> dg.DagsterRun:
        status = dg.DagsterRunStatus.STARTED
        run = dg.DagsterRun("git_job", str(uuid.uuid4()), status=status, tags={"lz_sync/layer": layer.value})
        return instance.add_run(run)

    gone, spoke, syncing = add(LayerId.GIT), add(LayerId.GIT), add(LayerId.API)
    instance.report_engine_event("still here", spoke)
    attempt(
        sqlite_store,
        LayerId.API,
        lambda run: LayerOutcome(1, 1, clock()),
        triggered_by="schedule",
        clock=clock,
        holder=holder_of(syncing.run_id),
        last=False,
    )
    assert tick("operations_runs_sensor").skip_message == f"ended: {gone.run_id[:8]}"
    statuses = {run.run_id: run.status for run in instance.get_runs()}
    assert statuses[gone.run_id] is dg.DagsterRunStatus.FAILURE
    assert statuses[spoke.run_id] is statuses[syncing.run_id] is dg.DagsterRunStatus.STARTED
    assert tick("operations_runs_sensor").skip_message == "every run that is under way lives"


# --- the git layer's own checks ---------------------------------------------------------------------------------------


def test_gates_that_cannot_be_read_are_said_and_none_at_all_are_no_error(sqlite_store: Store) -> None:
    def check() -> dg.AssetCheckResult:
        result = gates_were_read(store=sqlite_store)
        assert isinstance(result, dg.AssetCheckResult)
        return result

    def find(*found: SourceFinding) -> None:
        with sqlite_store.write() as connection:
            source_findings.replace(connection, found, kinds=[FindingKind.GATES], paths=None, now=NOW)

    unread = SourceFinding(FindingKind.GATES, GATES_PATH, None, "", "high", "yields no gate; check it", "c")
    assert (check().passed, check().severity) == (False, dg.AssetCheckSeverity.WARN), "nothing was synced yet"
    with sqlite_store.write() as connection:
        repository_rows.set_git_state(connection, GitState("c", "p", "t", "f", None, None, NOW))
    assert check().passed
    assert GATES_PATH in str(check().metadata["note"])

    file = SyncedFile(GATES_PATH, GATES_PATH, "b", 0o100644, 1, "synced", None, "c")
    with sqlite_store.write() as connection:
        repository_rows.change_files(connection, [], {(file.path, file.destination): file})
    assert (check().passed, check().severity) == (False, dg.AssetCheckSeverity.ERROR)
    find(unread)
    assert (check().description, check().severity) == (unread.text, dg.AssetCheckSeverity.ERROR)

    gate = Gate("G1", "Gate", None, None, None, None, None, GATES_PATH, 1, "c")
    with sqlite_store.write() as connection:
        repository_rows.replace_gates(connection, [gate])
    assert (check().passed, check().severity) == (False, dg.AssetCheckSeverity.WARN), "the gates of before are shown"
    find()
    assert check().passed


def test_terraform_without_any_block_has_its_syntax_error_said(sqlite_store: Store) -> None:
    assert terraform_parses(store=sqlite_store).passed  # type: ignore[union-attr]
    conflict = SourceFinding(
        FindingKind.HCL_SYNTAX, "terraform/main.tf", 1, "", "medium", "does not parse; mend it", "c"
    )
    with sqlite_store.write() as connection:
        source_findings.replace(connection, [conflict], kinds=[FindingKind.HCL_SYNTAX], paths=None, now=NOW)
    result = terraform_parses(store=sqlite_store)
    assert isinstance(result, dg.AssetCheckResult)
    assert (result.passed, result.description) == (False, "terraform/main.tf:1: does not parse; mend it")


def test_what_reads_everything_is_checked_once_a_day_and_not_with_each_sync(
    repository: dg.RepositoryDefinition,
) -> None:
    def steps(job: str) -> set[str]:
        return {node.name for node in repository.get_job(job).nodes}

    audits = {f"git__portal_commits_{name}" for name in ("files_are_accounted_for", "manifest_matches_the_tree")}
    assert steps("git_audit_job") == audits
    assert steps("git_job").isdisjoint(audits)
    assert "git__enforcement_gates_gates_were_read" in steps("git_job")
