"""A tick: what it looks at, what it publishes, and what new rules do."""

import pytest

from streams.events import ClickType, Input
from streams.records import COLUMNS, Table
from streams.rules import Rules
from streams.state import inputs
from streams.state import partition as module
from streams.state.checkpoint import capture, restore
from streams.state.journal import Tick
from streams.state.partition import TOPICS, PartitionState
from streams.topics import partition_of
from tests.unit.given import HOUR, MINUTE, SECOND, T0, Fed, document, quick_rules

SOURCE = Input.CLICKS


def clicks(fed: Fed) -> list[int]:
    return sorted(row["clicks"] for row in fed.rows[Table.PANES].values())


def test_a_partition_reads_every_input_and_the_settings() -> None:
    assert set(TOPICS) == {f"ads.{source.value}" for source in Input} | {
        "ads.campaigns",
        "ads.sessions",
        "ads.allowances",
        "ads.evidence",
        "ads.verdicts",
    }


def test_a_tick_at_other_positions_than_its_own_is_a_broken_invariant() -> None:
    fed = Fed().feed(SOURCE, document(SOURCE, "a"))
    with pytest.raises(AssertionError, match="positions"):
        fed.state.tick(Tick("claim", 1, T0, dict.fromkeys(TOPICS, 0)))


def test_nothing_new_is_nothing_to_publish() -> None:
    fed = Fed().feed(SOURCE, document(SOURCE, "a"))
    fed.tick()
    assert all(not rows for rows in fed.tick().values())


def test_every_row_has_a_value_for_each_column_but_the_version() -> None:
    fed = Fed().settle(budget={"daily_micros": 1_000_000})
    for source in Input:
        touch = {"attribution": {"touch_type": "click", "touch_time_ms": T0}} if source is Input.CONVERSIONS else {}
        fed.feed(source, document(source, "a", **touch))
    output = fed.state.tick(Tick("claim", 1, T0, fed.state.positions()))
    assert set(output.rows) == set(Table) - {Table.ALERTS, Table.FLAGS, Table.RISKS}
    for table, rows in output.rows.items():
        assert {len(row) for row in rows} == {len(COLUMNS[table]) - 1}


def test_inputs_do_not_share_rows() -> None:
    fed = Fed()
    for source in Input:
        fed.feed(source, document(source, "a"))
    fed.tick()
    assert {row["input"] for row in fed.rows[Table.PANES].values()} == {source.value for source in Input}


def test_a_row_tells_its_log_its_partition_and_its_rules() -> None:
    state = PartitionState(3, 8, 7, quick_rules())
    fed = Fed()
    fed.state = state
    fed.feed(SOURCE, document(SOURCE, "a"))
    fed.tick()
    row = fed.one()
    assert (row["log_epoch"], row["partition"], row["pane_ms"], row["rules_seq"]) == (7, 3, 10_000, 0)
    assert row["rules"] == quick_rules().fingerprint()
    assert row["validity"] == "valid"


def test_the_same_ticks_over_the_same_ranges_give_the_same_rows() -> None:
    events = [document(SOURCE, f"e{n % 40}", T0 + n * 997, campaign_id=f"c{n % 3}") for n in range(300)]
    runs = []
    for _ in range(2):
        fed = Fed()
        outputs = []
        for start in range(0, 300, 30):
            fed.feed(SOURCE, *events[start : start + 30])
            outputs.append(fed.tick())
        runs.append(outputs)
    assert runs[0] == runs[1]


# Rules


def test_the_first_ticks_rules_are_in_force_from_the_first_event_on() -> None:
    fed = Fed()
    fed.tick(quick_rules(pane_ms=30_000))
    fed.feed(SOURCE, document(SOURCE, "a", T0 + 29_000))
    fed.tick()
    assert (fed.one()["pane_ms"], fed.one()["rules_seq"], fed.one()["origin_pane"]) == (30_000, 1, T0 // 1000)


def test_new_rules_hold_from_the_tick_after_theirs_in_rows_of_their_own() -> None:
    new = quick_rules(ctr_click_types=(ClickType.BUTTON,))
    fed = Fed()
    fed.tick()
    fed.feed(SOURCE, document(SOURCE, "a"))
    fed.tick(new)
    fed.feed(SOURCE, document(SOURCE, "b"), document(SOURCE, "c", click_type="button"))
    fed.tick()
    rows = {row["rules_seq"]: row for row in fed.rows[Table.PANES].values()}
    assert {seq: row["clicks"] for seq, row in rows.items()} == {0: 1, 2: 1}
    assert rows[2]["clicks_card"] == 1
    assert {seq: row["rules"] for seq, row in rows.items()} == {0: quick_rules().fingerprint(), 2: new.fingerprint()}


def test_new_rules_do_not_count_an_event_again() -> None:
    fed = Fed()
    fed.tick()
    fed.feed(SOURCE, document(SOURCE, "a"))
    fed.tick(quick_rules(pane_ms=20_000))
    fed.feed(SOURCE, document(SOURCE, "a"), document(SOURCE, "b"))
    fed.tick()
    assert fed.ledger(SOURCE) == {"counted": 2, "duplicate": 1}
    assert clicks(fed) == [1, 1]


def test_before_new_rules_hold_everything_is_published_under_the_old_ones() -> None:
    fed = Fed(quick_rules(report_every_ms=HOUR))
    fed.tick()
    fed.feed(SOURCE, document(SOURCE, "a"))
    assert fed.tick()[Table.REPORTS] == []
    rows = fed.tick(quick_rules(dimensions=()))
    assert [row["clicks"] for row in rows[Table.REPORTS]] == [1]
    assert fed.state.inputs[SOURCE].report.is_clean


def test_what_was_caught_up_with_is_published_at_once_also_by_whoever_goes_on() -> None:
    fed = Fed(quick_rules(report_every_ms=HOUR))
    fed.tick(is_catching_up=True)
    fed.feed(SOURCE, document(SOURCE, "a"))
    assert fed.tick(is_catching_up=True)[Table.REPORTS] == []
    assert not fed.state.has_something_due(fed.wall_ms + SECOND, is_catching_up=True)
    heir = PartitionState(0, 1, 0, fed.state.rules)
    restore(heir, capture(fed.state, (), {}).changed)
    fed.state = heir
    assert fed.state.has_something_due(fed.wall_ms + SECOND, is_catching_up=False)
    assert [row["clicks"] for row in fed.tick()[Table.REPORTS]] == [1]
    fed.feed(SOURCE, document(SOURCE, "b"))
    assert fed.tick()[Table.REPORTS] == []  # and from then on as usual


def test_the_ledger_goes_on_under_new_rules() -> None:
    fed = Fed()
    fed.tick()
    fed.feed(SOURCE, document(SOURCE, "a"), b"{")
    fed.tick(quick_rules(pane_ms=20_000))
    fed.feed(SOURCE, document(SOURCE, "b"))
    fed.tick()
    assert fed.ledger(SOURCE) == {"counted": 2, "rejected/malformed_json": 1}
    assert fed.state.inputs[SOURCE].consumed() == 3


# Campaigns in a wrong partition


def campaign_of(partition: int, partitions: int, avoid: str = "") -> str:
    names = (f"campaign-{n}" for n in range(1_000))
    return next(name for name in names if name != avoid and partition_of(name, partitions) == partition)


def test_a_campaign_in_a_wrong_partition_is_counted_once_and_its_events_all_the_same() -> None:
    fed = Fed(partition=1, partitions=4)
    right, wrong = campaign_of(1, 4), campaign_of(2, 4)
    for tick in range(3):
        events = [document(SOURCE, f"{name}{tick}", T0 + tick * MINUTE, campaign_id=name) for name in (right, wrong)]
        fed.feed(SOURCE, *events)
        fed.tick()
    assert fed.state.misrouted == 1
    assert clicks(fed) == [1] * 6


def test_organic_traffic_has_no_wrong_partition() -> None:
    for partition in range(4):
        fed = Fed(partition=partition, partitions=4)
        fed.feed(SOURCE, document(SOURCE, "a", campaign_id=None, traffic="organic"))
        fed.tick()
        assert fed.state.misrouted == 0


def test_the_memory_of_routes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROUTED", 10)
    fed = Fed(partition=0, partitions=1)
    fed.feed(SOURCE, *(document(SOURCE, f"e{n}", campaign_id=f"c{n}") for n in range(95)))
    fed.tick()
    assert len(fed.state._routed) <= 10
    assert fed.state.misrouted == 0


def test_the_memory_of_keys_is_bounded_and_nothing_that_waits_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_KEYS", 20)
    fed = Fed(quick_rules(report_every_ms=HOUR))
    fed.tick()
    for tick in range(4):
        names = [f"{tick}-{n}" for n in range(30)]
        fed.feed(SOURCE, *(document(SOURCE, name, ad_unit_id=name, region=name) for name in names))
        fed.tick()
    assert len(fed.state.inputs[SOURCE].keys) <= 2 * 120
    fed.wall_ms += HOUR
    fed.tick()
    for table in (Table.PANES, Table.REPORTS):
        assert fed.total("clicks", table) == 120
        assert len({row["ad_unit_id"] for row in fed.rows[table].values()}) == 120


def test_the_rules_of_a_partition_are_those_it_was_given_until_a_tick_brings_others() -> None:
    assert Fed(Rules(pane_ms=5_000)).state.rules.pane_ms == 5_000
