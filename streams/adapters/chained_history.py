"""An archive and what the topics still hold beyond it, as one history."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from streams.adapters.history_bounds import check_bounds
from streams.errors import ConfigurationError
from streams.ports import Batch, History, Span


class ChainedHistory:
    """`streams.ports.History`: of each partition what `older` holds, and then `newer` from where it ends.

    What neither has (retention passed the archive's end) is lost, as `newer` tells. Both must be of one log epoch, and
    treat identifiers alike: nobody can check that here.
    """

    def __init__(self, older: History, newer: History) -> None:
        self._older = older
        self._newer = newer

    async def partitions(self, topic: str) -> int:
        """As many as `newer` has.

        Raises:
            ConfigurationError: it has no such topic.
        """
        return await self._newer.partitions(topic)

    async def span(self, topic: str, partition: int) -> Span:
        """From the first offset of either to the end of `newer`.

        Raises:
            ConfigurationError: `older` reaches beyond it: the topic was created anew.
        """
        older, newer = await self._older_span(topic, partition), await self._newer.span(topic, partition)
        if older.next > newer.next:
            raise ConfigurationError(
                f"{topic}-{partition} ends at offset {newer.next}, before the archive's {older.next}: it was created "
                "anew; read the archive alone"
            )
        return Span(min(older.first, newer.first), newer.next) if older.next else newer

    async def read(self, topic: str, partition: int, from_offset: int, to_offset: int) -> AsyncGenerator[Batch]:
        """The ranges of `older` and then those of `newer`.

        Raises:
            ConfigurationError, Unavailable: as theirs.
        """
        check_bounds(topic, partition, from_offset, to_offset, (await self.span(topic, partition)).next)
        turn = min(max(from_offset, (await self._older_span(topic, partition)).next), to_offset)
        for history, begin, end in ((self._older, from_offset, turn), (self._newer, turn, to_offset)):
            if begin < end:
                async with aclosing(history.read(topic, partition, begin, end)) as ranges:
                    async for batch in ranges:
                        yield batch

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset of either whose record is of `time_ms` or later."""
        older = await self._older_span(topic, partition)
        if older.next:
            found = await self._older.offset_at(topic, partition, time_ms)
            if found < older.next:
                return found
        return max(older.next, await self._newer.offset_at(topic, partition, time_ms))

    async def _older_span(self, topic: str, partition: int) -> Span:
        """(0, 0) where it has nothing of the topic."""
        try:
            await self._older.partitions(topic)
        except ConfigurationError:
            return Span(0, 0)
        return await self._older.span(topic, partition)
