"""Controls as data: which fields of an asset decide, and what they say. The controls themselves are in ``policies/``.

A control never passes for lack of data: a missing field, a redacted value or an expression that cannot be evaluated is
``UNKNOWN``. Rules that need the clock are not controls here, since a verdict is kept until its asset changes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

import cel
import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lz_sync_dagster.sync.compliance.projection import Projection, projection_of
from lz_sync_dagster.sync.compliance.verdict import Outcome, Severity, Verdict
from lz_sync_dagster.sync.errors import Reason, SyncError

_PORTS = re.compile(r"^(\d+)(?:-(\d+))?$")
_MISSING = object()
_NOT_JUDGED = Verdict("", "", "", "", "", Outcome.UNKNOWN, "")
#: Data that a control has judged, as far as it reads it, is judged once; so many are remembered.
_REMEMBERED = 4_096
#: What decides on the meaning of an expression: when one of these modules changes, everything is judged once more.
_DECIDING = ("controls.py", "projection.py")
_ON, _OFF = frozenset({"true", "yes", "y", "1"}), frozenset({"false", "no", "n", "0"})
#: What CEL raises when the data has another shape than the expression expects.
_UNDECIDABLE = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
_NOT_ABOUT, _REDACTED = "not about this asset", "redacted"


class _Control(BaseModel):
    """One control of a policy file.

    ``needs``: dotted paths that must be there for the control to be decided; ``a|b`` is met by either. ``applies``,
    ``undecided`` and ``passes`` are CEL over ``data``; ``message`` is a template with ``{name}`` and ``{data[key]}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^\d+(\.\d+)+$")
    title: str = Field(min_length=1)
    severity: Severity
    asset_types: list[str] = Field(min_length=1)
    content_type: Literal["RESOURCE", "IAM_POLICY", "ORG_POLICY"] = "RESOURCE"
    needs: list[str] = Field(min_length=1)
    applies: str | None = None
    undecided: str | None = None
    passes: str
    message: str


class _PolicyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    framework: str = Field(pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    source: Literal["cis", "scc", "orgpolicy", "gate"]
    controls: list[_Control] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Control:
    """A control, compiled.

    ``needs`` holds for each requirement its alternatives, each a path. ``rule`` is the whole of it in one expression,
    ``applies`` only what decides whether the control is about an asset. ``text`` is its canonical form. ``projection``
    is what of the data decides.
    """

    id: str
    framework: str
    source: str
    text: str
    title: str
    severity: str
    asset_types: tuple[str, ...]
    content_type: str
    needs: tuple[tuple[tuple[str, ...], ...], ...]
    message: str
    projection: Projection
    applies: Any
    rule: Any
    calls: Mapping[str, Any]
    remembered: dict[bytes, Verdict | None] = field(default_factory=dict, compare=False, repr=False)

    def evaluate(self, name: str, data: Mapping[str, Any]) -> Verdict | None:
        """The verdict on one asset; ``None`` if the control is not about it."""
        read = self.projection.of(data)
        try:
            known = orjson.dumps(read)
        except TypeError:
            return self._judge(name, data, read)
        verdict = self.remembered.get(known, _NOT_JUDGED)
        if verdict is _NOT_JUDGED:
            verdict = self._judge(name, data, read)
            if len(self.remembered) >= _REMEMBERED:
                self.remembered.clear()
            self.remembered[known] = verdict
        if verdict is not None and verdict.outcome is Outcome.FAIL:  # it is told by name
            return self._verdict(Outcome.FAIL, self.message.format(name=name, data=data))
        return verdict

    def _judge(self, name: str, data: Mapping[str, Any], read: Mapping[str, Any]) -> Verdict | None:
        scope: dict[str, Any] = {"data": read, **self.calls}
        missing = self._missing(read)
        try:
            if missing is not None:
                applies = self.applies is None or self.applies.execute(scope)
                return None if applies is False else self._unknown(missing)
            result = self.rule.execute(scope)
        except _UNDECIDABLE as error:
            return self._unknown(missing or f"the data does not decide it: {' '.join(str(error).split())[:200]}")
        if result is True:
            return self._verdict(Outcome.PASS, "")
        if result is False:
            return self._verdict(Outcome.FAIL, self.message.format(name=name, data=data))
        if result == _NOT_ABOUT:
            return None
        if result == _REDACTED:
            return self._unknown("the value that decides was redacted")
        return self._unknown(f"the rule gives {result!r}, neither true nor false")

    def _missing(self, data: Mapping[str, Any]) -> str | None:
        for alternatives in self.needs:
            found = [value for path in alternatives if (value := _at(data, path)) is not _MISSING]
            if not found:
                return f"the inventory does not carry {' or '.join('.'.join(path) for path in alternatives)}"
            if "[redacted]" in found:
                return f"{'.'.join(alternatives[0])} was redacted"
        return None

    def _unknown(self, message: str) -> Verdict:
        return self._verdict(Outcome.UNKNOWN, message)

    def _verdict(self, outcome: Outcome, message: str) -> Verdict:
        return Verdict(self.id, self.framework, self.title, self.severity, self.source, outcome, message)


class Controls:
    """A set of controls, by what they are about. `evaluate` is an `Evaluator`."""

    def __init__(self, controls: Iterable[Control]) -> None:
        self.all: tuple[Control, ...] = tuple(controls)
        by_kind: dict[tuple[str, str], list[Control]] = {}
        for control in self.all:
            for asset_type in control.asset_types:
                by_kind.setdefault((asset_type, control.content_type), []).append(control)
        self._by_kind = {kind: tuple(found) for kind, found in by_kind.items()}

    def __len__(self) -> int:
        return len(self.all)

    @property
    def kinds(self) -> frozenset[tuple[str, str]]:
        """The (asset type, content type) that controls are about: what has to be read for them."""
        return frozenset(self._by_kind)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the controls say, in any order: it differs where a verdict may."""
        said = "\n".join([_language(), *sorted(control.text for control in self.all)])
        return hashlib.sha256(said.encode()).hexdigest()

    def about(self, asset_type: str, content_type: str) -> tuple[Control, ...]:
        """The controls about an asset type and content type."""
        return self._by_kind.get((asset_type, content_type), ())

    def evaluate(self, asset_type: str, content_type: str, name: str, data: Mapping[str, Any]) -> list[Verdict]:
        """What each control that applies says of an asset's redacted content (JSON form, camelCase keys)."""
        controls = self._by_kind.get((asset_type, content_type))
        if controls is None:
            return []
        return [verdict for control in controls if (verdict := control.evaluate(name, data)) is not None]


@cache
def _language() -> str:
    """What stands for how expressions are understood."""
    package = resources.files("lz_sync_dagster") / "sync" / "compliance"
    return hashlib.sha256(b"".join((package / file).read_bytes() for file in _DECIDING)).hexdigest()


@cache
def load_controls() -> Controls:
    """The controls that the package ships, read once per process.

    Raises:
        SyncError: a policy file is not valid; one line, naming file and key.
    """
    folder = resources.files("lz_sync_dagster") / "policies"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    if not files:
        raise _invalid("there are no policy files", "lz_sync_dagster/policies", "install the package again")
    return parse_controls({entry.name: entry.read_text(encoding="utf-8") for entry in files})


def parse_controls(files: Mapping[str, str]) -> Controls:
    """Controls of policy files, given as file name → YAML text.

    Raises:
        SyncError: a file is not valid, or two controls of one framework have the same id for the same asset type.
    """
    controls: list[Control] = []
    seen: dict[tuple[str, str, str], str] = {}
    for file, text in files.items():
        for control in _parse(file, text):
            for asset_type in control.asset_types:
                key = (control.framework, control.id, asset_type)
                if key in seen:
                    raise _invalid(
                        f"control {control.id} is there twice for {asset_type}", file, f"it is in {seen[key]} as well"
                    )
                seen[key] = file
            controls.append(control)
    return Controls(controls)


def _parse(file: str, text: str) -> list[Control]:
    try:
        policy = _PolicyFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise _invalid(" ".join(str(error).split()), file, "write valid YAML") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _invalid(f"{where}: {first['msg']}", file, "docs/controls.md describes the keys") from error
    return [_compile(file, policy, control) for control in policy.controls]


def _compile(file: str, policy: _PolicyFile, control: _Control) -> Control:
    for key in ("applies", "undecided", "passes"):
        expression = getattr(control, key)
        try:
            cel.compile(expression or "true")
        except ValueError as error:
            line = str(error).splitlines()[0]
            raise _invalid(f"control {control.id}, {key}: {line}", file, "write valid CEL") from error
    rule = control.passes
    if control.undecided is not None:
        rule = f"({control.undecided}) ? {_REDACTED!r} : ({rule})"
    if control.applies is not None:
        rule = f"({control.applies}) ? ({rule}) : {_NOT_ABOUT!r}"
    expressions = " ".join(filter(None, (control.applies, control.undecided, control.passes)))
    try:
        control.message.format(name="", data=_AnyKey())
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise _invalid(f"control {control.id}, message: {error!r}", file, "use {name} and {data[key]} only") from error
    needs = tuple(tuple(tuple(path.split(".")) for path in need.split("|")) for need in control.needs)
    return Control(
        id=control.id,
        framework=policy.framework,
        source=policy.source,
        text=json.dumps([policy.framework, policy.source, control.model_dump(mode="json")], sort_keys=True),
        title=control.title,
        severity=control.severity,
        asset_types=tuple(control.asset_types),
        content_type=control.content_type,
        needs=needs,
        message=control.message,
        projection=projection_of(expressions, (path for alternatives in needs for path in alternatives)),
        calls={called: function for called, function in _FUNCTIONS.items() if f"{called}(" in expressions},
        applies=None if control.applies is None else cel.compile(control.applies),
        rule=cel.compile(rule),
    )


class _AnyKey(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return key


def covers(ports: str, port: float) -> bool:
    """Whether ``22`` or ``20-25``, as firewall rules write it, covers a port. Raises ``ValueError`` for other text."""
    match = _PORTS.match(ports)
    if match is None:
        raise ValueError(f"{ports!r} is neither a port nor a range of ports")
    first = int(match[1])
    return first <= port <= int(match[2] or first)


def switched(value: object) -> bool:
    """Whether instance metadata switches something on, as Compute Engine reads it. Raises ``ValueError`` for text that
    says neither."""
    word = str(value).lower()
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise ValueError(f"{value!r} is neither on nor off")


_FUNCTIONS: Mapping[str, Any] = {"covers": covers, "switched": switched}


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = data
    for key in path:
        if not isinstance(value, Mapping) or value.get(key) is None:
            return _MISSING
        value = value[key]
    return value


def _invalid(what: str, file: str, remedy: str) -> SyncError:
    return SyncError(what, where=f"policies/{file.removeprefix('policies/')}", remedy=remedy, reason=Reason.INVALID)
