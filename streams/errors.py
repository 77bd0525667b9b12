"""Operating errors, drawn once; adapters map what libraries raise onto this tree at their edge.

    CampaignStreamsError
    ├── ConfigurationError      fatal: a setting or a file is wrong; the message names the field
    ├── Fenced                  fatal for one partition: another worker has claimed it
    ├── CorruptCheckpoint       this checkpoint is unreadable; the one before is tried
    ├── JournalMismatch         fatal: checkpoint and journal are not of one history
    ├── QueryRefused            fatal for one query: it is wrong, not read-only, or beyond its limits
    └── Unavailable             retriable: a service does not answer
        ├── BrokerUnavailable
        └── SinkUnavailable

Bad input is never in this tree: it is a value (`streams.events.Rejected`).
Every message ends with what the operator can do.
"""


class CampaignStreamsError(Exception):
    """An operating error. `retriable` says whether waiting can help."""

    retriable = False


class ConfigurationError(CampaignStreamsError):
    """A setting, a file or the topology is wrong."""


class Fenced(CampaignStreamsError):
    """A later claim stands in this partition's journal: this owner must stop."""


class CorruptCheckpoint(CampaignStreamsError):
    """A manifest or one of its segments is missing or fails its checksum."""


class CheckpointGone(CampaignStreamsError):
    """A checkpoint that was chosen has been replaced by later ones meanwhile: choose anew."""


class JournalMismatch(CampaignStreamsError):
    """The checkpoint names a tick that the journal does not hold."""


class QueryRefused(CampaignStreamsError):
    """A query that is not answered: it is wrong, not read-only, or beyond its limits. The message says what to do."""


class Unavailable(CampaignStreamsError):
    """A service does not answer; the caller waits with back-off and tries again."""

    retriable = True


class BrokerUnavailable(Unavailable):
    """Kafka does not answer."""


class SinkUnavailable(Unavailable):
    """ClickHouse does not answer, or refused for a reason that may pass."""
