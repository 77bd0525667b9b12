"""First stage: bytes to an event, or to a reason why they are none (law 7). Never raises."""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from streams.events import EVENT_TYPES, MAX_RECORD_BYTES, Event, Input, Reason, Rejected

_PATH: Final = re.compile(r" - at `(.+)`$")
_REASONS: Final[tuple[tuple[str, Reason], ...]] = (
    ("Object missing required field", Reason.MISSING_FIELD),
    ("Invalid enum value", Reason.UNKNOWN_VALUE),
    ("Expected `str` of length", Reason.OUT_OF_RANGE),
    ("Expected `array` of length", Reason.OUT_OF_RANGE),
    ("Expected `int` >=", Reason.OUT_OF_RANGE),
    ("Expected `int` <=", Reason.OUT_OF_RANGE),
    ("Integer value out of range", Reason.OUT_OF_RANGE),
    ("Expected", Reason.WRONG_TYPE),
)
"""msgspec's messages, the first prefix that fits (its text is pinned by tests and by the exact version)."""


class Decoder:
    """Decodes the records of one input, reusing one typed decoder.

    A batch takes the fast path (one C call a record); only a batch with a bad record in it is decoded twice.
    """

    def __init__(self, source: Input) -> None:
        self._decode: Callable[[bytes], Event] = msgspec.json.Decoder(EVENT_TYPES[source]).decode

    def decode(self, value: bytes | None) -> Event | Rejected:
        """One record's value to an event, or to the reason and the path in the document."""
        if not value:
            return Rejected(Reason.EMPTY)
        if len(value) > MAX_RECORD_BYTES:
            return Rejected(Reason.TOO_LARGE)
        try:
            return self._decode(value)
        except msgspec.ValidationError as error:
            return _rejected(str(error))
        except msgspec.DecodeError:
            return Rejected(Reason.MALFORMED_JSON)
        except UnicodeDecodeError:
            return Rejected(Reason.NOT_UTF8)
        except RecursionError:
            return Rejected(Reason.TOO_DEEP)

    def decode_all(self, values: Sequence[bytes | None]) -> Sequence[Event | Rejected]:
        """Each value in turn, in order."""
        decode = self._decode
        try:
            if max(map(len, values), default=0) <= MAX_RECORD_BYTES:  # type: ignore[arg-type]
                return [decode(value) for value in values]  # type: ignore[arg-type]
        except (TypeError, UnicodeDecodeError, RecursionError, msgspec.DecodeError):
            pass
        return [self.decode(value) for value in values]


def _rejected(message: str) -> Rejected:
    path = _PATH.search(message)
    for prefix, reason in _REASONS:
        if message.startswith(prefix):
            return Rejected(reason, path.group(1)[:256] if path else _missing(message))
    return Rejected(Reason.WRONG_TYPE, path.group(1)[:256] if path else "$")


def _missing(message: str) -> str:
    """msgspec names a missing field of the top level in the text, without a path."""
    field = re.search(r"field `(\w+)`", message)
    return f"$.{field.group(1)}" if field else "$"
