"""Writes dashboards/*.json from Python: `python -m grafana.build`. A test keeps the committed files equal."""

import sys
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import campaigns, health, invalid, pacing, replays

DIRECTORY: Final = Path(__file__).resolve().parent / "dashboards"


def dashboards() -> dict[str, Dashboard]:
    """Every dashboard by the name of its file."""
    return {
        "campaigns.json": campaigns.build(),
        "health.json": health.build(),
        "invalid.json": invalid.build(),
        "pacing.json": pacing.build(),
        "replays.json": replays.build(),
    }


def documents() -> dict[str, bytes]:
    """Every file: its name, and its bytes."""
    encoder = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False)
    return {name: f"{encoder.encode(found)}\n".encode() for name, found in dashboards().items()}


def main() -> int:
    """Writes the committed files."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, document in documents().items():
        (DIRECTORY / name).write_bytes(document)
        sys.stdout.write(f"{DIRECTORY / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
