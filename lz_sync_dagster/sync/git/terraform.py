"""Reads terraform files with tree-sitter: what parses is kept, a broken part is marked and costs only its own block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import tree_sitter
import tree_sitter_hcl

from lz_sync_dagster.sync.store.repository import TerraformBlock

_LANGUAGE = tree_sitter.Language(tree_sitter_hcl.language())
_LABELLED = {"variable": "var", "output": "output", "module": "module", "provider": "provider"}
_BLOCK_START = re.compile(
    rb"^(?:resource|data|module|variable|output|provider|locals|terraform|moved|import|removed|check)\b", re.MULTILINE
)
_SCOPES = frozenset({"var", "local", "module", "data"})


def is_terraform(path: str) -> bool:
    """Whether a file is read as terraform."""
    return path.endswith(".tf")


def read_terraform(path: str, data: bytes, *, blob: str, commit: str) -> list[TerraformBlock]:
    """The top-level blocks of a file, in order."""
    parser = tree_sitter.Parser(_LANGUAGE)
    root = parser.parse(data).root_node
    roots = [(0, root)]
    if root.has_error:
        roots = [(line, parser.parse(part).root_node) for line, part in _parts(data)]
    blocks: dict[tuple[int, str], TerraformBlock] = {}
    for line, part_root in roots:
        for node in _top_blocks(part_root):
            block = _block(node, path, line, blob, commit)
            if block is not None:
                blocks.setdefault((block.line, block.address), block)
    return list(blocks.values())


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
    words = [_text(child).strip('"') for child in node.children if child.type in ("identifier", "string_lit")]
    if not words:
        return None
    block_type, labels = words[0], words[1:]
    body = next((child for child in node.children if child.type == "body"), None)
    attributes = _attributes(body)
    resource_type = labels[0] if block_type in ("resource", "data") and labels else None
    name = labels[-1] if labels else None
    address = _address(block_type, labels)
    if block_type == "provider" and (alias := attributes.get("alias")) is not None:
        address += "." + _text(alias).strip('"')
    provider = _text(attributes["provider"]) if "provider" in attributes else None
    if provider is None and resource_type:
        provider = resource_type.partition("_")[0]
    elif block_type == "provider":
        provider = name
    return TerraformBlock(
        path=path,
        line=offset + node.start_point[0] + 1,
        address=address.encode()[:512].decode("utf-8", "ignore"),
        block_type=block_type[:64],
        resource_type=resource_type[:256] if resource_type else None,
        name=name[:256] if name else None,
        module=str(PurePosixPath(path).parent),
        provider=provider[:128] if provider else None,
        references=sorted({reference for reference in _references(node) if reference != address}),
        labels=_labels(attributes.get("labels")),
        blob=blob,
        has_error=node.has_error,
        commit_sha=commit,
    )


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
