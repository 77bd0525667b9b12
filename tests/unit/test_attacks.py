"""Attackers and oddities in generated traffic: what each is, that the truth is whole, and that it is kept aside."""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from streams.errors import ConfigurationError
from streams.events import Click, Conversion, ConversionType, Event, Impression, Input, Rejected
from streams.jobs.attacks import truth_line
from streams.jobs.attacks_fraud import FASTEST
from streams.jobs.generate import GeneratedEvent, generate, generate_campaigns, traffic_profile
from streams.jobs.load import record_key, rejection_beyond_types
from streams.jobs.traffic_agents import CRAWLERS, DESKTOPS, PHONES, TABLETS, TELEVISIONS
from streams.jobs.traffic_catalogue import PUBLISHERS
from streams.jobs.traffic_documents import event_id_of
from streams.jobs.traffic_networks import data_centre_networks
from streams.jobs.traffic_oddities import ONE_TAP_MS, VIRAL_FACTOR, VIRAL_MS
from streams.jobs.traffic_profile import USUAL_SHARES, Attack, Oddity
from streams.stages.decode import Decoder

MINUTE = 60_000
ATTACKERS = [attack for attack in Attack if attack is not Attack.DOUBLE_CLICK]
CHOICES: dict[str, Any] = {
    "rate": 80.0,
    "duration_ms": 30 * MINUTE,
    "cycle": False,
    "ctr": 0.15,
    "video_share": 0.0,
    "campaigns": 40,
    "users": 60_000,
}
HONEST = traffic_profile(**CHOICES, oddities=dict.fromkeys(Oddity, 0.0))
ATTACKED = msgspec.structs.replace(
    HONEST, attacks={**dict.fromkeys(ATTACKERS, 0.04), Attack.DOUBLE_CLICK: 0.02}, max_disorder_ms=5_000
)


def events_of(**changes: Any) -> list[GeneratedEvent]:
    return list(generate(msgspec.structs.replace(HONEST, **changes), seed=1))


@cache
def plain_events() -> list[GeneratedEvent]:
    """Honest people alone, without an oddity: what several tests compare with."""
    return events_of()


def decoded(event: GeneratedEvent) -> Event:
    found = _DECODERS[event.input].decode(event.value)
    assert not isinstance(found, Rejected), (found, event.value)
    return found


_DECODERS = {source: Decoder(source) for source in Input}


@pytest.fixture(scope="module")
def mixed() -> list[GeneratedEvent]:
    return list(generate(ATTACKED, seed=1))


@pytest.fixture(scope="module")
def of(mixed: list[GeneratedEvent]) -> Callable[..., list[Any]]:
    """Documents of an attack's first deliveries; of '' the honest ones."""
    by_attack: dict[tuple[str, Input], list[Event]] = defaultdict(list)
    for event in mixed:
        if not event.duplicate:
            by_attack[event.attack, event.input].append(decoded(event))
    return lambda attack, source=Input.CLICKS: by_attack[attack, source]


# The stream


def test_the_same_seed_gives_the_same_attacks_and_another_gives_others(mixed: list[GeneratedEvent]) -> None:
    assert list(itertools.islice(generate(ATTACKED, seed=1), 20_000)) == mixed[:20_000]
    other = [event.value for event in itertools.islice(generate(ATTACKED, seed=2), 5_000)]
    assert not set(other) & {event.value for event in mixed}


def test_honest_events_are_the_same_with_and_without_attackers(mixed: list[GeneratedEvent]) -> None:
    honest = [event for event in mixed if not event.attack]
    assert honest == list(generate(msgspec.structs.replace(ATTACKED, attacks={}), seed=1))


def test_one_more_attacker_leaves_the_others_people_as_they_are() -> None:
    alone = [e for e in events_of(attacks={Attack.CRAWLER: 0.02}) if e.attack]
    accompanied = [e for e in events_of(attacks={Attack.CRAWLER: 0.02, Attack.BOTNET: 1e-9}) if e.attack]
    assert {e.value for e in alone} == {e.value for e in accompanied}


def test_every_event_is_valid_and_keyed_as_the_pipeline_expects(mixed: list[GeneratedEvent]) -> None:
    for event in mixed:
        found = decoded(event)
        assert rejection_beyond_types(found) is None
        assert (event.key, event.event_time_ms) == (record_key(found), found.event_time_ms)
        assert event_id_of(event.value) == found.event_id


def test_no_document_of_an_attacker_names_a_field_twice(mixed: list[GeneratedEvent]) -> None:
    for event in mixed:
        if event.attack:
            pairs = json.loads(event.value, object_pairs_hook=list)
            assert len({name for name, _ in pairs}) == len(pairs)


def test_delivery_is_in_order_of_event_time_up_to_the_disorder(mixed: list[GeneratedEvent]) -> None:
    times = [event.deliver_at_ms for event in mixed]
    assert times == sorted(times)
    assert times[-1] < ATTACKED.end_ms
    late_by = [event.deliver_at_ms - event.event_time_ms for event in mixed if not event.duplicate]
    assert min(late_by) >= 0
    assert max(late_by) <= ATTACKED.max_disorder_ms
    attackers = [event for event in mixed if event.attack and not event.duplicate]
    late = sum(event.deliver_at_ms > event.event_time_ms for event in attackers)
    assert 0.005 < late / len(attackers) < 0.02
    assert any(event.duplicate for event in mixed if event.attack)


def test_lean_traffic_is_attacked_as_well() -> None:
    lean = msgspec.structs.replace(ATTACKED, detail="lean", duration_ms=2 * MINUTE)
    assert {e.attack for e in generate(lean, 1) if decoded(e)} >= {"crawler", "click_farm", "flooding", "injection"}


# The truth


def test_ids_are_unique_and_the_truth_is_about_attackers_alone(mixed: list[GeneratedEvent]) -> None:
    ids = Counter(event_id_of(event.value) for event in mixed if not event.duplicate)
    assert max(ids.values()) == 1
    attackers = {event_id_of(event.value) for event in mixed if event.attack}
    honest = {event_id_of(event.value) for event in mixed if not event.attack}
    assert not attackers & honest
    assert {event.attack for event in mixed} == {"", *Attack}


def test_a_duplicate_has_the_truth_of_its_first_delivery(mixed: list[GeneratedEvent]) -> None:
    truth = {event_id_of(event.value): event.attack for event in mixed if not event.duplicate}
    assert all(truth[event_id_of(event.value)] == event.attack for event in mixed if event.duplicate)


def test_the_truth_is_in_no_document(mixed: list[GeneratedEvent]) -> None:
    names = re.compile("|".join(attack.value for attack in Attack).encode())
    # A data centre's or a crawler's own traits are there, of course; their names are not.
    assert not [event.value for event in mixed if event.attack and names.search(event.value.lower())]
    assert all(set(json.loads(e.value)) <= set(_fields(e.input)) for e in mixed if e.attack)


def _fields(source: Input) -> tuple[str, ...]:
    kinds: dict[Input, type[Event]] = {
        Input.IMPRESSIONS: Impression,
        Input.CLICKS: Click,
        Input.CONVERSIONS: Conversion,
    }
    return kinds[source].__struct_fields__


def test_a_line_of_the_truth_names_event_input_and_attack(mixed: list[GeneratedEvent]) -> None:
    event = next(event for event in mixed if event.attack == Attack.FLOODING)
    assert json.loads(truth_line(event)) == {
        "event_id": decoded(event).event_id,
        "input": event.input.value,
        "attack": "flooding",
    }


@pytest.mark.parametrize("attack", [attack for attack in ATTACKERS if attack is not Attack.REPLAY])
def test_an_attackers_share_of_all_clicks_is_the_one_asked_for(of: Any, attack: Attack) -> None:
    clicks = sum(len(of(name)) for name in ("", *Attack))
    assert len(of(attack)) / clicks == pytest.approx(0.04, rel=0.15)


def test_replays_reach_their_share_once_the_first_have_spread() -> None:
    changes = {"attacks": {Attack.REPLAY: 0.05}, "duration_ms": 240 * MINUTE, "rate": 30.0}
    late = [e for e in events_of(**changes) if e.event_time_ms > HONEST.first_ms + 130 * MINUTE]
    clicks = Counter(e.attack for e in late if e.input is Input.CLICKS)
    assert clicks["replay"] / clicks.total() == pytest.approx(0.05, rel=0.5)


# Each attack is what it is called


def test_crawlers_declare_themselves(of: Any) -> None:
    agents = {click.user_agent for click in of(Attack.CRAWLER)}
    assert agents <= set(CRAWLERS)
    assert len(agents) >= 3


def test_data_centre_bots_look_like_browsers_on_listed_networks(of: Any) -> None:
    listed = [ip_network(network) for network in data_centre_networks(ATTACKED)]
    for click in of(Attack.DATA_CENTRE):
        assert click.user_agent in (*DESKTOPS, *PHONES)
        own = ip_network(click.network)
        assert any(network.version == own.version and network.overlaps(own) for network in listed)
    assert len({click.device_id for click in of(Attack.DATA_CENTRE)}) > 30


def test_nobody_else_is_in_a_listed_network(of: Any) -> None:
    listed = [ip_network(network) for network in data_centre_networks(ATTACKED)]
    fourth = [network for network in listed if network.version == 4]
    for attack in ("", Attack.CLICK_FARM, Attack.FLOODING, Attack.REPLAY, Attack.BOTNET):
        networks = {ip_network(click.network) for click in of(attack)}
        assert not [own for own in networks for network in fourth if own.overlaps(network)]


def test_a_farms_few_devices_click_hundreds_of_ads_with_many_accounts(of: Any) -> None:
    clicks = of(Attack.CLICK_FARM)
    by_device: dict[str, list[Any]] = defaultdict(list)
    for click in clicks:
        by_device[click.device_id].append(click)
    assert len(clicks) / len(by_device) > 30
    assert 2 <= len({click.address_id for click in clicks}) <= 6
    for own in by_device.values():
        assert len({click.campaign_id for click in own}) >= 20
        assert len({click.user_id for click in own}) >= 5
        assert len({click.user_agent for click in own}) == 1
    shown = {impression.event_id for impression in of(Attack.CLICK_FARM, Input.IMPRESSIONS)}
    assert all(click.impression_id in shown for click in clicks)


def test_a_flooding_publisher_has_clicks_without_impressions_and_few_conversions(of: Any) -> None:
    clicks, shown = of(Attack.FLOODING), {e.event_id for e in of(Attack.FLOODING, Input.IMPRESSIONS)}
    unseen = sum(click.impression_id not in shown for click in clicks)
    assert 0.45 < unseen / len(clicks) < 0.95
    publishers = {click.publisher_id for click in clicks}
    assert not publishers & {click.publisher_id for click in of("")}
    assert {int(name.removeprefix("pub-")) > PUBLISHERS for name in publishers} == {True}
    honest = len([c for c in of("", Input.CONVERSIONS) if c.attribution]) / len(of(""))
    assert len(of(Attack.FLOODING, Input.CONVERSIONS)) / len(clicks) < honest / 5
    # In the names of real people.
    assert len({click.user_id for click in clicks}) > 0.8 * len(clicks)


def test_an_injected_click_comes_just_before_its_install_or_lead(of: Any) -> None:
    clicks = {click.event_id: click for click in of(Attack.INJECTION)}
    conversions = of(Attack.INJECTION, Input.CONVERSIONS)
    assert len(conversions) > 0.98 * len(clicks)
    assert {conversion.conversion_type for conversion in conversions} == set(FASTEST)
    for conversion in conversions:
        touch = conversion.attribution
        delay_ms = conversion.event_time_ms - touch.touch_time_ms
        assert 0 < delay_ms < (2_000 if conversion.conversion_type is ConversionType.INSTALL else 1_000)
        if touch.touch_id in clicks:
            assert clicks[touch.touch_id].event_time_ms == touch.touch_time_ms
            assert clicks[touch.touch_id].user_id == conversion.user_id


def test_a_replayed_click_has_its_originals_impression_and_comes_minutes_later(of: Any) -> None:
    originals = {click.impression_id: click for click in of("")}
    times = Counter[str]()
    for click in of(Attack.REPLAY):
        original = originals[click.impression_id]
        times[click.impression_id] += 1
        assert click.event_time_ms - original.event_time_ms >= MINUTE
        assert (click.user_id, click.creative_id) == (original.user_id, original.creative_id)
        assert click.event_id != original.event_id
    assert max(times.values()) > 10


def test_a_botnet_is_many_devices_with_few_clicks_each_and_no_conversion(of: Any) -> None:
    clicks = of(Attack.BOTNET)
    devices = Counter(click.device_id for click in clicks)
    assert max(devices.values()) <= 4
    assert len({click.address_id for click in clicks}) > 0.15 * len(clicks)
    assert of(Attack.BOTNET, Input.CONVERSIONS) == []
    shown = {e.event_id: e.event_time_ms for e in of(Attack.BOTNET, Input.IMPRESSIONS)}
    assert all(c.event_time_ms - shown[c.impression_id] >= 500 for c in clicks if c.impression_id in shown)


def test_the_second_of_a_double_click_is_within_a_second_of_the_first(of: Any) -> None:
    firsts = {click.impression_id: click for click in of("")}
    for click in of(Attack.DOUBLE_CLICK):
        first = firsts[click.impression_id]
        assert 0 < click.event_time_ms - first.event_time_ms < 1_000
        assert (click.user_id, click.creative_id) == (first.user_id, first.creative_id)
    assert len(of(Attack.DOUBLE_CLICK)) > 30


# Honest people


def test_honest_people_keep_their_device_and_agent_and_have_a_browsers(of: Any) -> None:
    known: dict[str, tuple[str, str]] = {}
    for click in of(""):
        own = (click.device_id, click.user_agent)
        assert known.setdefault(click.user_id, own) == own
        assert click.user_agent in (*PHONES, *TABLETS, *DESKTOPS, *TELEVISIONS)
        assert min(click.placement_width_px, click.placement_height_px) > 1
        assert click.publisher_id
        assert click.channel
    assert len({device for device, _ in known.values()}) == len(known)
    assert not [agent for agent in (*PHONES, *DESKTOPS) if re.search("bot|crawl|spider|headless", agent, re.IGNORECASE)]


def test_no_honest_user_clicks_like_a_machine(of: Any) -> None:
    assert max(Counter(click.user_id for click in of("")).values()) < 30


def addresses(events: list[GeneratedEvent]) -> dict[str, set[str]]:
    """Users by address."""
    found: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.input is Input.IMPRESSIONS:
            impression = decoded(event)
            found[impression.address_id or ""].add(impression.user_id or "")
    return found


def test_at_home_two_share_an_address_in_an_office_dozens_behind_a_carrier_thousands() -> None:
    assert max(map(len, addresses(plain_events()).values())) == 2
    # 08:00 to 08:30 in Shanghai is before work; in Tokyo it is not.
    tokyo = {"time_zone": "Asia/Tokyo"}
    working = addresses(events_of(oddities={Oddity.OFFICE: 0.5}, **tokyo))
    assert 40 < max(map(len, working.values())) < 200
    assert max(map(len, addresses(events_of(oddities={Oddity.CARRIER: 1.0})).values())) > 1_000


def test_a_persons_address_changes_in_the_course_of_days() -> None:
    changes = {"duration_ms": 48 * 60 * MINUTE, "rate": 1.0, "users": 20, "oddities": {Oddity.CARRIER: 0.5}}
    seen: dict[str, set[str]] = defaultdict(set)
    for event in events_of(**changes):
        document = decoded(event)
        seen[document.user_id or ""].add(document.address_id or "")
    assert max(map(len, seen.values())) >= 2
    assert max(map(len, seen.values())) <= 20


def odd(kind: Oddity) -> tuple[list[Any], list[Any]]:
    """(what is there without the oddity, what it adds), first deliveries."""
    plain = {event_id_of(e.value) for e in plain_events()}
    found = [e for e in events_of(oddities={kind: USUAL_SHARES[kind]}) if not e.duplicate]
    assert not [e for e in found if e.attack]
    return (
        [decoded(e) for e in found if event_id_of(e.value) in plain],
        [decoded(e) for e in found if event_id_of(e.value) not in plain],
    )


def test_a_viral_burst_multiplies_the_clicks_of_one_creative_within_minutes() -> None:
    plain, added = odd(Oddity.VIRAL_BURST)
    clicks = [e for e in added if isinstance(e, Click)]
    creative, count = Counter(c.creative_id for c in clicks).most_common(1)[0]
    times = [c.event_time_ms for c in clicks if c.creative_id == creative]
    assert max(times) - min(times) < VIRAL_MS + 15_000
    usual = sum(isinstance(e, Click) and e.creative_id == creative for e in plain) * VIRAL_MS / (30 * MINUTE)
    assert count > VIRAL_FACTOR / 2 * usual
    assert len({c.user_id for c in clicks}) > 0.9 * len(clicks)


def test_in_a_flash_sale_users_tap_a_dozen_cards_within_minutes() -> None:
    _, added = odd(Oddity.FLASH_SALE)
    taps: dict[str, list[int]] = defaultdict(list)
    for event in added:
        if isinstance(event, Click):
            taps[event.user_id or ""].append(event.event_time_ms)
    usual = sorted(taps.values(), key=len)[len(taps) // 2]
    assert 12 <= len(usual) <= 26
    assert max(usual) - min(usual) < 7 * MINUTE
    assert min(b - a for times in taps.values() for a, b in itertools.pairwise(sorted(times))) > 1_000


def test_orders_at_one_tap_follow_their_click_by_seconds() -> None:
    plain, added = odd(Oddity.ONE_TAP)
    clicks = {e.event_id: e for e in plain if isinstance(e, Click)}
    assert added
    for order in added:
        assert order.conversion_type is ConversionType.ORDER
        click = clicks[order.attribution.touch_id]
        assert order.attribution.touch_time_ms == click.event_time_ms
        assert ONE_TAP_MS[0] <= order.event_time_ms - click.event_time_ms <= ONE_TAP_MS[1]


def test_late_conversions_are_credited_to_clicks_before_the_start() -> None:
    plain, added = odd(Oddity.LATE_CONVERSION)
    assert added
    assert all(e.attribution.touch_time_ms < HONEST.first_ms for e in added)
    assert not {e.attribution.touch_id for e in added} & {e.event_id for e in plain}


def test_what_is_rendered_ahead_is_seen_later() -> None:
    impressions = [decoded(e) for e in events_of(oddities={Oddity.PREFETCH: 0.1}) if e.input is Input.IMPRESSIONS]
    ahead = [e for e in impressions if isinstance(e, Impression) and e.prefetch]
    assert ahead
    assert all(e.viewable for e in ahead)


def test_nobody_installs_or_leads_within_seconds_however_compressed_time_is() -> None:
    events = events_of(compress=1e-5, cvr=0.4, duration_ms=5 * MINUTE)
    goals = {c.campaign_id: c.goal for c in generate_campaigns(HONEST)}
    checked = 0
    for event in events:
        found = decoded(event)
        if isinstance(found, Conversion) and found.attribution and goals.get(found.campaign_id or "") in FASTEST:
            assert found.event_time_ms - (found.attribution.touch_time_ms or 0) >= 2_500
            checked += 1
    assert checked > 20


# Choices


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        ({"attacks": {"burglar": 0.1}}, "attacks"),
        ({"attacks": {"crawler": 1.5}}, "attacks"),
        ({"attacks": {"crawler": 0.5, "botnet": 0.5}}, "lower their shares"),
        ({"oddities": {"quiet": 0.1}}, "oddities"),
    ],
)
def test_a_faulty_mixture_names_its_field(choices: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        traffic_profile(**choices)
