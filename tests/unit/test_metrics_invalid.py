"""What Prometheus sees of invalid traffic."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streams.agents.metrics import PREFIX, PipelineCollector
from streams.agents.metrics_risk import TOP
from streams.events import Input
from streams.invalid import Rule
from streams.stages.invalid.peer_risk import Assessment, PeerRisk, Unscored
from streams.stages.invalid.sources import Figures, SourceDesk
from streams.state.owner import Owner
from streams.verdicts import FlagState
from tests.unit.given import MINUTE, T0, document
from tests.unit.keeping import Kept

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(found: Kept) -> Samples:
    registry = CollectorRegistry()
    registry.register(PipelineCollector(found.keeper, found.publisher, found.highwater, 3))
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def value(found: Kept, name: str, **labels: str) -> float:
    return samples(found)[name, tuple(sorted(labels.items()))]


async def flagged() -> Kept:
    """A hidden impression; a click too soon after its impression, and one without; and one that nobody can tell of."""
    found = Kept()
    await found.assign()
    found.world.produce(
        Input.IMPRESSIONS,
        document(Input.IMPRESSIONS, "i-1"),
        document(Input.IMPRESSIONS, "i-2", placement_width_px=1, placement_height_px=1),
        document(Input.IMPRESSIONS, "i-3", T0 + 5 * MINUTE),
    )
    found.world.produce(
        Input.CLICKS,
        document(Input.CLICKS, "k-1", T0 + 50, impression_id="i-1"),
        document(Input.CLICKS, "k-2", T0 + 60, impression_id="i-0"),
        document(Input.CLICKS, "k-3", T0 - 600 * MINUTE, impression_id="i-old"),
    )
    await found.step()
    return found


async def test_flags_are_counted_by_rule_and_state() -> None:
    found = samples(await flagged())
    flags = {
        (dict(labels)["rule"], dict(labels)["state"]): count
        for (name, labels), count in found.items()
        if name == "flags_total"
    }
    expected = (Rule.HIDDEN_PLACEMENT, Rule.CLICK_TOO_SOON, Rule.CLICK_WITHOUT_IMPRESSION)
    assert flags == {(rule.value, FlagState.RAISED.value): 1 for rule in expected}


async def test_labels_are_enums_and_the_partition() -> None:
    for name, labels in samples(await flagged()):
        if name.startswith(("flags", "words", "touches", "recent", "worded", "source")):
            for label, text in labels:
                known: dict[str, set[str]] = {
                    "rule": set(Rule),
                    "state": set(FlagState),
                    "input": set(Input),
                    "partition": {"0"},
                }
                assert text in known[label]


async def test_what_nobody_can_tell_of_is_counted_by_input() -> None:
    found = await flagged()
    assert value(found, "touches_unverifiable_total", partition="0", input="clicks") == 1
    assert value(found, "touches_unverifiable_total", partition="0", input="conversions") == 0


async def test_what_is_held_for_late_words_is_told() -> None:
    found = await flagged()
    assert value(found, "recent_events", input="clicks") == 3
    assert value(found, "recent_events", input="impressions") == 1, "of impressions only the flagged"
    assert value(found, "recent_events", input="plays") == 0
    assert value(found, "worded_events") == 2
    assert value(found, "recent_packed_bytes", input="clicks") == 0
    found.keeper.owners[0].state.inputs[Input.CLICKS].traces.recent.pack()
    assert value(found, "recent_packed_bytes", input="clicks") > 3 * 40


async def test_words_that_come_too_late_and_flags_that_are_not_told_are_counted() -> None:
    found = await flagged()
    book = found.keeper.owners[0].state.judging.book
    book.untold, book.unmatched, book.beyond = 3, 5, 7
    told = [
        value(found, f"{name}_total", partition="0") for name in ("flags_untold", "words_unmatched", "words_beyond")
    ]
    assert told == [3, 5, 7]


async def test_the_source_stage_is_told_by_what_it_holds_and_how_far_it_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await flagged()
    figures = Figures(entries=7, bytes=400, waiting=2, told=3, forgotten=5, ignored=1, floors_ms={}, watermark_ms=T0)
    monkeypatch.setattr(SourceDesk, "figures", lambda _: figures)
    found.clock.time_ms = T0 + 90_500
    gauges = ("source_clicks", "source_clicks_waiting", "source_clicks_bytes", "source_flagged_clicks")
    assert [value(found, name) for name in gauges] == [7, 2, 400, 3]
    assert value(found, "source_clicks_forgotten_total", partition="0") == 5
    assert value(found, "source_clicks_ignored_total", partition="0") == 1
    assert value(found, "source_watermark_delay_seconds", partition="0") == 90.5


async def test_a_source_stage_that_has_heard_nothing_has_no_watermark() -> None:
    found = Kept()
    await found.assign()
    assert value(found, "source_clicks") == 0
    assert not [name for name, _ in samples(found) if name == "source_watermark_delay_seconds"]


async def test_counters_of_a_partition_that_recovers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await flagged()
    assert [name for name, _ in samples(found) if name == "flags_total"]
    monkeypatch.setattr(Owner, "is_recovering", property(lambda _: True))
    names = {name for name, _ in samples(found)}
    assert not names & {"flags_total", "words_unmatched_total", "touches_unverifiable_total"}
    assert "recent_events" in names


async def test_gross_spend_is_shown_in_micros_and_never_summed_over_currencies() -> None:
    found = await flagged()
    names = {name for name, _ in samples(found)}
    assert "campaign_gross_spend_micros" in names
    assert not [name for name in names if "millimicros" in name]
    assert all(("campaign", "other") not in labels for name, labels in samples(found) if name.endswith("spend_micros"))


def test_a_worker_without_partitions_can_be_scraped() -> None:
    found = samples(Kept())
    assert found["source_clicks", ()] == 0
    assert not [name for name, _ in found if name == "flags_total"]


async def test_the_riskiest_publishers_have_a_label_and_the_others_are_counted() -> None:
    found = Kept()
    await found.assign()
    desks = [owner.state.judging.sources for owner in found.keeper.owners.values()]
    scores = [number / 100 for number in range(TOP + 5)]
    risks = [PeerRisk(number + 1, 100, 0, 9, 9, 9, score, None, ()) for number, score in enumerate(scores)]
    unknown = PeerRisk(999, 3, 0, 1, 1, 1, None, Unscored.FEW_CLICKS, ())
    desks[0].assessment = Assessment(0, 1, len(risks), (*risks, unknown), 7, 70)
    if len(desks) > 1:  # the same publisher in another partition: the higher score stands
        desks[1].assessment = Assessment(0, 1, 1, (risks[0], risks[-1]))
    shown = {
        dict(labels)["publisher"]: score for (name, labels), score in samples(found).items() if name == "publisher_risk"
    }
    assert len(shown) == TOP
    assert min(shown.values()) == scores[5]
    assert shown[f"{risks[-1].source:016x}"] == scores[-1]
    assert value(found, "risk_publishers_unscored", reason="few_clicks") == 1
    assert value(found, "risk_publishers_scored") == sum(len(desk.assessment.risks) for desk in desks) - 1
    assert value(found, "risk_publishers_beyond") == 7
