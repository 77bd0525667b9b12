"""Keeps webhooks out of private networks: judged is the address that is connected to, not the name in the URL.

aiohttp asks for a socket for each address that it is about to connect to; a refused address gets none. So there is no
time between the check and its use in which a name could be bound to another address, and it does not matter whether
the URL holds a name, a number in an odd notation, or an IPv6 address that embeds an IPv4 one.
"""

import ipaddress
import socket
from typing import Any, Final

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PrivateAddress(OSError):
    """The address lies in a private, loopback, link-local or otherwise special network."""


def is_public(text: str) -> bool:
    """Whether an address is one of the Internet; an IPv4 address inside an IPv6 one is judged itself."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


class Guard:
    """Gives aiohttp its sockets; `refused` is the last address that got none."""

    def __init__(self, allow_private: bool) -> None:
        self.allow_private = allow_private
        self.refused = ""

    def socket(self, address_info: Any) -> socket.socket:
        """A socket for an address as `getaddrinfo` returns it.

        Raises:
            PrivateAddress: it is not to be connected to.
        """
        family, kind, protocol, _, place = address_info
        if not self.allow_private and not is_public(str(place[0])):
            self.refused = str(place[0])
            raise PrivateAddress(f"{place[0]} is inside a private network")
        return socket.socket(family, kind, protocol)
