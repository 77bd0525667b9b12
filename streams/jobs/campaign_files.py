"""Reads campaign settings from a YAML, TOML or JSON file and reports every fault of the file at once.

A file holds one campaign (a table with `campaign_id`), a list of campaigns (YAML), or a list under `campaigns`.
Besides the fields of `CampaignSettings` a file may give times as people write them: `flight_start`, `flight_end` and
`valid_from` take a date or a date with a time. Without an offset they are in the campaign's time zone. A bare date is
the begin of that day, and as `flight_end` its end: the last day of the flight is included.

What `campaigns list --json` and `accounts list --json` print can be put again as it is, also where there are none: a
list without anything, and without a name, puts nothing.

Beside `campaigns` may stand `accounts` (`streams.jobs.account_files`): both are then checked together.
"""

import json
import tomllib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import yaml  # type: ignore[import-untyped]  # has no stubs of its own

from streams.accounts import Account
from streams.campaigns import CampaignSettings, problems_of
from streams.documents import Problem, known_zones
from streams.errors import ConfigurationError
from streams.jobs.account_files import Placed, accounts_in, epoch_ms, shared_money_problems, under

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_CAMPAIGNS: Final = 100_000
WRITTEN_TIMES: Final = ("flight_start", "flight_end", "valid_from")
LISTED: Final = ("versions", "holds_from_ms", "partition", "offset")
"""What `campaigns list --json` tells of a version beside its settings; no part of it when it is put again."""
_NO_CAMPAIGNS: Final = Problem("", "holds no campaigns: give one with `campaign_id`, or a list under `campaigns`")
_NO_ACCOUNTS: Final = Problem("", "holds no accounts: give a list under `accounts`")


class CampaignFile(NamedTuple):
    """What a file holds: what is without a fault, and every fault (`campaigns[3].currency`, what is wrong)."""

    campaigns: list[CampaignSettings]
    problems: list[Problem]
    accounts: Sequence[Account] = ()


def read_campaign_file(path: Path, routes: Collection[str] = ()) -> CampaignFile:
    """Reads a file that ends in .yaml, .yml, .toml or .json. Whoever appends must do so only if `problems` is empty.

    `routes`: those that there are, for alerts to name; none: not known here, any name will do.

    Raises:
        ConfigurationError: the file is absent, unreadable, too large, or of another format.
    """
    parsed = _parsed(path)
    return CampaignFile([], [parsed]) if isinstance(parsed, Problem) else campaigns_in(parsed, routes)


def read_account_file(path: Path) -> CampaignFile:
    """Like `read_campaign_file`, of a file that must hold accounts and may hold campaigns; a list is one of accounts.

    Raises:
        ConfigurationError: as there.
    """
    parsed = _parsed(path)
    if isinstance(parsed, Problem):
        return CampaignFile([], [parsed])
    if parsed == []:
        return CampaignFile([], [])
    if isinstance(parsed, list):
        parsed = {"accounts": parsed}
    if not isinstance(parsed, dict) or "accounts" not in parsed:
        return CampaignFile([], [_NO_ACCOUNTS])
    return _of_both(parsed)


def _parsed(path: Path) -> object | Problem:
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigurationError(
            f"{path}: settings are read from .yaml, .yml, .toml or .json; rename or convert the file"
        )
    try:
        return parse(_text_of(path))
    except (yaml.YAMLError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        return Problem("", f"cannot be parsed: {' '.join(str(error).split())}")


def campaigns_in(parsed: object, routes: Collection[str] = ()) -> CampaignFile:
    """Checks what was parsed: builtin values, dates and times."""
    if parsed == []:
        return CampaignFile([], [])
    if isinstance(parsed, dict) and "accounts" in parsed and "campaigns" not in parsed:
        return CampaignFile([], [_NO_CAMPAIGNS])
    return _of_both(parsed, routes)


def _of_both(parsed: object, routes: Collection[str] = ()) -> CampaignFile:
    accounts: Sequence[Account] = ()
    problems: list[Problem] = []
    if isinstance(parsed, dict) and "accounts" in parsed:
        accounts, problems = accounts_in(parsed["accounts"])
        parsed = {name: value for name, value in parsed.items() if name != "accounts"}
    placed, faults = ([], []) if parsed == {} and (accounts or problems) else _campaigns(parsed, routes)
    problems += faults + shared_money_problems(placed, accounts)
    return CampaignFile([campaign.settings for campaign in placed], problems, accounts)


def _campaigns(parsed: object, routes: Collection[str]) -> tuple[list[Placed], list[Problem]]:
    documents = _documents(parsed)
    if isinstance(documents, Problem):
        return [], [documents]
    placed: list[Placed] = []
    problems: list[Problem] = []
    first_at: dict[tuple[str, int | None], str] = {}
    for where, document in documents:
        found, faults = _campaign(document, routes)
        if found is not None:
            earlier = first_at.setdefault((found.campaign_id, found.valid_from_ms), where)
            if earlier != where:
                faults = [Problem("campaign_id", f"repeats {earlier} with the same valid_from_ms")]
            placed.append(Placed(where, found))
        problems += [Problem(under(where, fault.path), fault.problem) for fault in faults]
    return placed, problems


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path}: larger than {MAX_FILE_BYTES} bytes; split it")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; give a file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8; save it as UTF-8") from None


def _documents(parsed: object) -> list[tuple[str, object]] | Problem:
    if isinstance(parsed, dict) and "campaigns" in parsed:
        others = [str(name) for name in parsed if name != "campaigns"]
        if others:
            text = f"beside `campaigns` only `accounts` may stand, but there is {', '.join(others)}"
            return Problem("", text)
        parsed = parsed["campaigns"]
    elif isinstance(parsed, dict) and parsed:
        return [("", parsed)]
    if not isinstance(parsed, list) or not parsed:
        return _NO_CAMPAIGNS
    if len(parsed) > MAX_CAMPAIGNS:
        return Problem("", f"holds {len(parsed)} campaigns, more than {MAX_CAMPAIGNS}; split it")
    return [(f"campaigns[{i}]", document) for i, document in enumerate(parsed)]


def _campaign(document: object, routes: Collection[str]) -> tuple[CampaignSettings | None, list[Problem]]:
    if not isinstance(document, dict):
        return None, problems_of(document)
    plain, faults = _with_epoch_times(document)
    faults += problems_of(plain)
    faults += _route_problems(document.get("alerts"), routes)
    return (None if faults else msgspec.convert(plain, CampaignSettings)), faults


def _route_problems(alerts: object, routes: Collection[str]) -> list[Problem]:
    """Names of `alerts.routes` that no route has; whether they are names at all is judged elsewhere."""
    named = alerts.get("routes") if isinstance(alerts, dict) else None
    if not routes or not isinstance(named, list):
        return []
    text = f"is none of the routes in [delivery.routes]; known are {', '.join(sorted(routes))}"
    unknown = [(i, name) for i, name in enumerate(named) if isinstance(name, str) and name not in routes]
    return [Problem(f"alerts.routes[{i}]", f"{name!r} {text}") for i, name in unknown]


def _with_epoch_times(document: dict[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """Replaces `flight_start` … by `flight_start_ms` …"""
    zone = _zone_of(document)
    plain = {name: value for name, value in document.items() if name not in (*WRITTEN_TIMES, *LISTED)}
    faults = []
    for name in WRITTEN_TIMES:
        if name not in document:
            continue
        if f"{name}_ms" in document:
            faults.append(Problem(name, f"stands beside {name}_ms; give one of them"))
            continue
        moment = epoch_ms(document[name], zone, ends=name == "flight_end")
        if moment is None:
            faults.append(Problem(name, "must be a date or a date with a time, for example 2026-11-30T08:00:00Z"))
        else:
            plain[f"{name}_ms"] = moment
    return plain, faults


def _zone_of(document: dict[str, object]) -> ZoneInfo:
    name = document.get("time_zone", "UTC")
    return ZoneInfo(name) if isinstance(name, str) and name in known_zones() else ZoneInfo("UTC")


_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".toml": tomllib.loads,
    ".json": json.loads,
}
