"""Log files into the topics: in event-time order, with bounded memory, and no row lost without a count."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from streams.adapters.memory import MemoryOutbox
from streams.errors import BrokerUnavailable, ConfigurationError
from streams.events import Click, Impression, Input, Traffic
from streams.jobs.identity import Identity
from streams.jobs.load import (
    MAX_EXAMPLES,
    LoadReport,
    compact_json,
    events_from_files,
    load,
    publish_patiently,
    record_key,
)
from streams.jobs.mapping import Mapping, read_mapping
from streams.jobs.ordering import LoadedEvent, in_event_time_order
from streams.ports import Outgoing
from streams.topics import INPUT_TOPICS, partition_of

MAPPING = """
name = "example"
[fields]
event_id = "id"
event_time_ms = { column = "at", time = "epoch_ms" }
campaign_id = "campaign"
user_id = "user"
address = "ip"
[[events]]
input = "impressions"
when = { kind = "i" }
fields.placement_width_px = "width"
[[events]]
input = "clicks"
when = { kind = "c" }
"""
HEAD = "id,at,campaign,user,ip,kind,width\n"


class KeptOutbox:
    """An outbox that keeps what it is given, and does not answer the first `outages` times."""

    def __init__(self, outages: int = 0) -> None:
        self.batches: list[list[Outgoing]] = []
        self.outages = outages

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        if self.outages:
            self.outages -= 1
            raise BrokerUnavailable("no answer; start the broker")
        self.batches.append(list(messages))

    @property
    def records(self) -> list[Outgoing]:
        return [record for batch in self.batches for record in batch]


@pytest.fixture
def mapping(tmp_path: Path) -> Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(MAPPING)
    return read_mapping(path)


def log(tmp_path: Path, name: str, *lines: str) -> Path:
    path = tmp_path / name
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    return path


def event(time_ms: int, name: str = "") -> LoadedEvent:
    return LoadedEvent(Input.CLICKS, time_ms, "k", name.encode())


def test_rows_become_valid_events_without_their_nulls(tmp_path: Path, mapping: Mapping) -> None:
    path = log(tmp_path, "a.csv", "i1,5,c1,alice,203.0.113.9,i,300")
    (loaded,) = events_from_files([path], mapping)
    assert loaded[:3] == (Input.IMPRESSIONS, 5, "c1")
    decoded = msgspec.json.decode(loaded.value, type=Impression, strict=True)
    assert decoded.placement_width_px == 300
    assert decoded.network == "203.0.113.0/24"
    assert b"null" not in loaded.value
    assert b"203.0.113.9" not in loaded.value


def test_a_key_makes_pseudonyms_before_anything_is_stored(tmp_path: Path, mapping: Mapping) -> None:
    path = log(tmp_path, "a.csv", "i1,5,c1,alice,203.0.113.9,i,300")
    (loaded,) = events_from_files([path], mapping, identity=Identity(b"k" * 32, "k1"))
    assert b"alice" not in loaded.value
    decoded = msgspec.json.decode(loaded.value, type=Impression)
    assert decoded.identity_key_id == "k1"
    assert str(decoded.user_id).startswith("k1:")
    assert str(decoded.address_id).startswith("k1:")


def test_events_come_in_event_time_order_across_files_and_stable(tmp_path: Path, mapping: Mapping) -> None:
    first = log(tmp_path, "a.csv", "a1,30,c,u,,i,", "a2,10,c,u,,i,", "a3,20,c,u,,c,")
    second = log(tmp_path, "b.csv", "b1,20,c,u,,c,", "b2,10,c,u,,i,", "b3,5,c,u,,i,")
    ids = [msgspec.json.decode(e.value)["event_id"] for e in events_from_files([first, second], mapping)]
    assert ids == ["b3", "a2", "b2", "a3", "b1", "a1"]
    lying = events_from_files([first, second], mapping, order="file")
    assert [msgspec.json.decode(e.value)["event_id"] for e in lying] == ["a1", "a2", "a3", "b1", "b2", "b3"]


@pytest.mark.parametrize("in_memory", [1, 2, 3, 7, 8, 100])
def test_sorting_on_disk_is_the_same_stable_sort(in_memory: int) -> None:
    events = [event(time_ms, f"{i}") for i, time_ms in enumerate([5, 3, 5, 1, 3, 5, 0])]
    assert list(in_event_time_order(events, in_memory)) == sorted(events, key=lambda e: e.event_time_ms)


def test_more_than_can_be_ordered_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match="more than 6 events cannot be ordered; load fewer"):
        list(in_event_time_order(map(event, range(7)), in_memory=2, max_runs=3))
    assert len(list(in_event_time_order(map(event, range(6)), in_memory=2, max_runs=3))) == 6


def test_rows_that_do_not_fit_are_counted_shown_and_passed_over(tmp_path: Path, mapping: Mapping) -> None:
    path = log(
        tmp_path,
        "a.csv",
        "i1,5,c1,u,,i,300",
        "i2,soon,c1,u,,i,300",  # no time
        "i3,5,c1,u,,i,wide",  # no number
        ",5,c1,u,,i,300",  # no id
        "i5,5,,u,,i,300",  # paid, but no campaign
        "i6,5,c1,u,,i,300,more",  # a column too many
        f"{'x' * 129},5,c1,u,,i,300",  # an id too long
        "i8,-5,c1,u,,c,",  # before the epoch
        "i9,5,c1,u,,?,300",  # neither
    )
    report = LoadReport()
    assert len(list(events_from_files([path], mapping, report=report))) == 1
    assert (report.rows, report.without_event, report.misfits) == (9, 1, 7)
    assert report.total_events == report.events[Input.IMPRESSIONS] == 1
    assert [(problem.file, problem.line) for problem in report.examples] == [("a.csv", n) for n in range(3, 10)]
    reasons = " | ".join(problem.reason for problem in report.examples)
    for expected in ("event_time_ms: 'soon'", "$.placement_width_px", "event_id", "paid_without_campaign", "8 columns"):
        assert expected in reasons


def test_bytes_that_are_no_utf8_cost_only_the_row_that_uses_them(tmp_path: Path, mapping: Mapping) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD.encode() + b"i\xff1,5,c1,u,,i,\ni2,5,c1,u,,i,\ni3,5,c1,u,,i,\n")
    report = LoadReport()
    loaded = list(events_from_files([path], mapping, report=report))
    assert [msgspec.json.decode(e.value)["event_id"] for e in loaded] == ["i2", "i3"]
    assert [(problem.line, problem.reason) for problem in report.examples] == [(2, "not UTF-8")]


def test_examples_are_bounded_and_the_count_is_not(tmp_path: Path, mapping: Mapping) -> None:
    path = log(tmp_path, "a.csv", *["i,soon,c1,u,,i,"] * (MAX_EXAMPLES + 30))
    report = LoadReport()
    assert list(events_from_files([path], mapping, report=report)) == []
    assert report.misfits == MAX_EXAMPLES + 30
    assert len(report.examples) == MAX_EXAMPLES


def test_the_report_knows_the_span_of_the_log(tmp_path: Path, mapping: Mapping) -> None:
    report = LoadReport()
    list(events_from_files([log(tmp_path, "a.csv", "a,30,c,u,,i,", "b,10,c,u,,c,")], mapping, report=report))
    assert (report.first_ms, report.last_ms) == (10, 30)


def test_another_mappings_file_is_refused(tmp_path: Path) -> None:
    path = log(tmp_path, "a.csv", "i1,5,c1,u,,i,300")
    with pytest.raises(ConfigurationError, match="is it another mapping's"):
        list(events_from_files([path], read_mapping(Path("open_bandit"))))


async def test_records_carry_topic_key_and_event_time_and_come_in_order() -> None:
    outbox = KeptOutbox()
    told: list[int] = []
    events = [LoadedEvent(Input.CLICKS, 10 + i, f"c{i}", b"%d" % i) for i in range(5)]
    assert await load(iter(events), outbox, batch_records=2, progress=told.append) == 5
    assert told == [2, 4, 5]
    assert [len(batch) for batch in outbox.batches] == [2, 2, 1]
    assert outbox.records == [
        Outgoing(INPUT_TOPICS[Input.CLICKS], None, b"c%d" % i, b"%d" % i, 10 + i) for i in range(5)
    ]


async def test_every_event_of_a_campaign_lands_in_the_campaigns_partition() -> None:
    outbox = MemoryOutbox(partitions=3)
    await load([LoadedEvent(Input.CLICKS, i, f"c{i % 7}", b"%d" % (i % 7)) for i in range(70)], outbox)
    topic = INPUT_TOPICS[Input.CLICKS]
    for partition in range(3):
        campaigns = {record.value for record in outbox.log.read(topic, partition, 0, 100)}
        assert campaigns == {b"%d" % i for i in range(7) if partition_of(f"c{i}", 3) == partition}


async def test_a_broker_that_comes_back_gets_everything_in_order() -> None:
    outbox = KeptOutbox(outages=3)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await publish_patiently(outbox, [Outgoing("t", None, b"k", b"v")], sleep=sleep)
    assert len(outbox.records) == 1
    assert len(slept) == 3


async def test_a_broker_that_stays_away_is_an_error_in_the_end() -> None:
    outbox = KeptOutbox(outages=10)
    with pytest.raises(BrokerUnavailable):
        await load([event(1)], outbox, give_up_after_s=0)
    assert outbox.records == []


def test_organic_events_are_keyed_by_shop_or_creator_and_never_by_chance() -> None:
    paid = Click(event_id="e", event_time_ms=1, campaign_id="c", shop_id="s", creator_id="p")
    organic = msgspec.structs.replace(paid, traffic=Traffic.ORGANIC, campaign_id=None)
    assert record_key(paid) == "c"
    assert record_key(organic) == "s"
    assert record_key(msgspec.structs.replace(organic, shop_id=None)) == "p"
    assert record_key(msgspec.structs.replace(organic, shop_id=None, creator_id=None)) == "e"


def test_compact_json_loses_nothing_but_nulls() -> None:
    click = Click(event_id="e", event_time_ms=1, campaign_id="c", clearing_price_millimicros=0)
    assert msgspec.json.decode(compact_json(click), type=Click) == click
    assert b"user_id" not in compact_json(click)
    assert b'"clearing_price_millimicros":0' in compact_json(click)
