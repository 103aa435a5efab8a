"""The JSON form of terraform's expressions, as `sync.git.expressions` writes it and `sync.drift.expressions` reads it.

A literal is itself. What is none is an object with one of these keys:

- ``{"$ref": ["var", "region"]}``: a reference; its steps are names, or ``[index]`` with a value or an expression.
- ``{"$template": ["hub-", {"$ref": …}]}``: a text with interpolations.
- ``{"$call": "toset", "args": […]}``, ``{"$op": "==", "args": […]}``, ``{"$if": [condition, then, else]}``.
- ``{"$object": [[key, value], …]}``: an object whose keys are expressions, or look like these keys.
- ``{"$unresolved": "cidrsubnet(…)"}``: anything else, in the words of its file, or why it was not kept.

A nested block is a list of objects under its type, whether or not it may occur more than once.
"""

from __future__ import annotations

from typing import Any

REF = "$ref"
TEMPLATE = "$template"
CALL = "$call"
OPERATION = "$op"
CONDITIONAL = "$if"
OBJECT = "$object"
UNRESOLVED = "$unresolved"
ARGUMENTS = "args"

#: What begins a key of this form; an object of the file with such a key is written as ``$object``.
MARK = "$"

#: ``$unresolved`` of what a redaction took.
WITHHELD = "[redacted]"


def unresolved(why: str) -> dict[str, Any]:
    """The form of an expression that was not kept."""
    return {UNRESOLVED: why}
