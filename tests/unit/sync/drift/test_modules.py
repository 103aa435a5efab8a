"""What terraform's text comes to: only what is certain is known, and the reason for the rest is in words."""

from __future__ import annotations

import random
from collections.abc import Mapping
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.drift.expressions import Unknown, unknown_in
from lz_sync_dagster.sync.drift.modules import Instance, resolve
from lz_sync_dagster.sync.git.terraform import read_terraform
from lz_sync_dagster.sync.store.repository import TerraformBlock


def blocks(files: Mapping[str, str]) -> list[TerraformBlock]:
    return [
        block
        for path, text in files.items()
        for block in read_terraform(path, dedent(text).encode(), blob="b", commit="c")
    ]


def instances(files: Mapping[str, str]) -> dict[str, Instance]:
    found = resolve(blocks(files))
    assert len({item.address for item in found}) == len(found)
    return {item.address: item for item in found}


def value(files: Mapping[str, str] | str, name: str = "name", address: str = "google_x.it") -> Any:
    """An argument of a resource: its value, or the reason why it is not known."""
    whole = {"main.tf": files} if isinstance(files, str) else files
    found = instances(whole)[address]
    assert found.doubt is None
    result = found.values[name]
    unknown = unknown_in(result)
    return f"? {unknown.reason}" if unknown is not None else result


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('"a"', "a"),
        ("1", 1),
        ("-1.5", -1.5),
        ("true", True),
        ('["a", 1]', ["a", 1]),
        ('{ a = "b", "c" : { d = 1 } }', {"a": "b", "c": {"d": 1}}),
        ('"a-${local.b}-${1}-${true}"', "a-b-1-true"),
        ('"${local.b}"', "b"),
        (r'"a\n\"$${x}\u00e9"', 'a\n"${x}é'),
        ("local.map.key", "of map"),
        ('local.map["key"]', "of map"),
        ("local.list[1]", "two"),
        ("(local.b)", "b"),
        ('local.b == "b" ? 1 : 2', 1),
        ('local.b != "b" || !true ? 1 : 2', 2),
        ('toset(["b", "a", "b"])', ["a", "b"]),
        ("merge({ a = 1 }, { a = 2, b = 3 })", {"a": 2, "b": 3}),
        ('join("-", concat(["a"], local.list))', "a-one-two"),
        ('upper("a")', "A"),
        ("<<-EOT\n    one\n      two\n    EOT", "one\n  two\n"),
        ("local.chain", "b"),
        # --- and what is not known
        ("var.x", "? var.x, which is set when terraform runs"),
        ('"a-${var.x}"', "? var.x, which is set when terraform runs"),
        ("local.unsure", "? var.x, which is set when terraform runs"),
        ("local.nowhere", "? local.nowhere, which no file that was read declares"),
        ("local.circle", "? a circle of references"),
        ("local.map.other", "? local.map, in which other is not found"),
        ('cidrsubnet("10.0.0.0/8", 8, 1)', "? the function cidrsubnet"),
        ("terraform.workspace", "? terraform.workspace"),
        ("[for x in local.list : x]", "? [for x in local.list : x]"),
        ("google_x.other[*].id", "? google_x.other[*].id"),
        ('var.x == "a" ? "b" : "c"', "? var.x, which is set when terraform runs"),
        ('"1" == 1 ? "b" : "c"', "? a comparison of values that are not alike"),
        ("data.google_project.p.number", "? data.google_project.p.number, which is read when terraform runs"),
        ("google_x.nowhere.id", "? google_x.nowhere, which could not be read"),
        ('"${local.b}%{ if true }x%{ endif }"', '? "${local.b}%{ if true }x%{ endif }"'),
    ],
)
def test_an_expression(expression: str, expected: Any) -> None:
    text = f"""
        resource "google_x" "it" {{
          name = {expression}
        }}
        variable "x" {{
          default = "a default that may be overridden"
        }}
        locals {{
          b      = "b"
          map    = {{ key = "of map" }}
          list   = ["one", "two"]
          unsure = var.x
          chain  = local.link
          link   = local.b
          circle = local.turn
          turn   = "${{local.circle}}"
        }}
        data "google_project" "p" {{
          project_id = "p"
        }}
        """
    assert value(text) == expected


def test_a_reference_gives_what_the_other_block_says_and_what_follows_from_it() -> None:
    files = {
        "main.tf": """
            locals { project = "p" }
            resource "google_compute_network" "hub" {
              name    = "hub"
              project = local.project
            }
            resource "google_compute_network" "late" {
              name    = var.name
              project = "p"
            }
            resource "google_service_account" "nodes" {
              account_id = "nodes"
              project    = "p"
            }
            data "google_service_account" "whole" {
              account_id = "other@q.iam.gserviceaccount.com"
              project    = "p"
            }
            resource "google_kms_key_ring" "ring" {
              name     = "ring"
              location = "europe-west1"
              project  = "p"
            }
            resource "google_x" "it" {
              name   = google_compute_network.hub.name
              id     = google_compute_network.hub.id
              link   = google_compute_network.hub.self_link
              late   = google_compute_network.late.id
              email  = google_service_account.nodes.email
              member = google_service_account.nodes.member
              ring   = google_kms_key_ring.ring.id
              when   = google_compute_network.hub.gateway_ipv4
              whole  = data.google_service_account.whole.email
            }
            """
    }
    assert value(files) == "hub"
    assert value(files, "id") == "projects/p/global/networks/hub"
    assert value(files, "link") == "https://www.googleapis.com/compute/v1/projects/p/global/networks/hub"
    assert value(files, "late") == "? var.name, which is set when terraform runs"
    assert value(files, "email") == "nodes@p.iam.gserviceaccount.com"
    assert value(files, "member") == "serviceAccount:nodes@p.iam.gserviceaccount.com"
    assert value(files, "ring") == "projects/p/locations/europe-west1/keyRings/ring"
    assert value(files, "whole").startswith("? account other@q.iam.gserviceaccount.com")
    assert value(files, "when") == "? google_compute_network.hub.gateway_ipv4, which is known when terraform runs"


def test_a_called_module_has_its_variables_from_the_call_and_its_defaults() -> None:
    files = {
        "live/main.tf": """
            module "one" {
              source = "../modules/net"
              name   = "one"
            }
            module "two" {
              source = "../modules/net"
              name   = var.name
              mtu    = null
            }
            resource "google_x" "it" {
              name  = module.one.name
              other = module.two.name
            }
            """,
        "modules/net/main.tf": """
            variable "name" {}
            variable "mtu" { default = 1460 }
            variable "none" {}
            resource "google_compute_network" "this" {
              name = "net-${var.name}"
              mtu  = var.mtu
              none = var.none
            }
            output "name" { value = google_compute_network.this.name }
            """,
    }
    one = "module.one.google_compute_network.this"
    assert value(files, "name", one) == "net-one"
    assert value(files, "mtu", one) == 1460
    assert value(files, "none", one) == "? var.none, which has no value that could be read"
    two = "module.two.google_compute_network.this"
    assert value(files, "name", two) == "? var.name, which is set when terraform runs"
    assert value(files, "mtu", two) == "? var.mtu, which is null"
    assert value(files) == "net-one"
    assert value(files, "other") == "? var.name, which is set when terraform runs"


def test_count_and_for_each_over_literals_are_instances() -> None:
    found = instances(
        {
            "main.tf": """
                resource "google_x" "three" {
                  count = 3
                  name  = "x-${count.index}"
                }
                resource "google_x" "none" {
                  count = 0
                }
                resource "google_x" "set" {
                  for_each = toset(["b", "a"])
                  name     = "x-${each.key}-${each.value}"
                }
                resource "google_x" "map" {
                  for_each = { a = { size = 1 }, "b\\"c" = { size = var.size } }
                  name     = each.key
                  size     = each.value.size
                }
                resource "google_x" "user" {
                  name = google_x.map["a"].size
                  many = google_x.map.a
                }
                """
        }
    )
    assert {address: item.values.get("name") for address, item in found.items()} == {
        "google_x.three[0]": "x-0",
        "google_x.three[1]": "x-1",
        "google_x.three[2]": "x-2",
        'google_x.set["a"]': "x-a-a",
        'google_x.set["b"]': "x-b-b",
        'google_x.map["a"]': "a",
        'google_x.map["b\\"c"]': 'b"c',
        "google_x.user": 1,
    }
    assert isinstance(found['google_x.map["b\\"c"]'].values["size"], Unknown)
    assert isinstance(found["google_x.user"].values["many"], Unknown)


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("count = var.n", "count comes from var.n, which is set when terraform runs"),
        ("for_each = var.m", "for_each over var.m, which is set when terraform runs"),
        ('for_each = toset(["a", var.m])', "for_each over var.m, which is set when terraform runs"),
        ("for_each = [1, 2]", "for_each is over no set or map of texts, or too large a one"),
        ("count = 100000", "count is no number of instances, or too large a one"),
        ("name = = 1", "the block could be read only in part"),
    ],
)
def test_it_is_not_certain_that_there_is_to_be_such_a_resource(text: str, doubt: str) -> None:
    (found,) = resolve(blocks({"main.tf": f'resource "google_x" "it" {{\n  {text}\n}}\n'}))
    assert (found.address, found.doubt) == ("google_x.it", doubt)


def test_what_is_below_a_module_that_may_not_be_there_may_not_be_there() -> None:
    files = {
        "main.tf": 'module "m" {\n  source = "./m"\n  for_each = var.x\n}\n',
        "m/main.tf": 'resource "google_x" "it" {\n  name = "literal"\n}\n',
    }
    (found,) = resolve(blocks(files))
    assert found.address == "module.m.google_x.it"
    assert found.doubt == "of module.m, for_each over var.x, which is set when terraform runs"


@pytest.mark.parametrize(
    ("source", "doubt"),
    [
        (
            '"git::https://example.com/modules.git"',
            "module source git::https://example.com/modules.git is not in the repository: what it makes is not known",
        ),
        ("var.source", "the source of the module could not be read"),
        ('"../../m"', "module source ../../m leads out of the repository"),
        ('"./nothing"', "no terraform file was read in live/nothing"),
        ('"./"', "its modules call each other in a circle, or too deeply"),
    ],
)
def test_a_module_from_elsewhere_is_said(source: str, doubt: str) -> None:
    (found,) = resolve(blocks({"live/main.tf": f'module "m" {{\n  source = {source}\n}}\n'}))
    assert (found.address, found.block.line, found.doubt) == ("module.m", 1, doubt)


def test_modules_that_nothing_calls_and_modules_in_a_circle_are_doubted() -> None:
    files = {
        "modules/unused/main.tf": 'resource "google_x" "a" {\n  name = "a"\n}\n',
        "examples/one/main.tf": 'resource "google_x" "example" {}\n',
        "b/main.tf": 'module "c" {\n  source = "../c"\n}\nresource "google_x" "b" {}\n',
        "c/main.tf": 'module "b" {\n  source = "../b"\n}\n',
    }
    doubts = {item.address: item.doubt for item in resolve(blocks(files))}
    assert doubts["google_x.a"] == "no module call in the repository uses modules/unused"
    assert doubts["google_x.example"] == "no module call in the repository uses examples/one"
    assert doubts["google_x.b"] == "its modules call each other in a circle"


def test_an_override_file_has_the_last_word_and_two_declarations_have_none() -> None:
    found = instances(
        {
            "main.tf": 'resource "google_x" "it" {\n  name = "a"\n  size = 1\n}\nlocals {\n  b = 1\n}\n',
            "zone_override.tf": 'resource "google_x" "it" {\n  name = local.b\n}\nlocals {\n  b = 2\n}\n',
        }
    )
    assert found["google_x.it"].values == {"name": 2, "size": 1}
    twice = dict.fromkeys(("a.tf", "b.tf"), 'resource "google_x" "it" {}\n')
    assert {item.doubt for item in resolve(blocks(twice))} == {"the address is declared more than once in its folder"}


def test_a_file_that_could_not_be_read_may_have_changed_its_folder() -> None:
    text = 'resource "google_x" "it" {}\n'
    found = blocks({"a/main.tf": text, "b/main.tf": text})
    doubts = {item.block.path: item.doubt for item in resolve(found, ["a/it_override.tf", "b/more.tf"])}
    assert doubts == {
        "a/main.tf": "a/it_override.tf could not be read, and may change what the block says",
        "b/main.tf": None,
    }
    provider = 'provider "google" {\n  project = "p"\n}\nmodule "m" {\n  source = "./m"\n}\n'
    called = blocks({"main.tf": provider, "m/main.tf": text})
    assert [item.defaults["project"] for item in resolve(called)] == ["p"]
    (unsure,) = resolve(called, ["m/providers.tf"])
    assert isinstance(unsure.defaults["project"], Unknown)


def test_providers_give_the_project_also_into_modules() -> None:
    files = {
        "main.tf": """
            provider "google" {
              project = "one"
              region  = var.region
            }
            provider "google" {
              alias   = "other"
              project = "two"
            }
            resource "google_x" "a" {}
            resource "google_x" "b" { provider = google.other }
            resource "google_x" "c" { provider = google-beta }
            module "inherits" { source = "./m" }
            module "passes" {
              source    = "./m"
              providers = { google = google.other }
            }
            """,
        "m/main.tf": 'resource "google_x" "d" {}\n',
    }
    found = {address: item.defaults for address, item in instances(files).items()}
    assert found["google_x.a"]["project"] == "one"
    assert found["google_x.a"]["region"] == Unknown("var.region, which is set when terraform runs")
    assert isinstance(found["google_x.a"]["zone"], Unknown)
    assert found["google_x.b"]["project"] == "two"
    assert isinstance(found["google_x.c"]["project"], Unknown)
    assert found["module.inherits.google_x.d"]["project"] == "one"
    assert found["module.passes.google_x.d"]["project"] == "two"


def test_small_files_cannot_make_large_values() -> None:
    doubled = "\n".join(f'  t{n} = "${{local.t{n - 1}}}${{local.t{n - 1}}}"' for n in range(1, 40))
    nested = "\n".join(f"  l{n} = [local.l{n - 1}, local.l{n - 1}]" for n in range(1, 40))
    text = f'locals {{\n  t0 = "ha"\n  l0 = []\n{doubled}\n{nested}\n}}\n'
    text += 'resource "google_x" "it" {\n  name = local.t39\n  more = local.l39\n}\n'
    assert value(text).startswith("? ")
    assert value(text, "more").startswith("? ")
    calls = {
        "main.tf": 'module "m" {\n  source = "./a"\n  count = 1000\n}\n',
        "a/main.tf": 'module "m" {\n  source = "../b"\n  count = 1000\n}\n',
        "b/main.tf": 'resource "google_x" "it" {\n  count = 1000\n}\n',
    }
    assert any(item.doubt == "the repository has too many instances" for item in resolve(blocks(calls)))


# --- properties

_TEXTS = st.sampled_from(["p", "q", "net"])


def _above(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map(lambda pair: f'"${{{pair[0]}}}-${{{pair[1]}}}"'),
        st.tuples(inner, inner, inner).map(lambda three: f'({three[0]} == "p" ? {three[1]} : {three[2]})'),
        inner.map(lambda item: f"{{ k = {item} }}.k" if item.startswith("local") else f"lower({item})"),
        inner.map(lambda item: f'merge({{ k = {item} }}, {{ j = "x" }})["k"]'),
        st.tuples(inner, inner).map(lambda pair: f'join("+", [{pair[0]}, {pair[1]}])'),
    )


#: ``@`` is what terraform gets from outside.
_LEAVES = st.one_of(_TEXTS.map(lambda text: f'"{text}"'), st.sampled_from(["@", "local.a", "local.b", "module.m.out"]))
_IN_MODULE = st.one_of(_TEXTS.map(lambda text: f'"{text}"'), st.sampled_from(["var.one", "var.two", "local.c"]))
_ROOT = st.recursive(_LEAVES, _above, max_leaves=5)
_CHILD = st.recursive(_IN_MODULE, _above, max_leaves=4)


@st.composite
def _configurations(draw: st.DrawFn) -> dict[str, str]:
    counted = draw(
        st.sampled_from(["", '  count = @ == "p" ? 1 : 0\n', "  count = 2\n", "  for_each = toset([local.a])\n"])
    )
    called = draw(st.sampled_from(["", '  for_each = toset(["x", "y"])\n', "  for_each = toset([@])\n"]))
    return {
        "main.tf": (
            f"locals {{\n  a = {draw(_ROOT)}\n}}\n"
            f'resource "google_compute_network" "it" {{\n{counted}  name = {draw(_ROOT)}\n  project = {draw(_ROOT)}\n'
            f"  description = {draw(_ROOT)}\n}}\n"
        ),
        "more.tf": (
            f'locals {{\n  b = {draw(_ROOT)}\n}}\nvariable "u" {{\n  default = "p"\n}}\n'
            f'module "m" {{\n  source = "./m"\n{called}  one = {draw(_ROOT)}\n}}\n'
        ),
        "m/main.tf": (
            f'variable "one" {{}}\nvariable "two" {{\n  default = "net"\n}}\nlocals {{\n  c = {draw(_CHILD)}\n}}\n'
            f'resource "google_compute_network" "it" {{\n  name = {draw(_CHILD)}\n  project = {draw(_CHILD)}\n}}\n'
            f'output "out" {{\n  value = {draw(_CHILD)}\n}}\n'
        ),
    }


def with_outside(files: Mapping[str, str], outside: str) -> list[TerraformBlock]:
    return blocks({path: text.replace("@", outside) for path, text in files.items()})


configurations = _configurations()


@given(configurations)
def test_what_is_known_does_not_depend_on_what_comes_from_outside(files: dict[str, str]) -> None:
    unsure = resolve(with_outside(files, "var.u"))
    doubted = {(item.block.path, item.block.line) for item in unsure if item.doubt is not None}
    for outside in ('"p"', '"q"'):
        sure = {item.address: item for item in resolve(with_outside(files, outside))}
        for item in unsure:
            if item.doubt is None:
                for name, known in item.values.items():
                    if unknown_in(known) is None:
                        assert sure[item.address].values[name] == known
        known_addresses = {item.address for item in unsure}
        for address, item in sure.items():
            assert address in known_addresses or (item.block.path, item.block.line) in doubted


@given(configurations, st.randoms(use_true_random=False))
def test_the_order_of_files_and_blocks_does_not_matter(files: dict[str, str], chance: random.Random) -> None:
    ordered = with_outside(files, "var.u")
    shuffled = ordered.copy()
    chance.shuffle(shuffled)
    assert resolve(shuffled) == resolve(ordered)
