"""The benchmarks' harness: ratios against targets, and what the command prints."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from bench import __main__ as command
from bench.harness import BenchError, Measured, Options, Side, Target, alternate, lines, load_targets, missed, report

pytestmark = pytest.mark.usefixtures("kept_logs")
TARGETS = {
    "speed": Target(better="higher", target=10),
    "cost": Target(better="lower", target=2),
    "delivery_s": Target(better="lower", target=8, optional=True),
}


def fake(options: Options) -> Measured:
    options.say("halfway")
    assert not list(options.folder.iterdir())
    return Measured({"speed": 12.0, "cost": 3.0}, {"run_ms": 5.0})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setitem(command.BENCHMARKS, "fake", fake)
    monkeypatch.setattr(command, "load_targets", lambda: {"fake": TARGETS})
    return CliRunner()


@pytest.mark.parametrize(
    ("better", "value", "met"),
    [("higher", 10, True), ("higher", 9.99, False), ("lower", 10, True), ("lower", 10.01, False)],
)
def test_a_target_is_met_on_its_own_side(better: str, value: float, met: bool) -> None:
    assert Target.model_validate({"better": better, "target": 10}).met(value) is met


def test_ratios_and_figures_are_judged_by_their_targets() -> None:
    document = report("fake", Measured({"speed": 12.0, "cost": 3.0}, {"run_ms": 5.0, "delivery_s": 9.0}), TARGETS)

    assert document["name"] == "fake"
    assert document["ratios"] == {
        "speed": {"value": 12.0, "better": "higher", "target": 10, "ok": True},
        "cost": {"value": 3.0, "better": "lower", "target": 2, "ok": False},
    }
    assert document["figures"] == {
        "run_ms": 5.0,
        "delivery_s": {"value": 9.0, "better": "lower", "target": 8, "ok": False},
    }
    assert set(document["machine"]) == {"cores", "system", "python", "git"}
    assert missed(document) == ["cost", "delivery_s"]
    assert [line for line in lines(document) if "MISSED" in line and "cost" in line]


@pytest.mark.parametrize("ratios", [{"speed": 12.0}, {"speed": 12.0, "cost": 1.0, "new": 1.0}])
def test_a_ratio_without_a_target_or_a_target_without_a_ratio_is_an_error(ratios: dict[str, float]) -> None:
    with pytest.raises(BenchError, match=r"cost|new"):
        report("fake", Measured(ratios), TARGETS)


def test_a_quick_run_is_not_judged() -> None:
    document = report("fake", Measured({"speed": 1.0}), None)
    assert document["ratios"]["speed"]["ok"] is None
    assert missed(document) == []


def test_sides_alternate_and_only_the_work_is_timed() -> None:
    said: list[str] = []
    sides = {
        name: Side(
            lambda name=name: said.append(name),
            prepare=lambda: said.append("prepare"),
            check=lambda: said.append("check"),
        )
        for name in ("a", "b")
    }
    seconds = alternate(sides, rounds=4, before=lambda number: said.append(str(number)))

    rounds = "".join(word for word in said if word not in ("prepare", "check"))
    assert re.fullmatch("".join(f"{number}(ab|ba)" for number in range(4)), rounds)
    assert {"ab", "ba"} == set(re.findall("[ab]{2}", rounds))
    assert (said[1], said[3]) == ("prepare", "check")
    assert {name: len(runs) for name, runs in seconds.items()} == {"a": 4, "b": 4}


def test_every_benchmark_has_targets_and_no_target_is_left_over() -> None:
    assert load_targets().keys() == command.BENCHMARKS.keys()
    assert load_targets()["git"].keys() == {
        "noop_speedup_vs_clone_copy",
        "change_speedup_vs_clone_copy",
        "change_cost_vs_raw_git",
        "change_cost_30k_vs_3k_files",
        "delivery_to_commit_median_s",
    }


def test_json_is_one_document_and_a_missed_target_fails(run: CliRunner) -> None:
    result = run.invoke(command.app, ["fake", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ratios"]["cost"]["ok"] is False
    assert "halfway" in result.stderr


@pytest.mark.parametrize("option", ["--no-fail", "--quick"])
def test_a_missed_target_can_be_let_pass(run: CliRunner, option: str) -> None:
    assert run.invoke(command.app, ["fake", option]).exit_code == 0


def test_an_unknown_name_is_refused(run: CliRunner) -> None:
    result = run.invoke(command.app, ["nothing"])
    assert result.exit_code == 2
    assert "'nothing' is none of" in result.output
