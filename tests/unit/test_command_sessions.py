"""`sessions start | end`: what is refused."""

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.errors import ConfigurationError


@pytest.mark.parametrize("word", ["start", "end"])
def test_a_time_that_workers_would_refuse_is_refused_with_its_remedy(word: str) -> None:
    """Nothing is published: nobody is asked for a broker."""
    result = CliRunner().invoke(app, ("sessions", word, "c1", "--session", "s1", "--at", "2099-01-01"))
    assert isinstance(result.exception, ConfigurationError)
    assert "2099-01-01 00:00:00 UTC is further ahead than 5 min" in str(result.exception)
    assert "when it begins or ends" in str(result.exception)
