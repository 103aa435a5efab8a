"""Controls see a part of the data only, and remember what they said of it: nobody can tell from the verdicts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.compliance.controls import Control, Controls, load_controls, parse_controls
from lz_sync_dagster.sync.compliance.projection import Projection, projection_of
from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.state.redaction import REDACTED
from tests.unit.sync.compliance.test_controls import CASES

SHIPPED = load_controls()
EXAMPLES: dict[tuple[str, str], list[dict[str, Any]]] = {}
for _, asset_type, content_type, *examples in CASES:
    EXAMPLES.setdefault((asset_type, content_type), []).extend(examples)

TEXTS = st.sampled_from(
    ["", "x", REDACTED, "true", "TRUE", "on", "22", "20-25", "0.0.0.0/0", "allUsers", "roles/editor", "SYSTEM_MANAGED"]
)
SCALARS = st.none() | st.booleans() | st.integers(-3, 70_000) | st.floats(allow_nan=False) | TEXTS
NOISE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "value", "name", "role", "members", "enabled", "other"]), inner)
    ),
    max_leaves=6,
)


@st.composite
def contents(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """Data that a control is about, with some of it replaced, removed, or joined by something else."""
    kind = draw(st.sampled_from(sorted(EXAMPLES)))
    data: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(EXAMPLES[kind])))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = data
        for _ in range(draw(st.integers(0, 4))):
            below = place.values() if isinstance(place, dict) else place
            nested = [value for value in below if isinstance(value, dict | list) and value]
            if not nested:
                break
            place = draw(st.sampled_from(nested))
        if not place:
            continue
        at = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                place[at] = draw(NOISE)
            case "remove":
                del place[at]
            case "add" if isinstance(place, dict):
                place[draw(st.sampled_from(["name", "extra", "labels"]))] = draw(NOISE)
            case _:
                place.append(draw(NOISE))
    return (*kind, data)


def on_the_whole(control: Control, name: str, data: dict[str, Any]) -> Verdict | None:
    everything = replace(control, projection=Projection(whole=True), remembered={})
    return everything._judge(name, data, data)


def said(verdict: Verdict | None) -> object:
    """Why something is not decided may be put in other words."""
    if verdict is not None and verdict.outcome is Outcome.UNKNOWN:
        return replace(verdict, message="")
    return verdict


@given(st.lists(contents(), min_size=1, max_size=5))
def test_a_verdict_on_what_is_projected_and_remembered_is_the_verdict_on_the_whole(found: list[Any]) -> None:
    for number, (asset_type, content_type, data) in enumerate([*found, *found]):
        before = copy.deepcopy(data)
        for control in SHIPPED.about(asset_type, content_type):
            name = f"//n/{number}"
            assert said(control.evaluate(name, data)) == said(on_the_whole(control, name, data)), (control.id, data)
        assert data == before


def test_every_shipped_control_has_data_here() -> None:
    assert SHIPPED.kinds == EXAMPLES.keys()


def test_only_what_decides_is_handed_over() -> None:
    control = next(control for control in SHIPPED.all if control.id == "1.4")
    data = {"keyType": "USER_MANAGED", "name": "k" * 1_000, "validAfterTime": "2026-01-01T00:00:00Z"}
    assert control.projection.of(data) == {"keyType": "USER_MANAGED"}


@pytest.mark.parametrize(
    ("expression", "data", "handed_over"),
    [
        ("data.a.b == 1", {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1}}),
        ("has(data.a) && data.a.size() > 0", {"a": [1, 2], "b": 1}, {"a": [1, 2]}),
        ('data.a.exists(x, x.b == "data.d")', {"a": [{"b": 1, "c": 2}, 5], "d": 3}, {"a": [{"b": 1}, 5]}),
        ("data.a.exists(x, x == 1)", {"a": [1], "b": 2}, {"a": [1]}),
        ("data.a.exists(x, has(x.b) && x.c.size() > 1)", {"a": [{"b": 1, "c": "y", "d": 1}]}, None),
        ('data["a"] == 1', {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ("size(data) > 1", {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ("data.a.b.startsWith('x')", {"a": {"b": "xy", "c": 1}}, {"a": {"b": "xy"}}),
    ],
)
def test_an_expression_gets_what_it_names(expression: str, data: dict[str, Any], handed_over: Any) -> None:
    read = projection_of(expression, ()).of(data)
    if handed_over is None:  # the fields of an item, or all of it: both are right
        assert {"b", "c"} <= read["a"][0].keys()
    else:
        assert read == handed_over


def test_of_a_path_that_only_has_to_be_there_only_that_is_handed_over() -> None:
    projection = projection_of("true", [("a", "b")])
    assert projection.of({"a": {"b": {"large": "x" * 99}, "c": 1}}) == {"a": {"b": True}}
    assert projection.of({"a": {"b": None}}) == {"a": {"b": None}}
    assert projection.of({"a": {"b": REDACTED}}) == {"a": {"b": REDACTED}}
    assert projection.of({"a": "text"}) == {"a": "text"}, "another shape is for the expression to refuse"


def test_a_failure_is_told_by_name_also_when_it_is_remembered() -> None:
    policy = """
framework: house
source: gate
controls:
  - id: "1.1"
    title: t
    severity: low
    asset_types: [t/T]
    needs: [open]
    passes: data.open == false
    message: "{name} of {data[owner]} is open"
"""
    controls: Controls = parse_controls({"house.yaml": policy})
    messages = [
        controls.evaluate("t/T", "RESOURCE", name, {"open": True, "owner": owner})[0].message
        for name, owner in [("//n/a", "ann"), ("//n/b", "bob")]
    ]
    assert messages == ["//n/a of ann is open", "//n/b of bob is open"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lz_sync_dagster.sync.compliance.controls._REMEMBERED", 3)
    control = next(control for control in load_controls().all if control.id == "1.4")
    for number in range(20):
        control.evaluate("//n/k", {"keyType": f"KIND_{number}"})
        assert len(control.remembered) <= 3
