"""Reads ``pmo.yaml``: every leaf under its dotted key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
from itertools import islice
from typing import Any

import yaml

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store.repository import GovernanceValue

GOVERNANCE_PATH = "pmo.yaml"
#: More leaves than this are no configuration that a person wrote (YAML aliases can multiply without end).
MAX_LEAVES = 20_000


def read_governance(path: str, text: str, commit: str) -> list[GovernanceValue]:
    """The leaves in the order of the file; an empty list or mapping is a leaf too.

    Raises:
        SyncError: the text is not YAML, or not a mapping. The message has the line.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _invalid(path, mark.line + 1 if mark else 1, f"is not valid YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(path, 1, f"is not valid YAML ({type(error).__name__})") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise _invalid(path, 1, f"has a {type(document).__name__} at the top, not a mapping")
    if not document:
        return []
    try:
        values = dict(islice(_leaves(document, ""), MAX_LEAVES + 1))
    except RecursionError as error:
        raise _invalid(path, 1, "is nested too deeply, or has an alias within itself") from error
    except ValueError as error:
        raise _invalid(path, 1, "has a number that is too long") from error
    if len(values) > MAX_LEAVES:
        raise _invalid(path, 1, f"has more than {MAX_LEAVES} values")
    return [GovernanceValue(key, value, path, commit) for key, value in values.items()]


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{_clean(name)}" if key else _clean(name))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{number}")
    else:
        yield key[:512], _json(value)


def _json(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, set):
        return f"{{{', '.join(sorted(map(_clean, value)))}}}"
    if value is None or isinstance(value, int | float | list | dict):
        return value
    return _clean(value)


def _clean(value: Any) -> str:
    """A value as text that every database takes."""
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _invalid(path: str, line: int, what: str) -> SyncError:
    return SyncError(
        what,
        where=f"{path}:{line}",
        remedy="mend the line in the landing zone; until then the values of before are shown",
        reason=Reason.INVALID,
    )
