"""Fits the publishers' risk model to labelled statistics: `python -m streams.jobs.publisher_fit FILE.csv.gz`.

Boosted trees in numpy, so that a fit needs no library that the worker does not have, takes seconds, and gives the same
trees from the same file. Each tree sees a random part of the publishers and of the features, which is what keeps 72
frauds from being learned by heart. Values are cut into at most 64 bins by quantiles, and thresholds are rounded to
three digits: the model is made of rules, not of the rows it was fitted to.

Publishers under observation were neither cleared nor convicted. They are left out of the fit, and count as not
fraudulent when a score is judged, as in the competition (Oentaryo et al., JMLR 15, 2014).
"""

import sys
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.stages.invalid.publisher_features import FEATURES, Floats, features_of
from streams.stages.invalid.publisher_risk import NO_SPLIT, Model

Ints = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

FRAUD: Final = "Fraud"
WATCHED: Final = "Observation"
DEFAULT_SEED: Final = 2012
DIGITS: Final = 3
MIN_GAIN: Final = 0.0
MIN_HESSIAN: Final = 1e-3


class Recipe(NamedTuple):
    """How trees are grown."""

    trees: int = 800
    depth: int = 3
    rate: float = 0.03
    """What each tree contributes of its optimal step."""
    feature_share: float = 0.2
    row_share: float = 0.5
    ridge: float = 1.0
    min_publishers: int = 10
    """Publishers on either side of a split."""
    bins: int = 64


RECIPE: Final = Recipe()


class _Tree(NamedTuple):
    splits: Ints
    cuts: Ints
    leaves: Floats
    covers: Ints


def fit(columns: Floats, labels: npt.NDArray[np.str_], recipe: Recipe = RECIPE, seed: int = DEFAULT_SEED) -> Model:
    """A model of publishers × `COLUMNS` and their labels; rows that are under observation or incomplete are left out.

    Raises:
        ValueError: the rows hold no fraud, or nothing else.
    """
    kept = (labels != WATCHED) & ~np.isnan(columns).any(axis=1)
    features, is_fraud = features_of(columns[kept]), (labels[kept] == FRAUD).astype(np.float64)
    share = float(is_fraud.mean()) if len(is_fraud) else 0.0
    if not 0 < share < 1:
        raise ValueError("both fraudulent and honest publishers are needed")
    base = float(np.log(share / (1 - share)))
    edges = [_edges(values, recipe.bins) for values in features.T]
    trees = _boost(_binned(features, edges), is_fraud, base, recipe, np.random.default_rng(seed))
    return Model(
        features=[feature.name for feature in FEATURES],
        base=base,
        splits=[tree.splits.tolist() for tree in trees],
        thresholds=[_thresholds(tree, edges) for tree in trees],
        leaves=[[round(float(leaf), 5) for leaf in tree.leaves] for tree in trees],
        covers=[tree.covers.tolist() for tree in trees],
        about={"publishers": len(is_fraud), "frauds": int(is_fraud.sum()), "seed": seed, **recipe._asdict()},
    )


def _edges(values: Floats, bins: int) -> Floats:
    """Where to cut a feature: between neighbouring values at its quantiles, rounded."""
    known = np.unique(values)
    at = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    above = known[np.minimum(np.searchsorted(known, at, side="right"), len(known) - 1)]
    return np.unique([float(f"{edge:.{DIGITS}g}") for edge in (at + above) / 2])


def _binned(features: Floats, edges: list[Floats]) -> Ints:
    """The bin of every value: the number of edges below it."""
    return np.column_stack([np.searchsorted(cut, values) for cut, values in zip(edges, features.T, strict=True)])


def _thresholds(tree: _Tree, edges: list[Floats]) -> list[float]:
    return [
        0.0 if split == NO_SPLIT else float(edges[split][cut])
        for split, cut in zip(tree.splits, tree.cuts, strict=True)
    ]


def _boost(bins: Ints, is_fraud: Floats, base: float, recipe: Recipe, dice: np.random.Generator) -> list[_Tree]:
    """Each tree steps towards what is left to explain."""
    log_odds = np.full(len(is_fraud), base)
    count = max(1, round(recipe.feature_share * bins.shape[1]))
    trees = []
    for _ in range(recipe.trees):
        share = 1 / (1 + np.exp(-log_odds))
        slope, curve = share - is_fraud, share * (1 - share)
        rows = np.flatnonzero(dice.random(len(is_fraud)) < recipe.row_share)
        chosen = np.sort(dice.choice(bins.shape[1], count, replace=False))
        tree = _grow(bins, slope, curve, rows, chosen, recipe)
        log_odds += tree.leaves[_leaf_of(bins, tree.splits, tree.cuts, recipe.depth)]
        trees.append(tree)
    return trees


def _grow(bins: Ints, slope: Floats, curve: Floats, rows: Ints, chosen: Ints, recipe: Recipe) -> _Tree:
    """One tree, level by level; a node without a useful split sends everything left."""
    inner = 2**recipe.depth - 1
    splits, cuts = np.full(inner, NO_SPLIT), np.zeros(inner, dtype=np.int64)
    seen = bins[rows]
    for depth in range(recipe.depth):
        node = _leaf_of(seen, splits, cuts, depth)
        gains = _gains(seen[:, chosen], node, 2**depth, slope[rows], curve[rows], recipe)
        best = gains.reshape(2**depth, -1).argmax(axis=1)
        for at, place in enumerate(best):
            feature, cut = divmod(int(place), gains.shape[2])
            if gains[at, feature, cut] > MIN_GAIN:
                splits[2**depth - 1 + at], cuts[2**depth - 1 + at] = chosen[feature], cut
    leaf = _leaf_of(seen, splits, cuts, recipe.depth)
    total = np.bincount(leaf, slope[rows], inner + 1)
    leaves = -recipe.rate * total / (np.bincount(leaf, curve[rows], inner + 1) + recipe.ridge)
    covers = np.bincount(_leaf_of(bins, splits, cuts, recipe.depth), minlength=inner + 1)
    return _Tree(splits, cuts, leaves, covers)


def _gains(bins: Ints, node: Ints, nodes: int, slope: Floats, curve: Floats, recipe: Recipe) -> Floats:
    """What each cut of each feature would gain at each node: nodes × features × cuts."""
    features, width = bins.shape[1], recipe.bins + 1
    key = ((node[:, None] * features + np.arange(features)) * width + bins).ravel()

    def below(weights: Floats | None) -> Floats:
        """Sums up to each cut."""
        repeated = None if weights is None else np.repeat(weights, features)
        sums = np.bincount(key, repeated, nodes * features * width).reshape(nodes, features, width)
        return np.cumsum(sums, axis=2, dtype=np.float64)

    counts, slopes, curves = below(None), below(slope), below(curve)
    count, total, curved = counts[..., -1:], slopes[..., -1:], curves[..., -1:]
    gains: Floats = slopes**2 / (curves + recipe.ridge) + (total - slopes) ** 2 / (curved - curves + recipe.ridge)
    gains -= total**2 / (curved + recipe.ridge)
    is_small = (counts < recipe.min_publishers) | (count - counts < recipe.min_publishers)
    gains[is_small | (curves < MIN_HESSIAN) | (curved - curves < MIN_HESSIAN)] = MIN_GAIN
    return gains


def _leaf_of(bins: Ints, splits: Ints, cuts: Ints, depth: int) -> Ints:
    """The place within its level that each row reaches after `depth` splits."""
    place = np.zeros(len(bins), dtype=np.int64)
    rows = np.arange(len(bins))
    for level in range(depth):
        node = place + 2**level - 1
        split = splits[node]
        place = 2 * place + ((split != NO_SPLIT) & (bins[rows, np.maximum(split, 0)] > cuts[node]))
    return place


def main() -> None:
    """Fits the model that is shipped, and writes it where the commands read it."""
    from streams.jobs.publisher_files import LABEL_COLUMN, MODEL_FILE, labelled_columns

    if len(sys.argv) != 2:
        sys.exit("usage: python -m streams.jobs.publisher_fit FILE.csv[.gz]")
    columns, labels = labelled_columns(Path(sys.argv[1]), LABEL_COLUMN)
    MODEL_FILE.write_bytes(msgspec.json.encode(fit(columns, labels)) + b"\n")
    print(f"{MODEL_FILE}: {MODEL_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
