"""The standard workload: seeded, 1,000 Zipf campaigns with 5 creatives each, 97% impressions and plays,
0.5% duplicates, 1% out of order. Event time is as dense as told, so that it can match the rate that is measured.

Written for speed (bytes are put together by hand), for a benchmark's generator must not be what is measured.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streams.events import Input
from streams.ports import Outgoing
from streams.topics import INPUT_TOPICS, partition_of

REGIONS = ("CN-SH", "CN-BJ", "CN-GD", "CN-ZJ", "CN-SC", "CN-HB", "CN-JS", "CN-SD")
CHANNELS = ("feed", "search", "live")
DEVICES = ("phone", "tablet")
SHARES = ((Input.IMPRESSIONS, 0.60), (Input.PLAYS, 0.37), (Input.CLICKS, 0.026), (Input.CONVERSIONS, 0.004))
MILESTONES = ("start", "3s", "5s", "complete")


class Workload(NamedTuple):
    """`per_second`: events per second of event time."""

    events: int
    per_second: float
    seed: int = 1
    campaigns: int = 1_000
    creatives: int = 5
    users: int = 500_000
    partitions: int = 4
    start_ms: int = 1_793_577_600_000
    duplicate_share: float = 0.005
    out_of_order_share: float = 0.01
    max_disorder_ms: int = 5_000
    chunk: int = 20_000


def produce(workload: Workload) -> Iterator[list[Outgoing]]:
    """Chunks of records, in delivery order. The same workload gives the same bytes."""
    rng = np.random.default_rng(workload.seed)
    weights = 1.0 / np.arange(1, workload.campaigns + 1)
    weights /= weights.sum()
    names = [f"c{n:05d}" for n in range(workload.campaigns)]
    places = [partition_of(name, workload.partitions) for name in names]
    inputs = [source for source, _ in SHARES]
    shares = np.array([share for _, share in SHARES])
    before: list[Outgoing] = []
    for first in range(0, workload.events, workload.chunk):
        size = min(workload.chunk, workload.events - first)
        campaign = rng.choice(workload.campaigns, size, p=weights).tolist()
        kind = rng.choice(len(inputs), size, p=shares / shares.sum()).tolist()
        at = workload.start_ms + (np.arange(first, first + size) * 1000.0 / workload.per_second).astype(np.int64)
        late = (rng.random(size) < workload.out_of_order_share) * rng.integers(1, workload.max_disorder_ms, size)
        stamps, times = at.tolist(), (at - late).tolist()
        numbers = rng.integers(0, 1 << 62, (size, 3)).tolist()
        again = (rng.random(size) < workload.duplicate_share).tolist()
        chunk: list[Outgoing] = []
        for i in range(size):
            if again[i] and before:
                chunk.append(before[numbers[i][0] % len(before)])
                continue
            source, name = inputs[kind[i]], names[campaign[i]]
            value = document(source, name, times[i], numbers[i], workload)
            chunk.append(Outgoing(INPUT_TOPICS[source], places[campaign[i]], name.encode(), value, stamps[i]))
        before = chunk
        yield chunk


def document(source: Input, campaign: str, at_ms: int, numbers: list[int], workload: Workload) -> bytes:
    """One event, JSON, about 290 bytes."""
    a, b, c = numbers
    creative = b % workload.creatives
    head = (
        f'{{"event_id":"{a:016x}{c & 0xFFFF:04x}","event_time_ms":{at_ms},"campaign_id":"{campaign}",'
        f'"ad_unit_id":"{campaign}-u","creative_id":"{campaign}-{creative}","user_id":"u{c % workload.users:012x}",'
        f'"region":"{REGIONS[(b >> 8) % 8]}","channel":"{CHANNELS[(b >> 16) % 3]}",'
        f'"device_class":"{DEVICES[(b >> 24) % 2]}","currency":"CNY"'
    )
    if source is Input.IMPRESSIONS:
        tail = f',"clearing_price_millimicros":{10_000_000 + b % 1_000_000},"viewable":{"true" if b & 1 else "false"}}}'
    elif source is Input.PLAYS:
        tail = f',"milestone":"{MILESTONES[b % 4]}","watched_ms":{b % 5000},"loop":1}}'
    elif source is Input.CLICKS:
        tail = ',"click_type":"card"}'
    else:
        clicked = f'{{"touch_type":"click","touch_id":"t{a:x}","touch_time_ms":{at_ms - b % 3_600_000}}}'
        tail = f',"conversion_type":"order","value_micros":{b % 10**9},"attribution":{clicked}}}'
    return (head + tail).encode()
