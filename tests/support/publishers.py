"""Publishers' statistics as a generator would measure them, with the columns of the labelled set."""

import numpy as np
from hypothesis import strategies as st

from streams.stages.invalid.publisher_features import COLUMN_NAMES

DRAWN = st.fixed_dictionaries({name: st.floats(1, 1e6) for name in COLUMN_NAMES})
"""Any values at all: most are of no real publisher."""


def publisher(clicks: int = 500, per_address: float = 1.5, burst: float = 1.0) -> dict[str, object]:
    """One publisher; `burst` is how many clicks come together in a minute."""
    addresses = max(1, round(clicks / per_address))
    row: dict[str, object] = dict.fromkeys(COLUMN_NAMES, 1.0)
    row |= {"TotalClicks": clicks, "NoOfUniqueIp": addresses, "IpClickRatio": round(addresses / clicks, 2)}
    row |= {"EntropyIplong": round(float(np.log2(addresses)), 2), "MaxSameIpCount": max(1, round(2 * per_address))}
    row |= {f"NoOfUnique{key}": max(1, round(clicks**0.5)) for key in ("Agent", "Cid", "Cntr", "Referer")}
    for slot, hours in (("1Min", 1 / 60), ("5Min", 1 / 12), ("3Hr", 3), ("6Hr", 6)):
        mean = max(1.0, burst, clicks * hours / 72)
        row |= {f"AvgClickPer{slot}": round(mean, 2), f"MaxClickPer{slot}": int(2 * mean) + 1}
    return row


def publishers(count: int, seed: int = 1) -> list[dict[str, object]]:
    """Every tenth is fraudulent: many clicks from each address, and in bursts. Every fifteenth is watched."""
    dice = np.random.default_rng(seed)
    rows = []
    for at in range(count):
        is_fraud = at % 10 == 3
        per_address, burst = (dice.uniform(8, 60), dice.uniform(4, 20)) if is_fraud else (dice.uniform(1, 3), 1.0)
        row = publisher(int(dice.integers(50, 5000)), float(per_address), float(burst))
        status = "Fraud" if is_fraud else "Observation" if at % 15 == 0 else "OK"
        rows.append({"partnerid": f"p{at}", **row, "status": status})
    return rows
