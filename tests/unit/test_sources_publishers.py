"""Source stage, publishers: flooding and wrong times are found among honest peers that differ; the honest are not."""

import msgspec
import numpy as np
import pytest

from streams.invalid import InvalidRules, Mode, Rule
from streams.rules import HOUR_MS, MINUTE_MS
from streams.stages.invalid.publishers import reach_of, step_of
from streams.stages.invalid.sources import SourceDesk
from streams.stages.invalid.timing import FLAT, GLUT, Suspicion, Times, suspicious
from streams.verdicts import NOT_CONVERTED, Clicks, EvidenceBatch, Verdict
from tests.unit.publishers_market import T0, Publisher, batches, honest, traffic

RULES = InvalidRules()
FLOODING = Publisher(20_000, 0.001)
HIJACKER = Publisher(8_000, 0.03, "glut")
FLAT_FLOODING = Publisher(30_000, 0.03, "flat")


def told(
    seed: int, bad: list[Publisher], variation: float = 0.3, hours: int = 4, every_ms: int = 20 * MINUTE_MS
) -> list[Verdict]:
    """What a desk says of a market; bad publishers are sources 1, 2, …, honest ones those after."""
    rng = np.random.default_rng(seed)
    entries = traffic(rng, bad + honest(rng, 30, variation), hours)
    desk, verdicts = SourceDesk(RULES), []
    for batch in batches(entries, every_ms, T0 + hours * HOUR_MS):
        desk.take(batch)
        verdicts += desk.decide()
    return verdicts


def sources(verdicts: list[Verdict], rule: Rule) -> set[int]:
    return {int(verdict.source, 16) >> 32 for verdict in verdicts if verdict.rule is rule}


@pytest.mark.parametrize("seed", range(5))
def test_a_flooding_publisher_is_found_among_peers_that_differ(seed: int) -> None:
    verdicts = told(seed, [FLOODING])
    assert sources(verdicts, Rule.PUBLISHER_FLOODING) == {1}
    assert sources(verdicts, Rule.PUBLISHER_TIMING) == set()
    flagged = [digest for verdict in verdicts for digest in verdict.clicks]
    assert len(flagged) == len(set(flagged)) > 0.8 * FLOODING.clicks


def test_several_flooding_publishers_do_not_hide_each_other() -> None:
    verdicts = told(1, [Publisher(size, 0.0008) for size in (30_000, 25_000, 20_000, 15_000)])
    assert sources(verdicts, Rule.PUBLISHER_FLOODING) == {1, 2, 3, 4}


@pytest.mark.parametrize("variation", [0.0, 0.3, 0.8])
def test_honest_publishers_are_not_found_however_they_differ(variation: float) -> None:
    assert [told(seed, [], variation) for seed in range(3)] == [[], [], []]


def test_evidence_of_flooding_says_what_was_seen_and_expected() -> None:
    evidence = told(2, [FLOODING])[0].evidence
    assert evidence["seen_rate"] * RULES.flooding_ratio < evidence["expected_rate"]
    assert evidence["p"] < evidence["threshold_p"] == RULES.flooding_p
    assert evidence["clicks"] >= RULES.flooding_min_clicks
    assert evidence["conversions"] == pytest.approx(evidence["seen_rate"] * evidence["clicks"])
    assert evidence["step_ms"] % step_of(RULES) == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_glut_within_seconds_is_found_and_its_conversions_are_flagged(seed: int) -> None:
    verdicts = told(seed, [HIJACKER])
    assert sources(verdicts, Rule.PUBLISHER_TIMING) == {1}
    evidence = verdicts[0].evidence
    assert evidence["is_glut"] == 1.0
    assert (evidence["bucket_from_ms"], evidence["bucket_to_ms"]) == (3_000.0, 10_000.0)
    rng = np.random.default_rng(seed)
    entries = traffic(rng, [HIJACKER, *honest(rng, 30, 0.3)], 4)
    is_glut = (entries["source"] == 1 << 32) & (entries["delay_ms"] > 3_000) & (entries["delay_ms"] <= 10_000)
    flagged = {digest for verdict in verdicts for digest in verdict.clicks}
    assert len(flagged) == sum(len(verdict.clicks) for verdict in verdicts)
    glut = {np.array([each["high"], each["low"]]).tobytes().hex() for each in entries[is_glut]}
    assert flagged <= glut
    assert len(flagged) > 0.95 * len(glut)


@pytest.mark.slow
def test_conversions_that_lie_flat_over_a_day_are_found() -> None:
    verdicts = told(1, [FLAT_FLOODING], hours=31, every_ms=HOUR_MS)
    assert sources(verdicts, Rule.PUBLISHER_TIMING) == {1}
    assert {"is_flat"} <= {name for v in verdicts if v.rule is Rule.PUBLISHER_TIMING for name in v.evidence}


def test_nobody_is_judged_before_conversions_have_been_read_as_far_as_clicks() -> None:
    entries = traffic(np.random.default_rng(1), [FLOODING, *honest(np.random.default_rng(1), 30, 0.3)], 3)
    desk, held_back = SourceDesk(RULES), []
    for batch in batches(entries, 20 * MINUTE_MS, T0 + 3 * HOUR_MS):
        clicks = batch.array()[batch.array()["delay_ms"] == NOT_CONVERTED]
        held_back.append(batch.array()[batch.array()["delay_ms"] != NOT_CONVERTED])
        desk.take(msgspec.structs.replace(batch, clicks=clicks.tobytes(), credited_ms=T0))
        assert desk.decide() == []
    late = msgspec.structs.replace(batch, sequence=99, clicks=np.concatenate(held_back).tobytes())
    desk.take(late)
    flagged = {digest for verdict in desk.decide() for digest in verdict.clicks}
    usual = {digest for verdict in _verdicts_on(entries, 3) for digest in verdict.clicks}
    assert flagged == usual != set()


def test_conversions_of_another_partition_are_waited_for_too() -> None:
    desk = SourceDesk(RULES)
    for partition, credited_ms in ((0, T0 + HOUR_MS), (1, T0 + MINUTE_MS)):
        silent = EvidenceBatch(
            from_partition=partition,
            sequence=1,
            watermark_ms=T0 + HOUR_MS,
            credited_ms=credited_ms,
            is_idle=False,
            clicks=b"",
        )
        desk.take(silent)
    desk.decide()
    forwarders = desk.head()["forwarders"]
    assert (forwarders["watermark_ms"], forwarders["credited_ms"]) == (T0 + HOUR_MS, T0 + MINUTE_MS)


def test_what_a_convicted_publisher_sends_is_flagged_as_it_comes() -> None:
    """Up to the next step: no click of a flood waits for it."""
    entries = traffic(np.random.default_rng(1), [FLOODING, *honest(np.random.default_rng(1), 30, 0.3)], 3)
    desk, flagged = SourceDesk(RULES), set()
    own = entries[(entries["source"] == 1 << 32) & (entries["delay_ms"] == NOT_CONVERTED)]
    for batch in batches(entries, MINUTE_MS, T0 + 3 * HOUR_MS):
        was_convicted = bool(flagged)
        desk.take(batch)
        desk = _reloaded(desk)
        flagged |= {digest for verdict in desk.decide() for digest in verdict.clicks}
        if was_convicted:
            assert len(flagged) == int((own["at_ms"] < batch.watermark_ms).sum())
    assert flagged


def _reloaded(desk: SourceDesk) -> SourceDesk:
    fresh = SourceDesk(desk.rules)
    fresh.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(desk.snapshot()), strict=False))
    return fresh


def _verdicts_on(entries: Clicks, hours: int) -> list[Verdict]:
    desk, verdicts = SourceDesk(RULES), []
    for batch in batches(entries, 20 * MINUTE_MS, T0 + hours * HOUR_MS):
        desk.take(batch)
        verdicts += desk.decide()
    return verdicts


FEED, SEARCH, NICHE = 7 << 40, 5 << 40, 3 << 40


def _in_channels(seed: int, channels: dict[int, list[Publisher]]) -> Clicks:
    """One market in which publishers of several channels meet, in the order of the channels."""
    publishers = [publisher for members in channels.values() for publisher in members]
    groups = [group for group, members in channels.items() for _ in members]
    entries = traffic(np.random.default_rng(seed), publishers, 3)
    entries["group"] = np.array(groups, dtype="<u8")[(entries["source"] >> np.uint64(32)).astype(int) - 1]
    return entries


def _converting(seed: int, count: int, rate: float) -> list[Publisher]:
    found = honest(np.random.default_rng(seed), count, 0.3, most=10_000)
    return [publisher._replace(rate=publisher.rate * rate) for publisher in found]


def test_a_channel_that_converts_seldom_is_not_measured_by_another() -> None:
    """Its publishers are each other's peers; as one channel with the others some of them would be convicted."""
    mixed = set()
    for seed in range(3):
        entries = _in_channels(seed, {SEARCH: _converting(seed, 24, 1.0), FEED: _converting(seed + 50, 10, 0.08)})
        assert _verdicts_on(entries, 3) == []
        entries["group"] = SEARCH
        mixed |= sources(_verdicts_on(entries, 3), Rule.PUBLISHER_FLOODING)
    assert mixed


@pytest.mark.parametrize("seed", range(2))
def test_who_floods_a_channel_that_converts_well_is_not_hidden_by_one_that_does_not(seed: int) -> None:
    """In search it converts a seventh as often as its peers; in the whole partition it would look usual."""
    channels = {SEARCH: [Publisher(20_000, 0.004), *_converting(seed, 12, 1.0)], FEED: _converting(seed, 24, 0.15)}
    entries = _in_channels(seed, channels)
    assert sources(_verdicts_on(entries, 3), Rule.PUBLISHER_FLOODING) == {1}
    entries["group"] = SEARCH
    assert 1 not in sources(_verdicts_on(entries, 3), Rule.PUBLISHER_FLOODING)


def test_a_channel_of_few_publishers_is_measured_by_the_whole_partition() -> None:
    channels = {NICHE: [FLOODING, Publisher(3_000, 0.03)], SEARCH: _converting(1, 24, 1.0)}
    assert sources(_verdicts_on(_in_channels(1, channels), 3), Rule.PUBLISHER_FLOODING) == {1}


def test_what_is_found_does_not_depend_on_when_one_looks() -> None:
    rng = np.random.default_rng(1)
    entries = traffic(rng, [FLOODING, *honest(rng, 30, 0.3)], 3)
    flagged = []
    for looks in (1, 7, 1_000):
        desk, verdicts = SourceDesk(RULES), []
        for number, batch in enumerate(batches(entries, 10 * MINUTE_MS, T0 + 3 * HOUR_MS)):
            desk.take(batch)
            verdicts += desk.decide() if number % looks == 0 else []
        flagged.append({digest for verdict in [*verdicts, *desk.decide()] for digest in verdict.clicks})
    assert flagged[0] == flagged[1] == flagged[2] != set()


def test_a_publisher_is_told_by_its_name() -> None:
    rng = np.random.default_rng(2)
    entries = traffic(rng, [FLOODING, *honest(rng, 30, 0.3)], 2)
    desk, verdicts = SourceDesk(RULES), []
    for batch in batches(entries, 30 * MINUTE_MS, T0 + 2 * HOUR_MS):
        desk.take(msgspec.structs.replace(batch, names={1 << 32: "pub-1"}))
        verdicts += desk.decide()
    assert {verdict.source for verdict in verdicts} == {"pub-1"}


def test_rules_that_are_off_find_nothing_and_need_no_memory() -> None:
    off = InvalidRules(modes={Rule.PUBLISHER_FLOODING: Mode.OFF, Rule.PUBLISHER_TIMING: Mode.OFF})
    rng = np.random.default_rng(2)
    entries = traffic(rng, [FLOODING, *honest(rng, 30, 0.3)], 2)
    desk = SourceDesk(off)
    for batch in batches(entries, 30 * MINUTE_MS, T0 + 2 * HOUR_MS):
        desk.take(batch)
        assert desk.decide() == []
    assert reach_of(off) == 0
    assert reach_of(RULES) == RULES.flooding_window_ms + FLAT.horizon_ms


def _suspected(counts: list[np.ndarray], campaigns: list[int] | None = None) -> dict[int, Suspicion]:
    """Each row is a publisher, on a campaign of its own or on one that all serve."""
    publishers = np.arange(len(counts))
    campaign = np.array(campaigns or [0] * len(counts))
    return suspicious(Times(publishers, campaign, np.stack(counts)), GLUT, RULES)


def test_trifles_do_not_convict_however_large_the_sample() -> None:
    usual = np.array([0, 0, 1_000, 20_000, 20_000, 20_000, 20_000, 19_000], dtype=float)
    other = usual + np.array([0, 0, 1_500, 0, 0, 0, 0, -1_500])
    assert _suspected([usual] * 10 + [other]) == {}


def test_few_conversions_do_not_convict() -> None:
    usual = np.array([0, 0, 10, 200, 200, 200, 200, 190], dtype=float)
    glut = np.array([0, 0, 40, 1, 1, 1, 1, 1], dtype=float)
    assert _suspected([usual] * 10 + [glut]) == {}
    assert set(_suspected([usual] * 10 + [2 * glut])) == {10}


def test_one_tap_orders_take_seconds_whoever_serves_them() -> None:
    """Compared over all campaigns, whoever serves the one-tap campaign alone would be convicted of a glut."""
    slow = np.array([0, 0, 10, 200, 200, 200, 200, 190], dtype=float)
    one_tap = np.array([0, 40, 300, 100, 30, 10, 10, 10], dtype=float)
    assert _suspected([slow] * 10 + [one_tap] * 6, [0] * 10 + [1] * 6) == {}
    assert set(_suspected([slow] * 16 + [one_tap], [0] * 10 + [1] * 6 + [0])) == {16}
    assert set(_suspected([one_tap] * 6 + [slow] * 10, [0] * 16)) != set()


def test_a_campaign_that_few_others_serve_is_no_baseline() -> None:
    slow = np.array([0, 0, 10, 200, 200, 200, 200, 190], dtype=float)
    one_tap = np.array([0, 40, 300, 100, 30, 10, 10, 10], dtype=float)
    assert _suspected([slow] * 10 + [one_tap], [0] * 10 + [1]) == {}
    assert _suspected([slow] * 12 + [one_tap], [0] * 10 + [1] * 3) == {}
    assert set(_suspected([slow] * 15 + [one_tap], [0] * 10 + [1] * 6)) == {15}


def test_small_campaigns_are_measured_together() -> None:
    """To each three others brought six conversions; a campaign that nobody else serves is not among them."""
    few = np.array([0, 0, 0, 0, 0, 0, 6, 0], dtype=float)
    one_tap = np.array([0, 0, 12, 0, 0, 0, 0, 0], dtype=float)
    cells = [(p, c) for c in range(20) for p in range(c % 7, c % 7 + 3)]
    mine = [(9, c) for c in range(5)]
    publisher, campaign = np.array(cells + mine).T
    counts = np.stack([few] * len(cells) + [one_tap] * len(mine))
    assert set(suspicious(Times(publisher, campaign, counts), GLUT, RULES)) == {9}
    lonely = np.concatenate((campaign[: len(cells)], np.arange(100, 105)))
    assert suspicious(Times(publisher, lonely, counts), GLUT, RULES) == {}


def test_what_has_no_baseline_is_told() -> None:
    slow = np.array([0, 0, 10, 200, 200, 200, 200, 190], dtype=float)
    glut = np.array([0, 0, 400, 10, 10, 10, 10, 10], dtype=float)
    alone = np.array([0, 500, 0, 0, 0, 0, 0, 0], dtype=float)
    cells = Times(np.array([*range(11), 10]), np.array([0] * 11 + [1]), np.stack([slow] * 10 + [glut, alone]))
    (verdict,) = suspicious(cells, GLUT, RULES).values()
    assert (verdict[1]["conversions"], verdict[1]["without_baseline"]) == (450.0, 500.0)
