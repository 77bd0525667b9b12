"""Mapping files: checked before the first row, and a row that does not fit is a value."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from streams.errors import ConfigurationError
from streams.events import Input
from streams.jobs.mapping import Mapping, read_mapping, shipped_mappings
from streams.jobs.readers import BadRow, Row

FILE = Path("logs/day.one.csv.gz")

HEAD = """
name = "example"
[fields]
event_id = "id"
campaign_id = { constant = "c1" }
"""
TIME = 'event_time_ms = { column = "at", time = "epoch_ms" }\n'
IMPRESSION = '[[events]]\ninput = "impressions"\n'
WHOLE = HEAD + TIME + IMPRESSION


def mapping_of(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "example.toml"
    path.write_text(text, encoding="utf-8")
    return read_mapping(path)


def mapped(mapping: Mapping, **columns: object) -> list[tuple[Input, dict[str, object]]]:
    found = mapping.documents_of(Row(7, columns), FILE)
    assert not isinstance(found, BadRow), found.reason
    return found


def value_of(tmp_path: Path, field: str, **columns: object) -> object:
    """The value that one field's specification makes of these columns; None where it is left out."""
    name = field.split("=")[0].strip().strip('"')
    found = mapped(mapping_of(tmp_path, HEAD + TIME + field + "\n" + IMPRESSION), id="i", at=1, **columns)
    return found[0][1].get(name)


def test_columns_constants_and_templates_make_a_document(tmp_path: Path) -> None:
    text = WHOLE + 'fields.request_id = { template = "{@file}/{@line}-{id}" }\n'
    assert mapped(mapping_of(tmp_path, text), id="x", at="1382364722155") == [
        (
            Input.IMPRESSIONS,
            {"event_id": "x", "campaign_id": "c1", "event_time_ms": 1_382_364_722_155, "request_id": "day/7-x"},
        )
    ]


def test_a_row_becomes_every_event_whose_condition_holds(tmp_path: Path) -> None:
    text = WHOLE + '[[events]]\ninput = "clicks"\nwhen = { click = ["1", "true"] }\n'
    mapping = mapping_of(tmp_path, text)
    assert mapping.inputs == {Input.IMPRESSIONS, Input.CLICKS}
    assert [kind for kind, _ in mapped(mapping, id="x", at=1, click="0")] == [Input.IMPRESSIONS]
    for clicked in ("1", 1, True):
        assert [kind for kind, _ in mapped(mapping, id="x", at=1, click=clicked)] == [Input.IMPRESSIONS, Input.CLICKS]


def test_a_row_may_become_no_event(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path, WHOLE + 'when = { kind = { not = ["test", ""] } }\n')
    assert mapped(mapping, id="x", at=1, kind="test") == []
    assert mapped(mapping, id="x", at=1, kind="") == []
    assert len(mapped(mapping, id="x", at=1, kind="real")) == 1


def test_an_events_own_field_takes_the_common_ones_place(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path, WHOLE + 'fields.event_id = "other"\n')
    assert mapped(mapping, id="x", at=1, other="y")[0][1]["event_id"] == "y"


@pytest.mark.parametrize(
    ("spec", "raw", "expected"),
    [
        ('time = "epoch_s"', "1382364722", 1_382_364_722_000),
        ('time = "epoch_s"', "1382364722.1559", 1_382_364_722_155),
        ('time = "epoch_s"', 1382364722.155, 1_382_364_722_155),
        ('time = "epoch_ms"', "1382364722155", 1_382_364_722_155),
        ('time = "epoch_us"', "1382364722155999", 1_382_364_722_155),
        ('time = "%Y%m%d%H%M%S%f", zone = "Asia/Shanghai"', "20131021221202155", 1_382_364_722_155),
        ('time = "%d/%b/%Y:%H:%M:%S %z"', "21/Oct/2013:14:12:02 +0000", 1_382_364_722_000),
        ('time = "iso"', "2019-11-24 00:03:13.442536+00:00", 1_574_553_793_442),
        ('time = "iso"', "2019-11-24T00:03:13.442536Z", 1_574_553_793_442),
        ('time = "iso", zone = "Asia/Tokyo"', "2019-11-24T09:03:13", 1_574_553_793_000),
        ('time = "iso"', datetime(2019, 11, 24, 0, 3, 13, 442536, tzinfo=UTC), 1_574_553_793_442),
        # Clocks go back on this day: of the hour that is there twice, the first is meant.
        ('time = "iso", zone = "Europe/Berlin"', "2019-10-27T02:30:00", 1_572_136_200_000),
    ],
)
def test_times_become_epoch_ms_rounded_down(tmp_path: Path, spec: str, raw: object, expected: int) -> None:
    assert value_of(tmp_path, f'client_time_ms = {{ column = "t", {spec} }}', t=raw) == expected


@pytest.mark.parametrize(
    ("unit", "raw", "expected"),
    [
        ("fen_per_mille", "201", 2_010_000),
        ("cent_per_mille", "0.5", 5_000),
        ("currency_per_mille", "2.01", 2_010_000),
        ("micros_per_mille", 1_340_000, 1_340_000),
        ("currency", "0.00134", 1_340_000),
        ("fen", Decimal("0.134"), 1_340_000),
        ("micros", 1_340, 1_340_000),
    ],
)
def test_prices_become_millimicros_of_one_event(tmp_path: Path, unit: str, raw: object, expected: int) -> None:
    field = f'clearing_price_millimicros = {{ column = "price", unit = "{unit}" }}'
    assert value_of(tmp_path, field, price=raw) == expected


def test_money_is_exact_where_floating_point_is_not(tmp_path: Path) -> None:
    field = 'clearing_price_millimicros = { column = "price", unit = "currency" }'
    assert value_of(tmp_path, field, price="1.005") == 1_005_000_000
    assert value_of(tmp_path, field, price="0.1") == 100_000_000


def test_values_are_translated_and_the_star_stands_for_the_rest(tmp_path: Path) -> None:
    field = 'device_class = { column = "d", values = { 1 = "phone", "*" = "unknown" } }'
    assert value_of(tmp_path, field, d=1) == "phone"
    assert value_of(tmp_path, field, d="9") == "unknown"


def test_null_is_left_out_or_becomes_the_default(tmp_path: Path) -> None:
    assert value_of(tmp_path, 'region = "r"', r="") is None
    assert value_of(tmp_path, 'region = "r"', r=None) is None
    assert value_of(tmp_path, 'region = { template = "cn-{r}" }', r="") is None
    assert value_of(tmp_path, 'region = { column = "r", default = "unknown" }', r="") == "unknown"
    # Another null marker than the mapping's is text.
    assert value_of(tmp_path, 'region = "r"', r="null") == "null"


def test_numbers_become_ids_as_people_write_them(tmp_path: Path) -> None:
    assert value_of(tmp_path, 'creative_id = "c"', c=2821) == "2821"
    assert value_of(tmp_path, 'creative_id = "c"', c=2821.0) == "2821"


def test_nested_fields_and_nested_columns_are_reached_with_dots(tmp_path: Path) -> None:
    text = (
        HEAD + TIME + '"experiments.0.id" = { constant = "policy" }\n"experiments.0.arm" = "context.arm"\n' + IMPRESSION
    )
    document = mapped(mapping_of(tmp_path, text), id="x", at=1, context={"arm": "bts"})[0][1]
    assert document["experiments"] == [{"id": "policy", "arm": "bts"}]


def test_a_nested_column_is_there_when_the_outer_one_is(tmp_path: Path) -> None:
    """As Parquet names them: its heading has the outer ones only."""
    mapping = mapping_of(tmp_path, HEAD + TIME + 'region = "context.region"\n' + IMPRESSION)
    mapping.check_columns(("id", "at", "context"))
    with pytest.raises(ConfigurationError, match=r"no column context\.region"):
        mapping.check_columns(("id", "at", "region"))


def test_dates_and_bytes_of_parquet_are_times_and_text(tmp_path: Path) -> None:
    spec = (
        'client_time_ms = { column = "day", time = "iso", zone = "Asia/Shanghai" }\nregion = "raw"\nchannel = "day"\n'
    )
    mapping = mapping_of(tmp_path, HEAD + TIME + spec + IMPRESSION)
    document = mapped(mapping, id="x", at=1, day=date(2026, 11, 2), raw="上海".encode())[0][1]
    assert document["client_time_ms"] == 1_793_548_800_000
    assert (document["region"], document["channel"]) == ("上海", "2026-11-02")


@pytest.mark.parametrize(
    ("spec", "raw", "why"),
    [
        ('client_time_ms = { column = "v", time = "epoch_ms" }', "soon", "no number"),
        ('client_time_ms = { column = "v", time = "epoch_ms" }', "NaN", "out of range"),
        ('client_time_ms = { column = "v", time = "epoch_ms" }', "1e999999999", "out of range"),
        ('client_time_ms = { column = "v", time = "iso" }', "2019-11-24T09:03:13", "no offset"),
        ('client_time_ms = { column = "v", time = "iso" }', "yesterday", "no time of the form iso"),
        ('clearing_price_millimicros = { column = "v", unit = "fen" }', "1,5", "no number"),
        ('clearing_price_millimicros = { column = "v", unit = "fen" }', "Infinity", "out of range"),
        ('region = { column = "v", values = { a = "b" } }', "c", "not among the values"),
        ('region = "v"', {"nested": 1}, "is no text"),
        ('region = "v"', b"\xff", "no UTF-8"),
    ],
)
def test_a_value_that_does_not_fit_makes_its_row_a_value(tmp_path: Path, spec: str, raw: object, why: str) -> None:
    mapping = mapping_of(tmp_path, HEAD + TIME + spec + "\n" + IMPRESSION)
    found = mapping.documents_of(Row(7, {"id": "x", "at": 1, "v": raw}), FILE)
    assert isinstance(found, BadRow)
    assert found.number == 7
    assert why in found.reason
    assert found.reason.startswith(spec.split(" ")[0])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = ", "is no TOML"),
        ('name = "x"', "events"),
        (WHOLE + 'wen = { a = "1" }', "wen"),
        (WHOLE.replace("impressions", "views"), r"\$\.events\[0\]\.input"),
        (HEAD + IMPRESSION, r"events\[0\]\.fields\.event_time_ms: is needed"),
        (HEAD + TIME + '[[events]]\ninput = "plays"\n', "milestone: is needed"),
        (WHOLE + 'fields.campain_id = "c"', "campain_id: impressions have no such field; did you mean campaign_id"),
        (WHOLE + 'fields.experiments = "c"', "is not a single value"),
        (WHOLE + 'fields."experiments.x.id" = "c"', "'x' leads nowhere"),
        (WHOLE + 'fields."experiments.100.id" = "c"', "'100' leads nowhere"),
        (WHOLE + "fields.region = {}", "region: needs exactly one of"),
        (WHOLE + 'fields.region = { column = "a", constant = "b" }', "needs exactly one of"),
        (WHOLE + 'fields.region = { column = "a", unit = "fen" }', r"region\.unit: region has no unit"),
        (WHOLE + 'fields.clearing_price_millimicros = { column = "a", unit = "yuan" }', "'yuan' is unknown"),
        (WHOLE + 'fields.client_time_ms = { column = "a", time = "%Y-%Q", zone = "UTC" }', "no strptime pattern"),
        (WHOLE + 'fields.client_time_ms = { column = "a", time = "%Y" }', r"zone: is needed"),
        (WHOLE + 'fields.client_time_ms = { column = "a", time = "iso", zone = "Mars" }', "no IANA time zone"),
        (WHOLE + 'fields.client_time_ms = { column = "a", time = "epoch_s", zone = "UTC" }', "which is UTC"),
        (WHOLE + 'fields.region = { column = "a", time = "iso" }', "region is no time"),
        (WHOLE + '[source]\ncolumns = ["id", "at"]', "header = false"),
        (WHOLE + '[source]\nheader = false\ncolumns = ["id", "id"]', "column 'at' is not among"),
        (WHOLE + '[source]\nformat = "xml"', r"\$\.source\.format"),
    ],
)
def test_a_faulty_mapping_names_its_field(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        mapping_of(tmp_path, text)


def test_every_fault_of_the_fields_is_named_at_once(tmp_path: Path) -> None:
    text = HEAD + 'region = { column = "a", unit = "fen" }\nfoo = "a"\n' + IMPRESSION
    with pytest.raises(ConfigurationError) as caught:
        mapping_of(tmp_path, text)
    for field in ("fields.region.unit", "fields.foo", "event_time_ms"):
        assert field in str(caught.value)


def test_a_file_without_the_columns_is_told_before_its_first_row(tmp_path: Path) -> None:
    mapping = mapping_of(tmp_path, WHOLE + 'when = { kind = "1" }\n')
    mapping.check_columns(("id", "at", "kind", "more"))
    with pytest.raises(ConfigurationError, match="no column at, kind"):
        mapping.check_columns(("id", "more"))
    with pytest.raises(ConfigurationError, match="two columns called id"):
        mapping.check_columns(("id", "at", "kind", "id"))


def test_a_bare_name_means_a_shipped_mapping_and_an_absent_file_lists_them() -> None:
    assert read_mapping(Path("ipinyou")).name == read_mapping(Path("ipinyou.toml")).name == "ipinyou"
    with pytest.raises(ConfigurationError, match="ipinyou, open_bandit"):
        read_mapping(Path("ipinyu.toml"))


@pytest.mark.parametrize("name", shipped_mappings())
def test_a_shipped_mapping_is_sound_and_described(name: str) -> None:
    mapping = read_mapping(Path(name))
    assert mapping.name == name
    assert mapping.description
    assert mapping.inputs == {Input.IMPRESSIONS, Input.CLICKS}
