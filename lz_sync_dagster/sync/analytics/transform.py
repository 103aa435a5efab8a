"""Runs dbt, as a subprocess of this interpreter: nothing here imports it. What the models say is in ``dbt_project/``.

dbt writes its files below ``data_dir`` or a per-user cache, never beside the models, which may lie in
``site-packages``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.progress import Progress, silent

_DBT = (sys.executable, "-c", "from dbt.cli.main import cli; cli()")
_DISTRIBUTIONS = ("dbt-core", "dbt-adapters", "dbt-common", "dbt-duckdb", "dbt-bigquery")
_BUILT_BY_DBT = ("target", "logs", "dbt_packages")
#: Words of a failed run that another attempt may cure: somebody else has the warehouse's file open, or the service
#: is busy.
_TRANSIENT = ("Could not set lock on file", "Conflicting lock is held", "503 ", "429 ", "rateLimitExceeded")
#: What dbt and Google's client may see of this process's environment, beside what `environment` sets.
_INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY",
    "NO_PROXY",
    "CLOUDSDK_CONFIG",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What one ``dbt build`` made: numbers of models, of tests that passed (data and unit tests), and of tests that
    warn.
    """

    models: int
    tests: int
    warnings: int
    seconds: float


def project_dir() -> Path:
    """The folder with ``dbt_project.yml``: inside the package when it is installed, at the repository's root
    otherwise.

    Raises:
        SyncError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "dbt_project", package.parent / "dbt_project"):
        if (folder / "dbt_project.yml").is_file():
            return folder
    raise SyncError(
        "has no dbt project beside it",
        where=str(package),
        remedy="install the package from its wheel, or run from a full checkout",
        reason=Reason.NOT_FOUND,
    )


def environment(settings: Settings) -> dict[str, str]:
    """The variables that ``dbt_project/profiles.yml`` and the models read. They begin with ``LZ_DBT_``, not with the
    prefix of our own settings, so that a process that has them can still load these.
    """
    raw = settings.raw_dir
    for special, written in (("'", "''"), ("{", "{{"), ("}", "}}")):
        raw = raw.replace(special, written)
    return {
        "LZ_DBT_TARGET": settings.warehouse.engine,
        "LZ_DBT_DUCKDB_PATH": str(settings.duckdb_path),
        "LZ_DBT_RAW_DIR": raw,
        "LZ_DBT_SOURCE": settings.sync_layers.bigquery.source,
        "LZ_DBT_DATASET": settings.sync_layers.bigquery.dataset,
        "LZ_DBT_BIGQUERY_PROJECT": settings.warehouse.project or "unset",
        "LZ_DBT_BIGQUERY_LOCATION": settings.warehouse.location,
    }


def target_path(settings: Settings) -> Path:
    """Where dbt writes its artifacts: below ``data_dir``."""
    return settings.data_dir.absolute() / "dbt" / "target"


def build(settings: Settings, *, progress: Progress = silent) -> BuildResult:
    """Run ``dbt build`` once: all models, their unit tests and data tests.

    Raises:
        SyncError: a model or a test failed (the first one is named), or dbt could not start.
    """
    target = target_path(settings)
    target.mkdir(parents=True, exist_ok=True)
    settings.duckdb_path.parent.mkdir(parents=True, exist_ok=True)
    results = target / "run_results.json"
    results.unlink(missing_ok=True)
    progress("building marts", 0, None)
    done = _dbt(
        ["build", "--target-path", str(target), "--log-path", str(target.parent / "logs")],
        project=project_dir(),
        variables=environment(settings),
    )
    result = read_results(results, done)
    progress("building marts", result.models + result.tests, result.models + result.tests)
    return result


def manifest_path() -> Path:
    """A parsed ``manifest.json`` of the models, for Dagster's definitions. Needs no environment, no network and no
    warehouse.

    dbt parses once; the result is kept in a per-user cache folder under the hash of the project's files and of dbt's
    versions. Processes may ask at the same time.

    Raises:
        SyncError: the project does not parse.
    """
    project = project_dir()
    folder = cache_dir() / _fingerprint(project)
    manifest = folder / "manifest.json"
    if manifest.is_file():
        return manifest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if manifest.is_file():
            return manifest
        work = Path(tempfile.mkdtemp(prefix="parse-", dir=folder.parent))
        try:
            done = _dbt(
                ["parse", "--no-partial-parse", "--target-path", str(work), "--log-path", str(work)],
                project=project,
                variables={},
            )
            if done.returncode != 0 or not (work / "manifest.json").is_file():
                raise failure("do not parse", where=str(project), output=done.stdout + done.stderr)
            folder.mkdir(exist_ok=True)
            (work / "manifest.json").replace(manifest)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return manifest


def _dbt(arguments: Sequence[str], *, project: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env = {**inherited, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "PYTHONWARNINGS": "ignore", **variables}
    command = [*_DBT, "--no-use-colors", "--no-version-check", "--log-level-file", "info", *arguments]
    command += ["--project-dir", str(project), "--profiles-dir", str(project)]
    return subprocess.run(command, env=env, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603


def read_results(path: Path, done: subprocess.CompletedProcess[str]) -> BuildResult:
    """Read ``run_results.json`` of a finished ``dbt build``.

    Raises:
        SyncError: names the first node that failed, or why there are no results.
    """
    output = done.stdout + done.stderr
    if not path.is_file():
        raise failure("dbt could not start", where="dbt build", output=output)
    document = json.loads(path.read_text(encoding="utf-8"))
    results = document["results"]
    for result in results:
        if result["status"] in ("error", "fail", "runtime error"):
            raise failure(f"{result['status']}: {result['message']}", where=_node(result["unique_id"]), output=output)
    if done.returncode != 0:
        raise failure("dbt failed", where="dbt build", output=output)
    kinds = [result["unique_id"].partition(".")[0] for result in results]
    return BuildResult(
        models=kinds.count("model"),
        tests=kinds.count("test") + kinds.count("unit_test"),
        warnings=sum(result["status"] == "warn" for result in results),
        seconds=document["elapsed_time"],
    )


def _node(unique_id: str) -> str:
    kind, _, rest = unique_id.partition(".")
    return f"dbt {kind.replace('_', ' ')} {rest.partition('.')[2]}"


def failure(what: str, *, where: str, output: str) -> SyncError:
    """A failed dbt as an error, transient if another attempt may cure it; whoever runs dbt, the rule is this one.

    Args:
        what: dbt's own status and message of the node that failed, or what failed before any node did.
        where: the node, or ``dbt build``.
        output: everything that dbt said.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if where == "dbt build" or what.startswith("do not parse"):
        told = [line for line in lines if "Error" in line or "error" in line] or lines[-1:]
        what = f"{what} ({' '.join(told)[:300]})"
    transient = not what.startswith("fail:") and any(words in what or words in output for words in _TRANSIENT)
    return SyncError(
        " ".join(what.split())[:600],
        where=where,
        remedy=(
            "wait until the process that has the warehouse open is done"
            if transient
            else "look at the compiled SQL below data_dir/dbt/target and at the raw data it reads"
        ),
        reason=Reason.CONFLICT if transient else Reason.INVALID,
    )


def _fingerprint(project: Path) -> str:
    digest = hashlib.sha256()
    for name in _DISTRIBUTIONS:
        digest.update(f"{name}=={importlib.metadata.version(name)}\n".encode())
    digest.update(f"{sys.version_info[:2]}\n{project}\n".encode())
    for path in sorted(project.rglob("*")):
        relative = path.relative_to(project)
        if path.is_file() and relative.parts[0] not in _BUILT_BY_DBT and not path.name.startswith("."):
            digest.update(f"{relative.as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def cache_dir() -> Path:
    """This user's folder for parsed manifests, made if it is not there; below the temporary folder if there is no
    home, or none that can be written.

    Raises:
        SyncError: the folder below the temporary one is somebody else's, who could put anything there.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(named) if named else Path("~/.cache").expanduser()
        folder = home / "lz_sync_dagster" / "dbt"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        own = Path(tempfile.gettempdir()) / f"lz_sync_dagster-{os.getuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        found = own.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise SyncError(
                "is not this user's own folder",
                where=str(own),
                remedy="set XDG_CACHE_HOME to a folder that this user can write",
                reason=Reason.PERMISSION_DENIED,
            ) from None
        folder = own / "dbt"
        folder.mkdir(exist_ok=True)
    return folder
