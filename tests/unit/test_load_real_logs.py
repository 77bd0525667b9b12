"""Logs that nobody on this project wrote, through the shipped mappings. Skipped where they are absent."""

import os
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from streams.events import EVENT_TYPES, Click, Event, Impression, Input
from streams.jobs.load import LoadReport, events_from_files
from streams.jobs.mapping import read_mapping

VARIABLE = "CAMPAIGN_STREAMS_TEST_DATA"
DATA = Path(os.environ.get(VARIABLE) or Path(__file__).resolve().parents[2].parent / "shared" / "data")
IPINYOU = [DATA / "ipinyou_2821" / f"{kind}.20131021.adv2821.txt.gz" for kind in ("clk", "imp")]
OPEN_BANDIT = [DATA / "open_bandit_men" / f"{policy}.csv.gz" for policy in ("random", "bts")]


def needs(paths: list[Path]) -> pytest.MarkDecorator:
    absent = not all(path.is_file() for path in paths)
    return pytest.mark.skipif(absent, reason=f"the public log is not there; {VARIABLE} names the folder that holds it")


def loaded(paths: list[Path], mapping: str) -> tuple[list[tuple[Input, Event]], LoadReport]:
    report = LoadReport()
    events = list(events_from_files(paths, read_mapping(Path(f"{mapping}.toml")), report=report))
    assert [e.event_time_ms for e in events] == sorted(e.event_time_ms for e in events)
    return [(e.input, msgspec.json.decode(e.value, type=EVENT_TYPES[e.input])) for e in events], report


def earliest(events: list[tuple[Input, Event]], source: Input) -> dict[str, Event]:
    """The first of each id, as the pipeline counts it."""
    first: dict[str, Event] = {}
    for kind, event in events:
        if kind is source:
            first.setdefault(event.event_id, event)
    return first


@needs(IPINYOU)
def test_the_ipinyou_log_has_the_known_totals() -> None:
    events, report = loaded(IPINYOU, "ipinyou")
    assert (report.rows, report.misfits, report.without_event) == (10_442, 0, 0)
    assert report.events[Input.IMPRESSIONS] == 10_000
    assert report.events[Input.CLICKS] == 442
    impressions, clicks = earliest(events, Input.IMPRESSIONS), earliest(events, Input.CLICKS)
    assert (len(impressions), len(clicks)) == (9_960, 433)
    spend_millimicros = sum(i.clearing_price_millimicros for i in impressions.values())  # type: ignore[attr-defined]
    assert spend_millimicros == 8_734_340_000
    assert {event.currency for _, event in events} == {"CNY"}
    assert {event.campaign_id for _, event in events} == {"2821"}


@needs(IPINYOU)
def test_an_ipinyou_row_keeps_what_it_says() -> None:
    events, _ = loaded(IPINYOU, "ipinyou")
    click = earliest(events, Input.CLICKS)["bd4cb9e930fe3dba2ef388eecf7ac8a1"]
    assert isinstance(click, Click)
    assert click == Click(
        event_id="bd4cb9e930fe3dba2ef388eecf7ac8a1",
        request_id="bd4cb9e930fe3dba2ef388eecf7ac8a1",
        impression_id="bd4cb9e930fe3dba2ef388eecf7ac8a1",
        event_time_ms=1_382_364_722_155,  # 2013-10-21 22:12:02.155 in China
        campaign_id="2821",
        advertiser_id="2821",
        creative_id="10722",
        publisher_id="fcc7da72e4d099626cb2dbdbb82b4b25",
        user_id="D9JKR35TyfS",
        network="106.114.177.0/24",
        region="3",
        channel="exchange-4",
        placement="9223372032561069219",
        placement_width_px=300,
        placement_height_px=250,
        user_agent="Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.1 (KHTML, like Gecko) "
        "Chrome/21.0.1180.89 Safari/537.1",
        currency="CNY",
    )
    impression = earliest(events, Input.IMPRESSIONS)["49b5a58c3a3c39c32ba5a36f70a3daa5"]
    assert isinstance(impression, Impression)
    assert impression.clearing_price_millimicros == 2_010_000  # 201 fen per mille
    assert impression.network == "222.218.230.0/24"


@needs(OPEN_BANDIT)
def test_an_open_bandit_row_is_an_impression_and_a_click_where_its_flag_is_set() -> None:
    events, report = loaded(OPEN_BANDIT, "open_bandit")
    assert (report.rows, report.misfits) == (20_000, 0)
    arms = Counter((kind, event.experiments[0].arm) for kind, event in events)
    assert arms == {
        (Input.IMPRESSIONS, "random"): 10_000,
        (Input.IMPRESSIONS, "bts"): 10_000,
        (Input.CLICKS, "random"): 46,
        (Input.CLICKS, "bts"): 69,
    }
    impressions, clicks = earliest(events, Input.IMPRESSIONS), earliest(events, Input.CLICKS)
    assert len(impressions) == 20_000
    assert {click.impression_id for click in clicks.values()} <= impressions.keys()
