"""What an archive keeps of a record: identifiers become pseudonyms, and the pipeline decides as before."""

import json
import os
from typing import Any

import msgspec
import pytest

from streams.events import MAX_RECORD_BYTES, Event, Input, Reason, Rejected
from streams.jobs.identity import Identity
from streams.jobs.pseudonyms import FIELDS, Pseudonyms
from streams.stages.decode import Decoder
from streams.topics import CAMPAIGNS, EVIDENCE, INPUT_TOPICS, JOURNAL, VERDICTS
from tests.unit.fuzz_mutations import Mutator
from tests.unit.given import T0, document

KEYED = Identity(b"k" * 32, "k7")
CLICKS = INPUT_TOPICS[Input.CLICKS]
DONE = "k7:" + "0123456789abcdef" * 2
SEED = int(os.environ.get("FUZZ_SEED", "1"))


def treated(value: bytes | None, topic: str = CLICKS, key: bytes | None = b"c1") -> tuple[bytes | None, bytes | None]:
    keys, values = [key], [value]
    Pseudonyms(topic, KEYED).treat(keys, values)
    return keys[0], values[0]


def click(**fields: Any) -> bytes:
    return json.dumps(document(Input.CLICKS, "e1", T0, **fields)).encode()


def decoded(value: bytes | None, source: Input = Input.CLICKS) -> Event | Rejected:
    return Decoder(source).decode(value)


@pytest.mark.parametrize(
    "value",
    [
        click(),
        click(user_id=DONE, device_id=DONE, address_id=DONE),
        click(user_id=None, device_id=None),
        click(unknown={"nested": [1.0, 2]}),
        b' {"event_id" : "e" , "event_time_ms": 1.0e3 } ',
        b'{"event_id":7,"rest":"of it"}',
        None,
        b"",
    ],
)
def test_what_holds_no_identifier_stays_as_it_is_to_the_byte(value: bytes | None) -> None:
    assert treated(value) == (b"c1", value)


def test_an_identifier_becomes_the_pseudonym_that_loading_gives_it_and_the_rest_keeps_its_bytes() -> None:
    value = b'{"event_id":"e1", "event_time_ms":1.0e3,"user_id":"alice","x":{"y" : 1.50}, "address_id":"203.0.113.77"}'
    _, found = treated(value)
    expected = {"user_id": "alice", "address_id": "203.0.113.77"}
    KEYED.apply(expected)
    assert found is not None
    assert b"alice" not in found
    assert b"203.0.113" not in found
    assert b'"x":{"y" : 1.50}' in found
    assert b'"event_time_ms":1.0e3' in found
    archived = json.loads(found)
    assert {name: archived[name] for name in ("user_id", "address_id", "identity_key_id")} == {
        name: expected[name] for name in ("user_id", "address_id", "identity_key_id")
    }


def test_equal_identifiers_stay_equal_and_others_stay_apart() -> None:
    found = [json.loads(treated(click(user_id=name, device_id="d"))[1] or b"") for name in ("a", "b", "a")]
    assert found[0] == found[2]
    assert found[0]["user_id"] != found[1]["user_id"]
    assert found[0]["device_id"] == found[1]["device_id"] != found[0]["user_id"]


def test_an_address_under_the_name_of_the_log_files_is_left_out() -> None:
    _, found = treated(click(address="203.0.113.77"))
    assert found is not None
    assert b"203.0.113" not in found
    assert decoded(found) == decoded(click())


def test_names_that_come_twice_or_are_escaped_hide_nothing() -> None:
    for value in (
        b'{"event_id":"e","event_time_ms":1,"user_id":"alice","user_id":"%s"}' % DONE.encode(),
        b'{"event_id":"e","event_time_ms":1,"user\\u005fid":"alice"}',
        b'{"event_id":"e","event_time_ms":1,"user_id":"al\\u0069ce"}',
        b'{"event_id":"e","event_time_ms":1,"user\\u005fid":"alice","user_id":"%s"}' % DONE.encode(),
    ):
        _, found = treated(value)
        assert found is not None
        assert b"al" not in found
        event = decoded(found)
        assert isinstance(event, Event)
        assert (event.user_id or "").startswith("k7:")


def test_a_key_that_is_the_identifier_becomes_its_pseudonym_too() -> None:
    key, value = treated(click(user_id="alice"), key=b"alice")
    assert key == json.loads(value or b"")["user_id"].encode()
    assert treated(click(user_id="alice"), key=b"c1")[0] == b"c1"


@pytest.mark.parametrize("given", [7654321, 1.25, ["alice"], {"a": "alice"}, "x" * 200, "", True])
@pytest.mark.parametrize("name", FIELDS)
def test_an_identifier_of_a_wrong_kind_is_rejected_alike_and_gone(given: Any, name: str) -> None:
    value = click(**{name: given})
    _, found = treated(value)
    assert isinstance(decoded(value), Rejected)
    assert decoded(found) == decoded(value)
    if given not in ("", True):
        assert json.dumps(given).encode() not in (found or b"")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"alice was here", Reason.MALFORMED_JSON),
        (b'{"user_id":"alice"', Reason.MALFORMED_JSON),
        (b'{"event_id":"e","event_time_ms":1,"user_id":"alice\xff"}', Reason.NOT_UTF8),
        (b'["alice"]', Reason.WRONG_TYPE),
        (b'"alice"', Reason.WRONG_TYPE),
        (b'{"user_id":"alice","x":' + b"[" * 3_000, Reason.TOO_DEEP),
        (b'{"user_id":"alice","padding":"' + b"z" * MAX_RECORD_BYTES + b'"}', Reason.TOO_LARGE),
        (b'{"user_id":"alice"} and more', Reason.MISSING_FIELD),
        (b'{"event_id":7,"user_id":"alice', Reason.WRONG_TYPE),
    ],
)
def test_what_is_no_document_is_kept_as_a_marker_that_is_rejected_alike(value: bytes, reason: Reason) -> None:
    before = decoded(value)
    assert isinstance(before, Rejected)
    assert before.reason is reason
    treatment, values = Pseudonyms(CLICKS, KEYED), [value]
    treatment.treat([None], values)  # type: ignore[arg-type]
    assert b"alice" not in values[0]
    assert decoded(values[0]) == before
    assert (treatment.markers, treatment.unfaithful) == (1, 0)
    if before.path == "$":
        assert len(values[0]) == len(value)


def test_an_event_that_would_become_too_large_is_written_without_its_unknown_fields() -> None:
    small = click(user_id="a", padding="")
    value = click(user_id="a", padding="z" * (MAX_RECORD_BYTES - len(small)))
    assert len(value) == MAX_RECORD_BYTES
    _, found = treated(value)
    event = decoded(found)
    assert isinstance(event, Event)
    assert msgspec.structs.replace(event, user_id="a", identity_key_id=None) == decoded(value)


def test_topics_of_our_own_stay_as_they_are_but_for_what_has_gone_astray() -> None:
    assert treated(b"anything", JOURNAL)[1] == b"anything"
    sound = b'{"campaign_id":"c1","currency":"EUR","user_id":"unknown fields stay"}'
    assert treated(sound, CAMPAIGNS)[1] == sound
    for topic in (CAMPAIGNS, VERDICTS, EVIDENCE):
        _, found = treated(click(user_id="alice"), topic)
        assert b"alice" not in (found or b"alice")
        _, found = treated(b"alice", topic)
        assert b"alice" not in (found or b"alice")


@pytest.mark.parametrize("source", list(Input))
def test_mutated_records_are_decided_alike_and_keep_no_identifier(source: Input) -> None:
    topic, decode = INPUT_TOPICS[source], Decoder(source).decode
    treatment = Pseudonyms(topic, KEYED)
    nothing = dict.fromkeys((*FIELDS, "identity_key_id"))
    records = 4_000
    for value in Mutator(source, SEED).batch(records):
        given = value.replace(b'"user_id": "p"', b'"user_id": "alice"') if value else value
        values = [given]
        unfaithful = treatment.unfaithful
        treatment.treat([None], values)
        before, after = decode(given), decode(values[0])
        if isinstance(before, Event):
            assert isinstance(after, Event), given
            assert after.user_id is None or after.user_id.startswith("k7:")
            before, after = (msgspec.structs.replace(e, **nothing) for e in (before, after))  # type: ignore[arg-type]
            assert before == after, given
        elif treatment.unfaithful == unfaithful:
            assert before == after, given
        assert b"alice" not in (values[0] or b""), (given, values[0])
    print(f"FUZZ_SEED={SEED} {source.value}: {treatment.rewritten} rewritten, {treatment.markers} markers")
    assert treatment.rewritten > 10
    assert treatment.unfaithful <= treatment.markers / 100
