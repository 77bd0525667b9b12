"""What several commands share: durations, times and tolerances as people write them, and the two consoles."""

import asyncio
import inspect
import json
import logging
import math
import os
import re
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from streams.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

UNBOUNDED_WIDTH: Final = 10_000
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)?")
_MS: Final = {
    "ms": 1.0,
    "s": 1e3,
    "m": 6e4,
    "min": 6e4,
    "h": 3.6e6,
    "d": 8.64e7,
    "w": 6.048e8,
    None: 1e3,
}


def duration_ms(option: str, text: str) -> int:
    """A duration such as 500ms, 60s, 5m, 1.5h, 1d or 2w (a bare number: seconds), in ms, at least 1.

    Raises:
        ConfigurationError: it is none; the message names the option.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    length = float(found[1]) * _MS[found[2]] if found else 0.0
    if length < 1:
        raise ConfigurationError(f"{option}: {text!r} is no duration; write 60s, 5m, 2h or 1d")
    return round(length)


def time_ms(option: str, text: str) -> int:
    """A time as epoch ms: ISO 8601 (UTC where it names no offset), a date (its begin, UTC), or `now`.

    Raises:
        ConfigurationError: it is none, or before 1970; the message names the option.
    """
    try:
        moment = datetime.now(UTC) if text.strip().lower() == "now" else datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option}: {text!r} is no time; write 2026-11-02, 2026-11-02T20:00+08:00 or now"
        ) from None
    at_ms = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms < 0:
        raise ConfigurationError(f"{option}: {text!r} is before 1970; give a later time")
    return at_ms


def time_text(at_ms: int | None) -> str:
    """An epoch in ms as people read it, UTC; – for none."""
    if at_ms is None:
        return "–"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def length_text(length_ms: float) -> str:
    """A span of time in its largest sensible unit."""
    for unit, size in (("d", 8.64e7), ("h", 3.6e6), ("min", 6e4), ("s", 1e3)):
        if length_ms >= size:
            return f"{length_ms / size:.3g} {unit}"
    return f"{math.ceil(length_ms)} ms"


def run(work: Coroutine[None, None, T]) -> T:
    """Runs what awaits, without the libraries' own words: what goes wrong is told once, with its remedy."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return asyncio.run(work)


def out() -> "Console":
    """Answers: standard output, texts as they are. Where it is no terminal, tables are as wide as they need to be."""
    from rich.console import Console

    is_sized = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_sized else UNBOUNDED_WIDTH, highlight=False, markup=False, emoji=False)


def notes() -> "Console":
    """What is not the answer itself: progress and remarks, on standard error."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def quoted(text: str) -> str:
    """A text as ClickHouse's SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def print_json(document: object) -> None:
    """Writes JSON to standard output, for people and for programs: indented, as UTF-8."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")


def prose(text: str | None) -> str:
    """A help text for the terminal to wrap: line breaks go, but not those of indented paragraphs (examples)."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(p if p.startswith("  ") else " ".join(p.split("\n")) for p in paragraphs)
