"""Small integers for the keys that events carry, so that whole batches can be grouped by arrays of numbers."""

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from streams.records import OTHER

Names = tuple[Any, ...]
Ints = npt.NDArray[np.int64]
MAX_KEYS: Final = 1 << 20
"""Keys of one table; beyond it the table is made anew from what still waits (`streams.state.inputs`)."""


class Numbering(Protocol):
    """Keys and their numbers in this process. Names and numbers stand for each other, one to one."""

    def names_of(self, number: int) -> Names:
        """What a number stands for."""
        ...

    def number_of(self, names: Names) -> int:
        """The number of a key: a new one's is the next."""
        ...

    def others_of(self, numbers: Ints) -> Ints:
        """The numbers of the keys that these fold into (`other_of`)."""
        ...


def other_of(names: Names) -> Names:
    """What a key folds into: its campaign's `other`. Currencies are never summed, nor are validities."""
    campaign, _, _, _, currency, validity, *rest = names
    return (campaign, OTHER, OTHER, OTHER, currency, validity, *(OTHER if type(p) is str else p for p in rest))


class KeyTable(dict[Names, int]):
    """Look up `table[names]`: a new combination gets the next number. None and '' are the same name.

    A dict, so that `map(table.__getitem__, zip(...))` runs without a call of ours for keys that are known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[Names] = []
        self._canonical: dict[Names, int] = {}
        self._others: dict[int, int] = {}
        """By number: that of what it folds into, once it was asked for."""

    def __missing__(self, raw: Names) -> int:
        names = tuple(["" if name is None else name for name in raw])
        number = self._canonical.get(names)
        if number is None:
            number = self._canonical[names] = len(self.names)
            self.names.append(names)
        self[raw] = number
        return number

    def names_of(self, number: int) -> Names:
        """What a number stands for."""
        return self.names[number]

    def number_of(self, names: Names) -> int:
        """The key's number."""
        return self[names]

    def others_of(self, numbers: Ints) -> Ints:
        """The numbers of their campaigns' `other`."""
        wanted, inverse = np.unique(numbers, return_inverse=True)
        known = self._others
        known.update((n, self[other_of(self.names[n])]) for n in wanted.tolist() if n not in known)
        return np.array(list(map(known.__getitem__, wanted.tolist())), dtype=np.int64)[inverse]

    def clear(self) -> None:
        """Forgets all numbers."""
        super().clear()
        self.names.clear()
        self._canonical.clear()
        self._others.clear()


class JoinedKeys:
    """Keys of two parts: a left table's number, and in the low `bits` a right table's."""

    def __init__(self, left: KeyTable, right: KeyTable, bits: int, left_width: int) -> None:
        self.left, self.right = left, right
        self.bits = bits
        self.mask = (1 << bits) - 1
        self._left_width = left_width

    def names_of(self, number: int) -> Names:
        """The names of both parts, one behind the other."""
        return (*self.left.names[number >> self.bits], *self.right.names[number & self.mask])

    def number_of(self, names: Names) -> int:
        """The key's number."""
        return (self.left[names[: self._left_width]] << self.bits) | self.right[names[self._left_width :]]

    def others_of(self, numbers: Ints) -> Ints:
        """The numbers of their campaigns' `other`, in everything that the right table tells as well."""
        right = self.right[(OTHER,) * len(self.right.names[int(numbers[0]) & self.mask])]
        return (self.left.others_of(numbers >> self.bits) << self.bits) | right
