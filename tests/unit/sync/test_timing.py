"""Instants keep their nanoseconds and refuse to be naive."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.timing import format_ns, from_ns, parse_ns, to_ns


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_text_keeps_every_nanosecond(ns: int) -> None:
    assert parse_ns(format_ns(ns)) == ns


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))
def test_datetimes_survive(instant: datetime) -> None:
    assert from_ns(to_ns(instant)) == instant


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01T00:00:00", "now", ""])
def test_a_text_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_ns(text)


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        to_ns(datetime(2026, 1, 1))


def test_offsets_are_understood() -> None:
    assert parse_ns("2026-01-01T01:00:00+01:00") == parse_ns("2026-01-01T00:00:00Z")
