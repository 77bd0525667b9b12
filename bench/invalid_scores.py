"""Flags against the truth: how much of each attack is found, and how much else is flagged with it.

**Attribution.** Each attack has the rules that are meant for it (`MEANT`). A flag by one of them counts for the attack
if its event is the attack's, against it if its event is honest; if its event is another attacker's it counts for
neither, for that event is rightly excluded. So:

* precision = flagged events of the attack / (those + honest events flagged), by the rules meant for it;
* recall = flagged events of the attack / all events of the attack, by the rules meant for it;
* recall_by_any_rule = the same by every excluding rule.

Events are those of one input: clicks, of injection conversions. A redelivered event is one event. A ratio over zero is
left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import xxhash

from streams.events import Input
from streams.invalid import Mode, Rule
from streams.jobs.traffic_documents import event_id_of
from streams.jobs.traffic_profile import Attack
from streams.jobs.traffic_simulation import GeneratedEvent
from streams.verdicts import Flag, FlagState

JUDGED: Final = (Input.CLICKS, Input.CONVERSIONS)
HONEST: Final = "honest"
_FAST: Final = (Rule.USER_VELOCITY, Rule.DEVICE_VELOCITY, Rule.ADDRESS_VELOCITY, Rule.ACTIVITY_CAP)
_FAN_OUT: Final = (Rule.DEVICE_FAN_OUT, Rule.ADDRESS_FAN_OUT)
_PUBLISHER: Final = (Rule.PUBLISHER_FLOODING, Rule.PUBLISHER_TIMING)
MEANT: Final[dict[Attack, tuple[Rule, ...]]] = {
    Attack.CRAWLER: (Rule.DECLARED_BOT, Rule.NON_BROWSER_AGENT),
    Attack.DATA_CENTRE: (Rule.DATA_CENTRE,),
    Attack.CLICK_FARM: (*_FAST, *_FAN_OUT),
    Attack.FLOODING: (*_PUBLISHER, Rule.CLICK_WITHOUT_IMPRESSION),
    Attack.INJECTION: (Rule.CONVERSION_TOO_SOON,),
    Attack.REPLAY: (Rule.REPEATED_CLICK,),
    Attack.BOTNET: (*_FAST, *_FAN_OUT, *_PUBLISHER),
    Attack.DOUBLE_CLICK: (Rule.DOUBLE_CLICK,),
}
INPUT_OF: Final = {attack: Input.CONVERSIONS if attack is Attack.INJECTION else Input.CLICKS for attack in Attack}
Figures = dict[str, float | int]


class Scores:
    """Remembers the truth about every click and conversion, and which flags stand."""

    def __init__(self) -> None:
        self._truth: dict[Input, dict[str, str]] = {source: {} for source in JUDGED}
        """Attack by digest of the event's id; honest events are only counted."""
        self._honest: Counter[Input] = Counter()
        self._flagged: dict[tuple[Input, Rule], set[str]] = defaultdict(set)

    def saw(self, event: GeneratedEvent) -> None:
        """An event was delivered."""
        if event.duplicate or event.input not in JUDGED:
            return
        if event.attack:
            digest = xxhash.xxh3_128_hexdigest(event_id_of(event.value).encode())
            self._truth[event.input][digest] = event.attack
        else:
            self._honest[event.input] += 1

    def take(self, flags: Iterable[Flag]) -> None:
        """Flags in the order in which they were told; those that only observe, and people's words, do not count."""
        for flag in flags:
            if flag.mode != Mode.ON.value or flag.rule is Rule.REVIEW or flag.input not in JUDGED:
                continue
            events = self._flagged[flag.input, flag.rule]
            if flag.state in (FlagState.RAISED, FlagState.CONFIRMED):
                events.add(flag.event)
            else:
                events.discard(flag.event)

    def figures(self) -> Figures:
        """Everything that is to be published."""
        found: Figures = {}
        for attack in Attack:
            found |= self._of(attack)
        for source in JUDGED:
            flagged = self._by(source, Rule)
            rightly = len(flagged & self._truth[source].keys())
            found[f"{source.value}"] = self._honest[source] + len(self._truth[source])
            if flagged:
                found[f"{source.value}_precision"] = rightly / len(flagged)
            if self._honest[source]:
                name = "honest_flagged_share" if source is Input.CLICKS else f"honest_{source.value}_flagged_share"
                found[name] = (len(flagged) - rightly) / self._honest[source]
        return found

    def _of(self, attack: Attack) -> Figures:
        source = INPUT_OF[attack]
        truth = self._truth[source]
        own = {digest for digest, name in truth.items() if name == attack.value}
        if not own:
            return {}
        meant = self._by(source, MEANT[attack])
        hits, misses = len(meant & own), len(meant - truth.keys())
        prefix = f"attacks.{attack.value}"
        found: Figures = {f"{prefix}.events": len(own)}
        if hits + misses:
            found[f"{prefix}.precision"] = hits / (hits + misses)
        found[f"{prefix}.recall"] = hits / len(own)
        found[f"{prefix}.recall_by_any_rule"] = len(self._by(source, Rule) & own) / len(own)
        return found

    def _by(self, source: Input, rules: Iterable[Rule]) -> set[str]:
        """Events of an input that any of these rules flags."""
        return set().union(*(self._flagged.get((source, rule), ()) for rule in rules))

    def by_rule(self) -> dict[tuple[Input, Rule], Counter[str]]:
        """Whose events each rule flags: what to look at where a figure is not as it should be."""
        return {
            (source, rule): Counter(self._truth[source].get(digest, HONEST) for digest in events)
            for (source, rule), events in sorted(self._flagged.items())
            if events
        }
