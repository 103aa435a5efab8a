"""Checks of the git layer: is everything the mapping covers accounted for, and could the rules be read?"""

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.git.assets import AUDITS
from lz_sync_dagster.defs.layer_checks import error, sync_check, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.store import Store, repository, repository_views, source_findings
from lz_sync_dagster.sync.store.schema import enforcement_gates, synced_files
from lz_sync_dagster.sync.store.source_findings import FindingKind

#: What reads everything, whatever changed: once a day, not with every sync.
git_audit_job = dg.define_asset_job(
    "git_audit_job",
    selection=dg.AssetSelection.checks(*AUDITS),
    description="Compares the landing zone, the portal's repository, its manifest and the store, file by file.",
)

sync_is_complete = sync_check(LayerId.GIT, ["git", "commits"])


@dg.asset_check(
    asset=["git", "portal_commits"],
    description="Every file that the mapping covers is in the portal's repository, or says why it is not.",
)
def files_are_accounted_for(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    with store.read() as connection:
        rows = connection.execute(sa.select(synced_files.c.path, synced_files.c.status, synced_files.c.reason)).all()
    lost = [
        f"{row.path}: is {row.status} without a reason; run 'lz-sync sync git --full'" for row in rows if not _said(row)
    ]
    left = [f"{row.path}: {row.reason}" for row in rows if row.status != "synced" and row.reason]
    if lost or not rows:
        return error(
            lost or ["no file of the landing zone is mapped; check sync_layers.git_sync.paths"], files=len(rows)
        )
    if left:
        return warning(left, files=len(rows), not_synced=len(left))
    return dg.AssetCheckResult(passed=True, metadata={"files": len(rows), "not_synced": 0})


@dg.asset_check(
    asset=["git", "portal_commits"],
    description="The landing zone, the pushed tree, its manifest and the store agree on every file.",
)
def manifest_matches_the_tree(
    settings: dg.ResourceParam[Settings], store: dg.ResourceParam[Store]
) -> dg.AssetCheckResult:
    from lz_sync_dagster.sync.git.audit import audit_portal  # loads git: only a run needs it

    try:
        audit = audit_portal(settings, store)
    except SyncError as failure:
        return error([str(failure)])
    if audit.files is None:
        return warning(audit.problems)
    if audit.problems:
        return error(audit.problems, files=audit.files)
    return dg.AssetCheckResult(passed=True, metadata={"files": audit.files})


@dg.asset_check(
    asset=["git", "enforcement_gates"], description="`ENFORCEMENT_GATES.md`, if there is one, yields gates."
)
def gates_were_read(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    from lz_sync_dagster.sync.git.gates import GATES_PATH  # loads git: only a run needs it

    with store.read() as connection:
        gates = connection.scalar(sa.select(sa.func.count()).select_from(enforcement_gates)) or 0
        unread = source_findings.open_findings(connection, kinds=[FindingKind.GATES])
        is_selected = repository_views.copies(connection, GATES_PATH) != []
        was_synced = repository.git_state(connection) is not None
    if unread:
        lines = [item.finding.text for item in unread]
        return warning(lines, gates=gates) if gates else error(lines, gates=0)
    if gates:
        return dg.AssetCheckResult(passed=True, metadata={"gates": gates})
    if not was_synced:
        return warning(["nothing was synced yet; run 'lz-sync sync git'"])
    if not is_selected:
        return dg.AssetCheckResult(
            passed=True, metadata={"gates": 0, "note": f"the landing zone has no {GATES_PATH} that is selected"}
        )
    return error([f"no gate could be read from {GATES_PATH}; check its headings and tables"], gates=0)


@dg.asset_check(asset=["git", "terraform_blocks"], description="Every Terraform file parses.")
def terraform_parses(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    with store.read() as connection:
        broken = source_findings.open_findings(connection, kinds=[FindingKind.HCL_SYNTAX])
    if broken:
        return warning([item.finding.text for item in broken], files=len({item.finding.path for item in broken}))
    return dg.AssetCheckResult(passed=True)


def _said(row: sa.Row[tuple[str, str, str | None]]) -> bool:
    return row.status == "synced" or bool(row.reason)
