"""Pseudonyms, made on the way in: what is derived from an address is derived first, then the address is hashed.

With a key, `user_id`, `device_id` and the address become `<key id>:<32 hexadecimal digits>` (keyed BLAKE2b, 128 bit,
each field in a domain of its own), and the event carries the key's id. What already is a pseudonym of this key stays.
Without a key, `user_id` and `device_id` are taken as they are: whoever sends them answers for them. An address is
never stored raw, so without a key only its `network` is kept, and an `address_id` only if it is no address itself.
"""

import hashlib
import re
from collections.abc import MutableMapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, Self

from streams.errors import ConfigurationError
from streams.settings import IdentitySettings

IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 48
MIN_KEY_BYTES: Final = 16
"""There are only 2^32 IPv4 addresses: a key that can be guessed makes the pseudonyms reversible."""
ADDRESS: Final = "address"
"""The one field of a mapped document that no event has: a raw client address."""

_PSEUDONYMS: Final = ("user_id", "device_id", "address_id")
_MASKED: Final = re.compile(r"(\d{1,3}\.\d{1,3}\.\d{1,3})\.(?:\*|x|xxx)$", re.IGNORECASE)
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_WITH_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[\d.]+))(?::\d{1,5})?$")


class Identity(NamedTuple):
    """How identifiers are treated. `key` is None where none is configured."""

    key: bytes | None = None
    key_id: str = "k1"

    @classmethod
    def from_settings(cls, settings: IdentitySettings) -> Self:
        """The treatment that the settings ask for.

        Raises:
            ConfigurationError: the key is shorter than `MIN_KEY_BYTES`.
        """
        if settings.key is None:
            return cls(None, settings.key_id)
        key = settings.key.get_secret_value().encode()
        if len(key) < MIN_KEY_BYTES:
            raise ConfigurationError(f"identity.key: needs at least {MIN_KEY_BYTES} bytes; use `openssl rand -hex 32`")
        return cls(hashlib.blake2b(key, digest_size=32).digest(), settings.key_id)

    def __repr__(self) -> str:
        return f"Identity(key={'***' if self.key else None}, key_id={self.key_id!r})"

    def pseudonym(self, field: str, value: str) -> str:
        """The pseudonym of a value in the domain `field` (at most 16 bytes). Needs a key."""
        if self.key is None:
            raise ValueError("no key")
        if _DIGEST.fullmatch(value.removeprefix(f"{self.key_id}:")) and value.startswith(f"{self.key_id}:"):
            return value
        digest = hashlib.blake2b(value.encode(), digest_size=16, key=self.key, person=field.encode()).hexdigest()
        return f"{self.key_id}:{digest}"

    def apply(self, document: MutableMapping[str, object]) -> None:
        """Replaces, in place, what must not be stored. `document` may hold a raw `address` beside event fields."""
        address = document.pop(ADDRESS, None) or _raw_address_id(document)
        if isinstance(address, str) and address.strip():
            self._apply_address(document, address.strip())
        if self.key is None:
            return
        for field in _PSEUDONYMS:
            value = document.get(field)
            if isinstance(value, str) and value:
                document[field] = self.pseudonym(field, value)
                document["identity_key_id"] = self.key_id

    def _apply_address(self, document: MutableMapping[str, object], address: str) -> None:
        if document.get("network") is None:
            network = network_of(address)
            if network is not None:
                document["network"] = network
        if self.key is not None:
            document["address_id"] = self.pseudonym("address_id", canonical_address(address))
            document["identity_key_id"] = self.key_id


@lru_cache(maxsize=65_536)
def network_of(address: str) -> str | None:
    """The /24 (IPv4) or /48 (IPv6) that an address lies in, or None where it is no address.

    `222.218.230.*`, `222.218.230.17` and `222.218.230.17:443` all give `222.218.230.0/24`.
    """
    parsed = _parsed(address)
    if isinstance(parsed, IPv4Address):
        return str(IPv4Network((parsed, IPV4_PREFIX), strict=False))
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), IPV6_PREFIX), strict=False))
    return None


def canonical_address(address: str) -> str:
    """One spelling for one address, so that it has one pseudonym. A masked address keeps its mask."""
    if _MASKED.match(address):
        return _MASKED.sub(r"\1.*", address)
    parsed = _parsed(address)
    return address.lower() if parsed is None else str(parsed)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    masked = _MASKED.match(address)
    bare = f"{masked[1]}.0" if masked else _without_port(address)
    try:
        parsed = ip_address(bare)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or IPv6Address(int(parsed))  # without a zone such as %eth0
    return parsed


def _without_port(address: str) -> str:
    match = _WITH_PORT.match(address)
    return (match["v6"] or match["v4"]) if match else address


def _raw_address_id(document: MutableMapping[str, object]) -> object:
    """Takes out an `address_id` that is an address itself, put there by mistake."""
    given = document.get("address_id")
    return document.pop("address_id") if isinstance(given, str) and _parsed(given) is not None else None
