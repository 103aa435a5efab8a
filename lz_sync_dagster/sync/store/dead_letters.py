"""Input that could not be used, kept for a person to look at: redacted, cut to a cap, and once per origin and key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.store.schema import dead_letters

#: Characters that are kept of a payload.
PAYLOAD_CAP = 16_384
#: Characters that are kept of a reason.
REASON_CAP = 1_000
_CUT = "… [cut]"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Input that could not be used.

    Attributes:
        origin: where it came from: a subscription, a file, a repository.
        key: what it is called there: a message id, a line. With ``origin`` it names the input.
        reason: why it could not be used, in one line.
        payload: what it said. A caller that can tell secrets by structure removes them before.
    """

    layer: LayerId
    origin: str
    key: str
    reason: str
    payload: str


def add(connection: sa.Connection, letters: Sequence[DeadLetter], *, now: datetime) -> int:
    """Keep dead letters. One that is kept already stays as it is. Returns how many are new."""
    added = 0
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    for letter in letters:
        statement = insert(dead_letters).values(
            layer=letter.layer.value,
            origin=letter.origin,
            key=letter.key,
            reason=_clean(letter.reason, REASON_CAP),
            payload=_clean(letter.payload, PAYLOAD_CAP),
            received_at=now,
        )
        added += connection.execute(statement.on_conflict_do_nothing(index_elements=["origin", "key"])).rowcount
    return added


def _clean(text: str, cap: int) -> str:
    text = redact_text(text).replace("\x00", "\ufffd")
    return text if len(text) <= cap else text[: cap - len(_CUT)] + _CUT


def newest(connection: sa.Connection, *, limit: int, layer: LayerId | None = None) -> list[sa.Row[tuple[object, ...]]]:
    """The newest dead letters, newest first: rows of ``dead_letters``."""
    query = sa.select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit)
    if layer is not None:
        query = query.where(dead_letters.c.layer == layer.value)
    return list(connection.execute(query))


def counts(connection: sa.Connection) -> dict[LayerId, int]:
    """How many dead letters each layer has."""
    query = sa.select(dead_letters.c.layer, sa.func.count()).group_by(dead_letters.c.layer)
    return {LayerId(layer): count for layer, count in connection.execute(query)}


def prune(connection: sa.Connection, *, before: datetime) -> int:
    """Remove what was received before an instant. Returns how many."""
    return connection.execute(dead_letters.delete().where(dead_letters.c.received_at < before)).rowcount
