"""Migrations lead to the schema that the code expects, on both engines."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.migrations import current_revision, newest_revision, upgrade
from lz_sync_dagster.sync.store.schema import metadata


def test_the_migrated_database_is_the_schema(store: Store) -> None:
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []
        assert current_revision(connection) == newest_revision()


def test_upgrading_again_changes_nothing(store: Store) -> None:
    newest = newest_revision()
    assert upgrade(store.engine) == (newest, newest)
