"""Generated traffic: the same for the same seed, valid, and of the shape that its profile promises."""

import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import msgspec
import pytest

from streams.campaigns import CampaignSettings, problems_of
from streams.errors import ConfigurationError
from streams.events import Adjustment, Click, Conversion, Event, Impression, Input, Play, Rejected, TouchType, Traffic
from streams.jobs.generate import GeneratedEvent, generate, generate_campaigns, traffic_profile
from streams.jobs.load import record_key, rejection_beyond_types
from streams.jobs.traffic_shape import DAY_MS, HOUR_MS, Cycle, arrivals, conversion_delay_ms
from streams.jobs.traffic_simulation import MAX_LOOPS
from streams.stages.decode import Decoder
from streams.terms import Billing, Budget, Pacing

SHORT = traffic_profile(rate=500, duration_ms=60_000, cycle=False, compress=1e-4, cvr=0.3, ctr=0.1, refund_share=0.5)


def decoded(events: list[GeneratedEvent]) -> list[Event]:
    decoders = {source: Decoder(source) for source in Input}
    found = [decoders[event.input].decode(event.value) for event in events]
    rejected = [event for event in found if isinstance(event, Rejected)]
    assert rejected == []
    return [event for event in found if not isinstance(event, Rejected)]


@pytest.fixture(scope="module")
def events() -> list[GeneratedEvent]:
    return list(generate(SHORT, seed=1))


@pytest.fixture(scope="module")
def first_deliveries(events: list[GeneratedEvent]) -> list[Event]:
    return decoded([event for event in events if not event.duplicate])


def digest(seed: int) -> str:
    whole = hashlib.sha256()
    for event in generate(SHORT, seed):
        whole.update(repr(tuple(event)).encode())
    return whole.hexdigest()


def test_the_same_seed_gives_the_same_events_and_another_gives_others() -> None:
    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_another_process_with_another_hash_seed_gives_the_same_events() -> None:
    script = "from tests.unit.test_generate import digest; print(digest(1))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == digest(1)


def test_a_longer_run_begins_with_a_shorter_one(events: list[GeneratedEvent]) -> None:
    longer = generate(msgspec.structs.replace(SHORT, duration_ms=90_000), seed=1)
    assert list(itertools.islice(longer, len(events))) == events


def test_every_event_is_valid_and_keyed_as_the_pipeline_expects(events: list[GeneratedEvent]) -> None:
    for generated, event in zip(events, decoded(events), strict=True):
        assert rejection_beyond_types(event) is None
        assert generated.event_time_ms == event.event_time_ms
        assert generated.key == record_key(event)


def test_no_document_names_a_field_twice(events: list[GeneratedEvent]) -> None:
    def distinct(pairs: list[tuple[str, object]]) -> int:
        assert len(dict(pairs)) == len(pairs), pairs
        return len(pairs)

    for event in events:
        assert json.loads(event.value, object_pairs_hook=distinct) > 5


def test_events_are_delivered_in_order_within_the_run(events: list[GeneratedEvent]) -> None:
    times = [event.deliver_at_ms for event in events]
    assert times == sorted(times)
    assert times[0] >= SHORT.first_ms
    assert times[-1] < SHORT.end_ms
    assert all(event.event_time_ms <= event.deliver_at_ms for event in events)


def test_every_input_and_both_kinds_of_traffic_occur(first_deliveries: list[Event]) -> None:
    assert {type(event).input for event in first_deliveries} == set(Input)  # type: ignore[attr-defined]
    assert {event.traffic for event in first_deliveries} == set(Traffic)
    organic = [event for event in first_deliveries if event.traffic is Traffic.ORGANIC]
    assert all(event.campaign_id is None for event in organic)


def test_ids_are_unique_but_for_duplicates(events: list[GeneratedEvent], first_deliveries: list[Event]) -> None:
    ids = [event.event_id for event in first_deliveries]
    assert len(set(ids)) == len(ids)
    repeated = decoded([event for event in events if event.duplicate])
    assert {event.event_id for event in repeated} <= set(ids)


def test_duplicates_come_after_the_first_delivery_mostly_byte_for_byte() -> None:
    profile = msgspec.structs.replace(SHORT, duplicate_share=0.2, max_redelivery_ms=5_000)
    first: dict[bytes, GeneratedEvent] = {}
    same = restamped = 0
    generated = list(generate(profile, seed=3))
    for event, document in zip(generated, decoded(generated), strict=True):
        name = document.event_id.encode()
        assert event.duplicate is (name in first)
        if event.duplicate:
            assert event.deliver_at_ms <= first[name].deliver_at_ms + 5_000
            assert event.key == first[name].key
            same += event.value == first[name].value
            restamped += event.event_time_ms > first[name].event_time_ms
        first.setdefault(name, event)
    assert same + restamped == sum(event.duplicate for event in generated)
    assert 0.15 < (same + restamped) / len(first) < 0.25
    assert 0.2 < restamped / (same + restamped) < 0.5


def test_out_of_order_deliveries_have_their_share_and_their_bound() -> None:
    profile = msgspec.structs.replace(SHORT, out_of_order_share=0.1, duplicate_share=0.0, max_disorder_ms=4_000)
    late_by = [event.deliver_at_ms - event.event_time_ms for event in generate(profile, seed=3)]
    assert max(late_by) <= 4_000
    assert 0.08 < sum(by > 0 for by in late_by) / len(late_by) < 0.12


def test_undisturbed_traffic_has_neither() -> None:
    profile = msgspec.structs.replace(SHORT, out_of_order_share=0.0, duplicate_share=0.0)
    assert all(
        not event.duplicate and event.deliver_at_ms == event.event_time_ms for event in generate(profile, seed=3)
    )


def test_whatever_an_event_refers_to_happened_before(first_deliveries: list[Event]) -> None:
    times = {event.event_id: event.event_time_ms for event in first_deliveries}
    referring = 0
    for event in first_deliveries:
        if isinstance(event, Conversion) and event.attribution and event.attribution.touch_id in times:
            assert times[event.attribution.touch_id] == event.attribution.touch_time_ms < event.event_time_ms
            referring += 1
        if isinstance(event, Adjustment) and event.adjusted_event_id in times:
            assert times[event.adjusted_event_id] == event.adjusted_event_time_ms < event.event_time_ms
            referring += 1
        if event.impression_id in times:
            assert times[event.impression_id] < event.event_time_ms
            referring += 1
    assert referring > 1_000


def test_clicks_views_plays_and_nothing_are_credited() -> None:
    profile = msgspec.structs.replace(SHORT, rate=4_000)
    conversions = [e for e in generate(profile, seed=2) if e.input is Input.CONVERSIONS and not e.duplicate]
    touched = Counter(
        e.attribution and e.attribution.touch_type for e in decoded(conversions) if isinstance(e, Conversion)
    )
    assert touched[TouchType.CLICK] > 10 * touched[TouchType.VIEW] > 0
    assert touched[TouchType.PLAY] > 0
    assert touched[None] > 0


def test_a_refund_takes_back_no_more_than_was_paid(first_deliveries: list[Event]) -> None:
    paid = {event.event_id: event for event in first_deliveries if isinstance(event, Conversion)}
    refunds = [event for event in first_deliveries if isinstance(event, Adjustment) and event.amount_micros]
    assert refunds
    for refund in refunds:
        original = paid.get(refund.adjusted_event_id)
        if original is not None:
            assert 0 > refund.amount_micros >= -(original.value_micros or 0)
            assert refund.order_id == original.order_id
            assert refund.currency == original.currency


def test_milestones_of_a_play_come_in_order_and_loops_are_numbered(first_deliveries: list[Event]) -> None:
    plays: dict[tuple[str | None, int], list[Play]] = defaultdict(list)
    for event in sorted(first_deliveries, key=lambda e: e.event_time_ms):
        if isinstance(event, Play):
            plays[event.impression_id, event.loop].append(event)
    assert max(loop for _, loop in plays) in range(2, MAX_LOOPS + 1)
    whole = [reached for reached in plays.values() if len(reached) == 4]
    assert whole
    for reached in whole:
        assert [play.milestone.value for play in reached] == ["start", "3s", "5s", "complete"]
        assert sum(play.watched_ms for play in reached) == reached[0].video_ms


def test_an_impression_is_priced_in_its_campaigns_currency(first_deliveries: list[Event]) -> None:
    currencies = {campaign.campaign_id: campaign.currency for campaign in generate_campaigns(SHORT)}
    priced = Counter[str]()
    for event in first_deliveries:
        if event.campaign_id is not None:
            assert event.currency == currencies[event.campaign_id]
        if isinstance(event, Impression | Click) and event.clearing_price_millimicros:
            priced[type(event).__name__] += 1
    assert min(priced["Impression"], priced["Click"]) > 0


def test_one_arm_of_an_experiment_belongs_to_a_user_for_good(first_deliveries: list[Event]) -> None:
    arms: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for event in first_deliveries:
        for experiment in event.experiments:
            arms[experiment.id, event.user_id].add(experiment.arm)
    assert {arm for given in arms.values() for arm in given} == {"A", "B"}
    assert all(len(given) == 1 for given in arms.values())


@pytest.mark.parametrize("live_share", [0.0, 0.5])
def test_the_mean_rate_is_the_one_asked_for(live_share: float) -> None:
    profile = traffic_profile(rate=40, duration_ms=HOUR_MS, cycle=False, live_share=live_share, live_to_hour=24)
    count = sum(1 for _ in generate(profile, seed=4))
    assert count == pytest.approx(40 * 3_600, rel=0.05)


def test_ctr_is_that_of_the_profile() -> None:
    profile = traffic_profile(rate=2_000, duration_ms=60_000, cycle=False, organic_share=0, ctr=0.05, catalogue_seed=9)
    counts = Counter(event.input for event in generate(profile, seed=4) if not event.duplicate)
    assert counts[Input.CLICKS] / counts[Input.IMPRESSIONS] == pytest.approx(0.05, rel=0.35)


def test_campaigns_follow_zipf() -> None:
    profile = traffic_profile(rate=2_000, duration_ms=60_000, cycle=False, live_share=0, campaign_skew=1.0)
    shares = Counter(event.key for event in generate(profile, seed=4) if event.input is Input.IMPRESSIONS)
    assert shares["c0001"] / shares["c0002"] == pytest.approx(2, rel=0.15)
    assert shares["c0001"] / shares["c0010"] == pytest.approx(10, rel=0.25)


def test_half_of_the_evenings_traffic_is_the_live_shops() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    begin = int(datetime(2026, 11, 3, 19, 0, tzinfo=zone).timestamp() * 1000)
    profile = traffic_profile(start_ms=begin, rate=10, duration_ms=4 * HOUR_MS)
    by_hour: dict[int, Counter[bool]] = defaultdict(Counter)
    for event in generate(profile, seed=4):
        if event.input is Input.IMPRESSIONS:
            by_hour[(event.event_time_ms - begin) // HOUR_MS][b'"channel":"live"' in event.value] += 1
    shares = [by_hour[hour][True] / by_hour[hour].total() for hour in range(4)]
    assert shares[1:3] == pytest.approx([0.5, 0.5], abs=0.03)
    # What is delivered late or again may carry over; impressions happen within the hours only.
    assert (shares[0], shares[3]) == (0, 0)


def test_the_cycle_has_a_mean_of_one_over_a_week_and_a_busy_evening() -> None:
    profile = traffic_profile(time_zone="Europe/Berlin")
    cycle = Cycle(profile)
    factors = [cycle.at(profile.first_ms + minute * 60_000)[0] for minute in range(7 * 24 * 60)]
    assert math.fsum(factors) / len(factors) == pytest.approx(1, rel=0.005)
    evening = datetime(2026, 11, 7, 21, 0, tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1000
    assert cycle.at(evening)[0] == max(factors)
    assert cycle.at(evening - 16.5 * HOUR_MS)[0] < 0.25


def test_arrivals_follow_the_cycle() -> None:
    profile = traffic_profile(duration_ms=DAY_MS, time_zone="UTC")
    by_hour = Counter((at - profile.first_ms) // HOUR_MS for at, _ in arrivals(profile, 0.5, Random(1)))
    assert by_hour[20] > 5 * by_hour[3]
    # A Monday: its weight is 0.94.
    assert by_hour.total() == pytest.approx(0.5 * 86_400 * 0.94, rel=0.02)


def test_conversions_have_a_long_tail() -> None:
    random = Random(1)
    delays = [conversion_delay_ms(random, 1.0) for _ in range(20_000)]
    assert sum(delay <= HOUR_MS for delay in delays) / len(delays) == pytest.approx(0.35, abs=0.015)
    assert sum(delay <= DAY_MS for delay in delays) / len(delays) == pytest.approx(0.50, abs=0.015)
    assert max(delays) <= 30 * DAY_MS
    assert max(delays) > 28 * DAY_MS


def test_compressed_delays_keep_their_shape() -> None:
    plain, squeezed = Random(1), Random(1)
    for _ in range(1_000):
        delay = conversion_delay_ms(plain, 1.0)
        assert conversion_delay_ms(squeezed, 0.001) == pytest.approx(max(200, delay / 1_000), abs=1)


def test_what_waits_is_bounded_and_what_is_cut_is_no_longer_delivered() -> None:
    free = traffic_profile(rate=3_000, duration_ms=20_000, cycle=False)
    bounded = msgspec.structs.replace(free, max_pending=1_000)
    assert 0 < sum(1 for _ in generate(bounded, 1)) < sum(1 for _ in generate(free, 1))


def test_lean_events_leave_out_what_counts_nothing() -> None:
    lean = msgspec.structs.replace(SHORT, detail="lean")
    full_bytes = sum(len(event.value) for event in itertools.islice(generate(SHORT, 1), 2_000))
    lean_events = list(itertools.islice(generate(lean, 1), 2_000))
    decoded(lean_events)
    assert sum(len(event.value) for event in lean_events) < 0.7 * full_bytes


def who(campaigns: list[CampaignSettings]) -> list[CampaignSettings]:
    """Without the terms, which suit the traffic."""
    plain = {"billing": Billing(), "budget": Budget(), "pacing": Pacing()}
    return [msgspec.structs.replace(campaign, **plain) for campaign in campaigns]


def test_campaigns_do_not_depend_on_the_seed_and_are_sound() -> None:
    campaigns = generate_campaigns(traffic_profile(campaigns=50))
    assert campaigns == generate_campaigns(traffic_profile(campaigns=50))
    assert who(campaigns[:20]) == who(generate_campaigns(SHORT))
    assert [problems_of(msgspec.to_builtins(campaign)) for campaign in campaigns] == [[]] * 50
    assert len({campaign.campaign_id for campaign in campaigns}) == 50
    assert len({campaign.currency for campaign in campaigns}) > 2
    assert len({campaign.goal for campaign in campaigns}) == 3


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        ({"rate": 0}, r"\$\.rate"),
        ({"organic_share": 1.5}, r"\$\.organic_share"),
        ({"rat": 1}, "rat"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"live_from_hour": 22, "live_to_hour": 20}, "live_from_hour"),
    ],
)
def test_a_faulty_profile_names_its_field(choices: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        traffic_profile(**choices)
