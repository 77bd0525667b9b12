"""What travels on the channel from the source to the agent, in order: ranges, and changes of the assignment."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.state.inputs import Batch


@dataclass(frozen=True)
class Assigned:
    """Partitions that this worker takes. `done` is set when their owners have been opened."""

    partitions: frozenset[int]
    starts: Mapping[int, Mapping[str, int]]
    """First readable offset, by partition and topic."""
    settings_ends: Mapping[int, int]
    """End of the settings topic, by partition."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Revoked:
    """Partitions that this worker gives up. `done` is set when their last checkpoint has been written."""

    partitions: frozenset[int]
    done: asyncio.Event = field(default_factory=asyncio.Event)


Item = Batch | Assigned | Revoked
