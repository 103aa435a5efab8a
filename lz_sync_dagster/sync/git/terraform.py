"""Reads terraform files with tree-sitter: what parses is kept, a broken part is marked and costs only its own block."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import tree_sitter
import tree_sitter_hcl

from lz_sync_dagster.sync.git import expressions
from lz_sync_dagster.sync.store.repository import TerraformBlock
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding

#: Findings of one file that are kept: a file that is no terraform at all has no end of them.
MAX_FINDINGS = 20

_LANGUAGE = tree_sitter.Language(tree_sitter_hcl.language())
_LABELLED = {"variable": "var", "output": "output", "module": "module", "provider": "provider"}
_BLOCK_START = re.compile(
    rb"^(?:resource|data|module|variable|output|provider|locals|terraform|moved|import|removed|check)\b", re.MULTILINE
)
_SCOPES = frozenset({"var", "local", "module", "data"})


def is_terraform(path: str) -> bool:
    """Whether a file is read as terraform."""
    return path.endswith(".tf")


@dataclass(frozen=True, slots=True)
class TerraformRead:
    """What a file holds: its top-level blocks in order, and a finding for each part that is no HCL."""

    blocks: list[TerraformBlock]
    findings: list[SourceFinding]


def read(path: str, data: bytes, *, blob: str, commit: str) -> TerraformRead:
    """Read a file. A broken one gives what can be read of it, and at least one finding (`FindingKind.HCL_SYNTAX`): its
    subject is the address of the block, empty outside of blocks, its line that of the first error in it."""
    data = _unmarked(data)
    root, parts = _parse(data)
    blocks: dict[tuple[int, str], TerraformBlock] = {}
    errors: dict[str, int] = {}
    for offset, part in parts:
        found = [(node, _block(node, path, offset, blob, commit)) for node in _top_blocks(part)]
        for node, block in found:
            if block is not None:
                blocks.setdefault((block.line, block.address), block)
                if node.has_error:
                    errors.setdefault(block.address, offset + _first_error(node))
        if part.has_error and not any(node.has_error for node, _ in found):
            address = next((block.address for _, block in found if block is not None), "")
            errors.setdefault(address, offset + _first_error(part))
    if root.has_error and not errors:
        errors[""] = _first_error(root)
    return TerraformRead(list(blocks.values()), _findings(path, errors, commit))


def read_terraform(path: str, data: bytes, *, blob: str, commit: str) -> list[TerraformBlock]:
    """The top-level blocks of a file, in order."""
    return read(path, data, blob=blob, commit=commit).blocks


def block_texts(data: bytes) -> dict[str, str]:
    """The text of each top-level block, by address. Blocks of one address (``locals``) are one text."""
    found: dict[str, str] = {}
    _, parts = _parse(_unmarked(data))
    for _, part in parts:
        for node in _top_blocks(part):
            named = _words(node)
            if named is None:
                continue
            address = _cut(_full_address(*named, _body(node)))
            text = _text(node).replace("\r\n", "\n")
            found[address] = f"{found[address]}\n\n{text}" if address in found else text
    return found


def _parse(data: bytes) -> tuple[tree_sitter.Node, list[tuple[int, tree_sitter.Node]]]:
    """The tree of a file, and what to read: the tree, or if it is broken those of its parts, each with the number of
    lines above it."""
    parser = tree_sitter.Parser(_LANGUAGE)
    root = parser.parse(data).root_node
    if not root.has_error:
        return root, [(0, root)]
    return root, [(line, parser.parse(part).root_node) for line, part in _parts(data)]


def _findings(path: str, errors: Mapping[str, int], commit: str) -> list[SourceFinding]:
    ordered = sorted(errors.items(), key=lambda error: error[1])
    return [
        SourceFinding(
            FindingKind.HCL_SYNTAX,
            path,
            line,
            address,
            "medium",
            f"{address or 'the text'} is no valid HCL from line {line} on and was read in part; "
            "run 'terraform validate' and mend it in the landing zone",
            commit,
        )
        for address, line in ordered[:MAX_FINDINGS]
    ]


def _first_error(node: tree_sitter.Node) -> int:
    """The line of the first error below a node, from 1."""
    first: int = node.end_point[0]
    pending = [node]
    while pending:
        current = pending.pop()
        if current.type == "ERROR" or current.is_missing:
            first = min(first, current.start_point[0])
        elif current.has_error:
            pending.extend(current.children)
    return first + 1


def _unmarked(data: bytes) -> bytes:
    return data.removeprefix(codecs.BOM_UTF8)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A broken file cut where a line begins with a block's keyword: what is wrong in one part stays there."""
    starts = [0, *(match.start() for match in _BLOCK_START.finditer(data))]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        if end > start:
            yield data.count(b"\n", 0, start), data[start:end]


def _top_blocks(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    for node in root.children:
        if node.type == "block":
            yield node
        elif node.type in ("body", "ERROR"):
            yield from _top_blocks(node)


def _block(node: tree_sitter.Node, path: str, offset: int, blob: str, commit: str) -> TerraformBlock | None:
    named = _words(node)
    if named is None:
        return None
    block_type, labels = named
    body = _body(node)
    attributes = _attributes(body)
    resource_type = labels[0] if block_type in ("resource", "data") and labels else None
    name = labels[-1] if labels else None
    address = _full_address(block_type, labels, body)
    provider = _text(attributes["provider"]) if "provider" in attributes else None
    if provider is None and resource_type:
        provider = resource_type.partition("_")[0]
    elif block_type == "provider":
        provider = name
    return TerraformBlock(
        path=path,
        line=offset + node.start_point[0] + 1,
        address=_cut(address),
        block_type=block_type[:64],
        resource_type=resource_type[:256] if resource_type else None,
        name=name[:256] if name else None,
        module=str(PurePosixPath(path).parent),
        provider=provider[:128] if provider else None,
        references=sorted({reference for reference in _references(node) if reference != address}),
        labels=_labels(attributes.get("labels")),
        attributes=expressions.attributes(block_type, name, body),
        blob=blob,
        has_error=node.has_error,
        commit_sha=commit,
    )


def _words(node: tree_sitter.Node) -> tuple[str, list[str]] | None:
    """A block's type and its labels."""
    words = [_text(child).strip('"') for child in node.children if child.type in ("identifier", "string_lit")]
    return (words[0], words[1:]) if words else None


def _body(node: tree_sitter.Node) -> tree_sitter.Node | None:
    return next((child for child in node.children if child.type == "body"), None)


def _full_address(block_type: str, labels: list[str], body: tree_sitter.Node | None) -> str:
    address = _address(block_type, labels)
    if block_type == "provider" and (alias := _attributes(body).get("alias")) is not None:
        address += "." + _text(alias).strip('"')
    return address


def _cut(address: str) -> str:
    return address.encode()[:512].decode("utf-8", "ignore")


def _address(block_type: str, labels: list[str]) -> str:
    if block_type == "resource" and labels:
        return ".".join(labels)
    return ".".join([_LABELLED.get(block_type, block_type), *labels])


def _attributes(body: tree_sitter.Node | None) -> dict[str, tree_sitter.Node]:
    found = {}
    for child in body.children if body is not None else []:
        if child.type == "attribute" and len(child.named_children) == 2:
            found[_text(child.named_children[0])] = child.named_children[1]
    return found


def _labels(expression: tree_sitter.Node | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    for element in _descendants(expression) if expression is not None else ():
        if element.type == "object_elem":
            key, value = element.child_by_field_name("key"), element.child_by_field_name("val")
            if key is not None and value is not None:
                labels[_text(key).strip('"')] = _text(value).strip('"')
    return labels


def _references(node: tree_sitter.Node) -> Iterator[str]:
    for expression in _descendants(node):
        if expression.type != "expression" or not expression.named_children:
            continue
        first, *rest = expression.named_children
        if first.type != "variable_expr":
            continue
        parts = [_text(first)]
        for step in rest:
            if step.type != "get_attr":
                break
            parts.append(_text(step).lstrip("."))
        wanted = 3 if parts[0] == "data" else 2
        # A resource type has its provider's prefix (google_…); a name without one is a variable of a for expression.
        if len(parts) >= wanted and (parts[0] in _SCOPES or "_" in parts[0]):
            yield ".".join(parts[:wanted])


def _descendants(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(current.children)


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode("utf-8", "replace").replace("\0", "")
