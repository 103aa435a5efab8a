"""Messages that are parsed only as deep as somebody looks have the field numbers of Google's."""

from __future__ import annotations

import pytest
from google.cloud.asset_v1 import Asset, ListAssetsResponse, Resource
from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor

from lz_sync_dagster.sync.inventory import structs, wire

GOOGLES = {
    "Page": ListAssetsResponse.pb().DESCRIPTOR,
    "Asset": Asset.pb().DESCRIPTOR,
    "Resource": Resource.pb().DESCRIPTOR,
    "Entry": struct_pb2.Struct.DESCRIPTOR.nested_types_by_name["FieldsEntry"],
}
#: ``Value`` and ``Items`` have names of our own: ours → Google's.


def same_on_the_wire(ours: FieldDescriptor, googles: FieldDescriptor) -> bool:
    """Number, repetition and wire type agree; a message or a text may be taken as its bytes."""
    length_delimited = {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE}
    return (
        ours.number == googles.number
        and ours.is_repeated == googles.is_repeated
        and {ours.type, googles.type} <= length_delimited
    )


@pytest.mark.parametrize("message", GOOGLES)
def test_fields_are_googles(message: str) -> None:
    descriptor = getattr(wire, message).DESCRIPTOR
    assert descriptor.fields
    for field in descriptor.fields:
        assert same_on_the_wire(field, GOOGLES[message].fields_by_name[field.name]), field.name


def test_structs_are_written_as_google_writes_them() -> None:
    googles = struct_pb2.Value.DESCRIPTOR.fields_by_name
    kinds = {"number_value": (structs._NUMBER, 1), "string_value": (structs._TEXT, 2)}
    kinds |= {"struct_value": (structs._STRUCT, 2), "list_value": (structs._LIST, 2)}
    for name, (tag, wire_type) in kinds.items():
        assert tag == googles[name].number << 3 | wire_type, name
    entry = struct_pb2.Struct.DESCRIPTOR.fields_by_name["fields"].message_type.fields_by_name
    assert (entry["key"].number << 3 | 2, entry["value"].number << 3 | 2) == (structs._KEY, structs._BODY)
    (items,) = wire.Items.DESCRIPTOR.fields
    assert same_on_the_wire(items, struct_pb2.Struct.DESCRIPTOR.fields_by_name["fields"])
    assert same_on_the_wire(items, struct_pb2.ListValue.DESCRIPTOR.fields_by_name["values"])


def test_a_page_is_its_assets_bytes() -> None:
    assets = [Asset(name="//n/a", asset_type="t/A"), Asset(name="//n/b", ancestors=["projects/1", "folders/2"])]
    answer = ListAssetsResponse(assets=assets, next_page_token="next")
    page = wire.Page.FromString(ListAssetsResponse.serialize(answer))
    assert [Asset.deserialize(body) for body in page.assets] == assets
    assert page.next_page_token == "next"
    assert not page.read_time
    assert list(wire.Asset.FromString(page.assets[1]).ancestors) == ["projects/1", "folders/2"]


def test_a_fingerprint_is_of_the_bytes_and_of_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    before = wire.fingerprint(b"asset")
    assert (len(before), wire.fingerprint(b"asset")) == (16, before)
    assert wire.fingerprint(b"asset ") != before
    monkeypatch.setattr(wire, "_MEANING", b"another")
    assert wire.fingerprint(b"asset") != before, "with other rules every asset is decoded once more"
