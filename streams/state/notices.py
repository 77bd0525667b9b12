"""Low-rate inputs, read record by record: settings, live sessions, allowances.

A record is staged when it is applied and takes effect at the next tick, so that what it changes is a function of the
journal. Each has its ledger like any other input.
"""

from collections.abc import Callable, Iterator, Set
from typing import Any, Generic, TypeVar

from streams.events import Reason, Rejected
from streams.ports import RawRecord
from streams.records import DeadLetter, Entry, Row
from streams.stages.intake import NOTHING, dead_letter
from streams.state.inputs import Batch, LedgerKey

T = TypeVar("T")


def _sound(_document: object, _appended_ms: int) -> None:
    return None


class NoticeInput(Generic[T]):
    """One low-rate input of one partition. `take` gets each sound document and its record's own timestamp.

    `refuse` gets the same before, and tells why the document is not taken.
    """

    def __init__(
        self,
        name: str,
        decode: Callable[[bytes | None], T | Rejected],
        take: Callable[[T, int], None],
        refuse: Callable[[T, int], Rejected | None] = _sound,
    ) -> None:
        self.name = name
        self.start_offset = self.position = 0
        self.ledger: dict[LedgerKey, int] = {}
        self._published: dict[LedgerKey, int] = {}
        self._decode = decode
        self._take = take
        self.refuse = refuse

    def begin_at(self, offset: int) -> None:
        """The first offset that this state has ever seen."""
        self.start_offset = self.position = offset

    def apply(self, batch: Batch, log_epoch: int, poisoned: Set[int] = NOTHING) -> Iterator[DeadLetter]:
        """Consumes one range; yields what is rejected. It must be exhausted."""
        for record in batch.records:
            poison = record.offset in poisoned
            document = Rejected(Reason.INTERNAL_ERROR) if poison else self._judged(record)
            if isinstance(document, Rejected):
                reason = document.reason.value
                self._enter(Entry.REJECTED, reason)
                yield dead_letter(log_epoch, batch, record, Entry.REJECTED, reason, document.path)
            else:
                self._enter(Entry.COUNTED)
                self._take(document, record.timestamp)
        missing = batch.to_offset - batch.from_offset - len(batch.records)
        if missing:
            self._enter(Entry.LOST_RETENTION if batch.is_lost else Entry.NO_RECORD, count=missing)
        self.position = batch.to_offset

    def _judged(self, record: RawRecord) -> T | Rejected:
        document = self._decode(record.value)
        return document if isinstance(document, Rejected) else self.refuse(document, record.timestamp) or document

    def _enter(self, entry: Entry, reason: str = "", count: int = 1) -> None:
        key = (entry.value, reason)
        self.ledger[key] = self.ledger.get(key, 0) + count

    def consumed(self) -> int:
        """Offsets consumed since the start. Equals the sum of the ledger (law 1)."""
        return self.position - self.start_offset

    def ledger_rows(self, log_epoch: int, partition: int) -> Iterator[Row]:
        """Entries that have changed since this was last asked, with what was consumed; without their version."""
        now = {**self.ledger, ("consumed", ""): self.consumed()}
        for key, count in now.items():
            if self._published.get(key) != count:
                yield (log_epoch, self.name, partition, *key, count)
        self._published = now

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "start_offset": self.start_offset,
            "position": self.position,
            "ledger": list(self.ledger.items()),
            "published": list(self._published.items()),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.start_offset, self.position = snapshot["start_offset"], snapshot["position"]
        self.ledger = {(e, r): n for (e, r), n in snapshot["ledger"]}
        self._published = {(e, r): n for (e, r), n in snapshot["published"]}
