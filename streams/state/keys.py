"""Small integers for the keys that events carry, so that whole batches can be grouped by arrays of numbers."""

from typing import Any, Final

Names = tuple[Any, ...]
MAX_KEYS: Final = 1 << 20
"""Keys of one table; beyond it the table is made anew from what still waits (`streams.state.inputs`)."""


class JoinedNames(dict[int, Names]):
    """What joined numbers stand for: a left table's number, and in the low bits a right table's. Remembers answers."""

    def __init__(self, left: "KeyTable", right: "KeyTable", bits: int) -> None:
        super().__init__()
        self._left, self._right, self._bits = left, right, bits

    def __missing__(self, number: int) -> Names:
        names = (*self._left.names[number >> self._bits], *self._right.names[number & ((1 << self._bits) - 1)])
        if len(self) < MAX_KEYS:
            self[number] = names
        return names


class KeyTable(dict[Names, int]):
    """Look up `table[names]`: a new combination gets the next number. None and '' are the same name.

    A dict, so that `map(table.__getitem__, zip(...))` runs without a call of ours for keys that are known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[Names] = []
        self._canonical: dict[Names, int] = {}

    def __missing__(self, raw: Names) -> int:
        names = tuple(["" if name is None else name for name in raw])
        number = self._canonical.get(names)
        if number is None:
            number = self._canonical[names] = len(self.names)
            self.names.append(names)
        self[raw] = number
        return number

    def clear(self) -> None:
        """Forgets all numbers."""
        super().clear()
        self.names.clear()
        self._canonical.clear()
