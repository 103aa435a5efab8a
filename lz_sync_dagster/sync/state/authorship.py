"""Who changed a resource, where its own data says so. Pure.

Cloud Asset Inventory does not tell who made a change; few services write it into the resource. For all others it is not
known, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Fields with the identity that made the last change: Cloud Run (both of its APIs).
MODIFIER_FIELDS: tuple[tuple[str, ...], ...] = (
    ("lastModifier",),
    ("metadata", "annotations", "serving.knative.dev/lastModifier"),
    ("annotations", "serving.knative.dev/lastModifier"),
)
#: Fields with the identity that made the resource.
CREATOR_FIELDS: tuple[tuple[str, ...], ...] = (
    ("creator",),
    ("metadata", "annotations", "serving.knative.dev/creator"),
    ("annotations", "serving.knative.dev/creator"),
)
#: Fields with the instant at which a resource was made, RFC 3339.
CREATION_FIELDS = ("creationTimestamp", "createTime", "timeCreated", "creationTime")


def changed_by(data: Mapping[str, Any] | None, *, first: bool) -> str | None:
    """Who made this version; ``first``: it is the one that the resource was made with."""
    return _text_at(data, MODIFIER_FIELDS) or (_text_at(data, CREATOR_FIELDS) if first else None)


def created_at(data: Mapping[str, Any] | None) -> str | None:
    """The creation time that the data tells, as it is written there."""
    return _text_at(data, [(name,) for name in CREATION_FIELDS])


def _text_at(data: Mapping[str, Any] | None, paths: Sequence[tuple[str, ...]]) -> str | None:
    for path in paths:
        value: Any = data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value:
            return value
    return None
