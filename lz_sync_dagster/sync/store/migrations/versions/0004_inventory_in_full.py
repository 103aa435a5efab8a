"""inventory in full"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_KEY = "{0}.name = {1}.name AND {0}.content_type = {1}.content_type"


def upgrade() -> None:
    _create_tables()
    _add_columns()
    _move_contents("resources", ("name", "content_type"), redacted="redacted")
    _move_contents("resource_versions", ("name", "content_type", "version"), redacted="'[]'")
    _fill_columns()
    _require_columns()
    op.execute("INSERT INTO counters (name, value) VALUES ('resources', 1)")
    # What terraform blocks say is read anew, and so is every part of the inventory that an open breaker withheld.
    op.execute("UPDATE git_state SET fingerprint = ''")
    op.execute("DELETE FROM breakers")
    op.execute("UPDATE alerts SET resolved_at = CURRENT_TIMESTAMP WHERE name = 'MassDeletion' AND resolved_at IS NULL")
    with op.batch_alter_table("breakers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("read_ns", sa.BigInteger(), nullable=False))
        batch_op.add_column(sa.Column("fingerprint", sa.String(length=32), nullable=False))
        batch_op.add_column(sa.Column("confirmed_by", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True))
    _order_by_code_point()


#: Tables that another migration made, too.
_BY_CODE_POINT = (
    "resources",
    "resource_versions",
    "snapshots",
    "coverage",
    "coverage_history",
    "part_reads",
    "breakers",
    "breaker_losses",
    "data_fields",
    "feed_freshness",
    "terraform_drift",
    "findings",
)


def _order_by_code_point() -> None:
    """PostgreSQL orders the texts of the inventory as SQLite does, whatever the database's language."""
    bind = op.get_bind()
    if bind.dialect.name != "postgresql":
        return
    for table in _BY_CODE_POINT:
        columns = [column for column in sa.inspect(bind).get_columns(table) if isinstance(column["type"], sa.String)]
        changes = ", ".join(
            f'ALTER COLUMN {column["name"]} TYPE {column["type"].compile(bind.dialect)} COLLATE "C"'
            for column in columns
        )
        op.execute(f"ALTER TABLE {table} {changes}")


def _add_columns() -> None:
    with op.batch_alter_table("resource_versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("asset_type", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("scope", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("project", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("location", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("display_name", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("valid_from_ns", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("valid_to_ns", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("fingerprint", sa.LargeBinary(length=16), nullable=True))
        batch_op.add_column(sa.Column("content_id", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("ancestors", _JSON, nullable=True))
    with op.batch_alter_table("resources", schema=None) as batch_op:
        batch_op.add_column(sa.Column("valid_from_ns", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("fingerprint", sa.LargeBinary(length=16), nullable=True))
        batch_op.add_column(sa.Column("content_id", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("written", sa.BigInteger(), nullable=True))
        batch_op.drop_index(batch_op.f("ix_resources_changed_at"))
    with op.batch_alter_table("terraform_blocks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attributes", _JSON, nullable=True))


def _move_contents(table: str, key: tuple[str, ...], *, redacted: str) -> None:
    """Number the contents of a table's rows, after those that are there, and move them."""
    columns = ", ".join(key)
    cast = "::jsonb" if op.get_bind().dialect.name == "postgresql" and redacted.startswith("'") else ""
    op.execute(
        f"CREATE TABLE numbered AS SELECT {columns}, "  # noqa: S608 - names of this module
        f"row_number() OVER (ORDER BY {columns}) + (SELECT coalesce(max(id), 0) FROM resource_contents) AS id "
        f"FROM {table} WHERE data IS NOT NULL"
    )
    op.execute(f"CREATE INDEX ix_numbered ON numbered ({columns})")
    same = " AND ".join(f"{table}.{column} = numbered.{column}" for column in key)
    op.execute(
        f"INSERT INTO resource_contents (id, data, redacted) "  # noqa: S608
        f"SELECT numbered.id, {table}.data, {redacted}{cast} FROM {table} JOIN numbered ON {same}"
    )
    op.execute(f"UPDATE {table} SET content_id = (SELECT numbered.id FROM numbered WHERE {same})")  # noqa: S608
    op.execute("DROP TABLE numbered")


def _fill_columns() -> None:
    current = _KEY.format("resources", "resource_versions")
    following = f"{_KEY.format('later', 'resource_versions')} AND later.version = resource_versions.version + 1"
    for column in ("asset_type", "scope", "project", "location", "display_name", "ancestors"):
        op.execute(
            f"UPDATE resource_versions SET {column} = "  # noqa: S608
            f"(SELECT resources.{column} FROM resources WHERE {current})"
        )
    begins = "CASE WHEN {0}deleted AND {0}absent_ns > {0}update_ns THEN {0}absent_ns ELSE {0}update_ns END"
    op.execute(f"UPDATE resources SET valid_from_ns = {begins.format('')}, written = 1")  # noqa: S608
    op.execute(
        "UPDATE resource_versions SET valid_from_ns = update_ns, valid_to_ns = coalesce("  # noqa: S608
        f"(SELECT later.update_ns FROM resource_versions AS later WHERE {following}), "
        f"(SELECT resources.valid_from_ns FROM resources WHERE {current}), update_ns)"
    )
    columns = "scope, asset_type, content_type, status, reason, detail, complete_read_ns, since"
    op.execute(f"INSERT INTO coverage_history ({columns}) SELECT {columns} FROM coverage")  # noqa: S608
    op.execute("UPDATE terraform_blocks SET attributes = '{}', blob = ''")


def _require_columns() -> None:
    with op.batch_alter_table("resource_versions", schema=None) as batch_op:
        for column, kind in (
            ("asset_type", sa.String(length=128)),
            ("scope", sa.String(length=128)),
            ("valid_from_ns", sa.BigInteger()),
            ("valid_to_ns", sa.BigInteger()),
            ("ancestors", _JSON),
        ):
            batch_op.alter_column(column, existing_type=kind, nullable=False)
        batch_op.create_index(
            "ix_resource_versions_type_valid", ["content_type", "asset_type", "valid_to_ns"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_resource_versions_valid_from_ns"), ["valid_from_ns"], unique=False)
        batch_op.create_index(batch_op.f("ix_resource_versions_valid_to_ns"), ["valid_to_ns"], unique=False)
        batch_op.drop_column("data")
    with op.batch_alter_table("resources", schema=None) as batch_op:
        batch_op.alter_column("valid_from_ns", existing_type=sa.BigInteger(), nullable=False)
        batch_op.alter_column("written", existing_type=sa.BigInteger(), nullable=False)
        batch_op.create_index(batch_op.f("ix_resources_valid_from_ns"), ["valid_from_ns"], unique=False)
        batch_op.create_index(batch_op.f("ix_resources_written"), ["written"], unique=False)
        batch_op.drop_index(batch_op.f("ix_resources_project"))
        batch_op.create_index(
            "ix_resources_project_type",
            ["content_type", "project", "asset_type", "location", "deleted"],
            unique=False,
        )
        batch_op.create_index(
            "ix_resources_absent",
            ["scope", "asset_type", "content_type", "deleted"],
            unique=False,
            sqlite_where=sa.text("absent_ns IS NOT NULL"),
            postgresql_where=sa.text("absent_ns IS NOT NULL"),
        )
        batch_op.drop_column("redacted")
        batch_op.drop_column("data")
    with op.batch_alter_table("terraform_blocks", schema=None) as batch_op:
        batch_op.alter_column("attributes", existing_type=_JSON, nullable=False)


def _create_tables() -> None:
    op.create_table(
        "breaker_losses",
        sa.Column("scope", sa.String(length=128), nullable=False),
        sa.Column("asset_type", sa.String(length=128), nullable=False),
        sa.Column("content_type", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.PrimaryKeyConstraint("scope", "asset_type", "content_type", "name", name=op.f("pk_breaker_losses")),
    )
    op.create_table(
        "coverage_history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("scope", sa.String(length=128), nullable=False),
        sa.Column("asset_type", sa.String(length=128), nullable=False),
        sa.Column("content_type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("complete_read_ns", sa.BigInteger(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coverage_history")),
    )
    with op.batch_alter_table("coverage_history", schema=None) as batch_op:
        batch_op.create_index(
            "ix_coverage_history_part", ["scope", "asset_type", "content_type", "since"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_coverage_history_since"), ["since"], unique=False)
        batch_op.create_index(batch_op.f("ix_coverage_history_until"), ["until"], unique=False)

    op.create_table(
        "data_fields",
        sa.Column("asset_type", sa.String(length=128), nullable=False),
        sa.Column("content_type", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("kinds", _JSON, nullable=False),
        sa.Column("drift", sa.String(length=16), nullable=True),
        sa.Column("example", sa.String(length=1024), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("drifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("asset_type", "content_type", "path", name=op.f("pk_data_fields")),
    )
    with op.batch_alter_table("data_fields", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_data_fields_drifted_at"), ["drifted_at"], unique=False)

    op.create_table(
        "feed_freshness",
        sa.Column("asset_type", sa.String(length=128), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("missed", sa.BigInteger(), nullable=False),
        sa.Column("source_delays", _JSON, nullable=False),
        sa.Column("own_delays", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("asset_type", "hour", name=op.f("pk_feed_freshness")),
    )
    op.create_table(
        "part_reads",
        sa.Column("scope", sa.String(length=128), nullable=False),
        sa.Column("asset_type", sa.String(length=128), nullable=False),
        sa.Column("content_type", sa.String(length=16), nullable=False),
        sa.Column("full_calls", sa.Integer(), nullable=True),
        sa.Column("delta_read_ns", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quarantined_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("scope", "asset_type", "content_type", name=op.f("pk_part_reads")),
    )
    op.create_table(
        "quota_limits",
        sa.Column("quota", sa.String(length=64), nullable=False),
        sa.Column("per_minute", sa.Double(), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("throttled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("adapted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("quota", name=op.f("pk_quota_limits")),
    )
    op.create_table(
        "quota_usage",
        sa.Column("quota", sa.String(length=64), nullable=False),
        sa.Column("slice", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("quota", "slice", name=op.f("pk_quota_usage")),
    )
    op.create_table(
        "resource_contents",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.Column("redacted", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resource_contents")),
    )
    op.create_table(
        "terraform_compares",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("written", sa.BigInteger(), nullable=False),
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_terraform_compares")),
    )
    op.create_table(
        "terraform_drift",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("resource_type", sa.String(length=256), nullable=False),
        sa.Column("asset_type", sa.String(length=128), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("resource", sa.String(length=1024), nullable=True),
        sa.Column("differences", _JSON, nullable=False),
        sa.Column("commit_sha", sa.String(length=64), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terraform_drift")),
    )
    with op.batch_alter_table("terraform_drift", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_terraform_drift_resource"), ["resource"], unique=False)
        batch_op.create_index(batch_op.f("ix_terraform_drift_status"), ["status"], unique=False)
