"""What the answers of the REST API share: their base, pages and cursors, errors, and the state of a layer."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.problems import Problem
from lz_sync_dagster.sync.models import Coverage, SyncStatus
from lz_sync_dagster.sync.store import layer_runs

_EXAMPLE_COVERAGE = {
    "status": "partial",
    "complete": 41,
    "partial": 1,
    "stale": 0,
    "unknown": 0,
    "gaps": [
        {
            "scope": "folders/123456789012",
            "asset_type": "compute.googleapis.com/Instance",
            "content_type": "RESOURCE",
            "status": "partial",
            "reason": "permission_denied",
            "detail": "the caller does not have permission",
            "remedy": "grant roles/cloudasset.viewer on folders/123456789012",
            "since": "2026-03-01T11:55:00Z",
        }
    ],
}


class Answer(BaseModel):
    """The base of every answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: datetime | None = Field(description="When the answer was true at its source; null if it never was known.")
    source: str = Field(description="Where the answer comes from.")
    coverage: Coverage = Field(description="How much of the answer's subject is known.", examples=[_EXAMPLE_COVERAGE])


Limit = Annotated[int, Query(ge=1, le=1000, description="How many items a list or page may hold.")]
Cursor = Annotated[
    str | None, Query(max_length=8192, description="`next_cursor` of the page before; without it, the first page.")
]
#: The `next_cursor` of a page.
NextCursor = Annotated[str | None, Field(description="`cursor` of the next page; null on the last one.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": description}
    for status, description in ((422, "A parameter is not valid."), (503, "The store cannot be read."))
}


def layer_status(connection: sa.Connection, portal: Portal, layer: LayerId, now: datetime) -> SyncStatus:
    """The health of one layer, for the `as_of`, `source` and `coverage` of an answer."""
    statuses = layer_runs.statuses(connection, now=now, disabled=portal.settings.disabled_layers)
    return next(status for status in statuses if status.layer is layer)


def write_cursor(number: int) -> str:
    """The cursor of a list that goes by number."""
    return _encode(str(number).encode())


def read_cursor(cursor: str | None) -> int | None:
    """The number in a cursor; ``None`` for no cursor. Raises a 422 for anything that is none."""
    if cursor is None:
        return None
    try:
        number = int(_decode(cursor).decode("ascii"))
    except (binascii.Error, ValueError) as error:
        raise bad_cursor() from error
    if not 0 <= number < 2**63:
        raise bad_cursor()
    return number


def write_place(*place: str | int) -> str:
    """The cursor of a list that goes by a key of several columns."""
    return _encode(orjson.dumps(place))


def read_place(cursor: str | None, *kinds: type[str] | type[int]) -> Any:
    """The key in a cursor, a tuple of these kinds; ``None`` for no cursor. Raises a 422 for anything that is none."""
    if cursor is None:
        return None
    try:
        place = orjson.loads(_decode(cursor))
    except (binascii.Error, ValueError) as error:
        raise bad_cursor() from error
    if not isinstance(place, list) or [type(part) for part in place] != list(kinds):
        raise bad_cursor()
    if any("\0" in part if isinstance(part, str) else abs(part) >= 2**31 for part in place):
        raise bad_cursor()
    return tuple(place)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


def bad_cursor() -> RequestValidationError:
    """The answer to a cursor that is not of the list."""
    return RequestValidationError(
        [{"loc": ("query", "cursor"), "msg": "is not a next_cursor of this list", "type": "cursor"}]
    )
