"""A publisher's risk score, and the parts that it is the sum of.

The model is boosted trees of one depth (Friedman 2001; second-order steps as in Chen & Guestrin 2016), fitted by
`streams.jobs.publisher_fit`. On the way down a tree each split moves the expected log-odds from its node's value to
that of the child; the move is credited to the split's feature (Saabas 2014). So the parts, and the base, add up to the
log-odds exactly, and the score is their logistic in [0, 1].

What the score is not: a verdict, or a probability among publishers of another network. It orders publishers for a
reviewer. No feature is claimed to be monotone: fraud is at middle volumes, where it pays and does not stand out.

A feature without a value takes both ways at a split, weighted with the share of publishers that went each way when the
model was fitted, and has no part. Where the clicks or more than half of the columns are missing there is no score.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.stages.invalid.publisher_features import COLUMNS, FEATURES, Floats, Gap, Group, features_of, read_columns

NO_SPLIT: Final = -1
MIN_KNOWN_SHARE: Final = 0.5
"""Share of the columns that must be there for a score."""
CHUNK: Final = 64
"""Publishers judged at once; bounds memory to some megabytes."""


class Model(msgspec.Struct, frozen=True):
    """Boosted trees as arrays: nodes of a tree are in heap order, so that node i has the children 2i+1 and 2i+2.

    Attributes:
        features: names of the inputs that it was fitted with.
        base: log-odds before the first tree.
        splits: per tree and inner node, the feature's place, or -1: everything goes left.
        thresholds: per tree and inner node; what is greater goes right.
        leaves: per tree and leaf, what it adds to the log-odds.
        covers: per tree and leaf, publishers that ended there when the model was fitted.
        about: what it was fitted on and how, for people.
    """

    features: list[str]
    base: float
    splits: list[list[int]]
    thresholds: list[list[float]]
    leaves: list[list[float]]
    covers: list[list[int]]
    about: dict[str, str | int | float] = {}


class Part(NamedTuple):
    """What one feature adds to the log-odds; `value` is the feature's own."""

    feature: str
    group: Group
    words: str
    value: float
    log_odds: float


class Risk(NamedTuple):
    """One publisher. score = logistic(base + the sum of the parts' log-odds); None: unverifiable, `gaps` say why."""

    score: float | None
    base: float
    parts: tuple[Part, ...]
    gaps: dict[str, Gap]

    @property
    def groups(self) -> dict[Group, float]:
        """The parts' log-odds by what they are about."""
        sums = dict.fromkeys(Group, 0.0)
        for part in self.parts:
            sums[part.group] += part.log_odds
        return sums

    def largest(self, count: int) -> tuple[Part, ...]:
        """The parts that move the score most, up or down."""
        return tuple(sorted(self.parts, key=lambda part: (-abs(part.log_odds), part.feature))[:count])


class Forest:
    """A model, made ready to judge."""

    def __init__(self, model: Model) -> None:
        """Raises ValueError for a model of other features: it could not be read as it was meant."""
        if model.features != [feature.name for feature in FEATURES]:
            raise ValueError("the model was fitted with other features")
        self._base = model.base
        self._splits = np.array(model.splits, dtype=np.int64)
        self._thresholds = np.array(model.thresholds, dtype=np.float64)
        self._values, self._right_share = _node_values(model)
        self._start = model.base + float(self._values[:, 0].sum())

    @property
    def base(self) -> float:
        """Log-odds of a publisher of which nothing is known."""
        return self._start

    def parts(self, features: Floats) -> Floats:
        """What each feature adds to the log-odds: publishers × features."""
        found = [self._parts(features[at : at + CHUNK]) for at in range(0, len(features), CHUNK)]
        return np.concatenate(found) if found else np.zeros((0, len(FEATURES)))

    def log_odds(self, features: Floats) -> Floats:
        """The base and the parts, added up."""
        total: Floats = self._start + self.parts(features).sum(axis=1)
        return total

    def _parts(self, features: Floats) -> Floats:
        trees, inner = self._splits.shape
        parts = np.zeros((len(features), len(FEATURES)))
        reached = np.zeros((len(features), trees, self._values.shape[1]))
        reached[:, :, 0] = 1.0
        for node in range(inner):
            split = self._splits[:, node]
            right = _share_right(features, split, self._thresholds[:, node], self._right_share[:, node])
            left_value, right_value = self._values[:, 2 * node + 1], self._values[:, 2 * node + 2]
            moved = (1 - right) * left_value + right * right_value - self._values[:, node]
            here = reached[:, :, node]
            for at in np.unique(split[split != NO_SPLIT]):
                of = split == at
                parts[:, at] += (here[:, of] * moved[:, of]).sum(axis=1)
            reached[:, :, 2 * node + 1] = here * (1 - right)
            reached[:, :, 2 * node + 2] = here * right
        parts[np.isnan(features)] = 0.0  # nothing but rounding: both ways were taken
        return parts


def _share_right(features: Floats, split: npt.NDArray[np.int64], thresholds: Floats, right_share: Floats) -> Floats:
    """How much of each publisher goes right at one node of every tree: 0 or 1, or a share where it is not known."""
    values = features[:, np.maximum(split, 0)]
    right = np.where(np.isnan(values), right_share, values > thresholds)
    right[:, split == NO_SPLIT] = 0.0
    return right


def _node_values(model: Model) -> tuple[Floats, Floats]:
    """Expected log-odds at every node, and the share that goes right at the inner ones."""
    leaves, covers = np.array(model.leaves, dtype=np.float64), np.array(model.covers, dtype=np.float64)
    trees, inner = np.array(model.splits).shape
    values = np.concatenate([np.zeros((trees, inner)), leaves], axis=1)
    weights = np.concatenate([np.zeros((trees, inner)), covers], axis=1)
    shares = np.zeros((trees, inner))
    for node in reversed(range(inner)):
        left, right = weights[:, 2 * node + 1], weights[:, 2 * node + 2]
        total = left + right
        share = np.divide(right, total, out=np.zeros(trees), where=total > 0)
        values[:, node] = (1 - share) * values[:, 2 * node + 1] + share * values[:, 2 * node + 2]
        weights[:, node], shares[:, node] = total, share
    return values, shares


def judge(forest: Forest, rows: Iterable[Mapping[str, object]]) -> list[Risk]:
    """The risk of each publisher, of its columns by name (see `publisher_features`); text is read as numbers."""
    read = [read_columns(row) for row in rows]
    if not read:
        return []
    features = features_of(np.stack([values for values, _ in read]))
    parts = forest.parts(features)
    return [_risk(forest.base, features[at], parts[at], gaps) for at, (_, gaps) in enumerate(read)]


def _risk(base: float, features: Floats, parts: Floats, gaps: dict[str, Gap]) -> Risk:
    is_known = "TotalClicks" not in gaps and len(COLUMNS) - len(gaps) >= MIN_KNOWN_SHARE * len(COLUMNS)
    if not is_known:
        return Risk(None, base, (), gaps)
    found = tuple(
        Part(feature.name, feature.group, feature.words, float(value), float(part))
        for feature, value, part in zip(FEATURES, features, parts, strict=True)
        if part
    )
    return Risk(logistic(base + float(parts.sum())), base, found, gaps)


def logistic(log_odds: float) -> float:
    """Log-odds as a share, without overflow."""
    return float(0.5 * (1 + np.tanh(log_odds / 2)))


def average_precision(is_fraud: npt.NDArray[np.bool_], scores: Floats) -> float | None:
    """Mean of the precision at each fraud, from the highest score down; None without a fraud.

    Publishers of one score stand together, so their order in a file does not matter (as scikit-learn has it).
    """
    frauds = int(is_fraud.sum())
    if not frauds:
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_fraud[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each group of equal scores
    found = np.diff(hits[last], prepend=0)
    return float((found * hits[last] / (last + 1)).sum() / frauds)
