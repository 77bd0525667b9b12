"""What the topic ads.dead-letters comes to: each letter once, with how often it was sent again. Pure, and bounded.

A record of the topic is a whole `DeadLetter`. A worker may write the same letter twice (after a crash); `redrive`
appends it once more, under the same key, with `redrives` raised. All of these are one letter: where the record stood.
"""

import difflib
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from streams.errors import ConfigurationError
from streams.events import Reason
from streams.records import DeadLetter, Entry
from streams.topics import PREFIX, READ_TOPICS

MAX_LETTERS: Final = 200_000
MAX_HELD_BYTES: Final = 512 * 1024**2
"""Values held at most. Letters beyond these bounds are counted, and left for the next run."""
REASONS: Final = (*(reason.value for reason in Reason), Entry.LATE.value)
TOPICS: Final = READ_TOPICS

_DECODER: Final = msgspec.json.Decoder(DeadLetter)


class LetterId(NamedTuple):
    """Where the record stood that the letter is about."""

    log_epoch: int
    topic: str
    partition: int
    offset: int


class Choice(NamedTuple):
    """Which letters are wanted; None: all. Make one with `choice_of`, which checks it."""

    reason: str | None = None
    topic: str | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether a letter is wanted."""
        return self.reason in (None, letter.reason) and self.topic in (None, letter.topic)


class SummaryRow(NamedTuple):
    """Letters of one topic and reason."""

    topic: str
    reason: str
    letters: int
    redriven: int


def choice_of(reason: str | None, topic: str | None) -> Choice:
    """A checked choice; a topic may be given without its prefix (`clicks`, `campaigns`).

    Raises:
        ConfigurationError: there is no such reason or topic.
    """
    if topic is not None and f"{PREFIX}{topic}" in TOPICS:
        topic = f"{PREFIX}{topic}"
    for option, value, known in (("--reason", reason, REASONS), ("--topic", topic, TOPICS)):
        if value is not None and value not in known:
            close = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigurationError(f"{option}: {value!r} is unknown; {hint}")
    return Choice(reason, topic)


def letter_id(letter: DeadLetter) -> LetterId:
    """A letter's identity."""
    return LetterId(letter.log_epoch, letter.topic, letter.partition, letter.offset)


class LetterBook:
    """Folds the records of ads.dead-letters, in the order of each partition."""

    def __init__(
        self, choice: Choice | None = None, max_letters: int = MAX_LETTERS, max_bytes: int = MAX_HELD_BYTES
    ) -> None:
        self.unreadable = 0
        """Records that are no letter."""
        self.left_out = 0
        """Records beyond the bounds."""
        self._choice = choice or Choice()
        self._max_letters = max_letters
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._letters: dict[LetterId, DeadLetter] = {}

    def add(self, value: bytes | None) -> None:
        """One record's value."""
        try:
            letter = _DECODER.decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.unreadable += 1
            return
        if not self._choice.fits(letter):
            return
        place = letter_id(letter)
        known = self._letters.get(place)
        if known is not None:
            if letter.redrives > known.redrives:
                self._letters[place] = letter
            return
        size = len(letter.value or b"")
        if len(self._letters) >= self._max_letters or self._held_bytes + size > self._max_bytes:
            self.left_out += 1
            return
        self._held_bytes += size
        self._letters[place] = letter

    def letters(self) -> list[DeadLetter]:
        """Each letter once, by the time of its record, then by its place."""
        return sorted(self._letters.values(), key=lambda letter: (letter.timestamp_ms, letter_id(letter)))

    def summary(self) -> list[SummaryRow]:
        """Letters by topic and reason."""
        return summarise(self._letters.values())


def summarise(letters: Iterable[DeadLetter]) -> list[SummaryRow]:
    """Counts by topic and reason, the most first."""
    counts: dict[tuple[str, str], list[int]] = {}
    for letter in letters:
        count = counts.setdefault((letter.topic, letter.reason), [0, 0])
        count[0] += 1
        count[1] += letter.redrives > 0
    rows = [SummaryRow(*key, *count) for key, count in counts.items()]
    return sorted(rows, key=lambda row: (-row.letters, row.topic, row.reason))


def preview(value: bytes | None, length: int = 60) -> str:
    """The begin of a raw value, printable, in one line."""
    if value is None:
        return "(no value)"
    text = value[: 4 * length].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= length and len(value) <= 4 * length else f"{shown[: length - 1]}…"
