"""The wheel installs on its own, outside a checkout, and carries what it needs besides code."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from streams import __version__
from tests.support.tools import REPOSITORY

PARTS = ("pyproject.toml", "README.md", "LICENSE", "streams", "schemas")


def outside() -> dict[str, str]:
    """An environment in which the checkout is not found."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CAMPAIGN_STREAMS_"))}


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=outside() | more, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: the build leaves things beside its sources."""
    setuptools = pytest.importorskip("setuptools", minversion="77", reason="pip install 'setuptools>=77'")
    place = tmp_path_factory.mktemp("wheel")
    tree = place / "tree"
    tree.mkdir()
    for source in (REPOSITORY / part for part in PARTS):
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(source, tree / source.name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, tree)
    found = Path(setuptools.__file__).parents[1]
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", place, ".")
    run(sys.executable, *build, cwd=tree, PYTHONPATH=str(found))
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with this wheel; the libraries come from the one that runs the tests."""
    place = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=place,
    )
    (site,) = (place / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def test_the_installed_command_tells_its_version(installed: Path) -> None:
    assert (
        run(installed / "venv/bin/campaign-streams", "--version", cwd=installed) == f"campaign-streams {__version__}\n"
    )


def test_the_installed_package_finds_its_migrations_and_mappings(installed: Path) -> None:
    code = """
import json, streams
from streams.adapters.clickhouse_migrations import load_migrations, migrations_dir
from streams.adapters.shipped import schemas_dir
from streams.jobs.mapping import shipped_mappings
print(json.dumps([streams.__file__, str(migrations_dir()), len(load_migrations()), shipped_mappings(),
                  sorted(p.name for p in schemas_dir().glob("events/*.json"))]))
"""
    found = json.loads(run(installed / "venv/bin/python", "-c", code, cwd=installed))
    assert found[0].startswith(str(installed))
    assert found[1].startswith(str(installed))
    assert found[2] == len(list((REPOSITORY / "schemas/clickhouse").glob("*.sql")))
    assert found[3] == sorted(path.stem for path in (REPOSITORY / "schemas/mappings").glob("*.toml"))
    assert found[4] == sorted(path.name for path in (REPOSITORY / "schemas/events").glob("*.json"))


def test_every_command_of_the_installed_package_can_be_asked_for_help(installed: Path) -> None:
    assert "worker" in run(installed / "venv/bin/campaign-streams", "--help", cwd=installed)


def test_the_wheel_holds_all_of_schemas_and_none_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("streams/_schemas/") for name in names if name.startswith("streams/_schemas/")}
    ours = {str(path.relative_to(REPOSITORY / "schemas")) for path in (REPOSITORY / "schemas").rglob("*.*")}
    assert shipped == ours
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "streams").rglob("*.py")}
    assert modules <= set(names)
    assert {name.split("/")[0] for name in names} == {"streams", f"campaign_streams-{__version__}.dist-info"}


def test_the_wheel_holds_the_page_as_it_was_built_and_not_its_sources(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("streams/console/")}
    static = REPOSITORY / "streams/console/static"
    assert {f"streams/console/static/{path.name}" for path in static.iterdir()} <= names
    assert not [name for name in names if name.startswith("streams/console/web/")]


def test_the_wheel_offers_its_extras(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = message_from_bytes(archive.read(f"campaign_streams-{__version__}.dist-info/METADATA"))
    assert {"embedded", "files", "notify"} <= set(metadata.get_all("Provides-Extra", []))
    assert (metadata["Version"], metadata["License-Expression"]) == (__version__, "Apache-2.0")
