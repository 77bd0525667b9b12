"""The report grain: totals with a mergeable sketch of unique users (reach).

The sketch is KMV (k minimum values; Bar-Yossef et al. 2002): the k smallest 64-bit hashes of user ids. A sorted list
of integers that anyone can merge in SQL; exact below k users, relative standard error 1/sqrt(k-2) above.
"""

from typing import Any

from streams.state.grain import Grain, Values

TRIM_AT = 16
"""A sketch that has grown to this many times k between two folds is cut back to k."""


class ReportGrain(Grain):
    """Values have one more place at the end: the set (later sorted list) of user hashes."""

    def __init__(self, pane_ms: int, max_keys: int, width: int, sample: int) -> None:
        super().__init__(pane_ms, max_keys, width)
        self.sample = sample

    def _zeros(self) -> Values:
        values: list[Any] = [0] * self.width
        values.append(set())
        return values

    def _first(self, values: Values) -> Values:
        return [*values[:-1], self._smallest(values[-1])]  # type: ignore[arg-type,list-item]

    def _sum(self, totals: Values, values: Values) -> Values:
        users = values[-1]
        merged = self._smallest(users.union(totals[-1])) if users else totals[-1]  # type: ignore[attr-defined]
        return [*(a + b for a, b in zip(totals[:-1], values[:-1], strict=True)), merged]

    def _smallest(self, users: set[int]) -> list[int]:
        return sorted(users)[: self.sample]

    def trim(self) -> None:
        """Bounds what waits: keeps only the hashes that a sketch can need."""
        for _, delta in self._deltas:
            for values in delta.values():
                users: set[int] = values[-1]  # type: ignore[assignment]
                if len(users) > TRIM_AT * self.sample:
                    kept = self._smallest(users)
                    users.clear()
                    users.update(kept)

    @staticmethod
    def _plain(values: Values) -> Values:
        return [*values[:-1], sorted(values[-1])]  # type: ignore[call-overload]

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; sketches that still wait become sets again."""
        super().restore(snapshot)
        for _, delta in self._deltas:
            for values in delta.values():
                values[-1] = set(values[-1])  # type: ignore[call-overload]
