"""Records on their way into an archive: identifiers that are no pseudonyms yet become some, and nothing else changes.

What is replayed from such an archive decides as the live worker did: an event stays the same but for its `user_id`,
`device_id` and `address_id` (and `identity_key_id`), equal identifiers stay equal, and a record that was rejected is
rejected for the same reason at the same place. Both are checked for every record that is changed, with the pipeline's
own decoders. A record whose bytes cannot be told apart from identifiers (no JSON, or too large to look into) is kept
as a **marker**: bytes of the same length that are rejected alike.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from streams.campaigns import decode_campaign
from streams.events import MAX_RECORD_BYTES, Event, Reason, Rejected
from streams.jobs.identity import ADDRESS, Identity, canonical_address, network_of
from streams.jobs.load import compact_json
from streams.signals import decode_allowance, decode_session
from streams.stages.decode import Decoder
from streams.topics import ALLOWANCES, CAMPAIGNS, EVIDENCE, INPUT_TOPICS, JOURNAL, SESSIONS, VERDICTS
from streams.verdicts import decode_evidence, decode_word

FIELDS: Final = ("user_id", "device_id", "address_id")
MAX_ID_LENGTH: Final = 128
_KEY_ID: Final = "identity_key_id"
_DOCUMENT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ESCAPED_NAME: Final = re.compile(rb"\\u00[4567]")
"""A name of ours may be written with escapes, which a search for its bytes would miss."""
_PLACE: Final = re.compile(r"\$\.(\w+)$")
_VALUES: Final = (b"0", b'""', b"{}", b"[]", b"true", b"null", b"-1", b"1e30", b'"' + b"x" * 3000 + b'"')
_BEGINS: Final = (b"", b'"event_id":"x"', b'"event_id":"x","event_time_ms":0')

Decode = Callable[[bytes | None], Any]


class _Identifiers(msgspec.Struct):
    """The fields that hold identifiers, whatever else an event holds."""

    user_id: str | None = None
    device_id: str | None = None
    address_id: str | None = None
    address: msgspec.Raw | None = None


_IDENTIFIERS: Final = msgspec.json.Decoder(_Identifiers)


class Pseudonyms:
    """Treats the records of one topic. Needs an identity with a key."""

    def __init__(self, topic: str, identity: Identity) -> None:
        self.rewritten = 0
        """Records of which an identifier was replaced."""
        self.markers = 0
        """Records that were kept as a marker."""
        self.unfaithful = 0
        """Markers that are rejected for another reason than the record: none would do."""
        self._identity = identity
        self._is_event = topic in INPUT_TOPICS.values()
        self._decode = _decoder_of(topic)
        self._done = re.compile(re.escape(identity.key_id) + ":[0-9a-f]{32}").fullmatch

    def treat(self, keys: list[bytes | None], values: list[bytes | None]) -> None:
        """Puts what is to be archived in the place of keys and values."""
        if self._decode is None:
            return
        treat = self._event if self._is_event else self._notice
        for place, value in enumerate(values):
            if value:
                new = treat(value)
                if new is not value:
                    keys[place], values[place] = self._key(keys[place], value), new

    def _key(self, key: bytes | None, value: bytes) -> bytes | None:
        """Where a producer keys by one of the identifiers, its pseudonym."""
        try:
            found = _IDENTIFIERS.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return key
        names = {getattr(found, name): name for name in FIELDS if getattr(found, name)}
        text = (key or b"").decode(errors="replace")
        return self.pseudonym(names[text], text).encode() if text in names else key

    def _event(self, value: bytes) -> bytes:
        return value if self._is_clean(value) else self._changed(value)

    def _notice(self, value: bytes) -> bytes:
        """Sound documents of these topics hold no identifiers; others may be anything, such as events gone astray."""
        assert self._decode is not None
        return self._changed(value) if isinstance(self._decode(value), Rejected) else value

    def _is_clean(self, value: bytes) -> bool:
        """Whether there are no identifiers but pseudonyms. Names that come twice are looked at more closely."""
        if len(value) > MAX_RECORD_BYTES:
            return False
        try:
            found = _IDENTIFIERS.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        done = self._done
        for identifier in (found.user_id, found.device_id, found.address_id):
            if identifier and done(identifier) is None:
                return False
        if found.address is not None or _ESCAPED_NAME.search(value) is not None:
            return False
        return value.count(b'user_id"') < 2 and value.count(b'device_id"') < 2 and value.count(b'address_id"') < 2

    def _changed(self, value: bytes) -> bytes:
        assert self._decode is not None
        before = self._decode(value)
        document = _document(value)
        if document is not None:
            changed = self._pseudonymised(document)
            if changed == document:
                new = value if self._has_single_names(value, document) else msgspec.json.encode(document)
            else:
                new = msgspec.json.encode(changed)
            if _is_alike(before, self._decode(new)):
                self.rewritten += new is not value
                return new
        if isinstance(before, Event):
            return self._from_event(before)
        return self._marker(value, before)

    def _has_single_names(self, value: bytes, document: dict[str, msgspec.Raw]) -> bool:
        return all(value.count(b'"%s"' % name.encode()) <= (name in document) for name in (*FIELDS, ADDRESS)) and (
            _ESCAPED_NAME.search(value) is None
        )

    def _pseudonymised(self, document: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        changed = {name: raw for name, raw in document.items() if name != ADDRESS}
        for name in FIELDS:
            if name in document:
                changed[name] = self._replaced(name, document[name])
                if changed[name] != document[name] and bytes(changed[name]).startswith(b'"'):
                    changed[_KEY_ID] = msgspec.Raw(msgspec.json.encode(self._identity.key_id))
        return changed

    def _replaced(self, name: str, raw: msgspec.Raw) -> msgspec.Raw:
        """The pseudonym; of what is no identifier but another kind of value, the plainest of that kind."""
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.Raw(b'""')
        if value is None or value == "" or isinstance(value, bool):
            return raw
        if isinstance(value, str):
            pseudonym = self.pseudonym(name, value)
            if len(value) > MAX_ID_LENGTH:  # it is rejected, and shall be
                pseudonym = pseudonym.ljust(MAX_ID_LENGTH + 1, "-")
            return raw if pseudonym == value else msgspec.Raw(msgspec.json.encode(pseudonym))
        return msgspec.Raw({int: b"0", float: b"0.5", list: b"[]", dict: b"{}"}[type(value)])

    def pseudonym(self, name: str, value: str) -> str:
        """As `Identity.apply` makes it; all spellings of an address have one."""
        is_address = name == "address_id" and network_of(value) is not None
        return self._identity.pseudonym(name, canonical_address(value) if is_address else value)

    def _from_event(self, event: Event) -> bytes:
        """Written anew, without fields that are unknown or null."""
        found = {name: getattr(event, name) for name in FIELDS}
        ids: dict[str, Any] = {name: self.pseudonym(name, value) for name, value in found.items() if value}
        if ids:
            ids[_KEY_ID] = self._identity.key_id
        self.rewritten += 1
        return compact_json(msgspec.structs.replace(event, **ids))

    def _marker(self, value: bytes, before: Any) -> bytes:
        assert self._decode is not None
        self.markers += 1
        for candidate in _candidates(before, len(value)):
            if self._decode(candidate) == before:
                return candidate
        self.unfaithful += 1
        return b"{".ljust(len(value))


def _decoder_of(topic: str) -> Decode | None:
    """None: a topic of our own, in which nobody else writes."""
    if topic == JOURNAL:
        return None
    decoders: dict[str, Decode] = {name: Decoder(source).decode for source, name in INPUT_TOPICS.items()}
    decoders |= {CAMPAIGNS: decode_campaign, SESSIONS: decode_session, ALLOWANCES: decode_allowance}
    return (decoders | {EVIDENCE: decode_evidence, VERDICTS: decode_word})[topic]


def _document(value: bytes) -> dict[str, msgspec.Raw] | None:
    """The top level of a JSON object, its values as they are written; None: it is none."""
    if len(value) > MAX_RECORD_BYTES:
        return None
    try:
        return _DOCUMENT.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_alike(before: Any, after: Any) -> bool:
    """Whether the pipeline does the same with both, but for the identifiers."""
    if isinstance(before, Event) and isinstance(after, Event):
        nothing: dict[str, Any] = dict.fromkeys((*FIELDS, _KEY_ID))
        return bool(msgspec.structs.replace(before, **nothing) == msgspec.structs.replace(after, **nothing))
    return bool(before == after)


def _candidates(rejected: Any, length: int) -> Iterator[bytes]:
    """Bytes without any content that may be rejected so, as long as the record where that is possible."""
    if not isinstance(rejected, Rejected):
        return
    if rejected.reason is Reason.TOO_DEEP:
        yield b'{"":'.ljust(length, b"[")
    if rejected.reason is Reason.NOT_UTF8:
        yield b'{"event_id":"\xff"}'.ljust(length)
        yield b'{"campaign_id":"\xff"}'.ljust(length)
    for text in (b" ", b"{", b"{}", b"[]", b"\xc1"):
        yield text.ljust(length)
    if place := _PLACE.match(rejected.path):
        for begin in _BEGINS:
            for value in _VALUES:
                yield b'{%s"%s":%s}' % (begin and begin + b",", place[1].encode(), value)
    yield from (b"{%s}".ljust(length).replace(b"%s", begin) for begin in _BEGINS)
