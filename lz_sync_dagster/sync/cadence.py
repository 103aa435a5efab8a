"""When a layer is due. Cron cannot say "every 7 minutes" or "every 9 hours"; a tick on cron and a rule can.

A cadence counts from an origin, so that runs fall on round instants (00:00, 06:00 …) and every process agrees on the
next one.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId

#: Daily marts are built at 01:00 UTC, weekly ones on Mondays (section 2 of the architecture document).
_DAILY_ORIGIN = datetime(1970, 1, 5, 1, 0, tzinfo=UTC)
_ORIGIN = datetime(1970, 1, 5, tzinfo=UTC)
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_WORDS = {
    timedelta(minutes=5): "five_minutely",
    _HOUR: "hourly",
    timedelta(hours=6): "six_hourly",
    _DAY: "daily",
    timedelta(days=7): "weekly",
}


@dataclass(frozen=True, slots=True)
class Cadence:
    """Due every ``every`` since ``origin``. ``every`` is whole minutes, hours or days."""

    every: timedelta
    origin: datetime = _ORIGIN

    @property
    def word(self) -> str:
        """The cadence in a schedule's name: ``six_hourly``, ``90_minutely``."""
        if self.every in _WORDS:
            return _WORDS[self.every]
        if self.every % _HOUR:
            return f"{self.every // _MINUTE}_minutely"
        return f"{self.every // _HOUR}_hourly"

    @property
    def cron(self) -> str:
        """A cron expression in UTC whose ticks include every due instant: see `is_due`."""
        minute, hour = self.origin.minute, self.origin.hour
        if self.every % _HOUR:
            step = math.gcd(self.every // _MINUTE, 60)
            return f"*/{step} * * * *" if step > 1 else "* * * * *"
        if self.every % _DAY:
            step = math.gcd(self.every // _HOUR, 24)
            return f"{minute} */{step} * * *" if step > 1 else f"{minute} * * * *"
        if self.every == timedelta(days=7):
            return f"{minute} {hour} * * 1"
        return f"{minute} {hour} * * *"

    def is_due(self, tick: datetime) -> bool:
        """Whether a tick of `cron` is one of the due instants."""
        return (tick - self.origin) % self.every < _MINUTE

    def after(self, now: datetime) -> datetime:
        """The first due instant after ``now``."""
        return now + self.every - (now - self.origin) % self.every


def cadence_of(layer: LayerId, settings: Settings) -> Cadence | None:
    """The layer's cadence, or ``None`` if it waits for a call."""
    every = settings.cadence(layer)
    if every is None:
        return None
    return Cadence(every, _DAILY_ORIGIN if layer is LayerId.BIGQUERY else _ORIGIN)
