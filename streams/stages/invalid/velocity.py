"""Windows over the clicks of one source: velocity and fan-out.

Every rule here is monotone: which clicks it flags is a function of the set of clicks, and more clicks never take a flag
back. So neither the order in which evidence comes nor when it is decided on changes what is flagged in the end. A click
is flagged if there is an interval of event time, as long as the window, that contains it and reaches the thresholds;
the intervals that begin with a click suffice.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

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
    own_least = 0 if rule is Rule.DEVICE_FAN_OUT else rules.device_fan_out.campaigns
    if len(np.unique(source["campaign"])) < limit.campaigns or not _roams(source, own_least).any():
        return
    campaigns: Counter[int] = Counter()
    users: Counter[int] = Counter()
    flagged, most = np.zeros(len(source), dtype=bool), (0, 0)
    of, by = source["campaign"].tolist(), source["user"].tolist()
    for begin, end, entered, left in _windows(source["at_ms"].tolist(), limit.window_ms):
        _shift(campaigns, of, entered, left)
        _shift(users, by, entered, left)
        known = len(users) - (0 in users)
        if len(campaigns) >= limit.campaigns and known >= limit.users:
            flagged[begin:end] |= _roams(source[begin:end], own_least)
            most = max(most, (len(campaigns), known))
    if flagged.any():
        evidence = {"campaigns": most[0], "users": most[1], "window_ms": limit.window_ms}
        limits = {"campaigns_at_least": limit.campaigns, "users_at_least": limit.users}
        yield Found(rule, source[flagged], {**evidence, **limits})


def _roams(window: Clicks, least: int) -> Flags:
    """Whose clicks in the window are on at least so many campaigns."""
    if not least:
        return np.ones(len(window), dtype=bool)
    pairs = np.unique(window[["user", "campaign"]])
    users, counts = np.unique(pairs["user"], return_counts=True)
    roaming = users[(counts >= least) & (users != 0)]
    return np.isin(window["user"], roaming)


def _crowd(source: Clicks, rules: InvalidRules) -> Iterator[Found]:
    """An address alone never convicts: of a crowded window only those who click unlike people."""
    limit = rules.address_velocity
    if len(source) < limit.clicks or not in_dense_windows(source, limit.clicks, limit.window_ms).any():
        return
    own_limit = -(-rules.user_velocity.clicks // CROWD_SHARE)
    users: Counter[int] = Counter()
    by, flagged = source["user"].tolist(), np.zeros(len(source), dtype=bool)
    for begin, end, entered, left in _windows(source["at_ms"].tolist(), limit.window_ms):
        _shift(users, by, entered, left)
        if end - begin >= limit.clicks:
            busy = {user for user, count in users.items() if user and count >= own_limit}
            if busy:
                flagged[begin:end] |= np.isin(source["user"][begin:end], list(busy))
    if flagged.any():
        limits = {"clicks_at_least": limit.clicks, "window_ms": limit.window_ms}
        evidence: dict[str, float] = {**limits, "own_clicks_at_least": own_limit}
        yield Found(Rule.ADDRESS_VELOCITY, source[flagged], evidence)


def _windows(at_ms: list[int], window_ms: int) -> Iterator[tuple[int, int, range, range]]:
    """Each window that begins with a click, as [begin, end), with what entered and left since the one before."""
    end = 0
    for begin, first_ms in enumerate(at_ms):
        before = end
        while end < len(at_ms) and at_ms[end] - first_ms <= window_ms:
            end += 1
        yield begin, end, range(before, end), range(begin - 1 if begin else 0, begin)


def _shift(counts: "Counter[int]", values: list[int], entered: range, left: range) -> None:
    for at in left:
        counts[values[at]] -= 1
        if not counts[values[at]]:
            del counts[values[at]]
    for at in entered:
        counts[values[at]] += 1
