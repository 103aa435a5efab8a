"""Who may open a WebSocket, and what a page may load."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from lz_sync_dagster.portal.security import is_foreign, page_policy


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "portal.example"}, False),
        ({"host": "portal.example", "origin": "https://portal.example"}, False),
        ({"host": "portal.example:8080", "origin": "http://portal.example:8080"}, False),
        ({"host": "inner:80", "x-forwarded-host": "portal.example", "origin": "https://portal.example"}, False),
        ({"host": "portal.example", "origin": "https://evil.example"}, True),
        ({"host": "portal.example", "origin": "https://portal.example.evil.example"}, True),
        ({"host": "portal.example", "origin": "null"}, True),
    ],
)
def test_only_pages_of_this_host_open_a_websocket(headers: dict[str, str], foreign: bool) -> None:
    assert is_foreign(Headers(headers)) is foreign


def test_a_page_loads_from_this_host_alone() -> None:
    policy = page_policy("abc")
    assert "http" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'nonce-abc' 'unsafe-eval';" in policy
