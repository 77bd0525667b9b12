"""The layout of what goes out: columns, keys and measures fit together."""

import pytest

from streams.events import EVENT_TYPES, ClickType, ConversionType, EngagementType, Event, Input, Priced
from streams.records import (
    COLUMNS,
    COMMON,
    DECISION_KEY,
    DIMENSIONS,
    IDENTITY,
    KEY_COLUMNS,
    MEASURES,
    MEASURES_OF,
    OFFSET_OF,
    Table,
)
from streams.stages.count import PRICED, index_of


@pytest.mark.parametrize("table", list(Table))
def test_a_table_begins_with_its_key_and_ends_with_its_version(table: Table) -> None:
    columns = COLUMNS[table]
    assert columns[-1] == "version"
    assert len(set(columns)) == len(columns)
    assert set(KEY_COLUMNS[table]) < set(columns)
    if table is not Table.CAMPAIGNS:
        assert columns[: len(KEY_COLUMNS[table])] == KEY_COLUMNS[table]


@pytest.mark.parametrize("table", [Table.PANES, Table.REPORTS])
def test_a_row_of_totals_is_of_one_log_one_origin_and_one_effect(table: Table) -> None:
    assert (
        KEY_COLUMNS[table][: len(IDENTITY)] == IDENTITY == ("log_epoch", "input", "partition", "pane_ms", "rules_seq")
    )
    assert {"origin_pane", "effect_pane", *DECISION_KEY} <= set(KEY_COLUMNS[table])


def test_no_measure_is_part_of_a_key() -> None:
    assert not any(set(MEASURES) & set(key) for key in KEY_COLUMNS.values())


def test_every_dimension_is_a_field_of_events_and_part_of_the_reports_key() -> None:
    assert set(DIMENSIONS) <= set(Event.__struct_fields__)
    assert set(DIMENSIONS) <= set(KEY_COLUMNS[Table.REPORTS])


def test_measures_stand_in_the_order_of_their_inputs() -> None:
    assert COMMON + tuple(m for source in Input for m in MEASURES_OF[source]) == MEASURES
    assert len(set(MEASURES)) == len(MEASURES)
    for source in Input:
        start = OFFSET_OF[source]
        assert MEASURES[start : start + len(MEASURES_OF[source])] == MEASURES_OF[source]
        assert index_of(source, MEASURES_OF[source][0]) == len(COMMON)


def test_every_kind_of_event_has_a_measure() -> None:
    assert {f"clicks_{kind.value}" for kind in ClickType} <= set(MEASURES_OF[Input.CLICKS])
    assert len(MEASURES_OF[Input.ENGAGEMENTS]) == len(EngagementType)
    assert [f"{kind.value}s" for kind in EngagementType] == list(MEASURES_OF[Input.ENGAGEMENTS])
    assert len(ConversionType) == 6


def test_priced_inputs_are_those_whose_events_have_a_price() -> None:
    assert frozenset(source for source, kind in EVENT_TYPES.items() if issubclass(kind, Priced)) == PRICED
