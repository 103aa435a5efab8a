"""git in full"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "commit_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha", sa.String(length=64), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("change", sa.String(length=16), nullable=False),
        sa.Column("old_path", sa.Text(), nullable=True),
        sa.Column("insertions", sa.Integer(), nullable=True),
        sa.Column("deletions", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("path", "sha", name=op.f("pk_commit_files")),
    )
    with op.batch_alter_table("commit_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_commit_files_sha"), ["sha"], unique=False)

    op.create_table(
        "delivery_repairs",
        sa.Column("delivery_id", sa.String(length=128), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_delivery_repairs")),
    )
    with op.batch_alter_table("delivery_repairs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_delivery_repairs_requested_at"), ["requested_at"], unique=False)

    op.create_table(
        "git_state",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("source_commit", sa.String(length=64), nullable=False),
        sa.Column("portal_commit", sa.String(length=64), nullable=False),
        sa.Column("tree", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("proposed_commit", sa.String(length=64), nullable=True),
        sa.Column("pull_request", sa.Text(), nullable=True),
        sa.Column("proven_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_git_state")),
    )
    op.create_table(
        "head_moves",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("old_sha", sa.String(length=64), nullable=True),
        sa.Column("new_sha", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("commits", sa.Integer(), nullable=False),
        sa.Column("triggered_by", sa.String(length=200), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head_moves")),
    )
    with op.batch_alter_table("head_moves", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_head_moves_new_sha"), ["new_sha"], unique=False)
        batch_op.create_index(batch_op.f("ix_head_moves_seen_at"), ["seen_at"], unique=False)

    op.create_table(
        "item_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha", sa.String(length=64), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("change", sa.String(length=16), nullable=False),
        sa.Column(
            "before", sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"), nullable=True
        ),
        sa.Column(
            "after", sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"), nullable=True
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item_changes")),
    )
    with op.batch_alter_table("governance", schema=None) as batch_op:
        batch_op.add_column(sa.Column("line", sa.Integer(), nullable=True))

    with op.batch_alter_table("item_changes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_item_changes_committed_at"), ["committed_at"], unique=False)
        batch_op.create_index("ix_item_changes_kind_key", ["kind", "key"], unique=False)
        batch_op.create_index(batch_op.f("ix_item_changes_sha"), ["sha"], unique=False)

    op.create_table(
        "source_findings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("commit_sha", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source_findings")),
    )
    with op.batch_alter_table("source_findings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_source_findings_opened_at"), ["opened_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_source_findings_resolved_at"), ["resolved_at"], unique=False)

    with op.batch_alter_table("commits", schema=None) as batch_op:
        batch_op.add_column(sa.Column("signature", sa.String(length=16), nullable=True))

    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.add_column(sa.Column("layer", sa.String(length=16), server_default="git", nullable=False))
        batch_op.add_column(
            sa.Column(
                "touched",
                sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"),
                nullable=True,
            )
        )
        batch_op.add_column(sa.Column("resolved_sha", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("claim", sa.String(length=16), nullable=True))
        batch_op.create_index(batch_op.f("ix_inbox_commit_claim"), ["commit_claim"], unique=False)

    # Derived from the repositories: the next sync fills it again.
    op.drop_table("synced_files")
    op.create_table(
        "synced_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("blob", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("commit_sha", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("path", "destination", name=op.f("pk_synced_files")),
    )
    with op.batch_alter_table("synced_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_synced_files_destination"), ["destination"], unique=False)
        batch_op.create_index(batch_op.f("ix_synced_files_status"), ["status"], unique=False)

    with op.batch_alter_table("terraform_blocks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_terraform_blocks_has_error"), ["has_error"], unique=False)
