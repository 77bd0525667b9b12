"""General invalid traffic that one event shows by itself: by lists (agents, networks) and by its own parameters.

Whole batches at a time: impressions and plays come at 100,000 a second, most of them with agents and networks that
were seen before, and many batches have nothing that a rule would look at.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.events import Event, Input
from streams.invalid import BIT, InvalidRules, Rule
from streams.stages.invalid.agents import agent_bits, non_browser
from streams.stages.invalid.networks import UNREADABLE, network_bits, parse_network

Bits = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_OF_AGENT: Final = BIT[Rule.DECLARED_BOT] | BIT[Rule.NON_BROWSER_AGENT]
_BY_PEOPLE: Final = frozenset({Input.CLICKS, Input.CONVERSIONS})
"""Inputs whose events somebody did: who it was is part of what is needed to judge them."""


def has_any(values: list[Any]) -> bool:
    """Whether not all are None. Either way without a comparison of unlike types, which is slow."""
    return any(values) or values.count(None) < len(values)


class GeneralJudge:
    """Judges one input's events by lists and parameters, under one set of rules.

    Adjustments are never flagged: they are the shop's bookkeeping, no traffic.
    """

    def __init__(self, source: Input, rules: InvalidRules) -> None:
        self.source = source
        self.rules = rules
        self._agents = agent_bits(rules.lists.crawler_patterns)
        self._networks = network_bits(rules.lists.networks)
        active = 0 if source is Input.ADJUSTMENTS else rules.active
        self._of_agent = active & _OF_AGENT
        self._of_network = active & BIT[Rule.DATA_CENTRE] if rules.lists.networks else 0
        self._of_size = active & BIT[Rule.HIDDEN_PLACEMENT] if rules.hidden_below_px else 0
        self._of_prefetch = active & BIT[Rule.PREFETCH] if source is Input.IMPRESSIONS else 0

    def judge(self, events: Sequence[Event]) -> Bits:
        """Bits (`streams.invalid.BIT`) of the rules that are not off and that each event falls under."""
        size = len(events)
        bits = np.zeros(size, dtype=np.int64)
        if self._of_agent:
            agents = [event.user_agent for event in events]
            if has_any(agents):
                found = map(self._agents.__getitem__, agents)
                bits |= np.fromiter(found, dtype=np.int64, count=size) & self._of_agent
        if self._of_network:
            networks = [event.network for event in events]
            if has_any(networks):
                found = map(self._networks.__getitem__, networks)
                bits |= np.maximum(np.fromiter(found, dtype=np.int64, count=size), 0)
        if self._of_size:
            self._judge_sides([event.placement_width_px for event in events], bits)
            self._judge_sides([event.placement_height_px for event in events], bits)
        if self._of_prefetch and True in [event.prefetch for event in events]:  # type: ignore[attr-defined]
            self._judge_prefetch(events, bits)
        return bits

    def _judge_sides(self, sides: list[int | None], bits: Bits) -> None:
        """A batch has few distinct sizes, and most have none that is hidden."""
        if not has_any(sides):
            return
        hidden = {side for side in set(sides) if side is not None and side < self.rules.hidden_below_px}
        if hidden:
            bits[np.array([side in hidden for side in sides], dtype=bool)] |= self._of_size

    def _judge_prefetch(self, events: Sequence[Event], bits: Bits) -> None:
        """What was rendered ahead and then measured as seen was shown after all."""
        found = [event.prefetch and event.viewable is not True for event in events]  # type: ignore[attr-defined]
        bits[np.array(found, dtype=bool)] |= self._of_prefetch

    def is_decidable(self, events: Sequence[Event]) -> Flags:
        """Whether an event carries enough to be judged: the decision rate's numerator (MRC 2020).

        That is a user agent, a network that can be read, and of a click or a conversion also a user or a device. An
        agent that is sent empty is known (to be empty); one that is absent is not.
        """
        size = len(events)
        agents, networks = [event.user_agent for event in events], [event.network for event in events]
        if not has_any(agents) or not has_any(networks):
            return np.zeros(size, dtype=bool)
        found = np.fromiter(map(self._networks.__getitem__, networks), dtype=np.int64, count=size)
        readable: Flags = found != UNREADABLE
        if not all(agents):
            readable &= np.array([agent is not None for agent in agents], dtype=bool)
        if self.source in _BY_PEOPLE:
            people = [event.user_id or event.device_id for event in events]
            if not all(people):
                readable &= np.array([person is not None for person in people], dtype=bool)
        return readable

    def evidence(self, event: Event, rule: Rule) -> dict[str, Any]:
        """What the rule saw in an event that it flagged. Internal: advertisers see the rule's reason only."""
        lists = self.rules.lists
        if rule is Rule.DECLARED_BOT:
            pattern = self._agents.crawlers.find(event.user_agent or "")
            return {"user_agent": event.user_agent, "pattern": pattern, "list_version": lists.crawlers_version}
        if rule is Rule.NON_BROWSER_AGENT:
            found = non_browser(event.user_agent or "")
            seen = {} if found is None else found._asdict()
            return {"user_agent": event.user_agent, **seen}
        if rule is Rule.DATA_CENTRE:
            network = parse_network(event.network or "")
            listed = None if network is None else self._networks.index.find(network)
            return {"network": event.network, "listed": listed, "list_as_of": lists.networks_as_of}
        if rule is Rule.PREFETCH:
            return {"prefetch": True, "viewable": getattr(event, "viewable", None)}
        if rule is Rule.HIDDEN_PLACEMENT:
            width, height = event.placement_width_px, event.placement_height_px
            return {"width_px": width, "height_px": height, "hidden_below_px": self.rules.hidden_below_px}
        return {}
