"""The flags of a published run, and the report of a run beside the live rows."""

from typing import Any

from streams.jobs.replay_report import report_of, rules_changes
from streams.records import COLUMNS, Row, Table
from tests.integration.test_replay_publishing import BEGIN_S, END_S, World, clicks, opened, world
from tests.support.rows import make_row

__all__ = ["opened", "world"]

# Flags


def flag(event: str, effect_s: int = BEGIN_S + 60, rule: str = "declared_bot", **values: Any) -> Row:
    told = {"input": "clicks", "class": "givt", "mode": "on", "state": "raised", "evidence": "{}", **values}
    return make_row(Table.FLAGS, event=event, rule=rule, event_time=BEGIN_S + 60, effect_pane=effect_s, **told)


def flags_of(world: World) -> dict[tuple[str, str], tuple[str, str]]:
    """By event and rule: state, and what the event counts as."""
    found = world.runs.ask("SELECT event, rule, state, counts_as FROM flags")
    shown = world.runs.ask("SELECT event, rule, state FROM shown_flag_rows")
    assert sorted(shown) == sorted(row[:3] for row in found)
    return {(event, rule): (state, counts_as) for event, rule, state, counts_as in found}


def test_the_flags_of_a_published_run_stand_in_the_place_of_the_live_ones_until_it_is_taken_back(world: World) -> None:
    """Live holds `x` invalid, the run `y`; both hold `both`. `before` and `behind` are of live outside the range."""
    outside = (flag("before", BEGIN_S - 1), flag("behind", END_S))
    world.live(flag("x"), flag("both"), *outside, table=Table.FLAGS)
    info = world.run(clicks(1))
    world.runs.insert(info.run, Table.FLAGS, [flag("y", evidence='{"seen":1}'), flag("both")])
    bot = "declared_bot"
    live = {(event, bot): ("raised", "givt") for event in ("x", "both", "before", "behind")}
    assert flags_of(world) == live
    world.runs.publish(info, "me", 1)
    assert flags_of(world) == {(event, bot): ("raised", "givt") for event in ("y", "both", "before", "behind")}
    assert world.runs.ask("SELECT evidence FROM flags WHERE event = 'y'") == [('{"seen":1}',)]
    world.runs.publish(info, "me", 2, is_published=False)
    assert flags_of(world) == live


def test_what_the_live_worker_says_later_of_a_flag_that_a_run_tells_counts(world: World) -> None:
    """As its correction does, behind the range. What it had said before the range is what the run goes on from."""
    info = world.run(clicks(1))
    far = 10**15  # a what-if counts its ticks anew: its versions say nothing beside the live ones
    told = [flag("a", version=far), flag("b", version=far, state="withdrawn")]
    world.runs.insert(info.run, Table.FLAGS, told)
    world.live(
        flag("a", END_S + 60, state="overturned", version=2),
        flag("b", BEGIN_S - 60, version=3),
        flag("b", BEGIN_S - 60, "data_centre", version=3),
        table=Table.FLAGS,
    )
    assert flags_of(world)["b", "declared_bot"] == ("raised", "givt")
    world.runs.publish(info, "me", 1)
    assert flags_of(world) == {
        ("a", "declared_bot"): ("overturned", "valid"),
        ("b", "declared_bot"): ("withdrawn", "givt"),
        ("b", "data_centre"): ("raised", "givt"),
    }


def test_flags_of_before_this_version_stand_where_their_events_happened(world: World) -> None:
    names = [name for name in COLUMNS[Table.FLAGS] if name != "effect_pane"]
    values = dict(zip(COLUMNS[Table.FLAGS], flag("x"), strict=True))
    columns, marks = ", ".join(names), ", ".join(f"{{{name}:String}}" for name in names)
    world.runs._command(f"INSERT INTO flag_rows ({columns}) SELECT {marks}", {n: str(values[n]) for n in names})
    found = world.runs.ask("SELECT toUnixTimestamp(event_time), toUnixTimestamp(effect_pane) FROM flag_rows")
    assert found == [(BEGIN_S + 60, BEGIN_S + 60)]


# Reports


def test_a_report_keeps_currencies_apart_and_says_where_rules_changed(world: World) -> None:
    world.live(
        clicks(10, spend_millimicros=5_000_000, rules="old"),
        clicks(5, BEGIN_S + 600, spend_millimicros=2_000_000, rules="new", rules_seq=9),
        clicks(5, BEGIN_S + 620, partition=1, rules="old", campaign_id="c2", currency="USD", spend_millimicros=7_000),
        clicks(5, BEGIN_S + 640, partition=1, rules="new", rules_seq=4, campaign_id="c2", currency="USD"),
        clicks(3, campaign_id="c2", currency=""),
    )
    world.live(make_row(Table.ALERTS, changed=BEGIN_S + 5, campaign_id="c9"), table=Table.ALERTS)
    info = world.run(
        clicks(8, spend_millimicros=4_000_000),
        clicks(2, validity="givt", spend_millimicros=1_000_000),
        clicks(13, campaign_id="c2", currency="USD", spend_millimicros=7_000),
    )
    report = report_of(world.runs, info)
    assert [(each.campaign_id, each.currency) for each in report.campaigns] == [
        ("c1", "CNY"),
        ("c2", "USD"),
        ("c9", ""),
    ]
    first = report.campaigns[0]
    assert (first.before.clicks, first.after.clicks, first.after.invalid_clicks) == (15, 8, 2)
    assert first.difference["spend_micros"] == -3_000
    assert first.before.ctr is None
    assert report.campaigns[1].difference["clicks"] == 0
    assert (report.campaigns[2].before.alerts, report.campaigns[2].after.alerts) == (1, 0)
    assert {each.currency: each.before.spend_micros for each in report.totals} == {"CNY": 7_000, "USD": 7, "": 0}
    assert {each.currency for each in report.series if each.measure == "spend_micros"} == {"CNY", "USD"}
    (change,) = report.rules_changes
    assert (change.side, change.before, change.after, change.partitions) == ("live", "old", "new", 2)
    assert (change.first_s, change.last_s) == (BEGIN_S + 600, BEGIN_S + 640)


def test_rules_that_change_back_are_two_changes() -> None:
    rows = [(0, p, seq, rules, 100 * seq + p) for p in (0, 1) for seq, rules in enumerate("abba")]
    found = [(each.before, each.after, each.first_s, each.last_s) for each in rules_changes("live", rows)]
    assert found == [("a", "b", 100, 101), ("b", "a", 300, 301)]


def test_a_report_is_narrowed_to_the_run_s_campaigns(world: World) -> None:
    world.live(clicks(10), clicks(5, campaign_id="c2"))
    info = world.run(clicks(8), clicks(5, campaign_id="c2"), campaigns=("c2",))
    report = report_of(world.runs, info)
    assert [each.campaign_id for each in report.campaigns] == ["c2"]
    assert next(each for each in report.series if each.measure == "clicks").before == [5]
