"""Source stage, publishers: flooding and wrong times are found among honest peers that differ; the honest are not."""

import msgspec
import numpy as np
import pytest

from streams.invalid import InvalidRules, Mode, Rule
from streams.rules import HOUR_MS, MINUTE_MS
from streams.stages.invalid.publishers import reach_of, step_of
from streams.stages.invalid.sources import SourceDesk
from streams.stages.invalid.timing import FLAT, GLUT, suspicious
from streams.verdicts import Verdict
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


def test_trifles_do_not_convict_however_large_the_sample() -> None:
    usual = np.array([0, 0, 1_000, 20_000, 20_000, 20_000, 20_000, 19_000], dtype=float)
    other = usual + np.array([0, 0, 1_500, 0, 0, 0, 0, -1_500])
    counts = np.stack([usual] * 10 + [other])
    assert suspicious(counts, GLUT, RULES) == {}


def test_few_conversions_do_not_convict() -> None:
    usual = np.array([0, 0, 10, 200, 200, 200, 200, 190], dtype=float)
    glut = np.array([0, 0, 40, 1, 1, 1, 1, 1], dtype=float)
    assert suspicious(np.stack([usual] * 10 + [glut]), GLUT, RULES) == {}
    assert set(suspicious(np.stack([usual] * 10 + [2 * glut]), GLUT, RULES)) == {10}
