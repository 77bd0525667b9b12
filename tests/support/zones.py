"""A time zone for tests that run on the real clock: their results must not hang on the hour at which they run."""

import time


def zone_at_noon() -> str:
    """An IANA zone in which it is between 12:00 and 13:00: far from a day's begin and end."""
    hours_ahead = 12 - time.gmtime().tm_hour
    return f"Etc/GMT{-hours_ahead:+d}"  # these names count the other way round: hours behind Greenwich
