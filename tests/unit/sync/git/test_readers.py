"""What is read from documents, governance, gates, terraform and runbooks."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git.documents import read_document
from lz_sync_dagster.sync.git.gates import read_gates
from lz_sync_dagster.sync.git.governance import MAX_LEAVES, read_governance
from lz_sync_dagster.sync.git.runbooks import is_runbook, read_runbook, section_texts
from lz_sync_dagster.sync.git.terraform import block_texts, read, read_terraform


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


def issues(text: str) -> dict[str, tuple[int | None, str]]:
    found = read_governance("pmo.yaml", text, "c").issues
    assert all((issue.kind, issue.path, issue.commit_sha) == ("governance_schema", "pmo.yaml", "c") for issue in found)
    return {issue.subject: (issue.line, issue.message) for issue in found}


def test_what_the_schema_does_not_allow_is_an_issue_with_its_line_and_every_value_is_kept() -> None:
    text = dedent(
        """
        programme:
          name: Cloud
          owner: nobody
          review: sometimes
        environments:
          production: {regions: [europe-west1, "west 1"], auto_delete_days: 0}
        teams:
        - name: a
          budget_eur: -1
        - lead: b@example.com
        compliance:
          target_score: 95
          exceptions: none
        labels:
          required: [Team]
        next: {any: [thing, 1]}
        """
    )
    found = issues(text)

    assert {key: line for key, (line, _) in found.items()} == {
        "programme.owner": 4,
        "programme.review": 5,
        "environments.production.regions.1": 7,
        "environments.production.auto_delete_days": 7,
        "teams.0.budget_eur": 10,
        "teams.1": 11,
        "compliance.target_score": 13,
        "compliance.exceptions": 14,
        "labels.required.0": 16,
    }
    assert "must be an e-mail address" in found["programme.owner"][1]
    assert "must be one of weekly, " in found["programme.review"][1]
    assert "lacks name" in found["teams.1"][1]
    assert "must be at most 1;" in found["compliance.target_score"][1]
    assert "is a text, and must be a list" in found["compliance.exceptions"][1]
    assert governance(text)["next.any.0"] == "thing"
    assert governance(text)["programme.review"] == "sometimes"


def test_a_key_that_is_there_twice_is_an_issue() -> None:
    text = "a: &a\n  b: 1\n  b: 2\nc:\n  <<: *a\n  b: 3\na: *a\n"
    assert {key: line for key, (line, _) in issues(text).items()} == {"a.b": 3, "a": 7}
    assert governance(text) == {"a.b": 2, "c.b": 3}


def test_each_value_has_its_line() -> None:
    text = (
        "a:\n  b: 1\n  yes: 2\nlist:\n- x\n- {c: 3,\n   d: 4}\nempty: []\nb: &b {e: 5}\nmerged: {<<: *b}\nb: {e: 6}\n"
    )
    found = {value.key: value.line for value in read_governance("pmo.yaml", text, "c").values}
    assert found == {
        "a.b": 2,
        "a.True": 3,
        "list.0": 5,
        "list.1.c": 6,
        "list.1.d": 7,
        "empty": 8,
        "b.e": 11,
        "merged.e": 9,
    }


def test_a_line_is_found_through_merges_and_odd_keys() -> None:
    base = "x: &x\n  target_score: 7\ncompliance:\n  <<: *x\nenvironments:\n  yes: {folder: 1}\n  2: {folder: 1}\n"
    assert {key: line for key, (line, _) in issues(base).items()} == {
        "compliance.target_score": 2,
        "environments.True.folder": 6,
        "environments.2.folder": 7,
    }


def test_secrets_in_governance_are_removed() -> None:
    text = (
        "db: {password: hunter2, port: 1}\ncredentials: {user: me, id: 4}\nmetadata: {owner: me}\nenvironment: prod\n"
    )
    assert governance(text) == {
        "db.password": "[redacted]",
        "db.port": 1,
        "credentials.user": "[redacted]",
        "credentials.id": "[redacted]",
        "metadata.owner": "me",
        "environment": "prod",
    }


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_front_matter_gives_the_title_and_is_no_text(newline: str, mark: str) -> None:
    lines = ["---", "title:  Real title", "tags: [a]", "---", "", "Setext", "======", "", "# Other", ""]
    document = read_document("a.md", mark + newline.join(lines), blob="b", commit="c")

    assert document.title == "Real title"
    assert [(heading["text"], heading["line"]) for heading in document.headings] == [("Setext", 6), ("Other", 9)]
    assert "tags" not in document.body


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\n\nText\n\n---\n\n# Title\n", "Title"),
        ("---\nno: [yaml\n---\n# Title\n", "Title"),
        ("---\ntitle: 7\n---\n# Title\n", "Title"),
        ("<!--\n# Not this\n-->\n\n# Title <!-- nor this -->\n", "Title"),
        ("# One<br>two &amp; \\| three\n", "One two & | three"),
        ("---\ntitle: open\n# Title\n", "Title"),
    ],
)
def test_what_only_looks_like_front_matter_or_a_heading(text: str, title: str) -> None:
    assert read_document("a.md", text, blob="b", commit="c").title == title


def test_gates_are_read_from_untidy_tables_and_sections() -> None:
    text = dedent(
        r"""
        <!-- | GATE-00 | old | -->
        | ID | **Gate** | Severity: | Blocks | Validation |
        |---|---|---|---|---|
        | [GATE-1](#gate-1) | a \| b | high<br>critical | | `x \| y` |

        ## [GATE-2] Nested

        - Severity:
          - high
          - in production: critical
        - Validation:
            1. plan
            2. `apply`
        - Status: active

        ### Blocks

        The merge,
        and the release.

        - all of it

        ## Elsewhere

        Phase: none
        """
    ).replace("\\\\|", "\\|")
    first, second = read_gates("ENFORCEMENT_GATES.md", text.replace("\n", "\r\n"), "c")

    assert (first.gate_id, first.title, first.severity) == ("GATE-1", "a | b", "high critical")
    assert (first.blocks, first.validation) == (None, "x | y")
    assert (second.gate_id, second.title, second.status, second.phase) == ("GATE-2", "Nested", "active", None)
    assert second.severity == "high; in production: critical"
    assert second.validation == "plan; apply"
    assert second.blocks == "The merge,; and the release.; all of it"


def test_a_broken_block_is_a_finding_with_the_line_of_its_error() -> None:
    broken = (
        b'\xef\xbb\xbfvariable "ok" {}\r\nresource "google_b" "bad" {\r\n  x = 1\r\n  y = = [\r\n}\r\n'
        b"locals {\r\n  a = <<EOT\r\ntext\r\nEOT\r\n}\r\n"
    )
    found = read("a.tf", broken, blob="b", commit="c")

    assert [block.address for block in found.blocks] == ["var.ok", "google_b.bad", "locals"]
    assert [block.has_error for block in found.blocks] == [False, True, False]
    (finding,) = found.findings
    assert (finding.kind, finding.subject, finding.line) == ("hcl_syntax", "google_b.bad", 4)
    assert read("a.tf", TERRAFORM, blob="b", commit="c").findings == []


@pytest.mark.parametrize(
    "text", [b"\xff\xfe \x00 not hcl", b"= = =\n", b'variable "a" {\n', b"}\n", b'variable "a" {}\n)(\n']
)
def test_a_file_that_is_no_terraform_has_a_finding(text: bytes) -> None:
    assert read("a.tf", text, blob="b", commit="c").findings


def test_blocks_of_one_address_are_one_text() -> None:
    texts = block_texts(b'locals {\r\n  a = 1\r\n}\r\nprovider "x" {\n  alias = "y"\n}\nlocals {\n  b = 2\n}\n')
    assert texts == {
        "locals": "locals {\n  a = 1\n}\n\nlocals {\n  b = 2\n}",
        "provider.x.y": 'provider "x" {\n  alias = "y"\n}',
    }


def test_runbook_commands_are_what_is_typed() -> None:
    text = (
        "---\ntitle: x\n---\n```sh\nfirst\n```\n# Do\n\n1. Then\n\n   ```console\n"
        "   $ one \\\n     more\n   answer\n   $ two\n   ```\n\n## Check\n\na\n\n# Undo\n\n## Check\n\nb\n"
    )
    sections = read_runbook("runbooks/dns.md", text, commit="c")

    assert [(section.section, section.line) for section in sections] == [
        ("dns", 1),
        ("Do", 7),
        ("Check", 18),
        ("Undo", 22),
        ("Check", 24),
    ]
    assert [command["command"] for command in sections[1].commands] == ["one \\\n  more\ntwo"]
    texts = section_texts("runbooks/dns.md", text)
    assert (texts["Check"], texts["Check (2)"]) == ("## Check\n\na", "## Check\n\nb")
    assert texts["dns"] == "```sh\nfirst\n```"


def attributes_of(text: str) -> dict[str, Any]:
    """What the last block of a terraform text says."""
    return read_terraform("main.tf", dedent(text).encode(), blob="b", commit="c")[-1].attributes


def test_terraform_attributes_are_literals_and_expressions_in_a_form() -> None:
    text = """
        resource "google_compute_instance" "it" {
          count      = 2
          provider   = google.other
          name       = "vm-${count.index}"
          size       = -1
          depends_on = [google_x.y]
          boot_disk {
            initialize_params {
              image = local.images["debian"]
            }
          }
          nic {}
          nic { name = "b" }
          dynamic "disk" {
            for_each = var.disks
            content { name = disk.value }
          }
          provisioner "local-exec" { command = "x" }
        }
        """
    assert attributes_of(text) == {
        "count": 2,
        "provider": {"$ref": ["google", "other"]},
        "name": {"$template": ["vm-", {"$ref": ["count", "index"]}]},
        "size": -1,
        "boot_disk": [{"initialize_params": [{"image": {"$ref": ["local", "images", ["debian"]]}}]}],
        "nic": [{}, {"name": "b"}],
        "disk": {"$unresolved": "dynamic block disk"},
    }


@pytest.mark.parametrize(
    "text",
    [
        'variable "db_password" {\n  default = "SECRETVALUE"\n}',
        'variable "x" {\n  sensitive = true\n  default = "SECRETVALUE"\n}',
        'output "api_key" {\n  value = "SECRETVALUE"\n}',
        'locals {\n  token = "SECRETVALUE"\n}',
        'locals {\n  token = "SECRETVALUE-${var.x}"\n}',
        'locals {\n  token = sensitive("SECRETVALUE")\n}',
        'locals {\n  token = var.x ? "SECRETVALUE" : ""\n}',
        'locals {\n  token = [for x in y : "SECRETVALUE"]\n}',
        'locals {\n  all = { token = { "a" = "SECRETVALUE" } }\n}',
        'module "m" {\n  source = "./m"\n  env = { A = "SECRETVALUE" }\n}',
        'provider "google" {\n  credentials = "SECRETVALUE"\n}',
        'terraform {\n  backend "x" {\n    token = "SECRETVALUE"\n  }\n}',
        'resource "a_b" "c" {\n  metadata = { ssh-keys = "SECRETVALUE" }\n}',
        'resource "a_b" "c" {\n  metadata_startup_script = <<-EOT\n    SECRETVALUE\n    ${var.x}\n  EOT\n}',
        'resource "a_b" "c" {\n  connection {\n    x = "SECRETVALUE"\n  }\n}',
        'resource "a_b" "c" {\n  url = "https://me:SECRETVALUE@${var.host}"\n}',
    ],
)
def test_no_secret_is_in_terraform_attributes(text: str) -> None:
    assert "SECRETVALUE" not in str(attributes_of(text))


def test_a_reference_is_no_secret() -> None:
    assert attributes_of("locals {\n  password = var.password\n}") == {"password": {"$ref": ["var", "password"]}}


def test_terraform_attributes_are_bounded() -> None:
    many = "".join(f'  a{number} = "{"x" * 90}"\n' for number in range(2_000))
    assert len(str(attributes_of(f"locals {{\n{many}}}\n"))) < 60_000
    deep = "[" * 300 + "]" * 300
    assert len(str(attributes_of(f"locals {{\n  a = {deep}\n}}\n"))) < 1_000
    assert attributes_of(f'locals {{\n  a = "{"x" * 9_000}"\n}}\n') == {
        "a": {"$unresolved": "a text of 9000 characters"}
    }


@given(st.text(alphabet='ab ={}[]()"$%\\\n.,:?!&|<>-_0', max_size=120))
def test_any_text_has_attributes_that_are_json(text: str) -> None:
    for block in read_terraform("main.tf", f"locals {{\n a = {text}\n}}\n".encode(), blob="b", commit="c"):
        assert orjson.loads(orjson.dumps(block.attributes)) == block.attributes
