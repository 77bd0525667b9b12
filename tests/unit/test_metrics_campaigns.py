"""Campaigns in Prometheus: a capped set of labels, the rest as `other`, and no ratio over zero."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from streams.agents.metrics import PREFIX, campaign_metrics, top_campaigns
from streams.stages.rates import wilson
from streams.state.windows import DAY, WINDOW_INDEX, WINDOWS_MS, Windows
from tests.unit.given import HOUR, MINUTE, T0

PANE = 10_000
CURRENCY_OF = {"usd": "USD", "jpy": "JPY"}


def windows(*amounts: tuple[str, dict[str, int]], newest_ms: int = T0) -> Windows:
    """Windows into whose newest pane these amounts went."""
    found = Windows(PANE)
    found.advance(newest_ms)
    for campaign, values in amounts:
        found.add(campaign, newest_ms, [(WINDOW_INDEX[name], amount) for name, amount in values.items()])
    return found


class _Collector:
    def __init__(self, held: list[Windows], top: int) -> None:
        self.held, self.top = held, top

    def collect(self) -> list[Metric]:
        return list(campaign_metrics(self.held, self.top))


def shown(held: list[Windows], top: int, window: str = "1m") -> dict[str, dict[str, float]]:
    """By metric and campaign, as Prometheus parses it."""
    registry = CollectorRegistry()
    registry.register(_Collector(held, top))  # type: ignore[arg-type]
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.labels["window"] == window:
                name = sample.name.removeprefix(PREFIX + "campaign_")
                assert sample.labels["campaign"] not in found.setdefault(name, {})
                found[name][sample.labels["campaign"]] = sample.value
    return found


SPENDERS = [(f"c{n}", {"impressions": 100 + n, "spend_millimicros": n * 1_000}) for n in range(1, 11)]


@pytest.mark.parametrize("top", [0, 1, 3, 9])
def test_the_top_spenders_have_a_label_and_the_rest_is_other(top: int) -> None:
    found = shown([windows(*SPENDERS)], top)["impressions"]
    named = {f"c{n}": 100 + n for n in range(11 - top, 11)}
    assert found == {**named, "other": sum(100 + n for n in range(1, 11 - top))}
    assert len(found) == top + 1


def test_where_all_campaigns_have_a_label_there_is_no_other() -> None:
    assert set(shown([windows(*SPENDERS)], 10)["impressions"]) == {f"c{n}" for n in range(1, 11)}


def test_of_equal_spenders_the_one_with_more_impressions_comes_first_then_the_name() -> None:
    held = windows(("b", {"impressions": 5}), ("a", {"impressions": 5}), ("z", {"impressions": 6}))
    assert set(shown([held], 2)["impressions"]) == {"z", "a", "other"}


def test_the_rank_is_todays_and_the_same_in_every_window() -> None:
    held = windows(("morning", {"impressions": 50, "spend_millimicros": 9_000}), newest_ms=T0 - 12 * HOUR)
    held.advance(T0)
    held.add("now", T0, [(WINDOW_INDEX["impressions"], 7), (WINDOW_INDEX["spend_millimicros"], 10)])
    found = top_campaigns([held], 1)
    assert {window: set(shares) for window, shares in found.items()} == {
        window: {"morning", "other"} for window in (*WINDOWS_MS, DAY)
    }
    assert found["1m"]["morning"][0] == 0
    assert found[DAY]["morning"][0] == 50
    assert found["1m"]["other"][0] == found[DAY]["other"][0] == 7


def test_nothing_is_lost_between_the_top_and_the_rest() -> None:
    for top in range(12):
        assert sum(shown([windows(*SPENDERS)], top)["impressions"].values()) == sum(100 + n for n in range(1, 11))


def test_a_campaign_in_two_partitions_is_one() -> None:
    held = [windows(("c", {"impressions": 3})), windows(("c", {"impressions": 4}), ("d", {"impressions": 1}))]
    assert shown(held, 1)["impressions"] == {"c": 7, "other": 1}


@pytest.mark.parametrize("top", [1, 5])
def test_what_the_grain_folded_into_other_is_part_of_other(top: int) -> None:
    held = [
        windows(("other", {"impressions": 1_000, "spend_millimicros": 10**9}), ("a", {"impressions": 3}), ("b", {}))
    ]
    found = shown(held, top)["impressions"]
    assert found["other"] == 1_000
    assert found["a"] == 3


def test_currencies_are_never_summed() -> None:
    spent = {"spend_millimicros": 1_500_000}
    found = shown([windows(("usd", spent), ("jpy", spent), ("eur", {"spend_millimicros": 3_000}))], 2)
    assert found["spend_micros"] == {"usd": 1_500.0, "jpy": 1_500.0}


def test_a_ratio_over_zero_has_no_sample() -> None:
    held = windows(("unseen", {"clicks": 2}), ("unclicked", {"impressions": 10, "conversions": 1}), ("idle", {}))
    found = shown([held], 9)
    assert found["ctr_ratio"] == {"unclicked": 0.0}
    assert found["cvr_ratio"] == {"unseen": 0.0}
    for bound in ("ratio_low", "ratio_high"):
        assert set(found[f"ctr_{bound}"]) == {"unclicked"}


def test_where_no_ratio_has_a_value_its_metric_has_no_sample() -> None:
    found = shown([windows(("c", {"plays_started": 1}))], 9)
    assert not [name for name in found if "ratio" in name]
    assert found["plays_started"] == {"c": 1}


def test_ratios_come_with_their_interval() -> None:
    found = shown([windows(("c", {"impressions": 1_000, "clicks": 40, "conversions": 3}))], 1)
    ctr, cvr = wilson(40, 1_000), wilson(3, 40)
    assert ctr is not None
    assert cvr is not None
    assert [found[f"ctr_{b}"]["c"] for b in ("ratio", "ratio_low", "ratio_high")] == [0.04, ctr.low, ctr.high]
    assert [found[f"cvr_{b}"]["c"] for b in ("ratio", "ratio_low", "ratio_high")] == [0.075, cvr.low, cvr.high]


def test_the_ratio_of_other_is_that_of_its_sums() -> None:
    held = windows(("a", {"impressions": 10, "clicks": 1}), ("b", {"impressions": 90, "clicks": 1}))
    assert shown([held], 0)["ctr_ratio"] == {"other": 0.02}


def test_each_window_has_its_own_numbers() -> None:
    held = windows(("c", {"impressions": 1}))
    held.advance(T0 + 4 * MINUTE)
    held.add("c", T0 + 4 * MINUTE, [(WINDOW_INDEX["impressions"], 10)])
    found = {window: shown([held], 1, window)["impressions"]["c"] for window in (*WINDOWS_MS, DAY)}
    assert found == {"1m": 10, "5m": 11, "15m": 11, "1h": 11, "day": 11}


def test_after_midnight_a_campaign_is_ranked_by_its_new_day() -> None:
    held = windows(("yesterday", {"spend_millimicros": 10**9}), newest_ms=T0 + HOUR - PANE)
    held.advance(T0 + HOUR)
    held.add("today", T0 + HOUR, [(WINDOW_INDEX["spend_millimicros"], 1)])
    assert set(top_campaigns([held], 1)[DAY]) == {"today", "other"}
