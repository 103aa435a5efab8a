"""What an observation takes from an asset, in both spellings, and what it refuses."""

from __future__ import annotations

import pickle
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.state.observation import (
    ContentType,
    InvalidAsset,
    JsonData,
    Source,
    digest_of,
    observe,
    scope_of,
    whole_numbers,
)
from lz_sync_dagster.sync.timing import parse_ns

REST = {
    "name": "//compute.googleapis.com/projects/p/zones/z/instances/i",
    "assetType": "compute.googleapis.com/Instance",
    "updateTime": "2026-01-01T00:00:00.000000001Z",
    "ancestors": ["projects/1", "organizations/2"],
    "resource": {"location": "z", "data": {"id": "42", "status": "RUNNING"}},
}
EXPORT = {
    "name": REST["name"],
    "asset_type": REST["assetType"],
    "update_time": REST["updateTime"],
    "ancestors": REST["ancestors"],
    "resource": REST["resource"],
}


def seen(asset, **overrides):
    return observe(asset, **{"scope": "organizations/2", "observed_ns": 5, "source": Source.FEED} | overrides)


def test_both_spellings_are_one_observation() -> None:
    assert seen(REST) == seen(EXPORT)


def test_nanoseconds_are_kept() -> None:
    assert seen(REST).update_ns == parse_ns("2026-01-01T00:00:00Z") + 1


def test_the_order_of_keys_does_not_change_the_digest() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_whole_number_is_the_same_from_the_feed_and_from_a_snapshot() -> None:
    number = {**REST, "resource": {"data": {"n": 3}}}
    double = {**REST, "resource": {"data": {"n": 3.0}}}
    assert seen(whole_numbers(number)).digest == seen(whole_numbers(double)).digest


def test_a_policy_is_another_content() -> None:
    policy = {"name": "n", "assetType": "t", "iamPolicy": {"bindings": []}}
    assert seen(policy).content_type is ContentType.IAM_POLICY


def test_a_deletion_without_a_time_of_its_own_happened_when_it_was_observed() -> None:
    gone = seen({"name": "n", "assetType": "t"}, deleted=True, observed_ns=9)
    assert (gone.update_ns, gone.data) == (9, None)


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        ({"assetType": "t/T"}, "asset of type t/T: has no name"),
        ({"name": "n"}, "asset n: has no asset type"),
        ({"name": "n", "assetType": "t", "updateTime": "yesterday"}, "asset n: has an unreadable update time"),
    ],
)
def test_an_asset_that_cannot_be_used_is_refused_in_one_line(asset, message) -> None:
    with pytest.raises(InvalidAsset, match=message) as caught:
        seen(asset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ancestors", "scope"),
    [
        (["projects/1", "folders/2", "organizations/3"], "folders/2"),
        (["projects/9", "organizations/8"], "organizations/8"),
        ([], "unscoped"),
    ],
)
def test_the_nearest_configured_scope_owns_an_asset(ancestors, scope) -> None:
    assert scope_of(ancestors, ["organizations/3", "folders/2"]) == scope


# --- contents with their text -----------------------------------------------------------------------------------------

CONTENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ),
)  # fmt: skip


@given(CONTENTS)
def test_a_content_is_a_mapping_and_its_text_and_each_gives_the_other(data: dict[str, Any]) -> None:
    of_data = JsonData(data)
    of_text = JsonData(text=of_data.text)
    assert dict(of_data) == dict(of_text) == data
    assert of_data == of_text == data
    assert len(of_text) == len(data)
    assert of_text.text == of_data.text
    assert digest_of(of_data) == digest_of(of_text) == digest_of(data)
    travelled = pickle.loads(pickle.dumps(of_data))
    assert (travelled, travelled.text) == (of_data, of_data.text)


@given(CONTENTS, st.randoms())
def test_the_text_does_not_depend_on_the_order_of_the_fields(data: dict[str, Any], random: Random) -> None:
    items = list(data.items())
    random.shuffle(items)
    assert JsonData(dict(items)).text == JsonData(data).text


def test_a_content_of_nothing_is_refused() -> None:
    assert JsonData({}).text == "{}"
    with pytest.raises(ValueError, match="as data or as text"):
        JsonData()


def test_what_is_not_json_is_refused_when_its_text_is_asked_for() -> None:
    content = JsonData({"a": object()})
    assert list(content) == ["a"]
    with pytest.raises(TypeError):
        _ = content.text
