"""Who may change something by the API: operators, by a bearer token of their own.

The pages know no token and no cookie carries one, so no other site can make a browser send it. All the same a request
has to be JSON, and what a browser sends from a page of another host is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers

from lz_sync_dagster.portal.security import is_foreign


class Refused(Exception):
    """A request of somebody who may not make it. ``actor``: who it is, as far as that is known."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the answer."""
        return {"WWW-Authenticate": 'Bearer realm="lz-sync"'} if self.status == 401 else {}


def operator_of(headers: Headers, operators: Sequence[tuple[str, bytes]]) -> str:
    """The name of the operator who makes a request.

    Args:
        operators: (name, token) of each.

    Raises:
        Refused: 403 if nobody may, or the request comes from a page of another host; 415 if it is not JSON; 401 if the
            token is missing or wrong.
    """
    if is_foreign(headers):
        raise Refused(403, "a page of another host asked for this; call the API from this host, or without a browser")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the body has to be JSON; send it with Content-Type: application/json")
    if not operators:
        raise Refused(
            403,
            "no operator is configured, so nobody may do this by the API; set LZ_SYNC_OPERATOR_TOKENS and restart the "
            "portal, or use 'lz-sync breaker confirm'",
        )
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not sent.strip():
        raise Refused(401, "a token is missing; send Authorization: Bearer with a token of LZ_SYNC_OPERATOR_TOKENS")
    name = _who(sent.strip().encode("latin-1", "replace"), operators)
    if name is None:
        raise Refused(401, "the token is none of LZ_SYNC_OPERATOR_TOKENS; check it, and that the portal was restarted")
    return name


def _who(sent: bytes, operators: Sequence[tuple[str, bytes]]) -> str | None:
    """Takes the same time whichever token it is; digests, so that a token's length does not show."""
    given = hashlib.sha256(sent).digest()
    found = None
    for name, token in operators:
        if hmac.compare_digest(given, hashlib.sha256(token).digest()):
            found = name
    return found
