"""Where a partition's traffic is judged at ticks: what its own inputs show together, what sources and people say.

In a tick's order: flags that events were counted with are told; touches are looked for; verdicts and reviews that were
read take effect; clicks are forwarded to their sources; and what this partition's sources show is decided. What moves
an event from one validity to another is returned; the partition turns it into rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import xxhash

from streams.events import ClickType, Event, Input
from streams.invalid import Mode, Rule
from streams.records import Row
from streams.rules import Rules
from streams.stages.count import SPEND
from streams.stages.invalid.sources import SourceDesk
from streams.state.flags import FlagBook, Move, Word, flag_of, flag_row, review_flag
from streams.state.forwarding import Forwarded, Forwarding, Heard
from streams.state.inputs import InputState
from streams.state.journal import Tick
from streams.state.risk_rows import risk_rows
from streams.state.touches import Finding, Pending, Touched, Touches
from streams.state.traces import JUDGED_LATER, TOUCHED_BY
from streams.topics import INPUT_TOPICS
from streams.verdicts import EvidenceBatch, Flag, FlagState, Review, Verdict


class Judged(msgspec.Struct):
    """What a tick's judging gives out; without versions and sequences."""

    effect_ms: int
    """Effect pane of what is decided at the tick."""
    moves: list[Move] = msgspec.field(default_factory=list)
    flags: list[Flag] = msgspec.field(default_factory=list)
    rows: list[Row] = msgspec.field(default_factory=list)
    risks: list[Row] = msgspec.field(default_factory=list)
    forwarded: list[Forwarded] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)


class JudgingDesk:
    """One partition's judging."""

    def __init__(self, partition: int, partitions: int, log_epoch: int, rules: Rules) -> None:
        self.partition = partition
        self.log_epoch = log_epoch
        self.book = FlagBook()
        self.sources = SourceDesk(rules.invalid, partitions=partitions)
        self.forwarding = Forwarding(partition, partitions)
        self.touches = {Input.CLICKS: Touches(), Input.CONVERSIONS: Touches()}
        self._staged: list[Verdict | Review] = []
        self._has_evidence = False

    # What comes in

    def stage_evidence(self, batch: EvidenceBatch, _appended_ms: int) -> None:
        """A record was applied; its clicks join their sources' sets, and are decided on at the next tick."""
        self.sources.take(batch)
        self._has_evidence = True

    def stage_word(self, word: Verdict | Review, _appended_ms: int) -> None:
        """A record was applied; it waits for the next tick."""
        self._staged.append(word)

    def has_something_due(self, wall_ms: int) -> bool:
        """Whether a tick at this time would forward clicks, or how far they have been read."""
        return self.forwarding.has_something_due(wall_ms)

    # At a tick

    def look(self, inputs: Mapping[Input, InputState], rules: Rules, tick: Tick) -> Judged:
        """Judges what this tick has brought."""
        newest_ms, wall_ms = max(state.newest_ms for state in inputs.values()), tick.wall_ms
        judged = Judged(newest_ms - newest_ms % rules.pane_ms)
        for source, state in inputs.items():
            words, untold, pending, valid = state.traces.take()
            for word in words:
                self._tell(word, FlagState.RAISED, self.book.mode(source, word.event, word.rule), wall_ms, judged)
            for rule, count in untold.items():
                self.book.count(rule, FlagState.RAISED, count)
                self.book.untold += count
            self._forward(source, valid, rules)
            if source in JUDGED_LATER:
                for word in self._touched(source, pending, inputs, rules):
                    self._take(word, rules, wall_ms, judged)
        staged, self._staged = self._staged, []
        for said in staged:
            self._hear(said, inputs, rules, wall_ms, judged)
        judged.forwarded = self.forwarding.take(tick.seq, wall_ms, self._heard(inputs, tick))
        if self._has_evidence:
            before = self.sources.assessment
            judged.verdicts, self._has_evidence = self.sources.decide(), False
            found = self.sources.assessment
            if found is not before:
                judged.risks = list(risk_rows(self.log_epoch, self.partition, found, self.sources.name_of))
        return judged

    @staticmethod
    def _heard(inputs: Mapping[Input, InputState], tick: Tick) -> Heard:
        clicks_ms, credited_ms = inputs[Input.CLICKS].newest_ms, inputs[Input.CONVERSIONS].newest_ms
        if INPUT_TOPICS[Input.CONVERSIONS] in tick.silent:
            credited_ms = clicks_ms
        return Heard(clicks_ms, min(clicks_ms, credited_ms), INPUT_TOPICS[Input.CLICKS] in tick.silent)

    def _forward(self, source: Input, valid: Iterable[tuple[Sequence[Event], Sequence[bytes]]], rules: Rules) -> None:
        """As one batch, in the order of the log: how reads were cut must not show."""
        events = [event for part, _ in valid for event in part]
        digests = [digest for _, part in valid for digest in part]
        if source is Input.CLICKS:
            self.forwarding.add_clicks(events, digests, rules.invalid)
        elif source is Input.CONVERSIONS:
            self.forwarding.add_conversions(events, rules.invalid)
        elif source is Input.IMPRESSIONS:
            self.forwarding.add_impressions(events, digests, rules.invalid)

    def _touched(
        self, source: Input, pending: list[Pending], inputs: Mapping[Input, InputState], rules: Rules
    ) -> Iterator[Word]:
        """Words about what an input's events refer to."""
        is_click = source is Input.CLICKS
        touched = inputs[Input.IMPRESSIONS if is_click else Input.CLICKS]
        wait_ms = rules.invalid.impression_wait_ms if is_click else rules.invalid.click_wait_ms
        missing = Rule.CLICK_WITHOUT_IMPRESSION if is_click else Rule.CONVERSION_WITHOUT_CLICK
        known = Touched(touched.dedupe, touched.newest_ms, touched.first_ms)
        found = self.touches[source].look(pending, known, wait_ms)
        said = [(each, *each_word) for each in found for each_word in self._about(each, missing, is_click, rules)]
        events = inputs[source].traces.recent.find(each.pending.digest for each, *_ in said)
        for finding, rule, evidence, is_withdrawn in said:
            event = events.get(finding.pending.digest)
            if event is None:
                self.book.unmatched += 1
            else:
                yield Word(source, event, rule, evidence, is_withdrawn)

    @staticmethod
    def _about(
        finding: Finding, missing: Rule, is_click: bool, rules: Rules
    ) -> Iterator[tuple[Rule, dict[str, Any], bool]]:
        pending, touch_ms = finding.pending, finding.touch_ms
        if touch_ms is None:
            yield missing, {"touch": pending.touch.hex(), "at_ms": pending.at_ms}, False
            return
        if finding.was_missed:
            yield missing, {"touch": pending.touch.hex(), "touch_ms": touch_ms}, True
        if not is_click:
            return
        delay_ms, below_ms = pending.at_ms - touch_ms, rules.invalid.click_after(ClickType(pending.click_type))
        if delay_ms < 0:
            yield Rule.CLICK_BEFORE_IMPRESSION, {"delay_ms": delay_ms}, False
        elif delay_ms < below_ms:
            yield Rule.CLICK_TOO_SOON, {"delay_ms": delay_ms, "below_ms": below_ms}, False

    def _take(self, word: Word, rules: Rules, wall_ms: int, judged: Judged) -> None:
        mode = (
            self.book.mode(word.source, word.event, word.rule) if word.is_withdrawn else rules.invalid.mode(word.rule)
        )
        move, state = self.book.take(word, rules.invalid)
        if move is not None:
            judged.moves.append(move)
        if state is not None:
            self._tell(word, state, mode, wall_ms, judged)

    def _hear(
        self,
        said: Verdict | Review,
        inputs: Mapping[Input, InputState],
        rules: Rules,
        wall_ms: int,
        judged: Judged,
    ) -> None:
        if isinstance(said, Review):
            self._hear_review(said, inputs, wall_ms, judged)
            return
        evidence = {**said.evidence, "source_kind": said.source_kind.value, "source": said.source}
        digests = list(map(bytes.fromhex, said.clicks))
        events = inputs[Input.CLICKS].traces.recent.find(digests)
        for digest in digests:  # in the verdict's order: that of the events depends on when they were packed
            if digest in events:
                self._take(Word(Input.CLICKS, events[digest], said.rule, evidence), rules, wall_ms, judged)
            else:
                self.book.unmatched += 1

    def _hear_review(self, said: Review, inputs: Mapping[Input, InputState], wall_ms: int, judged: Judged) -> None:
        digest = xxhash.xxh3_128_digest(said.event_id.encode())
        event = inputs[said.input].traces.recent.find([digest]).get(digest)
        if event is None or event.names[0] != said.campaign_id:
            self.book.unmatched += 1
            return
        settled = self.book.review(said, event)
        if settled is None:
            return
        if settled.move is not None:
            judged.moves.append(settled.move)
        flag = review_flag(said, event, settled, event.amounts[SPEND])
        for rule in (*settled.rules, Rule.REVIEW):  # how often which rule's flags are overturned
            self.book.count(rule, flag.state)
        self._publish(flag, wall_ms, judged.effect_ms, judged, settled.review_ms)

    def _tell(self, word: Word, state: FlagState, mode: Mode, wall_ms: int, judged: Judged) -> None:
        self.book.count(word.rule, state)
        effect_ms = judged.effect_ms if word.effect_ms < 0 else word.effect_ms
        self._publish(flag_of(word, state, mode, word.event.amounts[SPEND]), wall_ms, effect_ms, judged)

    def _publish(self, flag: Flag, wall_ms: int, effect_ms: int, judged: Judged, review_ms: int = 0) -> None:
        flag = msgspec.structs.replace(flag, decided_ms=wall_ms)
        judged.flags.append(flag)
        judged.rows.append(flag_row(self.log_epoch, self.partition, flag, effect_ms, review_ms))

    def tidy(self, inputs: Mapping[Input, InputState], newest_ms: int) -> None:
        """At a tick: forgets what no word can reach any more."""
        for source, by in TOUCHED_BY.items():
            touched = inputs[source]
            touched.dedupe.let_go(min(touched.newest_ms, inputs[by].newest_ms), touched.newest_ms)
        for state in inputs.values():
            state.traces.recent.forget(newest_ms)
            state.judge.forget(state.newest_ms)
        self.book.forget({source.value: state.traces.recent.floor_ms for source, state in inputs.items()})

    def change_rules(self, rules: Rules) -> None:
        """What is known stays; what is judged from now on is judged by these."""
        self.sources.change_rules(rules.invalid)

    # Checkpoints

    def snapshot(self) -> dict[str, Any]:
        """The desk as plain values, without the sources' clicks."""
        return {
            "book": self.book.snapshot(),
            "forwarding": self.forwarding.snapshot(),
            "touches": {source.value: touches.snapshot() for source, touches in self.touches.items()},
            "staged": [msgspec.to_builtins(said) for said in self._staged],
            "has_evidence": self._has_evidence,
            "sources": self.sources.head(),
            "source_runs": [(store, [run.name for run in runs.runs]) for store, runs in self.sources.stores().items()],
        }

    def restore(self, snapshot: dict[str, Any], source_runs: list[tuple[str, int, bytes]]) -> None:
        """Takes back what `snapshot` and the sources' runs gave."""
        self.book.restore(snapshot["book"])
        self.forwarding.restore(snapshot["forwarding"])
        for source, touches in self.touches.items():
            touches.restore(snapshot["touches"][source.value])
        self._staged = [msgspec.convert(said, Verdict | Review) for said in snapshot["staged"]]
        self._has_evidence = snapshot["has_evidence"]
        self.sources.restore({"head": snapshot["sources"], "runs": source_runs})
