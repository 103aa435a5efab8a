"""Calls of GitHub's API as one identity. Synchronous; every failure is a `GithubError` with its remedy.

Protocol and errors are gidgethub's, the connection is a plain httpx client. What belongs to a topic (tokens, pull
requests, deliveries) is in the modules beside this one.
"""

from __future__ import annotations

import functools
import ipaddress
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import gidgethub
import gidgethub.abc
import httpx
from pydantic import SecretStr

from lz_sync_dagster import __version__
from lz_sync_dagster.config import GithubConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.timing import Clock, utcnow

API_VERSION = "2022-11-28"
#: Seconds for a connection, and for each part of an answer.
CONNECT_TIMEOUT, TIMEOUT = 10.0, 20.0
#: Seconds to wait when GitHub limits calls without saying for how long: its documentation asks for a minute.
DEFAULT_WAIT = 60.0
PAGE_SIZE = 100

_Result = TypeVar("_Result")


class Credential(Protocol):
    """Gives the token of one identity. ``name`` is how messages call it; ``is_jwt``: of an App itself."""

    @property
    def name(self) -> str: ...

    @property
    def is_jwt(self) -> bool: ...

    def __call__(self) -> SecretStr: ...

    def forget(self) -> bool:
        """GitHub refused the token. Returns whether the next one will be another."""


class GithubError(SyncError):
    """A call that failed. ``status``: GitHub's answer, ``None`` if there was none; ``said``: its message."""

    def __init__(
        self,
        what: str,
        *,
        where: str,
        remedy: str,
        reason: Reason,
        status: int | None = None,
        said: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where=where, remedy=remedy, reason=reason, retry_after=retry_after)
        self.status = status
        self.said = said


class Api:
    """GitHub's API, as one identity. A context manager: it keeps its connection.

    Args:
        config: where the API is.
        credential: who calls.

    Paths are URI templates (``/repos/{owner}/{repo}``); names are their variables. ``needs`` is the permission that a
    call takes (``pull_requests: write``), for messages. All calls raise `GithubError`, or what the credential raises. A
    token that GitHub does not accept any more is asked for anew, once.
    """

    def __init__(self, config: GithubConfig, credential: Credential, *, clock: Clock = utcnow) -> None:
        url = urlsplit(config.api_url)
        is_here = is_loopback(url.hostname or "")
        if not url.hostname or url.scheme not in ("https", "http") or (url.scheme == "http" and not is_here):
            raise SyncError(
                f"cannot be used ({config.api_url!r}): credentials go over https alone",
                where="github.api_url",
                remedy="set it to https://api.github.com, or to https://HOST/api/v3 for GitHub Enterprise",
                reason=Reason.INVALID,
            )
        self._credential = credential
        self._clock = clock
        self._host = url.netloc.rpartition("@")[2]
        self._graphql = graphql_url(config.api_url)
        self._client = httpx.Client(
            headers={"x-github-api-version": API_VERSION},
            timeout=httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT),
            follow_redirects=False,
            verify=_trusted(),
            trust_env=not is_here,
        )
        self._github = _Github(self._client, base_url=config.api_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, *, needs: str, **names: Any) -> Any:
        """One JSON document."""
        return self._call("GET", path, needs, lambda auth: self._github.getitem(path, names, **auth))

    def post(self, path: str, data: Any, *, needs: str, **names: Any) -> Any:
        return self._call("POST", path, needs, lambda auth: self._github.post(path, names, data=data, **auth))

    def patch(self, path: str, data: Any, *, needs: str, **names: Any) -> Any:
        return self._call("PATCH", path, needs, lambda auth: self._github.patch(path, names, data=data, **auth))

    def put(self, path: str, data: Any, *, needs: str, **names: Any) -> Any:
        return self._call("PUT", path, needs, lambda auth: self._github.put(path, names, data=data, **auth))

    def items(self, path: str, *, needs: str, **names: Any) -> Iterator[Any]:
        """The items of a list, page after page; a page is asked for when it is reached."""
        path += "{?per_page" + "".join(f",{name}" for name in names if f"{{{name}}}" not in path) + "}"
        names["per_page"] = PAGE_SIZE

        def first(auth: dict[str, Any]) -> Coroutine[Any, Any, tuple[AsyncGenerator[Any, None], Any]]:
            return _first(self._github.getiter(path, names, **auth))

        pages, item = self._call("GET", path, needs, first)
        while item is not _END:
            yield item
            try:
                item = _finish(_next(pages))
            except (gidgethub.GitHubException, httpx.HTTPError, ValueError) as error:
                raise self._failure(error, "GET", path, needs) from error

    def graphql(self, query: str, *, needs: str, **variables: Any) -> dict[str, Any]:
        """The ``data`` of a GraphQL call. An error in its answer is a `GithubError` with the status 200."""
        body = {"query": query, "variables": variables}
        answer = self._call(
            "POST", "/graphql", needs, lambda auth: self._github.post(self._graphql, {}, data=body, **auth)
        )
        errors = answer.get("errors") if isinstance(answer, dict) else None
        if errors:
            said = _shown("; ".join(str(error.get("message")) for error in errors))
            limited = any(error.get("type") == "RATE_LIMITED" for error in errors)
            raise GithubError(
                f"is refused ({said})",
                where=f"{self._host} graphql",
                remedy="wait, another attempt follows by itself"
                if limited
                else f"see that {self._credential.name} has the permission {needs}",
                reason=Reason.QUOTA if limited else Reason.INVALID,
                status=200,
                said=said,
                retry_after=DEFAULT_WAIT if limited else None,
            )
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
            raise self._failure(ValueError("no data"), "POST", "/graphql", needs)
        data: dict[str, Any] = answer["data"]
        return data

    def _call(
        self, method: str, path: str, needs: str, start: Callable[[dict[str, Any]], Coroutine[Any, Any, _Result]]
    ) -> _Result:
        is_second = False
        while True:
            token = self._credential().get_secret_value()
            try:
                return _finish(start({"jwt" if self._credential.is_jwt else "oauth_token": token}))
            except (gidgethub.GitHubException, httpx.HTTPError, ValueError) as error:
                failure = self._failure(error, method, path, needs)
                if failure.reason is not Reason.UNAUTHENTICATED or is_second or not self._credential.forget():
                    raise failure from error
                is_second = True

    def _failure(self, error: Exception, method: str, path: str, needs: str) -> GithubError:
        where = f"{self._host} {method} {path.partition('{?')[0]}"
        again = "another attempt follows by itself"
        if isinstance(error, httpx.TimeoutException):
            return GithubError(
                f"did not answer within {TIMEOUT:.0f} s",
                where=where,
                remedy=f"check the network; {again}",
                reason=Reason.TIMEOUT,
            )
        if isinstance(error, httpx.HTTPError):
            return GithubError(
                f"cannot be reached ({_shown(str(error)) or type(error).__name__})",
                where=where,
                remedy=f"check the network and github.api_url; {again}",
                reason=Reason.UNAVAILABLE,
            )
        if not isinstance(error, gidgethub.HTTPException):
            return GithubError(
                "answers with something that is not GitHub's API",
                where=where,
                remedy="check github.api_url, and what stands between this machine and GitHub",
                reason=Reason.INVALID,
            )
        return _answered(error, where, self._credential.name, needs, self._clock())


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted: reading them takes longer than a call."""
    return httpx.create_ssl_context()


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def graphql_url(api_url: str) -> str:
    """Where GraphQL is: beside the REST API, ``/api/graphql`` on GitHub Enterprise."""
    base = api_url.rstrip("/")
    return base.removesuffix("/v3") + "/graphql" if base.endswith("/api/v3") else f"{base}/graphql"


def split_name(repository: str) -> dict[str, str]:
    """``owner/name`` as the variables ``owner`` and ``repo`` of a path."""
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise SyncError(
            "is not the name of a repository",
            where=repr(repository),
            remedy="set landing_zone.name and portal_repository.name to OWNER/NAME, as GitHub calls them",
            reason=Reason.INVALID,
        )
    return {"owner": owner, "repo": name}


class _Github(gidgethub.abc.GitHubAPI):
    """gidgethub over a client that blocks, so that its coroutines end without ever waiting."""

    def __init__(self, client: httpx.Client, *, base_url: str) -> None:
        super().__init__(f"lz-sync/{__version__}", base_url=base_url)
        self._client = client
        self._origin = _origin(base_url)

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, Mapping[str, str], bytes]:
        if _origin(url) != self._origin:  # a link to a next page could lead anywhere
            raise ValueError("a link leads to another host")
        response = self._client.request(method, url, headers=dict(headers), content=body)
        return response.status_code, response.headers, response.content

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError("waiting is the caller's part")


_END = object()


async def _next(items: AsyncGenerator[Any, None]) -> Any:
    return await anext(items, _END)


async def _first(items: AsyncGenerator[Any, None]) -> tuple[AsyncGenerator[Any, None], Any]:
    return items, await anext(items, _END)


def _finish(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine that never waits (see `_Github`): no event loop, so it may run inside one."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    coroutine.close()
    raise RuntimeError("a call to GitHub waited for an event loop")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _shown(text: str) -> str:
    """A message of the other side: one line, without secrets, not too long."""
    return redact_text(" ".join(text.split()))[:200]


def _answered(error: gidgethub.HTTPException, where: str, who: str, needs: str, now: datetime) -> GithubError:
    status, headers = int(error.status_code), error.headers
    said = _shown(str(error))

    def failure(what: str, remedy: str, reason: Reason, retry_after: float | None = None) -> GithubError:
        return GithubError(
            what, where=where, remedy=remedy, reason=reason, status=status, said=said, retry_after=retry_after
        )

    wait = _wait(headers, now)
    is_limit = status == 429 or (
        status == 403
        and (
            isinstance(error, gidgethub.RateLimitExceeded)
            or "retry-after" in headers
            or "rate limit" in said.lower()
            or "abuse detection" in said.lower()
        )
    )
    if is_limit:
        wait = DEFAULT_WAIT if wait is None else wait
        return failure(
            f"limits the calls of {who}", f"wait {wait:.0f} s; another attempt follows by itself", Reason.QUOTA, wait
        )
    if status >= 500:
        return failure(
            f"is not available ({status})",
            "see www.githubstatus.com; another attempt follows by itself",
            Reason.UNAVAILABLE,
            wait,
        )
    accepted = headers.get("x-accepted-github-permissions", "").replace("=", ": ")
    permission = accepted or needs
    if status == 401:
        return failure(
            f"does not accept {who} ({said})", "renew the credential and restart, or check it", Reason.UNAUTHENTICATED
        )
    if status == 403:
        return failure(
            f"is denied to {who} ({said})", f"grant it the permission {permission}", Reason.PERMISSION_DENIED
        )
    if status in (404, 410):
        return failure(
            f"is not found, or {who} may not see it",
            f"check the names and ids in the configuration, and the permission {permission}",
            Reason.NOT_FOUND,
        )
    if 300 <= status < 400:
        return failure(
            "has moved; redirects are not followed, since they would get the credential",
            "set github.api_url, or the repository's name, to the new one",
            Reason.NOT_FOUND,
        )
    reason = Reason.CONFLICT if status == 409 else Reason.INVALID
    return failure(f"is refused ({status}: {said})", "see what GitHub says and mend it", reason)


def _wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that GitHub asks to wait: ``retry-after``, or until the limit is reset where nothing is left of it."""
    try:
        if "retry-after" in headers:
            return max(1.0, float(headers["retry-after"]))
        if headers.get("x-ratelimit-remaining") == "0":
            return max(1.0, float(headers["x-ratelimit-reset"]) - now.timestamp())
    except (KeyError, ValueError):
        pass
    return None
