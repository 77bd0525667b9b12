"""General invalid traffic that one event shows by itself: by lists (agents, networks) and by its own parameters.

Whole batches at a time: impressions and plays come at 100,000 a second, most of them with agents and networks that
were seen before, and many batches have nothing that a rule would look at.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter, is_not
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.events import Event, Input
from streams.invalid import BIT, InvalidRules, Rule
from streams.stages.invalid.agents import agent_bits, non_browser
from streams.stages.invalid.networks import UNREADABLE, network_bits, parse_network

Bits = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_AGENT: Final = attrgetter("user_agent")
_NETWORK: Final = attrgetter("network")
_SIZE: Final = attrgetter("placement_width_px", "placement_height_px")
_PREFETCH: Final = attrgetter("prefetch")
_PERSON: Final = attrgetter("user_id", "device_id")
_NO_SIZE: Final = (None, None)
_NOBODY: Final = (None, None)
_OF_AGENT: Final = BIT[Rule.DECLARED_BOT] | BIT[Rule.NON_BROWSER_AGENT]
_BY_PEOPLE: Final = frozenset({Input.CLICKS, Input.CONVERSIONS})
"""Inputs whose events somebody did: who it was is part of what is needed to judge them."""


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
        bits = np.zeros(len(events), dtype=np.int64)
        if self._of_agent:
            agents = list(map(_AGENT, events))
            if agents.count(None) < len(agents):
                found = map(self._agents.__getitem__, agents)
                bits |= np.fromiter(found, dtype=np.int64, count=len(events)) & self._of_agent
        if self._of_network:
            networks = list(map(_NETWORK, events))
            if networks.count(None) < len(networks):
                found = map(self._networks.__getitem__, networks)
                bits |= np.maximum(np.fromiter(found, dtype=np.int64, count=len(events)), 0)
        if self._of_size:
            self._judge_sizes(events, bits)
        if self._of_prefetch and any(map(_PREFETCH, events)):
            self._judge_prefetch(events, bits)
        return bits

    def _judge_sizes(self, events: Sequence[Event], bits: Bits) -> None:
        sizes = list(map(_SIZE, events))
        hidden = {size for size in set(sizes) if size != _NO_SIZE and self._is_hidden(*size)}
        if hidden:
            found = np.fromiter(map(hidden.__contains__, sizes), dtype=bool, count=len(sizes))
            bits[found] |= self._of_size

    def _is_hidden(self, width: int | None, height: int | None) -> bool:
        below = self.rules.hidden_below_px
        return (width is not None and width < below) or (height is not None and height < below)

    def _judge_prefetch(self, events: Sequence[Event], bits: Bits) -> None:
        """What was rendered ahead and then measured as seen was shown after all."""
        found = [event.prefetch and event.viewable is not True for event in events]  # type: ignore[attr-defined]
        bits[np.array(found, dtype=bool)] |= self._of_prefetch

    def is_decidable(self, events: Sequence[Event]) -> Flags:
        """Whether an event carries enough to be judged: the decision rate's numerator (MRC 2020).

        That is a user agent, a network that can be read, and of a click or a conversion also a user or a device. An
        agent that is sent empty is known (to be empty); one that is absent is not.
        """
        agents, networks = list(map(_AGENT, events)), list(map(_NETWORK, events))
        size = len(events)
        if agents.count(None) == size or networks.count(None) == size:
            return np.zeros(size, dtype=bool)
        found = np.fromiter(map(self._networks.__getitem__, networks), dtype=np.int64, count=size)
        readable: Flags = found != UNREADABLE
        if None in agents:
            readable &= np.fromiter(map(is_not, agents, repeat(None)), dtype=bool, count=size)
        if self.source in _BY_PEOPLE:
            people = list(map(_PERSON, events))
            if _NOBODY in people:
                readable &= np.fromiter((person != _NOBODY for person in people), dtype=bool, count=size)
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
            width, height = _SIZE(event)
            return {"width_px": width, "height_px": height, "hidden_below_px": self.rules.hidden_below_px}
        return {}
