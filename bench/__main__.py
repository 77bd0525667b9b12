"""Reproducible measurements: `python -m bench NAME` (or `make bench NAME=…`) prints a table and writes a JSON file.

These machines are noisy: quote ratios from one run. `QUICK=1` runs with fewer events (some minutes).
"""

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAMES = ("pipeline", "pacing", "alerts", "invalid", "replay", "history")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Runs one benchmark."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in NAMES:
        sys.exit(f"bench: give a NAME, one of {', '.join(NAMES)}: make bench NAME={NAMES[0]}")
    quick = os.environ.get("QUICK", "") not in ("", "0")
    figures = asyncio.run(importlib.import_module(f"bench.{name}").run(quick))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("figure", "value", title=f"bench {name}" + (" (quick)" if quick else ""))
    for figure, value in figures.items():
        table.add_row(figure, f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
