"""Reads ``pmo.yaml``: every leaf under its dotted key, and what its schema does not allow.

The schema (``policies/pmo.schema.json``) is open: it says what known keys hold, and any other key is kept as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib import resources
from itertools import islice
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.redaction import redact
from lz_sync_dagster.sync.store.repository import GovernanceValue
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding

GOVERNANCE_PATH = "pmo.yaml"
#: More leaves than this are no configuration that a person wrote (YAML aliases can multiply without end).
MAX_LEAVES = 20_000
#: Issues of one file that are kept.
MAX_ISSUES = 100
MAX_KEY = 512

_MERGE, _MAPPING, _LIST, _TEXT = (f"tag:yaml.org,2002:{kind}" for kind in ("merge", "map", "seq", "str"))
_TYPES = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "empty",
}
_FORMATS = {"email": "an e-mail address", "date": "a date like 2026-01-31"}


@dataclass(frozen=True, slots=True)
class GovernanceRead:
    """All values of the file, in its order, and what is wrong with some of them (`FindingKind.GOVERNANCE_SCHEMA`, by
    line): a value that the schema does not allow, a key that is there twice."""

    values: list[GovernanceValue]
    issues: list[SourceFinding]


def read_governance(path: str, text: str, commit: str) -> GovernanceRead:
    """Read the leaves; an empty list or mapping is a leaf too. Secrets are removed. Of a key that is there twice the
    last value counts.

    Raises:
        SyncError: the text is not YAML, or not a mapping. The message has the line.
    """
    loaded = _load(path, text)
    lines = _lines(loaded.node)
    found = [*loaded.duplicates, *_violations(loaded.document, lines)]
    messages: dict[str, tuple[int, list[str]]] = {}
    for line, key, message in sorted(found, key=lambda issue: issue[0]):
        messages.setdefault(key[:MAX_KEY], (line, []))[1].append(message)
    issues = [
        SourceFinding(
            FindingKind.GOVERNANCE_SCHEMA,
            path,
            line,
            key,
            "medium",
            f"{key or 'the file'} {' and '.join(what)}; mend it in the landing zone",
            commit,
        )
        for key, (line, what) in islice(messages.items(), MAX_ISSUES)
    ]
    values = [GovernanceValue(key, value, path, commit, lines.get(key)) for key, value in loaded.values.items()]
    return GovernanceRead(values, issues)


def read_values(path: str, text: str) -> dict[str, Any]:
    """The leaves alone, by dotted key, as `read_governance` has them; nothing is checked.

    Raises:
        SyncError: as `read_governance`.
    """
    return _load(path, text).values


@dataclass(frozen=True, slots=True)
class _Loaded:
    """``node`` is where lines come from; it is ``None`` in an empty file. ``duplicates``: line, key, message."""

    document: dict[Any, Any]
    values: dict[str, Any]
    node: yaml.Node | None
    duplicates: list[tuple[int, str, str]]


def _load(path: str, text: str) -> _Loaded:
    text = text.removeprefix("\ufeff")
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _invalid(path, line, "is not valid YAML (a control character)") from error
    try:
        node = loader.get_single_node()
        duplicates = list(_duplicates(node)) if node is not None else []
        document = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _invalid(path, mark.line + 1 if mark else 1, f"is not valid YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(path, 1, f"is not valid YAML ({type(error).__name__})") from error
    finally:
        loader.dispose()
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise _invalid(path, 1, f"has a {type(document).__name__} at the top, not a mapping")
    if not document:
        return _Loaded({}, {}, node, duplicates)
    try:
        values = dict(islice(_leaves(document, "", ()), MAX_LEAVES + 1))
    except RecursionError as error:
        raise _invalid(path, 1, "is nested too deeply, or has an alias within itself") from error
    except ValueError as error:
        raise _invalid(path, 1, "has a number that is too long") from error
    if len(values) > MAX_LEAVES:
        raise _invalid(path, 1, f"has more than {MAX_LEAVES} values")
    return _Loaded(document, values, node, duplicates)


def _duplicates(root: yaml.Node) -> Iterator[tuple[int, str, str]]:
    """The keys that a mapping has twice. A node that aliases repeat is looked at once."""
    seen: set[int] = set()
    pending: list[tuple[yaml.Node, str]] = [(root, "")]
    while pending:
        node, key = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending.extend((item, _dotted(key, str(number))) for number, item in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for name, value in node.value:
                below = _dotted(key, _clean(name.value) if isinstance(name, yaml.ScalarNode) else "?")
                pending.append((value, below))
                if not isinstance(name, yaml.ScalarNode):
                    continue
                line = name.start_mark.line + 1
                first = lines.get((name.tag, name.value))
                if first is not None and name.tag != _MERGE:
                    yield line, below, f"is there twice (also on line {first}), and only the last one counts"
                lines[name.tag, name.value] = line


def _lines(root: yaml.Node | None) -> dict[str, int]:
    """The line of everything in the document that was made of this node, by dotted key; of the whole under ``""``.

    It goes where `_leaves` goes, and so is not larger: not into a value that a later one of the same key replaces.
    """
    lines: dict[str, int] = {}
    pending: list[tuple[yaml.Node, str, int]] = [] if root is None else [(root, "", root.start_mark.line + 1)]
    while pending:
        node, key, line = pending.pop()
        lines[key[:MAX_KEY]] = line
        if node.tag == _LIST:
            pending.extend(
                (item, f"{key}.{number}", item.start_mark.line + 1) for number, item in enumerate(node.value)
            )
        elif node.tag == _MAPPING:
            named = {_name(name): (name, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)}
            pending.extend(
                (value, _dotted(key, text), name.start_mark.line + 1) for text, (name, value) in named.items()
            )
    return lines


def _violations(document: dict[Any, Any], lines: Mapping[str, int]) -> Iterator[tuple[int, str, str]]:
    errors = _schema().iter_errors(_plain(document))
    for error in islice(errors, MAX_ISSUES):
        keys = [str(part) for part in error.absolute_path]
        above = (".".join(keys[:size])[:MAX_KEY] for size in range(len(keys), -1, -1))
        line = next((lines[key] for key in above if key in lines), 1)
        yield line, ".".join(keys), _allowed(error)


@lru_cache(maxsize=1)
def _schema() -> Draft202012Validator:
    file = resources.files("lz_sync_dagster") / "policies" / "pmo.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _allowed(error: ValidationError) -> str:
    """What a value must be, without the value: it may be a secret in the wrong place."""
    wanted: Any = error.validator_value
    instance: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "type":
            kinds = " or ".join(_TYPES[kind] for kind in ([wanted] if isinstance(wanted, str) else wanted))
            return f"is {_described(instance)}, and must be {kinds}"
        case "required":
            missing = [name for name in wanted if name not in instance]
            return f"lacks {', '.join(missing)}"
        case "enum":
            return f"must be one of {', '.join(map(str, wanted))}"
        case "pattern":
            return f"must be {schema.get('description', f'a text that matches {wanted}')}"
        case "format":
            return f"must be {_FORMATS.get(wanted, wanted)}"
        case "minimum":
            return f"must be at least {wanted}"
        case "maximum":
            return f"must be at most {wanted}"
        case "exclusiveMinimum":
            return f"must be more than {wanted}"
        case "minLength" | "minItems":
            return "must not be empty"
    return f"does not meet the rule '{error.validator}'"


def _described(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), "something else")


def _name(name: yaml.ScalarNode) -> str:
    """A key as the document has it: ``yes`` is ``True``."""
    if name.tag == _TEXT:
        return _clean(name.value)
    return _clean(yaml.constructor.SafeConstructor().construct_object(name))


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _plain(value: Any) -> Any:
    """A document as JSON has it, for the schema."""
    if isinstance(value, dict):
        return {_clean(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return _json(value)


def _leaves(value: Any, key: str, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, _dotted(key, _clean(name)), (*names, _clean(name)))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{number}", names)
    else:
        yield key[:MAX_KEY], _without_secret(_json(value), names)


def _without_secret(value: Any, names: tuple[str, ...]) -> Any:
    """A leaf without what is secret by its own name or one above it, or by what it says."""
    for name in names:
        value = redact({name: value})[0][name]
    return value


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
