"""Dead letters: each once, sent again once, and never what would be rejected or late again."""

import json

import msgspec
import pytest

from streams.adapters.memory import MemoryLog, MemoryOutbox
from streams.errors import ConfigurationError
from streams.jobs.dead_letters import Choice, LetterBook, choice_of, preview
from streams.jobs.redrive import Policy, event_message, marker_message, plan_redrive, redrive
from streams.records import DeadLetter, Entry
from streams.rules import Rules
from streams.state.letters import letter_message
from streams.topics import DEAD_LETTERS

NOW_MS = 1_790_000_000_000
PARTITIONS = {"ads.clicks": 4, "ads.impressions": 4}


def event(**fields: object) -> bytes:
    return json.dumps({"event_id": "e1", "event_time_ms": NOW_MS, "campaign_id": "c1", **fields}).encode()


def letter(offset: int = 7, **fields: object) -> DeadLetter:
    values: dict[str, object] = {
        "topic": "ads.clicks",
        "partition": 2,
        "offset": offset,
        "log_epoch": 0,
        "timestamp_ms": NOW_MS,
        "entry": Entry.REJECTED,
        "reason": "internal_error",
        "path": "$",
        "key": b"c1",
        "value": event(),
        **fields,
    }
    return DeadLetter(**values)  # type: ignore[arg-type]


def book_of(*letters: DeadLetter, choice: Choice | None = None, **bounds: int) -> LetterBook:
    book = LetterBook(choice, **bounds)
    for one in letters:
        book.add(msgspec.json.encode(one))
    return book


# The book


def test_a_letter_that_appears_twice_is_one() -> None:
    assert book_of(letter(), letter()).letters() == [letter()]


@pytest.mark.parametrize("field", ["offset", "partition", "log_epoch"])
def test_letters_from_different_places_are_different(field: str) -> None:
    assert len(book_of(letter(), letter(**{field: 9})).letters()) == 2


def test_a_mark_shows_in_the_letter_and_an_older_copy_does_not_undo_it() -> None:
    marked = msgspec.structs.replace(letter(), redrives=1)
    assert book_of(letter(), marked, letter()).letters() == [marked]


def test_a_choice_keeps_one_topic_and_reason() -> None:
    others = (letter(1, reason="future"), letter(2, topic="ads.plays"), letter(3))
    choice = Choice(reason="internal_error", topic="ads.clicks")
    assert [one.offset for one in book_of(*others, choice=choice).letters()] == [3]


def test_what_is_no_letter_is_counted() -> None:
    book = LetterBook()
    for value in (None, b"", b"{", b"\xff", b"[" * 100_000, b'{"topic": "x"}'):
        book.add(value)
    assert (book.unreadable, book.letters()) == (6, [])


def test_letters_beyond_the_bounds_are_counted_and_marks_still_taken() -> None:
    marked = msgspec.structs.replace(letter(1), redrives=1)
    book = book_of(letter(1), letter(2), letter(3), marked, max_letters=2)
    assert ([one.offset for one in book.letters()], book.left_out) == ([1, 2], 1)
    assert book.letters()[0].redrives == 1
    assert book_of(letter(1), letter(2), max_bytes=len(event())).left_out == 1


def test_the_summary_counts_by_topic_and_reason() -> None:
    marked = msgspec.structs.replace(letter(1), redrives=2)
    rows = book_of(letter(1), letter(2), letter(3, reason="late"), marked).summary()
    assert [tuple(row) for row in rows] == [("ads.clicks", "internal_error", 2, 1), ("ads.clicks", "late", 1, 0)]


@pytest.mark.parametrize(("reason", "topic"), [("futur", None), (None, "click"), (None, "ads.journal")])
def test_an_unknown_choice_is_an_error_with_a_hint(reason: str | None, topic: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean|known are"):
        choice_of(reason, topic)


def test_a_topic_may_be_given_by_its_input() -> None:
    assert choice_of("late", "clicks") == Choice("late", "ads.clicks")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "(no value)"), (b"a\nb\x00", "a b "), (b"\xff\xfe", "\\xff\\xfe"), (b"x" * 500, "x" * 59 + "…")],
)
def test_previews_are_one_printable_line(value: bytes | None, expected: str) -> None:
    assert preview(value) == expected


def test_workers_and_redrive_write_letters_under_the_same_key() -> None:
    assert letter_message(letter()).timestamp_ms is None  # retention counts from the writing
    assert marker_message(letter()).key == letter_message(letter()).key


# What may be sent again


def why(one: DeadLetter, policy: Policy | None = None) -> str:
    return next(iter(plan_redrive([one], Rules(), PARTITIONS, policy).skipped), "")


def test_a_letter_that_would_be_taken_now_is_sent_again() -> None:
    plan = plan_redrive([letter()], Rules(), PARTITIONS)
    assert (plan.drives, plan.skipped) == ([letter()], {})


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (letter(redrives=1), "--again"),
        (letter(entry=Entry.LATE, reason="late"), "--force"),
        (letter(value=b"{"), "still rejected: malformed_json"),
        (letter(value=None), "still rejected: empty"),
        (letter(value=event(event_time_ms="x")), r"still rejected: wrong_type at $.event_time_ms"),
        (letter(value=event(event_time_ms=NOW_MS + 300_001)), "still rejected: future"),
        (letter(value=event(campaign_id=None)), "still rejected: paid_without_campaign"),
        (letter(value=event(clearing_price_millimicros=1)), "still rejected: money_without_currency"),
        (letter(value_bytes=10**6), "cut"),
        (letter(topic="ads.campaigns"), "campaigns put"),
        (letter(topic="elsewhere"), "no partition of an input"),
        (letter(partition=4), "no partition of an input"),
    ],
)
def test_what_is_not_to_be_sent_says_why(one: DeadLetter, told: str) -> None:
    assert told in why(one)


def test_force_sends_late_letters_and_again_those_sent_before() -> None:
    late = letter(entry=Entry.LATE, reason="late")
    assert why(late, Policy(force_late=True)) == ""
    assert why(letter(redrives=3), Policy(again=True)) == ""
    assert "still rejected" in why(letter(entry=Entry.LATE, value=b"{"), Policy(force_late=True, again=True))


def test_a_future_letter_is_judged_by_its_own_timestamp_and_the_rules_now() -> None:
    one = letter(value=event(event_time_ms=NOW_MS + 400_000), reason="future")
    assert plan_redrive([one], Rules(future_skew_ms=400_000), PARTITIONS).drives == [one]


def test_the_limit_leaves_the_rest() -> None:
    plan = plan_redrive([letter(n) for n in range(5)], Rules(), PARTITIONS, limit=2)
    assert ([one.offset for one in plan.drives], plan.skipped) == ([0, 1], {"beyond --limit": 3})


# Sending


def everything(log: MemoryLog, topic: str) -> list[tuple[int, bytes | None, bytes | None, int]]:
    return [(p, r.key, r.value, r.timestamp) for p in range(4) for r in log.read(topic, p, 0)]


async def test_the_record_goes_back_to_its_partition_as_it_was() -> None:
    outbox = MemoryOutbox()
    assert await redrive([letter()], outbox) == 1
    assert everything(outbox.log, "ads.clicks") == [(2, b"c1", event(), NOW_MS)]
    assert event_message(letter()).partition == 2


async def test_a_letter_that_was_sent_is_marked_and_not_sent_by_the_next_run() -> None:
    outbox = MemoryOutbox()
    await outbox.publish([letter_message(letter())])
    for expected in (1, 0):
        book = LetterBook()
        for _, _, value, _ in everything(outbox.log, DEAD_LETTERS):
            book.add(value)
        plan = plan_redrive(book.letters(), Rules(), PARTITIONS)
        assert await redrive(plan.drives, outbox) == expected
    assert len(everything(outbox.log, "ads.clicks")) == 1


async def test_letters_are_sent_before_they_are_marked_batch_by_batch() -> None:
    sent: list[str] = []

    class Watched(MemoryOutbox):
        async def publish(self, messages):  # type: ignore[no-untyped-def]
            sent.extend(message.topic for message in messages)
            await super().publish(messages)

    told: list[int] = []
    await redrive([letter(n) for n in range(3)], Watched(), batch_letters=2, progress=told.append)
    clicks, marks = "ads.clicks", DEAD_LETTERS
    assert sent == [clicks, clicks, marks, marks, clicks, marks]
    assert told == [2, 3]
