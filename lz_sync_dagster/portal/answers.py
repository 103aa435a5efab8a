"""What the answers of the REST API share: their base, pages and cursors, errors, and the state of a layer."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime
from types import UnionType
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

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


class Paging:
    """Where a list goes on. A cursor belongs to its list and to what it was asked with: another one refuses it."""

    def __init__(self, request: Request, cursor: Cursor = None) -> None:
        asked = sorted(pair for pair in request.query_params.multi_items() if pair[0] not in ("cursor", "limit"))
        self._tag = hashlib.sha256(orjson.dumps([request.url.path, asked])).digest()[:_TAG]
        self._cursor = cursor

    def write_number(self, number: int) -> str:
        """The cursor of a list that goes by number."""
        return self._encode(str(number).encode())

    def read_number(self) -> int | None:
        """The number in the cursor; ``None`` for no cursor. Raises a 422 for anything that is none."""
        raw = self._decoded()
        if raw is None:
            return None
        try:
            number = int(raw.decode("ascii"))
        except ValueError as error:
            raise bad_cursor() from error
        if not 0 <= number < 2**63:
            raise bad_cursor()
        return number

    def write_place(self, *place: str | int | None) -> str:
        """The cursor of a list that goes by a key of several columns."""
        return self._encode(orjson.dumps(place))

    def read_place(self, *kinds: type[str] | type[int] | UnionType) -> Any:
        """The key in the cursor, a tuple of these kinds; ``None`` for no cursor. Raises a 422 for anything that is
        none."""
        raw = self._decoded()
        if raw is None:
            return None
        try:
            place = orjson.loads(raw)
        except ValueError as error:
            raise bad_cursor() from error
        if not isinstance(place, list) or len(place) != len(kinds):
            raise bad_cursor()
        for part, kind in zip(place, kinds, strict=True):
            if isinstance(part, bool) or not isinstance(part, kind):
                raise bad_cursor()
            if "\0" in part if isinstance(part, str) else abs(part or 0) >= 2**63:
                raise bad_cursor()
        return tuple(place)

    def _encode(self, raw: bytes) -> str:
        return base64.urlsafe_b64encode(self._tag + raw).decode().rstrip("=")

    def _decoded(self) -> bytes | None:
        if self._cursor is None:
            return None
        try:
            raw = base64.urlsafe_b64decode(self._cursor + "=" * (-len(self._cursor) % 4))
        except (binascii.Error, ValueError) as error:
            raise bad_cursor() from error
        if raw[:_TAG] != self._tag:
            raise bad_cursor()
        return raw[_TAG:]


def only_known_parameters(connection: HTTPConnection) -> None:
    """Refuse a parameter that the route does not have: an answer that ignores it would look like one that heeds it.

    Raises:
        RequestValidationError: a 422 that names each of them, and those that there are.
    """
    route = connection.scope.get("route")
    if connection.scope["type"] != "http" or not isinstance(route, APIRoute):
        return
    known = _parameters(route.dependant)
    unknown = sorted(set(connection.query_params) - known)
    if unknown:
        allowed = f"allowed: {', '.join(sorted(known))}" if known else "there are none"
        raise RequestValidationError(
            [
                {"loc": ("query", name), "msg": f"is not a parameter of this path; {allowed}", "type": "extra"}
                for name in unknown
            ]
        )


def _parameters(dependant: Dependant) -> set[str]:
    """The query parameters of a route, those of what it depends on among them."""
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(_parameters, dependant.dependencies))


#: Bytes of a cursor that say which list it belongs to.
_TAG = 6
#: A parameter of this type receives the cursor.
InPage = Annotated[Paging, Depends()]


def bad_cursor() -> RequestValidationError:
    """The answer to a cursor that is not of the list."""
    return RequestValidationError(
        [{"loc": ("query", "cursor"), "msg": "is not a next_cursor of this list", "type": "cursor"}]
    )
