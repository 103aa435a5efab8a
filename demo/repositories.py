"""The two git repositories of the demo, made on the spot: a landing zone with some history, and a portal with files
of its own.

The same commits come out each time (fixed authors and dates). The content is in this module; nothing is fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pygit2

from lz_sync_dagster.sync.git.tree import Entry, write_tree

BRANCH = "main"
FIRST_COMMIT = datetime(2026, 1, 12, 8, 30, tzinfo=UTC)

_PMO_PATH = "pmo.yaml"
#: What `break_pmo` writes: a list that is not closed.
_UNCLOSED = b"  exceptions: [GATE-04\n"
_REF = f"refs/heads/{BRANCH}"


@dataclass(frozen=True, slots=True)
class Repositories:
    """Where the bare repositories are."""

    landing_zone: Path
    portal: Path


ALICE = "Alice Moreau <alice.moreau@example.com>"
BILAL = "Bilal Haddad <bilal.haddad@example.com>"
CHEN = "Chen Wei <chen.wei@example.com>"
DANA = "Dana Novak <dana.novak@example.com>"


def make_repositories(folder: Path) -> Repositories:
    """Make both repositories below a folder. A repository that is there already is used as it is."""
    made = Repositories(folder / "gcp-landing-zone.git", folder / "gcp-landing-zone-portal.git")
    _make(made.landing_zone, _landing_zone_history())
    _make(made.portal, _portal_history())
    return made


def commit_change(
    repo: Path, path: str, content: bytes | None, *, message: str, author: str = ALICE, at: datetime
) -> str:
    """Commit one file (``None``: its removal) to a bare repository and return the commit's id. ``author``: ``Name
    <email>``."""
    return commit_changes(repo, {path: content}, message=message, author=author, at=at)


def commit_changes(
    repo: Path, changes: Mapping[str, bytes | None], *, message: str, author: str = ALICE, at: datetime
) -> str:
    """Commit several files at once, as a push would leave them."""
    repository = pygit2.Repository(str(repo))
    parents = [repository.references[_REF].target] if _REF in repository.references else []
    base = repository[parents[0]].peel(pygit2.Commit).tree if parents else None
    entries = {
        path: None if content is None else Entry(str(repository.create_blob(content)), 0o100644)
        for path, content in changes.items()
    }
    tree = write_tree(repository, base, entries)
    name, _, email = author.rstrip(">").partition(" <")
    signature = pygit2.Signature(name, email, int(at.timestamp()), 0)
    return str(repository.create_commit(_REF, signature, signature, message, tree, [str(parent) for parent in parents]))


def break_pmo(repo: Path, *, at: datetime) -> None:
    """Commit a ``pmo.yaml`` that is no YAML any more."""
    text = read_file(repo, _PMO_PATH) or b""
    if _UNCLOSED not in text:
        broken = re.sub(rb"(?m)^compliance:$", b"compliance:\n" + _UNCLOSED, text)
        commit_change(repo, _PMO_PATH, broken, message="pmo: exceptions, in a hurry", author=BILAL, at=at)


def mend_pmo(repo: Path, *, at: datetime) -> None:
    """Take back what `break_pmo` did, if it did."""
    text = read_file(repo, _PMO_PATH) or b""
    if _UNCLOSED in text:
        commit_change(repo, _PMO_PATH, text.replace(_UNCLOSED, b""), message="pmo: mend it", author=DANA, at=at)


def edit_portal(repo: Path, *, at: datetime) -> str | None:
    """Edit the copy of a document in the portal repository by hand. Returns its path, ``None`` if it is not there."""
    path = "docs/lz-reference/cost.md"
    text = read_file(repo, path)
    if text is None:
        return None
    edited = text + f"\nEdited here by hand on {at:%Y-%m-%d at %H:%M:%S}.\n".encode()
    commit_change(repo, path, edited, message="Correct the page on cost", author=DANA, at=at)
    return path


def read_file(repo: Path, path: str) -> bytes | None:
    """A file at the branch's head, ``None`` if there is none."""
    repository = pygit2.Repository(str(repo))
    tree = repository.references[_REF].peel(pygit2.Commit).tree
    return tree[path].peel(pygit2.Blob).data if path in tree else None


@dataclass(frozen=True, slots=True)
class _Step:
    author: str
    message: str
    files: Mapping[str, str | None]


def _make(path: Path, steps: list[_Step]) -> None:
    if path.exists():
        return
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    pygit2.init_repository(str(unfinished), bare=True, initial_head=BRANCH)
    for number, step in enumerate(steps):
        at = FIRST_COMMIT + timedelta(days=number * 2, hours=number % 5, minutes=7 * number % 60)
        changes = {name: None if text is None else _text(text) for name, text in step.files.items()}
        commit_changes(unfinished, changes, message=step.message, author=step.author, at=at)
    unfinished.rename(path)


def _text(text: str) -> bytes:
    return textwrap.dedent(text).lstrip("\n").encode()


def _landing_zone_history() -> list[_Step]:
    return [
        _Step(ALICE, "Start the landing zone", {"README.md": _README, "docs/README.md": _DOCS["docs/README.md"]}),
        _Step(
            ALICE,
            "Describe the architecture and the principles\n\nReviewed in the design meeting of the platform team.",
            {name: _DOCS[name] for name in ("docs/architecture.md", "docs/principles.md")},
        ),
        _Step(BILAL, "terraform: organization and folders", _layer("01-organization")),
        _Step(BILAL, "terraform: hub network, first draft", {"terraform/02-networking/main.tf": _NETWORK_DRAFT}),
        _Step(
            CHEN,
            "docs: networking and identity",
            {name: _DOCS[name] for name in ("docs/networking/overview.md", "docs/identity.md")},
        ),
        _Step(BILAL, "terraform: hub and spoke network with flow logs", _layer("02-networking")),
        _Step(
            DANA,
            "Add governance and enforcement gates",
            {
                "pmo.yaml": _PMO.replace("0.95", "0.9").replace("42000", "38000"),
                "ENFORCEMENT_GATES.md": _GATES.replace("CIS | active |", "CIS | planned |"),
                "docs/governance.md": _DOCS["docs/governance.md"],
            },
        ),
        _Step(CHEN, "terraform: security baseline, keys and org policies", _layer("03-security")),
        _Step(
            CHEN,
            "docs: security, logging, and how firewalls are reviewed",
            {name: _DOCS[name] for name in ("docs/security/baseline.md", "docs/networking/firewalls.md")}
            | {"docs/security/logs.md": _DOCS["docs/security/logging.md"].replace("400 days", "90 days")},
        ),
        _Step(
            DANA,
            "gates: the checks of buckets and databases are reported, not enforced yet",
            {"ENFORCEMENT_GATES.md": _GATES.replace("CIS | active |", "CIS | advisory |")},
        ),
        _Step(BILAL, "terraform: shared platform (GKE, SQL, artifact registry)", _layer("04-platform")),
        _Step(DANA, "Add the runbooks", {"RUNBOOKS.md": _RUNBOOKS}),
        _Step(
            CHEN,
            "docs: logging under the name that people look for",
            {
                "docs/security/logs.md": None,
                "docs/security/logging.md": _DOCS["docs/security/logging.md"].replace("400 days", "90 days"),
            },
        ),
        _Step(
            ALICE,
            "terraform: workload projects from one module",
            {**_layer("05-workloads"), "docs/workloads/onboarding.md": _DOCS["docs/workloads/onboarding.md"]},
        ),
        _Step(
            DANA,
            "docs: cost, disaster recovery and glossary",
            {name: _DOCS[name] for name in ("docs/cost.md", "docs/disaster-recovery.md", "docs/glossary.md")},
        ),
        _Step(
            DANA,
            "gates and pmo: buckets and databases are enforced, and the target is 95 %",
            {"ENFORCEMENT_GATES.md": _GATES, "pmo.yaml": _PMO},
        ),
        _Step(
            ALICE,
            "docs: audit logs are kept for 400 days",
            {"docs/security/logging.md": _DOCS["docs/security/logging.md"]},
        ),
        _Step(
            CHEN,
            "docs: write down why the hub has no internet gateway",
            {
                "docs/adr/0001-no-internet-gateway-in-the-hub.md": _DOCS[
                    "docs/adr/0001-no-internet-gateway-in-the-hub.md"
                ]
            },
        ),
    ]


def _portal_history() -> list[_Step]:
    return [
        _Step(
            DANA,
            "Start the portal",
            {
                "README.md": """
                    # Landing zone portal

                    The pages that show the landing zone to its users. What is below `docs/lz-reference/` and
                    `config/lz-pmo.yaml` comes from the landing-zone repository; everything else is written here.
                    """,
                "docs/index.md": """
                    # Welcome

                    - [Landing zone reference](lz-reference/README.md)
                    - [How to use this portal](using.md)
                    """,
            },
        ),
        _Step(
            DANA,
            "Add the portal's own configuration and a page on its use",
            {
                "config/portal.yaml": """
                    title: Landing zone portal
                    theme: light
                    navigation: [reference, compliance, costs]
                    """,
                "docs/using.md": """
                    # Using the portal

                    Search is at the top of each page. Figures say how old they are.
                    """,
            },
        ),
    ]


def _layer(name: str) -> dict[str, str]:
    return {path: text for path, text in _TERRAFORM.items() if path.startswith(f"terraform/{name}/")}


_README = """
    # GCP landing zone

    The source of truth for our Google Cloud organization: [documentation](docs/README.md), terraform in five layers,
    [governance](pmo.yaml), [enforcement gates](ENFORCEMENT_GATES.md) and [runbooks](RUNBOOKS.md).
    """

_DOCS = {
    "docs/README.md": """
        # Landing zone documentation

        Start with the [architecture](architecture.md), then read what you need.

        | topic | page |
        |---|---|
        | Principles | [principles](principles.md) |
        | Network | [overview](networking/overview.md), [firewalls](networking/firewalls.md) |
        | Identity | [identity](identity.md) |
        | Security | [baseline](security/baseline.md), [logging](security/logging.md) |
        | Workloads | [onboarding](workloads/onboarding.md) |
        | Money | [cost](cost.md) |
        """,
    "docs/architecture.md": """
        # Architecture

        The organization has four folders: `platform`, `production`, `non-production` and `sandbox`. Shared services
        live in `platform`; every workload gets a project per environment.

        ## Layers

        Terraform is applied in order. A layer reads the outputs of the layers before it, never of one after it.

        1. `01-organization`: folders, billing, audit configuration
        2. `02-networking`: hub and spokes, see [the network](networking/overview.md)
        3. `03-security`: keys, organization policies, see [the baseline](security/baseline.md)
        4. `04-platform`: clusters, databases, registries
        5. `05-workloads`: projects of teams, see [onboarding](workloads/onboarding.md)

        ## State

        Each layer has a state of its own in a bucket with versions and a retention policy.
        """,
    "docs/principles.md": """
        # Principles

        - Nothing is made by hand in production. The exception is an emergency, and it ends in a commit.
        - A project belongs to a team, and the label `team` says which.
        - Data stays in `europe-west1` and `europe-west4` unless the [governance](governance.md) file says otherwise.
        """,
    "docs/networking/overview.md": """
        # Network overview

        One hub, one spoke per environment, connected by peering. Spokes don't see each other.

        ## Address plan

        | network | range |
        |---|---|
        | hub | 10.0.0.0/20 |
        | production | 10.16.0.0/14 |
        | non-production | 10.32.0.0/14 |
        | sandbox | 10.48.0.0/16 |

        Why the hub has no internet gateway is in [ADR 1](../adr/0001-no-internet-gateway-in-the-hub.md).
        """,
    "docs/networking/firewalls.md": """
        # Firewalls

        Rules are opened for a service account or a tag, never for `0.0.0.0/0`. SSH goes through Identity-Aware Proxy
        (`35.235.240.0/20`). A change needs a review by the network team, see gate GATE-03 in the
        [enforcement gates](../../ENFORCEMENT_GATES.md).
        """,
    "docs/identity.md": """
        # Identity

        People sign in with the company directory and get roles through groups. Service accounts have no keys;
        workloads use Workload Identity. A key that exists anyway is rotated after 90 days at the latest.
        """,
    "docs/governance.md": """
        # Governance

        `pmo.yaml` names owners, budgets, environments and the data classes. Changes to it need the approval of the
        programme office. The [gates](../ENFORCEMENT_GATES.md) say what a change must pass.
        """,
    "docs/security/baseline.md": """
        # Security baseline

        We follow the CIS benchmark for Google Cloud. Buckets have uniform access, databases require TLS and have no
        public address, disks of production are encrypted with our own keys.

        ## Exceptions

        An exception has an owner, a reason and an end. Ask in the [runbooks](../../RUNBOOKS.md) how to file one.
        """,
    "docs/security/logging.md": """
        # Logging

        Audit logs of all projects go to one bucket in the security project and are kept for 400 days. The bucket is
        locked: nobody can delete from it, and nobody can shorten the time. It is part of the [baseline](baseline.md).

        | log | where | who reads it |
        |---|---|---|
        | admin activity | `lz-audit-logs` | security, auditors |
        | data access | `lz-audit-logs` | security |
        | network flows | the project's own bucket | network team |
        """,
    "docs/workloads/onboarding.md": """
        # Onboard a workload

        1. Add a file to `terraform/05-workloads` that uses the module `workload`.
        2. Open a pull request. Gates GATE-01 to GATE-04 run on it.
        3. After the merge the projects exist within half an hour.
        """,
    "docs/cost.md": """
        # Cost

        Every project has a budget, with a warning at 80 %. Costs are shown per team by the label `team`.
        """,
    "docs/disaster-recovery.md": """
        # Disaster recovery

        What must be back, and when. The steps are in the [runbooks](../RUNBOOKS.md#restore-a-database).

        ## Targets

        | what | recovery time | recovery point | owner |
        |---|---:|---:|---|
        | platform | four hours | 15 minutes | platform |
        | database `orders` | one hour | 5 minutes | payments |
        | audit logs | a day | none lost | security |

        ## Exercises

        They take place in March and September. Before one starts, see whether the newest backup is young enough:

        ```bash
        gcloud sql backups list --instance=orders --limit=1 --format="value(endTime)"
        ```

        <details>
        <summary>What the last exercise showed</summary>

        - The database was back after 41 minutes.
        - The [address plan](networking/overview.md#address-plan) was missing two ranges; it has them now.

        </details>
        """,
    "docs/glossary.md": """
        # Glossary

        - **Gate**: a check that a change must pass.
        - **Spoke**: the network of an environment.
        - **Workload**: what a team runs; one project per environment.
        """,
    "docs/adr/0001-no-internet-gateway-in-the-hub.md": """
        # ADR 1: No internet gateway in the hub

        Accepted on 2026-02-12.

        Egress goes through Cloud NAT in each spoke, so that a team's traffic has the team's address and its cost has
        the team's label.
        """,
}

_PMO = """
    programme:
      name: Cloud foundation
      owner: dana.novak@example.com
      review: quarterly
    environments:
      production:
        folder: production
        regions: [europe-west1, europe-west4]
        change_window: "Tue-Thu 08:00-16:00"
      non_production:
        folder: non-production
        regions: [europe-west1]
      sandbox:
        folder: sandbox
        regions: [europe-west1]
        auto_delete_days: 30
    teams:
      - name: platform
        lead: alice.moreau@example.com
        budget_eur: 42000
      - name: payments
        lead: chen.wei@example.com
        budget_eur: 31000
      - name: web
        lead: bilal.haddad@example.com
        budget_eur: 18500
    data_classes:
      public: {encryption: google}
      internal: {encryption: google}
      confidential: {encryption: customer-managed, locations: [europe-west1, europe-west4]}
    compliance:
      framework: CIS v1.2
      target_score: 0.95
    """

_GATES = """
    # Enforcement gates

    A change to the landing zone passes these gates. `blocking` gates stop it; `advisory` ones leave a comment.

    ## Overview

    | Gate | Title | Phase | Severity | Blocks | Validation | Status |
    |---|---|---|---|---|---|---|
    | GATE-01 | Terraform plan is clean | pull request | high | merge | `terraform plan -detailed-exitcode` | active |
    | GATE-02 | No secret in the change | pull request | critical | merge | secret scan of the diff | active |
    | GATE-03 | Firewall change reviewed | pull request | high | merge | approval of the network team | active |
    | GATE-04 | Labels are complete | pull request | medium | nothing | labels are complete | advisory |
    | GATE-05 | Public buckets | runtime | critical | deployment | control 5.1 of CIS | active |
    | GATE-06 | Databases without public address | runtime | high | deployment | control 6.5 of CIS | active |
    | GATE-07 | Budget is set | monthly | low | nothing | budget API | planned |

    ## GATE-03: Firewall change reviewed

    Applies to `google_compute_firewall` and to hierarchical policies.

    - Phase: pull request
    - Severity: high
    - Validation: approval of the network team within two days

    ## GATE-08: Keys are rotated

    - Phase: runtime
    - Severity: high
    - Blocks: nothing
    - Validation: control 1.10 of CIS
    - Status: active

    ## How to ask for an exception

    Open a pull request that changes `pmo.yaml`, with an owner and an end date.
    """

_RUNBOOKS = """
    # Runbooks

    ## A sync of the portal fails

    Look at what the layer says, then run it by hand.

    ```bash
    lz-sync status
    lz-sync sync git
    ```

    ## Open a firewall in an emergency

    1. Tell the network team.
    2. Open it for a tag, for an hour:

    ```bash
    gcloud compute firewall-rules create emergency-ssh \\
      --network=spoke-production --allow=tcp:22 --target-tags=emergency --source-ranges=35.235.240.0/20
    ```

    3. Remove it, and write a commit that says what happened.

    ```bash
    gcloud compute firewall-rules delete emergency-ssh --quiet
    ```

    ## Rotate a key

    ```bash
    gcloud kms keys versions create --key=disks --keyring=production --location=europe-west1 --primary
    ```

    ## Restore a database

    ```console
    $ gcloud sql backups list --instance=orders
    $ gcloud sql backups restore 1706000000000 --restore-instance=orders
    ```

    ## Exercise the disaster recovery

    Ask the platform team for a date. There is no command for this one.
    """

_NETWORK_DRAFT = """
    resource "google_compute_network" "hub" {
      name                    = "hub"
      auto_create_subnetworks = true
    }
    """

_TERRAFORM = {
    "terraform/01-organization/main.tf": """
        terraform {
          required_version = ">= 1.7"
          required_providers {
            google = {
              source  = "hashicorp/google"
              version = "~> 6.0"
            }
          }
          backend "gcs" {
            bucket = "lz-terraform-state"
            prefix = "01-organization"
          }
        }

        provider "google" {
          region = var.region
        }

        resource "google_folder" "environment" {
          for_each     = toset(var.environments)
          display_name = each.value
          parent       = "organizations/${var.organization_id}"
        }

        resource "google_organization_iam_audit_config" "all" {
          org_id  = var.organization_id
          service = "allServices"
          audit_log_config {
            log_type = "ADMIN_READ"
          }
          audit_log_config {
            log_type = "DATA_WRITE"
          }
        }
        """,
    "terraform/01-organization/variables.tf": """
        variable "organization_id" {
          type        = string
          description = "The numeric id of the organization."
          default     = "100000000001"
        }

        variable "region" {
          type    = string
          default = "europe-west1"
        }

        variable "environments" {
          type    = list(string)
          default = ["platform", "production", "non-production", "sandbox"]
        }
        """,
    "terraform/01-organization/outputs.tf": """
        output "folder_ids" {
          value = { for name, folder in google_folder.environment : name => folder.name }
        }
        """,
    "terraform/02-networking/main.tf": """
        locals {
          shared_project = "lz-network-shared-rwz3"
          labels = {
            team        = "platform"
            environment = "shared"
          }
        }

        resource "google_compute_network" "hub" {
          name                    = "vpc-shared-rwz3"
          project                 = local.shared_project
          auto_create_subnetworks = false
          routing_mode            = "GLOBAL"
        }

        resource "google_compute_subnetwork" "hub" {
          for_each                 = var.hub_ranges
          name                     = "hub-${each.key}"
          project                  = var.host_project
          network                  = google_compute_network.hub.id
          region                   = each.key
          ip_cidr_range            = each.value
          private_ip_google_access = true
          log_config {
            aggregation_interval = "INTERVAL_5_MIN"
            flow_sampling        = 0.5
          }
        }

        resource "google_compute_subnetwork" "services" {
          name                     = "subnet-rwz3"
          project                  = local.shared_project
          network                  = google_compute_network.hub.id
          region                   = "europe-west1"
          ip_cidr_range            = "10.0.0.0/24"
          private_ip_google_access = true
        }

        module "spoke" {
          source   = "./modules/spoke"
          for_each = var.spokes
          name     = each.key
          range    = each.value
          hub      = google_compute_network.hub.self_link
        }
        """,
    "terraform/02-networking/firewall.tf": """
        resource "google_compute_firewall" "iap_ssh" {
          name          = "hub-allow-iap-ssh"
          project       = local.shared_project
          network       = google_compute_network.hub.name
          source_ranges = ["35.235.240.0/20"]
          allow {
            protocol = "tcp"
            ports    = ["22"]
          }
          log_config {
            metadata = "INCLUDE_ALL_METADATA"
          }
        }

        # Load balancers only: who opens it for more by hand shows up as a change.
        resource "google_compute_firewall" "web" {
          name          = "allow-web-rwz3"
          project       = local.shared_project
          network       = google_compute_network.hub.self_link
          source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]
          target_tags   = ["web"]
          allow {
            protocol = "tcp"
            ports    = ["80", "443"]
          }
        }

        resource "google_compute_firewall" "deny_all" {
          name     = "hub-deny-all"
          project  = var.host_project
          network  = google_compute_network.hub.name
          priority = 65534
          deny {
            protocol = "all"
          }
        }
        """,
    "terraform/02-networking/variables.tf": """
        variable "host_project" {
          type    = string
          default = "lz-network-hub"
        }

        variable "hub_ranges" {
          type = map(string)
          default = {
            europe-west1 = "10.0.0.0/22"
            europe-west4 = "10.0.4.0/22"
          }
        }

        variable "spokes" {
          type = map(string)
          default = {
            production     = "10.16.0.0/14"
            non-production = "10.32.0.0/14"
            sandbox        = "10.48.0.0/16"
          }
        }
        """,
    "terraform/02-networking/modules/spoke/main.tf": """
        variable "name" {
          type = string
        }

        variable "range" {
          type = string
        }

        variable "hub" {
          type = string
        }

        resource "google_compute_network" "spoke" {
          name                    = "spoke-${var.name}"
          auto_create_subnetworks = false
        }

        resource "google_compute_network_peering" "to_hub" {
          name         = "${var.name}-to-hub"
          network      = google_compute_network.spoke.self_link
          peer_network = var.hub
        }

        output "network" {
          value = google_compute_network.spoke.id
        }
        """,
    "terraform/03-security/main.tf": """
        resource "google_kms_key_ring" "production" {
          name     = "production"
          location = "europe-west1"
          project  = var.security_project
        }

        resource "google_kms_crypto_key" "disks" {
          name            = "disks"
          key_ring        = google_kms_key_ring.production.id
          rotation_period = "7776000s"
          labels = {
            team       = "platform"
            data_class = "confidential"
          }
          lifecycle {
            prevent_destroy = true
          }
        }

        resource "google_storage_bucket" "audit_logs" {
          name                        = "lz-audit-logs"
          project                     = var.security_project
          location                    = "EU"
          uniform_bucket_level_access = true
          retention_policy {
            is_locked        = true
            retention_period = 34560000
          }
          labels = {
            team        = "platform"
            environment = "shared"
            cost-center = "cc-1001"
          }
        }

        resource "google_logging_organization_sink" "audit" {
          name             = "audit"
          org_id           = data.google_organization.this.org_id
          destination      = "storage.googleapis.com/${google_storage_bucket.audit_logs.name}"
          include_children = true
        }

        data "google_organization" "this" {
          organization = "organizations/100000000001"
        }
        """,
    "terraform/03-security/policies.tf": """
        resource "google_org_policy_policy" "no_external_ip" {
          name   = "organizations/100000000001/policies/compute.vmExternalIpAccess"
          parent = "organizations/100000000001"
          spec {
            rules {
              deny_all = "TRUE"
            }
          }
        }

        resource "google_org_policy_policy" "no_service_account_keys" {
          name   = "organizations/100000000001/policies/iam.disableServiceAccountKeyCreation"
          parent = "organizations/100000000001"
          spec {
            rules {
              enforce = "TRUE"
            }
          }
        }
        """,
    "terraform/03-security/variables.tf": """
        variable "security_project" {
          type    = string
          default = "lz-security"
        }
        """,
    "terraform/04-platform/gke.tf": """
        resource "google_container_cluster" "shared" {
          provider                 = google-beta
          name                     = "shared"
          project                  = var.platform_project
          location                 = "europe-west1"
          network                  = data.google_compute_network.hub.id
          remove_default_node_pool = true
          initial_node_count       = 1
          resource_labels          = local.labels
          private_cluster_config {
            enable_private_nodes    = true
            enable_private_endpoint = false
          }
        }

        resource "google_container_node_pool" "general" {
          name       = "general"
          cluster    = google_container_cluster.shared.id
          node_count = 3
          node_config {
            machine_type    = "e2-standard-4"
            service_account = google_service_account.nodes.email
            labels = {
              pool = "general"
            }
          }
        }

        resource "google_service_account" "nodes" {
          account_id = "gke-nodes"
          project    = var.platform_project
        }

        data "google_compute_network" "hub" {
          name    = "hub"
          project = "lz-network-hub"
        }
        """,
    "terraform/04-platform/sql.tf": """
        resource "google_sql_database_instance" "orders" {
          name             = "orders"
          project          = var.platform_project
          region           = "europe-west1"
          database_version = "POSTGRES_16"
          settings {
            tier              = "db-custom-2-8192"
            availability_type = "REGIONAL"
            user_labels       = local.labels
            ip_configuration {
              ipv4_enabled    = false
              private_network = data.google_compute_network.hub.id
              ssl_mode        = "ENCRYPTED_ONLY"
            }
            backup_configuration {
              enabled                        = true
              point_in_time_recovery_enabled = true
            }
          }
        }
        """,
    "terraform/04-platform/variables.tf": """
        variable "platform_project" {
          type    = string
          default = "lz-platform"
        }

        locals {
          labels = {
            team        = "platform"
            environment = "production"
            cost-center = "cc-1001"
          }
        }
        """,
    "terraform/05-workloads/main.tf": """
        module "payments" {
          source       = "./modules/workload"
          name         = "payments"
          team         = "payments"
          environments = ["production", "non-production"]
          budget       = 31000
        }

        module "web" {
          source       = "./modules/workload"
          name         = "web"
          team         = "web"
          environments = ["production", "non-production", "sandbox"]
          budget       = 18500
        }

        output "projects" {
          value = merge(module.payments.projects, module.web.projects)
        }
        """,
    "terraform/05-workloads/modules/workload/main.tf": """
        resource "google_project" "this" {
          for_each   = toset(var.environments)
          name       = "${var.name}-${each.value}"
          project_id = "lz-${var.name}-${each.value}"
          labels = {
            team        = var.team
            environment = each.value
          }
        }

        resource "google_billing_budget" "this" {
          billing_account = "000000-111111-222222"
          display_name    = var.name
          amount {
            specified_amount {
              currency_code = "EUR"
              units         = var.budget
            }
          }
        }

        output "projects" {
          value = { for environment, project in google_project.this : "${var.name}-${environment}" =>
          project.project_id }
        }
        """,
    "terraform/05-workloads/modules/workload/variables.tf": """
        variable "name" {
          type = string
        }

        variable "team" {
          type = string
        }

        variable "environments" {
          type = list(string)
        }

        variable "budget" {
          type        = number
          description = "Per month, in EUR."
        }
        """,
}
