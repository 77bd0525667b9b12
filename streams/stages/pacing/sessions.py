"""How live sessions of a host usually go: traffic by minute since the start, learned from that host's earlier ones."""

from typing import Any, Final

MINUTES: Final = 360
"""A session's later minutes count as its last."""
MAX_HOSTS: Final = 500
"""The host that was learned from longest ago gives way."""
GAIN: Final = 0.4
"""What the latest session counts for."""
SMOOTH_MINUTES: Final = 5
LEAST_MINUTES: Final = 10


class SessionBaselines:
    """Per host: a profile with mean 1 over the minutes that its sessions had. At most 500 × 360 numbers."""

    def __init__(self) -> None:
        self._hosts: dict[str, list[float]] = {}

    def learn(self, host: str, minutes: list[float]) -> None:
        """A session of the host is over: its unthrottled traffic by minute."""
        total = sum(minutes)
        if len(minutes) < LEAST_MINUTES or total <= 0 or not host:
            return
        seen = [amount * len(minutes) / total for amount in _smooth(minutes[:MINUTES])]
        known = self._hosts.pop(host, None)
        if known is not None:
            shared = min(len(known), len(seen))
            mixed = [known[at] + GAIN * (seen[at] - known[at]) for at in range(shared)]
            seen = mixed + (known[shared:] or seen[shared:])
        self._hosts[host] = seen
        if len(self._hosts) > MAX_HOSTS:
            del self._hosts[next(iter(self._hosts))]

    def weight(self, host: str, minute: int) -> float:
        """Expected traffic of a minute since the start, relative to the host's average; 1 while unknown."""
        profile = self._hosts.get(host)
        if profile is None:
            return 1.0
        return max(0.05, profile[min(max(0, minute), len(profile) - 1)])

    def is_known(self, host: str) -> bool:
        """Whether the host had a session before."""
        return host in self._hosts

    def snapshot(self) -> list[Any]:
        """Builtin values, the host that gives way first first."""
        return [(host, list(profile)) for host, profile in self._hosts.items()]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self._hosts = {host: list(profile) for host, profile in snapshot}


def _smooth(minutes: list[float]) -> list[float]:
    """Mean over the minutes around each."""
    half, count = SMOOTH_MINUTES // 2, len(minutes)
    windows = [minutes[max(0, at - half) : min(count, at + half + 1)] for at in range(count)]
    return [sum(window) / len(window) for window in windows]
