"""How every adapter reaches Kafka: aiokafka's options from our settings, and its exceptions mapped onto ours.

aiokafka is pinned; what is written here about it was read in, and measured with, version 0.14.0.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Collection, Iterator
from typing import Any, Protocol, TypeVar

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.helpers import create_ssl_context

from streams.errors import BrokerUnavailable, CampaignStreamsError, ConfigurationError
from streams.settings import KafkaSettings

REQUEST_TIMEOUT_MS = 10_000
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
PROBE_TIMEOUT_S = 2.0
MAX_REQUEST_BYTES = 1_000_000
"""Under the brokers' default of `message.max.bytes` (1,048,588), batch headers included."""

_AUTHENTICATION = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.IllegalSaslStateError,
)
_AUTHORIZATION = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordTooLargeError)
_REFUSED_SETTINGS = (
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidPartitionsError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.PolicyViolationError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InconsistentGroupProtocolError,
)
RAISED = (kafka_errors.KafkaError, kafka_errors.ConsumerStoppedError, OSError, TimeoutError, asyncio.TimeoutError)
"""Whatever aiokafka raises for an operating error."""


class Startable(Protocol):
    """What aiokafka's producer and consumer have in common."""

    async def start(self) -> Any: ...
    async def stop(self) -> Any: ...


Client = TypeVar("Client", bound=Startable)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Arguments that aiokafka's producer, consumer and admin client share. Holds the password: do not log it.

    Raises:
        ConfigurationError: a certificate file is missing or unreadable.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "client_id": "campaign-streams",
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.get_secret_value() if settings.sasl_password else None
    return options


def make_producer(
    settings: KafkaSettings, *, linger_ms: int = 0, max_batch_bytes: int = 131_072, compression_type: str = "none"
) -> AIOKafkaProducer:
    """A producer (acks=all, not started): idempotent unless the settings say that the broker cannot."""
    return AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=settings.idempotent_producer,
        linger_ms=linger_ms,
        compression_type=None if compression_type == "none" else compression_type,
        max_batch_size=max_batch_bytes,
        max_request_size=MAX_REQUEST_BYTES,
    )


def make_consumer(settings: KafkaSettings, **overrides: Any) -> AIOKafkaConsumer:
    """A consumer of assigned partitions (no group, not started): committed records only, and it never resets itself.

    A position that the broker does not hold is an error (`OffsetOutOfRangeError`), never a jump.
    """
    options = {
        **client_options(settings),
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        **overrides,
    }
    return AIOKafkaConsumer(**options)


async def started(client: Client, settings: KafkaSettings) -> Client:
    """Starts a producer or a consumer and returns it; a client that could not start is closed.

    Raises:
        BrokerUnavailable: nobody answers at `kafka.bootstrap_servers`.
        ConfigurationError: the broker answers, but refuses (credentials, TLS, idempotence).
    """
    try:
        await asyncio.wait_for(client.start(), START_TIMEOUT_S)
    except RAISED as error:
        await stopped(client)
        raise await _why_not_started(client, settings, error) from error
    except BaseException:
        await stopped(client)
        raise
    return client


async def stopped(client: Startable | None) -> None:
    """Stops a client, for a bounded time and whatever state it is in."""
    if client is not None:
        with contextlib.suppress(*RAISED, AttributeError, AssertionError):
            await asyncio.wait_for(client.stop(), STOP_TIMEOUT_S)


class Producer:
    """A producer that is replaced when it has failed.

    An idempotent producer that gave up on a batch has a gap in its sequence, and every later batch is refused; so
    after any failure the next `get` starts a new one. What the old one still holds is delivered or fails by itself.
    """

    def __init__(self, settings: KafkaSettings, **options: Any) -> None:
        """`options`: of `make_producer`."""
        self._settings = settings
        self._options = options
        self._current: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def get(self) -> AIOKafkaProducer:
        """The producer at work, started.

        Raises:
            BrokerUnavailable, ConfigurationError: see `started`.
        """
        async with self._starting:
            if self._current is None:
                self._current = await started(make_producer(self._settings, **self._options), self._settings)
            return self._current

    def discard(self, producer: AIOKafkaProducer) -> None:
        """To be called after a failure of `producer`; harmless when it has been replaced already."""
        if producer is self._current:
            self._current = None
            task = asyncio.get_running_loop().create_task(stopped(producer))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def stop(self) -> None:
        """Delivers what is under way, for a bounded time, and closes."""
        producer, self._current = self._current, None
        await stopped(producer)
        await asyncio.gather(*self._stopping)


async def answers(settings: KafkaSettings) -> bool:
    """Whether a broker accepts a connection (and the credentials) at one of the bootstrap addresses."""
    return await _refusal(settings) is None


@contextlib.contextmanager
def broker_errors(action: str) -> Iterator[None]:
    """Maps whatever aiokafka raises inside onto `streams.errors`; `action` begins the message."""
    try:
        yield
    except RAISED as error:
        raise mapped(error, action) from error


def mapped(error: BaseException, action: str) -> CampaignStreamsError:
    """Our error for one of aiokafka's; its message says what was being done, what happened and what to do."""
    what = f"{action}: {type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, CampaignStreamsError):
        return error
    if isinstance(error, _AUTHENTICATION):
        return ConfigurationError(f"{what}; check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password")
    if isinstance(error, _AUTHORIZATION):
        return ConfigurationError(f"{what}; grant this user access with Kafka's ACLs")
    if isinstance(error, ssl.SSLError):
        return ConfigurationError(f"{what}; check kafka.security_protocol and the kafka.ssl_* files")
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return ConfigurationError(f"{what}; {create_remedy()}")
    if isinstance(error, _TOO_LARGE):
        return ConfigurationError(f"{what}; raise the topic's max.message.bytes or send less")
    if isinstance(error, _REFUSED_SETTINGS):
        return ConfigurationError(f"{what}; check the section [kafka] of the settings")
    return BrokerUnavailable(f"{what}; check that Kafka runs and that kafka.bootstrap_servers names it")


def create_remedy(topics: Collection[str] = ()) -> str:
    """The advice for missing topics."""
    which = " ".join(sorted(topics)) or "it"
    return f"create {which}, or set kafka.create_topics = true and start again"


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    files = {
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    for field, path in files.items():
        if path is not None and not path.is_file():
            raise ConfigurationError(f"kafka.{field} names {path}, which is no file; mend the path")
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.ssl_cafile, certfile=settings.ssl_certfile, keyfile=settings.ssl_keyfile
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the kafka.ssl_* files cannot be read ({error}); they must be PEM files") from error
    return context


async def _why_not_started(client: object, settings: KafkaSettings, error: BaseException) -> CampaignStreamsError:
    """aiokafka reports refused credentials as "unable to bootstrap", so ask again, for the reason itself."""
    refusal = await _refusal(settings)
    if refusal is not None:
        return mapped(refusal, f"connecting to {settings.bootstrap_servers}")
    if isinstance(client, AIOKafkaProducer) and settings.idempotent_producer:
        return ConfigurationError(
            f"the broker at {settings.bootstrap_servers} answers but gives no producer id "
            f"({type(error).__name__}: {error}); set kafka.idempotent_producer = false if it has no InitProducerId"
        )
    return mapped(error, f"connecting to {settings.bootstrap_servers}")


async def _refusal(settings: KafkaSettings) -> BaseException | None:
    """Why no bootstrap address takes a connection; None when one does."""
    options = client_options(settings)
    servers = collect_hosts(options.pop("bootstrap_servers"))
    options["request_timeout_ms"] = int(PROBE_TIMEOUT_S * 1000)
    last: BaseException = BrokerUnavailable("kafka.bootstrap_servers is empty; name at least one host:port")
    for host, port, _ in servers:
        try:
            connection = await asyncio.wait_for(create_conn(host, port, **options), PROBE_TIMEOUT_S)
        except RAISED as error:
            last = error
        else:
            connection.close()
            return None
    return last
