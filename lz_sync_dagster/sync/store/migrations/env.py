"""Alembic's entry: runs inside the transaction that `upgrade` opened."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from lz_sync_dagster.sync.store.migrations import is_in_metadata
from lz_sync_dagster.sync.store.schema import AutoKey, Json, UTCDateTime, metadata


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write a column's type out, so that a migration does not change when the schema module does."""
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if item is Json:
        autogen.imports.add("from sqlalchemy.dialects.postgresql import JSONB")
        return 'sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")'
    if item is AutoKey:
        return 'sa.BigInteger().with_variant(sa.Integer(), "sqlite")'
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=render_item,
    include_object=is_in_metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
