"""The models on DuckDB: one ``dbt build`` with all unit and data tests, on raw data that this module writes; then what
the marts say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import jinja2
import pyarrow as pa
import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.analytics import raw, transform
from lz_sync_dagster.sync.analytics.service import build_marts, land_billing, publish_marts, sync_analytics
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.state.observation import Observation, Source
from lz_sync_dagster.sync.state.observation import observe as observation_of_json
from lz_sync_dagster.sync.store import Store, assets, daily_metrics, dead_letters, open_store
from lz_sync_dagster.sync.store.daily_metrics import DailyMetric
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock
from tests.unit.sync.analytics import export

INVENTORY_ONLY, BOTH, BILLING_ONLY = date(2026, 3, 1), date(2026, 2, 28), date(2026, 2, 27)
SNAPSHOT = {INVENTORY_ONLY: datetime(2026, 3, 1, 11, 55, tzinfo=UTC), BOTH: datetime(2026, 2, 28, 23, 55, tzinfo=UTC)}
RUN = LayerRun(1, LayerId.BIGQUERY, "test", "test", 1, NOW)


def resource(day: date, name: str, *, decided: int, failed: int) -> dict[str, Any]:
    return {
        "as_of": SNAPSHOT[day],
        "name": f"//compute.googleapis.com/projects/lz-prod-app/zones/europe-west1-b/instances/{name}",
        "asset_type": "compute.googleapis.com/Instance",
        "project": "lz-prod-app",
        "controls_decided": decided,
        "controls_failed": failed,
        "controls_unknown": 0,
        "violation_count": failed,
        "compliance_score": (decided - failed) / decided if decided else None,
        "coverage": "complete",
    }


def ledger(day: date, *words: str) -> list[dict[str, Any]]:
    return [
        {
            "as_of": SNAPSHOT[day],
            "scope": "organizations/1",
            "asset_type": f"example.googleapis.com/T{number}",
            "content_type": "RESOURCE",
            "status": word,
        }
        for number, word in enumerate(words)
    ]


def write_raw(settings: Settings, folder: str, day: date, rows: list[dict[str, Any]]) -> None:
    table = next(table for table in raw.TABLES if table.folder == folder)
    content = raw.parquet(pa.Table.from_pylist(rows, schema=table.schema))
    raw.Folder(settings.raw_dir).write(f"{folder}/{table.partition}={day}/{folder}.parquet", content)


def seen(name: str, *, at: datetime, **data: Any) -> Observation:
    asset = {
        "name": f"//compute.googleapis.com/projects/p/zones/z/disks/{name}",
        "assetType": "compute.googleapis.com/Disk",
        "updateTime": at.isoformat(),
        "ancestors": ["projects/1", "organizations/1"],
        "resource": {"location": "z", "data": {"name": name, "id": "1", **data}},
    }
    return observation_of_json(asset, scope="organizations/1", observed_ns=to_ns(at), source=Source.SNAPSHOT)


def gone(name: str, *, at: datetime) -> Observation:
    asset = {"name": f"//compute.googleapis.com/projects/p/zones/z/disks/{name}"}
    asset |= {"assetType": "compute.googleapis.com/Disk"}
    return observation_of_json(asset, scope="organizations/1", observed_ns=to_ns(at), source=Source.FEED, deleted=True)


def observe(store: Store, clock: SteppedClock, *observations: Observation) -> None:
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, observations, layer=LayerId.API, now=clock(), evaluate=lambda *_: [])


@dataclass
class Built:
    settings: Settings
    store: Store
    outcome: LayerOutcome

    def query(self, sql: str) -> list[dict[str, Any]]:
        with duckdb.connect(str(self.settings.duckdb_path), read_only=True) as connection:
            rows: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
            return rows

    def day(self, day: date) -> dict[str, dict[str, Any]]:
        rows = self.query(f"select * from lz_metrics.fct_daily_lz_metrics where date = date '{day}'")
        return {row["currency"]: row for row in rows}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Any:
    root = tmp_path_factory.mktemp("it's a {folder}")
    billing = root / "export"
    settings = Settings(
        data_dir=root / "data", sync_layers={"bigquery": {"billing_export": str(billing), "source": "o'landing"}}
    )
    write_raw(
        settings,
        "resources",
        BOTH,
        [
            resource(BOTH, "a", decided=2, failed=1),
            {**resource(BOTH, "b", decided=4, failed=0), "as_of": datetime(2026, 2, 28, 22, tzinfo=UTC)},
            resource(BOTH, "c", decided=0, failed=0),
        ],
    )
    write_raw(settings, "coverage", BOTH, ledger(BOTH, "complete", "complete"))
    write_raw(settings, "resources", INVENTORY_ONLY, [resource(INVENTORY_ONLY, "a", decided=0, failed=0)])
    write_raw(settings, "coverage", INVENTORY_ONLY, ledger(INVENTORY_ONLY, "complete", "unknown"))
    export.write(billing, "2026-02-27", export.row(cost=10.1, credits=[{"amount": -0.1}, {"amount": -2.0}]))
    export.write(
        billing,
        "2026-02-28",
        export.row(cost=0.1),
        export.row(cost=0.2, service={"id": "1", "description": "Cloud Storage"}),
        export.row(cost=7.0, currency="EUR", project=None),
        export.row(cost=99.0, currency="QQQ"),
    )
    with open_store(f"sqlite:///{root / 'store.db'}") as store:
        clock = SteppedClock()
        observe(store, clock, *(seen(name, at=clock.now) for name in ("stays", "changes", "goes", "returns")))
        outcome = sync_analytics(settings, store, RUN, clock=clock, progress=silent)
        clock.advance(timedelta(hours=30))
        observe(store, clock, seen("changes", at=clock.now, size=2), seen("new", at=clock.now))
        observe(store, clock, *(gone(name, at=clock.now) for name in ("goes", "returns")))
        clock.advance(timedelta(hours=1))
        observe(store, clock, seen("returns", at=clock.now, id="2"))
        build_marts(settings, store, clock=clock)
        yield Built(settings, store, outcome)


def test_a_day_with_billing_alone_has_unknown_resource_figures(built: Built) -> None:
    row = built.day(BILLING_ONLY)["USD"]
    assert row["total_cost"] == Decimal("8")
    assert (row["total_resources"], row["resources_with_violations"], row["avg_compliance"]) == (None, None, None)
    assert (row["coverage"], row["resource_coverage"], row["cost_coverage"]) == ("partial", "unknown", "complete")


def test_a_day_with_inventory_alone_has_an_unknown_cost_and_no_currency(built: Built) -> None:
    rows = built.day(INVENTORY_ONLY)
    assert list(rows) == ["XXX"]
    row = rows["XXX"]
    assert (row["total_resources"], row["total_cost"], row["cost_coverage"]) == (1, None, "unknown")
    assert row["resource_coverage"] == "partial"
    assert row["as_of"] == SNAPSHOT[INVENTORY_ONLY]


def test_violations_are_unknown_where_no_control_was_decided(built: Built) -> None:
    row = built.day(INVENTORY_ONLY)["XXX"]
    assert (row["resources_with_violations"], row["avg_compliance"]) == (None, None)


def test_currencies_are_rows_of_their_own_with_the_same_resource_figures(built: Built) -> None:
    rows = built.day(BOTH)
    assert {currency: row["total_cost"] for currency, row in rows.items()} == {"USD": Decimal("0.3"), "EUR": Decimal(7)}
    for row in rows.values():
        assert (row["total_resources"], row["resources_with_violations"], row["avg_compliance"]) == (3, 1, 0.75)
        assert row["source"] == "o'landing"


def test_refused_lines_make_the_days_cost_partial_and_are_kept_as_dead_letters(built: Built) -> None:
    assert {row["cost_coverage"] for row in built.day(BOTH).values()} == {"partial"}
    assert built.outcome.status is Status.PARTIAL
    (error,) = built.outcome.errors
    assert "usage_date=2026-02-28/part-0.parquet" in error
    assert "QQQ" in error
    with built.store.read() as connection:
        (letter,) = dead_letters.newest(connection, limit=10, layer=LayerId.BIGQUERY)
    assert '"currency": "QQQ"' in str(letter.payload)


def test_costs_of_no_project_are_kept_as_such(built: Built) -> None:
    rows = built.query("select project_id, net_cost from lz_metrics.fct_daily_costs where currency = 'EUR'")
    assert rows == [{"project_id": "none", "net_cost": Decimal(7)}]


def test_the_mart_is_published_as_it_stands(built: Built) -> None:
    with built.store.read() as connection:
        published = daily_metrics.latest(connection, days=10)
    assert [(row.date, row.currency) for row in published] == [
        (BILLING_ONLY, "USD"),
        (BOTH, "EUR"),
        (BOTH, "USD"),
        (INVENTORY_ONLY, "XXX"),
    ]
    assert published[2] == DailyMetric(
        BOTH,
        "o'landing",
        "USD",
        3,
        1,
        0.3,
        0.75,
        "partial",
        "complete",
        "partial",
        datetime(2026, 2, 28, 1, tzinfo=UTC),
    )


def test_each_version_of_a_resource_is_a_row_and_a_later_build_takes_in_what_changed(built: Built) -> None:
    rows = built.query(
        "select split_part(resource_name, '/', -1) as name, version, is_current, is_deleted, resource_id, "
        "exported_number from lz_metrics.dim_resources order by name, version"
    )
    told = [(row["name"], row["version"], row["is_current"], row["is_deleted"], row["resource_id"]) for row in rows]
    assert told == [
        ("changes", 1, False, False, "1"),
        ("changes", 2, True, False, "1"),
        ("goes", 1, False, False, "1"),
        ("goes", 2, True, True, "1"),
        ("new", 1, True, False, "1"),
        ("returns", 1, False, False, "1"),
        ("returns", 2, False, True, "1"),
        ("returns", 3, True, False, "2"),
        ("stays", 1, True, False, "1"),
    ]
    first, second = sorted({row["exported_number"] for row in rows})
    assert [row["name"] for row in rows if row["exported_number"] == first] == ["stays"], "the others were merged"
    landings = sorted((Path(built.settings.raw_dir) / "resource_versions").glob("exported_date=2026*/*.parquet"))
    assert [path.name for path in landings] == [f"{0:020d}-{first:020d}.parquet", f"{first:020d}-{second:020d}.parquet"]


def test_the_outcome_counts_what_is_vouched_for_and_what_changed(built: Built) -> None:
    assert (built.outcome.items_synced, built.outcome.items_changed) == (4, 6)
    assert built.outcome.as_of == SNAPSHOT[INVENTORY_ONLY]
    assert built.outcome.details["raw_billing"]["refused_lines"] == 1
    assert built.outcome.details["daily_metrics"]["days_without_cost"] == 1
    assert built.outcome.details["dbt"]["models"] == 11


def test_the_same_data_again_changes_nothing_and_still_tells_what_is_missing(built: Built) -> None:
    landing = land_billing(built.settings, built.store, clock=SteppedClock(NOW))
    assert (landing.changed_days, landing.days, landing.lines) == (0, 2, 4)
    assert [refusal.lines for refusal in landing.refusals] == [1]
    assert publish_marts(built.settings, built.store).changed == 0


def test_dbt_writes_below_the_data_folder_only(built: Built) -> None:
    names = {path.name for path in transform.project_dir().iterdir()}
    assert not names & {"target", "logs", ".user.yml", "dbt_packages"}
    assert (transform.target_path(built.settings) / "run_results.json").is_file()


class _Dispatch:
    """What dbt's ``adapter`` does for our macros: the one of a warehouse, or else the default."""

    def __init__(self, warehouse: str) -> None:
        self.warehouse = warehouse
        self.macros: Any = None

    def dispatch(self, name: str, _package: str) -> Any:
        own = getattr(self.macros, f"{self.warehouse}__{name}", None)
        return own or getattr(self.macros, f"default__{name}")


def rendered(model: Path, warehouse: str, source: str) -> str:
    """A model's SQL as dbt renders it for a warehouse."""
    adapter = _Dispatch(warehouse)
    project = transform.project_dir()
    names: dict[str, Any] = {
        "adapter": adapter,
        "return": lambda value: value,
        "ref": lambda name: f"built.lz_metrics.{name}",
        "source": lambda _source, name: f"raw_{name}",
        "env_var": lambda _name, _default: source,
        "config": lambda **_: "",
        "is_incremental": lambda: False,
        "dbt": SimpleNamespace(escape_single_quotes=lambda text: text.replace("'", "\\'")),
    }
    environment = jinja2.Environment(autoescape=False)
    text = "\n".join(path.read_text() for path in sorted((project / "macros").glob("*.sql")))
    macros = environment.from_string(text, globals=names).module
    adapter.macros = macros
    own = {name: getattr(macros, name) for name in dir(macros) if not name.startswith("_")}
    return environment.from_string(model.read_text(), globals={**names, **own}).render()


def transpiled(sql: str) -> str:
    """BigQuery's SQL in DuckDB's words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its accelerator's, at import
        import sqlglot
    return sqlglot.transpile(sql, read="bigquery", write="duckdb")[0]


@pytest.mark.parametrize("model", sorted(transform.project_dir().glob("models/*/*.sql")), ids=lambda path: path.stem)
def test_a_model_means_the_same_in_bigquery_sql(built: Built, model: Path) -> None:
    query = transpiled(
        rendered(model, "bigquery", "o'landing"),
    )
    with duckdb.connect() as connection:
        connection.sql("set TimeZone = 'UTC'")
        connection.sql(f"attach '{str(built.settings.duckdb_path).replace(chr(39), chr(39) * 2)}' as built (read_only)")
        for name, folder in {
            "resources": "resources",
            "coverage": "coverage",
            "findings": "findings",
            "resource_versions": "resource_versions",
            "costs": "billing",
        }.items():
            files = transform.environment(built.settings)["LZ_DBT_RAW_DIR"].replace("{{", "{").replace("}}", "}")
            connection.sql(
                f"create view raw_{name} as select * from read_parquet('{files}/{folder}/**/*.parquet', "
                "hive_partitioning = true, union_by_name = true)"
            )
        as_bigquery = connection.sql(f"select * from ({query}) order by all").to_arrow_table()
        as_built = connection.sql(f"select * from built.lz_metrics.{model.stem} order by all").to_arrow_table()
    assert as_bigquery.column_names == as_built.column_names
    assert as_bigquery.to_pylist() == as_built.to_pylist()
