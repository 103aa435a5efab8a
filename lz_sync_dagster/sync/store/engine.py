"""Opens the operational store: SQLite by default, PostgreSQL in production, one behaviour.

What a transaction promises, on both: `Store.write` sees the newest committed state and commits durably or not at all;
`Store.write(exclusive=...)` also runs alone among writers of the same name; `Store.read` sees one consistent state.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.observation import JsonData

Item = TypeVar("Item")

#: What one statement asks for, or changes, at once.
CHUNK = 500
_BUSY_TIMEOUT_MS = 60_000
#: Pages of the write-ahead log before they are moved into the file: a load would move the same pages again and again.
_CHECKPOINT_PAGES = 16_000
#: What a connection may keep in memory. A transaction that changes more than fits writes its pages twice.
_CACHE_KB = 32 * 1024


def _dumps(value: Any) -> str:
    if type(value) is JsonData:
        return value.text
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _loads(value: Any) -> Any:
    """SQLite gives a JSON number back as a number, since it keeps it as one."""
    return value if isinstance(value, int | float) else orjson.loads(value)


class Store:
    """The operational store. Holds a connection pool; safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(lz_write=True)
        self._reading = engine
        if engine.dialect.name == "postgresql":
            self._reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read transaction: one consistent state, never blocked by a writer."""
        with self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self, exclusive: str | None = None) -> Iterator[sa.Connection]:
        """A write transaction: commits when the block ends, rolls back when it raises.

        ``exclusive`` names a lock that is held until the commit. On SQLite every writer is alone anyway.
        """
        with self._writing.begin() as connection:
            if exclusive is not None and self.dialect == "postgresql":
                key = zlib.crc32(exclusive.encode())
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
            yield connection

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def in_chunks(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """Items in lists of at most ``size``, in their order: a statement takes only so many parameters."""
    whole = list(items)
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def insert_many(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all give the same columns, among them those with a default in Python: the same as
    ``execute(table.insert(), rows)``, faster on SQLite, where SQLAlchemy's own work per row is most of the cost."""
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(table.insert(), list(rows))
        return
    names = list(rows[0])
    columns = list(zip(*map(itemgetter(*names), rows), strict=True))
    for index, name in enumerate(names):
        process = table.c[name].type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        if process is not None:
            columns[index] = _processed(columns[index], process)
    quoted = ", ".join(connection.dialect.identifier_preparer.quote(name) for name in names)
    marks = ", ".join("?" * len(names))
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({quoted}) VALUES ({marks})",  # noqa: S608 - names of the schema
        list(zip(*columns, strict=True)),
    )


def _processed(values: tuple[Any, ...], process: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Values of a column as the driver takes them. All may be one object, such as the instant of their transaction."""
    first = values[0]
    if all(value is first for value in values):
        return (process(first),) * len(values)
    return tuple(map(process, values))


def open_store(url: str, *, migrate: bool = True) -> Store:
    """Open the store at an SQLAlchemy URL (``sqlite:///path`` or ``postgresql://…``) and bring its schema up to date.

    Raises:
        SyncError: the URL is of another kind, or the database cannot be reached.
    """
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError as error:
        raise SyncError(
            "is not a database URL",
            where="store.url",
            remedy="use sqlite:///path/to/file or postgresql://user@host/database",
            reason=Reason.INVALID,
        ) from error
    backend = parsed.get_backend_name()
    shown = parsed.render_as_string(hide_password=True)
    if backend == "sqlite":
        engine = _sqlite_engine(parsed)
    elif backend == "postgresql":
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg2"),
            json_serializer=_dumps,
            json_deserializer=_loads,
            pool_pre_ping=True,
            hide_parameters=True,
            executemany_mode="values_plus_batch",
        )
    else:
        raise SyncError(
            f"has the unsupported backend {backend!r}",
            where=f"store.url {shown}",
            remedy="use sqlite:///path/to/file or postgresql://user@host/database",
            reason=Reason.INVALID,
        )
    try:
        if migrate:
            from lz_sync_dagster.sync.store.migrations import upgrade

            upgrade(engine)
        else:
            with engine.connect():
                pass
    except sa.exc.DatabaseError as error:
        engine.dispose()
        if isinstance(error, sa.exc.ProgrammingError | sa.exc.IntegrityError):
            raise
        raise SyncError(
            f"cannot be opened: {str(error.orig).strip().splitlines()[0]}",
            where=f"store {shown}",
            remedy="check that the database runs, that the URL is right and that its folder is writable",
            reason=Reason.UNAVAILABLE,
        ) from error
    return Store(engine)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    options: dict[str, Any] = {}
    if url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SyncError(
                f"cannot be made: {error.strerror or error}",
                where=f"folder {folder} of the store",
                remedy="let data_dir or store.url name a folder that can be written to",
                reason=Reason.INVALID,
            ) from error
        options["pool_use_lifo"] = True  # the connection that was used last has its pages and statements at hand
    engine = sa.create_engine(
        url,
        json_serializer=_dumps,
        json_deserializer=_loads,
        connect_args={"check_same_thread": False, "timeout": 60},
        **options,
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        cursor.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("lz_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
