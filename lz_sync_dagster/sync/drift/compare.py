"""One instance of a terraform block against the inventory. Pure: what is known comes in as a `World`.

Only what is certain on both sides becomes ``matched``, ``changed`` or ``missing``. A resource is found by its full
name, or by fields that identify it; a name alone makes candidates, never a match. It is missing only if its place was
read completely. A difference needs a literal on terraform's side and a field on the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lz_sync_dagster.sync.drift import hcl
from lz_sync_dagster.sync.drift.expressions import Unknown, text, unknown_in
from lz_sync_dagster.sync.drift.mapping import MAPPINGS, NOTHING, Field, Kind, TypeMapping, fill, parts_of
from lz_sync_dagster.sync.drift.modules import MODULE, Instance
from lz_sync_dagster.sync.state.redaction import REDACTED
from lz_sync_dagster.sync.store.terraform_drift import Asset, DriftRow, DriftStatus, Part

#: Candidates, and arguments that were not compared, that a reason names.
NAMED = 5
_REASON = 2_000

_PLACEHOLDER = re.compile(r"\\\{(\w+)\\\}")


@dataclass
class World:
    """What the inventory knows, as far as the instances need it.

    Attributes:
        by_name: existing resources.
        by_key: existing resources by asset type and identifying fields; see `key_of`.
        numbers: project numbers by project id, and ids by number.
        above: for ``projects/ID``, ``folders/N`` and ``organizations/N`` that are known: themselves and what is above.
        parts: coverage.
        leaves: names of existing resources by asset type and the last part of their name.
        unread: terraform files that could not be read.
    """

    by_name: dict[str, Asset] = field(default_factory=dict)
    by_key: dict[tuple[str, tuple[str, ...]], list[Asset]] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    above: dict[str, frozenset[str]] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    leaves: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    unread: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """What an instance says of which resource it is.

    Attributes:
        names, key: its full names, and the identifying fields; those that are known.
        container: the folder, organization or project that it is in.
        missing: why it is not known which resource it is, or whether there is to be one.
        leaf: the last part of its full name.
    """

    mapping: TypeMapping
    parts: Mapping[str, Any]
    names: tuple[str, ...]
    key: tuple[str, ...] | None
    container: str | None
    missing: str | None
    leaf: str | None


def identify(instance: Instance) -> Identity | None:
    """Which resource an instance is; ``None`` if there is no mapping for its type."""
    mapping = MAPPINGS.get(instance.block.resource_type or "")
    if mapping is None:
        return None
    parts = parts_of(mapping, instance.values.get, instance.defaults)
    place = mapping.place
    names = [fill(template, parts) for template in place.names]
    keys = [fill(template, parts) for template in place.key.values()]
    container = fill(place.container, parts)
    unknown = [item for item in (*names, *keys) if isinstance(item, Unknown)]
    missing = instance.doubt or (_missing(mapping, parts) if unknown else None)
    leaf = next((fill(template.rpartition("/")[2], parts) for template in place.names), None)
    return Identity(
        mapping,
        parts,
        tuple(name for name in names if isinstance(name, str)),
        tuple(key for key in keys if isinstance(key, str)) if keys and not unknown else None,
        container if isinstance(container, str) else None,
        missing,
        leaf if isinstance(leaf, str) else None,
    )


def _missing(mapping: TypeMapping, parts: Mapping[str, Any]) -> str:
    """Why it is not known which resource it is, by the first part that is not known."""
    needed = [*mapping.place.names, *mapping.place.key.values()]
    for part, value in parts.items():
        if isinstance(value, Unknown) and any(f"{{{part}}}" in template for template in needed):
            return f"{part.replace('_', ' ')} comes from {value.reason}"
    made = [fill(template, parts) for template in needed]
    reason = next((item.reason for item in made if isinstance(item, Unknown)), "what is not known")
    return f"its name comes from {reason}"


def names_in(identity: Identity, numbers: Mapping[str, str]) -> list[str]:
    """The full names that a resource may have: both sides may write a project by its id or by its number.
    ``numbers``: the other one for each."""
    names = list(identity.names)
    project = identity.parts.get("project")
    other = numbers.get(project) if isinstance(project, str) else None
    if other is not None:
        names += [name.replace(f"/projects/{project}/", f"/projects/{other}/", 1) for name in names]
    return list(dict.fromkeys(names))


def key_of(mapping: TypeMapping, asset: Asset) -> tuple[str, ...] | None:
    """The identifying fields of an asset, as `Identity.key` has them."""
    values = []
    for path in mapping.place.key:
        value = _dig(asset.data or {}, path)
        if path == "parent" and not isinstance(value, str):
            value = asset.ancestors[1] if len(asset.ancestors) > 1 else None
        if not isinstance(value, str):
            return None
        values.append(value)
    return tuple(values)


def _doubted(unread: Sequence[str]) -> str:
    """A file that could not be read may be what calls a module, with a count of none."""
    more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
    return f"not found, but {unread[0]}{more} could not be read, and may say that it is not to be there"


def judge(instance: Instance, world: World) -> DriftRow:
    """What became of an instance."""
    identity = identify(instance)
    kind = instance.block.resource_type or instance.block.block_type
    if identity is None:
        return _row(instance, None, DriftStatus.UNRESOLVED, instance.doubt or _no_mapping(kind))
    asset_type = identity.mapping.asset_type
    if identity.missing is not None:
        return _row(instance, asset_type, DriftStatus.UNRESOLVED, identity.missing + _candidates(identity, world))
    found = _find(identity, world)
    if len(found) > 1:
        named = _some([asset.name for asset in found])
        return _row(instance, asset_type, DriftStatus.UNRESOLVED, f"several resources answer to it: {named}")
    if found:
        differences, notes = compare(identity.mapping, instance.values, found[0])
        status = DriftStatus.CHANGED if differences else DriftStatus.MATCHED
        return _row(instance, asset_type, status, notes, found[0].name, differences)
    unproven = _unproven(identity, world)
    if unproven is not None:
        return _row(instance, asset_type, DriftStatus.UNRESOLVED, unproven)
    if world.unread:
        return _row(instance, asset_type, DriftStatus.UNRESOLVED, _doubted(world.unread))
    called = identity.names[0] if identity.names else ", ".join(identity.key or ())
    return _row(instance, asset_type, DriftStatus.MISSING, f"the inventory has no {called}")


def unresolved(instance: Instance, reason: str) -> DriftRow:
    """The row of an instance of which nothing is certain."""
    mapping = MAPPINGS.get(instance.block.resource_type or "")
    return _row(instance, None if mapping is None else mapping.asset_type, DriftStatus.UNRESOLVED, reason)


def _row(
    instance: Instance,
    asset_type: str | None,
    status: DriftStatus,
    reason: str | None,
    resource: str | None = None,
    differences: list[dict[str, Any]] | None = None,
) -> DriftRow:
    block = instance.block
    if reason is not None and len(reason) > _REASON:
        reason = f"{reason[:_REASON]}…"
    return DriftRow(
        address=instance.address,
        path=block.path,
        line=block.line,
        resource_type=block.resource_type or block.block_type,
        asset_type=asset_type,
        status=status,
        reason=reason,
        resource=resource,
        differences=differences or [],
        commit_sha=block.commit_sha,
    )


def _no_mapping(kind: str) -> str:
    return f"no mapping for {kind}" if kind != MODULE else "what the module makes is not known"


def _find(identity: Identity, world: World) -> list[Asset]:
    asset_type = identity.mapping.asset_type
    named = {
        name: world.by_name[name]
        for name in names_in(identity, world.numbers)
        if name in world.by_name and world.by_name[name].asset_type == asset_type
    }
    if named or identity.key is None:
        return list(named.values())
    return world.by_key.get((asset_type, identity.key), [])


def _candidates(identity: Identity, world: World) -> str:
    """Existing resources that fit what is known of a name."""
    if identity.leaf is None:
        return ""
    known = world.leaves.get(identity.mapping.asset_type, {}).get(identity.leaf, [])
    patterns = [re.compile(_pattern(template, identity.parts)) for template in identity.mapping.place.names]
    fitting = [name for name in known if any(pattern.fullmatch(name) for pattern in patterns)]
    return f"; it may be {_some(fitting)}" if fitting else ""


def _pattern(template: str, parts: Mapping[str, Any]) -> str:
    def part(match: re.Match[str]) -> str:
        value = parts.get(match[1])
        # The inventory may have a project's number where terraform has its id.
        return re.escape(value) if isinstance(value, str) and match[1] != "project" else "[^/]+"

    return _PLACEHOLDER.sub(part, re.escape(template))


def _unproven(identity: Identity, world: World) -> str | None:
    """Why it is not certain that a resource that was not found is missing; ``None`` if it is."""
    asset_type = identity.mapping.asset_type
    container = identity.container
    if container is None:
        reason = next((value.reason for value in identity.parts.values() if isinstance(value, Unknown)), "nowhere")
        return f"not found, and it may lie outside of what is read: where it is comes from {reason}"
    above = world.above.get(container)
    if above is None:
        return f"not found, and {container} is not in the inventory: it may lie outside of what is read"
    covering = [part for part in world.parts if part.asset_type == asset_type and part.scope in above]
    if any(part.proven for part in covering):
        return None
    if not covering:
        return f"not found, and no scope that is read for {asset_type} covers {container}"
    part = covering[0]
    status = part.status if part.reason is None else f"{part.status}, {part.reason}"
    return f"not read completely: {asset_type} in {part.scope} is {status}"


# --- fields -----------------------------------------------------------------------------------------------------------


def compare(mapping: TypeMapping, values: Mapping[str, Any], asset: Asset) -> tuple[list[dict[str, Any]], str | None]:
    """The differences between arguments and an asset, and in words what was not compared."""
    differences: list[dict[str, Any]] = []
    unsure: dict[str, str] = {}
    ignored = _ignored(values.get("lifecycle"))
    data = asset.data
    for item in mapping.fields:
        wanted = _argument(values, item)
        if wanted is NOTHING:
            continue
        if ignored is None or any(_touches(item.argument, name) for name in ignored):
            unsure[item.argument] = "its lifecycle ignores changes"
            continue
        if data is None:
            unsure[item.argument] = "the content of the resource is not kept"
            continue
        actual = next(
            (found for path in item.actual if (found := _dig(data, path)) is not NOTHING and found is not None),
            item.lacking,
        )
        if item.kind is Kind.LABELS:
            _compare_labels(item, wanted, actual, differences, unsure)
        else:
            _compare_field(item, wanted, actual, differences, unsure)
    seen = {item.argument for item in mapping.fields}
    others = sorted(
        path
        for path in _leaves(values)
        if path.split(".")[0] not in {*mapping.identifying, "lifecycle", "project"}
        and not any(path == name or path.startswith(f"{name}.") for name in seen)
    )
    return differences, _notes(unsure, others)


def _notes(unsure: Mapping[str, str], others: Sequence[str]) -> str | None:
    notes = []
    if unsure:
        notes.append("not compared: " + _some([f"{name} ({why})" for name, why in unsure.items()]))
    if others:
        notes.append("not looked at: " + _some(others))
    return "; ".join(notes) or None


def _some(items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _argument(values: Mapping[str, Any], item: Field) -> Any:
    """The value of an argument, `NOTHING` if it is not set."""
    found: Any = values
    names = item.argument.split(".")
    for number, name in enumerate(names):
        if isinstance(found, Unknown):
            return found
        if isinstance(found, list):
            if len(found) != 1:
                return NOTHING if not found else Unknown(f"{names[number - 1]}, of which there are several")
            found = found[0]
        if isinstance(found, Unknown):
            return found
        if not isinstance(found, Mapping) or name not in found or found[name] is None:
            return NOTHING
        found = found[name]
    return _enabled(found) if item.kind is Kind.BLOCK else found


def _enabled(block: Any) -> Any:
    """Whether a block switches on what it stands for."""
    if isinstance(block, Unknown):
        return block
    body = block[0] if isinstance(block, list) and block else block
    if not isinstance(body, Mapping):
        return NOTHING
    flag = next((body[name] for name in ("enable", "enabled") if body.get(name) is not None), True)
    return flag


def _ignored(lifecycle: Any) -> frozenset[str] | None:
    """Arguments that ``ignore_changes`` names; ``None`` for all, also if it cannot be read."""
    names: set[str] = set()
    for block in lifecycle if isinstance(lifecycle, list) else ():
        for form in _ignore_changes(block):
            steps = form.get(hcl.REF) if isinstance(form, Mapping) else [form]
            if not isinstance(steps, list) or not steps or not isinstance(steps[0], str) or steps[0] == "all":
                return None
            names.add(".".join(step for step in steps if isinstance(step, str)))
    return frozenset(names)


def _ignore_changes(block: Any) -> Iterable[Any]:
    if not isinstance(block, Mapping):
        return [None]
    forms = block.get("ignore_changes", [])
    return forms if isinstance(forms, list) else [forms]


def _touches(argument: str, ignored: str) -> bool:
    return argument == ignored or argument.startswith(f"{ignored}.") or ignored.startswith(f"{argument}.")


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Dotted names of arguments, through nested blocks."""
    for name, value in values.items():
        path = f"{above}{name}"
        bodies = value if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value) else []
        if bodies:
            yield from sorted({leaf for body in bodies for leaf in _leaves(body, f"{path}.")})
        else:
            yield path


def _dig(data: Any, path: str) -> Any:
    """What is at a dotted path, in camelCase or snake_case; `NOTHING` if nothing is."""
    for name in path.split("."):
        if isinstance(data, Mapping):
            key = name if name in data else _snake(name)
            data = data.get(key, NOTHING)
        elif isinstance(data, list) and name.isdigit() and int(name) < len(data):
            data = data[int(name)]
        else:
            return NOTHING
    return data


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", name)


def _compare_labels(
    item: Field, wanted: Any, actual: Any, differences: list[dict[str, Any]], unsure: dict[str, str]
) -> None:
    if isinstance(wanted, Unknown):
        unsure[item.argument] = f"comes from {wanted.reason}"
        return
    if not isinstance(wanted, Mapping) or not isinstance(actual, Mapping):
        unsure[item.argument] = "is in a form that is not understood"
        return
    for name in sorted(key for key, value in wanted.items() if value is not None):
        single = Field(f"{item.argument}.{name}", (), Kind.TEXT)
        has = actual.get(name)
        if has is None and not isinstance(wanted[name], Unknown):
            differences.append({"field": single.argument, "terraform": wanted[name], "actual": None})
        else:
            _compare_field(single, wanted[name], has, differences, unsure)


def _compare_field(
    item: Field, wanted: Any, actual: Any, differences: list[dict[str, Any]], unsure: dict[str, str]
) -> None:
    unknown = unknown_in(wanted)
    if unknown is not None:
        unsure[item.argument] = f"comes from {unknown.reason}"
        return
    if actual is NOTHING:
        unsure[item.argument] = "the inventory does not carry it"
        return
    if _is_withheld(wanted) or _is_withheld(actual):
        unsure[item.argument] = "is withheld, since it may be a secret"
        return
    if item.kind is Kind.LINK:
        same = _same_link(wanted, actual)
    else:
        one, other = _normal(item.kind, wanted), _normal(item.kind, actual)
        same = None if one is None or other is None else one == other
    if same is None:
        unsure[item.argument] = "is in a form that is not understood"
    elif not same:
        differences.append({"field": item.argument, "terraform": wanted, "actual": actual})


def _is_withheld(value: Any) -> bool:
    if isinstance(value, str):
        return REDACTED in value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_is_withheld(item) for item in items)


def _normal(kind: Kind, value: Any) -> Any:
    """A form in which equal values are equal; ``None`` for what is not of the kind."""
    if kind is Kind.RULES:
        return _rules(value)
    if kind is Kind.VALUES:
        texts = [text(item) for item in value] if isinstance(value, list) else [None]
        return None if None in texts else frozenset(texts)
    written = text(value)
    if written is None:
        return None
    if kind in (Kind.BOOLEAN, Kind.BLOCK):
        return {"true": True, "false": False}.get(written.lower())
    if kind is Kind.NUMBER:
        try:
            return float(written)
        except ValueError:
            return None
    written = written.replace("\r\n", "\n").strip()
    return written.lower() if kind is Kind.CASELESS else written


def _rules(value: Any) -> Any:
    """Protocols with their ports: ``[{"protocol", "ports"}]`` or ``[{"IPProtocol", "ports"}]``."""
    found: dict[str, set[str]] = {}
    for rule in value if isinstance(value, list) else [None]:
        if not isinstance(rule, Mapping):
            return None
        protocol = next((rule[name] for name in ("protocol", "IPProtocol", "ipProtocol") if name in rule), None)
        ports: Any = next((rule[name] for name in ("ports", "port") if rule.get(name) is not None), [])
        texts = [text(port) for port in ports] if isinstance(ports, list) else [None]
        if not isinstance(protocol, str) or None in texts:
            return None
        # No port means every one.
        found.setdefault(protocol.lower(), set()).update(port for port in texts or ["*"] if port is not None)
    return {protocol: frozenset(ports) for protocol, ports in found.items()}


def _same_link(one: Any, other: Any) -> bool | None:
    """Whether two links mean the same as far as both tell: ``e2-small`` and ``…/zones/z/machineTypes/e2-small`` do."""
    if not isinstance(one, str) or not isinstance(other, str) or not one or not other:
        return None
    first, second = _path(one), _path(other)
    length = min(len(first), len(second))
    for place, (a, b) in enumerate(zip(first[-length:], second[-length:], strict=True)):
        if a == b:
            continue
        before = first[-length:][place - 1] if place else ""
        if before == "projects" and a.isdigit() != b.isdigit():
            continue  # the same project by number and by id, or another one: this does not tell
        return False
    return True


def _path(link: str) -> list[str]:
    match = re.search(r"(?:^|/)((?:projects|folders|organizations)/.*)$", link)
    return (match[1] if match else link.rpartition("//")[2]).strip("/").split("/")
