"""Real Apache Kafka without Docker: its jars by Maven into a cache folder, one KRaft node on loopback, Java 17.

The folder is `CAMPAIGN_STREAMS_KAFKA_CACHE`, or .cache/kafka in the checkout. Without Maven or Java the tests that
need it skip, and say why.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import pytest
from pydantic import SecretStr

from streams.adapters.embedded_broker import dies_with_parent, free_port
from streams.adapters.kafka_admin import describe_cluster
from streams.errors import CampaignStreamsError
from streams.settings import LOOPBACK, KafkaSettings

CACHE_VARIABLE = "CAMPAIGN_STREAMS_KAFKA_CACHE"
POM = Path(__file__).with_name("kafka") / "pom.xml"
REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
FETCH_TIMEOUT_S = 600
START_TIMEOUT_S = 90
USER = "ads"
PASSWORD = "only-for-tests"
HEAP = ("-Xms64m", "-Xmx384m")

LOG4J = """\
Configuration:
  status: ERROR
  Appenders:
    Console:
      name: console
      PatternLayout: {pattern: "%d %p %c %m%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: console}}
"""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port},SECURE://{host}:{secure_port}
advertised.listeners=PLAINTEXT://{host}:{port},SECURE://{host}:{secure_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
sasl.enabled.mechanisms=PLAIN
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_{user}="{password}";
listener.name.secure.ssl.keystore.type=PKCS12
listener.name.secure.ssl.keystore.location={keystore}
listener.name.secure.ssl.keystore.password={password}
listener.name.secure.ssl.key.password={password}
log.dirs={log_dir}
auto.create.topics.enable=false
num.partitions=4
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.threads=1
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.cleaner.backoff.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


Result = TypeVar("Result")

_formatted: dict[str, bytes] = {}
"""The files of a formatted storage, for this process's next node: the tool takes a second."""


def why_not() -> str | None:
    """Why real Kafka cannot run here; None when it can."""
    missing = [name for name in ("mvn", "java", "keytool") if shutil.which(name) is None]
    return f"Apache Kafka needs {' and '.join(missing)}, not found on PATH" if missing else None


def cache_dir() -> Path:
    """Where the jars and the scratch data lie."""
    return Path(os.environ.get(CACHE_VARIABLE) or REPOSITORY_ROOT / ".cache" / "kafka")


def fetch_jars() -> Path:
    """The folder of Kafka's jars, fetched once for each version of the pom (about 45 MB).

    Raises:
        subprocess.CalledProcessError: Maven failed; its output is in the exception.
    """
    target = cache_dir() / f"jars-{crc32(POM.read_bytes()):08x}"
    stamp = target / ".pom"
    if stamp.is_file():
        return target
    cache_dir().mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=cache_dir())).resolve()
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    command.append(f"-DoutputDirectory={made}")
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    (made / stamp.name).write_text(POM.read_text())
    with contextlib.suppress(OSError):  # another run was faster
        made.rename(target)
    return target


def make_keystore() -> Path:
    """A key store with a self-signed certificate for loopback, and the certificate beside it; made once."""
    folder = cache_dir() / "certificate"
    if not folder.exists():
        cache_dir().mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache_dir()))
        common = ["-alias", "node", "-keystore", str(made / "node.p12"), "-storetype", "PKCS12"]
        common += ["-storepass", PASSWORD]
        generate = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", f"SAN=IP:{LOOPBACK}"]
        export = ["-exportcert", "-rfc", "-file", str(made / "node.pem")]
        for command in ([*generate, "-validity", "3650"], export):
            subprocess.run(["keytool", *command, *common], check=True, capture_output=True, text=True, timeout=60)
        with contextlib.suppress(OSError):  # another run was faster
            made.rename(folder)
    return folder / "node.p12"


def started_or_skipped(data_dir: Path) -> "ApacheKafka":
    """A node that is ready; skips the test where there can be none."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return ApacheKafka(data_dir).start()


class ApacheKafka:
    """One KRaft node (broker and controller) on free loopback ports.

    `start`, `stop`, `kill` and `restart` keep data and ports. Call `spawn` from the main thread only: Linux ends the
    child with the thread that started it. In a test with a running loop, `spawn()` and `kill()` return at once, and
    clients simply wait for the broker to come back.
    """

    def __init__(self, data_dir: Path, extra_properties: str = "") -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._controller_port = free_port()
        self._secure_port = free_port()
        self._extra = extra_properties
        self._process: subprocess.Popen[bytes] | None = None
        self._jars = fetch_jars()
        self._keystore = make_keystore()

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def settings(self) -> KafkaSettings:
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    @property
    def secure_settings(self) -> KafkaSettings:
        """Settings for the listener with TLS and SASL/PLAIN."""
        return KafkaSettings(
            bootstrap_servers=f"{LOOPBACK}:{self._secure_port}",
            security_protocol="SASL_SSL",
            sasl_username=USER,
            sasl_password=SecretStr(PASSWORD),
            ssl_cafile=self.certificate,
        )

    @property
    def certificate(self) -> Path:
        """PEM file of the node's self-signed certificate."""
        return self._keystore.with_name("node.pem")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> "ApacheKafka":
        """Formats the storage if it is new, starts the node and returns when it is ready (about 5 s)."""
        if not (self.data_dir / "log").exists():
            self._format()
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Starts the process and returns at once."""
        with (self.data_dir / "kafka.out").open("ab") as out:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties_file())),
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=dies_with_parent(),
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when the broker, not only its port, answers."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"Kafka ended at start:\n{self.output()[-3000:]}")
            if self._registered():
                return
            time.sleep(0.1)
        raise TimeoutError(f"Kafka was not ready after {timeout_s} s:\n{self.output()[-3000:]}")

    def stop(self, timeout_s: float = 30) -> None:
        """An orderly stop (SIGTERM)."""
        self._end(timeout_s, kill=False)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed by the process (the page cache survives it)."""
        self._end(10, kill=True)

    def restart(self, *, kill: bool = False) -> None:
        """Stops (or kills) and starts on the same data and ports."""
        self._end(30, kill=kill)
        self.start()

    def output(self) -> str:
        """Everything the node has said."""
        path = self.data_dir / "kafka.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def _registered(self) -> bool:
        """Whether the broker itself answers, and not only its port."""
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, self.port)) != 0:
                return False
        try:
            return bool(_elsewhere(describe_cluster(self.settings)).brokers)
        except CampaignStreamsError:
            return False

    def _end(self, timeout_s: float, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def _format(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "log4j2.yaml").write_text(LOG4J)
        properties = PROPERTIES.format(
            host=LOOPBACK,
            port=self.port,
            controller_port=self._controller_port,
            secure_port=self._secure_port,
            log_dir=self.data_dir / "log",
            keystore=self._keystore,
            user=USER,
            password=PASSWORD,
        )
        self._properties_file().write_text(properties + self._extra)
        if not _formatted:
            cluster = str(uuid.uuid4())
            command = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties_file()))
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=self.data_dir)
            _formatted.update((each.name, each.read_bytes()) for each in (self.data_dir / "log").iterdir())
        for name, content in _formatted.items():
            (self.data_dir / "log").mkdir(exist_ok=True)
            (self.data_dir / "log" / name).write_bytes(content)

    def _properties_file(self) -> Path:
        return self.data_dir / "server.properties"

    def _java(self, main: str, *arguments: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.yaml'}"
        options = [*HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", log4j]
        return ["java", *options, "-cp", f"{self._jars}/*", main, *arguments]


def _elsewhere(work: Coroutine[None, None, Result]) -> Result:
    """Runs a coroutine to its end in a thread with a loop of its own: also where a loop runs already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
