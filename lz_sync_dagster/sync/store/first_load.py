"""Takes in assets of which the store knows none: the first read of a part, which is most of what a store ever writes.

It comes to the rows that `assets.apply` comes to, without looking for what was there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.compliance.verdict import Evaluator, Outcome
from lz_sync_dagster.sync.state.observation import Observation, plain
from lz_sync_dagster.sync.store import assets, event_log, findings
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.engine import insert_many
from lz_sync_dagster.sync.store.schema import findings as findings_table
from lz_sync_dagster.sync.store.schema import resource_contents, resources


def insert_new(
    connection: sa.Connection, observations: Sequence[Observation], *, now: datetime, evaluate: Evaluator
) -> Applied | None:
    """Take observations in, with their findings and without events: a baseline is no news.

    Args:
        connection: a transaction of ``store.write(exclusive=assets.LOCK)``.
        observations: of assets that are there, each once.
        evaluate: judges their content.

    Returns:
        ``None``, with nothing written, if they are not all new: the store knows one of them, or a complete read of
        their part says something of them.
    """
    parts = {(item.scope, item.asset_type, plain(item.content_type)) for item in observations}
    if any(item.deleted for item in observations) or any(assets.ledger_of(connection, part).reads for part in parts):
        return None
    try:
        with connection.begin_nested():
            _insert(connection, observations, now=now, evaluate=evaluate)
    except sa.exc.IntegrityError:
        return None
    return Applied(created=len(observations), last_seq=event_log.last_seq(connection))


def _insert(
    connection: sa.Connection, observations: Sequence[Observation], *, now: datetime, evaluate: Evaluator
) -> None:
    written = assets.next_write(connection)
    first = assets.last_content(connection) + 1
    projects = assets.project_ids(connection, observations)
    rows: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    opened: list[dict[str, Any]] = []
    for content_id, item in enumerate(observations, first):
        content_type, data = plain(item.content_type), {} if item.data is None else item.data
        project = assets.project_of(item, projects) or None
        failed = unknown = 0
        verdicts = evaluate(item.asset_type, content_type, item.name, data)
        for verdict in verdicts:
            if verdict.outcome is Outcome.FAIL:
                failed += 1
                opened.append(
                    findings.values_of(verdict, item.name, content_type, item.asset_type, project, opened_at=now)
                )
            elif verdict.outcome is Outcome.UNKNOWN:
                unknown += 1
        contents.append({"id": content_id, "data": data, "redacted": item.redacted})
        rows.append(
            {
                "name": item.name,
                "content_type": content_type,
                "asset_type": item.asset_type,
                "scope": item.scope,
                "project": project,
                "location": item.location,
                "display_name": item.display_name,
                "deleted": False,
                "resource_id": item.resource_id,
                "update_ns": item.update_ns,
                "observed_ns": item.observed_ns,
                "seen_ns": item.observed_ns,
                "absent_ns": None,
                "valid_from_ns": item.update_ns,
                "digest": item.digest,
                "fingerprint": item.fingerprint,
                "content_id": content_id,
                "source": plain(item.source),
                "version": 1,
                "ancestors": item.ancestors,
                "controls_decided": len(verdicts) - unknown,
                "controls_failed": failed,
                "controls_unknown": unknown,
                "written": written,
                "changed_at": now,
            }
        )
    insert_many(connection, resource_contents, contents)
    insert_many(connection, resources, rows)
    insert_many(connection, findings_table, opened)
    assets.name_projects(connection, assets.told_ids(observations))
