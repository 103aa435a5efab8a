"""GitHub on this machine, for demo and tests: as much of it as real clients need for what the sync does with it.

Served below one address, laid out like GitHub Enterprise: ``/api/v3`` (an App and its installation tokens, pull
requests, webhook deliveries), ``/api/graphql`` (auto-merge), and git over http at ``/OWNER/NAME.git`` by git's own
``http-backend``. Tokens expire, are narrowed and are checked on every call, with GitHub's answers. The repositories are
bare ones on disk; a merged pull request is merged there. A commit and a file have a page, as plain text and for
everybody: ``/OWNER/NAME/commit/SHA``, ``/OWNER/NAME/blob/REF/PATH``. Not here: users, reviews, checks, ETags.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import itertools
import os
import re
import secrets
import stat
import sys
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import httpx
import jwt
import orjson
import pygit2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo.http_server import HttpServer
from lz_sync_dagster.sync.timing import Clock, utcnow

Json = dict[str, Any]
Fault = Literal["rate_limit", "secondary_limit", "unavailable", "hook_refused", "hook_error"]

#: GitHub's limits.
TOKEN_LIFETIME = timedelta(hours=1)
JWT_LIFETIME = timedelta(minutes=10)
REDELIVERY_WINDOW = timedelta(days=3)
DELIVERY_TIMEOUT = 10.0
DEFAULT_PAGE, MAX_PAGE = 30, 100
RATE_LIMIT = 5000
#: What ``secondary_limit`` asks for, in seconds.
RETRY_AFTER = 7

_LEVELS = {"read": 1, "write": 2, "admin": 3}
_API = "/api/v3"
_PUSH = "git-receive-pack"


def make_private_key() -> str:
    """A new RSA key for an App (PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def public_key_of(private_key: str) -> str:
    """What GitHub keeps of an App's key (PEM)."""
    key = serialization.load_pem_private_key(private_key.encode(), password=None)
    return (
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).decode()


@dataclass
class App:
    """A GitHub App with one installation.

    Attributes:
        public_key: PEM; change it and the old private key is refused.
        permissions: what it was granted; ``metadata: read`` comes with every App.
        repositories: where it is installed, ``None``: on all.
    """

    id: int
    public_key: str
    permissions: Mapping[str, str]
    repositories: Collection[str] | None = None
    installation_id: int = 4711
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """An installation token (it ``expires``), or a person's (it does not)."""

    value: str
    permissions: Mapping[str, str]
    repositories: Collection[str] | None = None
    expires: datetime | None = None

    def allows(self, permission: str, level: str) -> bool:
        granted = {"metadata": "read", **self.permissions}.get(permission, "")
        return _LEVELS.get(granted, 0) >= _LEVELS[level]


@dataclass
class Hook:
    """A webhook: of a repository, or the App's (``repository`` is ``None``)."""

    id: int
    repository: str | None
    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt at a delivery, as GitHub's log keeps it."""

    id: int
    hook: int
    guid: str
    event: str
    action: str | None
    body: bytes
    delivered_at: datetime
    redelivery: bool
    status: str
    status_code: int
    repository_id: int | None


@dataclass
class PullRequest:
    """A pull request. ``auto_merge``: the method that was asked for."""

    number: int
    repository: str
    branch: str
    base: str
    title: str
    body: str
    labels: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    state: Literal["open", "closed"] = "open"
    merged_at: datetime | None = None
    merge_commit: str | None = None
    auto_merge: str | None = None


@dataclass
class Repository:
    """A repository and its settings. ``checks_pending``: a required check has not passed; ``protected``: branches that
    take no push."""

    id: int
    name: str
    path: Path
    allow_auto_merge: bool = True
    checks_pending: bool = True
    protected: set[str] = field(default_factory=set)
    merge_methods: tuple[str, ...] = ("merge", "squash", "rebase")

    @property
    def owner(self) -> str:
        return self.name.partition("/")[0]

    def head(self, branch: str) -> str | None:
        repository = pygit2.Repository(str(self.path))
        ref = f"refs/heads/{branch}"
        return str(repository.references[ref].target) if ref in repository.references else None


class _Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = {"message": message, **more, "documentation_url": "https://docs.github.com/rest"}
        self.body["status"] = str(status)


def _invalid(resource: str, *, name: str = "", message: str = "") -> _Refused:
    error = {"resource": resource, "code": "custom", "message": message}
    if name:
        error = {"resource": resource, "field": name, "code": "invalid"}
    return _Refused(422, "Validation Failed", errors=[error])


class GithubServer:
    """A running server. Its methods are what a test or the demo does at GitHub by hand.

    Attributes:
        url: where git and pages are (``http://127.0.0.1:PORT``).
        api_url: what ``github.api_url`` takes.
        requests: the calls so far, as ``(method, path without /api/v3, status)``.
    """

    def __init__(
        self, repositories: Mapping[str, Path], app: App | None, tokens: Iterable[Token], clock: Clock, port: int
    ) -> None:
        self._server = HttpServer("github-server", port)
        self.clock = clock
        self._lock = threading.RLock()
        self.reset(repositories, app=app, tokens=tokens)
        self._sender = httpx.Client(timeout=DELIVERY_TIMEOUT, follow_redirects=False, trust_env=False, verify=False)  # noqa: S501
        self._folder = tempfile.TemporaryDirectory(prefix="github-server-")
        hook = Path(self._folder.name) / "proc-receive"
        hook.write_text(f"#!{sys.executable} -SE\n{_PROTECTED}")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)

        self.url = self._server.url
        self.api_url = self.url + _API
        self._server.start(self._routes())

    def stop(self) -> None:
        """Stop answering; returns when the port is free."""
        self._server.stop()
        self._sender.close()
        self._folder.cleanup()

    # --- what is done by hand ---

    def reset(self, repositories: Mapping[str, Path], *, app: App | None = None, tokens: Iterable[Token] = ()) -> None:
        """Forget all that was, as if the server had been started anew with these."""
        with self._lock:
            self.app = app
            self.requests: deque[tuple[str, str, int]] = deque(maxlen=10_000)
            self._repositories = {
                name.casefold(): Repository(1000 + number, name, path)
                for number, (name, path) in enumerate(repositories.items())
            }
            self._tokens = {token.value: token for token in tokens}
            self._hooks: dict[int, Hook] = {}
            self._deliveries: list[Delivery] = []
            self._pulls: dict[tuple[str, int], PullRequest] = {}
            self._numbers = itertools.count(1)
            self._ids = itertools.count(9_000_000_001)
            self._faults: dict[Fault, int] = {}
            self._used = 0

    def clone_url(self, repository: str) -> str:
        """Where git fetches and pushes."""
        return f"{self.url}/{repository}.git"

    def repository(self, name: str) -> Repository:
        """A repository, to change its settings."""
        return self._repositories[name.casefold()]

    def fail(self, fault: Fault, calls: int = 1) -> None:
        """Let the next API calls, or deliveries, go wrong: ``rate_limit`` (403, nothing left for an hour),
        ``secondary_limit`` (403 with Retry-After), ``unavailable`` (503), ``hook_refused`` (no connection),
        ``hook_error`` (the receiver answers 500)."""
        with self._lock:
            self._faults[fault] = calls

    def revoke_tokens(self) -> None:
        """All installation tokens end now."""
        with self._lock:
            self._tokens = {value: token for value, token in self._tokens.items() if token.expires is None}

    def add_token(self, token: Token) -> None:
        """A token that a person made."""
        with self._lock:
            self._tokens[token.value] = token

    def add_hook(self, repository: str | None, url: str, secret: str) -> int:
        """A webhook of a repository (``None``: the App's). Returns its id."""
        with self._lock:
            hook = Hook(7000 + len(self._hooks), repository, url, secret)
            self._hooks[hook.id] = hook
            return hook.id

    def hook(self, hook_id: int) -> Hook:
        """A webhook, to change where it leads."""
        return self._hooks[hook_id]

    def deliver(self, event: str, payload: Mapping[str, Any], hook_id: int, *, guid: str | None = None) -> Delivery:
        """Send a webhook, signed, and log how it went. ``guid``: the delivery's id, by default a new one."""
        body = orjson.dumps(payload)
        return self._send(self._hooks[hook_id], event, guid or str(uuid.uuid4()), body, redelivery=False)

    def deliveries(self, hook_id: int) -> list[Delivery]:
        """The log of a webhook, newest first."""
        with self._lock:
            return [entry for entry in reversed(self._deliveries) if entry.hook == hook_id]

    def pull(self, repository: str, number: int) -> PullRequest:
        """A pull request, to look at it."""
        return self._pulls[repository.casefold(), number]

    def merge(self, repository: str, number: int, method: str = "merge") -> str:
        """Merge a pull request in the bare repository, as somebody with the rights would. Returns the commit's id."""
        with self._lock:
            return self._merge(self.repository(repository), self.pull(repository, number), method)

    def pass_checks(self, repository: str) -> None:
        """The required checks pass: pull requests that wait for that are merged."""
        with self._lock:
            found = self.repository(repository)
            found.checks_pending = False
            for pull in list(self._pulls.values()):
                if pull.repository == found.name and pull.state == "open" and pull.auto_merge:
                    self._merge(found, pull, pull.auto_merge.lower())

    # --- who calls ---

    def _token(self, value: str) -> Token:
        token = self._tokens.get(value)
        if token is None or (token.expires is not None and token.expires <= self.clock()):
            raise _Refused(401, "Bad credentials")
        if token.expires is not None and self.app is not None and self.app.suspended:
            raise _Refused(403, "This installation has been suspended")
        return token

    def _authorized(self, request: Request) -> str:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("token", "bearer") or not value:
            raise _Refused(401, "Requires authentication")
        return value.strip()

    def _check(self, request: Request, permission: str, level: str) -> Repository:
        """The repository that a call is about, if its token may do this there."""
        token = self._token(self._authorized(request))
        found = self._visible(token, f"{request.path_params['owner']}/{request.path_params['repo']}")
        if not token.allows(permission, level):
            kind = "integration" if token.expires is not None else "personal access token"
            headers = {"x-accepted-github-permissions": f"{permission}={level}"}
            raise _Refused(403, f"Resource not accessible by {kind}", headers=headers)
        return found

    def _visible(self, token: Token, name: str) -> Repository:
        found = self._repositories.get(name.casefold())
        seen = token.repositories
        if found is None or (seen is not None and found.name.casefold() not in {one.casefold() for one in seen}):
            raise _Refused(404, "Not Found")
        return found

    def _check_app(self, request: Request) -> App:
        """The App whose assertion a call carries."""
        unread: Any = {"verify_signature": False}
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}  # by our own clock, below
        undecodable = _Refused(401, "A JSON web token could not be decoded")
        try:
            value = self._authorized(request)
            claims = jwt.decode(value, options=unread)
            if self.app is None or claims.get("iss") not in (self.app.id, str(self.app.id)):
                raise _Refused(404, "Integration not found")
            claims = jwt.decode(value, self.app.public_key, algorithms=["RS256"], options=options)
            issued, expires = float(claims["iat"]), float(claims["exp"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            raise undecodable from None
        now = self.clock().timestamp()
        if issued > now:
            raise _Refused(401, "'Issued at' claim ('iat') must be an Integer representing the time in the past")
        if expires > now + JWT_LIFETIME.total_seconds():
            raise _Refused(401, "'Expiration time' claim ('exp') is too far in the future")
        if expires <= now:
            raise _Refused(
                401,
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the "
                "assertion expires",
            )
        return self.app

    # --- the API ---

    def _routes(self) -> list[Route]:
        repo = f"{_API}/repos/{{owner}}/{{repo}}"
        hook = f"{repo}/hooks/{{hook:int}}/deliveries"
        table: list[tuple[str, str, Callable[[Request, Any], Response]]] = [
            ("GET", f"{repo}/installation", self._installation),
            ("POST", f"{_API}/app/installations/{{installation:int}}/access_tokens", self._access_token),
            ("GET", f"{_API}/app/hook/deliveries", self._list_deliveries),
            ("POST", f"{_API}/app/hook/deliveries/{{delivery:int}}/attempts", self._redeliver),
            ("GET", hook, self._list_deliveries),
            ("POST", f"{hook}/{{delivery:int}}/attempts", self._redeliver),
            ("GET", repo, self._show_repository),
            ("GET", f"{repo}/pulls", self._list_pulls),
            ("POST", f"{repo}/pulls", self._create_pull),
            ("GET", f"{repo}/pulls/{{number:int}}", self._show_pull),
            ("PATCH", f"{repo}/pulls/{{number:int}}", self._update_pull),
            ("PUT", f"{repo}/pulls/{{number:int}}/merge", self._merge_pull),
            ("POST", f"{repo}/issues/{{number:int}}/labels", self._add_labels),
            ("POST", f"{repo}/issues/{{number:int}}/comments", self._add_comment),
            ("POST", "/api/graphql", self._graphql),
        ]
        return [
            *(Route(path, self._answering(handler), methods=[method]) for method, path, handler in table),
            Route("/{owner}/{repo}.git/{rest:path}", self._git, methods=["GET", "POST"]),
            Route("/{owner}/{repo}/commit/{sha}", self._page),
            Route("/{owner}/{repo}/blob/{ref}/{path:path}", self._page),
        ]

    def _answering(self, handler: Callable[[Request, Any], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            raw = await request.body()
            response = await run_in_threadpool(self._answer, handler, request, raw)
            path = request.url.path.removeprefix(_API)
            self.requests.append((request.method, path, response.status_code))
            return response

        return answer

    def _answer(self, handler: Callable[[Request, Any], Response], request: Request, raw: bytes) -> Response:
        with self._lock:
            self._used += 1
            try:
                self._check_load()
                response = handler(request, orjson.loads(raw) if raw else {})
            except orjson.JSONDecodeError:
                response = JSONResponse({"message": "Problems parsing JSON"}, 400)
            except _Refused as refused:
                response = JSONResponse(refused.body, refused.status, refused.headers)
            limits = {"limit": RATE_LIMIT, "remaining": max(0, RATE_LIMIT - self._used)}
            for name, value in limits.items():
                response.headers.setdefault(f"x-ratelimit-{name}", str(value))
            response.headers.setdefault("x-ratelimit-reset", str(int(self.clock().timestamp()) + 3600))
            return response

    def _check_load(self) -> None:
        if self._take("rate_limit"):
            reset = str(int(self.clock().timestamp()) + 3600)
            headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
            raise _Refused(403, "API rate limit exceeded for installation ID 4711.", headers=headers)
        if self._take("secondary_limit"):
            message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
            raise _Refused(403, message, headers={"retry-after": str(RETRY_AFTER)})
        if self._take("unavailable"):
            raise _Refused(503, "No server is currently available to service your request.")

    def _take(self, fault: Fault) -> bool:
        with self._lock:
            left = self._faults.get(fault, 0)
            self._faults[fault] = max(0, left - 1)
            return left > 0

    def _installation(self, request: Request, _body: Any) -> Response:
        app = self._check_app(request)
        name = f"{request.path_params['owner']}/{request.path_params['repo']}"
        if not self._is_installed(app, name):
            raise _Refused(404, "Not Found")
        suspended = _rfc3339(self.clock()) if app.suspended else None
        return JSONResponse(
            {
                "id": app.installation_id,
                "app_id": app.id,
                "permissions": dict(app.permissions),
                "suspended_at": suspended,
                "repository_selection": "all" if app.repositories is None else "selected",
            }
        )

    def _is_installed(self, app: App, name: str) -> bool:
        names = self._repositories if app.repositories is None else {one.casefold() for one in app.repositories}
        return name.casefold() in self._repositories and name.casefold() in names

    def _access_token(self, request: Request, body: Any) -> Response:
        app = self._check_app(request)
        if request.path_params["installation"] != app.installation_id:
            raise _Refused(404, "Not Found")
        if app.suspended:
            raise _Refused(403, "This installation has been suspended")
        granted = {"metadata": "read", **app.permissions}
        asked = body.get("permissions") or granted
        if any(_LEVELS.get(level, 9) > _LEVELS.get(granted.get(name, ""), 0) for name, level in asked.items()):
            raise _Refused(422, "The permissions requested are not granted to this installation.")
        names = [repo.name for repo in self._repositories.values() if self._is_installed(app, repo.name)]
        if "repositories" in body:
            wanted = {str(name).casefold() for name in body["repositories"]}
            names = [name for name in names if name.partition("/")[2].casefold() in wanted]
            if len(names) != len(wanted):
                raise _Refused(
                    422,
                    "There is at least one repository that does not exist or is not accessible to the parent "
                    "installation.",
                )
        token = Token(
            "ghs_" + secrets.token_hex(18),
            dict(asked),
            frozenset(names),
            self.clock().replace(microsecond=0) + TOKEN_LIFETIME,
        )
        self._tokens[token.value] = token
        assert token.expires is not None
        return JSONResponse(
            {
                "token": token.value,
                "expires_at": _rfc3339(token.expires),
                "permissions": dict(asked),
                "repositories": [self._repository(self.repository(name)) for name in names],
            },
            201,
        )

    def _repository(self, repository: Repository) -> Json:
        methods = repository.merge_methods
        return {
            "id": repository.id,
            "name": repository.name.partition("/")[2],
            "full_name": repository.name,
            "html_url": f"{self.url}/{repository.name}",
            "clone_url": self.clone_url(repository.name),
            "allow_auto_merge": repository.allow_auto_merge,
            "allow_merge_commit": "merge" in methods,
            "allow_squash_merge": "squash" in methods,
            "allow_rebase_merge": "rebase" in methods,
        }

    def _show_repository(self, request: Request, _body: Any) -> Response:
        return JSONResponse(self._repository(self._check(request, "metadata", "read")))

    # --- pull requests ---

    def _refresh(self, pull: PullRequest) -> None:
        """A pull request ends by itself when its branch is gone, or is part of the base."""
        if pull.state == "closed":
            return
        repository = self.repository(pull.repository)
        head, base = repository.head(pull.branch), repository.head(pull.base)
        if head is None or base is None:
            pull.state = "closed"
        elif head == base or pygit2.Repository(str(repository.path)).descendant_of(base, head):
            pull.state, pull.merged_at, pull.merge_commit = "closed", self.clock(), base

    def _pull(self, pull: PullRequest) -> Json:
        self._refresh(pull)
        repository = self.repository(pull.repository)
        shown = self._repository(repository)
        auto_merge = {"merge_method": pull.auto_merge.lower()} if pull.auto_merge else None
        return {
            "id": 50_000 + pull.number,
            "node_id": _node_id(pull),
            "number": pull.number,
            "html_url": f"{self.url}/{pull.repository}/pull/{pull.number}",
            "state": pull.state,
            "title": pull.title,
            "body": pull.body,
            "labels": [{"name": label} for label in pull.labels],
            "head": {"ref": pull.branch, "sha": repository.head(pull.branch), "repo": shown},
            "base": {"ref": pull.base, "sha": repository.head(pull.base), "repo": shown},
            "merged_at": _rfc3339(pull.merged_at) if pull.merged_at else None,
            "merge_commit_sha": pull.merge_commit,
            "auto_merge": auto_merge,
        }

    def _list_pulls(self, request: Request, _body: Any) -> Response:
        repository = self._check(request, "pull_requests", "read")
        query = request.query_params
        state, head, base = query.get("state", "open"), query.get("head"), query.get("base")
        pulls = [pull for pull in self._pulls.values() if pull.repository == repository.name]
        for pull in pulls:
            self._refresh(pull)
        found = [
            self._pull(pull)
            for pull in sorted(pulls, key=lambda pull: -pull.number)
            if state in ("all", pull.state)
            and base in (None, pull.base)
            and (head is None or head.casefold() == f"{repository.owner}:{pull.branch}".casefold())
        ]
        size, page = _page_size(request), int(query.get("page", "1"))
        headers = {}
        if len(found) > page * size:
            more = urlencode({**query, "page": page + 1})
            headers["link"] = f'<{self.url}{request.url.path}?{more}>; rel="next"'
        return JSONResponse(found[(page - 1) * size : page * size], headers=headers)

    def _create_pull(self, request: Request, body: Any) -> Response:
        repository = self._check(request, "pull_requests", "write")
        branch, base = str(body.get("head", "")).rpartition(":")[2], str(body.get("base", ""))
        head_sha, base_sha = repository.head(branch), repository.head(base)
        if not body.get("title"):
            raise _invalid("PullRequest", name="title")
        if head_sha is None or base_sha is None:
            raise _invalid("PullRequest", name="head" if head_sha is None else "base")
        if head_sha == base_sha or pygit2.Repository(str(repository.path)).descendant_of(base_sha, head_sha):
            raise _invalid("PullRequest", message=f"No commits between {base} and {branch}")
        for other in self._pulls.values():
            self._refresh(other)
            if (other.repository, other.branch, other.base, other.state) == (repository.name, branch, base, "open"):
                message = f"A pull request already exists for {repository.owner}:{branch}."
                raise _invalid("PullRequest", message=message)
        pull = PullRequest(
            next(self._numbers), repository.name, branch, base, str(body["title"]), str(body.get("body") or "")
        )
        self._pulls[repository.name.casefold(), pull.number] = pull
        return JSONResponse(self._pull(pull), 201)

    def _asked(self, request: Request, level: str) -> PullRequest:
        repository = self._check(request, "pull_requests", level)
        pull = self._pulls.get((repository.name.casefold(), request.path_params["number"]))
        if pull is None:
            raise _Refused(404, "Not Found")
        return pull

    def _show_pull(self, request: Request, _body: Any) -> Response:
        return JSONResponse(self._pull(self._asked(request, "read")))

    def _update_pull(self, request: Request, body: Any) -> Response:
        pull = self._asked(request, "write")
        pull.title, pull.body = str(body.get("title", pull.title)), str(body.get("body", pull.body))
        if body.get("state") == "closed" and pull.state == "open":
            pull.state, pull.auto_merge = "closed", None
        return JSONResponse(self._pull(pull))

    def _add_labels(self, request: Request, body: Any) -> Response:
        pull = self._asked(request, "write")
        pull.labels += [label for label in body["labels"] if label not in pull.labels]
        return JSONResponse([{"name": label} for label in pull.labels])

    def _add_comment(self, request: Request, body: Any) -> Response:
        pull = self._asked(request, "write")
        pull.comments.append(str(body["body"]))
        return JSONResponse({"id": len(pull.comments), "body": body["body"]}, 201)

    def _merge_pull(self, request: Request, body: Any) -> Response:
        repository = self._check(request, "contents", "write")
        pull = self._pulls.get((repository.name.casefold(), request.path_params["number"]))
        if pull is None:
            raise _Refused(404, "Not Found")
        if body.get("sha") not in (None, repository.head(pull.branch)):
            raise _Refused(409, "Head branch was modified. Review and try the merge again.")
        if repository.checks_pending:
            raise _Refused(405, "Required status check is expected.")
        commit = self._merge(repository, pull, str(body.get("merge_method", "merge")))
        return JSONResponse({"sha": commit, "merged": True, "message": "Pull Request successfully merged"})

    def _merge(self, repository: Repository, pull: PullRequest, method: str) -> str:
        self._refresh(pull)
        if pull.state != "open":
            raise _Refused(405, "Pull Request is not mergeable")
        if method not in repository.merge_methods:
            raise _Refused(405, f"{method.capitalize()} merges are not allowed on this repository.")
        git = pygit2.Repository(str(repository.path))
        ours, theirs = repository.head(pull.base), repository.head(pull.branch)
        assert ours is not None and theirs is not None  # noqa: PT018
        index = git.merge_commits(ours, theirs)
        if index.conflicts:
            raise _Refused(405, "Pull Request is not mergeable")
        author = pygit2.Signature("GitHub", "noreply@github.com", int(self.clock().timestamp()), 0)
        parents = [ours, theirs] if method == "merge" else [ours]
        message = f"{pull.title} (#{pull.number})"
        commit = git.create_commit(
            f"refs/heads/{pull.base}", author, author, message, index.write_tree(git), list(parents)
        )
        pull.state, pull.merged_at, pull.merge_commit = "closed", self.clock(), str(commit)
        return str(commit)

    def _graphql(self, request: Request, body: Any) -> Response:
        name = "enablePullRequestAutoMerge"
        token = self._token(self._authorized(request))
        variables = body.get("variables") or {}
        if name not in str(body.get("query")):
            return JSONResponse({"errors": [{"message": "only enablePullRequestAutoMerge is served here"}]})
        pulls = {_node_id(pull): pull for pull in self._pulls.values()}
        pull = pulls.get(str(variables.get("pullRequestId")))
        kind, message = "", ""
        if pull is None:
            kind, message = "NOT_FOUND", f"Could not resolve to a node with the global id of '{variables}'"
        else:
            repository = self._visible(token, pull.repository)
            self._refresh(pull)
            if not (token.allows("contents", "write") and token.allows("pull_requests", "write")):
                kind, message = "FORBIDDEN", "Resource not accessible by integration"
            elif not repository.allow_auto_merge:
                kind, message = "UNPROCESSABLE", "Pull request Auto merge is not allowed for this repository"
            elif str(variables.get("mergeMethod", "MERGE")).lower() not in repository.merge_methods:
                kind, message = "UNPROCESSABLE", "Merge method is not allowed on this repository"
            elif pull.state != "open" or not repository.checks_pending:
                kind, message = "UNPROCESSABLE", "Pull request Pull request is in clean status"
        if kind or pull is None:
            return JSONResponse({"data": {name: None}, "errors": [{"type": kind, "path": [name], "message": message}]})
        pull.auto_merge = str(variables.get("mergeMethod", "MERGE"))
        return JSONResponse({"data": {name: {"pullRequest": {"number": pull.number}}}})

    # --- webhooks ---

    def _hook_of(self, request: Request, level: str) -> int:
        if "hook" in request.path_params:
            repository = self._check(request, "repository_hooks", level)
            hook = self._hooks.get(request.path_params["hook"])
            if hook is None or (hook.repository or "").casefold() != repository.name.casefold():
                raise _Refused(404, "Not Found")
            return hook.id
        self._check_app(request)
        for hook in self._hooks.values():
            if hook.repository is None:
                return hook.id
        raise _Refused(404, "Not Found")

    def _kept(self, hook_id: int) -> list[Delivery]:
        oldest = self.clock() - REDELIVERY_WINDOW
        return [entry for entry in self.deliveries(hook_id) if entry.delivered_at >= oldest]

    def _list_deliveries(self, request: Request, _body: Any) -> Response:
        entries = self._kept(self._hook_of(request, "read"))
        size, cursor = _page_size(request), request.query_params.get("cursor")
        if cursor is not None:
            if re.fullmatch(r"v1_\d+", cursor) is None:
                raise _Refused(422, "Invalid cursor")
            entries = [entry for entry in entries if entry.id <= int(cursor[3:])]
        headers = {}
        if len(entries) > size:
            more = urlencode({"per_page": size, "cursor": f"v1_{entries[size].id}"})
            headers["link"] = f'<{self.url}{request.url.path}?{more}>; rel="next"'
        shown = [
            {
                "id": entry.id,
                "guid": entry.guid,
                "delivered_at": _rfc3339(entry.delivered_at),
                "redelivery": entry.redelivery,
                "duration": 0.1,
                "status": entry.status,
                "status_code": entry.status_code,
                "event": entry.event,
                "action": entry.action,
                "installation_id": self.app.installation_id if self.app else None,
                "repository_id": entry.repository_id,
                "throttled_at": None,
            }
            for entry in entries[:size]
        ]
        return JSONResponse(shown, headers=headers)

    def _redeliver(self, request: Request, _body: Any) -> Response:
        hook_id = self._hook_of(request, "write")
        found = [entry for entry in self._kept(hook_id) if entry.id == request.path_params["delivery"]]
        if not found:
            raise _Refused(404, "Not Found")
        entry = found[0]
        again = BackgroundTask(self._send, self._hooks[hook_id], entry.event, entry.guid, entry.body, redelivery=True)
        return JSONResponse({}, 202, background=again)

    def _send(self, hook: Hook, event: str, guid: str, body: bytes, *, redelivery: bool) -> Delivery:
        started = self.clock()
        headers = {
            "content-type": "application/json",
            "user-agent": "GitHub-Hookshot/local",
            "x-github-event": event,
            "x-github-delivery": guid,
            "x-github-hook-id": str(hook.id),
            "x-hub-signature-256": "sha256=" + hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest(),
        }
        if self._take("hook_refused"):
            status, code = "failed to connect to host", 502
        elif self._take("hook_error"):
            status, code = "Invalid HTTP Response: 500", 500
        else:
            status, code = self._post(hook.url, headers, body)
        payload = orjson.loads(body)
        repository = self._repositories.get(str((payload.get("repository") or {}).get("full_name")).casefold())
        with self._lock:
            entry = Delivery(
                next(self._ids),
                hook.id,
                guid,
                event,
                payload.get("action"),
                body,
                started,
                redelivery,
                status,
                code,
                repository.id if repository else None,
            )
            self._deliveries.append(entry)
        return entry

    def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, int]:
        try:
            code = self._sender.post(url, headers=dict(headers), content=body).status_code
        except httpx.TimeoutException:
            return "timed out", 504
        except httpx.HTTPError:
            return "failed to connect to host", 502
        return ("OK" if 200 <= code < 300 else f"Invalid HTTP Response: {code}"), code

    # --- pages ---

    async def _page(self, request: Request) -> Response:
        """A commit with its changes, or a file, as git shows it."""
        asked = request.path_params
        found = self._repositories.get(f"{asked['owner']}/{asked['repo']}".casefold())
        missing = Response("Not Found", 404, media_type="text/plain")
        if found is None:
            return missing
        what = asked["sha"] if "sha" in asked else f"{asked['ref']}:{asked['path']}"
        options = ("--stat", "--patch", "--end-of-options", what)
        command = ("git", "-C", str(found.path), "-c", "safe.directory=*", "show", *options)
        pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        git = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=nowhere)
        text, _ = await git.communicate()
        return Response(text, media_type="text/plain") if git.returncode == 0 else missing

    # --- git over http ---

    async def _git(self, request: Request) -> Response:
        rest = request.path_params["rest"]
        is_push = _PUSH in (rest, request.query_params.get("service"))
        try:
            repository = self._check_git(request, write=is_push)
        except _Refused as refused:
            headers = {"www-authenticate": 'Basic realm="GitHub"'} if refused.status == 401 else {}
            response: Response = Response(refused.body["message"], refused.status, headers, "text/plain")
        else:
            response = await self._http_backend(request, repository, rest)
        self.requests.append((request.method, request.url.path, response.status_code))
        return response

    def _check_git(self, request: Request, *, write: bool) -> Repository:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            _, _, value = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            value = ""
        with self._lock:
            try:
                token = self._token(value if scheme.lower() == "basic" else "")
            except _Refused as refused:
                if refused.status == 401:
                    raise _Refused(401, "Invalid username or token.") from None
                raise
            found = self._visible(token, f"{request.path_params['owner']}/{request.path_params['repo']}")
            if not token.allows("contents", "read"):
                raise _Refused(403, "Read access to repository not granted.")
            if write and not token.allows("contents", "write"):
                raise _Refused(403, "Write access to repository not granted.")
            return found

    async def _http_backend(self, request: Request, repository: Repository, rest: str) -> Response:
        """git's own server, as CGI."""
        options = [
            ("safe.directory", "*"),
            ("uploadpack.allowFilter", "true"),
            ("uploadpack.allowReachableSHA1InWant", "true"),
            ("core.hooksPath", self._folder.name),
            *(("receive.procReceiveRefs", f"refs/heads/{branch}") for branch in sorted(repository.protected)),
        ]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_TRANSLATED": f"{repository.path}/{rest}",
            "REQUEST_METHOD": request.method,
            "QUERY_STRING": request.url.query,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "REMOTE_USER": "x-access-token",
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": str(len(options)),
        }
        for number, (name, value) in enumerate(options):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        pipe = asyncio.subprocess.PIPE
        backend = await asyncio.create_subprocess_exec("git", "http-backend", env=environment, stdin=pipe, stdout=pipe)
        assert backend.stdin is not None and backend.stdout is not None  # noqa: PT018
        await _feed(request, backend.stdin)  # all of it: whoever answers a request reads it no more
        output = backend.stdout
        head = await output.readuntil(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n"))
        status = int(headers.pop("Status", "200 OK").split()[0])

        async def body() -> Any:
            try:
                while chunk := await output.read(1 << 16):
                    yield chunk
            finally:
                await backend.wait()

        return StreamingResponse(body(), status, headers)


async def _feed(request: Request, stdin: asyncio.StreamWriter) -> None:
    try:
        async for chunk in request.stream():
            if chunk:
                stdin.write(chunk)
                await stdin.drain()
    except (BrokenPipeError, ConnectionResetError, RuntimeError):
        pass  # the backend has heard enough; uvloop has a RuntimeError for that
    finally:
        stdin.close()


#: git's ``proc-receive`` hook, which answers for the protected branches: all of them are declined.
_PROTECTED = """
import sys
read, write = sys.stdin.buffer.read, sys.stdout.buffer.write
def receive():
    size = int(read(4), 16)
    return read(size - 4) if size else None
def send(text=None):
    write(b"0000" if text is None else b"%04x" % (len(text) + 4) + text)
    sys.stdout.buffer.flush()
while receive() is not None:
    pass
send(b"version=1")
send()
refs = []
while (line := receive()) is not None:
    refs.append(line.rstrip().split(b" ", 2)[2])
for ref in refs:
    sys.stderr.write(f"error: GH006: Protected branch update failed for {ref.decode()}.\\n")
    sys.stderr.write("- Changes must be made through a pull request.\\n")
    sys.stderr.flush()
    send(b"ng " + ref + b" protected branch hook declined")
send()
"""


def _node_id(pull: PullRequest) -> str:
    return "PR_" + base64.urlsafe_b64encode(f"{pull.repository}:{pull.number}".encode()).decode()


def _page_size(request: Request) -> int:
    return min(max(1, int(request.query_params.get("per_page", DEFAULT_PAGE))), MAX_PAGE)


def _rfc3339(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def start_github_server(
    repositories: Mapping[str, Path],
    *,
    app: App | None = None,
    tokens: Iterable[Token] = (),
    clock: Clock = utcnow,
    port: int = 0,
) -> GithubServer:
    """Serve bare repositories (``OWNER/NAME`` → folder) on a port of 127.0.0.1 (0: a free one), in a thread of its own.

    Args:
        app: the GitHub App that is known here.
        tokens: tokens that people made.
        clock: tells when tokens expire and what is in the log.

    Raises:
        OSError: the port is taken.
    """
    return GithubServer(repositories, app, tokens, clock, port)
