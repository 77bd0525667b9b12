"""What every history refuses, in the same words."""

from typing import NoReturn

from streams.errors import ConfigurationError


def check_bounds(topic: str, partition: int, from_offset: int, to_offset: int, end: int) -> None:
    """Raises `ConfigurationError` where [from_offset, to_offset) is no range, or reaches beyond `end`."""
    if not 0 <= from_offset <= to_offset:
        raise ConfigurationError(
            f"{topic}-{partition}: {from_offset} to {to_offset} is no range of offsets; give the lower one first"
        )
    if to_offset > end:
        raise ConfigurationError(
            f"{topic}-{partition} ends at offset {end}, before {to_offset}; give an earlier end, or wait for the rest"
        )


def missing_topic(topic: str) -> NoReturn:
    """Raises `ConfigurationError`."""
    raise ConfigurationError(
        f"there is no topic {topic}; check its name, and that this is the right cluster or archive"
    )
