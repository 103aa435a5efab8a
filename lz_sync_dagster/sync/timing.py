"""Instants. Every instant in this project is timezone-aware UTC, or an integer of nanoseconds since the epoch."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

#: Returns the present instant, timezone-aware. Passed in wherever time matters.
Clock = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})$")


def utcnow() -> datetime:
    """The system clock as a `Clock`."""
    return datetime.now(UTC)


def to_ns(instant: datetime) -> int:
    """Nanoseconds since the epoch. Raises ``ValueError`` for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError(f"naive datetime {instant.isoformat()}: every instant needs a timezone")
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000


def from_ns(ns: int) -> datetime:
    """The instant of a nanosecond count, cut to microseconds (what `datetime` can hold)."""
    return _EPOCH + timedelta(microseconds=ns // 1_000)


def parse_ns(text: str) -> int:
    """Nanoseconds of an RFC 3339 timestamp, with up to nine fractional digits kept. Raises ``ValueError``."""
    match = _RFC3339.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 timestamp such as 2026-01-31T12:00:00Z")
    day, time, fraction, zone = match.groups()
    base = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    return to_ns(base) + int((fraction or "").ljust(9, "0"))


def format_ns(ns: int) -> str:
    """RFC 3339 text of a nanosecond count, with as many fractional digits as it needs (0, 3, 6 or 9)."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction:
        digits = f"{fraction:09d}"
        while digits.endswith("000"):
            digits = digits[:-3]
        text += "." + digits
    return text + "Z"
