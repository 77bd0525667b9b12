"""Tools of others that check what is in deploy/: from PATH, or from .cache/tools/bin (`make tools`).

promtool, amtool and helm are no Python packages. Where one is absent, the tests that need it skip and say so.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = REPOSITORY / "deploy"
CACHE: Final = REPOSITORY / ".cache" / "tools" / "bin"


def tool(name: str) -> str:
    """Its path; skips the test where it is not to be had."""
    found = shutil.which(name) or shutil.which(name, path=str(CACHE))
    if found is None:
        pytest.skip(f"{name} is neither on PATH nor in {CACHE.relative_to(REPOSITORY)}: make tools")
    return found


def run(name: str, *arguments: str | Path, cwd: Path = DEPLOY) -> subprocess.CompletedProcess[str]:
    """Runs it to its end; its output is for the assertion that fails."""
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def check(name: str, *arguments: str | Path, cwd: Path = DEPLOY) -> str:
    """Runs it, insists on success, and returns what it says."""
    done = run(name, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
