"""Why the slow botnet is not found: what could be known of it at best, from the clicks of the run.

* `attacks.botnet.one_click_share`: of its devices' accounts, those that clicked once; `honest.one_click_share` beside
  it. A device with one click has no rhythm, no rate and no habit that could be unlike people's.
* `attacks.botnet.paid_share`: of the clicks of the publishers that it pays, those that are its own. Whoever convicts
  all of these publishers, and none else, has this precision.

So what would be needed is a day or more of each user's publishers, and the conversions that such a group of users
never makes: nothing that a window of hours, or one publisher's figures, holds.
"""

from collections import Counter
from typing import Final

import msgspec

from streams.events import Input
from streams.jobs.traffic_profile import Attack
from streams.jobs.traffic_simulation import GeneratedEvent


class _Who(msgspec.Struct):
    user_id: str = ""
    publisher_id: str = ""


_DECODER: Final = msgspec.json.Decoder(_Who)


class Limits:
    """Counts clicks by account and by publisher: the botnet's, and those that are nobody's attack."""

    def __init__(self) -> None:
        self._botnet: Counter[str] = Counter()
        self._honest: Counter[str] = Counter()
        self._paid: Counter[str] = Counter()
        self._every: Counter[str] = Counter()

    def saw(self, event: GeneratedEvent) -> None:
        """An event was delivered."""
        if event.duplicate or event.input is not Input.CLICKS:
            return
        who = _DECODER.decode(event.value)
        is_botnet = event.attack == Attack.BOTNET
        self._every[who.publisher_id] += 1
        self._paid[who.publisher_id] += is_botnet
        if is_botnet:
            self._botnet[who.user_id] += 1
        elif not event.attack:
            self._honest[who.user_id] += 1

    def figures(self) -> dict[str, float]:
        """The shares; one over zero is left out."""
        found = {}
        for name, clicks in (("attacks.botnet", self._botnet), ("honest", self._honest)):
            if clicks:
                found[f"{name}.one_click_share"] = sum(count == 1 for count in clicks.values()) / len(clicks)
        every = sum(self._every[publisher] for publisher, count in self._paid.items() if count)
        if every:
            found["attacks.botnet.paid_share"] = self._paid.total() / every
        return found
