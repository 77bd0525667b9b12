"""Windows over the clicks of one source: velocity and fan-out.

Every rule here is monotone: which clicks it flags is a function of the set of clicks, and more clicks never take a flag
back. So neither the order in which evidence comes nor when it is decided on changes what is flagged in the end. A click
is flagged if there is an interval of event time, as long as the window, that contains it and reaches the thresholds;
the intervals that begin with a click suffice.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.events import ClickType
from streams.invalid import InvalidRules, Mode, Rule, SourceKind
from streams.verdicts import NOT_CONVERTED, Clicks

KINDS: Final = tuple(SourceKind)
_TYPES: Final = tuple(ClickType)
CROWD_SHARE: Final = 3
"""In an address's window, users (or devices) with a third of a user's own limit click unlike people."""
Flags = npt.NDArray[np.bool_]


class Found(NamedTuple):
    """Clicks of one source that a rule flags, and why."""

    rule: Rule
    clicks: Clicks
    evidence: dict[str, float]


def judge(clicks: Clicks, rules: InvalidRules) -> Iterator[Found]:
    """What the windows show. `clicks`: whole sources, by key and event time, each click once."""
    of_kind = clicks["delay_ms"] == NOT_CONVERTED
    for rule, kind, limit in (
        (Rule.USER_VELOCITY, SourceKind.USER, rules.user_velocity),
        (Rule.DEVICE_VELOCITY, SourceKind.DEVICE, rules.device_velocity),
    ):
        if rules.mode(rule) is not Mode.OFF:
            types = [at for at, each in enumerate(_TYPES) if each in rules.velocity_types]
            chosen = clicks[of_kind & (clicks["kind"] == KINDS.index(kind)) & np.isin(clicks["click_type"], types)]
            flagged = chosen[in_dense_windows(chosen, limit.clicks, limit.window_ms)]
            evidence: dict[str, float] = {"clicks_at_least": limit.clicks, "window_ms": limit.window_ms}
            yield from _by_source(rule, flagged, evidence)
    for rule, kind in ((Rule.DEVICE_FAN_OUT, SourceKind.DEVICE), (Rule.ADDRESS_FAN_OUT, SourceKind.ADDRESS)):
        if rules.mode(rule) is not Mode.OFF:
            for source in _sources(clicks[of_kind & (clicks["kind"] == KINDS.index(kind))]):
                yield from _fan_out(rule, source, rules)
    if rules.mode(Rule.ADDRESS_VELOCITY) is not Mode.OFF:
        for source in _sources(clicks[of_kind & (clicks["kind"] == KINDS.index(SourceKind.ADDRESS))]):
            yield from _crowd(source, rules)


def in_dense_windows(clicks: Clicks, least: int, window_ms: int) -> Flags:
    """Which clicks lie in a window of their source that holds at least so many."""
    size = len(clicks)
    flagged = np.zeros(size + 1, dtype=np.int64)
    if size >= least:
        begins = np.arange(size - least + 1)
        ends = begins + least - 1
        is_dense = (clicks["key"][begins] == clicks["key"][ends]) & (
            clicks["at_ms"][ends] - clicks["at_ms"][begins] <= window_ms
        )
        np.add.at(flagged, begins[is_dense], 1)
        np.add.at(flagged, ends[is_dense] + 1, -1)
    return np.asarray(np.cumsum(flagged)[:size] > 0)


def _by_source(rule: Rule, flagged: Clicks, evidence: dict[str, float]) -> Iterator[Found]:
    for source in _sources(flagged):
        span = int(source["at_ms"][-1] - source["at_ms"][0])
        yield Found(rule, source, {**evidence, "clicks": len(source), "span_ms": span})


def _sources(clicks: Clicks) -> Iterator[Clicks]:
    """One source after the other."""
    if len(clicks):
        yield from np.split(clicks, np.flatnonzero(clicks["key"][1:] != clicks["key"][:-1]) + 1)


def _fan_out(rule: Rule, source: Clicks, rules: InvalidRules) -> Iterator[Found]:
    """A device's whole window; of an address's only who is on as many campaigns as a device must not be."""
    limit = rules.device_fan_out if rule is Rule.DEVICE_FAN_OUT else rules.address_fan_out
    if len(np.unique(source["campaign"])) < limit.campaigns:
        return
    window, most = _Window(source, limit.window_ms), (0, 0)

    def is_guilty() -> bool:
        nonlocal most
        known = len(window.clicks) - (0 in window.clicks)
        guilty = len(window.campaigns) >= limit.campaigns and known >= limit.users
        most = max(most, (len(window.campaigns), known)) if guilty else most
        return guilty

    own = None if rule is Rule.DEVICE_FAN_OUT else (window.breadth, rules.device_fan_out.campaigns)
    flagged = window.flagged(is_guilty, own)
    if flagged.any():
        evidence = {"campaigns": most[0], "users": most[1], "window_ms": limit.window_ms}
        limits = {"campaigns_at_least": limit.campaigns, "users_at_least": limit.users}
        yield Found(rule, source[flagged], {**evidence, **limits})


def _crowd(source: Clicks, rules: InvalidRules) -> Iterator[Found]:
    """An address alone never convicts: of a crowded window only those who click unlike people."""
    limit = rules.address_velocity
    if len(source) < limit.clicks or not in_dense_windows(source, limit.clicks, limit.window_ms).any():
        return
    own_limit = -(-rules.user_velocity.clicks // CROWD_SHARE)
    window = _Window(source, limit.window_ms)
    flagged = window.flagged(lambda: window.end - window.begin >= limit.clicks, (window.clicks, own_limit))
    if flagged.any():
        limits = {"clicks_at_least": limit.clicks, "window_ms": limit.window_ms}
        evidence: dict[str, float] = {**limits, "own_clicks_at_least": own_limit}
        yield Found(Rule.ADDRESS_VELOCITY, source[flagged], evidence)


class _Window:
    """Slides over the clicks of one source, in a time that grows with their number only."""

    def __init__(self, source: Clicks, window_ms: int) -> None:
        self.begin = self.end = 0
        """The clicks inside are those of [begin, end)."""
        self.clicks: Counter[int] = Counter()
        """By user; 0: unknown."""
        self.campaigns: Counter[int] = Counter()
        self.breadth: Counter[int] = Counter()
        """Campaigns, by user."""
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._at_ms, self._window_ms = source["at_ms"].tolist(), window_ms
        self._users, self._campaigns = source["user"].tolist(), source["campaign"].tolist()
        self._places: dict[int, list[int]] = {}
        """Of each user's clicks."""
        for place, user in enumerate(self._users):
            self._places.setdefault(user, []).append(place)

    def flagged(self, is_guilty: Callable[[], bool], own: "tuple[Counter[int], int] | None") -> Flags:
        """Clicks of guilty windows: all, or those of known users of whom at least so much is counted there."""
        flagged = np.zeros(len(self._users), dtype=bool)
        known_until: dict[int, int] = {}
        was_guilty = False
        for entered in self._slide():
            guilty = is_guilty()
            if guilty and own is None:
                flagged[self.begin : self.end] = True
            elif guilty and own is not None:
                # who stood out in the window before is flagged up to its end already
                changed = {self._users[place] for place in entered} if was_guilty else set(self.clicks)
                for user in changed:
                    if user and own[0][user] >= own[1]:
                        places = self._places[user]
                        first = bisect_left(places, max(self.begin, known_until.get(user, 0)))
                        flagged[places[first : bisect_left(places, self.end)]] = True
                        known_until[user] = self.end
            was_guilty = guilty
        return flagged

    def _slide(self) -> Iterator[range]:
        """Each window that begins with a click; what has entered since the one before."""
        for begin, first_ms in enumerate(self._at_ms):
            if begin:
                self._leave(begin - 1)
            before = self.end
            while self.end < len(self._at_ms) and self._at_ms[self.end] - first_ms <= self._window_ms:
                self._enter(self.end)
                self.end += 1
            self.begin = begin
            yield range(before, self.end)

    def _enter(self, place: int) -> None:
        user, campaign = self._users[place], self._campaigns[place]
        self.clicks[user] += 1
        self.campaigns[campaign] += 1
        self._pairs[user, campaign] += 1
        self.breadth[user] += self._pairs[user, campaign] == 1

    def _leave(self, place: int) -> None:
        user, campaign = self._users[place], self._campaigns[place]
        _lower(self.clicks, user)
        _lower(self.campaigns, campaign)
        if _lower(self._pairs, (user, campaign)):
            _lower(self.breadth, user)


def _lower(counts: "Counter[Any]", key: Any) -> bool:
    """One less; whether none is left."""
    counts[key] -= 1
    is_gone = not counts[key]
    if is_gone:
        del counts[key]
    return is_gone
