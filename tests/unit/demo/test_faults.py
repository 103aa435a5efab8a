"""Faults are switched by name, and some are over after a few calls."""

from __future__ import annotations

import pytest

from demo.faults import CALLS, FAULTS, Faults, parse_faults
from lz_sync_dagster.sync.errors import SyncError


def test_nothing_is_on_at_first() -> None:
    faults = Faults()
    assert not any(faults.active(name) or faults.take(name) for name in FAULTS)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_can_be_switched_on_and_off(name: str) -> None:
    faults = parse_faults([name])
    assert faults.take(name)
    faults.off(name)
    assert not faults.active(name)


@pytest.mark.parametrize(("name", "calls"), sorted(CALLS.items()))
def test_some_faults_are_over_after_their_calls(name: str, calls: int) -> None:
    faults = parse_faults([name])
    assert [faults.take(name) for _ in range(calls + 2)] == [True] * calls + [False, False]


def test_an_unknown_name_gives_one_line_with_the_allowed_ones() -> None:
    with pytest.raises(SyncError) as caught:
        parse_faults(["asset_denied", "nonsense"])
    assert "\n" not in str(caught.value)
    assert "nonsense" in str(caught.value)
    assert all(name in str(caught.value) for name in FAULTS)
