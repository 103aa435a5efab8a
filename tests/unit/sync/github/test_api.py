"""What the API's client does with answers that are not GitHub's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from lz_sync_dagster.config import GithubConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.github.api import Api, GithubError, graphql_url, split_name
from lz_sync_dagster.sync.github.credentials import FixedToken

Answer = tuple[int, dict[str, str], str]
JSON = {"content-type": "application/json"}


class Server(ThreadingHTTPServer):
    answers: list[Answer]
    seen: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def ask(server: Server) -> Iterator[Callable[..., Any]]:
    server.answers, server.seen = [], []
    config = GithubConfig(api_url=f"http://127.0.0.1:{server.server_address[1]}")
    with Api(config, FixedToken(SecretStr("the-token"), "the token")) as api:

        def answered(*answers: Answer, items: bool = False) -> Any:
            server.answers = list(answers)
            path = "/repos/{owner}/{repo}"
            if items:
                return list(api.items(path, needs="metadata: read", owner="a", repo="b"))
            return api.get(path, needs="metadata: read", owner="a", repo="b")

        yield answered


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        ((502, {"content-type": "text/html"}, "<h1>Bad gateway</h1>"), Reason.UNAVAILABLE, "502"),
        ((200, JSON, "{"), Reason.INVALID, "not GitHub's API"),
        ((301, {**JSON, "location": "https://elsewhere.example.com/"}, "{}"), Reason.NOT_FOUND, "redirects"),
        ((404, JSON, '{"message": "Not Found"}'), Reason.NOT_FOUND, "metadata: read"),
        ((429, JSON, '{"message": "slow down"}'), Reason.QUOTA, "60 s"),
        ((409, JSON, '{"message": "conflict"}'), Reason.CONFLICT, "conflict"),
        (
            (403, {**JSON, "x-accepted-github-permissions": "pages=write"}, "{}"),
            Reason.PERMISSION_DENIED,
            "pages: write",
        ),
        ((401, JSON, '{"message": "Bad credentials"}'), Reason.UNAUTHENTICATED, "the token"),
        ((422, JSON, '{"message": "x ghp_0123456789abcdefghijklmnopqrstuvwxyz"}'), Reason.INVALID, "422"),
        ((599, JSON, "{}"), Reason.INVALID, "not GitHub's API"),
    ],
)
def test_each_answer_has_its_reason(ask: Callable[..., Any], answer: Answer, reason: Reason, said: str) -> None:
    with pytest.raises(GithubError) as caught:
        ask(answer)
    text = str(caught.value)
    assert caught.value.reason is reason
    assert said in text
    assert "\n" not in text
    assert "the-token" not in text
    assert "ghp_0" not in text


def test_a_next_page_on_another_host_is_not_asked_for(ask: Callable[..., Any], server: Server) -> None:
    more = {**JSON, "link": f'<http://localhost:{server.server_address[1]}/more>; rel="next"'}
    with pytest.raises(GithubError):
        ask((200, more, '[{"id": 1}]'), items=True)
    assert server.seen == ["/repos/a/b?per_page=100"]


def test_pages_follow_each_other(ask: Callable[..., Any], server: Server) -> None:
    more = {**JSON, "link": f'<http://127.0.0.1:{server.server_address[1]}/more?page=2>; rel="next"'}
    assert ask((200, more, "[1, 2]"), (200, JSON, "[3]"), items=True) == [1, 2, 3]
    assert ask((200, JSON, "[]"), items=True) == []


def test_it_works_inside_an_event_loop(ask: Callable[..., Any]) -> None:
    async def inside() -> Any:
        return ask((200, JSON, '{"id": 7}'))

    assert asyncio.run(inside()) == {"id": 7}


def test_graphql_is_beside_the_rest_api() -> None:
    assert graphql_url("https://api.github.com") == "https://api.github.com/graphql"
    assert graphql_url("https://github.example.com/api/v3/") == "https://github.example.com/api/graphql"


@pytest.mark.parametrize("name", ["", "landing-zone", "/x", "a/", "a/b/c"])
def test_a_repository_has_an_owner_and_a_name(name: str) -> None:
    with pytest.raises(SyncError, match="OWNER/NAME"):
        split_name(name)
