"""Cloud Asset's messages, parsed only as deep as somebody looks.

A field that is a message on the wire is a byte string here: both are length-delimited. So a page costs little more than
its bytes, and an asset whose bytes are known is not parsed at all. Field numbers are those of
``google/cloud/asset/v1/assets.proto`` and ``google/protobuf/struct.proto``.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_ONE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_MANY = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED

_MESSAGES: dict[str, tuple[tuple[str, int, int, int], ...]] = {
    "Page": (("read_time", 1, _BYTES, _ONE), ("assets", 2, _BYTES, _MANY), ("next_page_token", 3, _STRING, _ONE)),
    "Asset": (
        ("name", 1, _STRING, _ONE),
        ("asset_type", 2, _STRING, _ONE),
        ("resource", 3, _BYTES, _ONE),
        ("iam_policy", 4, _BYTES, _ONE),
        ("org_policy", 6, _BYTES, _MANY),
        ("ancestors", 10, _STRING, _MANY),
        ("update_time", 11, _BYTES, _ONE),
        ("related_asset", 15, _BYTES, _ONE),
    ),
    "Resource": (("data", 6, _BYTES, _ONE), ("location", 8, _STRING, _ONE)),
    "Items": (("items", 1, _BYTES, _MANY),),
    "Entry": (("key", 1, _STRING, _ONE), ("value", 2, _BYTES, _ONE)),
}
#: What decides how the bytes are understood. When one of these modules changes, every asset is decoded once more: a
#: mended rule of redaction has to reach what is stored.
_DECIDING = (
    "sync/inventory/decoder.py",
    "sync/inventory/exported.py",
    "sync/inventory/structs.py",
    "sync/inventory/wire.py",
    "sync/state/observation.py",
    "sync/state/redaction.py",
    "sync/timing.py",
)


def _meaning() -> bytes:
    """16 bytes that stand for how assets are understood."""
    package = resources.files("lz_sync_dagster")
    sources = b"".join((package / path).read_bytes() for path in _DECIDING)
    return hashlib.blake2b(sources, digest_size=16).digest()


_MEANING = _meaning()


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="lz_sync/wire.proto", package="lz_sync.wire", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            described.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lz_sync.wire.{name}")) for name in _MESSAGES
    }


_CLASSES = _classes()
#: ``Items``: the entries of a ``Struct``, or the values of a ``ListValue``.
Page, Asset, Resource, Items, Entry = (_CLASSES[name] for name in _MESSAGES)


def fingerprint(body: bytes) -> bytes:
    """16 bytes that stand for an asset's bytes, and for how they are understood."""
    return hashlib.blake2b(body, digest_size=16, person=_MEANING).digest()
