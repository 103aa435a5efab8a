"""What a delivery is answered, and what of it is kept."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from lz_sync_dagster.config import WebhookConfig
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.inbox import ASK_AGAIN_AFTER, DeliveryStatus
from lz_sync_dagster.sync.store.schema import inbox as inbox_table
from lz_sync_dagster.sync.webhook import receiver
from lz_sync_dagster.sync.webhook.receiver import Answer, receive
from tests.conftest import NOW

SECRET = b"a shared secret"
REPOSITORY = "example/gcp-landing-zone"
PORTAL = "example/gcp-landing-zone-portal"
COMMIT = "a" * 40


def dispatch(**changes: Any) -> dict[str, Any]:
    return {
        "action": "lz-update",
        "client_payload": {"commit_sha": COMMIT, "trigger": "landing-zone-change", "note": "not to be kept"},
        "repository": {"full_name": PORTAL},
        "sender": {"login": "alice"},
    } | changes


def push(**changes: Any) -> dict[str, Any]:
    return {
        "ref": "refs/heads/main",
        "after": COMMIT,
        "repository": {"full_name": REPOSITORY},
        "sender": {"login": "alice"},
    } | changes


def merged(**changes: Any) -> dict[str, Any]:
    return {
        "action": "closed",
        "pull_request": {"merged": True, "base": {"ref": "main"}, "merge_commit_sha": COMMIT} | changes,
        "repository": {"full_name": REPOSITORY},
    }


def sign(body: bytes, secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def deliver(
    store: Store,
    payload: Any,
    *,
    event: str = "push",
    delivery: str = "d-1",
    signature: str | None = None,
    body: bytes | None = None,
    config: WebhookConfig | None = None,
    secrets: tuple[bytes, ...] = (SECRET,),
    headers: dict[str, str] | None = None,
    repository: str = REPOSITORY,
    now: datetime = NOW,
) -> Answer:
    body = json.dumps(payload).encode() if body is None else body
    sent = {
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": sign(body) if signature is None else signature,
    }
    return receive(
        headers if headers is not None else sent,
        body,
        config or WebhookConfig(events=["repository_dispatch", "push", "pull_request"]),
        secrets,
        repository,
        "main",
        store,
        now,
        portal_repository=PORTAL,
    )


def kept(store: Store) -> list[sa.Row[Any]]:
    with store.read() as connection:
        return list(connection.execute(sa.select(inbox_table).order_by(inbox_table.c.id)))


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("push", push()),
        ("push", push(repository={"full_name": "Example/GCP-Landing-Zone"})),
        ("repository_dispatch", dispatch()),
        ("repository_dispatch", dispatch(repository={"full_name": REPOSITORY})),
        ("pull_request", merged()),
    ],
)
def test_a_signed_delivery_is_accepted_and_pending(store: Store, event: str, payload: dict[str, Any]) -> None:
    answer = deliver(store, payload, event=event)

    assert (answer.status_code, answer.body["status"], answer.body["duplicate"]) == (202, "accepted", False)
    with store.read() as connection:
        (delivery,) = inbox.pending(connection)
    assert (delivery.delivery_id, delivery.event, delivery.commit_claim) == ("d-1", event, COMMIT)


def test_nothing_of_the_payload_is_kept_but_the_claims(store: Store) -> None:
    deliver(store, dispatch(), event="repository_dispatch")

    (row,) = kept(store)
    assert "not to be kept" not in str(row)
    assert (row.action, row.repository, row.actor) == ("lz-update", PORTAL, "alice")


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (413, {"body": b"x" * 2000, "config": WebhookConfig(max_body_bytes=1024), "signature": "wrong"}),
        (503, {"config": WebhookConfig(enabled=False), "signature": "wrong"}),
        (503, {"secrets": ()}),
        (503, {"repository": ""}),
        (401, {"signature": ""}),
        (401, {"signature": "sha256=" + "0" * 64}),
        (401, {"signature": "sha256=gr\u00fc\u00df"}),
        (401, {"signature": "sha256=\udce9"}),
        (401, {"signature": "sha1=" + "0" * 40}),
        (401, {"secrets": (b"another",)}),
        (400, {"body": b"payload=%7B%7D"}),
        (400, {"body": b"[1]"}),
        (400, {"body": b"[" * 100_000}),
        (400, {"delivery": ""}),
        (400, {"delivery": "x" * 129}),
        (400, {"event": ""}),
        (404, {"event": "issues"}),
    ],
)
def test_a_bad_delivery_is_refused_with_a_remedy_and_not_kept(
    sqlite_store: Store, status: int, changes: dict[str, Any]
) -> None:
    answer = deliver(sqlite_store, push(), **changes)

    assert answer.status_code == status
    assert answer.body["status"] == status
    assert len(answer.body["detail"]) > 20
    assert kept(sqlite_store) == []


@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [
        ("push", push(ref="refs/heads/feature"), "refs/heads/feature"),
        ("push", push(ref="refs/tags/main"), "refs/tags/main"),
        ("push", push(deleted=True), "deletes main"),
        ("push", push(repository={"full_name": "someone/else"}), "someone/else"),
        ("push", push(repository={"full_name": PORTAL}), PORTAL),
        ("push", {"ref": "refs/heads/main"}, "without a name"),
        ("repository_dispatch", dispatch(action="other"), "other"),
        ("repository_dispatch", dispatch(repository={"full_name": "someone/else"}), "someone/else"),
        ("pull_request", merged(merged=False), "merged into main"),
        ("pull_request", merged(base={"ref": "feature"}), "merged into main"),
    ],
)
def test_what_asks_for_nothing_is_ignored_with_the_reason(
    sqlite_store: Store, event: str, payload: dict[str, Any], reason: str
) -> None:
    answer = deliver(sqlite_store, payload, event=event)

    assert (answer.status_code, answer.body["status"]) == (202, "ignored")
    assert reason in answer.body["reason"]
    assert [row.status for row in kept(sqlite_store)] == ["ignored"]


def test_a_ping_is_answered_and_not_kept(sqlite_store: Store) -> None:
    assert deliver(sqlite_store, {"zen": "Design for failure."}, event="ping").status_code == 200
    assert deliver(sqlite_store, {"zen": "x"}, event="ping", signature="").status_code == 401
    assert kept(sqlite_store) == []


def test_any_of_several_secrets_may_have_signed(sqlite_store: Store) -> None:
    body = json.dumps(push()).encode()
    answer = deliver(sqlite_store, None, body=body, signature=sign(body, b"old"), secrets=(b"new", b"old"))

    assert answer.status_code == 202


def test_header_names_have_any_letter_case(sqlite_store: Store) -> None:
    body = json.dumps(push()).encode()
    headers = {"x-github-event": "push", "X-GITHUB-DELIVERY": "d", "x-hub-signature-256": sign(body)}

    assert deliver(sqlite_store, None, body=body, headers=headers).status_code == 202


def test_a_redelivery_is_a_duplicate(store: Store) -> None:
    deliver(store, push())
    again = deliver(store, push())

    assert (again.status_code, again.body["duplicate"]) == (202, True)
    assert len(kept(store)) == 1


def settle(store: Store, now: datetime = NOW) -> None:
    with store.write() as connection:
        inbox.finish(connection, inbox.pending(connection), run_id="1", now=now)


def test_an_event_whose_body_is_the_one_of_before_asks_again_once_some_time_has_passed(store: Store) -> None:
    soon, later = NOW + ASK_AGAIN_AFTER - timedelta(seconds=1), NOW + ASK_AGAIN_AFTER
    deliver(store, dispatch(), event="repository_dispatch", delivery="d-1")
    settle(store)
    replay = deliver(store, dispatch(), event="repository_dispatch", delivery="d-2", now=soon)
    assert replay.body["duplicate"] is True
    assert [row.status for row in kept(store)] == ["done"]

    answer = deliver(store, dispatch(), event="repository_dispatch", delivery="d-3", now=later)
    assert answer.body["duplicate"] is False
    (row,) = kept(store)
    assert (row.status, row.delivery_id, row.run_id, row.finished_at) == ("pending", "d-3", None, None)
    assert (row.received_at, row.asked_at) == (later, later)

    settle(store, later)
    replay = deliver(store, dispatch(), event="repository_dispatch", delivery="d-4", now=later + timedelta(minutes=1))
    assert replay.body["duplicate"] is True
    assert [row.status for row in kept(store)] == ["done"], "a replay starts no more than one run in a while"


def test_a_redelivery_of_what_is_done_is_a_duplicate(store: Store) -> None:
    deliver(store, push())
    deliver(store, dispatch(), event="repository_dispatch", delivery="d-2")
    settle(store)
    for delivery in ("d-1", "d-2"):
        again = deliver(store, push(), delivery=delivery, now=NOW + timedelta(days=1))
        assert again.body["duplicate"] is True
    assert {row.status for row in kept(store)} == {"done"}


def test_a_pending_delivery_that_is_sent_again_asks_again_and_a_run_under_way_does_not_settle_it(store: Store) -> None:
    deliver(store, push())
    with store.read() as connection:
        read_by_run = inbox.pending(connection)
    later = NOW + ASK_AGAIN_AFTER
    for now, asked_at in ((later - timedelta(seconds=1), NOW), (later, later)):
        assert deliver(store, push(), now=now).body["duplicate"] is True
        (row,) = kept(store)
        assert (row.status, row.received_at, row.asked_at) == ("pending", NOW, asked_at)

    with store.write() as connection:
        assert inbox.finish(connection, read_by_run, run_id="1", now=later) == 0
        assert inbox.finish(connection, inbox.pending(connection), run_id="2", now=later) == 1


def test_a_captured_body_under_another_delivery_id_is_a_duplicate_even_after_its_run(store: Store) -> None:
    deliver(store, push(), delivery="d-1")
    with store.write() as connection:
        inbox.finish(connection, inbox.pending(connection), run_id="1", now=NOW)
    replay = deliver(store, push(), delivery="d-2")

    assert replay.body["duplicate"] is True
    with store.read() as connection:
        assert inbox.pending(connection) == []


def test_an_ignored_delivery_that_is_sent_again_after_a_change_of_the_configuration_counts(store: Store) -> None:
    deliver(store, dispatch(), event="repository_dispatch", config=WebhookConfig(dispatch_types=["other"]))
    answer = deliver(store, dispatch(), event="repository_dispatch")

    assert answer.body == {"status": "accepted", "delivery": "d-1", "duplicate": False}
    assert [row.status for row in kept(store)] == [DeliveryStatus.PENDING]


def test_odd_characters_and_lengths_in_a_payload_do_no_harm(store: Store) -> None:
    odd = push(
        sender={"login": "a\u0000b\u202e" + "c" * 500}, after="$(reboot)", repository={"full_name": "x\u0000" * 400}
    )
    assert deliver(store, odd).status_code == 202

    (row,) = kept(store)
    assert row.commit_claim is None
    assert row.actor == ("ab" + "c" * 500)[:200]


# --- what a push touched ----------------------------------------------------------------------------------------------


def commit(number: int = 0, **lists: Any) -> dict[str, Any]:
    return {"id": f"{number:040x}", "added": [], "modified": [], "removed": []} | lists


def whole(*commits: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A push whose payload names all that it touched."""
    listed = [*commits[:-1], commits[-1] | {"id": COMMIT}] if commits else []
    return push(forced=False, created=False, deleted=False, commits=listed, **changes)


def filtered(*globs: str) -> WebhookConfig:
    return WebhookConfig.model_validate({"triggers": {"git_sync": list(globs)}})


def test_a_push_keeps_the_paths_of_all_its_commits(store: Store) -> None:
    deliver(store, whole(commit(1, added=["docs/a.md"], removed=["b"]), commit(2, modified=["docs/a.md", "ü/c.tf"])))
    (row,) = kept(store)
    assert row.touched == ["b", "docs/a.md", "ü/c.tf"]


@pytest.mark.parametrize(
    ("touched", "status"),
    [(["src/x.py"], "ignored"), (["src/x.py", "docs/a/b.md"], "accepted"), (["pmo.yaml"], "accepted")],
)
def test_a_push_that_touches_none_of_the_globs_is_ignored_and_names_the_setting(
    sqlite_store: Store, touched: list[str], status: str
) -> None:
    answer = deliver(sqlite_store, whole(commit(removed=touched)), config=filtered("docs/**", "pmo.yaml"))
    assert (answer.status_code, answer.body["status"]) == (202, status)
    (row,) = kept(sqlite_store)
    assert row.touched == sorted(touched)
    if status == "ignored":
        assert "sync_layers.webhook.triggers.git_sync" in answer.body["reason"]


OTHER = commit(modified=["src/x.py"])


@pytest.mark.parametrize(
    "payload",
    [
        push(),
        whole(),
        whole(OTHER) | {"forced": True},
        whole(OTHER) | {"created": True},
        {key: value for key, value in whole(OTHER).items() if key != "forced"},
        whole(OTHER, after="b" * 40),
        whole(commit(), OTHER),
        whole({"id": COMMIT, "added": ["src/x.py"]}),
        whole(OTHER | {"added": [7]}),
        whole(OTHER | {"added": ["x\u0000y"]}),
        whole(OTHER | {"added": ["x" * (receiver.MAX_PATH + 1)]}),
        push(forced=False, created=False, deleted=False, commits=["no commit"]),
        whole(*[OTHER] * receiver.MAX_COMMITS),
        whole(commit(added=["src/x.py"] * receiver.MAX_FILES)),
        whole(commit(1, added=[f"a/{n}" for n in range(1500)]), commit(2, added=[f"b/{n}" for n in range(1500)])),
    ],
)
def test_a_push_that_may_not_name_all_it_touched_counts_as_touching(store: Store, payload: dict[str, Any]) -> None:
    answer = deliver(store, payload, config=filtered("docs/**"))
    assert answer.body["status"] == "accepted"
    assert [row.touched for row in kept(store)] == [None]


def test_a_push_that_is_ignored_for_another_reason_keeps_no_paths(sqlite_store: Store) -> None:
    deliver(sqlite_store, whole(OTHER, ref="refs/heads/feature"), config=filtered("src/**"))
    assert [row.touched for row in kept(sqlite_store)] == [None]


def test_other_events_count_as_touching(sqlite_store: Store) -> None:
    for number, (event, payload) in enumerate([("repository_dispatch", dispatch()), ("pull_request", merged())]):
        answer = deliver(sqlite_store, payload, event=event, delivery=f"d-{number}", config=filtered("docs/**"))
        assert answer.body["status"] == "accepted"


def test_merged_pull_requests_are_taken_by_default(sqlite_store: Store) -> None:
    assert deliver(sqlite_store, merged(), event="pull_request", config=WebhookConfig()).status_code == 202
