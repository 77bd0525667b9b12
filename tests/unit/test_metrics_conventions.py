"""What Prometheus sees of the pipeline: names, units, types and labels, as its own parser reads them."""

import re
from collections import defaultdict

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from streams.adapters.memory_sink import Fault
from streams.agents import keeper as keeper_module
from streams.agents.metrics import PREFIX, PipelineCollector
from streams.events import Input
from streams.settings import WorkerSettings
from tests.unit.given import MINUTE, T0, document
from tests.unit.keeping import Kept
from tests.unit.owning import BEFORE

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def families(found: Kept, top: int = 3) -> list[Metric]:
    registry = CollectorRegistry()
    registry.register(PipelineCollector(found.keeper, found.publisher, found.highwater, top))
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def samples(found: Kept, top: int = 3) -> Samples:
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in families(found, top)
        for sample in family.samples
    }


def value(found: Kept, name: str, **labels: str) -> float:
    return samples(found)[name, tuple(sorted(labels.items()))]


async def running() -> Kept:
    """A worker with something of every input, of every entry, and of three campaigns."""
    found = Kept()
    found.world.settle(currency="USD")
    await found.assign()
    for source in Input:
        events = [document(source, f"e{n}", campaign_id=f"c{n % 3}") for n in range(6)]
        late = document(source, "late", T0 - 40 * 24 * 60 * MINUTE)
        found.world.produce(source, *events, events[0], late, b"{", None)
    found.world.log.skip("ads.clicks", 0, 4)
    await found.step()
    return found


# Conventions (prometheus.io/docs/practices/naming)


async def test_names_are_ours_and_well_formed() -> None:
    for family in families(await running()):
        assert family.name.startswith(PREFIX)
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name), family.name
        assert "__" not in family.name


async def test_every_metric_is_a_counter_or_a_gauge_and_is_explained() -> None:
    for family in families(await running()):
        assert family.type in ("counter", "gauge"), family.name
        assert len(family.documentation) > 10, family.name
        assert family.documentation.endswith((".", "offsets.")), family.name


async def test_counters_end_in_total_and_gauges_do_not() -> None:
    for family in families(await running()):
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name


async def test_units_are_base_units_spelt_out_and_last() -> None:
    for family in families(await running()):
        name = family.name
        assert not re.search(r"_(ms|millis|milliseconds|us|kb|mb|percent|pct)(_|$)", name), name
        words = name.split("_")
        if {"duration", "delay", "latency", "age"} & set(words):
            assert name.endswith("_seconds"), name
        if "bytes" in words:
            assert name.endswith("_bytes"), name
        if "ratio" in words:
            assert re.search(r"_ratio(_low|_high)?$", name), name


async def test_each_family_and_each_sample_stands_once() -> None:
    registry = CollectorRegistry()
    found = await running()
    registry.register(PipelineCollector(found.keeper, found.publisher, found.highwater, 3))
    text = generate_latest(registry).decode()
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    lines = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


LABELS = {
    *("topic", "partition", "input", "entry", "reason", "campaign", "window", "kind"),
    *("version", "format"),
}


async def test_labels_are_few_and_none_is_a_person() -> None:
    found = await running()
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for family in families(found):
        names = {frozenset(sample.labels) for sample in family.samples}
        assert len(names) <= 1, family.name
        for sample in family.samples:
            for name, label in sample.labels.items():
                seen[name].add(label)
    assert set(seen) == LABELS
    assert seen["window"] == {"1m", "5m", "15m", "1h", "day"}


async def test_a_hostile_campaign_id_does_not_break_the_page() -> None:
    found = Kept()
    await found.assign()
    name = 'c"1\\\n# HELP x {le="+Inf"} 双 \u2028'
    found.world.produce(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a", campaign_id=name))
    await found.step()
    assert value(found, "campaign_impressions", campaign=name, window="1m") == 1


# What is counted


async def test_the_ledger_sums_to_what_was_consumed() -> None:
    found = samples(await running())
    sums: defaultdict[str, float] = defaultdict(float)
    for (name, labels), count in found.items():
        if name == "ledger_records_total":
            sums[dict(labels)["input"]] += count
    consumed = {
        dict(labels)["input"]: count for (name, labels), count in found.items() if name == "consumed_offsets_total"
    }
    assert sums == {name: count for name, count in consumed.items() if count}
    assert consumed == {
        **{source.value: 10 for source in Input},
        "clicks": 14,
        "campaigns": 1,
        "sessions": 0,
        "allowances": 0,
        "evidence": 0,
        "verdicts": 0,
    }


async def test_every_entry_of_the_ledger_has_its_sample() -> None:
    found = await running()
    entries = {
        (dict(labels)["entry"], dict(labels)["reason"]): count
        for (name, labels), count in samples(found).items()
        if name == "ledger_records_total" and dict(labels)["input"] == "clicks"
    }
    assert entries == {
        ("counted", ""): 6,
        ("duplicate", ""): 1,
        ("late", ""): 1,
        ("rejected", "malformed_json"): 1,
        ("rejected", "empty"): 1,
        ("no_record", ""): 4,
    }


async def test_lag_is_what_was_not_applied_and_never_negative() -> None:
    found = await running()
    assert value(found, "lag_records", topic="ads.clicks", partition="0") == 0
    found.world.produce(Input.CLICKS, *(document(Input.CLICKS, f"x{n}") for n in range(7)))
    assert value(found, "lag_records", topic="ads.clicks", partition="0") == 7
    ends = found.highwater
    found.highwater = lambda topic, partition: 3 if topic == "ads.clicks" else ends(topic, partition)  # type: ignore[method-assign]
    assert value(found, "lag_records", topic="ads.clicks", partition="0") == 0


async def test_a_topic_whose_end_is_unknown_has_no_lag() -> None:
    found = await running()
    found.highwater = lambda topic, partition: None  # type: ignore[method-assign]
    assert not [name for name, _ in samples(found) if name == "lag_records"]


async def test_the_watermark_delay_is_of_each_input() -> None:
    found = await running()
    found.clock.time_ms = T0 + 90_500
    assert value(found, "watermark_delay_seconds", input="plays", partition="0") == 90.5
    assert ("watermark_delay_seconds", (("input", "plays"), ("partition", "0"))) not in samples(Kept())


async def test_the_health_of_the_sink_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await running()
    dirty = found.keeper.dirty_rows
    assert (value(found, "sink_up"), value(found, "dirty_rows")) == (1, dirty)
    found.world.sink.faults.append(Fault.REFUSED)
    await found.publisher.flush()
    assert (value(found, "sink_up"), value(found, "insertion_errors_total")) == (0, 1)
    await found.publisher.flush()
    assert (value(found, "sink_up"), value(found, "dirty_rows")) == (1, 0)
    assert value(found, "inserted_rows_total") == dirty
    monkeypatch.setattr(keeper_module, "RETRY_S", (0.0,))
    found.world.produce(Input.CLICKS, document(Input.CLICKS, "x"))
    found.world.faults.plan("append", BEFORE)
    await found.step()
    assert value(found, "outages_total") == 1


async def test_sizes_and_bounds_are_told() -> None:
    found = await running()
    assert value(found, "partitions") == 1
    assert value(found, "partitions_recovering") == 0
    assert value(found, "dedupe_ids") == 6 * len(Input)
    assert value(found, "window_campaigns") == 3
    assert value(found, "dirty_rows_limit") == found.settings.max_dirty_rows
    await found.keeper.checkpoint_all()
    found.world.produce(Input.CLICKS, document(Input.CLICKS, "x"))
    await found.step()
    assert value(found, "dedupe_packed_bytes") >= 20 * 6


async def test_what_was_refused_or_misplaced_is_told() -> None:
    found = await running()
    found.world.settle(currency="EUR")
    found.world.settle(currency="JPY")
    await found.step()
    assert value(found, "settings_refused_total", partition="0") == 2
    assert value(found, "misrouted_campaigns_total", partition="0") == 0
    other = Kept(found.world)
    await other.assign()
    found.world.produce(Input.CLICKS, document(Input.CLICKS, "y"))
    await found.step()
    assert value(found, "fenced_total") == 1
    assert value(found, "partitions") == 0


def test_a_worker_without_partitions_can_be_scraped() -> None:
    found = samples(Kept())
    assert found["partitions", ()] == 0
    assert not [name for name, _ in found if name.startswith("campaign_")]


def test_by_default_the_label_set_is_capped() -> None:
    assert 0 < WorkerSettings().top_campaigns <= 100
