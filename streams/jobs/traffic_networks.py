"""Where generated people are: behind which address, and in which network, at a time.

Two live in a household, whose address changes every day; many sit in an office by day, behind its one address; most
phones are behind a carrier's gateway with thousands of others, and another one every few hours. Networks of people
lie in 100.64.0.0/10 (shared address space, RFC 6598), those of data centres in 198.18.0.0/15 (benchmarks, RFC 2544)
and 2001:db8::/32 (documentation, RFC 3849): none of them belongs to anybody.
"""

from datetime import UTC, datetime
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import xxhash

from streams.jobs.traffic_profile import DAY_MS, Oddity, TrafficProfile

HOUR_MS: Final = 3_600_000
USERS_PER_GATEWAY: Final = 3_000
USERS_PER_OFFICE: Final = 80
GATEWAY_HOURS: Final = 4
WORK_HOURS: Final = (9, 18)
DATA_CENTRES: Final = 12
"""Networks of data centres of the first version of the protocol; a third as many are of the sixth."""
_MONDAY_DAY: Final = 4
"""1970-01-05 was the first Monday."""
_CACHED: Final = 500_000


class Whereabouts:
    """Addresses of people: `office` and `carrier` of the profile's oddities are the shares of users concerned."""

    def __init__(self, profile: TrafficProfile) -> None:
        self._seed = profile.catalogue_seed
        at = datetime.fromtimestamp(min(profile.first_ms / 1000, 4e9), UTC)
        offset = at.astimezone(ZoneInfo(profile.time_zone)).utcoffset()
        self._offset_ms = int(offset.total_seconds() * 1000) if offset else 0  # of the run's begin: good enough here
        carrier, office = (profile.oddities.get(kind, 0.0) for kind in (Oddity.CARRIER, Oddity.OFFICE))
        self._carrier, self._office = int(carrier * 65_536), int(office * 65_536)
        self._gateways = max(1, int(profile.users * carrier) // USERS_PER_GATEWAY)
        self._offices = max(1, int(profile.users * office) // USERS_PER_OFFICE)
        self._fragments: dict[tuple[str, int], str] = {}

    def fragment(self, user: int, at_ms: int) -> str:
        """`,"address_id":…,"network":…` of the user at this rank."""
        mixed = xxhash.xxh3_64_intdigest(b"%d:%d" % (self._seed, user))
        local_ms = at_ms + self._offset_ms
        if (mixed & 0xFFFF) < self._office and _is_working(local_ms):
            return self._named("office", (mixed >> 32) % self._offices)
        if (mixed >> 16 & 0xFFFF) < self._carrier:
            stay = (local_ms + (mixed >> 48) * 1_000) // (GATEWAY_HOURS * HOUR_MS)
            return self._named("gateway", xxhash.xxh3_64_intdigest(b"%d:%d" % (mixed, stay)) % self._gateways)
        # At 04:00 or so, when routers reconnect.
        return self._named("home", user // 2 * 100_000 + (local_ms - 4 * HOUR_MS) // DAY_MS)

    def _named(self, kind: str, number: int) -> str:
        found = self._fragments.get((kind, number))
        if found is None:
            found = address_fragment(f"{self._seed} {kind} {number}", *_RANGES[kind])
            if len(self._fragments) < _CACHED:
                self._fragments[kind, number] = found
        return found


def _is_working(local_ms: int) -> bool:
    day, within_ms = divmod(local_ms, DAY_MS)
    return WORK_HOURS[0] * HOUR_MS <= within_ms < WORK_HOURS[1] * HOUR_MS and (day - _MONDAY_DAY) % 7 < 5


_RANGES: Final = {"gateway": (64, 2), "office": (66, 6), "home": (72, 56)}
"""Second byte of their networks: the first, and how many."""


def address_fragment(name: str, first: int = 72, count: int = 56) -> str:
    """`,"address_id":…,"network":…` of a named place among people's networks; homes unless told otherwise."""
    mixed = xxhash.xxh3_64_intdigest(name.encode())
    network = f"100.{first + (mixed & 0xFFFF) % count}.{(mixed >> 16) % 256}.0/24"
    return f',"address_id":"a{mixed >> 16:012x}","network":"{network}"'


def data_centre_networks(profile: TrafficProfile) -> list[str]:
    """Networks (CIDR) of the data centres of this profile's world: what a list of them would contain."""
    random = Random(f"data centres {profile.catalogue_seed}")
    places = random.sample(range(32), DATA_CENTRES)  # of sixteen /20 in each of 198.18 and 198.19
    fourth = [f"198.{18 + at // 16}.{at % 16 * 16}.0/{random.choice((20, 21, 22))}" for at in places]
    sixth = [f"2001:db8:{at:x}::/48" for at in random.sample(range(0x1000, 0xFFFF), DATA_CENTRES // 3)]
    return sorted(fourth) + sorted(sixth)


def network_within(data_centre: str, number: int) -> str:
    """The prefix of a client in a data centre, as collectors shorten it: /24, or /48 of the sixth version."""
    network, _, length = data_centre.partition("/")
    if ":" in network:
        return data_centre
    head, third = network.rsplit(".", 2)[0], int(network.split(".")[2])
    return f"{head}.{third + number % (1 << (24 - int(length)))}.0/24"
