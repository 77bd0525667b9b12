"""How dead letters are written to ads.dead-letters."""

import msgspec

from streams.ports import Outgoing
from streams.records import DeadLetter
from streams.topics import DEAD_LETTERS


def letter_message(letter: DeadLetter) -> Outgoing:
    """The record for a letter. All records about one letter have one key, and so one partition.

    Its timestamp is the time of writing: retention of the letters must not count from the time of the events.
    """
    key = f"{letter.topic}/{letter.partition}/{letter.offset}".encode()
    return Outgoing(DEAD_LETTERS, None, key, msgspec.json.encode(letter))
