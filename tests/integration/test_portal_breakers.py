"""The breaker over real HTTP: who may confirm what vanished, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from lz_sync_dagster.config import load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.portal.server import bind, server_for
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.state.reducer import Breaker
from lz_sync_dagster.sync.store import Store, alerts, assets, audit, breakers, feed_freshness, reads
from lz_sync_dagster.sync.store.feed_freshness import Delivery
from lz_sync_dagster.sync.store.schema import resources
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock, until

SCOPE, TYPE = "organizations/1", "storage.googleapis.com/Bucket"
PART = (SCOPE, TYPE, "RESOURCE")
ADA, BOB = "ada-has-a-long-token", "bob-has-a-long-token"
PROBLEM = "application/problem+json"

Serve = Callable[..., str]


@contextmanager
def serving(store: Store, folder: Any, tokens: str) -> Iterator[str]:
    environ = {"LZ_SYNC_DATA_DIR": str(folder)} | ({"LZ_SYNC_OPERATOR_TOKENS": tokens} if tokens else {})
    app = create_app(load_settings(environ=environ), store, clock=SteppedClock(), pages=False)
    with bind("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        server = server_for(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started, what="the server")
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@pytest.fixture
def serve(tmp_path: Any) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda store, tokens=f"ada:{ADA}, bob:{BOB}": stack.enter_context(serving(store, tmp_path, tokens))


def lose(store: Store, *, known: int = 10, left: int = 4) -> None:
    """Three reads: all, and twice those that are left."""
    read_in_turn(store, range(known), range(left), range(left))


def read_in_turn(store: Store, *reads_of: Iterable[int], first: int = 1) -> None:
    """Complete reads of the assets with these numbers."""
    for step, numbers in enumerate(map(list, reads_of), start=first):
        with store.read() as connection:
            base = reads.base_of(connection, PART)
        shown = [
            observe(
                {"name": f"//b/{number:02}", "assetType": TYPE, "resource": {"data": {}}},
                scope=SCOPE,
                observed_ns=to_ns(NOW) + step,
                source=Source.SNAPSHOT,
            )
            for number in numbers
        ]
        with store.write(exclusive=assets.LOCK) as connection:
            assets.apply(connection, shown, layer=LayerId.API, now=NOW, evaluate=lambda *_: [])
        reads.finish_read(
            store,
            base,
            read_ns=to_ns(NOW) + step,
            names={item.name for item in shown},
            total=len(numbers),
            layer=LayerId.API,
            clock=lambda: NOW,
            breaker=Breaker(0.2, 5),
        )


def existing(store: Store) -> int:
    with store.read() as connection:
        query = sa.select(sa.func.count()).select_from(resources).where(resources.c.deleted.is_(False))
        return connection.scalar(query) or 0


def wanted(url: str) -> dict[str, str]:
    [item] = httpx.get(f"{url}/api/v1/breakers").json()["items"]
    return {key: item[key] for key in ("scope", "asset_type", "content_type", "fingerprint")}


def confirm(url: str, body: Any, token: str | None = ADA, **headers: str) -> httpx.Response:
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(f"{url}/api/v1/breakers/confirm", json=body, headers=sent | headers)


def actions(url: str) -> list[tuple[str, str]]:
    lines = httpx.get(f"{url}/api/v1/audit").json()["items"]
    return [(line["actor"], line["action"]) for line in lines]


def test_an_operator_confirms_what_vanished(store: Store, serve: Serve) -> None:
    lose(store)
    url = serve(store)
    [item] = httpx.get(f"{url}/api/v1/breakers").json()["items"]
    assert (item["known"], item["lost"], item["sample"]) == (10, 6, [f"//b/{number:02}" for number in range(4, 10)])
    answer = confirm(url, wanted(url), BOB)
    assert answer.status_code == 200
    assert {key: answer.json()[key] for key in ("lost", "deleted", "remaining")} == {
        "lost": 6,
        "deleted": 6,
        "remaining": 0,
    }
    assert existing(store) == 4
    assert httpx.get(f"{url}/api/v1/breakers").json()["items"] == []
    assert actions(url) == [("api:bob", "confirm_deletions")]
    assert httpx.get(f"{url}/api/v1/coverage").json()["coverage"]["status"] == "complete"


def test_all_names_are_there_page_by_page(store: Store, serve: Serve) -> None:
    lose(store)
    url = serve(store)
    query: dict[str, Any] = dict(zip(("scope", "asset_type", "content_type"), PART, strict=True)) | {"limit": 4}
    first = httpx.get(f"{url}/api/v1/breakers/losses", params=query).json()
    rest = httpx.get(f"{url}/api/v1/breakers/losses", params=query | {"cursor": first["next_cursor"]}).json()
    assert first["items"] + rest["items"] == [f"//b/{number:02}" for number in range(4, 10)]
    assert (rest["next_cursor"], rest["fingerprint"]) == (None, wanted(url)["fingerprint"])
    assert httpx.get(f"{url}/api/v1/breakers/losses", params=query | {"scope": "folders/9"}).status_code == 404
    assert httpx.get(f"{url}/api/v1/breakers/losses", params=query | {"scope": "a\0"}).status_code == 422


@pytest.mark.parametrize(
    ("token", "headers", "status", "said"),
    [
        (None, {}, 401, "a token is missing"),
        ("wrong-but-quite-long", {}, 401, "is none of LZ_SYNC_OPERATOR_TOKENS"),
        (ADA[:-1], {}, 401, "is none of"),
        (None, {"Authorization": f"Basic {ADA}"}, 401, "a token is missing"),
        (None, {"Authorization": "Bearer"}, 401, "a token is missing"),
        (ADA, {"Origin": "https://elsewhere.example"}, 403, "a page of another host"),
        (ADA, {"Content-Type": "text/plain"}, 415, "has to be JSON"),
        (ADA, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "has to be JSON"),
    ],
)
def test_nobody_else_may(
    sqlite_store: Store, serve: Serve, token: str | None, headers: dict[str, str], status: int, said: str
) -> None:
    lose(sqlite_store)
    url = serve(sqlite_store)
    answer = confirm(url, wanted(url), token, **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert said in answer.json()["detail"]
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert existing(sqlite_store) == 10
    assert actions(url) == [("api:unknown", "refused")]


def test_a_token_that_is_not_text_is_wrong_and_no_defect(sqlite_store: Store, serve: Serve) -> None:
    lose(sqlite_store)
    url = serve(sqlite_store)
    answer = httpx.post(
        f"{url}/api/v1/breakers/confirm",
        json=wanted(url),
        headers=[(b"Authorization", b"Bearer \xff\xfe" + ADA.encode())],
    )
    assert answer.status_code == 401


def test_without_operators_nobody_may(sqlite_store: Store, serve: Serve) -> None:
    lose(sqlite_store)
    url = serve(sqlite_store, "")
    answer = confirm(url, wanted(url))
    assert answer.status_code == 403
    assert "set LZ_SYNC_OPERATOR_TOKENS" in answer.json()["detail"]


def test_a_confirmation_of_what_has_changed_is_refused_and_audited(sqlite_store: Store, serve: Serve) -> None:
    lose(sqlite_store)
    url = serve(sqlite_store)
    body = wanted(url)
    stale = confirm(url, body | {"fingerprint": "0" * 32})
    assert (stale.status_code, stale.headers["content-type"]) == (409, PROBLEM)
    assert "has changed since you looked: now 6 of 10" in stale.json()["detail"]
    assert confirm(url, body | {"scope": "folders/9"}).status_code == 404
    assert confirm(url, body | {"more": 1}).status_code == 422
    assert confirm(url, body | {"scope": "a\0b"}).status_code == 422
    assert existing(sqlite_store) == 10
    assert actions(url) == [("api:ada", "refused")] * 2


def test_what_is_refused_fills_no_store(sqlite_store: Store, serve: Serve) -> None:
    url = serve(sqlite_store)
    with httpx.Client() as client:
        for _ in range(audit.REFUSALS_PER_HOUR + 5):
            assert client.post(f"{url}/api/v1/breakers/confirm", json={}).status_code == 401
    with sqlite_store.read() as connection:
        assert len(audit.recent(connection, limit=1000)) == audit.REFUSALS_PER_HOUR


def test_a_large_loss_is_answered_early_and_the_rest_is_left_to_the_next_sync(
    sqlite_store: Store, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lz_sync_dagster.portal.operations_api.AT_ONCE", 2)
    monkeypatch.setattr(reads, "_CHUNK", 2)
    lose(sqlite_store)
    url = serve(sqlite_store)
    answer = confirm(url, wanted(url)).json()
    assert (answer["deleted"], answer["remaining"]) == (2, 4)
    assert reads.apply_confirmed(sqlite_store, PART, clock=lambda: NOW) == 4
    with sqlite_store.read() as connection:
        assert breakers.state(connection, PART) is None


def test_the_audit_log_is_paged(sqlite_store: Store, serve: Serve) -> None:
    with sqlite_store.write() as connection:
        for number in range(5):
            audit.record(connection, actor=f"cli:{number}", action="a", target="t", details={}, now=NOW)
    url = serve(sqlite_store)
    first = httpx.get(f"{url}/api/v1/audit", params={"limit": 3}).json()
    rest = httpx.get(f"{url}/api/v1/audit", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [line["actor"] for line in first["items"] + rest["items"]] == [f"cli:{number}" for number in (4, 3, 2, 1, 0)]
    assert rest["next_cursor"] is None
    assert httpx.get(f"{url}/api/v1/audit", params={"action": "refused"}).json()["items"] == []
    assert httpx.get(f"{url}/api/v1/audit", params={"action": "b"}).status_code == 422


def test_alerts_are_told_until_they_end(sqlite_store: Store, serve: Serve) -> None:
    with sqlite_store.write() as connection:
        for subject in ("one", "other"):
            alerts.raise_alert(connection, "MassDeletion", subject, severity="high", message="look", now=NOW)
        alerts.resolve_alert(connection, "MassDeletion", "one", now=NOW)
    url = serve(sqlite_store)
    answer = httpx.get(f"{url}/api/v1/alerts").json()
    told = {"name": "MassDeletion", "subject": "other", "severity": "high", "message": "look"}
    assert answer["items"] == [{**told, "opened_at": "2026-03-01T12:00:00Z"}]
    assert 'lz_sync_alerts_open{name="MassDeletion"} 1.0' in httpx.get(f"{url}/metrics").text


def test_a_parameter_that_a_path_does_not_have_is_refused(sqlite_store: Store, serve: Serve) -> None:
    """An answer that ignores it would look like one that heeds it."""
    url = serve(sqlite_store)
    for path, known in (
        ("resources", "type"),
        ("coverage/history", "content_type"),
        ("feed-freshness", "hours"),
        ("alerts", None),
    ):
        answer = httpx.get(f"{url}/api/v1/{path}", params={"typ": "x"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.typ")
        assert (known or "there are none") in answer.json()["detail"]
    assert httpx.get(f"{url}/api/v1/resources", params={"content_type": "BOGUS"}).status_code == 422
    assert httpx.get(f"{url}/api/v1/resources", params={"content_type": "IAM_POLICY"}).status_code == 200


def test_the_feeds_freshness_has_bounds_and_a_rate(store: Store, serve: Serve) -> None:
    published = NOW - timedelta(milliseconds=70)
    with store.write(exclusive=assets.LOCK) as connection:
        told = [Delivery(TYPE, to_ns(published) - 3 * 10**9, published)]
        feed_freshness.record_delivered(connection, told, committed_at=NOW)
    url = serve(store)
    answer = httpx.get(f"{url}/api/v1/feed-freshness", params={"type": TYPE}).json()
    [item] = answer["items"]
    assert (item["delivered"], item["missed"], item["missed_rate"]) == (1, 0, 0.0)
    assert item["source_delay"]["p95"] == {"more_than_seconds": 2.0, "at_most_seconds": 5.0}
    assert item["own_delay"]["p50"] == {"more_than_seconds": 0.05, "at_most_seconds": 0.1}
    assert httpx.get(f"{url}/api/v1/feed-freshness", params={"type": "a\0"}).json()["items"] == []
    assert httpx.get(f"{url}/api/v1/feed-freshness", params={"hours": 0}).status_code == 422
    metrics = httpx.get(f"{url}/metrics").text
    labels = f'asset_type="{TYPE}",of="source",quantile="0.95"'
    assert f"lz_sync_asset_feed_delay_seconds{{{labels}}} 5.0" in metrics
