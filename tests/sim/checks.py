"""What must hold when everything has settled."""

import json
from collections.abc import Mapping
from typing import Any

from streams.invalid import Rule
from streams.records import COLUMNS, MEASURES, Row, Table
from streams.rules import Rules
from streams.state.checkpoint import restore
from streams.state.journal import Fold, decode, version_of
from streams.state.outgoing import outgoing
from streams.state.partition import TOPICS, Output, PartitionState
from streams.state.windows import DAY, WINDOWS_MS
from streams.topics import ALERTS, DEAD_LETTERS, VERDICTS
from tests.sim.watch import Watch
from tests.sim.world import Broken, Told, World, plain, sink_key, told
from tests.support.oracle import Logs, Oracle, Truth


def check(world: World, states: Mapping[int, PartitionState]) -> set[str]:
    """The sink and the outbox hold what the oracle says; an undisturbed run over the same logs gives the same.

    Returns what the run has reached, by name.
    """
    oracle = Oracle(_logs(world))
    _first_ticks_bring_rules(oracle)
    truth = oracle.truth()
    _poison_is_excused(world, oracle)
    _rows_are_true(world, truth)
    _letters_are_there(world, truth)
    _floods_are_told(world, oracle)
    replays = [_same_as_undisturbed(world, partition, state) for partition, state in states.items()]
    for replayed in replays:
        _same_from_any_checkpoint(world, replayed)
    _signals_are_true(world, replays)
    _nothing_else_was_ever_published(world)
    return {name for replayed in replays for name in replayed.watch.reached}


def _floods_are_told(world: World, oracle: Oracle) -> None:
    """Every click of a publisher that floods, and no other."""
    documents = [
        json.loads(record.value or b"")
        for (topic, _), log in world.logs.items()
        if topic == VERDICTS
        for record in log.records
    ]
    told_of = [document for document in documents if document.get("rule") == Rule.PUBLISHER_FLOODING]
    found = {click for document in told_of for click in document["clicks"]}
    expected = oracle.floods()
    if found != expected:
        raise Broken(f"floods: too many {sorted(found - expected)[:5]}, missing {sorted(expected - found)[:5]}")


def _first_ticks_bring_rules(oracle: Oracle) -> None:
    """Nothing can be judged by rules that are not in the journal."""
    for partition, ticks in oracle.ticks.items():
        if not ticks or "rules" not in ticks[0].document:
            raise Broken(f"the first tick of partition {partition} that counts brings no rules")


def _logs(world: World) -> Logs:
    records = [record for log in world.logs.values() for record in log.records]
    spans = {place: (log.start, log.end) for place, log in world.logs.items()}
    return Logs(records, spans, world.journal.entries, world.lost, world.log_epoch)


def _equal(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    if found == expected:
        return
    lines = [f"{what}: {len(found)} found, {len(expected)} expected"]
    lines += [f"  missing {k}: {v}" for k, v in expected.items() if k not in found][:5]
    lines += [f"  too many {k}: {v}" for k, v in found.items() if k not in expected][:5]
    differing = [k for k, v in expected.items() if k in found and found[k] != v][:5]
    lines += [f"  at {k}\n    found    {_short(found[k])}\n    expected {_short(expected[k])}" for k in differing]
    raise Broken("\n".join(lines))


def _short(values: Any) -> Any:
    """Measures that are not zero, by name."""
    if isinstance(values, tuple) and len(values) >= len(MEASURES):
        named = {name: value for name, value in zip(MEASURES, values, strict=False) if value}
        return named | {"more": values[len(MEASURES) :]}
    return values


def _poison_is_excused(world: World, oracle: Oracle) -> None:
    unexplained = set(oracle.poisoned()) - world.poison - world.excused
    if unexplained:
        raise Broken(f"declared poison without an exception: {sorted(unexplained)}")


def _final(world: World, table: Table, first: str, last: str) -> dict[Row, Row]:
    """Final rows by key, with the values of the columns from `first` to `last`."""
    columns = COLUMNS[table]
    low, high = columns.index(first), columns.index(last) + 1
    return {key: row[low:high] for key, row in world.sink.final[table].items()}


def _rows_are_true(world: World, truth: Truth) -> None:
    _equal("panes", _final(world, Table.PANES, MEASURES[0], MEASURES[-1]), truth.panes)
    reports = _final(world, Table.REPORTS, MEASURES[0], "users")
    _equal("reports", {key: (*row[:-1], len(row[-1])) for key, row in reports.items()}, truth.reports)
    _equal("reach", _reach(world), truth.reach)
    _equal("cohorts", _final(world, Table.COHORTS, "conversions", "conversion_value_micros"), truth.cohorts)
    _equal("flags", _final(world, Table.FLAGS, "class", "state"), truth.flags)
    ledger = {key: row[-1] for key, row in _final(world, Table.LEDGER, "entry", "records").items()}
    _equal("ledger", {key: count for key, count in ledger.items() if count or key[3] == "consumed"}, truth.ledger)
    _ledger_balances(ledger)
    _equal("campaigns", _campaigns(world), truth.campaigns)


def _ledger_balances(ledger: Mapping[Row, int]) -> None:
    places = {key[:3] for key in ledger}
    for place in places:
        entries = {key[3:]: count for key, count in ledger.items() if key[:3] == place}
        consumed = entries.pop(("consumed", ""))
        if consumed != sum(entries.values()):
            raise Broken(f"the ledger of {place} does not balance: consumed {consumed}, entries {entries}")


def _reach(world: World) -> dict[Row, int]:
    """Users over all effect panes: the union of the sketches, exact as long as they are not full."""
    columns = COLUMNS[Table.REPORTS]
    at = {name: columns.index(name) for name in columns}
    skipped = {"log_epoch", "effect_pane"}
    names = [name for name in columns[: at[MEASURES[0]]] if name not in skipped]
    users: dict[Row, set[int]] = {}
    for row in world.sink.final[Table.REPORTS].values():
        users.setdefault(tuple(row[at[name]] for name in names), set()).update(row[at["users"]])
    return {key: len(found) for key, found in users.items()}


def _campaigns(world: World) -> dict[Row, Row]:
    at = {name: place for place, name in enumerate(COLUMNS[Table.CAMPAIGNS])}
    rows = world.sink.final[Table.CAMPAIGNS]
    return {key: (row[at["name"]], row[at["currency"]], row[at["time_zone"]]) for key, row in rows.items()}


def _letters_are_there(world: World, truth: Truth) -> None:
    found = {place: letter["reason"] for place, letter in world.outbox.letters.items()}
    _equal("dead letters", found, truth.letters)
    for place, letter in world.outbox.letters.items():
        if letter["entry"] != ("late" if truth.letters[place] == "late" else "rejected"):
            raise Broken(f"the dead letter of {place} is entered as {letter['entry']}")


# An undisturbed run


class Replayed:
    """What the logs give when nothing interferes: every row that may ever be published, by key and version.

    From the journal's beginning, or behind the tick of a checkpoint (`document`).
    """

    def __init__(self, world: World, partition: int, document: dict[str, Any] | None = None) -> None:
        self.rows: dict[tuple[Table, Row, int], Row] = {}
        self.final: dict[tuple[Table, Row], Row] = {}
        self.signals: dict[Told, bytes] = {}
        self.latest: dict[tuple[str, bytes, str], Told] = {}
        self.watch = Watch()
        self.state = PartitionState(partition, world.partitions, world.log_epoch, Rules())
        self._world = world
        self.partition = self._partition = partition
        self._run(document)

    def _load(self, document: dict[str, Any] | None) -> Fold:
        if document is None:
            return Fold()
        refs, store = document["segments"], self._world.store
        restore(self.state, {name: store.segments[self._partition, ref["key"]] for name, ref in refs.items()})
        return Fold(document["claim_id"], document["seq"])

    def _run(self, document: dict[str, Any] | None) -> None:
        fold, behind = self._load(document), document["journal_offset"] if document else -1
        journal = self._world.journal.entries[self._partition]
        entries = [(entry.offset, decode(entry.value)) for entry in journal if entry.offset > behind]
        ticks = [(offset, tick) for offset, entry in entries if (tick := fold.take(entry)) is not None]
        if document is None:
            self.state.begin_at(fold.starts or {})
        for _, tick in ticks:
            for topic, offsets in tick.poisoned.items():
                self.state.poisoned.setdefault(topic, set()).update(offsets)
        for offset, tick in ticks:
            for topic, target in tick.applied.items():
                self._feed(topic, target)
            output = self.state.tick(tick)
            if document is None:
                self.watch.see(tick, output, self.state)
            self._tell(output, version_of(self._world.log_epoch, offset))
            for table, rows in output.rows.items():
                for row in rows:
                    self._publish(table, (*row, version_of(self._world.log_epoch, offset)))

    def _tell(self, output: Output, sequence: int) -> None:
        for _, message in outgoing(output, sequence):
            if message.topic != DEAD_LETTERS:
                at = told(message)
                self.signals[at] = message.value or b""
                self.latest[at[:3]] = at

    def _publish(self, table: Table, row: Row) -> None:
        row = plain(table, row)
        key = sink_key(table, row)
        self.rows[table, key, row[-1]] = row
        self.final[table, key] = row

    def _feed(self, topic: str, target: int) -> None:
        at = self.state.position(topic)
        for lost in sorted(x for x in self._world.lost if (x.topic, x.partition) == (topic, self._partition)):
            if at <= lost.from_offset and lost.to_offset <= target and at < target:
                self._slice(topic, at, lost.from_offset)
                self.state.apply(self._slice_of(topic, lost.from_offset, lost.to_offset, is_lost=True))
                at = lost.to_offset
        self._slice(topic, at, target)

    def _slice(self, topic: str, begin: int, end: int) -> None:
        if begin < end:
            self.state.apply(self._slice_of(topic, begin, end))

    def _slice_of(self, topic: str, begin: int, end: int, is_lost: bool = False) -> Any:
        batch = self._world.logs[topic, self._partition].slice(begin, end)
        return batch._replace(records=[], is_lost=True) if is_lost else batch


def _same_as_undisturbed(world: World, partition: int, state: PartitionState) -> Replayed:
    replayed = Replayed(world, partition)
    _equal("rows of an undisturbed run", _rows_of(world, partition), _of_partition(replayed.final, partition))
    for (table, key, version), row in world.sink.seen.items():
        if _partition_of(table, key) == partition and replayed.rows.get((table, key, version)) != row:
            raise Broken(
                f"{table}: {key} was published at {version} as\n  {row}\nwhich no undisturbed run gives:\n"
                f"  {replayed.rows.get((table, key, version))}"
            )
    _equal(f"state of partition {partition}", portrait(state), portrait(replayed.state))
    return replayed


def _same_from_any_checkpoint(world: World, whole: Replayed) -> None:
    """Whoever starts at a checkpoint that there is gets every row of a later tick, and the same state."""
    for document in world.store.documents(whole.partition):
        part = Replayed(world, whole.partition, document)
        behind = version_of(world.log_epoch, document["journal_offset"])
        later = {at: row for at, row in whole.rows.items() if at[2] > behind}
        _equal(f"rows from checkpoint {document['key']}", part.rows, later)
        _equal(f"state from checkpoint {document['key']}", portrait(part.state), portrait(whole.state))
        reached = [
            row[_EFFECT] * 1000 for (table, _, v), row in whole.rows.items() if table is Table.PANES and v <= behind
        ]
        if max(reached, default=-1) > document["newest_ms"]:
            raise Broken(
                f"checkpoint {document['key']} says {document['newest_ms']}, but its rows reach {max(reached)}"
            )


_EFFECT = COLUMNS[Table.PANES].index("effect_pane")


def _signals_are_true(world: World, replays: list[Replayed]) -> None:
    """Every alert was told, of everything else the latest, and nothing that no undisturbed run tells."""
    given = {at: value for replayed in replays for at, value in replayed.signals.items()}
    latest = {at for replayed in replays for at in replayed.latest.values()}
    needed = {at: value for at, value in given.items() if at[0] == ALERTS or at in latest}
    _equal("signals that must be told", {at: world.outbox.signals.get(at) for at in needed}, needed)
    told_too = {at: value for at, value in world.outbox.signals.items() if at not in needed}
    _equal("signals told", told_too, {at: given.get(at) for at in told_too})


def _nothing_else_was_ever_published(world: World) -> None:
    partitions = {_partition_of(table, key) for table, key, _ in world.sink.seen} - {None}
    if not partitions <= set(range(world.partitions)):
        raise Broken(f"rows of partitions {partitions}")


def _partition_of(table: Table, key: Row) -> int | None:
    if table in (Table.PACING, Table.ALERTS, Table.FLAGS, Table.RISKS):
        return int(key[1])
    return None if table is Table.CAMPAIGNS else int(key[2])


def _rows_of(world: World, partition: int) -> dict[tuple[Table, Row], Row]:
    return {
        (table, key): row
        for table, rows in world.sink.final.items()
        for key, row in rows.items()
        if _partition_of(table, key) == partition
    }


def _of_partition(rows: Mapping[tuple[Table, Row], Row], partition: int) -> dict[tuple[Table, Row], Row]:
    return {(table, key): row for (table, key), row in rows.items() if _partition_of(table, key) == partition}


def portrait(state: PartitionState) -> dict[str, Any]:
    """A state without what depends on when it was packed or written."""
    inputs = {
        source.value: (held.position, held.newest_ms, sorted(held.ledger.items()), held.dedupe.floor)
        for source, held in state.inputs.items()
    }
    windows = {
        (campaign, window): state.windows.totals(campaign, window)
        for campaign in sorted(state.windows.campaigns())
        for window in (*WINDOWS_MS, DAY)
    }
    return {
        "positions": {topic: state.position(topic) for topic in TOPICS},
        "rules": state.rules,
        "currencies": sorted(state.campaigns.currencies.items()),
        "desk": state.desk.snapshot(),
        "judging": judging_portrait(state),
        "rates": state.rates.snapshot(),
        "prices": state.campaigns.prices.snapshot(),
        "refused": state.campaigns.refused,
        "balance": {topic: notice.consumed() for topic, notice in state.notices.items()},
        **inputs,
        "windows": {key: totals for key, totals in windows.items() if any(totals)},
    }


def judging_portrait(state: PartitionState) -> dict[str, Any]:
    """What is known of flags, without what depends on when it was packed."""
    shown = state.judging.snapshot()
    for name in ("sources", "source_runs"):  # when runs were merged depends on how batches came
        shown.pop(name)
    recent = {
        source.value: (len(held.traces.recent), held.traces.recent.floor_ms) for source, held in state.inputs.items()
    }
    return {**shown, "recent": recent}
