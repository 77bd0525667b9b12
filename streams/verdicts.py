"""What passes between the stages that judge traffic: evidence to sources, verdicts and reviews back, flags out.

Evidence crosses campaigns: a partition's clicks are forwarded at its ticks to the partitions that own their sources
(topic ads.evidence), in batches. Verdicts and reviews come back on ads.verdicts, in the partition of the events that
they are about. Events are named by their **digest**: XXH3, 128 bits, of the event id (32 hexadecimal digits in JSON).
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from streams.documents import Fault, decode_document
from streams.events import Id, Input, Label, Reason, Rejected, TimeMs
from streams.invalid import Rule, SourceKind

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="XXH3, 128 bits, of the event id.")]
MAX_VERDICT_CLICKS: Final = 5_000
"""Clicks in one verdict; more are told in further ones."""
CLICK: Final = np.dtype(
    [
        ("kind", "u1"),  # place in SourceKind
        ("source", "<u8"),  # XXH3, 64 bits, of the source's id
        ("high", "<u8"),  # the click's digest, its first eight bytes
        ("low", "<u8"),  # and its last
        ("at_ms", "<i8"),  # event time of the click
        ("campaign", "<u8"),  # XXH3, 64 bits, of the campaign's id
        ("user", "<u8"),  # of the user's, or else the device's id; 0: unknown
        ("click_type", "u1"),  # place in ClickType
        ("group", "<u8"),  # of publishers: XXH3, 64 bits, of the channel: they are each other's peers
        ("delay_ms", "<i8"),  # of a conversion, since its click; NOT_CONVERTED: this is the click itself; SHOWN
        ("address", "<u4"),  # of publishers: XXH3 of the client's address, or else its network, lowest 32 bits; …
        ("agent", "<u4"),  # … and of its user agent; 0: unknown
    ]
)
"""One click of one source; or, of kind publisher only, a conversion that is credited to it, or an impression."""
NOT_CONVERTED: Final = -1
SHOWN: Final = -2
"""An impression: one of `SHOWN_EACH`, chosen by the hash of its id, is told to its publisher."""
SHOWN_EACH: Final = 256
Clicks = npt.NDArray[np.void]


class EvidenceBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Clicks of one partition's tick whose sources one partition owns (MessagePack)."""

    from_partition: int
    sequence: int
    """The tick's place. A batch that comes again has the same place and the same content."""
    watermark_ms: int
    """Newest event time of that partition's clicks of which all have been told; -1: there was none."""
    is_idle: bool
    """It has nothing to read: nobody waits for its watermark."""
    clicks: bytes
    """`CLICK` records."""
    credited_ms: int = -1
    """Up to which event time both clicks and conversions are told: a click without a conversion means nothing before.
    Where no conversions are to be read, as far as the clicks are."""
    names: dict[int, str] = {}
    """Publishers by their hash, for people."""

    def array(self) -> Clicks:
        """The records."""
        return np.frombuffer(self.clicks, dtype=CLICK)


class Verdict(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """A source's clicks are flagged by a rule. Told once for each rule and click; told again, it changes nothing."""

    rule: Annotated[Rule, Meta(description="The rule.")]
    source_kind: Annotated[SourceKind, Meta(description="user, device, address or publisher.")]
    source: Annotated[Label, Meta(description="Hash of the source's id; of a publisher its id.")]
    clicks: Annotated[tuple[Digest, ...], Meta(max_length=MAX_VERDICT_CLICKS, description="The clicks.")]
    evidence: Annotated[dict[str, float], Meta(max_length=32, description="What was seen, and the thresholds.")] = {}
    watermark_ms: Annotated[int, Meta(description="Event time up to which the evidence was complete.")] = 0
    to_partition: Annotated[int, Meta(ge=0, description="Partition of the clicks.")] = 0


class Decision(StrEnum):
    OVERTURN = "overturn"
    CONFIRM = "confirm"


class Review(msgspec.Struct, frozen=True, kw_only=True, tag="review"):
    """A person's audited word on one event: it outranks the rules."""

    campaign_id: Annotated[Id, Meta(description="Campaign. The record's key.")]
    input: Annotated[Input, Meta(description="Input of the event.")]
    event_id: Annotated[Id, Meta(description="The event.")]
    decision: Annotated[Decision, Meta(description="overturn: it is valid; confirm: it is invalid.")]
    reviewer: Annotated[Id, Meta(description="Who decided.")]
    reason: Annotated[str, Meta(min_length=1, max_length=1000, description="Why.")]
    at_ms: Annotated[TimeMs, Meta(description="When, wall time, epoch ms UTC.")]


_EVIDENCE: Final = msgspec.msgpack.Decoder(EvidenceBatch)
_WORD: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(Verdict | Review)


def encode_evidence(batch: EvidenceBatch) -> bytes:
    """A value of ads.evidence."""
    return msgspec.msgpack.encode(batch)


def decode_evidence(raw: bytes | None) -> EvidenceBatch | Rejected:
    """Decodes a value of ads.evidence. Never raises."""
    if not raw:
        return Rejected(Reason.EMPTY)
    try:
        batch = _EVIDENCE.decode(raw)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return Rejected(Reason.WRONG_TYPE)
    return batch if len(batch.clicks) % CLICK.itemsize == 0 else Rejected(Reason.OUT_OF_RANGE, "$.clicks")


def _nothing(_document: object) -> Sequence[Fault]:
    return ()


def decode_word(raw: bytes | None) -> Verdict | Review | Rejected:
    """Decodes a value of ads.verdicts. Never raises."""
    return decode_document(_WORD, raw, _nothing)


class FlagState(StrEnum):
    """What has become of a flag."""

    RAISED = "raised"
    WITHDRAWN = "withdrawn"  # its evidence did not hold: the impression came after all
    OVERTURNED = "overturned"  # this and the next are of reviews: flags of the rule `review`
    CONFIRMED = "confirmed"


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A rule's word on one event, with its evidence, or a reviewer's (topic ads.flags, keyed by campaign).

    Rules' flags are raised and withdrawn. A review is a flag of the rule `review`, overturned or confirmed; the last
    one outranks the event's other flags.
    """

    flag_id: Annotated[str, Meta(description="Hash of rule, input and event: the same flag has the same id.")]
    rule: Annotated[Rule, Meta(description="Why.")]
    validity: Annotated[
        str,
        Meta(description="givt or sivt: the rule's class; of a review, what the event counts as where it is invalid."),
    ]
    mode: Annotated[str, Meta(description="on: it excludes from valid figures; observe: it is only told.")]
    state: Annotated[
        FlagState, Meta(description="Of a rule's flag raised or withdrawn, of a review overturned or confirmed.")
    ]
    input: Annotated[Input, Meta(description="Input of the event.")]
    event: Annotated[Digest, Meta(description="The event.")]
    event_id: Annotated[str, Meta(description="Its id.")] = ""
    event_time_ms: Annotated[int, Meta(description="When it happened, epoch ms UTC.")]
    campaign_id: Annotated[str, Meta(description="Campaign; empty: organic.")]
    ad_unit_id: Annotated[str, Meta(description="Ad unit.")] = ""
    creative_id: Annotated[str, Meta(description="Creative.")] = ""
    publisher_id: Annotated[str, Meta(description="Publisher; empty: not among the report's dimensions.")] = ""
    currency: Annotated[str, Meta(description="ISO 4217 code of the cost.")] = ""
    cost_millimicros: Annotated[int, Meta(description="What the event had cost, thousandths of a micro.")] = 0
    evidence: Annotated[dict[str, Any], Meta(description="What was seen, and the thresholds. Internal.")] = {}
    reviewer: Annotated[str, Meta(description="Who reviewed the event; empty in the flags of rules.")] = ""
    review_reason: Annotated[str, Meta(description="Why the reviewer decided so.")] = ""
    decided_ms: Annotated[int, Meta(description="Wall time of the tick that told it, epoch ms UTC.")] = 0
    sequence: Annotated[int, Meta(description="Later is higher; consumers keep the highest of each flag.")] = 0
