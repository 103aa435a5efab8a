"""What ``POST /webhooks/github`` does: check a delivery, keep it in the inbox, answer. The work is left to a sensor.

The checks run in a fixed order and each has one answer: size cap 413, layer switched off or not configured 503,
signature 401, not a usable body 400, an event that is not wanted 404, another repository or branch, or a push that
touches nothing of interest, 202 ``ignored``. A payload only carries claims. Of it, the inbox keeps the event,
repository, ref, claimed commit, actor and the paths that a push touched, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from lz_sync_dagster.config import WebhookConfig
from lz_sync_dagster.sync.globs import touches
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.inbox import DeliveryStatus, NewDelivery

SIGNATURE_HEADER = "x-hub-signature-256"
EVENT_HEADER = "x-github-event"
DELIVERY_HEADER = "x-github-delivery"

#: What GitHub's description of a ``push`` names as the most: commits of the payload, and changed files of a commit. A
#: list as long as that may have been cut.
MAX_COMMITS = 2048
MAX_FILES = 3000
#: Paths that are kept of a push, and characters of one; beyond that, what it touched counts as unknown.
MAX_TOUCHED = 2000
MAX_PATH = 1000

_DELIVERY_ID = re.compile(r"[A-Za-z0-9\-]{1,128}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP answer: ``body`` is JSON; from 400 on it is a problem document (title, status, detail)."""

    status_code: int
    body: dict[str, Any]


def receive(
    headers: Mapping[str, str],
    body: bytes,
    config: WebhookConfig,
    secrets: Sequence[bytes],
    repository: str,
    branch: str,
    store: Store,
    now: datetime,
    *,
    portal_repository: str = "",
) -> Answer:
    """Check one delivery and keep it.

    Args:
        headers: names in any letter case.
        body: the raw bytes as they came; the signature is over these.
        secrets: any of them may have signed, so that a secret can be rotated.
        repository: the landing zone, ``owner/name``. Pushes and pull requests must be its.
        branch: the landing zone's branch that is synced.
        portal_repository: a ``repository_dispatch`` may also be sent to this one, as the architecture document does.
    """
    sent = {name.lower(): value for name, value in headers.items()}
    if len(body) > config.max_body_bytes:
        return too_large(config)
    if not config.enabled:
        return _problem(503, "suspended", "the webhook layer is switched off; set sync_layers.webhook.enabled to true")
    if not secrets:
        return _problem(503, "not configured", "no webhook secret is set; set LZ_SYNC_WEBHOOK_SECRETS and restart")
    if not repository:
        return _problem(503, "not configured", "landing_zone.name is empty; set it to OWNER/NAME and restart")
    if not is_signed(body, sent.get(SIGNATURE_HEADER, ""), secrets):
        return _problem(
            401, "not signed", "X-Hub-Signature-256 is missing or wrong; give the webhook the secret of this server"
        )
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        return _problem(
            400,
            "not a JSON object",
            "the body is not a JSON object; set the webhook's content type to application/json",
        )
    event, delivery_id = sent.get(EVENT_HEADER, ""), sent.get(DELIVERY_HEADER, "")
    if not event or not _DELIVERY_ID.fullmatch(delivery_id):
        return _problem(400, "headers missing", "X-GitHub-Event and X-GitHub-Delivery are needed; GitHub sends both")
    if event == "ping":
        return Answer(200, {"status": "pong"})
    if event not in config.events:
        return _problem(
            404,
            "event not wanted",
            f"this server takes {', '.join(config.events)}; untick the other events of the webhook, "
            "or add this one to sync_layers.webhook.events",
        )
    delivery = read_delivery(
        event,
        payload,
        delivery_id=delivery_id,
        body_hash=hashlib.sha256(body).hexdigest(),
        config=config,
        repository=repository,
        branch=branch,
        portal_repository=portal_repository,
    )
    with store.write() as connection:
        new = inbox.insert(connection, delivery, now=now)
    answer: dict[str, Any] = {"status": "accepted", "delivery": delivery_id, "duplicate": not new}
    if delivery.status is DeliveryStatus.IGNORED:
        answer |= {"status": "ignored", "reason": delivery.reason}
    return Answer(202, answer)


def too_large(config: WebhookConfig) -> Answer:
    """The answer to a body over the cap, for a server that stops reading there."""
    return _problem(
        413, "too large", f"the body has more than {config.max_body_bytes} bytes; GitHub sends at most 25 MB"
    )


def is_signed(body: bytes, signature: str, secrets: Sequence[bytes]) -> bool:
    """Whether ``signature`` (``sha256=<hex>``) is the HMAC of the raw body under any of the secrets. Takes constant
    time."""
    given = signature.encode("utf-8", "replace")
    matches = [
        hmac.compare_digest(b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode(), given)
        for secret in secrets
    ]
    return any(matches)


def read_delivery(
    event: str,
    payload: Mapping[str, Any],
    *,
    delivery_id: str,
    body_hash: str,
    config: WebhookConfig,
    repository: str,
    branch: str,
    portal_repository: str = "",
) -> NewDelivery:
    """What a payload claims, and whether it asks for a sync. Pure."""
    full_name = _text(_at(payload, "repository", "full_name"), 256)
    action = _text(payload.get("action"), 64) or None
    actor = _text(_at(payload, "sender", "login"), 200) or None
    allowed = [repository]
    ref: str | None
    if event == "push":
        ref, claim = _text(payload.get("ref"), 512) or None, payload.get("after")
        wrong = None if ref == f"refs/heads/{branch}" else f"is a push to {ref or 'no ref'}, not to {branch}"
        if wrong is None and payload.get("deleted") is True:
            wrong = f"deletes {branch}"
    elif event == "pull_request":
        base = _text(_at(payload, "pull_request", "base", "ref"), 512)
        ref, claim = (f"refs/heads/{base}" if base else None), _at(payload, "pull_request", "merge_commit_sha")
        merged = action == "closed" and _at(payload, "pull_request", "merged") is True
        wrong = None if merged and base == branch else f"is not a pull request that was merged into {branch}"
    else:
        ref, claim = None, _at(payload, "client_payload", "commit_sha")
        allowed.append(portal_repository)
        wrong = (
            None if action in config.dispatch_types else f"has the type {action or 'none'}, not one of dispatch_types"
        )
    if full_name.casefold() not in {name.casefold() for name in allowed if name}:
        wrong = f"is of the repository {full_name or 'without a name'}"
    touched = touched_paths(payload) if event == "push" and wrong is None else None
    if touched is not None and not touches(config.triggers.git_sync, touched):
        wrong = "touches nothing that sync_layers.webhook.triggers.git_sync names"
    return NewDelivery(
        delivery_id=delivery_id,
        body_hash=body_hash,
        event=event,
        repository=full_name,
        action=action,
        ref=ref,
        commit_claim=claim if isinstance(claim, str) and _COMMIT.fullmatch(claim) else None,
        actor=actor,
        status=DeliveryStatus.IGNORED if wrong else DeliveryStatus.PENDING,
        reason=wrong,
        touched=touched,
    )


def touched_paths(payload: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Every path that a push added, modified or removed, or ``None`` unless the payload proves that it names all.

    It does not if the push was forced (the old commits are not in it), made or deleted the branch, or may have been
    cut; nor if a commit names no path: then it is empty, or not described.
    """
    commits = payload.get("commits")
    if not isinstance(commits, list) or not 0 < len(commits) < MAX_COMMITS:
        return None
    if any(payload.get(flag) is not False for flag in ("forced", "created", "deleted")):
        return None
    if _at(commits[-1], "id") != payload.get("after"):
        return None
    touched: set[str] = set()
    for commit in commits:
        lists = [_at(commit, key) for key in ("added", "modified", "removed")]
        paths = [path for paths in lists if isinstance(paths, list) for path in paths]
        if not all(isinstance(paths, list) for paths in lists) or not 0 < len(paths) < MAX_FILES:
            return None
        if not all(isinstance(path, str) and 0 < len(path) <= MAX_PATH and "\0" not in path for path in paths):
            return None
        touched.update(paths)
        if len(touched) > MAX_TOUCHED:
            return None
    return tuple(sorted(touched))


def _at(payload: Mapping[str, Any], *keys: str) -> Any:
    value: Any = payload
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _text(value: Any, limit: int) -> str:
    """A payload's text, cut to a column and without characters that a database or a log would trip over."""
    return "".join(filter(str.isprintable, value))[:limit] if isinstance(value, str) else ""


def _problem(status: int, title: str, detail: str) -> Answer:
    return Answer(status, {"type": "about:blank", "title": title, "status": status, "detail": detail})
