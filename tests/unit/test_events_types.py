"""The types of what comes in: documented, bounded, frozen, and with units last."""

import msgspec
import pytest

from streams.events import (
    EVENT_TYPES,
    Attribution,
    Event,
    Experiment,
    Impression,
    Input,
    Item,
    Reason,
    Rejected,
)

TYPES: list[type[msgspec.Struct]] = [*EVENT_TYPES.values(), Attribution, Experiment, Item]
UNITS = ("_ms", "_micros", "_millimicros", "_px", "_ppm")


def test_every_input_has_a_type_that_names_it() -> None:
    assert {source: kind.input for source, kind in EVENT_TYPES.items()} == {source: source for source in Input}


@pytest.mark.parametrize("kind", TYPES)
def test_every_field_is_described(kind: type[msgspec.Struct]) -> None:
    schema = msgspec.json.schema(kind)
    properties = schema["$defs"][kind.__name__]["properties"]
    assert {name for name, found in properties.items() if "description" not in found} == set()


@pytest.mark.parametrize("kind", TYPES)
def test_texts_and_numbers_are_bounded(kind: type[msgspec.Struct]) -> None:
    properties = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    open_ended = set()
    for name, found in properties.items():
        for choice in found.get("anyOf", [found]):
            if choice.get("type") == "string" and "maxLength" not in choice and "enum" not in choice:
                open_ended.add(name)
            if choice.get("type") == "integer" and not {"minimum", "maximum"} <= choice.keys():
                open_ended.add(name)
            if choice.get("type") == "array" and "maxItems" not in choice:
                open_ended.add(name)
    assert open_ended - {"client_time_ms"} == set()  # it decides nothing and is stored nowhere


@pytest.mark.parametrize("kind", TYPES)
def test_units_stand_last_and_amounts_have_one(kind: type[msgspec.Struct]) -> None:
    names = [field.name for field in msgspec.structs.fields(kind)]
    for name in names:
        middle = [unit for unit in UNITS if unit in name and not name.endswith(UNITS)]
        assert not middle, name
        if any(word in name for word in ("time", "price", "value", "amount", "cost", "discount", "watched")):
            assert name.endswith((*UNITS, "_id")), name


def test_events_and_rejections_cannot_be_changed() -> None:
    event = Impression(event_id="e", event_time_ms=1)
    with pytest.raises(AttributeError):
        event.event_id = "f"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Rejected(Reason.EMPTY).path = "$.x"  # type: ignore[misc]


def test_an_event_needs_its_id_and_its_time_only() -> None:
    required = {field.name for field in msgspec.structs.fields(Event) if field.required}
    assert required == {"event_id", "event_time_ms"}


def test_reasons_are_labels() -> None:
    assert all(reason.value.replace("_", "").isalnum() and reason.value.islower() for reason in Reason)
