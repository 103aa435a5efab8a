"""Layer 2, git sync: the landing zone's repository, its documents and rules, and what was written to the portal's
repository."""

import dagster as dg

from lz_sync_dagster.defs.layer_sync import layer_assets, layer_job
from lz_sync_dagster.layers import LayerId

_COMMITS = dg.AssetKey(["git", "commits"])
_CONTENT = [
    dg.AssetKey(["git", noun])
    for noun in ("documents", "governance", "enforcement_gates", "terraform_blocks", "runbooks")
]

git_assets = layer_assets(
    LayerId.GIT,
    specs=[
        dg.AssetSpec(
            _COMMITS,
            description="Commits of the landing-zone repository on its branch. One row per commit.",
            deps=[["webhook", "deliveries"]],
            kinds={"git", "github"},
            metadata={"store_table": "commits", "grain": "one row per commit"},
        ),
        dg.AssetSpec(
            ["git", "documents"],
            description="The portal's knowledge base: `docs/**`, with headings and full text. One row per file.",
            deps=[_COMMITS],
            kinds={"git", "markdown"},
            metadata={"store_table": "documents", "grain": "one row per file"},
        ),
        dg.AssetSpec(
            ["git", "governance"],
            description="The portal's governance configuration: `pmo.yaml`. One row per leaf.",
            deps=[_COMMITS],
            kinds={"git", "yaml"},
            metadata={"store_table": "governance", "grain": "one row per leaf of pmo.yaml"},
        ),
        dg.AssetSpec(
            ["git", "enforcement_gates"],
            description="Compliance rules of `ENFORCEMENT_GATES.md`. One row per gate.",
            deps=[_COMMITS],
            kinds={"git", "markdown"},
            metadata={"store_table": "enforcement_gates", "grain": "one row per gate"},
        ),
        dg.AssetSpec(
            ["git", "terraform_blocks"],
            description="Infrastructure as written: blocks of `terraform/**/*.tf`. One row per block.",
            deps=[_COMMITS],
            kinds={"git", "terraform"},
            metadata={"store_table": "terraform_blocks", "grain": "one row per block"},
        ),
        dg.AssetSpec(
            ["git", "runbooks"],
            description="Operational procedures of `RUNBOOKS.md`. One row per section.",
            deps=[_COMMITS],
            kinds={"git", "markdown"},
            metadata={"store_table": "runbooks", "grain": "one row per section"},
        ),
        dg.AssetSpec(
            ["git", "portal_commits"],
            description=(
                "What was pushed to the portal's repository. One row per commit; a sync that finds nothing new"
                " pushes nothing."
            ),
            deps=[_COMMITS, *_CONTENT],
            kinds={"git", "github"},
            metadata={"store_table": "portal_commits", "grain": "one row per pushed commit"},
        ),
    ],
)

#: Checks that read everything: they have a job of their own.
AUDITS = tuple(
    dg.AssetCheckKey(dg.AssetKey(["git", "portal_commits"]), name)
    for name in ("files_are_accounted_for", "manifest_matches_the_tree")
)

git_job = layer_job(LayerId.GIT, without=AUDITS)
