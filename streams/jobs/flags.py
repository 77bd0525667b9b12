"""Writes the page about the rules for invalid traffic, schemas/flags.md: `python -m streams.jobs.flags`.

Its texts are those of `streams.stages.invalid.catalogue` and, on publishers' risk, of the docstring of
`streams.stages.invalid.peer_risk`; its defaults are those of `InvalidRules`. A test keeps the
committed page equal to what is generated here.
"""

import inspect
import sys
from enum import Enum
from typing import Any, Final

import msgspec

from streams.invalid import InvalidRules, Rule, class_of
from streams.jobs.schemas import SCHEMAS_DIRECTORY
from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS
from streams.stages.invalid import peer_risk
from streams.stages.invalid.catalogue import DESCRIPTIONS, REASONS

PAGE: Final = SCHEMAS_DIRECTORY / "flags.md"
_UNITS: Final = {"d": DAY_MS, "h": HOUR_MS, "min": MINUTE_MS, "s": 1_000, "ms": 1}
_HEAD: Final = """# Rules for invalid traffic

<!-- written by `make schemas` from streams/stages/invalid/catalogue.py -->

Every event is gross. One with a flag of a rule that is `on` is not valid: it counts as general (GIVT) or sophisticated
(SIVT) invalid traffic, and gross = valid + GIVT + SIVT in every row. A rule in `observe` only tells; one that is `off`
looks at nothing. Switches and thresholds are settings:

```toml
[rules.invalid]
double_click_ms = 800
modes = { user_velocity = "on", data_centre = "observe" }

[invalid]
data_centres = "/etc/campaign-streams/data-centres.txt"  # one CIDR a line, `# as of 2026-01-31` on top
```

This page is internal. An advertiser is told a class of reasons, never a rule's name, threshold or evidence.

**Decision rate.** An event can be judged by the general rules if it carries a user agent, a network that can be read,
and, for clicks and conversions, a user or a device. The share of such events is the decision rate (MRC 2020); the rest
is valid for want of evidence, not proven so.
"""


def flags_page() -> str:
    """The whole page."""
    rows = [f"| `{rule}` | {_class(rule)} | {InvalidRules().mode(rule)} | {DESCRIPTIONS[rule].name} |" for rule in Rule]
    table = "\n".join(["| rule | class | default | what it finds |", "|---|---|---|---|", *rows])
    return "\n".join([_HEAD, table, "", *map(_chapter, Rule), *_risk()])


def _risk() -> list[str]:
    """The chapter on publishers' risk."""
    rows = [f"| `{trait}` | {words} |" for trait, words in peer_risk.WORDS.items()]
    reasons = ", ".join(f"`{reason}`" for reason in peer_risk.Unscored)
    least = (
        f"A score needs {peer_risk.LEAST_CLICKS} clicks, {peer_risk.LEAST_PEERS} peers with as many, and "
        f"{peer_risk.LEAST_TRAITS} traits that can be compared; without, a publisher is unverifiable ({reasons})."
    )
    text = inspect.cleandoc(peer_risk.__doc__ or "")
    head = [
        "## Publishers' risk",
        "",
        "Not a rule: no flag follows, no money moves. Internal.",
        "",
        text,
        "",
        least,
        "",
    ]
    return [*head, "| trait | share of |", "|---|---|", *rows, ""]


def _chapter(rule: Rule) -> str:
    text = DESCRIPTIONS[rule]
    lines = [f"## {text.name}", "", f"`{rule}` · {_class(rule)} · default: {InvalidRules().mode(rule)}", ""]
    lines += [text.looks_at, ""]
    if text.thresholds:
        lines += ["| setting | default |", "|---|---|"]
        lines += [f"| `rules.invalid.{name}` | {_threshold(name)} |" for name in text.thresholds]
        lines += [""]
    lines += [f"*Source:* {text.source}", "", f"*Looks alike:* {text.spared}", ""]
    reason = REASONS[rule]
    lines += [f"*Advertisers are told:* {reason.en} {reason.zh}", ""]
    return "\n".join(lines)


def _class(rule: Rule) -> str:
    return "review" if rule is Rule.REVIEW else class_of(rule).value.upper()


def _threshold(name: str) -> str:
    value: Any = InvalidRules()
    for part in name.split("."):
        value = getattr(value, part)
    return _shown(name, value)


def _shown(name: str, value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{field} {_shown(field, getattr(value, field))}" for field in value.__struct_fields__)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(name, each)}" for key, each in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(_shown(name, each) for each in value)
    if isinstance(value, Enum):
        return str(value.value)
    if name.endswith("_ms") and isinstance(value, int):
        return _length(value)
    unit = " px" if name.endswith("_px") else ""
    return f"{value:,}{unit}" if isinstance(value, int) else str(value) or "of the list that is loaded"


def _length(length_ms: int) -> str:
    unit = next(unit for unit, size in _UNITS.items() if size == 1 or (length_ms >= size and length_ms % size == 0))
    return f"{length_ms // _UNITS[unit]:,} {unit}"


def main() -> int:
    """Writes the committed page."""
    PAGE.write_text(flags_page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
