"""Peak resident memory and processor time of a process and of all that it starts, as Linux tells them in /proc."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 0.1
"""A process that lives for less may be missed."""


class Peaks:
    """By process: the most that it ever held, MB (10^6 bytes), as far as it was seen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.by_pid: dict[int, float] = {}
        self.cpu_s_by_pid: dict[int, float] = {}

    def look(self) -> None:
        """Looks once. Both are the kernel's own sums, so nothing is missed between looks but the last moments."""
        for pid in _family(self.pid):
            self.by_pid[pid] = max(_peak_mb(pid), self.by_pid.get(pid, 0.0))
            self.cpu_s_by_pid[pid] = max(cpu_s(pid), self.cpu_s_by_pid.get(pid, 0.0))

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator["Peaks"]:
        """Looks again and again meanwhile."""
        looking = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            looking.cancel()

    async def _follow(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def first(self) -> float:
        """Of the process itself."""
        return self.by_pid.get(self.pid, 0.0)

    @property
    def cpu_s(self) -> float:
        """Processor time of all together, seconds."""
        return sum(self.cpu_s_by_pid.values())

    @property
    def largest_other(self) -> float:
        """Of the largest process that it has started; 0: none."""
        return max((peak for pid, peak in self.by_pid.items() if pid != self.pid), default=0.0)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for child in children.read_text().split():
                yield from _family(int(child))


def _peak_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu_s(pid: int) -> float:
    """Processor time of a process and its threads, seconds; 0: it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
