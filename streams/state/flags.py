"""The flags of one partition: which rules speak against which event, what it counts as now, and who has the last word.

An event is counted under the flags that it comes with. What is decided later (a source's verdict, a click without its
impression, a reviewer's word) finds the event again (`streams.state.recent`) and moves what it had added from one
validity to another: once for each rule and event, however often it is told. A reviewer's word outranks the rules.

Rules and reviewers are told apart: a rule's flag is raised or withdrawn, with what it saw; every review is a row of its
own, of the rule `review`. So neither writes over the other, and a reader who has the rows can reckon what counts.
"""

from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from streams.events import Input
from streams.invalid import BIT, InvalidRules, Mode, Rule, Validity, class_of, validity_of
from streams.records import DIMENSIONS, Row
from streams.state.recent import Remembered
from streams.verdicts import Decision, Flag, FlagState, Review

MAX_HELD: Final = 500_000
"""Events with a late word that are held per partition; beyond it further ones get none, and are counted."""
MAX_TOLD: Final = 2_000
"""General flags that one tick tells one by one; of what is beyond it only the figures are told."""
_PUBLISHER: Final = DIMENSIONS.index("publisher_id")


class Word(NamedTuple):
    """One rule's word on one event."""

    source: Input
    event: Remembered
    rule: Rule
    evidence: dict[str, Any]
    is_withdrawn: bool = False
    effect_ms: int = -1
    """Effect pane in which the event was counted under it; -1: it is a later word, with effect at its tick."""


class Move(NamedTuple):
    """An event counts as something else from now on."""

    source: Input
    event: Remembered
    before: Validity
    after: Validity


class Settled(NamedTuple):
    """A review that was taken."""

    move: Move | None
    """What follows."""
    rules: tuple[Rule, ...]
    """Those whose flags it is about."""
    as_invalid: Validity
    """What the event counts as where it is invalid: a later confirmation changes no class."""
    review_ms: int
    """Which of the event's reviews it is; later ones have more."""


class Held(msgspec.Struct):
    """An event that a late word is about."""

    at_ms: int
    raised: int
    """All its flags, as bits."""
    excluding: int
    """Those of them that excluded when they were raised."""
    review: str = ""
    review_ms: int = 0
    """Which review that was; 0: there was none."""

    def validity(self) -> Validity:
        """What it counts as."""
        if self.review == Decision.OVERTURN:
            return Validity.VALID
        return self.as_invalid() if self.review == Decision.CONFIRM else validity_of(self.excluding, self.excluding)

    def as_invalid(self) -> Validity:
        """What it counts as where a reviewer has confirmed it."""
        found = validity_of(self.excluding, self.excluding)
        return Validity.SIVT if found is Validity.VALID else found

    def hear(self, review: Review) -> None:
        """Takes a review. It is named by when it was said: the log's order counts, whatever reviewers' clocks say."""
        is_same = self.review == review.decision and self.review_ms == review.at_ms
        self.review_ms = review.at_ms if is_same else max(review.at_ms, self.review_ms + 1)
        self.review = review.decision.value


class FlagBook:
    """What has been said late about the events of one partition."""

    def __init__(self) -> None:
        self.untold = 0
        """Flags of which only the figures were told."""
        self.beyond = 0
        """Words that no room was left for."""
        self.unmatched = 0
        """Words on events that are not remembered."""
        self.told: dict[tuple[str, str], int] = {}
        """Flags told so far, by rule and state."""
        self._held: dict[str, dict[bytes, Held]] = {source.value: {} for source in Input}
        """By input, for each is forgotten after a time of its own; about in the order of event times."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def _known(self, source: Input, event: Remembered) -> Held:
        """What is known of an event: at first what it was counted with."""
        known = self._held[source.value].get(event.digest)
        is_same = known is not None and known.at_ms == event.at_ms  # an id may count again, long after
        return known if known is not None and is_same else Held(event.at_ms, event.bits, event.excluding)

    def mode(self, source: Input, event: Remembered, rule: Rule) -> Mode:
        """What a flag of an event did since it was decided, whatever the rule does by now."""
        is_on = self._known(source, event).excluding & BIT[rule]
        return Mode.ON if is_on else Mode.OBSERVE

    def validity(self, source: Input, digest: bytes, at_ms: int, initial: str) -> str:
        """What an event counts as now."""
        known = self._held[source.value].get(digest)
        return initial if known is None or known.at_ms != at_ms else known.validity().value

    def take(self, word: Word, rules: InvalidRules) -> tuple[Move | None, FlagState | None]:
        """A rule speaks, or takes its word back. Returns the move that follows, and what is to be told, if anything."""
        mode, bit = rules.mode(word.rule), BIT[word.rule]
        held = self._known(word.source, word.event)
        is_mute = mode is Mode.OFF and not word.is_withdrawn  # what was said before can be taken back
        if is_mute or bool(held.raised & bit) is not word.is_withdrawn:
            return None, None
        before = held.validity()
        if word.is_withdrawn:
            held.raised, held.excluding = held.raised & ~bit, held.excluding & ~bit
        else:
            held.raised |= bit
            held.excluding |= bit if mode is Mode.ON else 0
        if not self._hold(word.source, word.event, held):
            return None, None
        state = FlagState.WITHDRAWN if word.is_withdrawn else FlagState.RAISED
        return self._moved(word.source, word.event, before, held.validity()), state

    def review(self, review: Review, event: Remembered) -> Settled | None:
        """A reviewer's word; None: no room was left for it."""
        held = self._known(review.input, event)
        before = held.validity()
        held.hear(review)
        if not self._hold(review.input, event, held):
            return None
        move = self._moved(review.input, event, before, held.validity())
        rules = tuple(rule for rule in Rule if held.raised & BIT[rule])
        return Settled(move, rules, held.as_invalid(), held.review_ms)

    def _hold(self, source: Input, event: Remembered, held: Held) -> bool:
        of_input = self._held[source.value]
        if event.digest not in of_input and len(self) >= MAX_HELD:
            self.beyond += 1
            return False
        of_input[event.digest] = held
        return True

    @staticmethod
    def _moved(source: Input, event: Remembered, before: Validity, after: Validity) -> Move | None:
        return None if before is after else Move(source, event, before, after)

    def forget(self, floors: dict[str, int]) -> None:
        """Drops what cannot be found again, by input: an event below its floor is out of every word's reach."""
        for source, of_input in self._held.items():
            oldest = next(iter(of_input.values()), None)
            if oldest is not None and oldest.at_ms < floors[source]:
                self._held[source] = {k: held for k, held in of_input.items() if held.at_ms >= floors[source]}

    def count(self, rule: Rule, state: FlagState, count: int = 1) -> None:
        """Counts what was told."""
        key = (rule.value, state.value)
        self.told[key] = self.told.get(key, 0) + count

    def snapshot(self) -> dict[str, Any]:
        """The book as plain values."""
        return {
            "counts": (self.untold, self.beyond, self.unmatched),
            "told": list(self.told.items()),
            "held": [
                (source, digest, held.at_ms, held.raised, held.excluding, held.review, held.review_ms)
                for source, of_input in self._held.items()
                for digest, held in of_input.items()
            ],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.untold, self.beyond, self.unmatched = snapshot["counts"]
        self.told = {(rule, state): count for (rule, state), count in snapshot["told"]}
        for of_input in self._held.values():
            of_input.clear()
        for source, digest, *rest in snapshot["held"]:
            self._held[source][digest] = Held(*rest)


def flag_of(word: Word, state: FlagState, mode: Mode, cost_millimicros: int) -> Flag:
    """What is told of a flag."""
    event, names = word.event, word.event.names
    return Flag(
        flag_id=flag_id(word.rule, word.source, event.digest),
        rule=word.rule,
        validity=class_of(word.rule).value,
        mode=mode.value,
        state=state,
        input=word.source,
        event=event.digest.hex(),
        event_id=event.event_id,
        event_time_ms=event.at_ms,
        campaign_id=names[0],
        ad_unit_id=names[1],
        creative_id=names[2],
        publisher_id=event.dimensions[_PUBLISHER],
        currency=names[4],
        cost_millimicros=cost_millimicros,
        evidence=word.evidence,
    )


def review_flag(review: Review, event: Remembered, settled: Settled, cost_millimicros: int) -> Flag:
    """What is told of a review: its class is what the event counts as where it is invalid."""
    state = FlagState.OVERTURNED if review.decision == Decision.OVERTURN else FlagState.CONFIRMED
    word = Word(review.input, event, Rule.REVIEW, {"reviewed_ms": review.at_ms})
    return msgspec.structs.replace(
        flag_of(word, state, Mode.ON, cost_millimicros),
        validity=settled.as_invalid.value,
        reviewer=review.reviewer,
        review_reason=review.reason,
    )


def flag_id(rule: Rule, source: Input, digest: bytes) -> str:
    """The same for the same rule and event, whoever finds it: 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(f"{rule.value}:{source.value}:".encode() + digest)


def flag_row(log_epoch: int, partition: int, flag: Flag, effect_ms: int, review_ms: int = 0) -> Row:
    """A row of flag_rows, without its version. `review_ms` tells an event's reviews apart; 0: a rule's flag."""
    return (
        *(log_epoch, partition, flag.input.value, flag.event, flag.rule.value, review_ms),
        *(flag.event_id, flag.event_time_ms // 1000, flag.campaign_id, flag.ad_unit_id, flag.creative_id),
        *(flag.publisher_id, flag.currency, flag.cost_millimicros, flag.validity, flag.mode, flag.state.value),
        *(msgspec.json.encode(flag.evidence).decode(), flag.reviewer, flag.review_reason, flag.decided_ms // 1000),
        effect_ms // 1000,
    )
