"""What a tick adds of one input, by campaign: from the decision grain's changed keys to sums as windows take them."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.events import Input
from streams.records import DECISION_KEY, MEASURES_OF, VALID
from streams.rules import LIMIT
from streams.stages.count import SPEND, index_of
from streams.state.grain import Changed
from streams.state.keys import Ints, Names
from streams.state.windows import GROSS, WINDOW_INDEX, Amounts

Changes = Sequence[tuple[Changed, list[Names]]]
"""What folds have changed, and the names of each row's key."""
GROSS_PLACE: Final = {WINDOW_INDEX[name]: WINDOW_INDEX[gross] for gross, name in GROSS.items()}
"""Where the gross measure of a valid one stands."""
_CURRENCY: Final = DECISION_KEY.index("currency")
_VALIDITY: Final = DECISION_KEY.index("validity")


def _window_places(source: Input) -> list[tuple[int, int]]:
    """(place in the input's values, place in WINDOW_MEASURES)."""
    own = [(index_of(source, m), WINDOW_INDEX[m]) for m in MEASURES_OF[source] if m in WINDOW_INDEX]
    return [*own, (SPEND, WINDOW_INDEX["spend_millimicros"])]


WINDOW_PLACES: Final = {source: _window_places(source) for source in Input}


def added(
    source: Input, changes: Changes, is_foreign: Callable[[str, str], bool]
) -> tuple[list[tuple[str, int]], Amounts]:
    """(campaign, origin pane ms) each once, and for each a row of sums in the order of WINDOW_MEASURES.

    Spend is left out where `is_foreign` (campaign, currency): currencies are never summed.
    """
    names = [each for _, part in changes for each in part]
    panes, at = _panes(names, np.concatenate([changed.origin for changed, _ in changes]))
    amounts = np.concatenate([changed.added for changed, _ in changes])
    amounts[_foreign_rows(names, amounts[:, SPEND], is_foreign), SPEND] = 0
    is_valid = np.array([each[_VALIDITY] == VALID for each in names])
    return panes, _summed(source, at, amounts, is_valid)


def _panes(names: list[Names], origins: Ints) -> tuple[list[tuple[str, int]], Ints]:
    """The different (campaign, origin pane) pairs, and which of them each row is of."""
    known: dict[tuple[str, int], int] = {}
    pairs = zip(map(itemgetter(0), names), origins.tolist(), strict=True)
    at = np.array([known.setdefault(pair, len(known)) for pair in pairs])
    return list(known), at


def _foreign_rows(names: list[Names], spends: Ints, is_foreign: Callable[[str, str], bool]) -> list[int]:
    """Rows that spend in another currency than their campaign's."""
    spending = np.flatnonzero(spends).tolist()
    pairs = dict.fromkeys((names[row][0], names[row][_CURRENCY]) for row in spending)  # the first sets a currency
    foreign = {pair for pair in pairs if is_foreign(*pair)}
    return [row for row in spending if (names[row][0], names[row][_CURRENCY]) in foreign] if foreign else []


def _summed(source: Input, at: Ints, amounts: Ints, is_valid: npt.NDArray[np.bool_]) -> Amounts:
    places, indices = (list(part) for part in zip(*WINDOW_PLACES[source], strict=True))
    order = np.argsort(at, kind="stable")
    starts = np.flatnonzero(np.diff(at[order], prepend=-1))
    chosen: Amounts = amounts[order][:, places]
    if int(np.abs(chosen).max()) > LIMIT // len(chosen):  # a sum might not fit: exact, and slow
        chosen = chosen.astype(object)
    sums = np.zeros((len(starts), len(WINDOW_INDEX)), dtype=chosen.dtype)
    all_traffic = np.add.reduceat(chosen, starts, axis=0)
    valid = is_valid[order]
    sums[:, indices] = all_traffic if valid.all() else np.add.reduceat(chosen * valid[:, None], starts, axis=0)
    gross = [(column, GROSS_PLACE[index]) for column, index in enumerate(indices) if index in GROSS_PLACE]
    sums[:, [place for _, place in gross]] = all_traffic[:, [column for column, _ in gross]]
    return sums
