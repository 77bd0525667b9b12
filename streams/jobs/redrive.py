"""Sends dead letters again, after a fix: the raw value to its topic and partition, with its key and timestamp.

Never a second count. The event's id is remembered in its partition (which is why the record goes back to that one)
for the de-duplication horizon of its input; what is older than the lateness, which never exceeds the horizon, is late
and not counted. So an event that did count meanwhile, or that is sent twice, ends as duplicate or late.

A mend (`streams.jobs.mending`) makes of a letter what its producer meant; the id stays. Where it sets the campaign, the
record goes to the campaign's partition.

A letter is marked once it has been sent, by appending it again with `redrives` raised. In this order a crash between
the two can send an event twice (recognised by its id), but cannot mark one that was never sent.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

import msgspec

from streams.events import Input, Reason, Rejected
from streams.jobs.load import publish_patiently, rejection_beyond_types
from streams.jobs.mending import Mend
from streams.ports import Outbox, Outgoing
from streams.records import DeadLetter, Entry
from streams.rules import Rules
from streams.stages.decode import Decoder
from streams.state.letters import letter_message
from streams.topics import CAMPAIGNS, INPUT_TOPICS, NOTICE_TOPICS

BATCH_LETTERS: Final = 200
INPUT_OF: Final = {topic: source for source, topic in INPUT_TOPICS.items()}


class Policy(NamedTuple):
    """What may be sent again."""

    force_late: bool = False
    """Late letters too, whose event time no mend changes: they count only if the lateness has been raised since."""
    again: bool = False
    """Letters that were sent again before too."""


class Plan(NamedTuple):
    """What is to be done."""

    drives: list[DeadLetter]
    """Letters as they stand."""
    sends: list[DeadLetter]
    """The same, in the same order, as they are sent: mended."""
    skipped: dict[str, int]
    """How many are left, by why."""


def plan_redrive(
    letters: Sequence[DeadLetter],
    rules: Rules,
    partitions: Mapping[str, int],
    policy: Policy | None = None,
    limit: int | None = None,
    mend: Mend | None = None,
) -> Plan:
    """Sorts out what can be sent again. Pure.

    Args:
        partitions: partition count by topic, as they are now.
        limit: letters to send at most; the rest is among those skipped.
        mend: what makes of a letter the event that was meant; letters that it does not fit are left.
    """
    drives: list[DeadLetter] = []
    sends: list[DeadLetter] = []
    skipped: dict[str, int] = {}
    for letter in letters:
        sent: DeadLetter | str = why_not(letter, partitions, policy or Policy()) or letter
        if mend is not None and not isinstance(sent, str):
            sent = mend.mended(sent, partitions[letter.topic])
        if not isinstance(sent, str) and not (policy and policy.force_late) and _is_late_still(letter, sent):
            sent = "late: they would be late again (--force sends them nevertheless)"
        if not isinstance(sent, str) and (rejected := still_rejected(sent, rules)):
            sent = f"still rejected: {rejected.reason.value} at {rejected.path}"
        if not isinstance(sent, str) and limit is not None and len(drives) >= limit:
            sent = "beyond --limit"
        if isinstance(sent, str):
            skipped[sent] = skipped.get(sent, 0) + 1
        else:
            drives.append(letter)
            sends.append(sent)
    return Plan(drives, sends, skipped)


def why_not(letter: DeadLetter, partitions: Mapping[str, int], policy: Policy) -> str | None:
    """Why a letter is not to be sent again, whatever its document says; None if it may be."""
    if letter.redrives and not policy.again:
        return "sent again before (--again sends them once more)"
    if letter.topic == CAMPAIGNS:
        return "settings: append them with `campaigns put` (sent again, they would replace newer ones)"
    if letter.topic in NOTICE_TOPICS:
        return "sessions and allowances: they are told anew (sent again, they would replace newer ones)"
    if letter.topic not in INPUT_OF or letter.partition >= partitions.get(letter.topic, 0):
        return f"{letter.topic}-{letter.partition} is no partition of an input"
    if letter.value_bytes > len(letter.value or b""):
        return "cut: a letter keeps only the begin of so long a value; send it from its source"
    return None


def _is_late_still(letter: DeadLetter, sent: DeadLetter) -> bool:
    """Whether it was late, and no mend gives it another event time (a clock in seconds was late by half a century)."""
    return letter.entry is Entry.LATE and _event_time(letter) == _event_time(sent)


def _event_time(letter: DeadLetter) -> int | None:
    event = _decoder(INPUT_OF[letter.topic]).decode(letter.value)
    return None if isinstance(event, Rejected) else event.event_time_ms


def still_rejected(letter: DeadLetter, rules: Rules) -> Rejected | None:
    """What this version would reject the record for; None if it would take it."""
    event = _decoder(INPUT_OF[letter.topic]).decode(letter.value)
    if isinstance(event, Rejected):
        return event
    if event.event_time_ms > letter.timestamp_ms + rules.future_skew_ms:
        return Rejected(Reason.FUTURE, "$.event_time_ms")
    return rejection_beyond_types(event)


@cache
def _decoder(source: Input) -> Decoder:
    return Decoder(source)


def event_message(letter: DeadLetter) -> Outgoing:
    """The record as it was."""
    return Outgoing(letter.topic, letter.partition, letter.key, letter.value, letter.timestamp_ms)


def marker_message(letter: DeadLetter) -> Outgoing:
    """The letter once more, sent once more."""
    return letter_message(msgspec.structs.replace(letter, redrives=letter.redrives + 1))


async def redrive(
    letters: Sequence[DeadLetter],
    outbox: Outbox,
    *,
    sends: Sequence[DeadLetter] | None = None,
    batch_letters: int = BATCH_LETTERS,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Sends the letters and marks them, batch by batch; returns how many.

    Args:
        sends: what is sent in their place, mended; the letters themselves are marked, as they stand.

    Raises:
        Unavailable: the broker did not answer for long. What is not marked yet is sent by the next run.
    """
    for start in range(0, len(letters), batch_letters):
        batch = letters[start : start + batch_letters]
        sent_batch = (letters if sends is None else sends)[start : start + batch_letters]
        await publish_patiently(outbox, [event_message(sent) for sent in sent_batch])
        await publish_patiently(outbox, [marker_message(letter) for letter in batch])
        if progress is not None:
            progress(start + len(batch))
    return len(letters)
