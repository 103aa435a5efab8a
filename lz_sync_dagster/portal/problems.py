"""Errors as they leave the portal: ``application/problem+json`` (RFC 9457), for every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
import sqlalchemy as sa
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.routing import Match, Mount
from starlette.websockets import WebSocket

from lz_sync_dagster.sync.errors import Reason, SyncError

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger(__name__)


class InvalidField(BaseModel):
    """One input that was not accepted. ``field`` is its place, e.g. ``query.limit``."""

    field: str
    message: str


class Problem(BaseModel):
    """What went wrong, and what to do about it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[InvalidField] | None = None


def problem(
    connection: HTTPConnection,
    status: int,
    detail: str,
    *,
    title: str | None = None,
    errors: Sequence[InvalidField] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem response. ``detail`` must not carry secrets: it is shown as it is."""
    body = Problem(
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=connection.url.path,
        errors=list(errors) or None,
    )
    content = orjson.dumps(body.model_dump(exclude_none=True))
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem."""
    app.add_exception_handler(404, _http)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(WebSocketRequestValidationError, _invalid_websocket)
    app.add_exception_handler(WebSocketException, _refused_websocket)
    app.add_exception_handler(sa.exc.SQLAlchemyError, _store_fails)
    app.add_exception_handler(SyncError, _sync_error)
    app.add_exception_handler(Exception, _defect)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return not_found(request)
    return problem(request, error.status_code, str(error.detail), headers=error.headers)


def not_found(request: Request) -> Response:
    """404, or 405 with ``Allow`` if the path is known and only the method is wrong."""
    portal = getattr(request.state, "portal", None)
    allow = ", ".join(_methods(portal.app, request.url.path)) if portal else ""
    if allow:
        return problem(request, 405, f"{request.method} is not possible here; use {allow}", headers={"Allow": allow})
    return problem(request, 404, "there is nothing at this address; /api/v1/openapi.json lists what there is")


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods that a path of the API takes. The pages' mount takes any path, so it tells nothing."""
    routes = [route for route in app.routes if not isinstance(route, Mount)]
    return [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({"type": "http", "method": method, "path": path, "root_path": "", "headers": []})[0]
            is Match.FULL
            for route in routes
        )
    ]


def _fields(errors: Sequence[Any]) -> list[InvalidField]:
    return [
        InvalidField(field=".".join(str(part) for part in error["loc"]), message=str(error["msg"])) for error in errors
    ]


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = _fields(error.errors())
    return problem(request, 422, "; ".join(f"{item.field}: {item.message}" for item in fields), errors=fields)


async def _invalid_websocket(websocket: WebSocket, error: Exception) -> None:
    assert isinstance(error, WebSocketRequestValidationError)
    fields = _fields(error.errors())
    detail = "; ".join(f"{item.field}: {item.message}" for item in fields)
    await websocket.send_denial_response(problem(websocket, 422, detail, errors=fields))


async def _refused_websocket(websocket: WebSocket, error: Exception) -> None:
    assert isinstance(error, WebSocketException)
    await websocket.send_denial_response(problem(websocket, 403, error.reason))


async def _store_fails(request: Request, error: Exception) -> Response:
    log.error("store_unavailable", path=request.url.path, error=str(error))
    return problem(
        request,
        503,
        "the store cannot be read; check that the database runs and that 'lz-sync db migrate' was run",
        headers={"Retry-After": "5"},
    )


#: What a `SyncError` becomes by its reason; 503 if it is none of these.
STATUS_OF_REASON = {Reason.NOT_FOUND: 404, Reason.INVALID: 400, Reason.CONFLICT: 409, Reason.BUSY: 409}


async def _sync_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SyncError)
    return problem(request, STATUS_OF_REASON.get(error.reason, 503), str(error))


async def _defect(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, error=repr(error))
    return problem(request, 500, "the portal failed on this request; its log says why")
