"""Window rules over sources: velocity of users, devices and addresses, fan-out of devices and addresses.

Every rule is **monotone**: more clicks never take a flag away, so the flags are a function of the set of clicks. Each
look weighs only intervals that contain a click which is new; every interval is weighed when its last click comes, by
the rules that are in force then.

An address alone never convicts: carriers put thousands of people behind one. Both rules of addresses flag a click of
user u iff there is one interval of the rule's window that contains it, in which the address passes the threshold
**and** u alone has at least `person_clicks` clicks: half of what convicts a user, and at least that many per user's
window where the rule's is longer. So people behind a crowded address are judged more sternly, and one by one; clicks
of an unknown user are never flagged.

Click types with a number of their own are counted by themselves, as if they were a rule of their own: of a source, and
of a user behind an address. Who taps fifty cards and enters ten live rooms has done neither too often.
"""

from math import ceil
from typing import Final, NamedTuple

import numpy as np

from streams.events import ClickType
from streams.invalid import Counted, FanOut, InvalidRules, Mode, Rule, Velocity
from streams.stages.invalid.anchors import Anchors
from streams.stages.invalid.runs import Ints, Keys, Mask, chosen, key_by_user
from streams.stages.invalid.sliding import Timeline, covered, within
from streams.verdicts import Clicks

Evidence = dict[str, float]
Address = tuple[Counted, Counted]
"""What is counted of an address, and of each of its users."""
_TYPES: Final = tuple(ClickType)


class Finding(NamedTuple):
    """Clicks that a rule flags (told before or not), and what was seen of each source."""

    rule: Rule
    clicks: Clicks
    evidence: dict[int, Evidence]


def person_clicks(rules: InvalidRules, window_ms: int, convicting: int) -> int:
    """Clicks of one user in a window that are far above what people do; so many in a user's window convict it."""
    return max(2, ceil(convicting / 2 * max(1.0, window_ms / rules.user_velocity.window_ms)))


def least_clicks(rule: Rule, rules: InvalidRules) -> int:
    """Clicks that a source needs before the rule can speak."""
    return min(each.clicks for each in counted(rule, rules))


def counted(rule: Rule, rules: InvalidRules) -> list[Counted]:
    """What the rule counts apart, and how many clicks it takes at least."""
    bound = bound_of(rule, rules)
    if isinstance(bound, Velocity):
        return bound.counted(rules.velocity_types)
    both, alone = max(bound.campaigns, bound.users), (bound.campaigns_alone, bound.users_alone)
    return [Counted(_TYPES, min(each for each in (both, *alone) if each))]


def counted_of_addresses(rule: Rule, rules: InvalidRules) -> list[Address]:
    """The same for a rule of addresses; of users as many as are far above what people do."""
    window_ms, found = bound_of(rule, rules).window_ms, []
    for whole in counted(rule, rules):
        found += [
            (whole, Counted(own.types, person_clicks(rules, window_ms, own.clicks)))
            for own in rules.user_velocity.counted(whole.types)
        ]
    return found


def bound_of(rule: Rule, rules: InvalidRules) -> Velocity | FanOut:
    """The thresholds of a rule, which are the field of its name."""
    bound: Velocity | FanOut = getattr(rules, rule.value)
    return bound


def is_on(rule: Rule, rules: InvalidRules) -> bool:
    """Whether the rule finds anything."""
    return rules.mode(rule) is not Mode.OFF


def of_types(clicks: Clicks, types: tuple[ClickType, ...]) -> Mask:
    """Which of the clicks are of these types."""
    if len(types) == len(_TYPES):
        return np.ones(len(clicks), dtype=bool)
    return np.isin(clicks["click_type"], [_TYPES.index(each) for each in types])


class Crowd:
    """Clicks of some sources in order, those that are counted, and which of their intervals pass the threshold."""

    def __init__(self, bound: Velocity | FanOut, whole: Counted, old: Clicks, new: Clicks) -> None:
        clicks = np.concatenate((old, new))
        is_meant = of_types(clicks, whole.types)
        is_new = (np.arange(len(clicks)) >= len(old))[is_meant]
        clicks = chosen(clicks, is_meant)
        order = np.lexsort((clicks["at_ms"], clicks["source"]))
        self.bound, self.whole = bound, whole
        self.clicks: Clicks = clicks.take(order)
        self.line = Timeline(self.clicks["source"], self.clicks["at_ms"])
        self.places: Ints = np.arange(len(order), dtype=np.int64)
        self.ends = self.line.ends(bound.window_ms)
        self.seen = self._seen()
        self.reaching = self._reaching()
        """Intervals that begin at each click and reach the thresholds."""
        self.passing: Mask = self.reaching & (within(is_new[order], self.places, self.ends) > 0)
        """Those of them that hold something new."""

    def _seen(self) -> dict[str, Ints]:
        """What is in the interval that begins at each click."""
        seen = {"clicks": self.ends - self.places}
        if isinstance(self.bound, FanOut):
            seen["campaigns"] = self.line.distinct(self.clicks["campaign"], self.bound.window_ms)
            seen["users"] = self.line.distinct(self.clicks["user"], self.bound.window_ms)
        return seen

    def _reaching(self) -> Mask:
        if isinstance(self.bound, Velocity):
            return self.seen["clicks"] >= self.whole.clicks
        campaigns, users, bound = self.seen["campaigns"], self.seen["users"], self.bound
        found = (campaigns >= bound.campaigns) & (users >= bound.users)
        for seen, alone in ((campaigns, bound.campaigns_alone), (users, bound.users_alone)):
            if alone:
                found |= seen >= alone
        return found

    def _thresholds(self) -> dict[str, int]:
        if isinstance(self.bound, Velocity):
            return {"clicks": self.whole.clicks}
        names = ("campaigns", "users", "campaigns_alone", "users_alone")
        return {name: getattr(self.bound, name) for name in names if getattr(self.bound, name)}

    def evidence(self, sources: Keys) -> dict[int, Evidence]:
        """Of each source: the most that an interval of this look holds (at least), the window, and the thresholds."""
        fixed: Evidence = {"window_ms": float(self.bound.window_ms)}
        fixed |= {f"threshold_{name}": float(least) for name, least in self._thresholds().items()}
        if isinstance(self.bound, Velocity) and set(self.whole.types) <= set(self.bound.clicks_by_type):
            fixed |= {f"only_{each}": 1.0 for each in self.whole.types}
        found = {source: dict(fixed) for source in np.unique(sources).tolist()}
        passing = np.flatnonzero(self.passing)
        owners = self.clicks["source"][passing].tolist()
        for name, amounts in self.seen.items():
            for owner, amount in zip(owners, amounts[passing].tolist(), strict=True):
                if owner in found and found[owner].get(name, -1.0) < amount:
                    found[owner][name] = float(amount)
        return found


def of_sources(
    rule: Rule, whole: Counted, rules: InvalidRules, old: Clicks, new: Clicks, anchors: Anchors
) -> Finding | None:
    """Velocity of users and devices, fan-out of devices: every click of a passing interval is flagged."""
    crowd = Crowd(bound_of(rule, rules), whole, anchors.needed(old, new), new)
    anchors.learn(crowd.clicks, crowd.line, crowd.reaching, crowd.bound.window_ms)
    if not crowd.passing.any():
        return None
    is_flagged = covered(crowd.places[crowd.passing], crowd.ends[crowd.passing], len(crowd.places))
    flagged = chosen(crowd.clicks, is_flagged)
    return Finding(rule, flagged, crowd.evidence(flagged["source"]))


def of_addresses(
    rule: Rule, each: Address, rules: InvalidRules, old: Clicks, new: Clicks, suspects: Keys | None = None
) -> tuple[Finding | None, Keys]:
    """Velocity and fan-out of addresses; and the keys of users who click unlike people, whether flagged or not.

    `person_clicks` clicks of a user in a row that fit into one window are a **burst**. Intervals that hold all of it
    begin between its last click less the window and its first click; it is flagged iff one of those passes. Only the
    users with the keys of `suspects` are looked at; None: all.
    """
    crowd = Crowd(bound_of(rule, rules), each[0], old, new)
    clicks, window_ms, own = crowd.clicks, crowd.bound.window_ms, each[1]
    least, is_asked = own.clicks, of_types(clicks, own.types)
    asked = np.flatnonzero(is_asked if suspects is None else is_asked & np.isin(key_by_user(clicks), suspects))
    order = asked[np.lexsort((asked, clicks["user"][asked], crowd.line.group[asked]))]
    users, groups, at_ms = clicks["user"][order], crowd.line.group[order], clicks["at_ms"][order]
    starts = np.flatnonzero(_bursts(users, groups, at_ms, least, window_ms))
    unlike_people = np.unique(key_by_user(clicks.take(order[starts])))
    if not len(starts) or not crowd.passing.any():
        return None, unlike_people
    from_ms = at_ms[starts + least - 1] - window_ms
    begins, ends = crowd.line.from_to(groups[starts], from_ms, at_ms[starts])
    starts = starts[within(crowd.passing, begins, ends) > 0]
    flagged = clicks.take(order[covered(starts, starts + least, len(order))])
    if not len(flagged):
        return None, unlike_people
    evidence = crowd.evidence(flagged["source"])
    for seen in evidence.values():
        seen["threshold_person_clicks"] = float(least)
    return Finding(rule, flagged, evidence), unlike_people


def _bursts(users: Keys, groups: Ints, at_ms: Ints, least: int, window_ms: int) -> Mask:
    """Whether so many clicks of one known user, from this one on, fit into the window."""
    found = np.zeros(len(users), dtype=bool)
    reach = len(users) - least + 1
    if reach > 0:
        last = slice(least - 1, None)
        same = (users[:reach] == users[last]) & (groups[:reach] == groups[last]) & (users[:reach] != 0)
        found[:reach] = same & (at_ms[last] - at_ms[:reach] <= window_ms)
    return found
