"""Schema migrations (alembic), shipped in the package and run by `open_store` and ``lz-sync db migrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

_LOCK = 7_406_001
#: What the names of the full-text index begin with: a virtual table and its shadows on SQLite, a column and its index
#: on PostgreSQL.
_SEARCH_INDEX = "documents_fts"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def is_in_metadata(_object: object, name: str | None, *_: object) -> bool:
    """Whether a table, column or index is what the schema module describes (alembic's ``include_object``).

    The full-text index is not: its form belongs to the engine, and migration 0003 makes it.
    """
    return not (name or "").startswith(_SEARCH_INDEX)


def newest_revision() -> str:
    """The revision that this package's code expects."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current_revision(connection: sa.Connection) -> str | None:
    """The revision that a database is at; ``None`` for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: sa.Engine) -> tuple[str | None, str]:
    """Bring a database to the newest revision, one process at a time. Returns the revisions before and after."""
    newest = newest_revision()
    with engine.connect() as connection:
        before = current_revision(connection)
    if before == newest:
        return before, newest
    with engine.execution_options(lz_write=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        config = _config()
        attributes: dict[str, Any] = config.attributes
        attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, newest
