"""Decodes ``google.protobuf.Struct`` from its bytes, redacted on the way. What it remembers only makes it faster.

The assets of an organization repeat themselves: zones, machine types, labels, whole sub-objects. So the bytes of a
field stand for its decoded and redacted value, at any depth. What redaction decides by more than a field's own name and
value goes the plain way: decoded as a whole, then redacted.
"""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf import struct_pb2

from lz_sync_dagster.sync.inventory import wire
from lz_sync_dagster.sync.state.redaction import is_plain, redact, redact_field, redact_text, stands_alone

#: Doubles are exact integers below this.
_EXACT = 2**53
#: Fields that are remembered: how many, and up to which size.
_REMEMBERED, _LARGEST = 20_000, 500
#: How a ``Value`` begins on the wire, by its kind.
_NUMBER, _TEXT, _STRUCT, _LIST = 0x11, 0x1A, 0x2A, 0x32
#: How the name and the value of an entry begin. A length below the last one is one byte.
_KEY, _BODY, _ONE_BYTE = 0x0A, 0x12, 0x80
_DOUBLE = struct.Struct("<d")
_PLAIN_VALUES: dict[bytes, Any] = {b"": None, b"\x08\x00": None, b"\x20\x00": False, b"\x20\x01": True}

#: Fields whose text decides whether a field beside them is a secret (`redaction.stands_alone`).
_DECIDE_ON_OTHERS = frozenset({"name", "key", "kind"})

#: Key, redacted value, and the paths in the value (\"\": itself) where something was removed.
_Field = tuple[str, Any, tuple[str, ...]]


class _AsAWhole(Exception):
    """What is below has to be decoded and redacted as a whole."""


class StructDecoder:
    """Decodes many. Not safe to share between threads."""

    def __init__(self) -> None:
        self._fields: dict[bytes, _Field] = {}

    def decode(self, body: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The content of a serialized ``Struct``, just as `redact` leaves it, and the paths where it removed something.

        Raises:
            ValueError, RecursionError, google.protobuf.message.DecodeError: it is no ``Struct``, or too deep.
        """
        try:
            return self._struct(body)
        except _AsAWhole:
            return redact(struct_dict(struct_pb2.Struct.FromString(body)))

    def _struct(self, body: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
        remembered = self._fields
        data: dict[str, Any] = {}
        paths: tuple[str, ...] = ()
        entries = wire.Items.FromString(body).items
        for entry in entries:
            known = remembered.get(entry)
            if known is None:
                known = self._field(entry)
            data[known[0]] = known[1]
            if known[2]:
                if known[0] in _DECIDE_ON_OTHERS and "" in known[2]:
                    raise _AsAWhole  # its raw text decides on the fields beside it
                paths += tuple(f"{known[0]}.{path}" if path else known[0] for path in known[2])
        if len(data) != len(entries) or not stands_alone(data):  # a name that comes twice: the last one holds
            raise _AsAWhole
        return data, paths

    def _field(self, entry: bytes) -> _Field:
        key, body = _split(entry)
        try:
            if not is_plain(key):
                raise _AsAWhole
            known: _Field = (key, *self._value(body))
        except _AsAWhole:
            name, value, paths = redact_field(key, _value(struct_pb2.Value.FromString(body)))
            known = (name, value, tuple(path[len(name) + 1 :] for path in paths))
        if len(entry) <= _LARGEST:
            if len(self._fields) >= _REMEMBERED:
                self._fields.clear()
            self._fields[entry] = known
        return known

    def _value(self, body: bytes) -> tuple[Any, tuple[str, ...]]:
        if body in _PLAIN_VALUES:
            return _PLAIN_VALUES[body], ()
        kind = body[0]
        if kind == _TEXT:
            text = _payload(body).decode()
            clean = redact_text(text)
            return (text, ()) if clean == text else self._cleaned(text, clean)
        if kind == _NUMBER and len(body) == 9:
            return number(_DOUBLE.unpack_from(body, 1)[0]), ()
        if kind == _STRUCT:
            return self._struct(_payload(body))
        if kind == _LIST:
            return self._list(_payload(body))
        raise _AsAWhole

    @staticmethod
    def _cleaned(text: str, clean: str) -> tuple[str, tuple[str, ...]]:
        if "\x00" in text:
            raise _AsAWhole
        return clean, ("",)

    def _list(self, body: bytes) -> tuple[list[Any], tuple[str, ...]]:
        items: list[Any] = []
        paths: tuple[str, ...] = ()
        for index, item in enumerate(wire.Items.FromString(body).items):
            value, below = self._value(item)
            if isinstance(value, str) and (value.startswith("-") or "" in below):
                raise _AsAWhole  # it may be a command line, in which the raw text decides on what follows
            items.append(value)
            if below:
                paths += tuple(f"{index}.{path}" if path else str(index) for path in below)
        return items, paths


def struct_dict(message: Any) -> dict[str, Any]:
    """A ``Struct`` message as a dict, not redacted; several times faster than ``MessageToDict``."""
    return {key: _value(value) for key, value in message.fields.items()}


def _split(entry: bytes) -> tuple[str, bytes]:
    """Name and value (bytes) of a field: of one that is written as every encoder writes it.

    Raises:
        _AsAWhole: it has no name, something unknown, or values that protobuf would merge.
    """
    if len(entry) > 2 and entry[0] == _KEY and 0 < (size := entry[1]) < _ONE_BYTE:
        body = entry[2 + size :]
        if body and body[0] == _BODY:
            return entry[2 : 2 + size].decode(), _payload(body)
    parsed = wire.Entry.FromString(entry)
    if not parsed.key or wire.Entry(key=parsed.key, value=parsed.value).ByteSize() != len(entry):
        raise _AsAWhole
    return parsed.key, parsed.value


def _payload(body: bytes) -> bytes:
    """The bytes of the one length-delimited field that a message consists of.

    Raises:
        _AsAWhole: there is more, or less.
    """
    size, start = 0, 1
    for shift in (0, 7, 14, 21, 28):
        if start >= len(body):
            break
        byte = body[start]
        size |= (byte & 0x7F) << shift
        start += 1
        if byte < _ONE_BYTE:
            if start + size == len(body):
                return body[start:]
            break
    raise _AsAWhole


def number(value: float) -> int | float:
    """A number of a ``Struct``, which has doubles only: whole ones are integers."""
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return struct_dict(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None
