"""The portal over real HTTP, WebSockets and server-sent events, served by uvicorn."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.layers import LAYERS, LayerId
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.server import PortalServer, bind, server_for
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import CoverageStatus, EventType
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, event_log, open_store
from lz_sync_dagster.sync.store import inbox as inbox_queries
from lz_sync_dagster.sync.store.coverage import CoverageMark, mark
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.schema import event_log as log_table
from lz_sync_dagster.sync.store.schema import findings, head_moves, inbox
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock, until

SECRET = "a secret of this test"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Served:
    """A portal that is being served."""

    url: str
    portal: Portal
    server: PortalServer

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, **options)

    @contextmanager
    def feed(self, after: int | str | None = None, **options: Any) -> Iterator[ClientConnection]:
        query = "" if after is None else f"?after={after}"
        with connect(f"{self.url.replace('http', 'ws', 1)}/api/v1/sync/events{query}", **options) as socket:
            yield socket


Serve = Callable[..., Served]


@contextmanager
def serving(settings: Settings, store: Store, **options: Any) -> Iterator[Served]:
    app = create_app(settings, store, clock=SteppedClock(), **options)
    with bind("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        server = server_for(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started, what="the server")
            yield Served(f"http://{host}:{port}", app.state.portal, server)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()


def make_settings(folder: Path) -> Settings:
    config = folder / "config.yaml"
    config.write_text("sync_layers: {webhook: {max_body_bytes: 4096}}\nlanding_zone: {name: example/landing-zone}\n")
    return load_settings(config, environ={"LZ_SYNC_WEBHOOK_SECRETS": SECRET})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves a store, without pages unless told; stops at the end of the test."""
    with ExitStack() as stack:
        yield lambda store, **options: stack.enter_context(
            serving(make_settings(tmp_path), store, **({"pages": False} | options))
        )


def append(store: Store, count: int = 1, *, size: int = 0) -> None:
    events = [
        NewEvent(EventType.RESOURCE_UPDATED, LayerId.PUBSUB, NOW, {"name": "//x/y"}, {"pad": "x" * size})
        for _ in range(count)
    ]
    with store.write() as connection:
        event_log.append(connection, events, recorded_at=NOW)


def sync(store: Store, layer: LayerId, outcome: LayerOutcome | SyncError) -> None:
    def work(_: Any) -> LayerOutcome:
        if isinstance(outcome, SyncError):
            raise outcome
        return outcome

    run_to_end(store, layer, work, triggered_by="test", clock=SteppedClock(), sleep=lambda _: None)


def events_of(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while len(frames) < count:
        frame = json.loads(socket.recv(timeout=10))
        if "layer" in frame:
            frames.append(frame)
    return frames


# --- the API ----------------------------------------------------------------------------------------------------------


def test_of_an_empty_store_everything_is_unknown(store: Store, serve: Serve) -> None:
    answer = serve(store).get("/api/v1/sync/status")
    assert answer.status_code == 200
    body = answer.json()
    assert [layer["layer"] for layer in body["layers"]] == [layer.id for layer in LAYERS]
    for layer in body["layers"]:
        assert (layer["status"], layer["last_sync"], layer["as_of"]) == ("unknown", None, None)
        assert layer["coverage"]["status"] == "unknown"
    assert body["coverage"]["status"] == "unknown"
    assert body["source"]
    assert body["as_of"]


def test_the_infrastructure_state_of_an_empty_store_claims_nothing(sqlite_store: Store, serve: Serve) -> None:
    body = serve(sqlite_store).get("/api/v1/sync/infrastructure-state").json()
    assert body["compliance_score"] is None
    assert body["as_of"] is None
    assert body["coverage"]["status"] == "unknown"
    assert body["sync_metadata"]["layer"] == "api"


def test_a_failed_sync_shows_its_remedy_and_counts_nothing(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store)
    sync(sqlite_store, LayerId.GIT, LayerOutcome(7, 2, NOW))
    denied = SyncError("cannot be read", where="git", remedy="give the token access", reason=Reason.PERMISSION_DENIED)
    with pytest.raises(SyncError):
        sync(sqlite_store, LayerId.GIT, denied)
    git = served.get("/api/v1/sync/status").json()["layers"][1]
    assert (git["status"], git["items_synced"]) == ("failed", 7)
    assert "give the token access" in git["errors"][0]
    newest, first = served.get("/api/v1/sync/runs").json()["items"]
    assert (newest["status"], newest["items_synced"], newest["items_changed"]) == ("failed", None, None)
    assert (first["status"], first["items_synced"], first["items_changed"]) == ("success", 7, 2)


def test_runs_are_paged_newest_first_and_by_layer(store: Store, serve: Serve) -> None:
    served = serve(store)
    for layer in (LayerId.GIT, LayerId.API, LayerId.GIT, LayerId.GIT, LayerId.BIGQUERY):
        sync(store, layer, LayerOutcome(1, 0, NOW))
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(3):
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = served.get("/api/v1/sync/runs", params=params).json()
        assert {"as_of", "source", "coverage"} <= set(page)
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 5
    git = served.get("/api/v1/sync/runs", params={"layer": "git"}).json()["items"]
    assert {run["layer"] for run in git} == {"git"}
    assert len(git) == 3


def test_violations_are_paged_and_carry_the_coverage(sqlite_store: Store, serve: Serve) -> None:
    row = {
        "framework": "cis-v1.2",
        "title": "No public IP addresses",
        "severity": "high",
        "source": "cis",
        "content_type": "RESOURCE",
        "asset_type": "compute.googleapis.com/Instance",
        "project": None,
        "message": "has one",
        "opened_at": NOW,
    }
    rows = [row | {"control": "4.9", "resource": f"//x/{number}"} for number in range(3)]
    with sqlite_store.write() as connection:
        connection.execute(findings.insert(), [*rows, row | {"control": "1.1", "resource": "//x/9", "severity": "low"}])
        connection.execute(findings.update().where(findings.c.resource == "//x/1").values(resolved_at=NOW))
        gap = ("folders/1", "compute.googleapis.com/Instance", "RESOURCE", CoverageStatus.UNKNOWN)
        mark(connection, [CoverageMark(*gap, Reason.PERMISSION_DENIED, "denied", "grant a role")], now=NOW)
    served = serve(sqlite_store)
    first = served.get("/api/v1/violations", params={"limit": "2"}).json()
    assert [item["resource"] for item in first["items"]] == ["//x/0", "//x/2"]
    second = served.get("/api/v1/violations", params={"limit": "2", "cursor": first["next_cursor"]}).json()
    assert [item["resource"] for item in second["items"]] == ["//x/9"]
    assert second["next_cursor"] is None
    assert second["coverage"]["gaps"][0]["remedy"] == "grant a role"
    high = served.get("/api/v1/violations", params={"severity": "high"}).json()
    assert len(high["items"]) == 2


def test_coverage_names_each_gap_with_its_remedy(sqlite_store: Store, serve: Serve) -> None:
    with sqlite_store.write() as connection:
        read = CoverageMark(
            "organizations/1", "t/A", "RESOURCE", CoverageStatus.COMPLETE, None, None, None, to_ns(NOW), 1
        )
        gap = CoverageMark(
            "folders/1", "t/A", "RESOURCE", CoverageStatus.PARTIAL, Reason.QUOTA, "429", "raise the quota"
        )
        mark(connection, [read, gap], now=NOW)
    body = serve(sqlite_store).get("/api/v1/coverage").json()
    assert (body["coverage"]["status"], body["coverage"]["complete"], body["coverage"]["partial"]) == ("partial", 1, 1)
    assert [gap["remedy"] for gap in body["coverage"]["gaps"]] == ["raise the quota"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("POST", "/api/v1/sync/status", 405),
        ("GET", "/webhooks/github", 405),
        ("GET", "/api/v1/sync/runs?limit=0", 422),
        ("GET", "/api/v1/sync/runs?limit=x", 422),
        ("GET", "/api/v1/sync/runs?cursor=%21", 422),
        ("GET", "/api/v1/sync/deliveries?cursor=%21", 422),
        ("GET", "/api/v1/sync/runs?cursor=LTU", 422),
        ("GET", "/api/v1/violations?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ", 422),
        ("GET", "/api/v1/violations?severity=bogus", 422),
        ("GET", "/api/v1/sync/runs?layer=inventory", 422),
        ("GET", "/api/v1/sync/infrastructure-state?limit=1001", 422),
        ("GET", "/api/v1/sync/events/stream?after=-1", 422),
    ],
)
def test_every_error_is_a_problem(shared: Served, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, shared.url + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["status"] == status
    assert answer.json()["detail"]
    if status == 405:
        assert answer.headers["allow"] in ("GET", "POST")


def test_every_answer_carries_security_headers(shared: Served) -> None:
    for path in ("/api/v1/sync/status", "/healthz", "/api/v1/nothing", "/"):
        headers = shared.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")


def test_openapi_describes_what_is_there(shared: Served) -> None:
    described = shared.get("/api/v1/openapi.json").json()
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path
    assert "/api/v1/sync/status" in described["paths"]
    assert "SyncStatus" in described["components"]["schemas"]
    assert "LZInfrastructureState" in described["components"]["schemas"]


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A portal with pages over an empty store, for tests that only read."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(sqlite_template, folder / "store.db")
    with (
        open_store(f"sqlite:///{folder / 'store.db'}", migrate=False) as store,
        serving(make_settings(folder), store) as served,
    ):
        yield served


@pytest.mark.parametrize("path", ["/", "/lz-sync"])
def test_a_page_runs_only_its_own_scripts(shared: Served, path: str) -> None:
    answer = shared.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert answer.text.count("<script") == answer.text.count(f'<script nonce="{nonce}"')
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert nonce not in shared.get(path).text


def test_a_page_of_an_empty_store_says_unknown(shared: Served) -> None:
    text = shared.get("/").text
    for layer in LAYERS:
        assert layer.title in text
    assert "unknown" in text
    assert "Success" not in text


# --- webhooks ---------------------------------------------------------------------------------------------------------


def delivery(number: int = 1) -> tuple[bytes, dict[str, str]]:
    payload = {
        "ref": "refs/heads/main",
        "after": f"{number:040x}",
        "repository": {"full_name": "example/landing-zone"},
        "sender": {"login": "someone"},
    }
    body = json.dumps(payload).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": f"delivery-{number}",
        "X-Hub-Signature-256": f"sha256={signature}",
        "Content-Type": "application/json",
    }


def test_a_signed_delivery_is_in_the_inbox_before_its_202(store: Store, serve: Serve) -> None:
    url = serve(store).url + "/webhooks/github"
    body, headers = delivery()
    assert httpx.post(url, content=body, headers=headers).status_code == 202
    with store.read() as connection:
        assert connection.execute(sa.select(inbox.c.delivery_id)).scalars().all() == ["delivery-1"]
    again = httpx.post(url, content=body, headers=headers)
    assert again.status_code == 202
    with store.read() as connection:
        assert len(connection.execute(sa.select(inbox)).all()) == 1


@pytest.mark.parametrize("signature", [None, "sha256=00", "sha256=ü", ""])
def test_an_unsigned_delivery_is_401(sqlite_store: Store, serve: Serve, signature: str | None) -> None:
    body, headers = delivery()
    del headers["X-Hub-Signature-256"]
    sent: list[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in headers.items()]
    if signature is not None:
        sent.append((b"X-Hub-Signature-256", signature.encode()))
    answer = httpx.post(serve(sqlite_store).url + "/webhooks/github", content=body, headers=sent)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == PROBLEM
    with sqlite_store.read() as connection:
        assert connection.execute(sa.select(inbox)).first() is None


def test_a_body_over_the_cap_is_413_whether_announced_or_streamed(sqlite_store: Store, serve: Serve) -> None:
    url = serve(sqlite_store).url + "/webhooks/github"
    _, headers = delivery()

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 1024

    for content in (b"x" * 4097, endless()):
        answer = httpx.post(url, content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == PROBLEM
        assert "4096 bytes" in answer.json()["detail"]


def test_a_flood_of_deliveries_is_answered_each_and_kept_once(store: Store, serve: Serve) -> None:
    """200 at once: fresh ones, redeliveries, replays under another id, wrong signatures, in any order."""
    url = serve(store).url + "/webhooks/github"
    fresh = [delivery(number) for number in range(100)]
    again = [delivery(number) for number in range(0, 100, 2)]
    replayed = [(body, headers | {"X-GitHub-Delivery": f"replay-{n}"}) for n, (body, headers) in enumerate(again[:25])]
    forged = [(body + b" ", headers) for body, headers in fresh[:25]]
    sent = [(*one, 202) for one in (*fresh, *again, *replayed)] + [(*one, 401) for one in forged]
    assert len(sent) == 200
    random.Random(7).shuffle(sent)
    with httpx.Client() as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: client.post(url, content=one[0], headers=one[1], timeout=60), sent))

    assert [answer.status_code for answer in answers] == [status for *_, status in sent]
    taken = [answer.json() for answer in answers if answer.status_code == 202]
    assert sum(not answer["duplicate"] for answer in taken) == 100
    with store.read() as connection:
        kept = connection.execute(sa.select(inbox.c.commit_claim, inbox.c.status)).all()
    assert sorted(kept) == [(f"{number:040x}", "pending") for number in range(100)]


def test_deliveries_are_listed_newest_first_with_what_became_of_them(store: Store, serve: Serve) -> None:
    served = serve(store)
    body, headers = delivery(1)
    httpx.post(served.url + "/webhooks/github", content=body, headers=headers)
    head = f"{1:040x}"
    with store.write() as connection:
        rows = inbox_queries.pending(connection)
        inbox_queries.finish(connection, rows, run_id="1", now=NOW, head=head)
        connection.execute(
            head_moves.insert().values(new_sha=head, kind="first", commits=1, triggered_by="t", seen_at=NOW)
        )
        missed = inbox_queries.insert_head(connection, "e" * 40, repository="x/y", ref="refs/heads/main", now=NOW)
    first = served.get("/api/v1/sync/deliveries", params={"limit": "1"}).json()
    (found,) = first["items"]
    assert (found["delivery_id"], found["event"], found["missed"]) == (missed, "head_poll", True)
    second = served.get("/api/v1/sync/deliveries", params={"cursor": first["next_cursor"]}).json()
    (item,) = second["items"]
    assert second["next_cursor"] is None
    assert (item["event"], item["actor"], item["status"], item["claim"]) == ("push", "someone", "done", "reached")
    assert (item["commit_claim"], item["resolved_sha"]) == (head, head)
    assert (item["touched"], item["touched_total"], item["missed"], item["late_seconds"]) == (None, None, False, None)
    text = served.get("/metrics").text
    assert 'lz_sync_deliveries{status="pending"} 1.0' in text
    assert 'lz_sync_deliveries{status="done"} 1.0' in text
    assert "lz_sync_deliveries_missed 1.0" in text


# --- the feed ---------------------------------------------------------------------------------------------------------


def test_the_feed_says_where_it_stands_then_what_happens(sqlite_store: Store, serve: Serve) -> None:
    append(sqlite_store, 3)
    with serve(sqlite_store).feed() as socket:
        hello = json.loads(socket.recv(timeout=10))
        assert (hello["event_type"], hello["seq"], hello["oldest"]) == ("hello", 3, 1)
        append(sqlite_store)
        frame = json.loads(socket.recv(timeout=10))
    assert set(frame) == {"seq", "event_type", "timestamp", "layer", "resource", "data"}
    assert (frame["seq"], frame["event_type"], frame["layer"]) == (4, "resource_updated", "pubsub")
    assert frame["timestamp"] == "2026-03-01T12:00:00Z"


def test_replay_and_live_join_without_a_gap_while_others_write(store: Store, serve: Serve) -> None:
    served = serve(store)
    writers, each = 4, 40
    total = writers * each
    received: dict[int, list[int]] = {}

    def listen(number: int, begin: int) -> None:
        with served.feed(begin) as socket:
            received[number] = [frame["seq"] for frame in events_of(socket, total - begin)]

    def reached(seq: int) -> bool:
        return _last(store) >= seq

    def write() -> None:
        for _ in range(each):
            append(store)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    listeners = []
    for number, begin in enumerate((0, 20, 60)):
        until(partial(reached, begin), what=f"event {begin}")
        listeners.append(threading.Thread(target=listen, args=(number, begin)))
        listeners[-1].start()
    for thread in threads + listeners:
        thread.join(timeout=30)
    assert received == {number: list(range(begin + 1, total + 1)) for number, begin in enumerate((0, 20, 60))}
    until(lambda: served.portal.feed.clients == 0, what="the clients to be forgotten")


def _last(store: Store) -> int:
    with store.read() as connection:
        return event_log.last_seq(connection)


@pytest.mark.parametrize("after", [1, 99])
def test_a_position_that_is_not_kept_resets_the_client(sqlite_store: Store, serve: Serve, after: int) -> None:
    append(sqlite_store, 6)
    with sqlite_store.write() as connection:
        connection.execute(log_table.delete().where(log_table.c.seq <= 3))
    with serve(sqlite_store).feed(after) as socket:
        hello, reset = (json.loads(socket.recv(timeout=10)) for _ in range(2))
        assert (hello["seq"], hello["oldest"]) == (6, 4)
        assert (reset["event_type"], reset["seq"], reset["oldest"]) == ("reset", 6, 4)
        append(sqlite_store)
        assert [frame["seq"] for frame in events_of(socket, 1)] == [7]


def read_on(socket: ClientConnection, seen: list[int]) -> None:
    while True:
        frame = json.loads(socket.recv(timeout=10))
        seen += [frame["seq"]] if "layer" in frame else []


def test_a_burst_larger_than_the_queue_reaches_a_client_that_keeps_taking(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store, max_pending=8)
    with served.feed(0) as socket:
        socket.recv(timeout=10)
        until(lambda: served.portal.feed.clients == 1, what="the client")
        append(sqlite_store, 1200)
        assert [frame["seq"] for frame in events_of(socket, 1200)] == list(range(1, 1201))
    assert served.portal.feed.slow_clients == 0


def test_a_slow_client_is_closed_with_4408_and_can_resume(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store, max_pending=8)
    seen: list[int] = []
    with served.feed(0, max_queue=1, max_size=None) as slow:

        def is_let_go() -> bool:
            append(sqlite_store, 20, size=200_000)
            return served.portal.feed.slow_clients == 1

        until(is_let_go, what="the slow client")
        with pytest.raises(ConnectionClosed) as closed:
            read_on(slow, seen)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4408
    last = _last(sqlite_store)
    assert len(seen) < last
    with served.feed(seen[-1], max_size=None) as resumed:
        missed = [frame["seq"] for frame in events_of(resumed, last - len(seen))]
    assert seen + missed == list(range(1, last + 1))


def test_a_page_of_another_host_cannot_listen(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store)
    with pytest.raises(InvalidStatus) as refused, served.feed(origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["content-type"] == PROBLEM


def test_a_position_that_is_no_number_is_refused_with_a_problem(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store)
    with pytest.raises(InvalidStatus) as refused, served.feed("x"):
        pass
    assert refused.value.response.status_code == 422
    assert refused.value.response.headers["content-type"] == PROBLEM


def stream(served: Served, **options: Any) -> AbstractContextManager[httpx.Response]:
    return httpx.stream("GET", f"{served.url}/api/v1/sync/events/stream", timeout=10, **options)


def sse(lines: Iterator[str], count: int) -> list[tuple[str | None, dict[str, Any]]]:
    frames: list[tuple[str | None, dict[str, Any]]] = []
    identity = None
    while len(frames) < count:
        line = next(lines)
        if line.startswith("id: "):
            identity = line[4:]
        elif line.startswith("data: "):
            frames.append((identity, json.loads(line[6:])))
            identity = None
    return frames


def test_server_sent_events_resume_after_the_last_id(store: Store, serve: Serve) -> None:
    served = serve(store)
    append(store, 2)
    with stream(served, params={"after": "0"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        frames = sse(lines, 3)
        assert [frame["event_type"] for _, frame in frames] == ["hello", "resource_updated", "resource_updated"]
        assert [identity for identity, _ in frames] == [None, "1", "2"]
    append(store, 2)
    with stream(served, headers={"Last-Event-ID": "2"}, params={"after": "0"}) as response:
        lines = response.iter_lines()
        assert [identity for identity, _ in sse(lines, 3)] == [None, "3", "4"]
        append(store)
        assert [identity for identity, _ in sse(lines, 1)] == ["5"]


def test_a_stopping_portal_lets_its_clients_go(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store)
    with served.feed() as socket, stream(served) as response:
        assert json.loads(socket.recv(timeout=10))["event_type"] == "hello"
        lines = response.iter_lines()
        assert sse(lines, 1)
        until(lambda: served.portal.feed.clients == 2, what="both clients")
        served.server.should_exit = True
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert "".join(lines) == ""


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_portal_with_its_store_is_ready(store: Store, serve: Serve) -> None:
    served = serve(store)
    assert served.get("/healthz").text == "ok"
    assert served.get("/readyz").status_code == 200


def test_a_portal_without_its_store_lives_but_is_not_ready(sqlite_template: Path, tmp_path: Path, serve: Serve) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "store.db")
    with open_store(f"sqlite:///{folder / 'store.db'}", migrate=False) as store:
        served = serve(store)
        assert served.get("/readyz").status_code == 200
        shutil.rmtree(folder)
        store.engine.dispose()
        assert served.get("/healthz").status_code == 200
        for path in ("/readyz", "/api/v1/sync/status", "/api/v1/coverage"):
            answer = served.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
            assert "check that the database runs" in answer.json()["detail"]
        assert "lz_sync_store_up 0.0" in served.get("/metrics").text


def test_a_store_without_its_schema_is_not_ready(tmp_path: Path, serve: Serve) -> None:
    with open_store(f"sqlite:///{tmp_path / 'empty.db'}", migrate=False) as store:
        answer = serve(store).get("/readyz")
    assert answer.status_code == 503
    assert "lz-sync db migrate" in answer.json()["detail"]


def test_metrics_leave_out_what_is_not_known(sqlite_store: Store, serve: Serve) -> None:
    served = serve(sqlite_store)
    sync(sqlite_store, LayerId.GIT, LayerOutcome(7, 2, NOW - timedelta(seconds=90)))
    with served.feed() as socket:
        socket.recv(timeout=10)
        until(lambda: served.portal.feed.clients == 1, what="the client")
        text = served.get("/metrics").text
    assert 'lz_sync_layer_status{layer="git",status="success"} 1.0' in text
    assert 'lz_sync_layer_status{layer="api",status="unknown"} 1.0' in text
    assert 'lz_sync_layer_data_age_seconds{layer="git"} 90.0' in text
    assert 'lz_sync_layer_data_age_seconds{layer="api"}' not in text
    assert "lz_sync_feed_clients 1.0" in text
    assert "lz_sync_store_up 1.0" in text
