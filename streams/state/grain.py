"""Totals of the current effect pane at one grain, and what has been added since they were last published.

Between two folds, events are added to **deltas** (one per effect pane). A fold, at a tick, adds the deltas to the
**totals** and yields every key that changed with its totals so far. Once the effect pane moves on, its rows can never
change again (the newest event time of a topic-partition never goes back), so its totals are forgotten.

Keys begin with the origin pane. They are admitted per effect pane, in offset order, up to a limit; the rest fold into
`other`, first by campaign, beyond twice the limit altogether.
"""

from collections.abc import Iterator
from operator import add
from typing import Any, NamedTuple

from streams.records import OTHER

Key = tuple[Any, ...]
"""(origin pane ms, campaign, ad unit, creative, variant, currency, …): strings, or None for ''."""
Values = list[int]


class Changed(NamedTuple):
    """One key after a fold."""

    effect_pane_ms: int
    key: Key
    totals: Values
    delta: Values


class Grain:
    """One input's totals at one pane size."""

    def __init__(self, pane_ms: int, max_keys: int, width: int) -> None:
        self.pane_ms = pane_ms
        self.max_keys = max_keys
        self.width = width
        self.effect_pane_ms = -1
        self.totals: dict[Key, Values] = {}
        self.folded_events = 0
        self._totals_pane_ms = -1
        self._deltas: list[tuple[int, dict[Key, Values]]] = []
        self._new_keys = 0
        self.lookup: dict[Key, Values] = {}
        """Keys as events have them, to the values of the open delta. Look here first, then call `start`."""

    def move_to(self, effect_pane_ms: int) -> None:
        """The newest event time has entered another pane."""
        if effect_pane_ms < self.effect_pane_ms:
            raise AssertionError("an effect pane never goes back")
        self.effect_pane_ms = effect_pane_ms
        self._new_keys = 0
        self._open()

    def _open(self) -> None:
        self.lookup = {}
        self._deltas.append((self.effect_pane_ms, {}))

    def start(self, raw: Key) -> Values:
        """The values to which an event with this key is added, where `lookup` has none."""
        key = tuple(["" if part is None else part for part in raw])
        delta = self._deltas[-1][1]
        values = delta.get(key)
        if values is None and not self._is_admitted(key):
            return self._other(key)
        if values is None:
            values = delta[key] = self._zeros()
        self.lookup[raw] = values
        return values

    def _is_admitted(self, key: Key) -> bool:
        if self._totals_pane_ms == self.effect_pane_ms and key in self.totals:
            return True
        if self._count() >= self.max_keys:
            return False
        self._new_keys += 1
        return True

    def _count(self) -> int:
        known = len(self.totals) if self._totals_pane_ms == self.effect_pane_ms else 0
        return known + self._new_keys

    def _other(self, key: Key) -> Values:
        """Beyond the limit; the currency is kept, for currencies are never summed."""
        origin, campaign, _, _, _, currency, *rest = key
        if self._count() >= 2 * self.max_keys:
            campaign = OTHER
        folded = (origin, campaign, OTHER, OTHER, OTHER, currency, *(OTHER if type(p) is str else p for p in rest))
        self.folded_events += 1
        delta = self._deltas[-1][1]
        values = delta.get(folded)
        if values is None:
            if not (self._totals_pane_ms == self.effect_pane_ms and folded in self.totals):
                self._new_keys += 1
            values = delta[folded] = self._zeros()
        return values

    def _zeros(self) -> Values:
        return [0] * self.width

    def fold(self) -> Iterator[Changed]:
        """Adds the deltas to the totals, in order; yields each key changed with copies of its totals."""
        for pane, delta in self._deltas:
            if pane != self._totals_pane_ms:
                self.totals, self._totals_pane_ms = {}, pane
            for key, values in delta.items():
                totals = self.totals.get(key)
                self.totals[key] = self._sum(totals, values) if totals else self._first(values)
                yield Changed(pane, key, self.totals[key], values)
        self._deltas = []
        self._new_keys = 0
        if self.effect_pane_ms >= 0:
            self._open()

    def _first(self, values: Values) -> Values:
        return values

    def _sum(self, totals: Values, values: Values) -> Values:
        return list(map(add, totals, values))

    @property
    def has_closed_pane(self) -> bool:
        """Whether a delta waits whose effect pane can get no more events."""
        return len(self._deltas) > 1 or bool(self._deltas and self._deltas[0][0] != self.effect_pane_ms)

    @property
    def is_clean(self) -> bool:
        """Whether nothing waits to be folded."""
        return not any(delta for _, delta in self._deltas)

    def snapshot(self) -> dict[str, object]:
        """The grain as plain values, deltas folded or not."""
        return {
            "pane_ms": self.pane_ms,
            "effect_pane_ms": self.effect_pane_ms,
            "totals_pane_ms": self._totals_pane_ms,
            "totals": list(self.totals.items()),
            "deltas": [(pane, [(k, self._plain(v)) for k, v in delta.items()]) for pane, delta in self._deltas],
            "new_keys": self._new_keys,
            "folded_events": self.folded_events,
        }

    @staticmethod
    def _plain(values: Values) -> Values:
        return values

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.pane_ms = snapshot["pane_ms"]
        self.effect_pane_ms = snapshot["effect_pane_ms"]
        self._totals_pane_ms = snapshot["totals_pane_ms"]
        self.totals = {_key(k): self._unplain(v) for k, v in snapshot["totals"]}
        self._deltas = [(pane, {_key(k): self._unplain(v) for k, v in delta}) for pane, delta in snapshot["deltas"]]
        self._new_keys, self.folded_events = snapshot["new_keys"], snapshot["folded_events"]
        self.lookup = {}

    @staticmethod
    def _unplain(values: Values) -> Values:
        return values


def _key(parts: list[Any]) -> Key:
    return tuple(parts)
