"""Data centres' networks: packed as the rules carry them, and looked up by longest prefix.

Events carry a network, not an address (`203.0.113.0/24`, `2001:db8::/48`: what was left of the address before it was
hashed). It is in a data centre if a listed network contains it wholly. Where a listed network is the smaller one, most
of the event's network may be people's, and nobody can tell: that is no match.
"""

import zlib
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Final

from radix import Radix

from streams.invalid import BIT, MAX_NETWORKS, Rule

MAX_CACHED: Final = 131_072
"""Networks whose verdict is remembered; beyond it all are forgotten. What is found never depends on it."""
UNREADABLE: Final = -1
Network = IPv4Network | IPv6Network
_MAX_TEXT_BYTES: Final = MAX_NETWORKS * 44  # the longest IPv6 network and its line's end


def parse_network(text: str) -> Network | None:
    """A network in CIDR notation, or one address; None where it is neither. Bits beyond the prefix do not matter."""
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def join_networks(networks: Iterable[Network]) -> list[Network]:
    """The same addresses in as few networks as possible, in order: halves that are both listed match as a whole."""
    found = list(networks)
    fourth = collapse_addresses(n for n in found if isinstance(n, IPv4Network))
    sixth = collapse_addresses(n for n in found if isinstance(n, IPv6Network))
    return [*fourth, *sixth]


def pack_networks(networks: Iterable[Network]) -> bytes:
    """What `Lists.networks` carries: joined, in order, compressed."""
    lines = [str(network) for network in join_networks(networks)]
    return zlib.compress("\n".join(lines).encode(), 9) if lines else b""


def unpack_networks(packed: bytes) -> list[str]:
    """The networks, CIDR.

    Raises:
        ValueError: the bytes are no such list.
    """
    if not packed:
        return []
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, _MAX_TEXT_BYTES).decode("ascii")
    except (zlib.error, UnicodeDecodeError):
        raise ValueError("networks: not packed by pack_networks") from None
    if not unpacking.eof:
        raise ValueError(f"networks: more than {_MAX_TEXT_BYTES:,} bytes when unpacked, or cut off")
    return text.split("\n")


class NetworkIndex:
    """Finds the longest listed network that contains a network."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._tree = Radix()
        for network in networks:
            self._tree.add(network)

    def find(self, network: Network) -> str | None:
        """The listed network, CIDR."""
        node = self._tree.search_best(packed=network.network_address.packed, masklen=network.prefixlen)
        return None if node is None else str(node.prefix)


class NetworkBits(dict[str | None, int]):
    """Look up `found[network]`: the bit of a data centre's network, 0 of any other, and UNREADABLE."""

    def __init__(self, index: NetworkIndex) -> None:
        super().__init__()
        self.index = index

    def __missing__(self, text: str | None) -> int:
        network = None if text is None else parse_network(text)
        bits = UNREADABLE
        if network is not None:
            bits = 0 if self.index.find(network) is None else BIT[Rule.DATA_CENTRE]
        if len(self) >= MAX_CACHED:
            self.clear()
        self[text] = bits
        return bits


@lru_cache(maxsize=2)
def network_bits(packed: bytes) -> NetworkBits:
    """One table for all that judge by the same list."""
    return NetworkBits(NetworkIndex(unpack_networks(packed)))
