"""What a feed message means."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.events.message import BadMessage, Welcome, parse_message, printable
from lz_sync_dagster.sync.state.observation import ContentType, Observation, Source
from lz_sync_dagster.sync.timing import parse_ns

NAME = "//compute.googleapis.com/projects/p/global/firewalls/f"
ANCESTORS = ["projects/1", "folders/2", "organizations/3"]
AT = "2026-03-01T10:00:00.123456789Z"


def asset(**changes: Any) -> dict[str, Any]:
    return {
        "name": NAME,
        "assetType": "compute.googleapis.com/Firewall",
        "updateTime": AT,
        "ancestors": ANCESTORS,
        "resource": {"data": {"id": "7", "name": "f"}},
    } | changes


def parse(document: Any, scopes: tuple[str, ...] = ("organizations/3",)) -> Welcome | list[Observation]:
    data = document if isinstance(document, bytes) else orjson.dumps(document)
    return parse_message(data, {}, scopes=scopes)


def one(document: Any, **kwargs: Any) -> Observation:
    parsed = parse(document, **kwargs)
    assert isinstance(parsed, list)
    (observation,) = parsed
    return observation


def test_a_change_is_one_observation_of_the_feed() -> None:
    found = one({"asset": asset(), "window": {"startTime": AT}, "priorAssetState": "PRESENT"})
    assert (found.name, found.content_type, found.source) == (NAME, ContentType.RESOURCE, Source.FEED)
    assert (found.update_ns, found.observed_ns) == (parse_ns(AT), parse_ns(AT))
    assert (found.deleted, found.scope, found.resource_id) == (False, "organizations/3", "7")


def test_the_scope_is_the_nearest_that_is_configured() -> None:
    found = one({"asset": asset(), "window": {"startTime": AT}}, scopes=("organizations/3", "folders/2"))
    assert found.scope == "folders/2"


def test_a_deletion_without_update_time_is_as_new_as_its_window() -> None:
    gone = {"name": NAME, "assetType": "compute.googleapis.com/Firewall"}
    found = one({"asset": gone, "deleted": True, "window": {"startTime": AT}, "priorAsset": asset()})
    assert (found.deleted, found.data, found.update_ns) == (True, None, parse_ns(AT))
    assert found.ancestors == tuple(ANCESTORS)


def test_a_deletion_speaks_of_the_content_that_was_there_before() -> None:
    prior = {key: value for key, value in asset(iamPolicy={"bindings": []}).items() if key != "resource"}
    gone = {"name": NAME, "assetType": "compute.googleapis.com/Firewall"}
    found = one({"asset": gone, "deleted": True, "window": {"startTime": AT}, "priorAsset": prior})
    assert found.content_type is ContentType.IAM_POLICY


def test_a_removed_policy_is_a_deletion_even_if_nothing_says_deleted() -> None:
    bare = {key: value for key, value in asset().items() if key != "resource"}
    found = one({"asset": bare, "window": {"startTime": AT}, "priorAsset": bare | {"iamPolicy": {"bindings": []}}})
    assert (found.content_type, found.deleted) == (ContentType.IAM_POLICY, True)


def test_an_empty_policy_is_a_policy() -> None:
    bare = {key: value for key, value in asset().items() if key != "resource"}
    found = one({"asset": bare | {"iamPolicy": {}}, "window": {"startTime": AT}})
    assert (found.content_type, found.deleted, found.data) == (ContentType.IAM_POLICY, False, {})


def test_without_a_window_the_update_time_stands_in() -> None:
    assert one({"asset": asset()}).observed_ns == parse_ns(AT)


def test_snake_case_is_read_too() -> None:
    exported = {
        "name": NAME,
        "asset_type": "compute.googleapis.com/Firewall",
        "update_time": AT,
        "ancestors": ANCESTORS,
        "resource": {"data": {"id": "7"}},
    }
    assert one({"asset": exported, "window": {"start_time": AT}}).update_ns == parse_ns(AT)


@pytest.mark.parametrize(
    "text", [b"You have successfully configured a feed. Feed name: x", b'"You have successfully configured a feed"']
)
def test_the_first_message_of_a_feed_is_a_welcome(text: bytes) -> None:
    assert isinstance(parse(text), Welcome)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "is not JSON"),
        (b"hello", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"asset": ', "is not JSON"),
        ([], "is not a JSON object"),
        (7, "is not a JSON object"),
        ({}, "has no asset"),
        ({"asset": "text"}, "its asset is not an object"),
        ({"asset": {"assetType": "a/B", "resource": {"data": {}}}, "window": {"startTime": AT}}, "has no name"),
        ({"asset": asset(name="")}, "has no name"),
        ({"asset": asset(name=5)}, "has no name"),
        ({"asset": asset(assetType=None)}, "has no asset type"),
        ({"asset": asset(resource=None)}, "without content"),
        ({"asset": asset(resource=[])}, "its resource has the wrong shape"),
        ({"asset": asset(resource={})}, "its resource has the wrong shape"),
        ({"asset": asset(resource={"data": "x"})}, "its resource has the wrong shape"),
        ({"asset": asset(resource=None, iamPolicy=[])}, "its iamPolicy has the wrong shape"),
        ({"asset": asset(resource=None, orgPolicy={})}, "its orgPolicy has the wrong shape"),
        ({"asset": asset(ancestors="organizations/3")}, "ancestors that are not a list"),
        ({"asset": asset(updateTime="yesterday")}, "unreadable"),
        ({"asset": asset(updateTime=12), "window": {"startTime": AT}}, "unreadable update time"),
        ({"asset": asset(), "window": {"startTime": 12}}, "unreadable window"),
        ({"asset": asset(updateTime=None)}, "neither a window nor an update time"),
        ({"asset": asset(), "deleted": "yes"}, "has a 'deleted' that is neither true nor false"),
        ({"asset": asset(), "window": []}, "its window is not an object"),
    ],
)
def test_anything_else_is_bad_and_says_why(document: Any, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        parse(document)
    assert reason in caught.value.line


SECRET = "hunter2-correct-horse"
HIDING = {
    "asset": {
        "name": "//run/x",
        "assetType": "run.googleapis.com/Service",
        "resource": {"data": {"containers": [{"env": [{"name": "DB", "value": SECRET}]}]}},
    }
}
FULL = orjson.dumps(HIDING)


@pytest.mark.parametrize(
    "data",
    [
        FULL,
        orjson.dumps([HIDING]),
        orjson.dumps(FULL.decode()),
        FULL + b"\n" + FULL,
        *(FULL[:-cut] for cut in range(1, len(SECRET) + 20, 6)),
        FULL + b"trailing",
        b"\xff" + FULL[1:],
        f"password: {SECRET}".encode(),
    ],
)
def test_what_is_kept_of_a_message_has_no_secrets(data: bytes) -> None:
    assert SECRET[:7] not in printable(data)


def test_json_is_kept_with_its_structure() -> None:
    items = [{"key": "startup-script", "value": SECRET}]
    data = orjson.dumps({"asset": {"resource": {"data": {"metadata": {"items": items}}}}})
    assert SECRET not in printable(data)
    assert "startup-script" in printable(data)


def test_of_anything_else_its_length_its_hash_and_its_beginning_are_kept() -> None:
    data = b"something " * 1000
    kept = printable(data)
    assert kept.startswith(f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    assert kept.endswith("something " * 20)


@given(st.binary(max_size=60) | st.sampled_from([b"[" * 5000, b"[" * 900 + b"]" * 900, b"1e400", b"9" * 400, b"NaN"]))
def test_whatever_comes_can_be_printed(data: bytes) -> None:
    assert isinstance(printable(data), str)


@pytest.mark.parametrize("depth", [200, 500, 1000, 100_000])
def test_what_is_nested_too_deeply_is_a_bad_message(depth: int) -> None:
    nested = FULL.replace(b'"DB"', b"[" * depth + b"]" * depth)
    with pytest.raises(BadMessage):
        parse(nested)


@pytest.mark.parametrize(
    "document",
    [
        {"asset": asset(), "deleted": SECRET},
        {"asset": asset(), "window": {"startTime": SECRET}},
        {"asset": asset(updateTime=SECRET), "window": {"startTime": AT}},
        {"asset": asset(ancestors=SECRET)},
    ],
)
def test_a_reason_quotes_no_values(document: Any) -> None:
    with pytest.raises(BadMessage) as caught:
        parse(document)
    assert SECRET not in caught.value.line
