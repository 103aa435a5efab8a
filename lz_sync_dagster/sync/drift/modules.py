"""From the blocks of all terraform files to instances with addresses: root modules, the local modules that they call,
``count`` and ``for_each``. Pure: the same blocks in any order give the same instances.

A root module is a folder that no local module call points to. Its variables are set when terraform runs, so nothing
that depends on them is known, whatever their defaults are. A called module has its variables from the call, and those
that the call leaves out from their defaults.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lz_sync_dagster.sync.drift import hcl
from lz_sync_dagster.sync.drift.expressions import Unknown, evaluate, follow, text, unknown_in
from lz_sync_dagster.sync.drift.mapping import computed
from lz_sync_dagster.sync.store.repository import TerraformBlock

#: Instances that one ``count`` or ``for_each`` may have, and all blocks together.
MAX_INSTANCES_OF_BLOCK = 1_000
MAX_INSTANCES = 100_000
#: Modules below modules, and references that lead to references.
MAX_MODULE_DEPTH = 12
MAX_REFERENCE_DEPTH = 40
#: Values, and each 64 characters of texts, that what has a name may consist of.
MAX_SIZE = 5_000

#: ``resource_type`` of a module call whose module is not in the repository.
MODULE = "module"

_FROM_ENVIRONMENT = "the provider, which takes it from its environment"
#: What a block says about itself rather than about its resource.
META_ARGUMENTS = frozenset({"count", "for_each", "provider", "lifecycle", "providers", "source", "version"})
#: Folders with such a part in their path are applied by nobody, unless a module call says otherwise.
_LIBRARIES = frozenset({"modules", "examples", "fixtures", "test", "tests"})


@dataclass(frozen=True, slots=True)
class Instance:
    """A resource block, or one instance of it; or a call of a module that is not in the repository.

    Attributes:
        address: as terraform writes it: ``module.spoke["prod"].google_compute_network.spoke``.
        values: what its arguments come to; `Unknown` for what is not certain.
        defaults: ``project``, ``region`` and ``zone`` of its provider.
        doubt: why not even its existence is certain; ``None`` if it is.
    """

    address: str
    block: TerraformBlock
    values: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    doubt: str | None = None


def resolve(blocks: Iterable[TerraformBlock], unread: Iterable[str] = ()) -> list[Instance]:
    """All instances, by path, line and address.

    Args:
        unread: terraform files that could not be read.
    """
    tree = _Tree(blocks, unread)
    found: list[Instance] = []
    for module in tree.roots():
        found += module.instances()
    return sorted(found, key=lambda item: (item.block.path, item.block.line, item.address, item.doubt or ""))


class _Folder:
    """The blocks of a folder by address, with what override files change."""

    def __init__(self, blocks: Sequence[TerraformBlock]) -> None:
        self.blocks: dict[str, TerraformBlock] = {}
        self.locals: dict[str, Any] = {}
        self.repeated: set[str] = set()
        declared: set[str] = set()
        for block in sorted(blocks, key=lambda item: (_overrides(item.path), item.path, item.line, item.address)):
            overrides = _overrides(block.path)
            if block.block_type == "locals":
                self._add_locals(block, declared, overrides=overrides)
            elif block.address not in self.blocks:
                self.blocks[block.address] = block
            elif overrides:
                base = self.blocks[block.address]
                self.blocks[block.address] = replace(
                    base,
                    attributes={**base.attributes, **block.attributes},
                    has_error=base.has_error or block.has_error,
                )
            else:
                self.repeated.add(block.address)

    def _add_locals(self, block: TerraformBlock, declared: set[str], *, overrides: bool) -> None:
        for name, form in block.attributes.items():
            if block.has_error:
                self.locals[name] = hcl.unresolved(f"local.{name}, which could be read only in part")
            elif name in declared and not overrides:
                self.locals[name] = hcl.unresolved(f"local.{name}, which is declared more than once")
            else:
                self.locals[name] = form
            declared.add(name)

    def of_type(self, block_type: str) -> list[TerraformBlock]:
        return sorted(
            (block for block in self.blocks.values() if block.block_type == block_type),
            key=lambda block: (block.path, block.line, block.address),
        )

    def doubt(self, block: TerraformBlock) -> str | None:
        if block.has_error:
            return "the block could be read only in part"
        return "the address is declared more than once in its folder" if block.address in self.repeated else None


def _overrides(path: str) -> bool:
    name = posixpath.basename(path)
    return name == "override.tf" or name.endswith("_override.tf")


class _Tree:
    """The folders of a repository, and which calls which."""

    def __init__(self, blocks: Iterable[TerraformBlock], unread: Iterable[str]) -> None:
        self.unread = frozenset(posixpath.dirname(path) or "." for path in unread)
        #: Files that may change what any other of their folder says.
        self.overriding = {posixpath.dirname(path) or ".": path for path in sorted(unread) if _overrides(path)}
        grouped: dict[str, list[TerraformBlock]] = {}
        for block in blocks:
            grouped.setdefault(posixpath.normpath(block.module), []).append(block)
        self.folders = {name: _Folder(items) for name, items in sorted(grouped.items())}
        self.called = {
            target
            for name, folder in self.folders.items()
            for call in folder.of_type(MODULE)
            if (target := _target(name, call)) is not None and target != name
        }
        self.visited: set[str] = set()
        self.left = MAX_INSTANCES

    def roots(self) -> Iterator[_Module]:
        for name in self.folders:
            if name not in self.called:
                is_library = not _LIBRARIES.isdisjoint(name.split("/"))
                doubt = f"no module call in the repository uses {name}" if is_library else None
                yield _Module(self, name, doubt=doubt)
        for name in self.folders:  # what is left calls itself in a circle
            if name not in self.visited:
                yield _Module(self, name, doubt="its modules call each other in a circle")


def _target(folder: str, call: TerraformBlock) -> str | None:
    """The folder that a module call points to; ``None`` if it is none of the repository."""
    source = call.attributes.get("source")
    if not isinstance(source, str) or not source.startswith(("./", "../")):
        return None
    target = posixpath.normpath(posixpath.join(folder, source))
    return None if target == ".." or target.startswith("../") else target


@dataclass(frozen=True, slots=True)
class _Each:
    """One instance of a block: its suffix in the address, its key, and what ``each`` and ``count`` are in it."""

    suffix: str = ""
    key: Any = None
    names: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Expansion:
    instances: list[_Each]
    doubt: str | None = None


class _Module:
    """A module as it is called from one place."""

    def __init__(
        self,
        tree: _Tree,
        name: str,
        *,
        prefix: str = "",
        caller: _Module | None = None,
        call: TerraformBlock | None = None,
        each: _Each | None = None,
        doubt: str | None = None,
    ) -> None:
        self.tree, self.name, self.prefix = tree, name, prefix
        self.caller, self.call, self.each = caller, call, each or _Each()
        overriding = tree.overriding.get(name)
        self.doubt = doubt or (overriding and f"{overriding} could not be read, and may change what the block says")
        self.folder = tree.folders[name]
        self.depth: int = 0 if caller is None else caller.depth + 1
        self._values: dict[Any, Any] = {}
        self._active: set[Any] = set()
        self._expansions: dict[str, _Expansion] = {}
        self._children: dict[str, dict[str, _Module]] = {}
        tree.visited.add(name)

    def instances(self) -> Iterator[Instance]:
        """Those of this module's own blocks, then those of the modules that it calls."""
        for block in self.folder.of_type("resource"):
            yield from self._of_block(block)
        for call in self.folder.of_type(MODULE):
            why = self._why_not_here(call)
            if why is not None:
                yield Instance(self.prefix + call.address, call, doubt=why)
                continue
            children = self.children(call)
            if self.tree.left < 0:
                yield Instance(self.prefix + call.address, call, doubt=self._why_not_here(call))
                continue
            for child in children.values():
                yield from child.instances()

    def _of_block(self, block: TerraformBlock) -> Iterator[Instance]:
        expansion = self.expansion(block)
        doubt = self.doubt or self.folder.doubt(block) or expansion.doubt
        for each in expansion.instances:
            self.tree.left -= 1
            if self.tree.left < 0:
                yield Instance(self.prefix + block.address, block, doubt="the repository has too many instances")
                return
            values = {
                name: self.evaluate(form, each)
                for name, form in sorted(block.attributes.items())
                if name not in META_ARGUMENTS
            }
            values = {name: value for name, value in values.items() if value is not None}
            defaults = self.provider(block)
            lifecycle = block.attributes.get("lifecycle")
            if isinstance(lifecycle, list):
                values["lifecycle"] = lifecycle
            yield Instance(self.prefix + block.address + each.suffix, block, values, defaults, doubt)

    def _why_not_here(self, call: TerraformBlock) -> str | None:
        source = call.attributes.get("source")
        if not isinstance(source, str):
            return self.folder.doubt(call) or "the source of the module could not be read"
        if not source.startswith(("./", "../")):
            return f"module source {source[:200]} is not in the repository: what it makes is not known"
        target = _target(self.name, call)
        if target is None:
            return f"module source {source[:200]} leads out of the repository"
        if target not in self.tree.folders:
            return f"no terraform file was read in {target}"
        if self.tree.left < 0:
            return "the repository has too many instances"
        if target in self._chain() or self.depth >= MAX_MODULE_DEPTH:
            return "its modules call each other in a circle, or too deeply"
        return None

    def _chain(self) -> Iterator[str]:
        module: _Module | None = self
        while module is not None:
            yield module.name
            module = module.caller

    def children(self, call: TerraformBlock) -> dict[str, _Module]:
        """The modules that a call makes, by the suffix of their address."""
        if call.address not in self._children:
            target = _target(self.name, call)
            made: dict[str, _Module] = {}
            if target is not None and self._why_not_here(call) is None:
                expansion = self.expansion(call)
                doubt = self.doubt or self.folder.doubt(call)
                if doubt is None and expansion.doubt is not None:
                    doubt = f"of {self.prefix}{call.address}, {expansion.doubt}"
                self.tree.left -= len(expansion.instances)
                for each in expansion.instances:
                    prefix = f"{self.prefix}{call.address}{each.suffix}."
                    made[each.suffix] = _Module(
                        self.tree, target, prefix=prefix, caller=self, call=call, each=each, doubt=doubt
                    )
            self._children[call.address] = made
        return self._children[call.address]

    def expansion(self, block: TerraformBlock) -> _Expansion:
        """The instances that ``count`` or ``for_each`` of a block give it."""
        known = self._expansions.get(block.address)
        if known is None:
            known = self._guarded(("expansion", block.address), lambda: self._expansion(block))
            if isinstance(known, Unknown):
                return _unsure(f"count or for_each comes from {known.reason}")
            self._expansions[block.address] = known
        return known

    def _expansion(self, block: TerraformBlock) -> _Expansion:
        if "count" in block.attributes:
            count = self.evaluate(block.attributes["count"], _Each())
            if isinstance(count, Unknown):
                return _unsure(f"count comes from {count.reason}")
            digits = text(count)
            if digits is None or not digits.isdigit() or int(digits) > MAX_INSTANCES_OF_BLOCK:
                return _unsure("count is no number of instances, or too large a one")
            return _Expansion([_Each(f"[{n}]", n, {"count.index": n}) for n in range(int(digits))])
        if "for_each" in block.attributes:
            over = self.evaluate(block.attributes["for_each"], _Each())
            if isinstance(over, Unknown):
                return _unsure(f"for_each over {over.reason}")
            if isinstance(over, list):
                unknown = unknown_in(over)
                if unknown is not None:
                    return _unsure(f"for_each over {unknown.reason}")
                texts = [item for item in over if isinstance(item, str)]
                over = {item: item for item in texts} if len(texts) == len(over) else None
            if not isinstance(over, Mapping) or len(over) > MAX_INSTANCES_OF_BLOCK:
                return _unsure("for_each is over no set or map of texts, or too large a one")
            return _Expansion(
                [
                    _Each(f"[{json.dumps(key, ensure_ascii=False)}]", key, {"each.key": key, "each.value": value})
                    for key, value in sorted(over.items())
                ]
            )
        return _Expansion([_Each()])

    def evaluate(self, form: Any, each: _Each) -> Any:
        """What an expression of this module comes to, within one instance of a block."""
        try:
            return evaluate(form, lambda steps: self._refer(steps, each))
        except RecursionError:
            return Unknown("an expression that is nested too deeply")

    def _refer(self, steps: Sequence[Any], each: _Each) -> Any:
        scope, *rest = steps
        name = rest[0] if rest and isinstance(rest[0], str) else None
        if scope in ("each", "count") and name is not None:
            full = f"{scope}.{name}"
            if full in each.names:
                return follow(each.names[full], rest[1:], full)
            return Unknown(full)
        if scope == "var" and name is not None:
            return follow(self.variable(name), rest[1:], f"var.{name}")
        if scope == "local" and name is not None:
            return follow(self.local(name), rest[1:], f"local.{name}")
        if scope == MODULE and name is not None:
            return self._output(name, rest[1:])
        if scope == "data" and len(rest) > 1 and isinstance(rest[0], str) and isinstance(rest[1], str):
            return self._resource(f"data.{rest[0]}.{rest[1]}", rest[2:])
        if "_" in str(scope) and name is not None:
            return self._resource(f"{scope}.{name}", rest[1:])
        return Unknown(".".join(str(step[0] if isinstance(step, list) else step) for step in steps))

    def variable(self, name: str) -> Any:
        """A variable: what the call says, else its default; unknown in a root module."""
        address = f"var.{name}"
        if self.caller is None or self.call is None:
            return Unknown(f"{address}, which is set when terraform runs")
        if name in self.call.attributes and name not in META_ARGUMENTS:
            caller, form = self.caller, self.call.attributes[name]
            value = self._guarded(address, lambda: caller.evaluate(form, self.each))
            # null may mean the default, which is for the type of the variable to say.
            return Unknown(f"{address}, which is null") if value is None else value
        block = self.folder.blocks.get(address)
        if block is None or "default" not in block.attributes or self.folder.doubt(block) is not None:
            return Unknown(f"{address}, which has no value that could be read")
        return self._guarded(address, lambda: self.evaluate(block.attributes["default"], _Each()))

    def local(self, name: str) -> Any:
        """A local value."""
        if name not in self.folder.locals:
            return Unknown(f"local.{name}, which no file that was read declares")
        return self._guarded(f"local.{name}", lambda: self.evaluate(self.folder.locals[name], _Each()))

    def _output(self, name: str, rest: Sequence[Any]) -> Any:
        address = f"module.{name}"
        call = self.folder.blocks.get(address)
        if call is None or self.folder.doubt(call) is not None:
            return Unknown(f"{address}, which could not be read")
        if self._why_not_here(call) is not None:
            return Unknown(f"{address}, whose source is not in the repository")
        each, rest, why = self._choose(call, rest)
        if each is None:
            return Unknown(why)
        child = self.children(call).get(each.suffix)
        if child is None or not rest or not isinstance(rest[0], str):
            return Unknown(f"{address} as a whole")
        full = f"{address}.{rest[0]}"
        output = child.folder.blocks.get(f"output.{rest[0]}")
        if output is None or "value" not in output.attributes or child.folder.doubt(output) is not None:
            return Unknown(f"{full}, which could not be read")
        form = output.attributes["value"]
        value = child._guarded(output.address, lambda: child.evaluate(form, _Each()))
        return follow(value, rest[1:], full)

    def _resource(self, address: str, rest: Sequence[Any]) -> Any:
        """An attribute of a resource or data source: what its block says, else what follows from it."""
        block = self.folder.blocks.get(address)
        if block is None or self.folder.doubt(block) is not None:
            return Unknown(f"{address}, which could not be read")
        each, rest, why = self._choose(block, rest)
        if each is None:
            return Unknown(why)
        if not rest or not isinstance(rest[0], str):
            return Unknown(f"{address} as a whole")
        return follow(self._attribute(block, each, rest[0]), rest[1:], f"{address}.{rest[0]}")

    def _attribute(self, block: TerraformBlock, each: _Each, name: str) -> Any:
        def argument(name: str) -> Any:
            if name not in block.attributes or name in META_ARGUMENTS:
                return None
            form = block.attributes[name]
            return self._guarded((block.address, each.suffix, name), lambda: self.evaluate(form, each))

        own = argument(name)
        if own is not None:
            return own
        known = computed(block.resource_type or "", name, argument, self.provider(block))
        if known is None:
            when = "is read" if block.block_type == "data" else "is known"
            return Unknown(f"{block.address}.{name}, which {when} when terraform runs")
        return known

    def _choose(self, block: TerraformBlock, rest: Sequence[Any]) -> tuple[_Each | None, Sequence[Any], str]:
        """The instance of a block that a reference means, what is left of the reference, or why it is not known."""
        expansion = self.expansion(block)
        if expansion.doubt is not None:
            return None, rest, f"{block.address}, of which {expansion.doubt}"
        if not {"count", "for_each"} & block.attributes.keys():
            return expansion.instances[0], rest, ""
        if rest and isinstance(rest[0], list):
            key = rest[0][0]
            if isinstance(key, Unknown):
                return None, rest, key.reason
            for each in expansion.instances:
                if each.key == key and not isinstance(key, bool):
                    return each, rest[1:], ""
        return None, rest, f"{block.address}, of which there may be several"

    def provider(self, block: TerraformBlock) -> dict[str, Any]:
        """``project``, ``region`` and ``zone`` that the provider of a block gives it."""
        chosen = block.attributes.get("provider")
        if chosen is None:
            return self._settings((block.resource_type or "").partition("_")[0], "")
        if isinstance(chosen, Mapping) and isinstance(chosen.get(hcl.REF), list):
            steps = chosen[hcl.REF]
            if len(steps) <= 2 and all(isinstance(step, str) for step in steps):
                return self._settings(steps[0], steps[1] if len(steps) > 1 else "")
        return dict.fromkeys(("project", "region", "zone"), Unknown("a provider that could not be read"))

    def _settings(self, name: str, alias: str) -> dict[str, Any]:
        key = ("provider", name, alias)
        settings: dict[str, Any] = self._guarded(key, lambda: self._provider_settings(name, alias))
        if isinstance(settings, Unknown):
            return dict.fromkeys(("project", "region", "zone"), settings)
        return settings

    def _provider_settings(self, name: str, alias: str) -> dict[str, Any]:
        block = self.folder.blocks.get(f"provider.{name}.{alias}" if alias else f"provider.{name}")
        if block is not None:
            if (why := self.folder.doubt(block)) is not None:
                return dict.fromkeys(("project", "region", "zone"), Unknown(f"a provider: {why}"))
            found: dict[str, Any] = {}
            for item in ("project", "region", "zone"):
                value = self.evaluate(block.attributes[item], _Each()) if item in block.attributes else None
                found[item] = Unknown(_FROM_ENVIRONMENT) if value is None else value
            return found
        if self.caller is not None and self.call is not None:
            passed = _passed_providers(self.call)
            if passed is None:
                return dict.fromkeys(("project", "region", "zone"), Unknown("providers that could not be read"))
            if (name, alias) in passed:
                return self.caller._settings(*passed[name, alias])
            if not alias and self.name not in self.tree.unread:  # else a file may have a provider of its own
                return self.caller._settings(name, "")
        return dict.fromkeys(("project", "region", "zone"), Unknown(_FROM_ENVIRONMENT))

    def _guarded(self, key: Any, make: Any) -> Any:
        """A value that is made once. One that needs itself, or too many others, is unknown."""
        if key in self._values:
            return self._values[key]
        if key in self._active:
            return Unknown("a circle of references")
        if len(self._active) + self._depth_above() > MAX_REFERENCE_DEPTH:
            return Unknown("a chain of references that is too long")
        self._active.add(key)
        try:
            value = make()
        finally:
            self._active.discard(key)
        if _size(value, MAX_SIZE) > MAX_SIZE:
            value = Unknown("a value that is too large")
        self._values[key] = value
        return value

    def _depth_above(self) -> int:
        total, module = 0, self.caller
        while module is not None:
            total += len(module._active)
            module = module.caller
        return total


def _size(value: Any, limit: int) -> int:
    """How large a value is, or something above the limit: references let small texts stand for huge values."""
    if isinstance(value, str):
        return 1 + len(value) // 64
    total = 1
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        total += _size(item, limit - total)
        if total > limit:
            break
    return total


def _unsure(why: str) -> _Expansion:
    unknown = Unknown(why)
    return _Expansion([_Each(names=dict.fromkeys(("each.key", "each.value", "count.index"), unknown))], why)


def _passed_providers(call: TerraformBlock) -> dict[tuple[str, str], tuple[str, str]] | None:
    """``providers = { google.eu = google.other }``: which of the caller's a module gets under which name."""
    form = call.attributes.get("providers")
    if form is None:
        return {}
    if not isinstance(form, Mapping):
        return None
    pairs = form.get(hcl.OBJECT, None)
    passed: dict[tuple[str, str], tuple[str, str]] = {}
    for key, value in pairs if pairs is not None else form.items():
        inner = key.get(hcl.UNRESOLVED) if isinstance(key, Mapping) else key
        outer = value.get(hcl.REF) if isinstance(value, Mapping) else None
        if not isinstance(inner, str) or not isinstance(outer, list) or not all(isinstance(s, str) for s in outer):
            return None
        name, _, alias = inner.partition(".")
        passed[name, alias] = (outer[0], outer[1] if len(outer) > 1 else "")
    return passed
