"""What a feed message means."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

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
        ({"asset": asset(updateTime="yesterday")}, "yesterday"),
        ({"asset": asset(updateTime=12), "window": {"startTime": AT}}, "unreadable update time"),
        ({"asset": asset(), "window": {"startTime": 12}}, "unreadable window"),
        ({"asset": asset(updateTime=None)}, "neither a window nor an update time"),
        ({"asset": asset(), "deleted": "yes"}, "'yes' for 'deleted'"),
        ({"asset": asset(), "window": []}, "its window is not an object"),
    ],
)
def test_anything_else_is_bad_and_says_why(document: Any, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        parse(document)
    assert reason in caught.value.line


def test_what_is_kept_of_a_message_has_no_secrets() -> None:
    items = [{"key": "startup-script", "value": "export PW=hunter2secret"}]
    data = orjson.dumps({"asset": {"resource": {"data": {"metadata": {"items": items}}}}})
    assert "hunter2secret" not in printable(data)
    assert "startup-script" in printable(data)
