"""Archives: exact, incremental, and whole whenever the process ends."""

import asyncio
import gzip
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.adapters import archive_writer
from streams.adapters.archive_files import Columns, chunks_in, head_of
from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.archive_writer import MAX_DAYS, ChunkWriter, Origin
from streams.adapters.memory import MemoryHistory, MemoryLog
from streams.errors import ConfigurationError
from streams.jobs.archive import TOPICS, Wish, archive
from streams.jobs.identity import Identity
from streams.topics import CO_PARTITIONED, JOURNAL
from tests.support.archives import BEGIN_MS, DAY_MS, KEYED, archived, everything, read_back, steps_of
from tests.support.histories import TOPIC, Hole, Put, in_memory, told

pa = pytest.importorskip("pyarrow", reason="archives need campaign-streams[files]")
import pyarrow.parquet as pq  # noqa: E402

both_formats = pytest.mark.parametrize("form", ["parquet", "ndjson"])


@both_formats
@pytest.mark.parametrize("seed", range(6))
def test_what_is_archived_is_read_back_exactly_with_its_holes(seed: int, form: str, tmp_path: Path) -> None:
    log = in_memory([*steps_of(seed, 300), Hole(5)])
    report = archived(log, tmp_path, form=form)
    assert read_back(tmp_path) == (everything(log), [])
    assert report.topics[TOPIC].records == 300
    assert report.offsets == report.offsets_planned == log.end(TOPIC, 0)


@both_formats
@pytest.mark.parametrize("seed", range(4))
def test_every_range_of_an_archive_is_the_range_of_the_log(seed: int, form: str, tmp_path: Path) -> None:
    log = in_memory(steps_of(seed, 150))
    archived(log, tmp_path, form=form)
    live, history, rng, end = MemoryHistory(log), ArchiveHistory(tmp_path), random.Random(seed), log.end(TOPIC, 0)

    async def compare() -> None:
        for _ in range(40):
            begin, until = sorted((rng.randrange(end + 1), rng.randrange(end + 1)))
            assert await told(history, TOPIC, begin, until) == await told(live, TOPIC, begin, until)
            at_ms = BEGIN_MS + rng.randrange(-DAY_MS, 9 * DAY_MS)
            assert await history.offset_at(TOPIC, 0, at_ms) == await live.offset_at(TOPIC, 0, at_ms)

    asyncio.run(compare())


def test_a_second_run_goes_on_where_the_archive_ends(tmp_path: Path) -> None:
    log, steps = MemoryLog(), steps_of(3, 200)
    for begin in range(0, 200, 50):
        in_memory(steps[begin : begin + 50], log)
        archived(log, tmp_path)
        before = sorted(tmp_path.rglob("*.parquet"))
        assert archived(log, tmp_path).offsets == 0
        assert sorted(tmp_path.rglob("*.parquet")) == before
    in_memory(steps[200:], log)
    archived(log, tmp_path)
    assert read_back(tmp_path) == (everything(log), [])


def test_an_archive_may_go_on_in_the_other_format(tmp_path: Path) -> None:
    log, steps = MemoryLog(), steps_of(5, 120)
    for begin, form in ((0, "parquet"), (40, "ndjson"), (80, "parquet")):
        in_memory(steps[begin : begin + 40], log)
        archived(log, tmp_path, form=form)
    assert {path.name.split(".", 1)[1] for path in tmp_path.rglob("part-*")} == {"parquet", "ndjson.gz"}
    assert read_back(tmp_path) == (everything(log), [])


def test_lines_of_ndjson_say_what_the_records_are(tmp_path: Path) -> None:
    log = in_memory(
        [Put(BEGIN_MS, b'{"a": "\xc3\xa9"}', b"c1"), Put(BEGIN_MS, b"\xff", None), Put(BEGIN_MS, None, b"")]
    )
    archived(log, tmp_path, form="ndjson")
    (path,) = tmp_path.rglob("*.ndjson.gz")
    head, *lines = map(msgspec.json.decode, gzip.decompress(path.read_bytes()).splitlines())
    assert head["campaign_streams.archive"]["records"] == 3
    assert [(line["offset"], line["key"], line["value"]) for line in lines] == [
        (0, "c1", '{"a": "é"}'),
        (1, None, {"base64": "/w=="}),
        (2, "", None),
    ]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: data[:-20], "is not a whole file of NDJSON"),
        (lambda data: data[:-200] + bytes(100) + data[-100:], "is not a whole file of NDJSON"),
        (lambda data: gzip.compress(gzip.decompress(data).rsplit(b"\n", 2)[0] + b"\n"), "19 of 20 records"),
        (lambda data: gzip.compress(b"{}\n"), "was not written by"),
        (lambda data: gzip.compress(b"[1]\n"), "is not a whole file"),
        (lambda data: b"", "is not a whole file"),
        (lambda data: gzip.compress(gzip.decompress(data).replace(b'"version":1', b'"version":9')), "has version 9"),
    ],
)
def test_a_damaged_file_of_ndjson_is_told_and_never_read_in_part(
    spoil: Callable[[bytes], bytes], told: str, tmp_path: Path
) -> None:
    log = in_memory([Put(BEGIN_MS, b"%d" % n) for n in range(20)])
    archived(log, tmp_path, form="ndjson")
    (path,) = tmp_path.rglob("*.ndjson.gz")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ConfigurationError, match=told):
        read_back(tmp_path)


def test_a_file_of_ndjson_that_is_not_whole_is_begun_again(tmp_path: Path) -> None:
    log = in_memory(steps_of(2, 60))
    writer = ChunkWriter(tmp_path, Origin(TOPIC, 0, "raw", "", 0), 0, 0, "ndjson")
    writer.add(Columns([0, 1], [BEGIN_MS, BEGIN_MS], [None, None], [b"x", b"y"]))
    assert list((tmp_path / ".writing").rglob("*.ndjson.gz"))
    archived(log, tmp_path, form="ndjson")
    assert not list((tmp_path / ".writing").rglob("*.ndjson.gz"))
    assert read_back(tmp_path) == (everything(log), [])


def test_files_lie_by_topic_and_day_and_say_what_they_hold(tmp_path: Path) -> None:
    day = 18_500 * DAY_MS
    log = in_memory([Put(day - 1), Put(day), Put(day + DAY_MS - 1), Put(day - 2), Hole(2), Put(day + DAY_MS)])
    archived(log, tmp_path)
    name = "part-00000-00000000000000000000-00000000000000000006.parquet"
    found = {path.parent.name: path for path in (tmp_path / f"topic={TOPIC}").rglob("*") if path.is_file()}
    assert {path.name for path in found.values()} == {name}
    offsets = {day: pq.read_table(path)["offset"].to_pylist() for day, path in found.items()}
    assert offsets == {"day=2020-08-25": [0, 3], "day=2020-08-26": [1, 2], "day=2020-08-27": [6]}
    head = head_of(found["day=2020-08-26"])
    assert (head.from_offset, head.to_offset, head.records) == (0, 7, 2)
    assert head.days == ("2020-08-25", "2020-08-26", "2020-08-27")
    file = pq.ParquetFile(found["day=2020-08-25"])
    assert file.schema_arrow.field("value").type == pa.binary()
    assert file.metadata.row_group(0).column(3).compression == "ZSTD"


def test_more_days_than_files_may_be_open_end_a_chunk_early(tmp_path: Path) -> None:
    log = in_memory([Put(n * DAY_MS) for n in range(3 * MAX_DAYS + 5)])
    archived(log, tmp_path)
    assert read_back(tmp_path) == (everything(log), [])
    assert len(chunks_in(tmp_path, TOPIC)[0]) >= 4


def test_records_without_a_time_of_their_own_are_kept_too(tmp_path: Path) -> None:
    log = in_memory([Put(-1), Put(BEGIN_MS), Put(-1)])
    archived(log, tmp_path)
    assert read_back(tmp_path) == (everything(log), [])


def test_what_retention_took_between_two_runs_is_lost_and_known(tmp_path: Path) -> None:
    log = in_memory(steps_of(1, 50))
    archived(log, tmp_path)
    end, first = log.end(TOPIC, 0), everything(log)
    in_memory([Put(BEGIN_MS)] * 30, log)
    log.trim(TOPIC, 0, end + 20)
    assert archived(log, tmp_path).topics[TOPIC].lost == 20
    assert read_back(tmp_path) == ([*first, *everything(log)], [(end, end + 20)])
    log.trim(TOPIC, 0, log.end(TOPIC, 0))
    in_memory([Hole(4)], log)
    log.trim(TOPIC, 0, log.end(TOPIC, 0))
    archived(log, tmp_path)
    assert read_back(tmp_path).lost == [(end, end + 20), (log.end(TOPIC, 0) - 4, log.end(TOPIC, 0))]


def test_times_bound_a_new_archive_and_never_make_a_gap(tmp_path: Path) -> None:
    log = in_memory([Put(BEGIN_MS + n * 1_000) for n in range(60)])
    archived(log, tmp_path, from_ms=BEGIN_MS + 10_000, until_ms=BEGIN_MS + 20_000)
    assert [r[0] for r in read_back(tmp_path).records] == list(range(10, 20))
    archived(log, tmp_path, from_ms=BEGIN_MS + 40_000, until_ms=BEGIN_MS + 50_000)
    assert [r[0] for r in read_back(tmp_path).records] == list(range(10, 50))


def test_every_partition_of_every_topic_is_archived_and_the_journal_is_looked_at_first(tmp_path: Path) -> None:
    log = MemoryLog()
    for topic in TOPICS:
        for partition in range(3):
            for n in range(5):
                log.append(topic, partition, b"{}" if topic != JOURNAL else b"%d" % n, timestamp_ms=BEGIN_MS)
    asked: list[str] = []

    class Watched(MemoryHistory):
        async def span(self, topic: str, partition: int) -> Any:
            asked.append(topic)
            return await super().span(topic, partition)

    wish = Wish(tmp_path, raw=True)
    asyncio.run(archive(Watched(log), wish, KEYED, 0))
    assert set(asked[:3]) == {JOURNAL}
    assert set(asked) == set(CO_PARTITIONED)
    for topic in TOPICS:
        for partition in range(3):
            assert read_back(tmp_path, topic=topic, partition=partition).records == everything(log, topic, partition)


# Whenever it ends


class Killed(BaseException):
    """As if the process had ended here."""


def dying_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int) -> None:
    """The n-th call of a method from now on ends the process, which cleans nothing up."""
    calls = 0
    real: Callable[..., Any] = getattr(owner, name)

    def method(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, method)
    monkeypatch.setattr(ChunkWriter, "abandon", lambda self: None)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(Path, "rename"), (archive_writer._DayFile, "close"), (archive_writer._DayFile, "write_group"), (Path, "rmdir")],
)
def test_a_run_that_ends_anywhere_loses_and_doubles_nothing(owner: type, name: str, call: int, tmp_path: Path) -> None:
    log = in_memory(steps_of(5, 200))
    with pytest.MonkeyPatch.context() as patch:
        dying_at(patch, owner, name, call)
        with pytest.raises(Killed):
            archived(log, tmp_path)
    archived(log, tmp_path)
    assert read_back(tmp_path) == (everything(log), [])
    assert not list((tmp_path / ".writing").iterdir())


def test_a_chunk_that_was_being_put_in_place_is_completed_though_retention_took_its_records(tmp_path: Path) -> None:
    log = in_memory([Put(n % 5 * DAY_MS) for n in range(30)])
    before = everything(log)
    with pytest.MonkeyPatch.context() as patch:
        dying_at(patch, Path, "rename", 3)
        with pytest.raises(Killed):
            archived(log, tmp_path)
    assert read_back(tmp_path) == ([], [])  # a reader does not take half of it
    log.trim(TOPIC, 0, 30)
    archived(log, tmp_path)
    assert read_back(tmp_path) == (before, [])


KILLED = """
import asyncio, sys
from pathlib import Path
from streams.adapters.chained_history import ChainedHistory
from streams.adapters.memory import MemoryHistory
from streams.jobs.archive import Wish, archive
from streams.jobs.identity import Identity
from tests.support.histories import TOPIC, in_memory
from tests.unit.test_archive import steps_of
history = MemoryHistory(in_memory(steps_of(7, 2_000)), max_records=50)
print("begun", flush=True)
asyncio.run(archive(history, Wish(Path(sys.argv[1]), topics=(TOPIC,), raw=True), Identity(), 0, chunk_records=100))
print("done", flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_leaves_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    rng, kills = random.Random(), 0
    while True:
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if kills < 4:
            time.sleep(rng.random() * 0.5)
            process.send_signal(signal.SIGKILL)
        kills += 1
        output, _ = process.communicate(timeout=120)
        if output == "done\n":
            break
        assert kills < 20
    log = in_memory(steps_of(7, 2_000))
    assert read_back(tmp_path) == (everything(log), [])


def test_a_run_that_is_cancelled_leaves_nothing_half_done(tmp_path: Path) -> None:
    log = in_memory(steps_of(2, 400))

    async def cancelled_after(steps: int) -> None:
        wish = Wish(tmp_path, topics=(TOPIC,), raw=True)
        run = asyncio.create_task(archive(MemoryHistory(log, max_records=7), wish, KEYED, 0, chunk_records=40))
        for _ in range(steps):
            await asyncio.sleep(0.002)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancelled_after(10))
    assert not list((tmp_path / ".writing").glob("*"))
    archived(log, tmp_path)
    assert read_back(tmp_path) == (everything(log), [])


# Identifiers


def test_without_a_key_an_archive_needs_to_be_told_that_identifiers_stay(tmp_path: Path) -> None:
    log = in_memory([Put(BEGIN_MS, b"{}")])
    with pytest.raises(ConfigurationError, match="--raw"):
        archived(log, tmp_path / "new", identity=Identity(), raw=False)
    assert not (tmp_path / "new").exists()
    archived(log, tmp_path / "new", identity=Identity(), raw=True)
    with pytest.raises(ConfigurationError, match="go on with --raw"):
        archived(log, tmp_path / "new", raw=False)


def test_an_archive_with_pseudonyms_counts_what_it_changed(tmp_path: Path) -> None:
    sound = b'{"event_id":"e","event_time_ms":1,"user_id":"k1:%s"}' % (b"0" * 32)
    secret = b'{"event_id":"e","event_time_ms":1,"user_id":"alice"}'
    log = in_memory([Put(BEGIN_MS, value) for value in (sound, secret, b"alice", None)])
    report = archived(log, tmp_path, raw=False).topics[TOPIC]
    assert (report.pseudonymised, report.markers, report.unfaithful) == (1, 1, 0)
    values = [record[3] for record in read_back(tmp_path).records]
    assert (values[0], values[3]) == (sound, None)
    assert all(b"alice" not in path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert [head.key_id for head in ArchiveHistory(tmp_path).heads] == ["k1"]
    with pytest.raises(ConfigurationError, match="go on without --raw"):
        archived(log, tmp_path, raw=True)
    archived(log, tmp_path / "raw", raw=True)
    with pytest.raises(ConfigurationError, match="one user would be two; give"):
        ArchiveHistory(tmp_path, tmp_path / "raw")
