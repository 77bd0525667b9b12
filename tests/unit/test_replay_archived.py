"""Archives and topics as one history: what Kafka has forgotten from the archive, the rest from Kafka."""

from pathlib import Path

import pytest

from streams.adapters import checkpoint_stores
from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.memory import MemoryCheckpointStore, MemoryHistory, MemoryLog
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.events import Input
from streams.jobs import replay_plan
from streams.jobs.archive import Wish, archive
from streams.jobs.identity import Identity
from streams.jobs.pseudonyms import Pseudonyms
from streams.jobs.replay import Message, Worker, largest_first, look
from streams.jobs.replay_partition import Range
from streams.jobs.replay_plan import ReplayPlan, sources_of
from streams.jobs.replay_progress import ReplayFolder
from streams.jobs.replay_start import Start
from streams.records import COLUMNS, Row, Table
from streams.settings import Settings
from streams.state.checkpoint import decode_manifest
from streams.state.partition import TOPICS
from streams.topics import INPUT_TOPICS, JOURNAL
from tests.unit.test_replay_partition import EVER, Kept, Lived, in_range, of_runs

pytest.importorskip("pyarrow", reason="archives need campaign-streams[files]")

IDENTITY = Identity(b"k" * 32, "k1")


class Store(MemoryCheckpointStore):
    async def stop(self) -> None:
        """Lives as long as its test."""


class Broker(MemoryHistory):
    async def stop(self) -> None:
        """Lives as long as its test."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    worker = {"state_dir": tmp_path, "checkpoint_store": "directory", "log_epoch": 1}
    return Settings.model_validate({"worker": worker})


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> Lived:
    """What the topics and the store of checkpoints hold."""
    lived, store = Lived(3), Store()
    store.data, store.named = lived.store.data, lived.store.named
    monkeypatch.setattr(replay_plan, "KafkaHistory", lambda _: Broker(lived.log))
    monkeypatch.setattr(checkpoint_stores, "store_of", lambda *_, **__: store)
    return lived


async def archived(lived: Lived, directory: Path, *, raw: bool = True, epoch: int = 1) -> None:
    """The first two thirds of every topic; then the topics forget the first third."""
    log = MemoryLog()
    for topic in (*TOPICS, JOURNAL):
        end = lived.log.end(topic, 0)
        for record in lived.log.read(topic, 0, 0, 2 * end // 3):
            log.append(topic, 0, record.value, key=record.key, timestamp_ms=record.timestamp)
    wish = Wish(directory, topics=(*TOPICS, JOURNAL), are_named=False, raw=raw)
    await archive(MemoryHistory(log), wish, IDENTITY, epoch)
    for topic in (*TOPICS, JOURNAL):
        lived.log.trim(topic, 0, lived.log.end(topic, 0) // 3)


async def replayed(settings: Settings, plan: ReplayPlan, partitions: int = 1) -> tuple[Kept, Start]:
    """Its rows, and where it has begun."""
    kept, starts = Kept(), list[Start]()

    async def put(message: Message) -> None:
        if message[0] == "rows":
            await kept.emit(Table(message[2]), message[3])
        elif message[0] == "began":
            starts.append(message[2])

    async with sources_of(settings, plan) as sources:
        worker = Worker(sources, ReplayFolder(settings.worker.state_dir, plan.run), plan, put)
        for partition in range(partitions):
            await worker.run(partition, partitions, settings.worker.log_epoch)
    return kept, starts[0]


async def test_archive_and_topics_together_give_what_the_topics_have_forgotten(
    settings: Settings, lived: Lived, tmp_path: Path
) -> None:
    await archived(lived, tmp_path / "archive")
    plan = ReplayPlan("r", EVER, archives=(tmp_path / "archive",), with_topics=True)
    lived.store.named[0].clear()
    kept, start = await replayed(settings, plan)
    assert (kept.rows, start.checkpoint, start.missing) == (of_runs(lived.live), "", ())
    with pytest.raises(CampaignStreamsError, match="its beginning has been removed"):
        await replayed(settings, plan._replace(archives=(), with_topics=False))


async def test_it_begins_at_a_checkpoint_whose_tick_only_the_archive_still_holds(
    settings: Settings, lived: Lived, tmp_path: Path
) -> None:
    await archived(lived, tmp_path / "archive")
    first_kept = lived.log.beginning(JOURNAL, 0)
    manifest = decode_manifest(lived.store.named[0]["c/2"])
    assert manifest.journal_offset < first_kept
    lived.store.named[0] = {"c/2": lived.store.named[0]["c/2"]}
    from_ms = manifest.newest_ms // 1000 * 1000 + 1000
    plan = ReplayPlan("r", Range(from_ms, EVER.to_ms), archives=(tmp_path / "archive",), with_topics=True)
    kept, start = await replayed(settings, plan)
    assert (start.checkpoint, start.missing) == ("c/2", ())
    assert kept.rows == in_range(lived.live, from_ms)


class Unadjusted(Lived):
    """No adjustment has ever come, and of partition 1 nothing but engagements."""

    topics = tuple(topic for topic in Lived.topics if topic != INPUT_TOPICS[Input.ADJUSTMENTS])

    def _append(self, topic: str, partition: int, value: bytes | None, at_ms: int, key: bytes | None = None) -> None:
        if partition == 0 or topic in (JOURNAL, INPUT_TOPICS[Input.ENGAGEMENTS]):
            super()._append(topic, partition, value, at_ms, key)


async def test_an_archive_does_not_lack_what_has_never_been_there(settings: Settings, tmp_path: Path) -> None:
    lived, archive_of = Unadjusted(3, partitions=2), tmp_path / "archive"
    wish = Wish(archive_of, topics=(*TOPICS, JOURNAL), are_named=False, raw=True)
    await archive(MemoryHistory(lived.log), wish, IDENTITY, 1)
    with pytest.raises(ConfigurationError, match=r"there is no topic ads\.adjustments"):
        await ArchiveHistory(archive_of).partitions(INPUT_TOPICS[Input.ADJUSTMENTS])
    plan = ReplayPlan("r", EVER, archives=(archive_of,))
    async with sources_of(settings, plan) as sources:
        assert await largest_first(sources, 2, EVER) == [0, 1]
    kept, _ = await replayed(settings, plan, partitions=2)
    assert kept.rows == of_runs(lived.live)


async def test_an_archive_that_lacks_what_the_journal_has_applied_is_refused_before_anything_is_begun(
    settings: Settings, tmp_path: Path
) -> None:
    wish = Wish(tmp_path / "archive", topics=(INPUT_TOPICS[Input.CLICKS], JOURNAL), raw=True)
    await archive(MemoryHistory(Lived(3).log), wish, IDENTITY, 1)
    with pytest.raises(ConfigurationError, match=r"there is no topic ads\.\w+"):
        await look(settings, ReplayPlan("r", EVER, archives=(tmp_path / "archive",)))


@pytest.mark.parametrize(
    ("raw", "epoch", "words"), [(False, 1, "the archive holds pseudonyms"), (True, 0, "of another log epoch")]
)
async def test_an_archive_that_the_topics_do_not_continue_is_refused(
    settings: Settings, lived: Lived, tmp_path: Path, raw: bool, epoch: int, words: str
) -> None:
    await archived(lived, tmp_path / "archive", raw=raw, epoch=epoch)
    plan = ReplayPlan("r", EVER, archives=(tmp_path / "archive",), with_topics=True)
    with pytest.raises(ConfigurationError, match=words):
        await replayed(settings, plan)


# Pseudonyms


class Pseudonymised(Lived):
    """What it has lived through came in with pseudonyms."""

    def _append(self, topic: str, partition: int, value: bytes | None, at_ms: int, key: bytes | None = None) -> None:
        keys, values = [key], [value]
        if topic in INPUT_TOPICS.values():
            Pseudonyms(topic, IDENTITY).treat(keys, values)
        super()._append(topic, partition, values[0], at_ms, keys[0])


async def from_pseudonyms(lived: Lived, settings: Settings, directory: Path) -> tuple[Kept, int]:
    """The rows of a replay from an archive of pseudonyms alone; and how many records had others before."""
    wish = Wish(directory, topics=(*TOPICS, JOURNAL), are_named=False)
    report = await archive(MemoryHistory(lived.log), wish, IDENTITY, 1)
    kept, start = await replayed(settings, ReplayPlan("r", EVER, archives=(directory,)))
    assert start.missing == ()
    return kept, sum(topic.pseudonymised for topic in report.topics.values())


@pytest.mark.parametrize("seed", [3, 4])
async def test_an_archive_of_what_came_in_as_pseudonyms_gives_the_live_rows_exactly(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    lived = Pseudonymised(seed)
    kept, changed = await from_pseudonyms(lived, settings, tmp_path / "archive")
    assert changed == 0
    assert kept.rows == of_runs(lived.live)


def without_users(rows: dict[tuple[Table, Row], Row]) -> dict[tuple[Table, Row], tuple[Row, int]]:
    """Every column, but of the sampled users only how many they are."""
    at, found = COLUMNS[Table.REPORTS].index("users"), {}
    for (table, key), row in rows.items():
        found[table, key] = ((*row[:at], *row[at + 1 :]), len(row[at])) if table is Table.REPORTS else (row, 0)
    return found


@pytest.mark.parametrize("seed", [3, 4])
async def test_an_archive_that_made_pseudonyms_gives_the_live_rows_but_for_the_hashes_of_users(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    lived = Lived(seed)
    kept, changed = await from_pseudonyms(lived, settings, tmp_path / "archive")
    live = of_runs(lived.live)
    assert changed > 50
    assert without_users(kept.rows) == without_users(live)
    differing = {table for (table, key), row in live.items() if kept.rows[table, key] != row}
    assert differing == {Table.REPORTS}
    assert {table for table, _ in live} >= {Table.PANES, Table.COHORTS, Table.PACING, Table.FLAGS}


async def test_topics_read_on_behind_an_archive_only(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="give one with --archive"):
        await replayed(settings, ReplayPlan("r", EVER, with_topics=True))
