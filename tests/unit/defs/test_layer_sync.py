"""The adapter: how each way a sync can end shows in Dagster, on a real store and a real (in-memory) instance."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_checks import sync_check
from lz_sync_dagster.defs.layer_sync import attempt_layer, layer_assets, log_progress, sync_without_run, triggered_by
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.runs import LayerOutcome, attempt
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.layer_runs import recent, statuses
from tests.conftest import SteppedClock

COMMITS, ANNEXES = dg.AssetKey(["git", "commits"]), dg.AssetKey(["git", "annexes"])


class FakeWork:
    """A layer's work that ends as told, once per attempt."""

    def __init__(self, *endings: LayerOutcome | SyncError) -> None:
        self.endings = list(endings)

    def __call__(self, *_args: Any, **_kwargs: Any) -> LayerOutcome:
        ending = self.endings.pop(0)
        if isinstance(ending, SyncError):
            raise ending
        return ending


def done(clock: SteppedClock, *, changed: int = 1, status: Status = Status.SUCCESS, errors: Any = ()) -> LayerOutcome:
    details = {
        "commits": {"count": 7, "head_link": "https://example.com/commit/abc", "note": None},
        "annexes": {"count": 3},
    }
    return LayerOutcome(10, changed, clock(), status, errors, details)


def broken(*, reason: Reason = Reason.PERMISSION_DENIED) -> SyncError:
    return SyncError("was refused", where="repository example/x", remedy="grant contents:read", reason=reason)


@pytest.fixture
def run_layer(
    sqlite_store: Store, clock: SteppedClock, default_settings: Settings, instance: dg.DagsterInstance
) -> Callable[..., dg.ExecuteInProcessResult]:
    def run(work: FakeWork, *, settings: Settings = default_settings, **kwargs: Any) -> dg.ExecuteInProcessResult:
        specs = [dg.AssetSpec(COMMITS), dg.AssetSpec(ANNEXES, deps=[COMMITS])]
        assets = layer_assets(LayerId.GIT, specs=specs, work=work)
        check = sync_check(LayerId.GIT, COMMITS.path)
        resources = {
            "settings": settings,
            "store": sqlite_store,
            "clock": dg.ResourceDefinition.hardcoded_resource(clock),
        }
        return dg.materialize([assets, check], resources=resources, instance=instance, raise_on_error=False, **kwargs)

    return run


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {
        event.asset_key.path[-1]: {
            name: getattr(value, "value", value) for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def test_a_success_is_one_materialization_per_noun(
    run_layer: Callable[..., Any], clock: SteppedClock, sqlite_store: Store
) -> None:
    result = run_layer(FakeWork(done(clock)), tags={"lz_sync/triggered_by": "webhook:d-1"})

    assert result.success
    figures = materialized(result)
    assert set(figures) == {"commits", "annexes"}
    assert figures["commits"] == {
        "status": "success",
        "as_of": clock().timestamp(),
        "items_synced": 10,
        "items_changed": 1,
        "dagster/row_count": 7,
        "count": 7,
        "head_link": "https://example.com/commit/abc",
    }
    assert result.get_asset_check_evaluations()[0].passed
    with sqlite_store.read() as connection:
        run = recent(connection, limit=1)[0]
        git = statuses(connection, now=clock())[1]
    assert (run.status, run.triggered_by, run.holder) == ("success", "webhook:d-1", f"dagster:{result.run_id}")
    assert git.next_sync is not None
    assert git.next_sync.hour == 18  # the clock says 12:00, and six-hourly runs fall on round hours


def test_the_data_version_moves_only_when_something_changed(
    run_layer: Callable[..., Any], clock: SteppedClock, instance: dg.DagsterInstance
) -> None:
    def version() -> str:
        event = instance.get_latest_materialization_event(ANNEXES)
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.tags is not None
        return event.asset_materialization.tags["dagster/data_version"]

    run_layer(FakeWork(done(clock, changed=4)))
    first = version()
    run_layer(FakeWork(done(clock, changed=0)))
    assert version() == first
    run_layer(FakeWork(done(clock, changed=1)))
    assert version() != first


def test_a_partial_sync_is_materialized_and_its_check_warns(run_layer: Callable[..., Any], clock: SteppedClock) -> None:
    result = run_layer(
        FakeWork(done(clock, status=Status.PARTIAL, errors=("docs/x.bin: is too big; make it smaller",)))
    )

    assert result.success
    assert materialized(result)["annexes"]["status"] == "partial"
    assert "docs/x.bin" in materialized(result)["annexes"]["errors"]
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.description == "docs/x.bin: is too big; make it smaller"


def test_what_was_served_from_cache_is_not_materialized(
    run_layer: Callable[..., Any], clock: SteppedClock, sqlite_store: Store, default_settings: Settings
) -> None:
    outcome = replace(done(clock, status=Status.PARTIAL, errors=("no",)), from_cache=frozenset({"annexes"}))
    assert set(materialized(run_layer(FakeWork(outcome)))) == {"commits"}
    events = sync_without_run(
        LayerId.GIT, FakeWork(outcome), settings=default_settings, store=sqlite_store, clock=clock
    )
    assert [event.asset_key for event in events] == [COMMITS]


@pytest.mark.parametrize(("ended", "made"), [(True, {"commits", "annexes"}), (False, set())])
def test_a_run_takes_over_from_the_run_that_crashed_before_it_and_from_nobody_else(
    ended: bool,
    made: set[str],
    run_layer: Callable[..., Any],
    clock: SteppedClock,
    sqlite_store: Store,
    instance: dg.DagsterInstance,
) -> None:
    status = dg.DagsterRunStatus.FAILURE if ended else dg.DagsterRunStatus.STARTED
    crashed = instance.add_run(dg.DagsterRun(job_name="git_job", status=status)).run_id
    attempt(
        sqlite_store,
        LayerId.GIT,
        lambda run: done(clock),
        triggered_by="schedule",
        clock=clock,
        holder=f"dagster:{crashed}",
        last=False,
    )

    tags = {"dagster/parent_run_id": crashed, "dagster/root_run_id": crashed}
    assert set(materialized(run_layer(FakeWork(done(clock)), tags=tags))) == made
    with sqlite_store.read() as connection:
        statuses = [run.status for run in recent(connection, limit=5)]
    assert statuses == (["success", "failed"] if ended else ["in_progress"])


def test_a_failure_names_its_remedy_and_materializes_nothing(
    run_layer: Callable[..., Any], clock: SteppedClock, instance: dg.DagsterInstance, sqlite_store: Store
) -> None:
    result = run_layer(FakeWork(broken()))

    assert not result.success
    assert materialized(result) == {}
    assert instance.get_latest_materialization_event(COMMITS) is None
    failure = result.failure_data_for_node("git_sync").user_failure_data
    assert failure.description == "repository example/x: was refused; grant contents:read"
    assert set(failure.metadata) == {"what", "where", "reason", "remedy"}
    with sqlite_store.read() as connection:
        assert recent(connection, limit=1)[0].status == "failed"


def test_a_busy_layer_makes_an_empty_run(
    run_layer: Callable[..., Any], clock: SteppedClock, sqlite_store: Store
) -> None:
    attempt(
        sqlite_store,
        LayerId.GIT,
        lambda run: done(clock),
        triggered_by="manual:someone",
        clock=clock,
        holder="another-host:1:x",
        last=False,
    )
    work = FakeWork(done(clock))

    result = run_layer(work)

    assert result.success
    assert materialized(result) == {}
    assert result.get_asset_check_evaluations() == []
    assert len(work.endings) == 1, "the work must not run"


def test_a_layer_that_is_switched_off_is_not_synced(run_layer: Callable[..., Any], clock: SteppedClock) -> None:
    off = Settings.model_validate({"sync_layers": {"git_sync": {"enabled": False}}})
    result = run_layer(FakeWork(done(clock)), settings=off)
    assert result.success
    assert materialized(result) == {}


@pytest.mark.parametrize(
    ("endings", "success"),
    [
        ([broken(reason=Reason.UNAVAILABLE)] * 3 + ["done"], True),
        ([broken(reason=Reason.UNAVAILABLE)] * 4, False),
    ],
)
def test_transient_errors_are_tried_four_times_in_one_run(
    endings: list[Any],
    success: bool,
    sqlite_store: Store,
    clock: SteppedClock,
    default_settings: Settings,
    instance: dg.DagsterInstance,
) -> None:
    work = FakeWork(*(done(clock) if ending == "done" else ending for ending in endings))

    @dg.asset
    def commits(context: dg.AssetExecutionContext) -> Iterator[Any]:
        outcome = attempt_layer(
            context,
            LayerId.GIT,
            work,
            settings=default_settings,
            store=sqlite_store,
            clock=clock,
            waits=(0.0, 0.0, 0.0),
        )
        assert outcome is not None
        yield dg.MaterializeResult()

    result = dg.materialize([commits], instance=instance, raise_on_error=False)

    assert result.success is success
    assert work.endings == []
    with sqlite_store.read() as connection:
        runs = recent(connection, limit=10)
    assert [(run.status, run.attempts) for run in runs] == [("success" if success else "failed", 4)]


def test_the_wait_is_the_policys_and_the_layer_stays_reserved(
    sqlite_store: Store, clock: SteppedClock, default_settings: Settings, instance: dg.DagsterInstance
) -> None:
    work = FakeWork(broken(reason=Reason.UNAVAILABLE))
    asked: list[dg.RetryRequested] = []

    @dg.asset
    def commits(context: dg.AssetExecutionContext) -> None:
        try:
            attempt_layer(context, LayerId.GIT, work, settings=default_settings, store=sqlite_store, clock=clock)
        except dg.RetryRequested as retry:
            asked.append(retry)

    assert dg.materialize([commits], instance=instance).success
    assert [(retry.max_retries, retry.seconds_to_wait) for retry in asked] == [(3, 5.0)]
    with sqlite_store.read() as connection:
        assert statuses(connection, now=clock())[1].status is Status.IN_PROGRESS


def test_a_sync_without_a_run_reports_only_what_it_made(
    sqlite_store: Store, clock: SteppedClock, default_settings: Settings
) -> None:
    def sync(work: FakeWork) -> list[dg.AssetMaterialization]:
        return sync_without_run(LayerId.GIT, work, settings=default_settings, store=sqlite_store, clock=clock)

    assert [event.asset_key for event in sync(FakeWork(done(clock)))] == [COMMITS, ANNEXES]
    assert sync(FakeWork(broken(reason=Reason.UNAVAILABLE))) == []
    with sqlite_store.read() as connection:
        assert recent(connection, limit=1)[0].errors == [str(broken())]


@pytest.mark.parametrize(
    ("tags", "who"),
    [
        ({"lz_sync/triggered_by": "webhook:d-1"}, "webhook:d-1"),
        ({"dagster/schedule_name": "git_six_hourly_schedule"}, "schedule:git_six_hourly_schedule"),
        ({"dagster/sensor_name": "webhook_deliveries_sensor"}, "sensor:webhook_deliveries_sensor"),
        ({"user": "ana@example.com"}, "manual:ana@example.com"),
        ({}, "manual:dagster"),
    ],
)
def test_a_run_says_who_asked_for_it(tags: dict[str, str], who: str) -> None:
    assert triggered_by(tags) == who


def test_progress_is_logged_at_most_every_ten_seconds(clock: SteppedClock) -> None:
    lines: list[str] = []
    progress = log_progress(lines.append, clock)
    progress("reading", 0, 10)
    progress("checking", 1, 10)
    clock.advance(timedelta(seconds=10))
    progress("writing", 3, None)
    assert lines == ["reading: 0 of 10", "writing: 3"]
