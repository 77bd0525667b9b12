"""A plan: how the rest of a period's budget is to be spent, in parts that sum to it exactly."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from streams.rules import HOUR_MS, MINUTE_MS
from streams.stages.pacing.sessions import MINUTES
from streams.terms import PacingMode

MAX_PARTS: Final = 2_000
Weights = tuple[list[int], list[float]]


class Plan(NamedTuple):
    """Made at one moment for what was left then; what had been spent by then is a fact and stays as it is.

    `spent_micros + sum(parts) == budget_micros` wherever the budget was not yet spent; otherwise the parts are 0.
    """

    made_ms: int
    spent_micros: int
    budget_micros: int
    bounds: tuple[int, ...]
    """Bounds of the parts, ascending, epoch ms: one more than there are parts."""
    parts: tuple[int, ...]
    """Micros of each part."""
    sums: tuple[int, ...]
    """What should have been spent at each bound."""

    def target_at(self, at_ms: int) -> int:
        """What should have been spent by then, micros: linear within a part."""
        bounds = self.bounds
        if at_ms >= bounds[-1]:
            return self.sums[-1]
        if at_ms <= bounds[0]:
            return self.spent_micros
        at = bisect_right(bounds, at_ms) - 1
        return self.sums[at] + self.parts[at] * (at_ms - bounds[at]) // (bounds[at + 1] - bounds[at])

    def pack(self) -> list[Any]:
        """Builtin values."""
        return [self.made_ms, self.spent_micros, self.budget_micros, list(self.bounds), list(self.parts)]


def unpack_plan(packed: list[Any]) -> Plan:
    """Takes back what `Plan.pack` gave."""
    made, spent, budget, bounds, parts = packed
    return _plan(made, spent, budget, bounds, parts)


def _plan(made_ms: int, spent: int, budget: int, bounds: Sequence[int], parts: Sequence[int]) -> Plan:
    sums = tuple(accumulate(parts, initial=spent))
    return Plan(made_ms, spent, budget, tuple(bounds), tuple(parts), sums)


def split(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights whose sum is the total exactly; equal parts where all are 0.

    Each bound is rounded, not each part, so errors do not add up.
    """
    whole = sum(weights)
    if whole <= 0:
        weights, whole = [1.0] * len(weights), float(len(weights))
    marks = [min(total, round(total * (part / whole))) for part in accumulate(weights)]
    marks[-1] = total
    return [after - before for before, after in pairwise([0, *marks])]


def make_plan(mode: PacingMode, now_ms: int, end_ms: int, spent: int, budget: int, bounds_weights: Weights) -> Plan:
    """Plans the rest of a period, micros.

    `bounds_weights` are the bounds and expected traffic of the parts, from `now_ms` to `end_ms`; even plans use only
    the bounds, and one that spends as soon as possible wants everything at once.
    """
    rest = max(0, budget - spent)
    bounds, weights = bounds_weights
    if mode is PacingMode.AS_SOON_AS_POSSIBLE or end_ms <= now_ms:
        return _plan(now_ms, spent, budget, [now_ms - 1, now_ms], [rest])
    if mode is PacingMode.EVEN:
        weights = [float(after - before) for before, after in pairwise(bounds)]
    return _plan(now_ms, spent, budget, bounds, split(rest, weights))


def hour_bounds(now_ms: int, end_ms: int) -> list[int]:
    """From now to the end, by hours. At most `MAX_PARTS` parts."""
    first = now_ms // HOUR_MS * HOUR_MS + HOUR_MS
    step = HOUR_MS * (1 + (end_ms - now_ms) // (HOUR_MS * MAX_PARTS))
    return [now_ms, *range(first, end_ms, step), end_ms]


def session_bounds(now_ms: int, end_ms: int) -> list[int]:
    """As `hour_bounds`, of a live session: by minutes, longer ones where it has very many."""
    step = max(MINUTE_MS, (end_ms - now_ms) // MINUTES)
    return [now_ms, *range(now_ms + step, end_ms, step), end_ms]
