"""Several archives of one topic, and what is wrong with archives: told with the remedy, never read in part."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from streams.adapters import archive_writer
from streams.adapters.archive_files import HEAD_KEY, chunks_in
from streams.adapters.archive_history import ArchiveHistory
from streams.adapters.chained_history import ChainedHistory
from streams.adapters.memory import MemoryHistory, MemoryLog
from streams.errors import ConfigurationError
from streams.jobs.archive import TOPICS, topics_of
from streams.topics import JOURNAL
from tests.support.archives import BEGIN_MS, DAY_MS, archived, everything, read_back, steps_of
from tests.support.histories import TOPIC, Put, Told, in_memory, told

pa = pytest.importorskip("pyarrow", reason="archives need campaign-streams[files]")
import pyarrow.parquet as pq  # noqa: E402


def test_archives_complete_each_other_and_may_overlap(tmp_path: Path) -> None:
    log = in_memory([Put(BEGIN_MS + n * 1_000) for n in range(100)])
    for name, begin, end in (("a", 0, 50), ("b", 30, 45), ("c", 40, 100)):
        archived(log, tmp_path / name, from_ms=BEGIN_MS + begin * 1_000, until_ms=BEGIN_MS + end * 1_000)
    directories = [tmp_path / name for name in "cab"]
    assert read_back(*directories) == (everything(log), [])
    assert [record[0] for record in read_back(*directories, begin=37).records] == list(range(37, 100))


def test_a_gap_between_archives_is_refused(tmp_path: Path) -> None:
    log = in_memory([Put(BEGIN_MS + n * 1_000) for n in range(100)])
    archived(log, tmp_path / "a", until_ms=BEGIN_MS + 40_000)
    archived(log, tmp_path / "b", from_ms=BEGIN_MS + 60_000)
    with pytest.raises(ConfigurationError, match=r"offsets 40 to 59 are in no archive.*; archive what is missing"):
        read_back(tmp_path / "a", tmp_path / "b")
    assert len(read_back(tmp_path / "a", tmp_path / "b", begin=60).records) == 40


def test_a_missing_day_of_a_chunk_is_refused(tmp_path: Path) -> None:
    log = in_memory([Put((n // 20 + n % 2) * DAY_MS) for n in range(100)])
    archived(log, tmp_path)
    first = chunks_in(tmp_path, TOPIC)[0][0]
    assert len(first.files) > 1
    first.files[0].unlink()
    with pytest.raises(ConfigurationError, match="is missing for 1970-01-01; restore"):
        read_back(tmp_path)


def test_what_the_topics_still_hold_goes_on_behind_an_archive(tmp_path: Path) -> None:
    log = in_memory(steps_of(6, 100))
    first = everything(log)
    archived(log, tmp_path)
    end = log.end(TOPIC, 0)
    log.append("ads.plays", 0, b"{}", timestamp_ms=BEGIN_MS)
    in_memory([Put(BEGIN_MS + 99 * DAY_MS + n) for n in range(50)], log)

    async def read(trimmed: int) -> Told:
        log.trim(TOPIC, 0, trimmed)
        history = ChainedHistory(ArchiveHistory(tmp_path), MemoryHistory(log, max_records=7))
        assert await history.span("ads.plays", 0) == (0, 1)
        assert len((await told(history, "ads.plays", 0, 1)).records) == 1
        assert await history.offset_at(TOPIC, 0, BEGIN_MS + 99 * DAY_MS + 30) == end + 30
        assert await history.span(TOPIC, 0) == (0, end + 50)
        return await told(history, TOPIC, 0, end + 50)

    second = everything(log)[len(first) :]
    for trimmed in (0, end - 5, end):
        assert asyncio.run(read(trimmed)) == ([*first, *second], [])
    assert asyncio.run(read(end + 20)) == ([*first, *second[20:]], [(end, end + 20)])


def test_an_archive_that_reaches_beyond_its_topic_is_refused(tmp_path: Path) -> None:
    archived(in_memory([Put(BEGIN_MS)] * 10), tmp_path)
    history = ChainedHistory(ArchiveHistory(tmp_path), MemoryHistory(in_memory([Put(BEGIN_MS)] * 5)))
    with pytest.raises(ConfigurationError, match="created anew; read the archive alone"):
        asyncio.run(told(history, TOPIC, 0, 5))


def test_topics_that_were_created_anew_need_another_directory(tmp_path: Path) -> None:
    archived(in_memory([Put(BEGIN_MS)] * 10), tmp_path / "a")
    with pytest.raises(ConfigurationError, match=r"created anew; raise worker\.log_epoch"):
        archived(in_memory([Put(BEGIN_MS)] * 5), tmp_path / "a")
    with pytest.raises(ConfigurationError, match=r"log epoch 0.*another directory"):
        archived(in_memory([Put(BEGIN_MS)] * 50), tmp_path / "a", epoch=1)
    archived(in_memory([Put(BEGIN_MS)] * 50), tmp_path / "b", epoch=1)
    with pytest.raises(ConfigurationError, match="several log epochs"):
        ArchiveHistory(tmp_path / "a", tmp_path / "b")


def test_damaged_and_foreign_files_are_named_with_the_remedy(tmp_path: Path) -> None:
    archived(in_memory([Put(BEGIN_MS)] * 10), tmp_path)
    path = chunks_in(tmp_path, TOPIC)[0][0].files[0]
    table, whole = pq.read_table(path), path.read_bytes()
    ours = pq.read_metadata(path).metadata
    head = msgspec.json.encode({**msgspec.json.decode(ours[HEAD_KEY]), "version": 2})

    def replaced(
        content: bytes | None, metadata: dict[bytes, bytes] | None = None, columns: Sequence[str] = ()
    ) -> None:
        if content is not None:
            path.write_bytes(content)
        else:
            pq.write_table(table.select(columns or table.column_names).replace_schema_metadata(metadata), path)

    for change, message in (
        (lambda: replaced(whole[: len(whole) // 2]), "not a whole Parquet file.*restore it"),
        (lambda: replaced(b"no Parquet at all"), "not a whole Parquet file.*restore it"),
        (lambda: replaced(None), "not written by `campaign-streams archive`; move it"),
        (lambda: replaced(None, {HEAD_KEY: head}), "version 2.*use the campaign-streams that wrote it"),
        (lambda: replaced(None, {HEAD_KEY: b"{"}), "is damaged.*restore"),
        (lambda: replaced(None, ours, ("offset", "value")), "has columns offset, value; restore"),
    ):
        change()
        with pytest.raises(ConfigurationError, match=f"{path.name} .*{message}|{path.name}: .*{message}"):
            read_back(tmp_path)
    replaced(whole)
    assert len(read_back(tmp_path).records) == 10


def test_directories_that_cannot_be_used_are_named_with_the_remedy(tmp_path: Path) -> None:
    log, file = in_memory([Put(BEGIN_MS)]), tmp_path / "file"
    file.touch()
    for directory in (file, file / "below"):
        with pytest.raises(ConfigurationError, match="is no directory; give another"):
            archived(log, directory)
    with pytest.raises(ConfigurationError, match="is no directory; give one"):
        ArchiveHistory(file)
    with pytest.raises(ConfigurationError, match="does not exist; give"):
        ArchiveHistory(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="holds no archive; give"):
        ArchiveHistory(tmp_path)


def test_two_archivers_do_not_work_in_one_directory(tmp_path: Path) -> None:
    with archive_writer.held(tmp_path), pytest.raises(ConfigurationError, match="another archive runs"):
        archived(in_memory([Put(BEGIN_MS)]), tmp_path)


def test_a_full_disk_is_told_with_the_remedy_and_the_next_run_goes_on(tmp_path: Path) -> None:
    log = in_memory(steps_of(4, 200))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_writer.os, "fsync", full)
        with pytest.raises(ConfigurationError, match=r"No space left on device.*run again"):
            archived(log, tmp_path)
    archived(log, tmp_path)
    assert read_back(tmp_path) == (everything(log), [])


def test_a_topic_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no topic"):
        archived(MemoryLog(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_topics_that_nobody_named_may_be_missing_but_not_all_of_them(tmp_path: Path) -> None:
    report = archived(in_memory([Put(BEGIN_MS)]), tmp_path / "a", topics=TOPICS, are_named=False)
    assert set(report.missing) == set(TOPICS) - {TOPIC}
    assert list(report.topics) == [TOPIC]
    with pytest.raises(ConfigurationError, match="no topic"):
        archived(MemoryLog(), tmp_path / "b", topics=TOPICS, are_named=False)


def test_topics_are_named_by_their_inputs_too_and_a_wrong_name_gets_a_hint() -> None:
    assert topics_of(["clicks", "ads.journal"]) == (JOURNAL, TOPIC)
    assert topics_of([]) == TOPICS
    with pytest.raises(ConfigurationError, match=r"did you mean ads\.clicks\?"):
        topics_of(["ads.click"])
    with pytest.raises(ConfigurationError, match="known are"):
        topics_of(["x"])


def test_without_pyarrow_the_remedy_is_told_and_ndjson_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = in_memory([Put(BEGIN_MS)])
    archived(log, tmp_path / "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'campaign-streams\[files\]'"):
        ArchiveHistory(tmp_path / "parquet")
    with pytest.raises(ConfigurationError, match=r"pip install 'campaign-streams\[files\]'"):
        archived(log, tmp_path / "more")
    archived(log, tmp_path / "ndjson", form="ndjson")
    assert read_back(tmp_path / "ndjson") == (everything(log), [])
