"""Seeded mutations of records: cheap enough for millions, each of a kind that real producers and networks cause."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from streams.events import Input
from tests.unit.given import T0, document

FRAGMENTS: Final = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\n", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"NaN", b"Infinity", b"-", b"1e999", b"null", b"true", b"{}", b"[]", b'""', b"0", b"9" * 25, b"-1", b"1.5",
    b"\\ud800", b"\\u0000", b"\\ud83d\\ude00", b'{"a":', b"[[[[[[[[", b'"event_id":7,', b'"event_time_ms":"x",',
    b'"campaign_id":null,', b'"traffic":"organic",', b'"currency":"EUR",', b'"experiments":[{}],', b'"x":{"y":[1,{}]},',
)  # fmt: skip
VALUES: Final = (
    b"null", b"true", b"false", b"0", b"-1", b"1", b"1.0", b"1e3", b"-0", b"NaN", b"1e400", b"9" * 19, b"9" * 40,
    b"-" + b"9" * 30, b"4102444800000", b"4102444800001", b"1000000000000000", b"1000000000000001", b'""', b'"x"',
    b'"USD"', b'"organic"',
    b'"' + b"y" * 128 + b'"', b'"' + b"y" * 129 + b'"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\xff"', b'"\\n\\u0000"',
    b"[]", b"{}", b"[null]", b'[{"id":"a","arm":"b"}]', b'{"touch_type":"click"}',
    b'{"touch_type":"none","weight_ppm":-1}',
    b'[{"product_id":"p","quantity":0}]', b'"click"', b'"complete"', b'"refund"', b'"like"',
    str(T0).encode(), str(T0 + 300_000).encode(), str(T0 + 300_001).encode(), str(T0 - 700_000).encode(),
)  # fmt: skip
DEEP: Final = (b'"x":' + b"[" * 3_000 + b"]" * 3_000 + b",", b'"x":' + b'{"a":' * 3_000, b'"items":' + b"[" * 3_000)
HUGE: Final = b'"padding":"' + b"z" * 66_000 + b'",'


class Form(NamedTuple):
    """A sound document: its fields, and the whole."""

    names: list[bytes]
    values: list[bytes]
    whole: bytes


def forms_of(source: Input) -> list[Form]:
    """Sound documents of an input, from the poorest to the richest."""
    return [_form(document(source, "e0", T0, **fields)) for fields in ({}, *_RICH[source])]


def _form(fields: dict[str, Any]) -> Form:
    values = [json.dumps(value).encode() for value in fields.values()]
    return Form([f'"{name}":'.encode() for name in fields], values, json.dumps(fields).encode())


_COMMON: Final[dict[str, Any]] = {
    "ad_unit_id": "u",
    "creative_id": "v",
    "user_id": "p",
    "region": "GB-LND",
    "channel": "feed",
    "currency": "USD",
    "experiments": [{"id": "x", "arm": "a"}, {"id": "y", "arm": "b"}],
    "client_time_ms": T0 - 5,
}
_ORGANIC: Final[dict[str, Any]] = {"traffic": "organic", "campaign_id": None, "shop_id": "s"}
_TOUCH: Final[dict[str, Any]] = {
    "touch_type": "click",
    "touch_id": "t",
    "touch_time_ms": T0 - 999,
    "weight_ppm": 500_000,
}
_RICH: Final[dict[Input, list[dict[str, Any]]]] = {
    Input.IMPRESSIONS: [{**_COMMON, "viewable": True, "clearing_price_millimicros": 1_500}, _ORGANIC],
    Input.PLAYS: [
        {**_COMMON, "milestone": "3s", "watched_ms": 3_000, "loop": 2, "clearing_price_millimicros": 7},
        _ORGANIC,
    ],
    Input.CLICKS: [{**_COMMON, "click_type": "button", "clearing_price_millimicros": 9}, _ORGANIC],
    Input.CONVERSIONS: [
        {**_COMMON, "value_micros": 5, "items": [{"product_id": "p", "quantity": 2}], "attribution": _TOUCH},
        _ORGANIC,
    ],
    Input.ADJUSTMENTS: [{**_COMMON, "amount_micros": -5, "order_line": "1"}, _ORGANIC],
    Input.ENGAGEMENTS: [{**_COMMON, "engagement_type": "share"}, _ORGANIC],
}


class Mutator:
    """Endless mutated records of one input, a function of the seed."""

    def __init__(self, source: Input, seed: int) -> None:
        self.rng = Random(f"{seed}/{source.value}")
        self.forms = forms_of(source)
        often: list[Callable[[bytes], bytes | None]] = [
            self._flipped,
            self._flipped_many,
            self._cut,
            self._without_a_slice,
            self._with_a_slice_again,
            self._with_a_fragment,
            self._with_a_fragment,
            self._swapped,
        ]
        rarely: list[Callable[[bytes], bytes | None]] = [self._deep, self._huge, self._twice, self._nothing]
        self._kinds = [*often * 16, *rarely]

    def batch(self, size: int) -> list[bytes | None]:
        """Mutated records: nearly half have another value only, as many broken bytes, the others both."""
        choice, chance, kinds = self.rng.choice, self.rng.random, self._kinds
        found: list[bytes | None] = []
        for _ in range(size):
            form, roll = choice(self.forms), chance()
            raw: bytes | None = self._retyped(form) if roll < 0.7 else form.whole
            if roll > 0.45 and raw is not None:
                raw = choice(kinds)(raw)
                if roll > 0.9 and raw:
                    raw = choice(kinds)(raw)
            found.append(raw)
        return found

    def _place(self, raw: bytes) -> int:
        return int(self.rng.random() * len(raw))

    def _retyped(self, form: Form) -> bytes:
        values = form.values.copy()
        values[int(self.rng.random() * len(values))] = self.rng.choice(VALUES)
        if self.rng.random() < 0.8:  # an id of its own, so that not all of them are duplicates
            values[0] = b'"%d"' % self.rng.getrandbits(20)
        return b"{" + b",".join(map(bytes.__add__, form.names, values)) + b"}"

    def _flipped(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + bytes([raw[at] ^ (1 << self.rng.getrandbits(3) & 7)]) + raw[at + 1 :] if raw else raw

    def _flipped_many(self, raw: bytes) -> bytes:
        changed = bytearray(raw)
        for _ in range(1 + self.rng.getrandbits(3)):
            if changed:
                changed[self._place(changed)] = self.rng.getrandbits(8)
        return bytes(changed)

    def _cut(self, raw: bytes) -> bytes:
        return raw[: self._place(raw)]

    def _without_a_slice(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + raw[at + self.rng.getrandbits(5) :]

    def _with_a_slice_again(self, raw: bytes) -> bytes:
        at = self._place(raw)
        part = raw[at : at + self.rng.getrandbits(6)]
        return raw[:at] + part + raw[at:]

    def _with_a_fragment(self, raw: bytes) -> bytes:
        at = self._place(raw) if self.rng.random() < 0.7 else 1
        return raw[:at] + self.rng.choice(FRAGMENTS) + raw[at:]

    def _swapped(self, raw: bytes) -> bytes:
        one, other = sorted((self._place(raw), self._place(raw)))
        return raw[other:] + raw[one:other] + raw[:one]

    def _deep(self, raw: bytes) -> bytes:
        return raw[:1] + self.rng.choice(DEEP) + raw[1:]

    def _huge(self, raw: bytes) -> bytes:
        return raw[:1] + HUGE + raw[1:]

    def _twice(self, raw: bytes) -> bytes:
        return raw + b"\n" + raw

    def _nothing(self, raw: bytes) -> bytes | None:
        return None if self.rng.random() < 0.5 else b""
