"""What is decoded field by field and remembered is what decoding and redacting it as a whole gives."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.inventory.structs import StructDecoder, struct_dict
from lz_sync_dagster.sync.state.redaction import REDACTED, redact
from tests.conftest import SOAK

TOKEN = "ghp_" + "a1B2" * 9
KEYS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "name",
            "key",
            "value",
            "kind",
            "data",
            "stringData",
            "items",
            "labels",
            "description",
            "",
            "x\x00y",
        ),
        *("password", "userData", "apiKey", "oidcToken", "oauthToken", "secretEnv", "pageToken", "fingerprint"),
        *("metadata", "commonInstanceMetadata", "env", "environment", "environmentVariables", "substitutions"),
        *("args", "command", "enable-oslogin", "startup-script", "ünïcode", "k" * 600),
    ]
)
TEXTS = st.sampled_from(
    [
        *(
            "",
            "x",
            "zones/europe-west1-b",
            "DB_PASSWORD",
            "password",
            "Secret",
            "enable-oslogin",
            "startup-script",
            "é",
        ),
        *("--password", "--password=hunter2", "-p", "--token", "hunter2", "-----", "NUL\x00in it", TOKEN, "t" * 700),
        *('{"password": "hunter2"}', '{"plain": 1}', '["--password", "hunter2"]', "{no json", "password: hunter2"),
        *("https://u:p4ss@example.com/x", "projects/1/secrets/s/versions/1", "x\x00" + TOKEN, "l" * 300 + TOKEN),
    ]
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 2**53, 2**53 - 1, 2**53 + 2, -(2**60), 1e300, 0.5, float("inf"), -float("inf")]),
    st.floats(allow_nan=False),
    st.integers(-(2**53), 2**53),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
STRUCTS = st.dictionaries(KEYS, VALUES, max_size=6)


def named(paths: tuple[str, ...]) -> list[str]:
    """Paths in their order, without the names that are empty: they leave a dot, or none."""
    return sorted(".".join(filter(None, path.split("."))) for path in paths)


def plainly(body: bytes) -> tuple[dict[str, Any], list[str]]:
    data, paths = redact(struct_dict(struct_pb2.Struct.FromString(body)))
    return data, named(paths)


def decoded(decoder: StructDecoder, body: bytes) -> tuple[dict[str, Any], list[str]]:
    data, paths = decoder.decode(body)
    return data, named(paths)


def encoded(data: dict[str, Any]) -> bytes:
    message = struct_pb2.Struct()
    message.update(data)
    return message.SerializeToString()


@given(st.lists(STRUCTS, min_size=1, max_size=4))
def test_it_is_redact_of_the_whole_also_when_fields_are_remembered(contents: list[dict[str, Any]]) -> None:
    decoder = StructDecoder()
    bodies = [encoded(data) for data in contents]
    for body in [*bodies, *bodies]:
        assert decoded(decoder, body) == plainly(body)


# --- encodings that no encoder of ours writes -------------------------------------------------------------------------


def varint(number: int, *, padded: bool = False) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number | 0x80 if padded else number)
    return bytes(out) + (b"\x00" if padded else b"")


def sized(tag: int, body: bytes, *, padded: bool = False) -> bytes:
    return bytes([tag]) + varint(len(body), padded=padded) + body


@st.composite
def odd_values(draw: st.DrawFn, depth: int = 0) -> bytes:
    """A ``Value`` on the wire, as no encoder has to write it: several kinds, unknown fields, lengths of many bytes."""
    kinds = ["null", "number", "text", "bool", "text", "odd bool"] + (["struct", "list"] if depth < 3 else [])
    parts = []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=0, max_size=2)):
        padded = draw(st.integers(0, 5)) == 0
        if kind == "null":
            parts.append(b"\x08" + draw(st.sampled_from([b"\x00", b"\x01", b"\x80\x00"])))
        elif kind == "number":
            parts.append(b"\x11" + struct.pack("<d", draw(NUMBERS)))
        elif kind == "text":
            text = draw(TEXTS.map(str.encode) | st.sampled_from([b"\xff\xfe", b"ab\xc3"]))
            parts.append(sized(0x1A, text, padded=padded))
        elif kind == "bool":
            parts.append(draw(st.sampled_from([b"\x20\x00", b"\x20\x01"])))
        elif kind == "odd bool":
            parts.append(draw(st.sampled_from([b"\x20\x02", b"\x20\x81\x00", b"\x20\x80\x00"])))
        elif kind == "struct":
            parts.append(sized(0x2A, draw(odd_structs(depth + 1)), padded=padded))
        else:
            items = draw(st.lists(odd_values(depth + 1), max_size=3))
            parts.append(sized(0x32, b"".join(sized(0x0A, item) for item in items), padded=padded))
    if draw(st.integers(0, 9)) == 0:
        parts.append(b"\x78\x01")  # a field that nobody knows
    return b"".join(parts)


@st.composite
def odd_structs(draw: st.DrawFn, depth: int = 0) -> bytes:
    entries = []
    for _ in range(draw(st.integers(0, 4))):
        key = sized(0x0A, draw(KEYS).encode())
        value = sized(0x12, draw(odd_values(depth)))
        more = sized(0x12, draw(odd_values(depth)))
        form = draw(
            st.sampled_from(
                [key + value] * 4 + [value + key, key, value, key + value + more, key + value + b"\x7a\x01x", b""]
            )
        )
        entries.append(sized(0x0A, form))
    if draw(st.integers(0, 9)) == 0:
        entries.append(b"\x7a\x01x")
    return b"".join(entries)


@given(st.lists(odd_structs(), min_size=1, max_size=3))
def test_odd_encodings_mean_what_protobuf_says_that_they_mean(bodies: list[bytes]) -> None:
    decoder = StructDecoder()
    for body in [*bodies, *bodies]:
        try:
            expected = plainly(body)
        except DecodeError:
            with pytest.raises((ValueError, DecodeError)):
                decoder.decode(body)
        else:
            assert decoded(decoder, body) == expected


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05a", b"\xff", b"\x0a\x04\x0a\x01a\x12"])
def test_what_is_no_struct_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, DecodeError)):
        StructDecoder().decode(body)


def test_what_is_nested_too_deeply_is_refused_not_crashed_on() -> None:
    body = b""
    for _ in range(3_000):
        body = sized(0x0A, sized(0x0A, b"a") + sized(0x12, sized(0x2A, body)))
    with pytest.raises((RecursionError, ValueError, DecodeError)):
        StructDecoder().decode(body)


def test_a_remembered_field_does_not_outlive_what_stands_beside_it() -> None:
    """``value`` is harmless beside one name and a secret beside another: memory is by field, the decision is not."""
    decoder = StructDecoder()
    harmless = encoded({"env0": {"name": "REGION", "value": "hunter2"}})
    secret = encoded({"env0": {"name": "DB_PASSWORD", "value": "hunter2"}})
    for _ in range(2):
        assert decoder.decode(harmless)[0]["env0"]["value"] == "hunter2"
        assert decoder.decode(secret)[0]["env0"]["value"] == REDACTED


FIELD_NAMES = (
    "name", "value", "key", "kind", "data", "metadata", "items", "env", "password", "labels", "args", "stringData",
    "command",
)  # fmt: skip
SECRET_TEXTS = (
    "hunter2xyz", "--password", "password=abc_secret", "Secret", "-----BEGIN PRIVATE KEY-----", "DB_PASSWORD", "-u",
    "ghp_0123456789012345678901234567", "https://a:b@c", "a\x00b", '{"password":"x123456"}', "projects/a/b", "x",
)  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(50 if SOAK else 2))
def test_raw_text_decides_on_what_stands_beside_it(seed: int) -> None:
    """What redaction removes may be what it goes by: a name that is removed still makes its value a secret."""
    rng = random.Random(seed)
    decoder = StructDecoder()

    def value(depth: int) -> object:
        kind = rng.random()
        if kind < 0.45 or depth > 3:
            return rng.choice(SECRET_TEXTS)
        if kind < 0.55:
            return rng.choice([1, 1.5, True, None])
        if kind < 0.8:
            return {rng.choice(FIELD_NAMES): value(depth + 1) for _ in range(rng.randint(0, 4))}
        return [value(depth + 1) for _ in range(rng.randint(0, 4))]

    for _ in range(1_500):
        message = struct_pb2.Struct()
        message.update({rng.choice(FIELD_NAMES): value(0) for _ in range(rng.randint(0, 5))})
        data, paths = decoder.decode(message.SerializeToString())
        expected, removed = redact(struct_dict(message))
        assert (data, sorted(paths)) == (expected, sorted(removed))
