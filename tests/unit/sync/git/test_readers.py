"""What is read from documents, governance, gates, terraform and runbooks."""

from __future__ import annotations

from textwrap import dedent

import pytest

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git.documents import read_document
from lz_sync_dagster.sync.git.gates import read_gates
from lz_sync_dagster.sync.git.governance import MAX_LEAVES, read_governance
from lz_sync_dagster.sync.git.runbooks import is_runbook, read_runbook
from lz_sync_dagster.sync.git.terraform import read_terraform


def governance(text: str) -> dict[str, object]:
    return {value.key: value.value for value in read_governance("pmo.yaml", text, "c").values}


def test_a_documents_title_is_its_topmost_heading() -> None:
    text = "Preface\n\n## Early\n\n# The `real` *title*\n\n```\n# no heading\n```\n\n### Deep\n"
    document = read_document("docs/a.md", text, blob="b", commit="c")

    assert document.title == "The real title"
    assert [(heading["level"], heading["line"]) for heading in document.headings] == [(2, 3), (1, 5), (3, 11)]
    assert read_document("docs/no-heading.md", "text", blob="b", commit="c").title == "no-heading"


def test_governance_is_flat_with_dotted_keys() -> None:
    text = "a:\n  b: 1\n  c: [x, {d: true}]\ne: null\nf: {}\ng: 2026-01-31\nh: 0.95\n"
    assert governance(text) == {
        "a.b": 1,
        "a.c.0": "x",
        "a.c.1.d": True,
        "e": None,
        "f": {},
        "g": "2026-01-31",
        "h": 0.95,
    }
    assert governance("") == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: [1\nc: 2\n", "pmo.yaml:3"),
        ("- a\n", "pmo.yaml:1: has a list"),
        ("a: !!python/object:os.system x", "pmo.yaml:1"),
        ("a: \x07", "pmo.yaml:1"),
        ("a: 2026-13-45", "pmo.yaml:1"),
        ("a: &a [*a]", "pmo.yaml:1: is nested too deeply"),
        ("a: &a {b: *a, c: *a}", "pmo.yaml:1: is nested too deeply"),
        (f"a: 0x{'f' * 5000}", "pmo.yaml:1: has a number"),
    ],
)
def test_bad_yaml_is_one_line_with_its_place(text: str, where: str) -> None:
    with pytest.raises(SyncError) as caught:
        governance(text)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_that_multiplies_by_aliases_is_refused() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    text = "l0: &l0 [x]\n" + "\n".join(levels)
    with pytest.raises(SyncError, match=f"more than {MAX_LEAVES}"):
        governance(text)


def test_odd_keys_and_values_are_text_that_every_database_takes() -> None:
    assert governance('"\\ud800": 1\n"a\\0b": {c: .inf, d: -.inf, e: .nan}\n') == {
        "?": 1,
        "a\N{REPLACEMENT CHARACTER}b.c": "inf",
        "a\N{REPLACEMENT CHARACTER}b.d": "-inf",
        "a\N{REPLACEMENT CHARACTER}b.e": "nan",
    }
    assert governance("a: !!set {c, a, b}\n") == {"a": "{a, b, c}"}
    assert governance(f"{'k' * 600}: 1\n{'k' * 600}x: 2\n") == {"k" * 512: 2}


def test_gates_come_from_tables_and_sections_and_one_gate_is_one_row() -> None:
    text = dedent(
        """
        # Gates

        | Gate | Title | Phase | Severity | Blocks | Validation | Status |
        |:--|---|---|---|---|---|--:|
        | GATE-01 | Plan is clean | pull request | high | merge | `plan` | active |
        | gate-02 | Reviewed | | | | | |

        | Unrelated | Table |
        |---|---|
        | GATE-99 | not a gate |

        ## GATE-02: Firewall reviewed

        - **Severity**: critical
        - Validation: network team
        Status: active

        ## Gate 3 - Keys

        Phase: runtime

        ## How to ask

        Severity: none
        """
    )
    found = {gate.gate_id: gate for gate in read_gates("ENFORCEMENT_GATES.md", text, "c")}

    assert list(found) == ["GATE-01", "gate-02", "Gate 3"]
    first = found["GATE-01"]
    assert (first.title, first.phase, first.severity) == ("Plan is clean", "pull request", "high")
    assert (first.blocks, first.validation, first.status, first.line) == ("merge", "plan", "active", 6)
    assert (found["gate-02"].severity, found["gate-02"].validation) == ("critical", "network team")
    assert (found["Gate 3"].title, found["Gate 3"].phase, found["Gate 3"].severity) == ("Keys", "runtime", None)


def test_a_gates_file_without_a_gate_is_an_error_not_an_empty_list() -> None:
    with pytest.raises(SyncError, match="columns Gate"):
        read_gates("ENFORCEMENT_GATES.md", "# Gates\n\nTo be written.\n", "c")
    assert read_gates("ENFORCEMENT_GATES.md", "", "c") == []


def test_gates_whose_ids_are_equal_once_they_are_cut_are_one_gate() -> None:
    rows = "".join(f"| {'G' * 200}-{number} | high |\n" for number in range(2))
    (gate,) = read_gates("ENFORCEMENT_GATES.md", f"| Gate | Severity |\n|---|---|\n{rows}", "c")
    assert gate.gate_id == "G" * 128


TERRAFORM = b"""
terraform {
  required_version = ">= 1.7"
}
provider "google" {
  alias = "eu"
}
variable "region" {}
data "google_project" "ops" {}
resource "google_compute_network" "hub" {
  provider = google-beta
  name     = "${var.region}-hub"
  labels = {
    team  = "platform"
    "env" = local.env
  }
  count = length([for name in module.teams.names : name.id])
  owner = data.google_project.ops.number
}
module "teams" {
  source = "./teams"
  hub    = google_compute_network.hub[0].id
}
"""


def test_terraform_blocks_have_addresses_references_and_labels() -> None:
    blocks = {block.address: block for block in read_terraform("terraform/02/main.tf", TERRAFORM, blob="b", commit="c")}

    assert list(blocks) == [
        "terraform",
        "provider.google.eu",
        "var.region",
        "data.google_project.ops",
        "google_compute_network.hub",
        "module.teams",
    ]
    hub = blocks["google_compute_network.hub"]
    assert (hub.block_type, hub.resource_type, hub.name, hub.line) == ("resource", "google_compute_network", "hub", 10)
    assert (hub.provider, hub.module, hub.has_error) == ("google-beta", "terraform/02", False)
    assert hub.labels == {"team": "platform", "env": "local.env"}
    assert hub.references == ["data.google_project.ops", "local.env", "module.teams", "var.region"]
    assert blocks["module.teams"].references == ["google_compute_network.hub"]
    assert blocks["data.google_project.ops"].provider == "google"


def test_a_broken_terraform_file_gives_what_can_be_read() -> None:
    broken = b'resource "google_a" "ok" {\n  x = 1\n}\nresource "google_b" "bad" {\n  y = = [\n}\nvariable "after" {}\n'
    blocks = read_terraform("a.tf", broken, blob="b", commit="c")

    assert [(block.address, block.line, block.has_error) for block in blocks] == [
        ("google_a.ok", 1, False),
        ("google_b.bad", 4, True),
        ("var.after", 7, False),
    ]
    assert read_terraform("a.tf", b"\xff\xfe \x00 not hcl", blob="b", commit="c") == []


def test_a_runbook_has_sections_with_their_commands() -> None:
    text = (
        "# Runbooks\n\n## Restart\n\n```bash\nlz-sync status\n```\n\n```json\n{}\n```\n\n"
        "```console\n$ one\n$ two\n```\n\n## Talk\n"
    )
    sections = read_runbook("RUNBOOKS.md", text, commit="c")

    assert [(section.section, section.line) for section in sections] == [("Runbooks", 1), ("Restart", 3), ("Talk", 18)]
    assert sections[1].commands == [
        {"language": "bash", "command": "lz-sync status", "line": 6},
        {"language": "console", "command": "one\ntwo", "line": 14},
    ]
    assert is_runbook("docs/runbooks/dns.md")
    assert not is_runbook("docs/dns.md")
