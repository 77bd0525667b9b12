"""How old a tick's oldest record was when ClickHouse had its rows."""

from streams.agents.latency import SAMPLES, VisibleLatency


def test_without_samples_there_is_no_summary() -> None:
    assert VisibleLatency().summary() is None


def test_the_oldest_record_of_a_tick_decides() -> None:
    visible = VisibleLatency()
    for timestamp in (1_000, 900, 1_100):
        visible.arrived(0, timestamp)
    visible.confirmed(0, visible.proposed(0), True, version=5)
    visible.acknowledged(0, None, 1_500)
    assert visible.summary() == {"p50": 600, "p99": 600, "ticks": 1}


def test_a_tick_is_visible_once_nothing_of_its_version_is_dirty() -> None:
    visible = VisibleLatency()
    for version in (5, 6):
        visible.arrived(0, version * 100)
        visible.confirmed(0, visible.proposed(0), True, version)
    visible.acknowledged(0, 5, 2_000)
    assert visible.summary() is None
    visible.acknowledged(0, 6, 2_000)
    assert visible.summary() == {"p50": 1_500, "p99": 1_500, "ticks": 1}
    visible.acknowledged(0, None, 3_000)
    assert visible.summary() == {"p50": 1_500, "p99": 2_400, "ticks": 2}


def test_what_arrived_for_a_tick_that_was_not_due_waits_for_the_next() -> None:
    visible = VisibleLatency()
    visible.arrived(0, 100)
    visible.confirmed(0, visible.proposed(0), False, version=0)
    visible.arrived(0, 300)
    visible.confirmed(0, visible.proposed(0), True, version=1)
    visible.acknowledged(0, None, 500)
    assert visible.summary() == {"p50": 400, "p99": 400, "ticks": 1}


def test_a_tick_without_records_is_no_sample() -> None:
    visible = VisibleLatency()
    visible.confirmed(0, visible.proposed(0), True, version=1)
    visible.acknowledged(0, None, 500)
    assert visible.summary() is None


def test_partitions_are_apart() -> None:
    visible = VisibleLatency()
    for partition in (0, 1):
        visible.arrived(partition, 100)
        visible.confirmed(partition, visible.proposed(partition), True, version=1)
    visible.acknowledged(1, None, 200)
    assert visible.summary() == {"p50": 100, "p99": 100, "ticks": 1}


def test_quantiles_are_of_the_last_ticks_only() -> None:
    visible = VisibleLatency()
    for number in range(SAMPLES + 100):
        visible.arrived(0, 0)
        visible.confirmed(0, visible.proposed(0), True, version=number + 1)
        visible.acknowledged(0, None, 1_000_000 if number < 100 else number - 99)
    assert visible.summary() == {"p50": SAMPLES // 2, "p99": round((SAMPLES - 1) * 0.99) + 1, "ticks": SAMPLES}
