"""The wheel is enough: away from the checkout, in an environment of its own, the package loads its definitions.

Third-party packages come from the running environment through a ``.pth`` file; what that environment knows of the
checkout (its editable installation) stays behind, since a ``.pth`` file within is not read there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from lz_sync_dagster import __version__
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.store.migrations import newest_revision

ROOT = Path(__file__).parents[2]

#: What git ignores below the two folders that are packed.
IGNORED = {"__pycache__", "target", "logs", ".user.yml"}

PROBE = """
import json, lz_sync_dagster
from lz_sync_dagster.definitions import defs
from lz_sync_dagster.sync.analytics.transform import project_dir
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.store.migrations import newest_revision

print(json.dumps({
    "file": lz_sync_dagster.__file__,
    "assets": sorted(spec.key.to_user_string() for spec in defs().resolve_all_asset_specs()),
    "controls": len(load_controls()),
    "revision": newest_revision(),
    "dbt": str(project_dir()),
}))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel, and an environment that has nothing else of its own."""

    wheel: Path
    folder: Path

    @property
    def package(self) -> Path:
        """Where the package must be imported from."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "env" / "lib" / version / "site-packages" / "lz_sync_dagster"

    def run(self, *words: str) -> str:
        """Run a program of the environment with next to no environment variables. Returns its stdout."""
        program = self.folder / "env" / "bin" / words[0]
        done = subprocess.run(
            [str(program), *words[1:]],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    _python(*build)
    (wheel,) = (folder / "dist").glob("*.whl")
    _python("venv", "--without-pip", str(folder / "env"))
    python = folder / "env" / "bin" / "python"
    _python("pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel))
    result = Installed(wheel, folder)
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (result.package.parent / "dependencies.pth").write_text("\n".join(dependencies))
    return result


def _python(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_package_and_the_dbt_project_and_nothing_that_git_ignores(installed: Installed) -> None:
    packed = {name for name in zipfile.ZipFile(installed.wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT)
        for folder in ("lz_sync_dagster", "dbt_project")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not IGNORED & set(path.relative_to(ROOT).parts)
    }
    assert packed == {str(Path("lz_sync_dagster") / path if path.parts[0] == "dbt_project" else path) for path in there}


def test_the_installed_package_loads_the_definitions_of_the_checkout(installed: Installed) -> None:
    found = json.loads(installed.run("python", "-c", PROBE))
    assert found["file"] == str(installed.package / "__init__.py")
    assert found["dbt"] == str(installed.package / "dbt_project")
    assert found["assets"] == _assets_of_the_checkout()
    assert found["controls"] == len(load_controls())
    assert found["revision"] == newest_revision()


def test_the_installed_command_works(installed: Installed) -> None:
    assert installed.run("lz-sync", "--version") == f"lz-sync {__version__}\n"
    assert installed.run("lz-sync", "db", "migrate") == f"migrated from empty to {newest_revision()}\n"


def _assets_of_the_checkout() -> list[str]:
    """By the recorded graph, which ``tests/unit/defs`` holds against the checkout."""
    lines = (ROOT / "tests" / "unit" / "defs" / "graph.txt").read_text(encoding="utf-8").splitlines()
    return sorted(line.removeprefix("asset ") for line in lines if line.startswith("asset "))
