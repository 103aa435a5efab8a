"""``POST /webhooks/github``: takes the raw body and hands it to layer 1, which decides (``sync/webhook``)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from lz_sync_dagster.portal.context import InPortal
from lz_sync_dagster.portal.problems import Problem, problem
from lz_sync_dagster.sync.webhook import receiver

PATH = "/webhooks/github"

router = APIRouter(tags=["webhooks"])

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": description}
    for status, description in (
        (400, "The delivery cannot be understood."),
        (401, "The signature is missing or wrong."),
        (413, "The body is larger than `sync_layers.webhook.max_body_bytes`."),
        (503, "The layer is switched off, has no secret, or the store cannot be written."),
    )
}


@router.post(PATH, summary="Receive a GitHub delivery", status_code=202, responses=_ERRORS)
async def github(request: Request, portal: InPortal) -> Response:
    """A signed delivery is in the inbox before the answer, so a 202 is a promise. A repeated one changes nothing."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    settings = portal.settings
    answer = await run_in_threadpool(
        receiver.receive,
        request.headers,
        bytes(body),
        config=settings.sync_layers.webhook,
        secrets=settings.secrets,
        repository=settings.landing_zone.name,
        branch=settings.landing_zone.branch,
        store=portal.store,
        now=portal.clock(),
        portal_repository=settings.portal_repository.name,
    )
    if answer.status_code >= 400:
        return problem(request, answer.status_code, str(answer.body["detail"]), title=str(answer.body["title"]))
    return JSONResponse(answer.body, answer.status_code)
