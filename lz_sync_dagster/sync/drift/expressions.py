"""What terraform's expressions (`sync.drift.hcl`) come to, as far as it is certain. What is not is `Unknown`, with the
reason in words; a list or object may hold both. Nothing is guessed: a function that is not listed here is unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lz_sync_dagster.sync.drift import hcl


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that the text of the repository does not tell. ``reason`` completes "it comes from …"."""

    reason: str


#: Characters of a text that is made of others.
MAX_TEXT = 16_000

#: What a reference stands for. Its steps are names, or ``[index]`` with the index evaluated.
Refer = Callable[[Sequence[Any]], Any]


def evaluate(form: Any, refer: Refer) -> Any:
    """The value of a form: text, number, boolean, ``None``, list, dict or `Unknown`."""
    if isinstance(form, list):
        return [evaluate(item, refer) for item in form]
    if not isinstance(form, Mapping):
        return form
    if hcl.REF in form:
        return refer([_step(step, refer) for step in form[hcl.REF]])
    if hcl.TEMPLATE in form:
        return _template([evaluate(part, refer) for part in form[hcl.TEMPLATE]])
    if hcl.CALL in form:
        return _call(str(form[hcl.CALL]), [evaluate(item, refer) for item in form[hcl.ARGUMENTS]])
    if hcl.CONDITIONAL in form:
        condition, then, otherwise = form[hcl.CONDITIONAL]
        chosen = evaluate(condition, refer)
        if isinstance(chosen, bool):
            return evaluate(then if chosen else otherwise, refer)
        return chosen if isinstance(chosen, Unknown) else Unknown("a condition that is neither true nor false")
    if hcl.OPERATION in form:
        return _operation(str(form[hcl.OPERATION]), [evaluate(item, refer) for item in form[hcl.ARGUMENTS]])
    if hcl.OBJECT in form:
        return _object([(evaluate(key, refer), evaluate(value, refer)) for key, value in form[hcl.OBJECT]])
    if hcl.UNRESOLVED in form:
        why = str(form[hcl.UNRESOLVED])
        return Unknown("a text that is withheld, since it may be a secret" if why == hcl.WITHHELD else why)
    return {key: evaluate(item, refer) for key, item in form.items()}


def follow(value: Any, steps: Sequence[Any], name: str) -> Any:
    """What is below a value. ``name``: what the value is called, for the reason."""
    for step in steps:
        key = step[0] if isinstance(step, list) else step
        if isinstance(value, Unknown):
            return value
        if isinstance(key, Unknown):
            return key
        if isinstance(value, Mapping) and text(key) in value:
            value = value[text(key)]
        elif isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(value):
            value = value[key]
        else:
            return Unknown(f"{name}, in which {key} is not found")
    return value


def unknown_in(value: Any) -> Unknown | None:
    """The first `Unknown` in a value; ``None`` if all of it is known."""
    if isinstance(value, Unknown):
        return value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((found for item in items if (found := unknown_in(item)) is not None), None)


def text(value: Any) -> str | None:
    """A text, number or boolean as terraform turns it into a text; ``None`` for everything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def _step(step: Any, refer: Refer) -> Any:
    return [evaluate(step[0], refer)] if isinstance(step, list) and len(step) == 1 else str(step)


def _template(parts: list[Any]) -> Any:
    unknown = unknown_in(parts)
    if unknown is not None:
        return unknown
    texts = [text(part) for part in parts]
    if None in texts:
        return Unknown("a text made of something that is none")
    return _bounded("".join(part for part in texts if part is not None))


def _bounded(value: Any) -> Any:
    return Unknown("a text that is too long") if isinstance(value, str) and len(value) > MAX_TEXT else value


def _object(pairs: list[tuple[Any, Any]]) -> Any:
    """An object with an unknown key is unknown as a whole: that key might be any of the others."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        name = text(key)
        if name is None:
            return key if isinstance(key, Unknown) else Unknown("an object with a key that is no text")
        if name in found:
            return Unknown(f"an object with the key {name} twice")
        found[name] = value
    return found


def _operation(sign: str, operands: list[Any]) -> Any:
    if sign == "!":
        return not operands[0] if isinstance(operands[0], bool) else _no_boolean(operands)
    one, other = operands
    if sign in ("&&", "||"):
        decisive = sign == "||"
        if one is decisive or other is decisive:
            return decisive
        if isinstance(one, bool) and isinstance(other, bool):
            return not decisive
        return _no_boolean(operands)
    unknown = unknown_in(operands)
    if unknown is not None:
        return unknown
    if one is not None and other is not None and (_kind(one) != _kind(other) or _kind(one) is None):
        return Unknown("a comparison of values that are not alike")
    return (one == other) is (sign == "==")


def _no_boolean(operands: list[Any]) -> Unknown:
    return unknown_in(operands) or Unknown("an operation on what is neither true nor false")


def _kind(value: Any) -> type | None:
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else None


def _call(name: str, arguments: list[Any]) -> Any:
    function = _FUNCTIONS.get(name)
    if function is None:
        return Unknown(f"the function {name}")
    for argument in arguments:
        if isinstance(argument, Unknown):
            return argument
    if name not in _KEEP_UNKNOWN and (unknown := unknown_in(arguments)) is not None:
        return unknown
    try:
        return _bounded(function(*arguments))
    except (TypeError, ValueError, AttributeError, KeyError, IndexError):
        return Unknown(f"the function {name}, with values that it does not take")


def _texts(values: Any) -> list[str]:
    found = [text(value) for value in values]
    if not isinstance(values, list) or None in found:
        raise TypeError
    return [value for value in found if value is not None]


def _set(values: Any) -> list[str]:
    return sorted(set(_texts(values)))


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError
    return values


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _merge(*values: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in values:
        if value is not None:
            merged |= _map(value)
    return merged


def _concat(*values: Any) -> list[Any]:
    return [item for value in values for item in _list(value)]


def _tostring(value: Any) -> str:
    (found,) = _texts([value])
    return found


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "concat": _concat,
    "join": lambda separator, values: str(separator).join(_texts(values)),
    "lower": lambda value: _tostring(value).lower(),
    "merge": _merge,
    "tolist": _list,
    "tomap": _map,
    "toset": _set,
    "tostring": _tostring,
    "upper": lambda value: _tostring(value).upper(),
}
#: Functions that pass parts of their arguments on, also unknown ones.
_KEEP_UNKNOWN = frozenset({"concat", "merge", "tolist", "tomap"})
