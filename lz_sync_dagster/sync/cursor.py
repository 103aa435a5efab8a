"""The cursor of a sensor: a versioned JSON object."""

from __future__ import annotations

from typing import Any

import orjson

_VERSION = "version"


def read_cursor(cursor: str | None, version: int) -> dict[str, Any]:
    """A cursor's content without its version; nothing for none, or for one of another version."""
    try:
        state = orjson.loads(cursor or "")
    except orjson.JSONDecodeError:
        return {}
    return state if isinstance(state, dict) and state.pop(_VERSION, None) == version else {}


def write_cursor(version: int, /, **state: Any) -> str:
    """A cursor that `read_cursor` reads."""
    return orjson.dumps({_VERSION: version, **state}).decode()
