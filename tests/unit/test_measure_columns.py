"""Batches measured as columns give what their events give one by one."""

from random import Random
from typing import Any

import numpy as np
import pytest

from streams.events import ClickType, ConversionType, Input
from streams.rules import Rules
from streams.stages.decode import Decoder
from streams.stages.measure import make_measure, one_by_one, width_of
from tests.unit.given import T0, document, encoded

CHOICES: dict[Input, dict[str, list[Any]]] = {
    Input.IMPRESSIONS: {"viewable": [None, True, False], "prefetch": [True, False]},
    Input.PLAYS: {
        "milestone": ["start", "3s", "5s", "complete"],
        "loop": [1, 1, 2, 3, 100_000],
        "watched_ms": [0, 1, 7_919, 86_400_000_000],
        "viewable": [None, True, False],
    },
    Input.CLICKS: {"click_type": [*(kind.value for kind in ClickType), None]},
    Input.CONVERSIONS: {
        "conversion_type": [kind.value for kind in ConversionType],
        "quantity": [0, 1, 10**9],
        "attribution": [
            None,
            {"touch_type": "click"},
            {"touch_type": "click", "weight_ppm": 1},
            {"touch_type": "view"},
            {"touch_type": "play"},
            {"touch_type": "none"},
        ],
    },
    Input.ADJUSTMENTS: {"adjustment_type": ["cancel", "refund", "chargeback", "rejected_lead"]},
    Input.ENGAGEMENTS: {"engagement_type": ["like", "comment", "share", "follow", "unfollow", "negative_feedback"]},
}
RULES = Rules(ctr_click_types=(ClickType.CARD,), cvr_conversion_types=(ConversionType.ORDER, ConversionType.PAID))


def random_events(source: Input, count: int, rng: Random) -> list[Any]:
    documents = [
        document(source, f"e{n}", T0, **{name: rng.choice(values) for name, values in CHOICES[source].items()})
        for n in range(count)
    ]
    return list(Decoder(source).decode_all([encoded(found) for found in documents]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("source", list(Input))
def test_a_batch_as_columns_is_its_events_one_by_one(source: Input, seed: int) -> None:
    rng = Random(seed)
    events = random_events(source, 500, rng)
    counted = np.array([rng.random() < 0.8 for _ in events])
    columns, rows = make_measure(source, RULES)(events, counted), one_by_one(source, RULES)(events, counted)
    assert columns.dtype == rows.dtype == np.int64
    assert columns.tolist() == rows.tolist()
    assert (columns[counted].sum(axis=1) > 0).any(), "the events of this test add nothing"


@pytest.mark.parametrize("source", list(Input))
def test_what_does_not_count_adds_nothing(source: Input) -> None:
    events = random_events(source, 50, Random(1))
    assert not make_measure(source, RULES)(events, np.zeros(50, dtype=bool)).any()


@pytest.mark.parametrize("source", list(Input))
def test_an_empty_batch_has_no_rows(source: Input) -> None:
    assert make_measure(source, RULES)([], np.zeros(0, dtype=bool)).shape == (0, width_of(source))
