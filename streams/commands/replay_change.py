"""What `replay --rules` and `--settings` change: files that say only what is to be different."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from streams.errors import ConfigurationError
from streams.invalid import Rule
from streams.rules import Rules
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.campaigns import CampaignSettings
    from streams.jobs.replay_what_if import Change

MAX_TOLD: Final = 50
"""Differences of rules that are told; beyond it only how many there are."""
MAX_VALUE: Final = 60
"""Characters of a value that are told."""
_NONE: Final = "-"
_LISTS: Final = "invalid.lists."


def change_of(settings: Settings, rules: Path | None, campaigns: Path | None) -> "Change | None":
    """What is different in a run; None: nothing.

    Args:
        rules: a TOML file with a table `[rules]`, put over the settings' rules table by table: whatever it does not
            name stays as it is. A list takes the place of the other.
        campaigns: settings of campaigns, as `campaigns put` takes them.

    Raises:
        ConfigurationError: a file cannot be read, or says something wrong; the message names it.
    """
    from streams.adapters.lists import with_lists
    from streams.jobs.replay_what_if import Change

    if rules is None and campaigns is None:
        return None
    own = settings.parsed_rules()
    if rules is not None:
        own = _rules_of(rules, own)
    return Change(with_lists(own, settings), _campaigns_of(campaigns) if campaigns is not None else ())


def differences(before: Rules, after: Rules) -> list[str]:
    """Every rule that is not the same, by its place: before → after. Empty: none."""
    old, new = (dict(_leaves(_whole(rules))) for rules in (before, after))
    found, has_lists = [], False
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if name.startswith(_LISTS):
            has_lists = True
        else:
            found.append(f"{name}: {_text(old.get(name, _NONE))} → {_text(new.get(name, _NONE))}")
    if has_lists:
        found.append("invalid.lists: other lists")
    if len(found) > MAX_TOLD:
        found = [*found[:MAX_TOLD], f"and {len(found) - MAX_TOLD} more"]
    return found


def _rules_of(path: Path, before: Rules) -> Rules:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--rules: {path} cannot be read as TOML: {error}") from None
    table = document.get("rules")
    if not isinstance(table, dict):
        raise ConfigurationError(f"--rules: {path} has no table [rules]; write what is to be different in it")
    try:
        return msgspec.convert(_merged(msgspec.to_builtins(before), table), Rules, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"--rules: {path}: {error}; mend it there, below [rules]") from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables joined at every depth; where both say something, what lies above counts."""
    found = {**below, **above}
    for name, value in above.items():
        under = below.get(name)
        if isinstance(value, dict) and isinstance(under, dict):
            found[name] = _merged(under, value)
    return found


def _campaigns_of(path: Path) -> "tuple[CampaignSettings, ...]":
    from streams.jobs.campaign_files import read_campaign_file

    found = read_campaign_file(path)
    if found.problems:
        first = found.problems[0]
        what = f"{first.path}: {first.problem}" if first.path else first.problem
        raise ConfigurationError(f"--settings: {path}: {what}; `campaigns put --check` shows all of them")
    return tuple(found.campaigns)


def _whole(rules: Rules) -> dict[str, Any]:
    """With the mode of every rule, where it is its default, too."""
    whole: dict[str, Any] = msgspec.to_builtins(rules)
    whole["invalid"]["modes"] = {rule.value: rules.invalid.mode(rule).value for rule in Rule}
    return whole


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _text(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
