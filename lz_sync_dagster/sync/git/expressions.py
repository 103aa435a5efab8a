"""What a terraform block says, as JSON (`sync.drift.hcl`): literals as they are, the rest in a form that says what it
would take to know it. Secrets are removed, and the size of a block is bounded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tree_sitter

from lz_sync_dagster.sync.drift import hcl
from lz_sync_dagster.sync.state.redaction import redact, redact_text

#: Values that are kept of a block; what comes after is not.
MAX_VALUES = 1_500
#: Characters that are kept of a block's texts, and of one text.
MAX_CHARACTERS = 32_000
MAX_TEXT = 2_048
#: How deep values may be nested: an expression of the form adds up to three levels to each of its own.
MAX_DEPTH = 20
#: Characters of an expression that is quoted since it is not kept.
_QUOTED = 120

_CUT = "more than is kept of a block"
_ESCAPE = re.compile(r'\\(?:([nrt"\\])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))|\$\$\{|%%\{')
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_BINARY = frozenset({"==", "!=", "&&", "||"})
#: Parts of a resource block that say nothing of the resource.
_SKIPPED = frozenset({"depends_on", "provisioner", "connection", "timeouts"})
_OF_PROVIDERS = frozenset({"alias", "project", "region", "zone"})


def attributes(block_type: str, name: str | None, body: tree_sitter.Node | None) -> dict[str, Any]:
    """What a block says, redacted: arguments and nested blocks of a resource, data source or module; ``project``,
    ``region``, ``zone`` and ``alias`` of a provider; ``default`` of a variable, ``value`` of an output; every local.
    Nothing of other blocks."""
    if body is None:
        return {}
    reader = _Reader()
    if block_type in ("resource", "data", "module", "locals"):
        skipped = frozenset() if block_type == "locals" else _SKIPPED
        return _redacted(reader.body(body, skipped=skipped))
    if block_type == "provider":
        return _redacted({key: value for key, value in reader.body(body).items() if key in _OF_PROVIDERS})
    if block_type in ("variable", "output"):
        found = reader.body(body)
        key = "default" if block_type == "variable" else "value"
        if key not in found:
            return {}
        if found.get("sensitive") is True:
            return {key: hcl.unresolved(hcl.WITHHELD)}
        # What a value may hold is told by the name of its variable.
        return {key: _redacted({name or key: found[key]})[name or key]}
    return {}


@dataclass(frozen=True, slots=True)
class _Expression:
    """A value that is no literal. ``literals``: the texts in it, for the redaction to judge."""

    form: dict[str, Any]
    literals: str = ""


class _Reader:
    """Reads one block; what is over its limits becomes an expression that says so."""

    def __init__(self) -> None:
        self._values = MAX_VALUES
        self._characters = MAX_CHARACTERS

    def body(self, node: tree_sitter.Node, depth: int = 0, skipped: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The arguments and nested blocks of a body."""
        found: dict[str, Any] = {}
        if depth > MAX_DEPTH:
            return found
        for child in node.children:
            if child.type == "attribute" and len(child.named_children) == 2:
                name = _text(child.named_children[0])
                if name not in skipped and self._afford(name):
                    found[name] = self.value(child.named_children[1], depth + 1)
            elif child.type == "block":
                words = [_text(part).strip('"') for part in child.children if part.type in ("identifier", "string_lit")]
                if not words or words[0] in skipped:
                    continue
                if words[0] == "dynamic" and len(words) > 1:
                    found[words[1]] = _Expression(hcl.unresolved(f"dynamic block {words[1]}"))
                elif self._afford(words[0]):
                    self._nested(found, words, child, depth)
        return found

    def _nested(self, found: dict[str, Any], words: list[str], block: tree_sitter.Node, depth: int) -> None:
        known = found.setdefault(words[0], [])
        if isinstance(known, list):
            body = next((part for part in block.children if part.type == "body"), None)
            known.append({} if body is None else self.body(body, depth + 2))

    def value(self, node: tree_sitter.Node, depth: int) -> Any:
        """A literal, a list or object of values, or an `_Expression`."""
        if depth > MAX_DEPTH or not self._afford():
            return _Expression(hcl.unresolved(_CUT))
        kind, parts = node.type, node.named_children
        while kind == "expression" and len(parts) == 1:  # brackets, or the one wrapper that every value has
            node = parts[0]
            kind, parts = node.type, node.named_children
        if kind == "literal_value" and len(parts) == 1:
            return self._literal(parts[0])
        if kind == "variable_expr":
            return self._reference(node, [node], depth)
        parts = [part for part in parts if part.type != "comment"]
        if kind == "expression":
            return self.value(parts[0], depth) if len(parts) == 1 else self._reference(node, parts, depth)
        if kind == "template_expr" and len(parts) == 1:
            return self._template(parts[0], depth)
        if kind == "collection_value" and len(parts) == 1:
            if parts[0].type == "tuple":
                items = [part for part in parts[0].named_children if part.type == "expression"]
                return [self.value(item, depth + 1) for item in items]
            return self._object(parts[0], depth)
        if kind == "function_call" and parts:
            return self._call(node, parts, depth)
        if kind == "conditional" and len(parts) == 3:
            chosen = [self.value(part, depth + 1) for part in parts]
            return _combined({hcl.CONDITIONAL: chosen})
        if kind == "operation" and len(parts) == 1:
            return self._operation(parts[0], depth)
        return _quoted(node)

    def _literal(self, node: tree_sitter.Node) -> Any:
        text = _text(node)
        if node.type == "string_lit":
            return self._cut(_unescaped(text[1:-1]))
        if node.type == "numeric_lit":
            return _number(text)
        if node.type == "bool_lit":
            return text == "true"
        return None if node.type == "null_lit" else _quoted(node)

    def _cut(self, text: str) -> Any:
        if len(text) > MAX_TEXT or not self._afford(text):
            return _Expression(hcl.unresolved(f"a text of {len(text)} characters"))
        return text

    def _template(self, node: tree_sitter.Node, depth: int) -> Any:
        if node.type == "heredoc_template":
            if any(part.type in ("template_interpolation", "template_directive") for part in node.children):
                # The grammar does not keep the spaces around what is in a heredoc.
                return _Expression(hcl.unresolved("a text with expressions in it"), redact_text(_text(node)))
            return self._cut(_heredoc(_text(node)))
        data, start = node.text or b"", node.start_byte
        parts: list[Any] = []
        place = 1
        for part in node.children:
            if part.type not in ("template_interpolation", "template_directive"):
                continue
            inner = [child for child in part.named_children if child.type == "expression"]
            marks = {child.type: _text(child) for child in part.children}
            plain = marks.get("template_interpolation_start") == "${" and marks.get("template_interpolation_end") == "}"
            if part.type == "template_directive" or not plain or len(inner) != 1:
                return _Expression(hcl.unresolved(_quote(node)), _text(node))
            parts += [_unescaped(_decoded(data[place : part.start_byte - start])), self.value(inner[0], depth + 2)]
            place = part.end_byte - start
        parts.append(_unescaped(_decoded(data[place:-1])))
        parts = [part for part in parts if part != ""]
        if len("".join(part for part in parts if isinstance(part, str))) > MAX_TEXT:
            return _Expression(hcl.unresolved("a long text with expressions in it"))
        if all(isinstance(part, str) for part in parts):
            return self._cut("".join(parts))
        return parts[0] if len(parts) == 1 else _combined({hcl.TEMPLATE: parts})

    def _reference(self, node: tree_sitter.Node, parts: list[tree_sitter.Node], depth: int) -> Any:
        if not parts or parts[0].type != "variable_expr":
            return _quoted(node)
        steps: list[Any] = [_text(parts[0])]
        for part in parts[1:]:
            if part.type == "get_attr":
                steps.append(_text(part).lstrip(".").strip())
            elif part.type == "index" and part.named_children:
                index = part.named_children[0]
                inner = [child for child in index.named_children if child.type == "expression"]
                if index.type == "new_index" and len(inner) == 1:
                    steps.append([self.value(inner[0], depth + 2)])
                elif index.type == "legacy_index" and _text(index).lstrip(".").isdigit():
                    steps.append([int(_text(index).lstrip("."))])
                else:
                    return _quoted(node)
            else:
                return _quoted(node)
        return _combined({hcl.REF: steps})

    def _object(self, node: tree_sitter.Node, depth: int) -> Any:
        pairs: list[list[Any]] = []
        for element in node.named_children:
            if element.type != "object_elem":
                continue
            key, value = element.child_by_field_name("key"), element.child_by_field_name("val")
            if key is not None and value is not None:
                pairs.append([self._key(key, depth + 1), self.value(value, depth + 1)])
        keys = [key for key, _ in pairs]
        if all(isinstance(key, str) and not key.startswith(hcl.MARK) for key in keys) and len(set(keys)) == len(keys):
            return dict(pairs)
        return _combined({hcl.OBJECT: pairs})

    def _key(self, node: tree_sitter.Node, depth: int) -> Any:
        """A bare word is a text; in parentheses it is a reference."""
        inner = node.named_children
        if node.type == "expression" and not _text(node).startswith("("):
            if len(inner) == 1 and inner[0].type == "variable_expr":
                return self._cut(_text(node))
            if inner and inner[0].type == "variable_expr":
                return _quoted(node)
        key = self.value(node, depth)
        return str(key) if isinstance(key, int) and not isinstance(key, bool) else key

    def _call(self, node: tree_sitter.Node, parts: list[tree_sitter.Node], depth: int) -> Any:
        arguments = [part for part in parts if part.type == "function_arguments"]
        inner = arguments[0].children if arguments else []
        if any(part.type == "ellipsis" for part in inner) or parts[0].type != "identifier":
            return _quoted(node)
        values = [self.value(part, depth + 2) for part in inner if part.type == "expression"]
        return _combined({hcl.CALL: _text(parts[0]), hcl.ARGUMENTS: values})

    def _operation(self, node: tree_sitter.Node, depth: int) -> Any:
        sign = next((_text(child) for child in node.children if not child.is_named), "")
        operands = _operands(node)
        if node.type == "unary_operation" and len(operands) == 1:
            value = self._operand(operands[0], depth + 2)
            if sign == "-" and isinstance(value, int | float) and not isinstance(value, bool):
                return -value
            if sign == "!":
                return _combined({hcl.OPERATION: sign, hcl.ARGUMENTS: [value]})
        elif sign in _BINARY and len(operands) == 2:
            values = [self._operand(operand, depth + 2) for operand in operands]
            return _combined({hcl.OPERATION: sign, hcl.ARGUMENTS: values})
        return _quoted(node)

    def _operand(self, nodes: list[tree_sitter.Node], depth: int) -> Any:
        if len(nodes) == 1 and nodes[0].type != "variable_expr":
            return self.value(nodes[0], depth)
        return self._reference(nodes[0], nodes, depth)

    def _afford(self, text: str = "") -> bool:
        self._values -= 1
        self._characters -= len(text)
        return self._values >= 0 and self._characters >= 0


def _operands(node: tree_sitter.Node) -> list[list[tree_sitter.Node]]:
    """The operands of an operation: the grammar does not bracket them, the sign is between them."""
    groups: list[list[tree_sitter.Node]] = [[]]
    for child in node.children:
        if child.is_named:
            groups[-1].append(child)
        else:
            groups.append([])
    return [group for group in groups if group]


def _combined(form: dict[str, Any]) -> _Expression:
    """An expression made of values: its form has theirs."""
    literals: list[str] = []
    return _Expression(_form(form, literals), "\n".join(literals))


def _form(value: Any, literals: list[str]) -> Any:
    if isinstance(value, _Expression):
        if value.literals:
            literals.append(value.literals)
        return value.form
    if isinstance(value, Mapping):
        is_reference = hcl.REF in value
        return {
            key: item
            if key in (hcl.CALL, hcl.OPERATION)
            else _steps(item, literals)
            if is_reference
            else _form(item, literals)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_form(item, literals) for item in value]
    if isinstance(value, str):
        literals.append(value)
    return value


def _steps(steps: list[Any], literals: list[str]) -> list[Any]:
    """The steps of a reference: names are no texts that could be secret."""
    return [step if isinstance(step, str) else _form(step, literals) for step in steps]


def _quoted(node: tree_sitter.Node) -> _Expression:
    return _Expression(hcl.unresolved(_quote(node)), _text(node))


def _quote(node: tree_sitter.Node) -> str:
    text = redact_text(" ".join(_text(node).split()))
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def _redacted(tree: dict[str, Any]) -> dict[str, Any]:
    """The form of values without what looks like a secret, also within an expression."""
    if not tree:
        return tree
    clean, _ = redact(_probe(tree))
    merged: dict[str, Any] = _merged(tree, clean)
    return merged


def _probe(value: Any) -> Any:
    if isinstance(value, _Expression):
        return value.literals
    if isinstance(value, dict):
        return {key: _probe(item) for key, item in value.items()}
    return [_probe(item) for item in value] if isinstance(value, list) else value


def _merged(value: Any, clean: Any) -> Any:
    if isinstance(value, _Expression):
        return value.form if clean == value.literals else hcl.unresolved(hcl.WITHHELD)
    if isinstance(value, dict) and isinstance(clean, dict):
        return {key: _merged(value[key], item) for key, item in clean.items()}
    if isinstance(value, list) and isinstance(clean, list):
        return [_merged(one, other) for one, other in zip(value, clean, strict=True)]
    return clean


def _number(text: str) -> Any:
    try:
        number = int(text) if text.isdigit() else float(text)
    except ValueError:
        return _Expression(hcl.unresolved(text[:_QUOTED]))
    if not math.isfinite(number) or abs(number) >= 2**63:
        return _Expression(hcl.unresolved(text[:_QUOTED]))
    return number


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text).replace("\0", "\ufffd") if "\\" in text or "{" in text else text


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return _ESCAPED[match[1]]
    code = match[2] or match[3]
    if code is None:
        return match[0][1:]
    number = int(code, 16)
    return "\ufffd" if 0xD800 <= number < 0xE000 or number > 0x10FFFF else chr(number)


def _heredoc(text: str) -> str:
    first, *lines = text.replace("\r\n", "\n").split("\n")
    lines = lines[:-1]
    if first.startswith("<<-"):
        indent = min((len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()), default=0)
        lines = [line[indent:] for line in lines]
    return "".join(f"{line}\n" for line in lines).replace("$${", "${").replace("%%{", "%{")


def _decoded(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return text.replace("\0", "") if "\0" in text else text


def _text(node: tree_sitter.Node) -> str:
    return _decoded(node.text or b"")
