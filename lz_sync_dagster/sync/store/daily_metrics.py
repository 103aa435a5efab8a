"""The published mart of daily figures, as pages read it. Publishing it belongs to ``sync/analytics``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import daily_metrics


@dataclass(frozen=True, slots=True)
class DailyMetric:
    """Figures of one (date, source, currency). ``None``: not known. ``total_cost`` is in ``currency``,
    ``avg_compliance`` 0 to 1.
    """

    date: date
    source: str
    currency: str
    total_resources: int | None
    resources_with_violations: int | None
    total_cost: float | None
    avg_compliance: float | None
    coverage: str
    resource_coverage: str
    cost_coverage: str
    as_of: datetime


def newest_coverages(connection: sa.Connection) -> tuple[str | None, str | None]:
    """Coverage of the newest resource figures and of the newest costs; ``None`` where nothing was published."""

    def newest(word: sa.Column[str], figure: sa.Column[Any]) -> str | None:
        query = sa.select(word).where(figure.is_not(None)).order_by(daily_metrics.c.date.desc()).limit(1)
        found: str | None = connection.scalar(query)
        return found

    return (
        newest(daily_metrics.c.resource_coverage, daily_metrics.c.total_resources),
        newest(daily_metrics.c.cost_coverage, daily_metrics.c.total_cost),
    )


def latest(connection: sa.Connection, *, days: int) -> list[DailyMetric]:
    """The figures of the newest ``days`` dates that were published, oldest first."""
    dates = sa.select(daily_metrics.c.date).distinct().order_by(daily_metrics.c.date.desc()).limit(days).subquery()
    query = (
        sa.select(daily_metrics)
        .where(daily_metrics.c.date.in_(sa.select(dates.c.date)))
        .order_by(daily_metrics.c.date, daily_metrics.c.source, daily_metrics.c.currency)
    )
    return [
        DailyMetric(
            date=row.date,
            source=row.source,
            currency=row.currency,
            total_resources=row.total_resources,
            resources_with_violations=row.resources_with_violations,
            total_cost=None if row.total_cost is None else float(row.total_cost),
            avg_compliance=row.avg_compliance,
            coverage=row.coverage,
            resource_coverage=row.resource_coverage,
            cost_coverage=row.cost_coverage,
            as_of=row.as_of,
        )
        for row in connection.execute(query)
    ]


def publish(connection: sa.Connection, rows: Sequence[DailyMetric]) -> int:
    """Make the published rows of the days in ``rows`` equal to ``rows``, under whatever source they were published
    before; other days stay. Returns how many rows were added, changed or removed. Costs are kept to a millionth of the
    currency's unit.
    """
    wanted = {(row.date, row.source, row.currency): _values(row) for row in rows}
    days = {day for day, _, _ in wanted}
    known = {
        (row.date, row.source, row.currency): {name: getattr(row, name) for name in _FIGURES}
        for row in connection.execute(sa.select(daily_metrics))
    }
    added = [key for key in wanted if key not in known]
    changed = [key for key in wanted if key in known and wanted[key] != known[key]]
    removed = [key for key in known if key[0] in days and key not in wanted]
    for key in removed:
        connection.execute(daily_metrics.delete().where(_is(key)))
    for key in changed:
        connection.execute(daily_metrics.update().where(_is(key)).values(wanted[key]))
    if added:
        connection.execute(
            daily_metrics.insert(),
            [{"date": key[0], "source": key[1], "currency": key[2], **wanted[key]} for key in added],
        )
    return len(added) + len(changed) + len(removed)


_FIGURES = tuple(column.name for column in daily_metrics.c if not column.primary_key)


def _values(row: DailyMetric) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(row, name) for name in _FIGURES}
    if row.total_cost is not None:
        values["total_cost"] = Decimal(f"{row.total_cost:.6f}")
    return values


def _is(key: tuple[date, str, str]) -> sa.ColumnElement[bool]:
    day, source, currency = key
    return sa.and_(daily_metrics.c.date == day, daily_metrics.c.source == source, daily_metrics.c.currency == currency)
