"""Peaks of memory as benchmarks report them: of a process, and of what it starts."""

import asyncio
import sys

from bench.memory import Peaks

HOLDING = """
import subprocess, sys
held = bytearray(b"x" * int(sys.argv[1]))
if len(sys.argv) > 2:
    subprocess.run([sys.executable, "-c", sys.stdin.read(), sys.argv[2]], check=True)
"""


async def test_what_a_process_and_its_child_have_held_is_seen_although_they_no_longer_do() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDING, "60000000", "200000000"), stdin=asyncio.subprocess.PIPE
    )
    async with Peaks(child.pid).followed() as peaks:
        forgetting = "import sys, time; held = b'x' * int(sys.argv[1]); del held; time.sleep(1)"
        await asyncio.wait_for(child.communicate(forgetting.encode()), 30)
    assert child.returncode == 0
    assert 60 < peaks.first < 190
    assert 200 < peaks.largest_other < 330
    assert len(peaks.by_pid) == 2
