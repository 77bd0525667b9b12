"""A replay's report as a file: CSV, JSON, or one HTML page that holds all it needs and asks no network for anything.

The page's script is built from `streams/console/web/src/report.tsx`. Its policy lets no other script run: names of
campaigns are data, in JSON that no name can end, and are written as text.
"""

import base64
import csv
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import ConfigurationError
from streams.jobs.replay_report import Figures, Ratio, Report

MAX_ON_PAGE: Final = 1_000
"""Campaigns on a page, the largest differences first; CSV and JSON hold all."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet: it gets an apostrophe (OWASP, CSV injection)."""


def check_paths(paths: Sequence[Path]) -> None:
    """Before anything runs.

    Raises:
        ConfigurationError: a suffix is none of ours, the same file is named twice, or its directory is not there.
    """
    for path in paths:
        if path.suffix.lower() not in _WRITERS:
            raise ConfigurationError(f"--report: {path} says no format; end its name in {', '.join(_WRITERS)}")
        if not path.parent.is_dir() or path.is_dir() or not os.access(path.parent, os.W_OK):
            raise ConfigurationError(f"--report: {path} cannot be written; give a file in a directory that can be")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigurationError("--report: the same file is named twice; give each its own")


def write_report(report: Report, path: Path) -> None:
    """Writes the report in the format that the suffix says, whole or not at all.

    Raises:
        ConfigurationError: the disk refuses.
    """
    data = _WRITERS[path.suffix.lower()](report)
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"--report: {path} cannot be written ({error.strerror or error}); `runs show {report.run} --report` writes "
            "it elsewhere"
        ) from None


def as_json(report: Report) -> bytes:
    """The whole report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def as_csv(report: Report) -> bytes:
    """A line for each campaign and currency: each measure before, after, and the difference. UTF-8; money in micros.

    The last column says, in each line, what has to be known before its figures are believed; empty: nothing.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures, remarks = Figures.__struct_fields__, "; ".join(report.remarks)
    columns = [f"{measure}_{side}" for measure in measures for side in ("before", "after", "difference")]
    writer.writerow(["campaign_id", "name", "currency", *columns, "remarks"])
    for line in report.campaigns:
        cells: list[object] = [_harmless(line.campaign_id), _harmless(line.name), _harmless(line.currency)]
        for name in measures:
            cells += [_cell(getattr(line.before, name)), _cell(getattr(line.after, name)), line.difference[name]]
        writer.writerow(["" if cell is None else cell for cell in (*cells, remarks)])
    return text.getvalue().encode()


def as_html(report: Report) -> bytes:
    """One page. Its policy forbids every script but its own, and every request."""
    shown = msgspec.structs.replace(report, campaigns=report.campaigns[:MAX_ON_PAGE])
    document = msgspec.to_builtins(shown) | {"campaigns_in_all": len(report.campaigns)}
    data = msgspec.json.encode(document).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")
    script, style = _part("report/report.js"), _part("report/report.css")
    policy = f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:"
    title = escape(f"{report.run} beside {report.other}")
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div id="report"></div>
<noscript>This report draws itself with JavaScript. The same as CSV or JSON needs none.</noscript>
<script id="licences" type="text/plain">{_part("static/licences.txt")}</script>
<script id="data" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""
    return page.encode()


def _cell(value: int | Ratio | None) -> float | None:
    return value.value if isinstance(value, Ratio) else value


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


@cache
def _part(name: str) -> str:
    return files("streams.console").joinpath(*name.split("/")).read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_WRITERS: Final[dict[str, Callable[[Report], bytes]]] = {".csv": as_csv, ".json": as_json, ".html": as_html}
