"""The journal of a partition: claims and ticks, and which of the ticks count.

A **tick** says how far every input had been applied when the partition looked across them. A worker that takes over
appends a **claim** first; a tick whose claim is not the last one before it is void. So all who read a journal agree
on the ticks that happened, whoever wrote them and however late.
"""

from typing import Final

import msgspec

from streams.errors import CampaignStreamsError
from streams.rules import Rules

VERSION_EPOCH_BITS: Final = 48
"""A version is the log epoch and, in the low 48 bits, the tick's place in the journal."""


class Claim(msgspec.Struct, frozen=True, tag="claim"):
    """A worker takes the partition. Ticks of earlier claims behind it are void."""

    claim_id: str
    worker: str
    wall_ms: int
    starts: dict[str, int]
    """Where each topic would be read from if there were no state yet: only a journal's first claim decides."""


class Tick(msgspec.Struct, frozen=True, tag="tick", omit_defaults=True):
    """One look across the inputs: the state and outputs after it are a function of logs alone."""

    claim_id: str
    seq: int
    wall_ms: int
    applied: dict[str, int]
    """Next offset by topic."""
    is_catching_up: bool = False
    """Whether much waited in Kafka: report rows are then published more rarely."""
    silent: tuple[str, ...] = ()
    """Topics from which nothing has come for a while: unknown, never zero."""
    poisoned: dict[str, tuple[int, ...]] = {}
    """Offsets on which the code failed; they are rejected as `internal_error` in every run."""
    rules: Rules | None = None
    """The rules from this tick on, where they have changed."""


Entry = Claim | Tick
_DECODER: Final[msgspec.json.Decoder[Claim | Tick]] = msgspec.json.Decoder(Claim | Tick)


def encode(entry: Entry) -> bytes:
    """One journal record's value, JSON."""
    return msgspec.json.encode(entry)


def decode(value: bytes) -> Entry:
    """Raises `CampaignStreamsError` where the journal holds what this version cannot read."""
    try:
        return _DECODER.decode(value)
    except msgspec.DecodeError as error:
        raise CampaignStreamsError(
            f"the journal holds a record that this version cannot read ({error}); "
            "run the version that wrote it, or a newer one"
        ) from None


class Fold:
    """Reads a journal in order and tells the ticks that happened.

    `claim_id` and `seq` are those of the last tick known (a manifest's), or empty at the beginning.
    """

    def __init__(self, claim_id: str = "", seq: int = 0) -> None:
        self.claim_id = claim_id
        self.seq = seq
        self.starts: dict[str, int] | None = None

    def take(self, entry: Entry) -> Tick | None:
        """The tick if this entry is one that counts; None for a claim, a void tick or a repetition."""
        if isinstance(entry, Claim):
            self.claim_id = entry.claim_id
            if self.starts is None:
                self.starts = entry.starts
            return None
        if entry.claim_id != self.claim_id or entry.seq <= self.seq:
            return None
        self.seq = entry.seq
        return entry


def version_of(log_epoch: int, journal_offset: int) -> int:
    """The version of rows that a tick at this place publishes: higher is later. Never 0."""
    return (log_epoch << VERSION_EPOCH_BITS) + journal_offset + 1
