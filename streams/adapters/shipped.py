"""The files that come with the package: JSON Schemas, mappings for log files, ClickHouse migrations."""

from pathlib import Path

import streams


def schemas_dir() -> Path:
    """The folder schemas/: inside an installed package, and linked into it in a checkout.

    Where links are not checked out as such, it is the folder beside the package.
    """
    package = Path(streams.__file__).parent
    inside = package / "_schemas"
    return inside if inside.is_dir() else package.parent / "schemas"
