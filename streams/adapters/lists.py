"""The lists that general rules look up: crawlers from a package, data centres from a file with an owner and a date.

They become part of the rules (`Lists`), which are journaled: recovery and replay judge by the list of the time. No
list of data centres is shipped: such lists age, and who uses one should know whose it is and from when.
"""

import re
from datetime import date
from importlib import metadata
from ipaddress import ip_network
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from streams.errors import ConfigurationError
from streams.invalid import MAX_LIST_BYTES, MAX_NETWORKS, MAX_PATTERNS, Lists
from streams.rules import Rules
from streams.settings import Settings
from streams.stages.invalid.networks import Network, join_networks, pack_networks

CRAWLERS_PACKAGE: Final = "crawler-user-agents"
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_FAULTS_TOLD: Final = 20
EVENT_PREFIX: Final = {4: 24, 6: 48}
"""Prefixes of the networks that events carry. A smaller listed network contains none of them."""
WIDEST_PREFIX: Final = {4: 8, 6: 16}
"""No data centre owns more; a wider entry would flag half of the world."""

LEFT_OUT: Final[dict[str, str]] = {
    r"okhttp": "apps for Android use it; the rule non_browser_agent finds it where no app names itself",
    r"^Apache-HttpClient": "older apps for Android use it; the rule non_browser_agent finds it",
    r"AP3A\.240617\.008": "a build of Android 15 that many makers' phones have",
    r"MetaIAB Facebook": "the browser inside Facebook's app",
    r"Fluid": "a browser for single sites, and a word",
}
"""Patterns of the package that people's browsers and apps match too, and why."""
NARROWED: Final[dict[str, str]] = {
    r"Sogou": r"Sogou [\s\S]*[sS]pider",  # not the browsers SogouMobileBrowser and SogouMSE
    r"Code\/1\.": r"\bCode\/1\.",  # the editor; not QRCode/1.2
}

_AS_OF: Final = re.compile(r"#\s*as of\s+(\S+)", re.IGNORECASE)


class NetworkList(NamedTuple):
    """A list of data centres that was read."""

    packed: bytes
    as_of: str
    entries: int
    too_small: int
    """Listed networks that contain no event's network, even where neighbours are joined: they find nothing."""


def with_lists(rules: Rules, settings: Settings) -> Rules:
    """The rules with what their lists are to hold. Lists that the rules state themselves stay.

    Raises:
        ConfigurationError: a list is wrong; every fault is named.
    """
    lists = rules.invalid.lists
    if not lists.crawler_patterns:
        patterns, version = crawler_patterns()
        lists = msgspec.structs.replace(lists, crawler_patterns=patterns, crawlers_version=version)
    _check_patterns(lists)
    path = settings.invalid.data_centres
    if path is not None:
        found = read_networks(path, settings.invalid.data_centres_as_of)
        lists = msgspec.structs.replace(lists, networks=found.packed, networks_as_of=found.as_of)
    return msgspec.structs.replace(rules, invalid=msgspec.structs.replace(rules.invalid, lists=lists))


def crawler_patterns() -> tuple[tuple[str, ...], str]:
    """The package's patterns, less those that people match, and its version."""
    import crawleruseragents  # reads its list when it is imported

    found = [str(entry["pattern"]) for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA]
    patterns = tuple(NARROWED.get(pattern, pattern) for pattern in found if pattern not in LEFT_OUT)
    return patterns, metadata.version(CRAWLERS_PACKAGE)


def _check_patterns(lists: Lists) -> None:
    faults = []
    if len(lists.crawler_patterns) > MAX_PATTERNS:
        faults.append(f"{len(lists.crawler_patterns):,} patterns; at most {MAX_PATTERNS:,}")
    for pattern in lists.crawler_patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            faults.append(f"{pattern!r} is no regular expression: {error}")
    if faults:
        raise ConfigurationError(_told("rules.invalid.lists.crawler_patterns", faults, "mend the patterns"))


def read_networks(path: Path, as_of: date | None = None) -> NetworkList:
    """Reads a file with one network in CIDR notation a line. What follows `#` is a comment.

    A comment `# as of 2026-01-31` dates the list; `as_of` does where there is none.

    Raises:
        ConfigurationError: every wrong line with its number, a missing date, or a list beyond its bounds.
    """
    networks: list[Network] = []
    faults: list[str] = []
    dates: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        dates += _AS_OF.findall(line)
        entry = line.partition("#")[0].strip()
        if entry:
            found = _network(entry)
            if isinstance(found, str):
                faults.append(f"line {number}: {found}")
            else:
                networks.append(found)
    dated = _date(dates, as_of, faults)
    if len(networks) > MAX_NETWORKS:
        faults.append(f"{len(networks):,} networks; at most {MAX_NETWORKS:,}")
    if not networks and not faults:
        faults.append("it names no network")
    joined = join_networks(networks)
    packed = b"" if faults else pack_networks(joined)
    if len(packed) > MAX_LIST_BYTES:
        faults.append(f"{len(packed):,} bytes when packed; at most {MAX_LIST_BYTES:,}")
    if faults:
        raise ConfigurationError(_told(f"invalid.data_centres: {path}", faults, "mend the file"))
    too_small = sum(network.prefixlen > EVENT_PREFIX[network.version] for network in joined)
    return NetworkList(packed, dated, len(networks), too_small)


def _lines(path: Path) -> list[str]:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"invalid.data_centres: {path} has {size:,} bytes; at most {MAX_FILE_BYTES:,}; shorten the list"
            )
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"invalid.data_centres: {path} cannot be read ({error.strerror}); create it or unset the setting"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"invalid.data_centres: {path} is no text in UTF-8; mend the file") from None


def _network(entry: str) -> Network | str:
    """The network, or what is wrong with the entry."""
    try:
        found: Network = ip_network(entry, strict=False)
    except ValueError:
        return f"{entry[:60]!r} is no network; write it as 203.0.113.0/24"
    if "/" in entry and str(found.network_address) != str(ip_network(entry.partition("/")[0]).network_address):
        return f"{entry} has bits beyond its prefix; {found} is meant?"
    if found.prefixlen < WIDEST_PREFIX[found.version]:
        return f"{entry} is too wide; at least /{WIDEST_PREFIX[found.version]}"
    return found


def _date(found: list[str], given: date | None, faults: list[str]) -> str:
    if not found:
        if given is None:
            faults.append("it has no date; add the comment `# as of YYYY-MM-DD`, or set invalid.data_centres_as_of")
        return "" if given is None else given.isoformat()
    try:
        return max(date.fromisoformat(text) for text in found).isoformat()
    except ValueError:
        faults.append(f"`as of {found[-1][:20]}` is no date; write it as 2026-01-31")
        return ""


def _told(what: str, faults: list[str], remedy: str) -> str:
    more = f"; and {len(faults) - MAX_FAULTS_TOLD} more" if len(faults) > MAX_FAULTS_TOLD else ""
    return f"{what}: {'; '.join(faults[:MAX_FAULTS_TOLD])}{more}; {remedy}"
