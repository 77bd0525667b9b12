"""The rules: what may be stated, what contradicts itself, and the fingerprint."""

import msgspec
import pytest

from streams.events import ClickType, ConversionType, Input
from streams.invalid import InvalidRules, Lists, Mode, Rule
from streams.records import DIMENSIONS
from streams.rules import DAY_MS, DEFAULT_HORIZONS, MINUTE_MS, Horizon, Rules


def converted(**changes: object) -> Rules:
    return msgspec.convert({**msgspec.to_builtins(Rules()), **changes}, Rules)


def test_the_defaults_hold_and_are_those_that_are_stated() -> None:
    rules = Rules()
    assert (rules.pane_ms, rules.report_pane_ms, rules.future_skew_ms) == (10_000, 60_000, 300_000)
    assert {source: h.lateness_ms for source, h in rules.horizons.items()} == {
        Input.IMPRESSIONS: 10 * MINUTE_MS,
        Input.PLAYS: 10 * MINUTE_MS,
        Input.CLICKS: DAY_MS,
        Input.CONVERSIONS: 30 * DAY_MS,
        Input.ADJUSTMENTS: 30 * DAY_MS,
        Input.ENGAGEMENTS: DAY_MS,
    }
    assert set(rules.dimensions) <= set(DIMENSIONS)


def test_rules_survive_the_journal() -> None:
    rules = Rules(pane_ms=5_000, ctr_click_types=(ClickType.CARD,), dimensions=())
    assert msgspec.json.decode(msgspec.json.encode(rules), type=Rules) == rules


WRONG: list[tuple[dict[str, object], str]] = [
    ({"pane_ms": 500}, "pane_ms"),
    ({"pane_ms": 1_500}, "pane_ms"),
    ({"pane_ms": 3_600_000}, "pane_ms"),
    ({"pane_ms": "soon"}, "pane_ms"),
    ({"pane_ms": 7_000, "report_pane_ms": 70_000}, "pane_ms: must divide a minute"),
    ({"report_pane_ms": 9_000}, "report_pane_ms"),
    ({"report_pane_ms": 61_000}, "report_pane_ms: must be a multiple of pane_ms"),
    ({"report_pane_ms": 3_601_000}, "report_pane_ms"),
    ({"report_every_ms": 0}, "report_every_ms"),
    ({"future_skew_ms": 0}, "future_skew_ms"),
    ({"max_pane_keys": 0}, "max_pane_keys"),
    ({"max_report_keys": -1}, "max_report_keys"),
    ({"reach_sample": 15}, "reach_sample"),
    ({"reach_sample": 4_097}, "reach_sample"),
    ({"dimensions": ["region", "weather"]}, "dimensions: weather unknown; known are region"),
    ({"ctr_click_types": ["double"]}, "ctr_click_types"),
    ({"cvr_conversion_types": ["wish"]}, "cvr_conversion_types"),
    ({"pain_ms": 5_000}, "pain_ms"),
    ({"invalid": {"activity_clicks_by_type": {"tap": 5}}}, "tap"),
    ({"invalid": {"double_click_by_type_ms": {"card": -1}}}, "double_click_by_type_ms"),
    ({"invalid": {"max_clicks_per_impression": 11}}, "max_clicks_per_impression"),
    ({"invalid": {"max_clicks_per_impression_by_type": {"card": 11}}}, "max_clicks_per_impression_by_type"),
    (
        {"invalid": {"user_velocity": {"clicks": 5, "window_ms": 1_000, "clicks_by_type": {"card": 0}}}},
        "clicks_by_type",
    ),
    (
        {
            "invalid": {
                "velocity_types": ["button"],
                "device_velocity": {"clicks": 5, "window_ms": 1_000, "clicks_by_type": {"card": 9, "button": 5}},
            }
        },
        "device_velocity.clicks_by_type: card not counted; add to velocity_types",
    ),
    ({"horizons": {"clicks": {"lateness_ms": 1, "dedupe_ms": 1}}}, "horizons: impressions, plays, .* missing"),
    ({"horizons": {"views": {"lateness_ms": 1, "dedupe_ms": 1}}}, "views"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(c) for c, _ in WRONG])
def test_what_is_wrong_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        converted(**changes)


@pytest.mark.parametrize("source", list(Input))
def test_lateness_never_exceeds_the_memory_of_ids(source: Input) -> None:
    with pytest.raises(ValueError, match=f"horizons.{source.value}: lateness_ms exceeds dedupe_ms"):
        Rules(horizons={**DEFAULT_HORIZONS, source: Horizon(1_001, 1_000)})
    assert Rules(horizons={**DEFAULT_HORIZONS, source: Horizon(1_000, 1_000)}).horizons[source].lateness_ms == 1_000


@pytest.mark.parametrize("pane_ms", [1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 30_000, 60_000])
def test_a_pane_divides_a_minute(pane_ms: int) -> None:
    assert Rules(pane_ms=pane_ms).pane_ms == pane_ms


CHANGES: list[dict[str, object]] = [
    {"pane_ms": 5_000},
    {"report_pane_ms": 120_000},
    {"report_every_ms": 9_999},
    {"future_skew_ms": 1},
    {"horizons": {**DEFAULT_HORIZONS, Input.CLICKS: Horizon(1, 2)}},
    {"horizons": {**DEFAULT_HORIZONS, Input.CLICKS: Horizon(DAY_MS, DAY_MS, 7)}},
    {"ctr_click_types": (ClickType.CARD,)},
    {"cvr_conversion_types": (ConversionType.LEAD,)},
    {"dimensions": ("region",)},
    {"max_pane_keys": 1},
    {"max_report_keys": 1},
    {"reach_sample": 16},
    {"invalid": InvalidRules(modes={Rule.PREFETCH: Mode.OFF})},
    {"invalid": InvalidRules(lists=Lists(networks=b"x"))},
]


def test_the_fingerprint_changes_with_everything_that_decides_a_number() -> None:
    prints = [Rules().fingerprint(), *(Rules(**change).fingerprint() for change in CHANGES)]
    assert len(set(prints)) == len(prints)
    assert {name for change in CHANGES for name in change} == set(Rules.__struct_fields__)


def test_the_fingerprint_is_the_same_for_the_same_rules_in_any_order() -> None:
    turned = Rules(horizons=dict(reversed(DEFAULT_HORIZONS.items())))
    assert turned.fingerprint() == Rules().fingerprint()
    assert len(Rules().fingerprint()) == 16
    int(Rules().fingerprint(), 16)


def test_the_order_of_the_dimensions_is_a_rule() -> None:
    assert (
        Rules(dimensions=("region", "channel")).fingerprint() != Rules(dimensions=("channel", "region")).fingerprint()
    )


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Rules().pane_ms = 5  # type: ignore[misc]


def test_the_defaults_are_not_shared() -> None:
    Rules().horizons.clear()
    assert len(Rules().horizons) == len(Input)
