"""Migrations lead to the schema that the code expects, on both engines."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from lz_sync_dagster.sync.store import Store, documents, migrations, open_store
from lz_sync_dagster.sync.store.migrations import current_revision, is_in_metadata, newest_revision, upgrade
from lz_sync_dagster.sync.store.schema import metadata


def test_the_migrated_database_is_the_schema(store: Store) -> None:
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False, "include_object": is_in_metadata})
        assert compare_metadata(context, metadata) == []
        assert current_revision(connection) == newest_revision()


def test_upgrading_again_changes_nothing(store: Store) -> None:
    newest = newest_revision()
    assert upgrade(store.engine) == (newest, newest)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    server = sa.make_url(request.getfixturevalue("postgres_url"))
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS before"))
        connection.execute(sa.text("CREATE DATABASE before"))
    engine.dispose()
    return server.set(database="before").render_as_string(hide_password=False)


def test_the_documents_of_before_the_search_are_kept_and_found(empty_url: str) -> None:
    engine = sa.create_engine(empty_url)
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            sa.text(
                "INSERT INTO documents (path, title, headings, body, blob, commit_sha) VALUES ('a.md', 'Gates', "
                """'[{"level": 1, "text": "Gates", "line": 1}]', 'A change passes.', 'b', 'c')"""
            )
        )
    engine.dispose()
    with open_store(empty_url) as store, store.read() as connection:
        (hit,) = documents.search(connection, "change", limit=5)
        assert (hit.path, hit.title) == ("a.md", "Gates")
