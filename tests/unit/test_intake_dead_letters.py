"""Dead letters: the raw bytes, where they came from, and why."""

import msgspec
import pytest

from streams.adapters.kafka_outbox import MAX_RECORD_BYTES
from streams.adapters.memory import MemoryRecord
from streams.events import Input
from streams.records import MAX_LETTER_BYTES, MAX_LETTER_KEY_BYTES, DeadLetter, Entry
from streams.state.inputs import Batch
from streams.topics import CAMPAIGNS
from tests.unit.given import HOUR, MINUTE, T0, Fed, document, encoded


def test_a_rejected_record_is_kept_as_it_was_read() -> None:
    raw = b'{"event_id":"e1","event_time_ms":"yesterday"}\xff'
    fed = Fed()
    fed.feed(Input.CLICKS, document(Input.CLICKS, "a"), MemoryRecord(0, T0 + 7, b"the key", raw))
    fed.tick()
    assert fed.letters == [
        DeadLetter(
            topic="ads.clicks",
            partition=0,
            offset=1,
            log_epoch=0,
            timestamp_ms=T0 + 7,
            entry=Entry.REJECTED,
            reason="wrong_type",
            path="$.event_time_ms",
            key=b"the key",
            value=raw,
            value_bytes=len(raw),
        )
    ]


def test_a_tombstone_leaves_a_letter_without_bytes() -> None:
    fed = Fed().feed(Input.CLICKS, MemoryRecord(0, T0, None, None))
    fed.tick()
    (letter,) = fed.letters
    assert (letter.key, letter.value, letter.reason) == (None, None, "empty")


def test_a_record_that_came_too_late_leaves_a_letter_too() -> None:
    late = document(Input.IMPRESSIONS, "b", T0 - 11 * MINUTE)
    fed = Fed().feed(Input.IMPRESSIONS, document(Input.IMPRESSIONS, "a"), late)
    fed.tick()
    (letter,) = fed.letters
    assert (letter.offset, letter.entry, letter.reason, letter.path) == (1, Entry.LATE, "late", "$")
    assert letter.value == encoded(late)


def test_neither_counted_nor_duplicated_records_leave_letters() -> None:
    fed = Fed().feed(Input.CLICKS, document(Input.CLICKS, "a"), document(Input.CLICKS, "a"))
    fed.tick()
    assert fed.letters == []


def test_letters_go_out_once_in_the_order_of_their_offsets() -> None:
    fed = Fed()
    bad = MemoryRecord(0, T0, None, b"{")
    old = document(Input.IMPRESSIONS, "old", T0 - HOUR)
    fed.feed(Input.IMPRESSIONS, bad, document(Input.IMPRESSIONS, "a"), bad).feed(Input.IMPRESSIONS, old, bad)
    fed.tick()
    assert sorted(letter.offset for letter in fed.letters) == [0, 2, 3, 4]
    fed.tick()
    assert len(fed.letters) == 4


def test_settings_that_are_none_leave_letters_of_their_own_topic() -> None:
    fed = Fed()
    fed.state.apply(Batch("ads.campaigns", 0, 0, 1, [MemoryRecord(0, T0, b"c1", b'{"campaign_id":"c1"}')]))
    fed.tick()
    (letter,) = fed.letters
    assert (letter.topic, letter.offset, letter.reason, letter.path) == (
        "ads.campaigns",
        0,
        "missing_field",
        "$.currency",
    )
    assert fed.state.notices[CAMPAIGNS].ledger == {("rejected", "missing_field"): 1}


def test_a_letter_survives_json() -> None:
    fed = Fed().feed(Input.CLICKS, MemoryRecord(0, T0, b"\x00\xff", bytes(range(256))))
    fed.tick()
    (letter,) = fed.letters
    assert msgspec.json.decode(msgspec.json.encode(letter), type=DeadLetter) == letter


@pytest.mark.parametrize(("key", "value"), [(b"k", b"x" * 1_000_000), (b"k" * 1_000_000, b"{")])
def test_the_letter_of_a_huge_record_still_fits_into_a_message(key: bytes, value: bytes) -> None:
    fed = Fed().feed(Input.CLICKS, MemoryRecord(0, T0, key, value))
    fed.tick()
    (letter,) = fed.letters
    assert len(msgspec.json.encode(letter)) <= MAX_RECORD_BYTES
    assert letter.value_bytes == len(value)


def test_a_letter_keeps_what_fits_of_a_huge_record_and_says_how_long_it_was() -> None:
    fed = Fed().feed(Input.CLICKS, MemoryRecord(0, T0, b"k" * 5_000, b"x" * MAX_LETTER_BYTES + b"yz"))
    fed.tick()
    (letter,) = fed.letters
    assert letter.value == b"x" * MAX_LETTER_BYTES
    assert letter.value_bytes == MAX_LETTER_BYTES + 2
    assert letter.key == b"k" * MAX_LETTER_KEY_BYTES
