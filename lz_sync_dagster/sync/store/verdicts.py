"""Verdicts under changed controls: what is known is judged anew, since an unchanged asset is not judged by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator
from lz_sync_dagster.sync.store import assets, event_log, findings
from lz_sync_dagster.sync.store.engine import Store
from lz_sync_dagster.sync.store.findings import Judged
from lz_sync_dagster.sync.store.schema import policy_sets, resource_contents, resources

_CHUNK = 500


def refresh(store: Store, fingerprint: str, evaluate: Evaluator, *, layer: LayerId, now: datetime) -> int:
    """Judge every existing resource anew if other controls than those of ``fingerprint`` judged it last.

    Findings that open or resolve become events. Each chunk is a transaction of its own; the fingerprint is written
    after the last one, so a refresh that was cut short starts over, with the same result.

    Args:
        fingerprint: `Controls.fingerprint` of the controls behind ``evaluate``.
        layer: who judges; it labels the events.

    Returns:
        How many resources were judged: 0 while the controls stay the same.
    """
    with store.read() as connection:
        if connection.scalars(sa.select(policy_sets.c.fingerprint)).all() == [fingerprint]:
            return 0
    judged, last = 0, ("", "")
    while True:
        with store.write(exclusive=assets.LOCK) as connection:
            rows = _after(connection, last)
            if not rows:
                connection.execute(policy_sets.delete())
                connection.execute(policy_sets.insert().values(fingerprint=fingerprint, applied_at=now))
                return judged
            _judge(connection, rows, evaluate, layer=layer, now=now)
        judged += len(rows)
        last = (rows[-1].name, rows[-1].content_type)


def _after(connection: sa.Connection, last: tuple[str, str]) -> Sequence[sa.Row[Any]]:
    columns = [resources.c[name] for name in ("name", "content_type", "asset_type", "project")]
    query = (
        sa.select(*columns, resource_contents.c.data)
        .outerjoin(resource_contents, resource_contents.c.id == resources.c.content_id)
        .where(
            sa.tuple_(resources.c.name, resources.c.content_type) > sa.tuple_(*map(sa.literal, last)),
            resources.c.deleted.is_(False),
        )
        .order_by(resources.c.name, resources.c.content_type)
        .limit(_CHUNK)
    )
    return connection.execute(query).all()


def _judge(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]], evaluate: Evaluator, *, layer: LayerId, now: datetime
) -> None:
    judged = [
        Judged(
            row.name,
            row.content_type,
            row.asset_type,
            row.project,
            tuple(evaluate(row.asset_type, row.content_type, row.name, row.data or {})),
        )
        for row in rows
    ]
    connection.execute(
        resources.update()
        .where(resources.c.name == sa.bindparam("b_name"), resources.c.content_type == sa.bindparam("b_content_type"))
        .values({column: sa.bindparam(f"b_{column}") for column in assets.tally([])}),
        [
            {"b_name": item.resource, "b_content_type": item.content_type}
            | {
                f"b_{column}": count
                for column, count in assets.tally([verdict.outcome for verdict in item.verdicts or ()]).items()
            }
            for item in judged
        ],
    )
    changes = findings.record(connection, judged, now=now)
    event_log.append(connection, [assets.finding_event(change, layer, now) for change in changes], recorded_at=now)
