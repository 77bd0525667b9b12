"""Mends: what a producer meant is made of what it sent, once, and wherever its id is known."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.adapters.memory import MemoryOutbox
from streams.errors import ConfigurationError
from streams.jobs.mending import Mend, MendSpec, read_mend
from streams.jobs.redrive import Plan, Policy, plan_redrive, redrive
from streams.records import DeadLetter, Entry
from streams.rules import Rules
from streams.topics import DEAD_LETTERS, partition_of
from tests.unit.test_redrive import NOW_MS, PARTITIONS, everything, letter


def mend(*events: dict[str, Any]) -> Mend:
    return Mend(msgspec.convert({"name": "test", "events": events}, MendSpec))


def sent(document: dict[str, Any], **fields: Any) -> DeadLetter:
    return letter(value=json.dumps(document).encode(), **fields)


def planned(one: DeadLetter, with_mend: Mend, policy: Policy | None = None) -> Plan:
    return plan_redrive([one], Rules(), PARTITIONS, policy, mend=with_mend)


SECONDS = mend(
    {
        "input": "clicks",
        "fields": {
            "event_time_ms": {"column": "ts", "time": "epoch_s"},
            "click_type": {"column": "meta.kind", "values": {"btn": "button", "*": "other"}},
            "clearing_price_millimicros": {"column": "fen", "unit": "fen"},
            "experiments.0.id": {"constant": "price"},
            "experiments.0.arm": {"template": "v{app}"},
            "region": "province",
        },
    }
)
WRONG = {
    "event_id": "e1",
    "ts": NOW_MS // 1000,
    "campaign_id": "c1",
    "meta": {"kind": "btn"},
    "fen": 3,
    "currency": "CNY",
    "app": 7,
    "click_type": 12,
}


def test_a_letter_that_was_late_by_its_wrong_clock_is_sent_and_one_that_was_late_is_not() -> None:
    """Seconds where milliseconds should be are 1970: late, and not rejected."""
    clock = mend({"input": "clicks", "fields": {"event_time_ms": {"column": "event_time_ms", "time": "epoch_s"}}})
    wrong = {"event_id": "e1", "event_time_ms": NOW_MS // 1000, "campaign_id": "c1"}
    (found,) = planned(sent(wrong, entry=Entry.LATE, reason="late"), clock).sends
    assert json.loads(found.value or b"")["event_time_ms"] == NOW_MS // 1000 * 1000
    region = mend({"input": "clicks", "fields": {"region": {"constant": "x"}}})
    late = sent(wrong | {"event_time_ms": NOW_MS - 90_000_000}, entry=Entry.LATE, reason="late")
    for plan in (planned(late, region), plan_redrive([late], Rules(), PARTITIONS)):
        assert plan.drives == []
        assert "--force" in next(iter(plan.skipped))
    assert planned(late, region, Policy(force_late=True)).drives == [late]


def test_fields_are_set_anew_and_the_rest_stays() -> None:
    plan = planned(sent(WRONG), SECONDS)
    (found,) = plan.sends
    assert json.loads(found.value or b"") == {
        **WRONG,
        "event_time_ms": NOW_MS,
        "click_type": "button",
        "clearing_price_millimicros": 30_000_000,
        "experiments": [{"id": "price", "arm": "v7"}],
    }
    assert (found.partition, found.key, found.timestamp_ms) == (2, b"c1", NOW_MS)
    assert plan.drives == [sent(WRONG)]


def test_a_value_that_comes_to_nothing_takes_its_field_out() -> None:
    (found,) = planned(
        sent({"event_id": "e1", "event_time_ms": NOW_MS, "campaign_id": "c1", "region": 7}),
        mend({"input": "clicks", "fields": {"region": "province"}}),
    ).sends
    assert "region" not in json.loads(found.value or b"")


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (sent({**WRONG, "ts": "soon"}), "does not fit the mend: event_time_ms"),
        (sent({**WRONG, "currency": None}), "still rejected: money_without_currency"),
        (letter(value=b"{"), "cannot be read as JSON"),
        (letter(value=b"[]"), "no JSON object"),
        (sent(WRONG, topic="ads.impressions"), "none of the mend's events"),
        (sent({**WRONG, "experiments": "none"}), "its place holds something else"),
        (sent(WRONG, value_bytes=10**6), "cut"),
        (sent(WRONG, redrives=1), "--again"),
    ],
)
def test_what_cannot_be_mended_is_left_and_says_why(one: DeadLetter, told: str) -> None:
    plan = planned(one, SECONDS)
    assert plan.sends == []
    assert told in next(iter(plan.skipped))


def test_the_first_event_whose_condition_holds_is_made() -> None:
    both = mend(
        {"input": "clicks", "when": {"app": "6"}, "fields": {"event_time_ms": {"constant": NOW_MS - 1}}},
        {"input": "clicks", "when": {"app": {"not": ["9"]}}, "fields": {"event_time_ms": {"constant": NOW_MS}}},
    )
    made = [planned(sent({"event_id": "e1", "campaign_id": "c1", "app": app}), both).sends for app in (6, 7, 9)]
    assert [json.loads(one.value or b"")["event_time_ms"] for found in made for one in found] == [NOW_MS - 1, NOW_MS]


def test_an_event_goes_to_the_partition_of_the_campaign_that_it_gets_and_only_once() -> None:
    moved = mend({"input": "clicks", "fields": {"campaign_id": "campaign"}})
    one = sent({"event_id": "e1", "event_time_ms": NOW_MS, "campaign": "c9"})
    (found,) = planned(one, moved).sends
    assert (found.key, found.partition) == (b"c9", partition_of("c9", 4))
    again = planned(msgspec.structs.replace(one, redrives=1), moved, Policy(again=True))
    assert "would count twice" in next(iter(again.skipped))


def test_an_event_keeps_its_id() -> None:
    renamed = mend({"input": "clicks", "fields": {"event_id": {"template": "{uuid}"}}})
    kept = sent({"event_id": "e1", "uuid": "u1", "event_time_ms": NOW_MS, "campaign_id": "c1"})
    assert "keeps its id" in next(iter(planned(kept, renamed).skipped))
    (found,) = planned(sent({"uuid": "u1", "event_time_ms": NOW_MS, "campaign_id": "c1"}), renamed).sends
    assert json.loads(found.value or b"")["event_id"] == "u1"


async def test_the_mended_event_is_sent_and_the_letter_as_it_stands_is_marked() -> None:
    outbox, plan = MemoryOutbox(), planned(sent(WRONG), SECONDS)
    assert await redrive(plan.drives, outbox, sends=plan.sends) == 1
    assert [value for _, _, value, _ in everything(outbox.log, "ads.clicks")] == [plan.sends[0].value]
    (marked,) = everything(outbox.log, DEAD_LETTERS)
    assert msgspec.json.decode(marked[2] or b"", type=DeadLetter) == msgspec.structs.replace(sent(WRONG), redrives=1)


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ({"input": "clicks", "fields": {"clik_type": "a"}}, r"events\[0\].fields.clik_type: .*did you mean click_type"),
        ({"input": "clicks", "fields": {}}, r"events\[0\].fields: is needed"),
        ({"input": "clicks", "fields": {"address": "ip"}}, "is of files only"),
        ({"input": "clicks", "fields": {"region": "@file"}}, "@file and @line are of files only"),
        ({"input": "clicks", "fields": {"region": {"column": "a", "constant": "b"}}}, "needs exactly one of"),
    ],
)
def test_a_wrong_mend_is_refused_with_its_field(events: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        mend(events)


@pytest.mark.parametrize(
    ("text", "told"),
    [("name = ", "is no TOML"), ('name = "x"', "missing required field `events`"), (None, "give a file")],
)
def test_a_file_that_is_no_mend_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "mend.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        read_mend(path)
