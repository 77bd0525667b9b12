"""Writes what the page is built from, and checks what was built: `python -m streams.jobs.console`.

`make console` runs this, then npm: the API's description becomes TypeScript types, and the sources become the bundle
in streams/console/static/. The build records a digest of its sources there, so that a test sees a stale bundle
without Node.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from streams.console.openapi import description

CONSOLE: Final = Path(__file__).resolve().parents[1] / "console"
WEB: Final = CONSOLE / "web"
STATIC: Final = CONSOLE / "static"
DESCRIPTION: Final = WEB / "openapi.json"
DIGEST: Final = STATIC / "sources.txt"
SOURCES: Final = ("package-lock.json", "package.json", "build.mjs", "index.html", "tsconfig.json")


def described() -> str:
    """The description as it is committed for the page's types."""
    return json.dumps(description(), indent=1, ensure_ascii=False) + "\n"


def digest_of_sources() -> str:
    """One digest over every source of the page, as build.mjs makes it."""
    paths = [*(WEB / name for name in SOURCES), *sorted((WEB / "src").iterdir())]
    whole = sha256()
    for path in paths:
        name = str(path.relative_to(WEB))
        whole.update(f"{name} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def main() -> None:
    """Writes the description."""
    DESCRIPTION.write_text(described(), encoding="utf-8")
    sys.stdout.write(f"{DESCRIPTION.name} written\n")


if __name__ == "__main__":
    main()
