"""The five layers: the one place where their names, order and freshness targets exist in code.

Everything that names a layer (configuration, API, Dagster groups, pages, marts) reads it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class LayerId(StrEnum):
    """A layer as the API, the store and the marts name it."""

    WEBHOOK = "webhook"
    GIT = "git"
    API = "api"
    PUBSUB = "pubsub"
    BIGQUERY = "bigquery"


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the five layers.

    Attributes:
        number: 1 to 5, the order of the architecture document.
        id: the word used in the API, the store and the marts.
        config_key: the key below ``sync_layers`` in ``sync_config.yaml``.
        group: the Dagster group, and the package below ``sync/`` and ``defs/``.
        command: the word that ``lz-sync sync`` takes.
        title: what a page shows.
        source: where the layer's data comes from.
        target: how old its data may be.
        stale_after: the age at which its last good copy counts as stale, although the last sync succeeded; ``None``
            for a layer that only moves when somebody calls.
    """

    number: int
    id: LayerId
    config_key: str
    group: str
    command: str
    title: str
    source: str
    target: timedelta
    stale_after: timedelta | None


LAYERS: tuple[Layer, ...] = (
    Layer(1, LayerId.WEBHOOK, "webhook", "webhook", "webhook", "Webhook trigger", "github", timedelta(minutes=5), None),
    Layer(2, LayerId.GIT, "git_sync", "git", "git", "Git sync", "git", timedelta(hours=6), timedelta(hours=12)),
    Layer(
        3,
        LayerId.API,
        "api_sync",
        "inventory",
        "inventory",
        "API sync",
        "cloud_asset_inventory",
        timedelta(minutes=5),
        timedelta(hours=1),
    ),
    Layer(
        4,
        LayerId.PUBSUB,
        "pubsub",
        "events",
        "events",
        "Real-time events",
        "pubsub_asset_feed",
        timedelta(seconds=2),
        timedelta(hours=1),
    ),
    Layer(
        5,
        LayerId.BIGQUERY,
        "bigquery",
        "analytics",
        "analytics",
        "Data pipeline",
        "warehouse",
        timedelta(days=1),
        timedelta(days=2),
    ),
)

_BY_ID = {layer.id: layer for layer in LAYERS}
_BY_GROUP = {layer.group: layer for layer in LAYERS}


def layer(layer_id: LayerId | str) -> Layer:
    """Return the layer with this id, e.g. ``layer("api")``. Raises ``KeyError`` for any other word."""
    return _BY_ID[LayerId(layer_id)]


def layer_of_group(group: str) -> Layer:
    """Return the layer of a Dagster group, e.g. ``layer_of_group("inventory")``."""
    return _BY_GROUP[group]
