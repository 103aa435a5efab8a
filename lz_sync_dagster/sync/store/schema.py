"""The one schema of the operational store, for SQLite and PostgreSQL alike. Queries live in the modules beside this
one.

Instants are `UTCDateTime`; the two instants of an asset's version are integers of nanoseconds, since Google's
timestamps are finer than what `datetime` holds and versions are compared exactly.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

#: A key that counts up by itself: SQLite only does that for a column declared INTEGER.
AutoKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """A timezone-aware instant in UTC; a naive one is refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value.isoformat()}: every instant needs a timezone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _instant(name: str, *, nullable: bool = False, index: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UTCDateTime(), nullable=nullable, index=index)


# --- operations -------------------------------------------------------------------------------------------------------

#: Counters that are taken inside a transaction. The row lock makes their values gap-free and ordered by commit.
counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

#: One row per layer: its health now. ``lease_*`` make a layer single-flight across processes.
layer_status = sa.Table(
    "layer_status",
    metadata,
    sa.Column("layer", sa.String(16), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),
    _instant("last_sync", nullable=True),
    _instant("last_attempt", nullable=True),
    _instant("as_of", nullable=True),
    _instant("next_sync", nullable=True),
    sa.Column("items_synced", sa.BigInteger, nullable=False, default=0),
    sa.Column("items_changed", sa.BigInteger, nullable=False, default=0),
    sa.Column("errors", Json, nullable=False),
    sa.Column("consecutive_failures", sa.Integer, nullable=False, default=0),
    sa.Column("details", Json, nullable=False),
    sa.Column("lease_holder", sa.String(200)),
    _instant("lease_expires_at", nullable=True),
)

#: One row per sync of a layer.
layer_runs = sa.Table(
    "layer_runs",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("layer", sa.String(16), nullable=False, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("triggered_by", sa.String(200), nullable=False),
    sa.Column("holder", sa.String(200), nullable=False),
    _instant("started_at", index=True),
    _instant("finished_at", nullable=True),
    sa.Column("items_synced", sa.BigInteger, nullable=False, default=0),
    sa.Column("items_changed", sa.BigInteger, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=1),
    sa.Column("errors", Json, nullable=False),
    sa.Column("details", Json, nullable=False),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(512), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    _instant("opened_at", index=True),
    _instant("resolved_at", nullable=True),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    _instant("at", index=True),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("target", sa.String(1024), nullable=False),
    sa.Column("details", Json, nullable=False),
)

# --- layer 1: webhook -------------------------------------------------------------------------------------------------

#: One row per request for a sync: an accepted delivery, a head that polling found, a change that another layer has to
#: look at. ``layer``: who is to sync. ``status``: pending, done, ignored. ``asked_at``: when it last asked for a sync.
#: ``touched``: the paths that a push says it changed, ``NULL`` if it does not say, or not all. ``resolved_sha``: the
#: head of the sync that settled it; ``claim``: what became of ``commit_claim``: reached, absent.
inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("delivery_id", sa.String(128), nullable=False, unique=True),
    sa.Column("body_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("layer", sa.String(16), nullable=False, server_default="git"),
    sa.Column("event", sa.String(64), nullable=False),
    sa.Column("action", sa.String(64)),
    sa.Column("repository", sa.String(256), nullable=False),
    sa.Column("ref", sa.String(512)),
    sa.Column("commit_claim", sa.String(64), index=True),
    sa.Column("touched", Json),
    sa.Column("resolved_sha", sa.String(64)),
    sa.Column("claim", sa.String(16)),
    sa.Column("actor", sa.String(200)),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text),
    sa.Column("run_id", sa.String(128)),
    _instant("received_at"),
    _instant("asked_at"),
    _instant("finished_at", nullable=True),
)

#: Deliveries that GitHub could not deliver, and what became of them. ``outcome``: requested, delivered, given_up.
delivery_repairs = sa.Table(
    "delivery_repairs",
    metadata,
    sa.Column("delivery_id", sa.String(128), primary_key=True),
    sa.Column("event", sa.String(64), nullable=False),
    _instant("delivered_at"),
    sa.Column("failure", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    _instant("requested_at", index=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    _instant("settled_at", nullable=True),
)

# --- layer 2: git -----------------------------------------------------------------------------------------------------

commits = sa.Table(
    "commits",
    metadata,
    sa.Column("sha", sa.String(64), primary_key=True),
    _instant("committed_at", index=True),
    sa.Column("author_name", sa.Text, nullable=False),
    sa.Column("author_email", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("parents", Json, nullable=False),
    sa.Column("files_changed", sa.Integer, nullable=False),
    sa.Column("insertions", sa.Integer, nullable=False),
    sa.Column("deletions", sa.Integer, nullable=False),
    sa.Column("signature", sa.String(16)),
)

#: One row per commit × selected file that it changed. ``change``: added, modified, deleted, renamed (``old_path``). The
#: line counts are ``NULL`` for a binary file.
commit_files = sa.Table(
    "commit_files",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha", sa.String(64), primary_key=True, index=True),
    _instant("committed_at"),
    sa.Column("change", sa.String(16), nullable=False),
    sa.Column("old_path", sa.Text),
    sa.Column("insertions", sa.Integer),
    sa.Column("deletions", sa.Integer),
)

#: One row per commit × item that it changed. ``kind``: governance, gate, terraform_block, runbook. ``key``: the dotted
#: key, the gate's id, the block's address, the section. ``change``: added, modified, removed.
item_changes = sa.Table(
    "item_changes",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("sha", sa.String(64), nullable=False, index=True),
    _instant("committed_at", index=True),
    sa.Column("change", sa.String(16), nullable=False),
    sa.Column("before", Json),
    sa.Column("after", Json),
    sa.Index("ix_item_changes_kind_key", "kind", "key"),
)

#: One row per move of the landing zone's head that a sync saw. ``kind``: first, forward, rewritten (the old head is no
#: part of the new history).
head_moves = sa.Table(
    "head_moves",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("old_sha", sa.String(64)),
    sa.Column("new_sha", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("commits", sa.Integer, nullable=False),
    sa.Column("triggered_by", sa.String(200), nullable=False),
    _instant("seen_at", index=True),
)

#: What is wrong with a source file, or with its copy. ``kind``: see `sync.store.source_findings`. One row stays open
#: per (kind, path, subject).
source_findings = sa.Table(
    "source_findings",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("line", sa.Integer),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("commit_sha", sa.String(64), nullable=False),
    _instant("opened_at", index=True),
    _instant("resolved_at", nullable=True, index=True),
)

#: One row: what the last sync proved, so that the next one looks only at what moved. ``portal_commit``: the head of the
#: portal's branch that was looked at; ``tree``: the tree that the sync left, at ``proposed_commit`` if a pull request
#: has it. ``fingerprint``: of the settings and the version that it holds for.
git_state = sa.Table(
    "git_state",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("source_commit", sa.String(64), nullable=False),
    sa.Column("portal_commit", sa.String(64), nullable=False),
    sa.Column("tree", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("proposed_commit", sa.String(64)),
    sa.Column("pull_request", sa.Text),
    _instant("proven_at"),
)

#: One row per selected file × place in the portal repository. ``status``: synced, not_synced. ``mode``: git's.
synced_files = sa.Table(
    "synced_files",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True, index=True),
    sa.Column("blob", sa.String(64), nullable=False),
    sa.Column("mode", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text),
    sa.Column("commit_sha", sa.String(64), nullable=False),
)

#: Markdown files. The database keeps their full-text index (`sync.store.documents`) by itself: see migration 0003.
documents = sa.Table(
    "documents",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("path", sa.Text, nullable=False, unique=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("headings", Json, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("blob", sa.String(64), nullable=False),
    sa.Column("commit_sha", sa.String(64), nullable=False),
)

#: ``pmo.yaml``, one row per leaf; ``key`` is the dotted path, ``line`` where the file has it.
governance = sa.Table(
    "governance",
    metadata,
    sa.Column("key", sa.String(512), primary_key=True),
    sa.Column("value", Json),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("commit_sha", sa.String(64), nullable=False),
    sa.Column("line", sa.Integer),
)

enforcement_gates = sa.Table(
    "enforcement_gates",
    metadata,
    sa.Column("gate_id", sa.String(128), primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("phase", sa.Text),
    sa.Column("severity", sa.Text),
    sa.Column("blocks", sa.Text),
    sa.Column("validation", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("line", sa.Integer, nullable=False),
    sa.Column("commit_sha", sa.String(64), nullable=False),
)

#: ``attributes``: what a block says literally, and why it cannot be known otherwise (`sync.git.terraform`).
terraform_blocks = sa.Table(
    "terraform_blocks",
    metadata,
    sa.Column("path", sa.String(1024), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("address", sa.String(512), primary_key=True),
    sa.Column("block_type", sa.String(64), nullable=False),
    sa.Column("resource_type", sa.String(256)),
    sa.Column("name", sa.String(256)),
    sa.Column("module", sa.Text, nullable=False),
    sa.Column("provider", sa.String(128)),
    sa.Column("references", Json, nullable=False),
    sa.Column("labels", Json, nullable=False),
    sa.Column("attributes", Json, nullable=False),
    sa.Column("blob", sa.String(64), nullable=False),
    sa.Column("has_error", sa.Boolean, nullable=False, index=True),
    sa.Column("commit_sha", sa.String(64), nullable=False),
)

runbooks = sa.Table(
    "runbooks",
    metadata,
    sa.Column("path", sa.String(1024), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("section", sa.Text, nullable=False),
    sa.Column("commands", Json, nullable=False),
    sa.Column("commit_sha", sa.String(64), nullable=False),
)

portal_commits = sa.Table(
    "portal_commits",
    metadata,
    sa.Column("sha", sa.String(64), primary_key=True),
    sa.Column("source_sha", sa.String(64), nullable=False),
    sa.Column("branch", sa.Text, nullable=False),
    sa.Column("added", sa.Integer, nullable=False),
    sa.Column("modified", sa.Integer, nullable=False),
    sa.Column("deleted", sa.Integer, nullable=False),
    sa.Column("triggered_by", sa.String(200), nullable=False),
    _instant("pushed_at", index=True),
)

# --- the truth core: layers 3 and 4 -----------------------------------------------------------------------------------

#: What resources say (redacted): one row per version of a content, numbered in the order of writing. It is apart from
#: ``resources``, so that lists and reads cost what a resource's row costs, not what its content does.
resource_contents = sa.Table(
    "resource_contents",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("data", Json, nullable=False),
    sa.Column("redacted", Json, nullable=False),
)

#: One row per (full resource name, content type): its newest known version. See ``sync/state``. ``valid_from_ns``:
#: since when the content is what it is, by the source's clock. ``content_id``: ``NULL`` if the feed said it is gone.
#: ``fingerprint``: of the bytes in which the inventory told this content last. ``written``: the number of the write
#: that made the row what it is; it only grows (`sync.store.assets.written`).
resources = sa.Table(
    "resources",
    metadata,
    sa.Column("name", sa.String(1024), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("asset_type", sa.String(128), nullable=False),
    sa.Column("scope", sa.String(128), nullable=False),
    sa.Column("project", sa.Text),
    sa.Column("location", sa.Text),
    sa.Column("display_name", sa.Text),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("resource_id", sa.Text),
    sa.Column("update_ns", sa.BigInteger, nullable=False),
    sa.Column("observed_ns", sa.BigInteger, nullable=False),
    sa.Column("seen_ns", sa.BigInteger, nullable=False),
    sa.Column("absent_ns", sa.BigInteger),
    sa.Column("valid_from_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.LargeBinary(16)),
    sa.Column("content_id", sa.BigInteger),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("ancestors", Json, nullable=False),
    sa.Column("controls_decided", sa.Integer, nullable=False, default=0),
    sa.Column("controls_failed", sa.Integer, nullable=False, default=0),
    sa.Column("controls_unknown", sa.Integer, nullable=False, default=0),
    sa.Column("written", sa.BigInteger, nullable=False, index=True),
    _instant("changed_at"),
    sa.Index("ix_resources_scope_type", "scope", "content_type", "asset_type", "deleted"),
    sa.Index("ix_resources_type_name", "content_type", "asset_type", "deleted", "name"),
    sa.Index("ix_resources_project_type", "content_type", "project", "asset_type", "location", "deleted"),
    sa.Index(
        "ix_resources_absent",
        "scope",
        "asset_type",
        "content_type",
        "deleted",
        sqlite_where=sa.text("absent_ns IS NOT NULL"),
        postgresql_where=sa.text("absent_ns IS NOT NULL"),
    ),
)

#: Superseded versions of resources: what was current before the row in ``resources``. An unchanged resource has none.
#: A version holds from ``valid_from_ns`` until just before ``valid_to_ns``, by the source's clock.
resource_versions = sa.Table(
    "resource_versions",
    metadata,
    sa.Column("name", sa.String(1024), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("asset_type", sa.String(128), nullable=False),
    sa.Column("scope", sa.String(128), nullable=False),
    sa.Column("project", sa.Text),
    sa.Column("location", sa.Text),
    sa.Column("display_name", sa.Text),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("resource_id", sa.Text),
    sa.Column("update_ns", sa.BigInteger, nullable=False),
    sa.Column("observed_ns", sa.BigInteger, nullable=False),
    sa.Column("valid_from_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("valid_to_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.LargeBinary(16)),
    sa.Column("content_id", sa.BigInteger),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("ancestors", Json, nullable=False),
    _instant("changed_at"),
    sa.Index("ix_resource_versions_type_valid", "content_type", "asset_type", "valid_to_ns"),
)

#: One row per read of a scope × type × content. Only complete ones count for absence.
snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("scope", sa.String(128), nullable=False),
    sa.Column("asset_type", sa.String(128), nullable=False),
    sa.Column("content_type", sa.String(16), nullable=False),
    sa.Column("read_ns", sa.BigInteger, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("assets", sa.BigInteger, nullable=False),
    _instant("finished_at"),
    sa.Index("ix_snapshots_ledger", "scope", "content_type", "asset_type", "complete", "read_ns"),
)

#: One row per scope × type × content: is it known, since when, and if not, why.
coverage = sa.Table(
    "coverage",
    metadata,
    sa.Column("scope", sa.String(128), primary_key=True),
    sa.Column("asset_type", sa.String(128), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("detail", sa.Text),
    sa.Column("remedy", sa.Text),
    _instant("since"),
    _instant("checked_at"),
    sa.Column("complete_read_ns", sa.BigInteger),
    sa.Column("assets", sa.BigInteger),
)

#: What ``coverage`` said before and says now: one row per scope × type × content × span of one status and reason.
#: ``until``: ``NULL`` in the row that still holds. ``complete_read_ns``: the newest complete read by its end.
coverage_history = sa.Table(
    "coverage_history",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("scope", sa.String(128), nullable=False),
    sa.Column("asset_type", sa.String(128), nullable=False),
    sa.Column("content_type", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("detail", sa.Text),
    sa.Column("complete_read_ns", sa.BigInteger),
    _instant("since", index=True),
    _instant("until", nullable=True, index=True),
    sa.Index("ix_coverage_history_part", "scope", "asset_type", "content_type", "since"),
)

#: What the read planner knows of a scope × type × content beside its coverage. ``full_calls``: what its last full read
#: took. ``delta_read_ns``: up to when a delta read has looked for changes. ``failures``: full reads that failed in a
#: row. ``quarantined_until``: the inventory does not know the type; it is not asked for again before.
part_reads = sa.Table(
    "part_reads",
    metadata,
    sa.Column("scope", sa.String(128), primary_key=True),
    sa.Column("asset_type", sa.String(128), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("full_calls", sa.Integer),
    sa.Column("delta_read_ns", sa.BigInteger),
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    _instant("failed_at", nullable=True),
    _instant("quarantined_until", nullable=True),
)

#: Calls that all processes made together, per quota and slice of time (``slice``: seconds since the epoch).
quota_usage = sa.Table(
    "quota_usage",
    metadata,
    sa.Column("quota", sa.String(64), primary_key=True),
    sa.Column("slice", sa.BigInteger, primary_key=True),
    sa.Column("calls", sa.Integer, nullable=False),
)

#: What a quota allows now: less than configured after a 429, and slowly more again. ``blocked_until``: nobody calls
#: before.
quota_limits = sa.Table(
    "quota_limits",
    metadata,
    sa.Column("quota", sa.String(64), primary_key=True),
    sa.Column("per_minute", sa.Double, nullable=False),
    _instant("blocked_until", nullable=True),
    _instant("throttled_at", nullable=True),
    _instant("adapted_at"),
)

#: A row stops deletions of a scope × type × content until a person confirms them. ``read_ns``: the read that lacks
#: them; ``breaker_losses`` has their names, ``fingerprint`` is the names'. ``confirmed_at``: somebody did, and what is
#: left in ``breaker_losses`` is still to be deleted.
breakers = sa.Table(
    "breakers",
    metadata,
    sa.Column("scope", sa.String(128), primary_key=True),
    sa.Column("asset_type", sa.String(128), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("known", sa.BigInteger, nullable=False),
    sa.Column("lost", sa.BigInteger, nullable=False),
    sa.Column("read_ns", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.String(32), nullable=False),
    _instant("opened_at"),
    sa.Column("confirmed_by", sa.String(200)),
    _instant("confirmed_at", nullable=True),
)

breaker_losses = sa.Table(
    "breaker_losses",
    metadata,
    sa.Column("scope", sa.String(128), primary_key=True),
    sa.Column("asset_type", sa.String(128), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(1024), primary_key=True),
)

#: Fields that the contents of a type were seen to have. ``path``: dotted, ``[]`` for the items of a list. ``kinds``:
#: the JSON types seen, sorted. ``drift``: ``NULL`` for what the first reads showed, else new_field or changed_type.
data_fields = sa.Table(
    "data_fields",
    metadata,
    sa.Column("asset_type", sa.String(128), primary_key=True),
    sa.Column("content_type", sa.String(16), primary_key=True),
    sa.Column("path", sa.String(512), primary_key=True),
    sa.Column("kinds", Json, nullable=False),
    sa.Column("drift", sa.String(16)),
    sa.Column("example", sa.String(1024), nullable=False),
    _instant("first_seen"),
    _instant("drifted_at", nullable=True, index=True),
)

#: The feed against the snapshots, one row per asset type and hour: changes that the feed told, changes that a snapshot
#: had to find, and how late messages were: from the change to Pub/Sub (``source_delays``), and from there into the
#: store (``own_delays``). Delays are histograms: {"upper bound in ms": messages}.
feed_freshness = sa.Table(
    "feed_freshness",
    metadata,
    sa.Column("asset_type", sa.String(128), primary_key=True),
    sa.Column("hour", UTCDateTime(), primary_key=True),
    sa.Column("delivered", sa.BigInteger, nullable=False),
    sa.Column("missed", sa.BigInteger, nullable=False),
    sa.Column("undecided", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("source_delays", Json, nullable=False),
    sa.Column("own_delays", Json, nullable=False),
)

#: What terraform says against what is there, one row per resource block (or instance of it). ``status``: matched,
#: changed, missing, unresolved. ``differences``: [{"field", "terraform", "actual"}]. What no block stands for is
#: unmanaged: see `sync.store.terraform_drift`.
terraform_drift = sa.Table(
    "terraform_drift",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("line", sa.Integer, nullable=False),
    sa.Column("resource_type", sa.String(256), nullable=False),
    sa.Column("asset_type", sa.String(128)),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text),
    sa.Column("resource", sa.String(1024), index=True),
    sa.Column("differences", Json, nullable=False),
    sa.Column("commit_sha", sa.String(64), nullable=False),
    _instant("checked_at"),
)

#: One row: what the rows of ``terraform_drift`` were made from. ``fingerprint``: of the terraform blocks, of the
#: inventory's coverage and of the rules. ``written``: the newest write of ``resources`` that was seen.
#: ``compared_at``: when the rows were last known to hold.
terraform_compares = sa.Table(
    "terraform_compares",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("written", sa.BigInteger, nullable=False),
    _instant("compared_at"),
)

#: One row per (control, resource) that does not meet it, kept after it was resolved.
findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("control", sa.String(64), nullable=False),
    sa.Column("framework", sa.String(64), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("resource", sa.String(1024), nullable=False, index=True),
    sa.Column("content_type", sa.String(16), nullable=False),
    sa.Column("asset_type", sa.String(128), nullable=False),
    sa.Column("project", sa.Text),
    sa.Column("message", sa.Text, nullable=False),
    _instant("opened_at", index=True),
    _instant("resolved_at", nullable=True),
    sa.Column("resolution", sa.String(64)),
)

#: One row: the controls that every row of ``resources`` was judged by.
policy_sets = sa.Table(
    "policy_sets",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    _instant("applied_at"),
)

#: Everything that happened, in the order it was committed; the live feed is this table.
event_log = sa.Table(
    "event_log",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event_type", sa.String(32), nullable=False),
    sa.Column("layer", sa.String(16), nullable=False),
    _instant("timestamp"),
    sa.Column("resource", Json),
    sa.Column("data", Json, nullable=False),
    sa.Column("synthetic", sa.Boolean, nullable=False),
    _instant("recorded_at"),
)

#: Pub/Sub messages that were handled: a redelivery is recognised by its id.
handled_messages = sa.Table(
    "handled_messages",
    metadata,
    sa.Column("subscription", sa.String(256), primary_key=True),
    sa.Column("message_id", sa.String(128), primary_key=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    _instant("published_at", nullable=True),
    _instant("handled_at", index=True),
)

#: How many messages ever ended in which way: ``handled_messages`` forgets, this does not.
message_counts = sa.Table(
    "message_counts",
    metadata,
    sa.Column("subscription", sa.String(256), primary_key=True),
    sa.Column("outcome", sa.String(16), primary_key=True),
    sa.Column("messages", sa.BigInteger, nullable=False),
)

#: One row per listener process that is running, or died without saying so.
listeners = sa.Table(
    "listeners",
    metadata,
    sa.Column("holder", sa.String(200), primary_key=True),
    sa.Column("subscription", sa.String(256), nullable=False),
    sa.Column("connected", sa.Boolean, nullable=False),
    _instant("started_at"),
    _instant("seen_at"),
    _instant("as_of", nullable=True),
)

#: Input that could not be used, kept for a person to look at (redacted and cut to a cap).
dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", AutoKey, primary_key=True, autoincrement=True),
    sa.Column("layer", sa.String(16), nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    _instant("received_at", index=True),
    sa.UniqueConstraint("origin", "key"),
)

# --- layer 5: analytics -----------------------------------------------------------------------------------------------

#: The published mart ``fct_daily_lz_metrics``: one row per (date, source, currency).
daily_metrics = sa.Table(
    "daily_metrics",
    metadata,
    sa.Column("date", sa.Date, primary_key=True),
    sa.Column("source", sa.String(128), primary_key=True),
    sa.Column("currency", sa.String(3), primary_key=True),
    sa.Column("total_resources", sa.BigInteger),
    sa.Column("resources_with_violations", sa.BigInteger),
    sa.Column("total_cost", sa.Numeric(20, 6)),
    sa.Column("avg_compliance", sa.Double),
    sa.Column("coverage", sa.String(16), nullable=False),
    sa.Column("resource_coverage", sa.String(16), nullable=False),
    sa.Column("cost_coverage", sa.String(16), nullable=False),
    _instant("as_of"),
)

# --- one order on both engines ----------------------------------------------------------------------------------------

#: Tables whose texts PostgreSQL compares by code point, as SQLite does: lists are ordered and paged by them, and an
#: index has to have the order of the list. Texts of two of them may be compared; those of another table would need a
#: ``COLLATE``.
BY_CODE_POINT = (
    resources,
    resource_versions,
    snapshots,
    coverage,
    coverage_history,
    part_reads,
    breakers,
    breaker_losses,
    data_fields,
    feed_freshness,
    terraform_drift,
    findings,
)


def texts(table: sa.Table) -> list[sa.Column[str]]:
    """The text columns of a table."""
    return [column for column in table.c if isinstance(column.type, sa.String)]


for _table in BY_CODE_POINT:
    for _column in texts(_table):
        _text = _column.type
        if isinstance(_text, sa.String):
            _ordered = type(_text)(_text.length, collation="C")
            _column.type = _text.with_variant(_ordered, "postgresql")
