"""The REST API of the asset feed's freshness: what it told, how late, and what it missed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import ERRORS, Answer, layer_status
from lz_sync_dagster.portal.context import InPortal
from lz_sync_dagster.sync.models import Coverage, CoverageStatus
from lz_sync_dagster.sync.store import feed_freshness
from lz_sync_dagster.sync.store.feed_freshness import Quantile, TypeFreshness


class Bounds(BaseModel):
    """Within which bounds a share of the messages came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    more_than_seconds: float
    at_most_seconds: float | None = Field(description="Null above an hour.")


class Delay(BaseModel):
    """Half and 95 % of the messages came within these bounds; null without messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: Bounds | None
    p95: Bounds | None


class Freshness(BaseModel):
    """What the feed did for one asset type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset_type: str
    delivered: int = Field(description="Messages that told something of the type.")
    missed: int = Field(description="Changes that a snapshot had to find, at least.")
    undecided: int = Field(
        description="Changes that a snapshot found within two minutes: nobody knows whether the feed told them."
    )
    missed_rate: float | None = Field(
        description="Share of the changes that the feed missed, at least; null if there were none."
    )
    missed_rate_at_most: float | None = Field(description="The same if it told nothing of what is undecided.")
    last_delivered: datetime | None = Field(description="The hour of the newest message; null without messages.")
    source_delay: Delay = Field(description="From the change to Pub/Sub.")
    own_delay: Delay = Field(description="From Pub/Sub to the commit.")


class FeedFreshnessAnswer(Answer):
    """Asset types that the feed told something of, or missed, through the window."""

    since: datetime
    items: list[Freshness]


router = APIRouter(prefix="/api/v1", responses=ERRORS)


@router.get("/feed-freshness", summary="What the asset feed told, how late, and what it missed", tags=["state"])
def freshness(
    portal: InPortal,
    hours: Annotated[int, Query(ge=1, le=168, description="The window, back from now.")] = 24,
    asset_type: Annotated[
        list[str] | None, Query(alias="type", description="Only these asset types.", max_length=100)
    ] = None,
) -> FeedFreshnessAnswer:
    """Counted by the hour. A type that is not listed was told nothing of: it has no feed, or nothing happened."""
    now = portal.clock()
    since = feed_freshness.hour_of(now - timedelta(hours=hours))
    wanted = None if asset_type is None else [name for name in asset_type if "\0" not in name]
    with portal.store.read() as connection:
        found = feed_freshness.over(connection, since=since, asset_types=wanted)
        layer = layer_status(connection, portal, LayerId.PUBSUB, now)
    return FeedFreshnessAnswer(
        as_of=layer.as_of,
        source=layer.source,
        coverage=layer.coverage if layer.as_of is not None else Coverage(status=CoverageStatus.UNKNOWN, unknown=1),
        since=since,
        items=[_item(kind) for kind in found],
    )


def _item(kind: TypeFreshness) -> Freshness:
    return Freshness(
        asset_type=kind.asset_type,
        delivered=kind.delivered,
        missed=kind.missed,
        undecided=kind.undecided,
        missed_rate=kind.missed_rate,
        missed_rate_at_most=kind.missed_rate_at_most,
        last_delivered=kind.last_delivered,
        source_delay=_delay(kind.source_delays),
        own_delay=_delay(kind.own_delays),
    )


def _delay(delays: Mapping[str, int]) -> Delay:
    return Delay(p50=_bounds(feed_freshness.quantile(delays, 0.5)), p95=_bounds(feed_freshness.quantile(delays, 0.95)))


def _bounds(found: Quantile | None) -> Bounds | None:
    if found is None:
        return None
    at_most = None if found.at_most_ms is None else found.at_most_ms / 1000
    return Bounds(more_than_seconds=found.more_than_ms / 1000, at_most_seconds=at_most)
