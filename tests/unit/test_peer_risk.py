"""Publishers' risk from the stream: what stands out is found and named, honest peers are left alone, bounds hold."""

from collections import Counter
from itertools import combinations
from math import exp

import msgspec
import numpy as np
import pytest

from streams.invalid import InvalidRules, Mode, Rule, SourceKind
from streams.records import COLUMNS, OTHER, Table
from streams.rules import HOUR_MS, MINUTE_MS
from streams.stages.invalid import peer_risk
from streams.stages.invalid.holding import entries_of, held_of
from streams.stages.invalid.peer_risk import BASE, MOST, WEIGHT, WORDS, Assessment, PeerRisk, Trait, Unscored, assess
from streams.stages.invalid.publishers import Publishers
from streams.stages.invalid.sources import SourceDesk
from streams.state.risk_rows import FOLDED, risk_rows
from streams.verdicts import NOT_CONVERTED, SHOWN, SHOWN_EACH, Clicks
from tests.unit.publishers_market import T0, Publisher, batches, honest, traffic

RULES = InvalidRules()
HOURS = 8
END = T0 + HOURS * HOUR_MS
Rng = np.random.Generator


def people(rng: Rng, entries: Clicks) -> Clicks:
    """Users of a market, each with an address that a few share and one of forty agents; some come back."""
    entries = entries.copy()
    user = rng.integers(1, 40_000, len(entries)).astype("<u8")
    entries["user"] = user * np.uint64(0x9E3779B97F4A7C15)
    entries["address"] = 1 + user // 4
    entries["agent"] = 1 + user % 40
    return entries


def market(rng: Rng, bad: list[Publisher], count: int = 25, hours: float = HOURS, most: int = 6_000) -> Clicks:
    """Bad publishers are sources 1, 2, … (in the upper half of 64 bits)."""
    return people(rng, traffic(rng, bad + honest(rng, count, 0.3, most), hours))


def judged(entries: Clicks, at_ms: int = END, floor_ms: int = 0, rules: InvalidRules = RULES) -> Assessment:
    return assess(Publishers(held_of(SourceKind.PUBLISHER, entries, 0), rules), at_ms, floor_ms)


def of(found: Assessment, source: int) -> PeerRisk:
    (risk,) = [risk for risk in found.risks if risk.source >> 32 == source]
    return risk


def raising(risk: PeerRisk) -> set[Trait]:
    return {part.trait for part in risk.parts if part.log_odds > 1.0}


@pytest.mark.parametrize("seed", range(4))
def test_honest_publishers_that_differ_do_not_stand_out(seed: int) -> None:
    found = judged(market(np.random.default_rng(seed), []))
    scores = [risk.score for risk in found.risks if risk.score is not None]
    assert len(scores) == 25
    assert max(scores) < 0.25
    assert np.median(scores) < 0.03


def bot(entries: Clicks, source: int = 1) -> Clicks:
    """The source's clicks come from twenty devices of one network, each minute's within a few."""
    entries = entries.copy()
    mine = np.flatnonzero(entries["source"] >> 32 == source)
    entries["user"][mine] = 1 + mine.astype("<u8") % 20 * np.uint64(1 << 40)
    entries["address"][mine] = 1 + mine % 7
    entries["agent"][mine] = 99
    entries["at_ms"][mine] -= entries["at_ms"][mine] % (10 * MINUTE_MS)
    return entries


def test_a_publisher_of_few_devices_in_bursts_stands_out_by_each_of_it() -> None:
    found = judged(bot(market(np.random.default_rng(1), [Publisher(900, 0.03)])))
    risk = of(found, 1)
    assert risk.score is not None
    assert risk.score > 0.99
    assert risk.score == max(other.score or 0 for other in found.risks)
    assert raising(risk) >= {Trait.SHARED_ADDRESSES, Trait.SHARED_USERS, Trait.SHARED_AGENTS, Trait.SAME_MINUTE}
    assert (risk.users, risk.addresses, risk.agents) == (20, 7, 1)
    assert max(other.score or 0 for other in found.risks if other is not risk) < 0.25


@pytest.mark.parametrize(
    ("bad", "trait", "hours"),
    [
        (Publisher(8_000, 0.0005), Trait.UNCONVERTED, HOURS),
        (Publisher(4_000, 0.03, "glut"), Trait.SOON_CONVERSIONS, HOURS),
        (Publisher(20_000, 0.03, "flat"), Trait.LATE_CONVERSIONS, 31),
    ],
)
def test_conversions_that_are_missing_too_soon_or_too_late_stand_out(bad: Publisher, trait: Trait, hours: int) -> None:
    found = judged(market(np.random.default_rng(2), [bad], 25, hours, 1_000 * hours), T0 + hours * HOUR_MS)
    risk = of(found, 1)
    assert trait in raising(risk)
    assert risk.source == max(found.risks, key=lambda each: each.score or 0).source


def shown(rng: Rng, entries: Clicks, rates: dict[int, float], group: int = 0) -> Clicks:
    """Every 256th impression of each source, where its clicks per impression are these or, honestly, 0.5% to 4%."""
    parts = [entries]
    clicks = entries[entries["delay_ms"] == NOT_CONVERTED]
    for source in np.unique(clicks["source"]).tolist():
        mine = clicks[clicks["source"] == source]
        rate = rates.get(source >> 32) or 0.02 * float(np.clip(rng.lognormal(0.0, 0.4), 0.25, 2.0))
        count = rng.poisson(len(mine) / rate / SHOWN_EACH)
        parts.append(
            entries_of(
                SourceKind.PUBLISHER,
                source=np.full(count, source, dtype="<u8"),
                high=rng.integers(1, 2**63, count),
                low=rng.integers(1, 2**63, count),
                at_ms=T0 + rng.integers(0, HOURS * HOUR_MS, count),
                group=group,
                delay_ms=SHOWN,
            )
        )
    return np.concatenate(parts)


@pytest.mark.parametrize("seed", range(3))
def test_clicks_far_above_the_peers_are_a_risk_by_themselves_and_convict_nobody(seed: int) -> None:
    """Two publishers whose users click thirty times as often: one whose clicks convert, and one who floods."""
    rng = np.random.default_rng(seed)
    entries = shown(rng, market(rng, [Publisher(3_000, 0.03), Publisher(20_000, 0.0005)]), {1: 0.6, 2: 0.6})
    found = judged(entries)
    keen, flood = of(found, 1), of(found, 2)
    assert raising(keen) == {Trait.CLICKS_PER_IMPRESSION}
    assert raising(flood) == {Trait.CLICKS_PER_IMPRESSION, Trait.UNCONVERTED}
    assert keen.score is not None
    assert flood.score is not None
    assert 0.1 < keen.score <= 0.5 < 0.8 < flood.score
    others = [risk for risk in found.risks if risk is not keen and risk is not flood]
    assert max(risk.score or 0 for risk in others) < 0.25
    findings, _ = Publishers(held_of(SourceKind.PUBLISHER, entries, 0), RULES).weigh(END)
    assert {source >> 32 for finding in findings for source in finding.evidence} == {2}


def test_where_impressions_do_not_name_their_publisher_nobody_clicks_too_often() -> None:
    rng = np.random.default_rng(12)
    entries = market(rng, [Publisher(3_000, 0.03)])
    assert all(part.trait is not Trait.CLICKS_PER_IMPRESSION for part in of(judged(entries), 1).parts)
    mixed = shown(rng, entries, {})
    mixed["group"] = np.where(mixed["source"] >> 32 <= 8, 1, 2)
    mixed = mixed[(mixed["group"] == 2) | (mixed["delay_ms"] != SHOWN)]
    traits = {risk.source >> 32: {part.trait for part in risk.parts} for risk in judged(mixed).risks}
    assert Trait.CLICKS_PER_IMPRESSION not in traits[1]
    assert Trait.CLICKS_PER_IMPRESSION in traits[9]


def test_the_share_of_clicks_is_that_of_what_is_an_hour_old() -> None:
    """Impressions that have not been read yet make nobody a flood."""
    rng = np.random.default_rng(13)
    entries = shown(rng, market(rng, [Publisher(3_000, 0.03)]), {})
    lag = entries[(entries["delay_ms"] != SHOWN) | (entries["at_ms"] < END - HOUR_MS)]
    assert judged(lag) == judged(entries)
    old = entries[(entries["source"] >> 32 == 1) & (entries["at_ms"] < END - HOUR_MS)]
    clicks, seen = (int((old["delay_ms"] == kind).sum()) for kind in (NOT_CONVERTED, SHOWN))
    (part,) = [each for each in of(judged(lag), 1).parts if each.trait is Trait.CLICKS_PER_IMPRESSION]
    assert part.seen == clicks / (clicks + seen)


def test_the_score_is_the_sum_of_its_parts_and_one_alone_is_never_beyond_a_half() -> None:
    found = judged(bot(market(np.random.default_rng(3), [Publisher(900, 0.03), Publisher(8_000, 0.0001)])))
    for risk in found.risks:
        assert risk.score is not None
        assert risk.score == pytest.approx(1 / (1 + exp(-(BASE + sum(part.log_odds for part in risk.parts)))))
        assert all(0 <= part.log_odds <= WEIGHT * MOST for part in risk.parts)
        if sum(part.log_odds > 0 for part in risk.parts) <= 1:
            assert risk.score <= 0.5
    assert 1 / (1 + exp(-(BASE + WEIGHT * MOST))) == pytest.approx(0.5)
    assert {part.trait for risk in found.risks for part in risk.parts} <= set(WORDS) == set(Trait)


def test_shares_are_those_that_counting_pairs_gives() -> None:
    rng = np.random.default_rng(4)
    entries = market(rng, [Publisher(300, 0.2)], 8)
    mine = entries[(entries["source"] >> 32 == 1) & (entries["delay_ms"] < 0) & (entries["at_ms"] < END)]
    parts = {part.trait: part.seen for part in of(judged(entries), 1).parts}
    pairs = list(combinations(mine, 2))
    for trait, name in (
        (Trait.SHARED_USERS, "user"),
        (Trait.SHARED_ADDRESSES, "address"),
        (Trait.SHARED_AGENTS, "agent"),
    ):
        assert parts[trait] == pytest.approx(sum(a[name] == b[name] for a, b in pairs) / len(pairs))
    hours = [(a, b) for a, b in pairs if a["at_ms"] // HOUR_MS == b["at_ms"] // HOUR_MS]
    minutes = sum(a["at_ms"] // MINUTE_MS == b["at_ms"] // MINUTE_MS for a, b in hours)
    assert parts[Trait.SAME_MINUTE] == pytest.approx(minutes / len(hours))


def test_a_share_of_pairs_does_not_depend_on_how_many_clicks_there_are() -> None:
    found = judged(market(np.random.default_rng(5), [Publisher(150, 0.03), Publisher(15_000, 0.03)]))
    small, large = ({part.trait: part.seen for part in of(found, at).parts} for at in (1, 2))
    assert small[Trait.SHARED_AGENTS] == pytest.approx(large[Trait.SHARED_AGENTS], rel=0.15)
    assert large[Trait.SHARED_AGENTS] == pytest.approx(1 / 40, rel=0.03)


def test_who_has_too_few_clicks_or_peers_or_traits_is_unverifiable() -> None:
    rng = np.random.default_rng(6)
    found = judged(market(rng, [Publisher(peer_risk.LEAST_CLICKS - 1, 0.03)]))
    assert (of(found, 1).score, of(found, 1).unscored, of(found, 1).parts) == (None, Unscored.FEW_CLICKS, ())
    few = judged(market(rng, [Publisher(500, 0.03)] * 5, 0))
    assert {risk.unscored for risk in few.risks} == {Unscored.FEW_PEERS}
    nameless = market(rng, [Publisher(150, 0.0)] * 9, 0)
    for name in ("user", "address", "agent"):
        nameless[name] = 0
    assert {risk.unscored for risk in judged(nameless).risks} == {Unscored.FEW_TRAITS}


def test_clicks_without_addresses_are_not_held_against_anybody() -> None:
    rng = np.random.default_rng(7)
    entries = market(rng, [Publisher(900, 0.03)])
    mine = entries["source"] >> 32 == 1
    entries["address"][mine & (rng.random(len(entries)) < 0.6)] = 0
    risk = of(judged(entries), 1)
    assert Trait.SHARED_ADDRESSES not in {part.trait for part in risk.parts}
    assert risk.score is not None
    assert risk.score < 0.25


def test_only_clicks_of_the_window_that_are_held_are_weighed() -> None:
    entries = market(np.random.default_rng(8), [Publisher(900, 0.03)], hours=30)
    end = T0 + 30 * HOUR_MS
    clicks = entries[(entries["source"] >> 32 == 1) & (entries["delay_ms"] < 0)]
    for floor_ms, from_ms in ((0, end - 24 * HOUR_MS), (end - HOUR_MS, end - HOUR_MS)):
        found = judged(entries, end, floor_ms)
        assert (found.from_ms, found.to_ms) == (from_ms, end)
        assert of(found, 1).clicks == ((clicks["at_ms"] >= from_ms) & (clicks["at_ms"] < end)).sum()
    only_flooding = msgspec.structs.replace(RULES, modes={Rule.PUBLISHER_TIMING: Mode.OFF})
    assert judged(entries, end, rules=only_flooding).from_ms == end - RULES.flooding_window_ms


def test_publishers_beyond_the_bound_are_one_row() -> None:
    rng = np.random.default_rng(9)
    sizes = [5 + number for number in range(peer_risk.MAX_SCORED + 30)]
    found = judged(people(rng, traffic(rng, [Publisher(size, 0.0) for size in sizes], HOURS, 2)))
    assert (len(found.risks), found.beyond) == (peer_risk.MAX_SCORED, 30)
    assert found.beyond_clicks == sum(sizes[:30])
    rows = [dict(zip(COLUMNS[Table.RISKS], row, strict=False)) for row in risk_rows(1, 2, found, str)]
    assert (len(rows), rows[-1]["publisher_id"]) == (peer_risk.MAX_SCORED + 1, OTHER)
    assert (rows[-1]["publishers"], rows[-1]["clicks"], rows[-1]["unscored"]) == (30, sum(sizes[:30]), FOLDED)


def test_rows_have_every_column_and_the_heaviest_part_first() -> None:
    found = judged(bot(market(np.random.default_rng(1), [Publisher(900, 0.03)])))
    for row in risk_rows(3, 1, found, str):
        assert len(row) == len(COLUMNS[Table.RISKS]) - 1
        named = dict(zip(COLUMNS[Table.RISKS], row, strict=False))
        assert (named["log_epoch"], named["partition"], named["hour"]) == (3, 1, (END - HOUR_MS) // 1000)
        assert named["log_odds"] == sorted(named["log_odds"], reverse=True)
        assert len({len(named[name]) for name in ("traits", "seen_shares", "typical_shares", "deviations")}) == 1


def test_a_desk_comes_to_the_same_risks_whenever_it_looks_after_a_restore_and_when_batches_come_again() -> None:
    entries = market(np.random.default_rng(10), [Publisher(900, 0.03)], hours=3)
    end = T0 + 3 * HOUR_MS
    found = []
    for every_ms, again in ((5 * MINUTE_MS, False), (45 * MINUTE_MS, True)):
        desk = SourceDesk(RULES)
        for number, batch in enumerate(batches(entries, every_ms, end)):
            for _ in range(1 + again):
                desk.take(batch)
            desk.decide()
            if number % 2:
                snapshot = msgspec.msgpack.decode(msgspec.msgpack.encode(desk.snapshot()), strict=False)
                desk = SourceDesk(RULES)
                desk.restore(snapshot)
        found.append(desk.assessment)
    assert found[0] == found[1]
    assert found[0].to_ms == end
    assert Counter(risk.unscored for risk in found[0].risks)[None] > 20


def test_rules_that_ask_nothing_of_publishers_leave_them_unassessed() -> None:
    modes = dict.fromkeys((Rule.PUBLISHER_FLOODING, Rule.PUBLISHER_TIMING), Mode.OFF)
    desk = SourceDesk(msgspec.structs.replace(RULES, modes=modes))
    for batch in batches(market(np.random.default_rng(11), [], 6, 1), 10 * MINUTE_MS):
        desk.take(batch)
        desk.decide()
    assert desk.assessment == Assessment()


def test_entries_of_publishers_keep_where_clicks_came_from() -> None:
    held = held_of(SourceKind.PUBLISHER, entries_of(SourceKind.PUBLISHER, address=[7], agent=[9]), 3)
    assert (int(held["address"][0]), int(held["agent"][0]), int(held["partition"][0])) == (7, 9, 3)
    assert "address" not in (held_of(SourceKind.USER, entries_of(SourceKind.USER, address=[7]), 3).dtype.names or ())
