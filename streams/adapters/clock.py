"""The wall clock."""

import time


class SystemClock:
    """The machine's clock; it schedules, and never decides a number."""

    def now_ms(self) -> int:
        """Epoch ms, UTC."""
        return time.time_ns() // 1_000_000
