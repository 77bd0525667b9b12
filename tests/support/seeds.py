"""Seeds of randomised tests: printed, so that a failure can be repeated; CAMPAIGN_STREAMS_TEST_SEED sets one."""

import os
from typing import Final

VARIABLE: Final = "CAMPAIGN_STREAMS_TEST_SEED"


def seed_of(name: str) -> int:
    """The seed of a test. A fixed one by default: what is checked does not depend on luck alone."""
    seed = int(os.environ.get(VARIABLE, "1"))
    print(f"{name}: seed {seed} (set {VARIABLE} to repeat or to vary)")
    return seed
