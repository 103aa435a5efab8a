"""The API of the inventory: both engines give one answer to every question, and an answer says what it is worth."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from lz_sync_dagster.config import load_settings
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.sync.store import Store, schema
from lz_sync_dagster.sync.store.resource_views import Sort
from lz_sync_dagster.sync.timing import format_ns, from_ns, to_ns
from tests.conftest import NOW
from tests.unit.sync.store import inventory_rows
from tests.unit.sync.store.inventory_rows import END, HOUR, SCOPES, START, TEXTS, TYPES, Inventory

THEN = format_ns(START + 20 * HOUR)


@contextmanager
def serving(store: Store, folder: Path) -> Iterator[TestClient]:
    settings = load_settings(environ={"LZ_SYNC_DATA_DIR": str(folder)})
    app = create_app(settings, store, clock=lambda: NOW, pages=False)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def fill(store: Store) -> Inventory:
    inventory = inventory_rows.make(3)
    inventory_rows.insert(store, inventory)
    ledger, spans = [], []
    for scope in SCOPES:
        for place, asset_type in enumerate(TYPES):
            for content_type in ("RESOURCE", "IAM_POLICY"):
                part = {"scope": scope, "asset_type": asset_type, "content_type": content_type}
                since = NOW - timedelta(hours=10 * place)
                ledger.append(
                    {
                        **part,
                        "status": "complete",
                        "since": since,
                        "checked_at": NOW,
                        "complete_read_ns": END,
                        "assets": 1,
                    }
                )
                spans.append({**part, "status": "complete", "since": since, "complete_read_ns": END})
    field = {"content_type": "RESOURCE", "kinds": ["string"], "example": "//x", "first_seen": NOW}
    fields = [
        {
            **field,
            "asset_type": asset_type,
            "path": path,
            "drift": "new_field",
            "drifted_at": NOW - timedelta(hours=n % 2),
        }
        for asset_type in TYPES
        for n, path in enumerate(("a", "B", "labels.*"))
    ]
    with store.write() as connection:
        connection.execute(schema.coverage.insert(), ledger)
        connection.execute(schema.coverage_history.insert(), spans)
        connection.execute(schema.data_fields.insert(), fields)
    return inventory


@pytest.fixture
def inventory(store: Store) -> Inventory:
    return fill(store)


@pytest.fixture
def client(store: Store, inventory: Inventory, tmp_path: Path) -> Iterator[TestClient]:
    with serving(store, tmp_path) as client:
        yield client


def get(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def questions(inventory: Inventory) -> list[str]:
    """Every route, with every parameter."""
    name = next(row.name for row in inventory.rows if row.version > 2)
    texts = [f"resources?q={quote(text)}" for text in TEXTS]
    sorts = [f"resources?sort={sign}{sort}&as_of={THEN}" for sort in Sort for sign in ("", "-")]
    filters = [
        f"type={TYPES[0]}&type={TYPES[2]}", "project=a_proj", "scope=folders/1", "location=us%25east",
        "violations=true", "violations=false", "deleted=true", f"since={THEN}", "content_type=IAM_POLICY",
        f"as_of={THEN}&deleted=true",
    ]  # fmt: skip
    return [
        *texts,
        *sorts,
        *(f"resources?sort={sign}{sort}" for sort in Sort for sign in ("", "-")),
        *(f"resources?{one}" for one in filters),
        *(f"resources/facets?by={by}&{one}" for by in ("asset_type", "project", "location") for one in ("", *filters)),
        f"resources/diff?from={THEN}",
        f"resources/diff?from={THEN}&to={format_ns(START + 40 * HOUR)}&type={TYPES[0]}",
        f"resource?name={quote(name)}",
        f"resource?name={quote(name)}&as_of={THEN}",
        f"resource/history?name={quote(name)}",
        "resources/export?format=jsonl&data=true",
        f"resources/export?format=csv&as_of={THEN}",
        "coverage/matrix",
        "coverage/history",
        "schema-drift",
        "sync/infrastructure-state",
    ]


def test_both_engines_give_the_same_answers(
    sqlite_store: Store, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Store = request.getfixturevalue("postgres_store")
    with server.write() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table.name != "counters":
                connection.execute(table.delete())
    inventory = fill(sqlite_store)
    fill(server)
    with serving(sqlite_store, tmp_path) as one, serving(server, tmp_path) as other:
        for question in questions(inventory):
            first, second = one.get(f"/api/v1/{question}"), other.get(f"/api/v1/{question}")
            assert (first.status_code, second.status_code) in ((200, 200), (404, 404)), question
            if "export" in question:
                assert first.content == second.content, question
            else:
                assert first.json() == second.json(), question


def test_pages_of_the_api_are_the_list(client: TestClient, inventory: Inventory) -> None:
    for sort in ("name", "-updated", "location", "-violations"):
        names: list[str] = []
        query: dict[str, Any] = {"sort": sort, "limit": 7}
        while True:
            page = get(client, "resources", **query)
            names += [item["name"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        whole = get(client, "resources", sort=sort, limit=1000)
        assert names == [item["name"] for item in whole["items"]]


def test_a_cursor_belongs_to_its_list_and_its_question(client: TestClient) -> None:
    cursor = get(client, "resources", limit=1)["next_cursor"]
    assert client.get("/api/v1/resources", params={"cursor": cursor, "limit": 9}).status_code == 200
    for path, query in (
        ("resources", {"sort": "-name"}),
        ("resources", {"q": "a"}),
        ("resources/diff", {"from": THEN}),
        ("coverage/matrix", {}),
        ("violations", {}),
    ):
        refused = client.get(f"/api/v1/{path}", params={**query, "cursor": cursor})
        assert refused.status_code == 422, path
        assert refused.json()["errors"][0]["field"] == "query.cursor"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("resources?as_of=2036-01-01T00:00:00Z", "query.as_of"),
        ("resources?as_of=yesterday", "query.as_of"),
        ("resources?as_of=1900-01-01T00:00:00Z", "query.as_of"),
        ("resources?since=x", "query.since"),
        ("resources?sort=size", "query.sort"),
        ("resources?q=%00", "query.q"),
        ("resources?cursor=!!", "query.cursor"),
        ("resources/diff", "query.from"),
        (f"resources/diff?from={THEN}&to={format_ns(START)}", "query.from"),
        ("resources/facets?by=scope", "query.by"),
        ("resources/export?format=xlsx", "query.format"),
    ],
)
def test_a_parameter_that_is_not_valid_is_named(client: TestClient, path: str, field: str) -> None:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json()["errors"]]


def test_an_answer_speaks_of_the_parts_that_were_asked_for(client: TestClient) -> None:
    whole, one = get(client, "resources"), get(client, "resources", type=TYPES[0], scope=SCOPES[0])
    assert (whole["coverage"]["complete"], one["coverage"]["complete"]) == (6, 1)
    assert one["source"] == "cloud_asset_inventory"


def test_a_part_that_was_not_read_by_an_instant_is_unknown_then(client: TestClient) -> None:
    early = get(client, "resources", as_of=format_ns(END - 5 * HOUR))["coverage"]
    assert (early["status"], early["complete"], early["unknown"]) == ("partial", 4, 2)
    assert {gap["asset_type"] for gap in early["gaps"]} == {TYPES[0]}
    before = get(client, "resources", as_of=THEN)["coverage"]
    assert (before["status"], before["gaps"][0]["reason"]) == ("unknown", "not_read_yet")


def test_a_name_is_taken_in_every_form(client: TestClient, inventory: Inventory) -> None:
    name = next(row.name for row in inventory.at(None) if "al_pha" in row.name)
    whole = get(client, "resource", name=name)
    assert whole["resource"]["name"] == name
    for form in (quote(name, safe=""), name, name[1:], name[2:]):
        assert client.get(f"/api/v1/resources/{form}").json() == whole
    assert client.get("/api/v1/resource", params={"name": "//nothing"}).status_code == 404
    assert client.get("/api/v1/resources/nothing%00").status_code == 404
    long_ago = client.get("/api/v1/resource", params={"name": name, "as_of": "2020-01-01T00:00:00Z"})
    assert (long_ago.status_code, "at this instant" in long_ago.json()["detail"]) == (404, True)


def test_an_export_says_what_it_is_and_where_it_ends(client: TestClient, inventory: Inventory) -> None:
    names = inventory.listed(inventory_rows.ResourceFilter(), Sort.NAME, False, None)
    answer = client.get("/api/v1/resources/export", params={"format": "jsonl", "data": True})
    head, *rows, last = [orjson.loads(line) for line in answer.content.splitlines()]
    assert [row["name"] for row in rows] == names
    assert (head["coverage"]["complete"], last) == (6, {"complete": True, "rows": len(names)})
    assert rows[0]["data"] is not None
    assert orjson.loads(answer.headers["x-coverage"])["status"] == "complete"

    answer = client.get("/api/v1/resources/export", params={"format": "parquet", "as_of": THEN})
    table = pq.read_table(io.BytesIO(answer.content))
    assert table["name"].to_pylist() == inventory.listed(
        inventory_rows.ResourceFilter(), Sort.NAME, False, START + 20 * HOUR
    )
    assert table.schema.metadata[b"as_of"].decode() == THEN == answer.headers["x-as-of"]
    assert orjson.loads(table.schema.metadata[b"coverage"])["status"] == "unknown"


def test_a_spreadsheet_finds_no_formula_in_an_export(client: TestClient, store: Store) -> None:
    evil = '=HYPERLINK("https://evil.example")'
    with store.write() as connection:
        connection.execute(schema.resources.update().values(display_name=evil, project="-1+1"))
    text = client.get("/api/v1/resources/export", params={"format": "csv"}).text
    rows = list(csv.DictReader(line for line in io.StringIO(text, newline="") if not line.startswith("#")))
    assert {row["display_name"] for row in rows} == {f"'{evil}"}
    assert {row["project"] for row in rows} == {"'-1+1"}
    assert rows[0]["version"].isdigit()


def test_a_csv_says_what_it_is_worth_and_that_it_is_whole(client: TestClient, inventory: Inventory) -> None:
    asked = {"format": "csv", "as_of": THEN}
    lines = client.get("/api/v1/resources/export", params=asked).text.splitlines()
    told = dict(line.removeprefix("# ").split("=", 1) for line in lines[:4])
    assert list(told) == ["as_of", "source", "coverage", "query"]
    assert orjson.loads(told["as_of"]) == THEN
    assert orjson.loads(told["coverage"])["status"] == "unknown"
    assert lines[4].startswith("name,")
    assert lines[-1] == f"# complete rows={len(lines) - 6}"


def test_an_export_that_is_not_read_to_its_end_leaves_no_transaction(store: Store, inventory: Inventory) -> None:
    from lz_sync_dagster.portal import inventory_api
    from lz_sync_dagster.sync.inventory.exports import ExportFormat
    from lz_sync_dagster.sync.store.resource_views import ResourceFilter

    class Here:
        clock = staticmethod(lambda: NOW)
        settings = load_settings(environ={})

    Here.store = store  # type: ignore[attr-defined]
    answer = inventory_api.export(Here(), ResourceFilter(), ExportFormat.CSV)  # type: ignore[arg-type]
    pool: Any = store.engine.pool
    assert pool.checkedout() == 1
    del answer
    assert pool.checkedout() == 0


def test_the_matrix_counts_what_is_kept(client: TestClient, inventory: Inventory) -> None:
    matrix = get(client, "coverage/matrix")
    row = matrix["items"][0]
    kept = [
        item for item in inventory.at(None)
        if (item.scope, item.asset_type, item.content_type, item.deleted)
        == (row["scope"], row["asset_type"], row["content_type"], False)
    ]  # fmt: skip
    assert row["known"] == len(kept)
    assert row["age_seconds"] == pytest.approx((to_ns(NOW) - END) / 1e9)
    assert get(client, "coverage/matrix", status="partial")["items"] == []


def test_drifted_fields_are_paged_newest_first(client: TestClient) -> None:
    found, query = [], {"limit": 2}
    while True:
        page = get(client, "schema-drift", **query)
        found += [(item["drifted_at"], item["asset_type"], item["path"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert len(found) == len(set(found)) == 9
    assert [at for at, *_ in found] == sorted((at for at, *_ in found), reverse=True)


def test_a_difference_from_now_to_now_is_empty_and_pages_keep_their_now(client: TestClient) -> None:
    assert get(client, "resources/diff", **{"from": format_ns(to_ns(NOW))})["items"] == []
    page = get(client, "resources/diff", **{"from": format_ns(START - HOUR), "limit": 3})
    assert {item["change"] for item in page["items"]} == {"first_seen"}
    following = get(
        client, "resources/diff", **{"from": format_ns(START - HOUR), "limit": 3, "cursor": page["next_cursor"]}
    )
    assert following["to"] == page["to"] == format_ns(to_ns(NOW))
    assert from_ns(END) == NOW
