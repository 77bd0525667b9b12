"""General rules judge one event by lists and its own parameters: networks, sizes, pre-fetch; and who can be judged."""

from datetime import date
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from streams.adapters.lists import read_networks
from streams.errors import ConfigurationError
from streams.events import EVENT_TYPES, Event, Input
from streams.invalid import BIT, InvalidRules, Lists, Mode, Rule
from streams.stages.invalid.general import GeneralJudge
from streams.stages.invalid.networks import NetworkIndex, pack_networks, parse_network, unpack_networks
from tests.unit.given import document

LISTED = pack_networks(map(ip_network, ("198.51.100.0/25", "198.51.100.128/25", "203.0.0.0/16", "2001:db8::/32")))
BROWSER = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile"
ALL_ON = InvalidRules(modes=dict.fromkeys(Rule, Mode.ON), lists=Lists(crawler_patterns=("Googlebot",), networks=LISTED))
PLACED = {"placement_width_px": 320, "placement_height_px": 50}


def event(source: Input, **fields: Any) -> Event:
    found: Event = msgspec.convert(document(source, "e1", **fields), EVENT_TYPES[source], strict=False)
    return found


def found(source: Input, rules: InvalidRules = ALL_ON, **fields: Any) -> set[Rule]:
    bits = int(GeneralJudge(source, rules).judge([event(source, **fields)])[0])
    return {rule for rule in Rule if bits & BIT[rule]}


@pytest.mark.parametrize("source", [each for each in Input if each is not Input.ADJUSTMENTS])
def test_every_input_but_bookkeeping_is_judged_by_lists_and_sizes(source: Input) -> None:
    assert found(source, user_agent="Googlebot/2.1") == {Rule.DECLARED_BOT}
    assert found(source, user_agent="curl/8.5.0") == {Rule.NON_BROWSER_AGENT}
    assert found(source, network="203.0.113.0/24") == {Rule.DATA_CENTRE}
    assert found(source, placement_width_px=1, placement_height_px=1) == {Rule.HIDDEN_PLACEMENT}
    assert found(source, user_agent=BROWSER, network="192.0.2.0/24", **PLACED) == set()


def test_bookkeeping_is_never_flagged() -> None:
    assert found(Input.ADJUSTMENTS, user_agent="curl/8.5.0", network="203.0.113.0/24") == set()


@pytest.mark.parametrize(
    ("network", "is_found"),
    [
        ("203.0.113.0/24", True),
        ("198.51.100.0/24", True),  # both halves are listed
        ("2001:db8:7::/48", True),
        ("203.0.0.0/15", False),  # half of it is people's
        ("203.1.0.0/24", False),
        ("2001:db9::/48", False),
        ("nowhere", False),
        (None, False),
    ],
)
def test_a_network_is_a_data_centres_if_it_lies_wholly_in_a_listed_one(network: str | None, is_found: bool) -> None:
    assert (found(Input.CLICKS, network=network) == {Rule.DATA_CENTRE}) is is_found


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_prefix_is_the_one_that_a_search_through_all_finds(seed: int) -> None:
    random = Random(seed)
    listed = [ip_network((random.getrandbits(8) << 24, random.randint(4, 20)), strict=False) for _ in range(60)]
    index = NetworkIndex(map(str, listed))
    for _ in range(300):
        asked = ip_network((random.getrandbits(32), random.randint(8, 32)), strict=False)
        holding = [each for each in listed if asked.subnet_of(each)]  # type: ignore[arg-type]
        longest = max(holding, key=lambda each: each.prefixlen, default=None)
        assert index.find(asked) == (None if longest is None else str(longest))


def test_a_packed_list_is_what_was_packed_and_nothing_else_unpacks() -> None:
    assert unpack_networks(LISTED) == ["198.51.100.0/24", "203.0.0.0/16", "2001:db8::/32"]
    assert (unpack_networks(b""), pack_networks(())) == ([], b"")
    for wrong in (b"x", LISTED[:-4]):
        with pytest.raises(ValueError, match="networks: "):
            unpack_networks(wrong)
    assert parse_network("203.0.113.7/24") == ip_network("203.0.113.0/24")


def test_what_was_rendered_ahead_is_flagged_unless_it_was_seen() -> None:
    assert found(Input.IMPRESSIONS, prefetch=True) == {Rule.PREFETCH}
    assert found(Input.IMPRESSIONS, prefetch=True, viewable=False) == {Rule.PREFETCH}
    assert found(Input.IMPRESSIONS, prefetch=True, viewable=True) == set()


@pytest.mark.parametrize(("width", "height", "is_hidden"), [(0, 0, 1), (1, 1, 1), (320, 1, 1), (2, 2, 0), (None, 1, 1)])
def test_a_placement_without_room_is_hidden(width: int | None, height: int | None, is_hidden: int) -> None:
    shown = found(Input.IMPRESSIONS, placement_width_px=width, placement_height_px=height)
    assert (shown == {Rule.HIDDEN_PLACEMENT}) is bool(is_hidden)
    none = InvalidRules(hidden_below_px=0)
    assert found(Input.IMPRESSIONS, none, placement_width_px=width, placement_height_px=height) == set()


def test_a_rule_that_is_off_looks_at_nothing() -> None:
    off = msgspec.structs.replace(ALL_ON, modes=dict.fromkeys(Rule, Mode.OFF))
    assert found(Input.CLICKS, off, user_agent="Googlebot", network="203.0.113.0/24", placement_width_px=0) == set()


KNOWN = {"user_agent": BROWSER, "network": "192.0.2.0/24", "user_id": "u1"}


@pytest.mark.parametrize("missing", [None, "user_agent", "network", "user_id"])
@pytest.mark.parametrize("source", [Input.IMPRESSIONS, Input.CLICKS, Input.CONVERSIONS])
def test_an_event_is_decidable_if_it_carries_what_general_rules_need(source: Input, missing: str | None) -> None:
    fields = {**KNOWN, "device_id": None, **({} if missing is None else {missing: None})}
    decidable = bool(GeneralJudge(source, ALL_ON).is_decidable([event(source, **fields)])[0])
    assert decidable is (missing is None or (missing == "user_id" and source is Input.IMPRESSIONS))


def test_an_empty_agent_is_known_and_an_unreadable_network_is_not() -> None:
    judge = GeneralJudge(Input.CLICKS, ALL_ON)
    asked = [event(Input.CLICKS, **{**KNOWN, **other}) for other in ({"user_agent": ""}, {"network": "?"}, {})]
    assert judge.is_decidable(asked).tolist() == [True, False, True]


# A file of data centres


def test_a_list_is_read_with_its_date_and_what_finds_nothing_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# as of 2026-01-31\n203.0.113.0/25  # a half\n\n198.51.100.0/24\n2001:db8::/32\n")
    read = read_networks(file)
    assert (read.entries, read.as_of, read.too_small) == (3, "2026-01-31", 1)
    file.write_text("198.51.100.0/24\n")
    assert read_networks(file, date(2026, 2, 1)).as_of == "2026-02-01"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("203.0.113.0/24\n", "it has no date; add the comment"),
        ("# as of soon\n203.0.113.0/24\n", "`as of soon` is no date"),
        ("# as of 2026-01-31\nhere\n", "line 2: 'here' is no network"),
        ("# as of 2026-01-31\n203.0.113.7/24\n", "line 2: 203.0.113.7/24 has bits beyond its prefix; 203.0.113.0/24"),
        ("# as of 2026-01-31\n0.0.0.0/0\n", "line 2: 0.0.0.0/0 is too wide; at least /8"),
        ("# as of 2026-01-31\n", "it names no network"),
    ],
)
def test_what_is_wrong_with_a_list_is_named_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        read_networks(file)
    assert told in str(error.value)
    assert str(error.value).endswith("mend the file")
