"""The publishers' risk score: parts that add up, gaps that are values, and what it is worth on real labels."""

import math

import numpy as np
import pytest
from hypothesis import given

from bench import publisher_labels
from streams.jobs.publisher_files import LABEL_COLUMN, labelled_columns, shipped_forest
from streams.jobs.publisher_fit import Recipe, fit
from streams.stages.invalid.publisher_features import COLUMN_NAMES, COLUMNS, FEATURES, Gap, features_of, read_columns
from streams.stages.invalid.publisher_risk import Forest, Model, average_precision, judge, logistic
from tests.support.publishers import DRAWN, publisher, publishers

FLOOR = 0.35
SMALL = Recipe(trees=30, rate=0.2)


@pytest.fixture(scope="module")
def forest() -> Forest:
    return shipped_forest()


@pytest.fixture(scope="module")
def learned() -> Forest:
    rows = publishers(400)
    columns = np.stack([read_columns(row)[0] for row in rows])
    return Forest(fit(columns, np.array([row["status"] for row in rows]), SMALL))


@given(row=DRAWN)
def test_parts_add_up_to_the_score(row: dict[str, float]) -> None:
    [risk] = judge(shipped_forest(), [row])
    assert risk.score is not None
    assert 0 <= risk.score <= 1
    total = risk.base + sum(part.log_odds for part in risk.parts)
    assert logistic(total) == pytest.approx(risk.score)
    assert sum(risk.groups.values()) == pytest.approx(total - risk.base)


@given(row=DRAWN)
def test_parts_lead_to_the_leaves_that_are_reached(row: dict[str, float]) -> None:
    """Walked tree by tree, as anyone would read the model."""
    model = two_trees()
    features = features_of(np.stack([read_columns(row)[0]]))
    total = model.base
    for splits, thresholds, leaves in zip(model.splits, model.thresholds, model.leaves, strict=True):
        node = 0
        while node < len(splits):
            goes_right = splits[node] >= 0 and features[0, splits[node]] > thresholds[node]
            node = 2 * node + 1 + goes_right
        total += leaves[node - len(splits)]
    assert Forest(model).log_odds(features)[0] == pytest.approx(total)


def two_trees() -> Model:
    names = [feature.name for feature in FEATURES]
    clicks, agents = names.index("TotalClicks"), names.index("NoOfUniqueAgent")
    return Model(
        features=names,
        base=-3.0,
        splits=[[clicks, agents, agents], [agents, -1, clicks]],
        thresholds=[[100.0, 5.0, 50.0], [20.0, 0.0, 1000.0]],
        leaves=[[0.1, 0.2, 0.3, 0.4], [-0.5, 0.0, 0.25, 1.0]],
        covers=[[10, 20, 30, 40], [90, 0, 5, 5]],
    )


def test_an_unknown_feature_takes_both_ways_by_their_share() -> None:
    row = publisher(clicks=1000)
    del row["NoOfUniqueAgent"]
    [risk] = judge(Forest(two_trees()), [row])
    assert risk.gaps == {"NoOfUniqueAgent": Gap.ABSENT}
    assert {part.feature for part in risk.parts} == {"TotalClicks"}
    first, second = (30 * 0.3 + 40 * 0.4) / 70, 0.9 * -0.5 + 0.1 * 0.25
    assert risk.score == pytest.approx(logistic(-3.0 + first + second))


def test_nothing_known_is_no_score(forest: Forest) -> None:
    [risk] = judge(forest, [{}])
    assert (risk.score, risk.parts) == (None, ())
    assert risk.gaps == dict.fromkeys(COLUMN_NAMES, Gap.ABSENT)


def test_without_clicks_or_half_of_the_columns_there_is_no_score(forest: Forest) -> None:
    whole = publisher()
    without_clicks = {name: value for name, value in whole.items() if name != "TotalClicks"}
    few = {name: whole[name] for name in COLUMN_NAMES[: len(COLUMN_NAMES) // 2 - 1]}
    enough = {name: whole[name] for name in COLUMN_NAMES[: len(COLUMN_NAMES) // 2 + 1]}
    assert [risk.score is None for risk in judge(forest, [without_clicks, few, enough])] == [True, True, False]


@pytest.mark.parametrize(
    ("value", "gap"),
    [
        (None, Gap.ABSENT),
        (" ", Gap.ABSENT),
        ("many", Gap.NOT_A_NUMBER),
        ("nan", Gap.NOT_A_NUMBER),
        (True, Gap.NOT_A_NUMBER),
        ([1], Gap.NOT_A_NUMBER),
        ("inf", Gap.OUT_OF_RANGE),
        (-1, Gap.OUT_OF_RANGE),
        (0, Gap.OUT_OF_RANGE),
        (10**400, Gap.NOT_A_NUMBER),
    ],
)
def test_a_value_that_is_none_has_a_reason(value: object, gap: Gap) -> None:
    _, gaps = read_columns({**publisher(), "NoOfUniqueIp": value})
    assert gaps == {"NoOfUniqueIp": gap}


def test_skewness_may_be_negative() -> None:
    assert read_columns({**publisher(), "Skew3Hr": "-2.07"})[1] == {}


def test_random_clicks_fill_as_many_slots_as_expected() -> None:
    """1,000 clicks at random in the 4,320 minutes of three days."""
    filled = len(np.unique(np.random.default_rng(1).integers(0, 4320, 1000)))
    row = {**publisher(clicks=1000), "AvgClickPer1Min": 1000 / filled}
    values = features_of(np.stack([read_columns(row)[0]]))[0]
    named = dict(zip((feature.name for feature in FEATURES), values, strict=True))
    assert named["occupancy_1Min"] == pytest.approx(1, abs=0.03)


def test_what_differs_is_learned_and_explained(learned: Forest) -> None:
    """The generated frauds send many clicks from each address, within few minutes."""
    honest, farm = judge(learned, [publisher(clicks=2000), publisher(clicks=2000, per_address=40.0, burst=12.0)])
    assert honest.score is not None
    assert farm.score is not None
    assert farm.score > 0.5 > honest.score
    assert farm.largest(1)[0].log_odds > 0
    assert [abs(part.log_odds) for part in farm.largest(5)] == sorted(
        (abs(part.log_odds) for part in farm.parts), reverse=True
    )[:5]


def test_the_same_file_gives_the_same_model() -> None:
    rows = publishers(200)
    columns = np.stack([read_columns(row)[0] for row in rows])
    labels = np.array([row["status"] for row in rows])
    assert fit(columns, labels, SMALL) == fit(columns, labels, SMALL)
    assert fit(columns, labels, SMALL) != fit(columns, labels, SMALL, seed=1)


def test_a_fit_needs_both_kinds() -> None:
    columns = np.stack([read_columns(publisher())[0]] * 3)
    with pytest.raises(ValueError, match="both"):
        fit(columns, np.array(["OK", "OK", "Observation"]), SMALL)


def test_a_model_of_other_features_is_refused() -> None:
    model = two_trees()
    other = Model(["clicks"], model.base, model.splits, model.thresholds, model.leaves, model.covers)
    with pytest.raises(ValueError, match="other features"):
        Forest(other)


@pytest.mark.parametrize(
    ("frauds", "scores", "expected"),
    [
        ([True, False, True, False], [4, 3, 2, 1], (1 + 2 / 3) / 2),
        ([False, True], [1, 1], 0.5),  # equal scores stand together
        ([True, False, True], [2, 2, 1], (1 / 2 + 2 / 3) / 2),
        ([False, False], [1, 2], None),
        ([True], [0], 1.0),
    ],
)
def test_average_precision_is_as_by_hand(frauds: list[bool], scores: list[float], expected: float | None) -> None:
    found = average_precision(np.array(frauds), np.array(scores, dtype=np.float64))
    assert found == (None if expected is None else pytest.approx(expected))


def test_every_feature_is_described_once() -> None:
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert len({feature.words for feature in FEATURES}) == len(FEATURES)
    assert len(COLUMNS) == len(COLUMN_NAMES) == 40


def test_a_logistic_never_overflows() -> None:
    assert [logistic(x) for x in (-1e9, 0.0, 1e9)] == [0.0, 0.5, 1.0]
    assert math.isclose(logistic(math.log(3)), 0.75)


@pytest.mark.skipif(
    not publisher_labels.FILE.is_file(),
    reason=f"the labelled publishers are not there; {publisher_labels.VARIABLE} names the folder that holds them",
)
def test_on_real_labels_the_floor_is_held() -> None:
    columns, labels = labelled_columns(publisher_labels.FILE, LABEL_COLUMN)
    assert (len(labels), int((labels == "Fraud").sum())) == (3081, 72)
    found = publisher_labels.validate(columns, labels, folds=5, repeats=1)
    assert min(found.mean, found.pooled) >= FLOOR
    assert found.mean > 1.5 * found.one_feature


def test_without_the_labels_there_are_no_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publisher_labels, "FILE", publisher_labels.DATA / "nowhere" / "none.csv")
    assert publisher_labels.fdma_figures(True) == {}
    assert "is not there" in capsys.readouterr().err
