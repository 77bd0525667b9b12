"""Logs that nobody on this project wrote, through the command line: their totals are known, and must come out.

Season and advertiser as in the iPinYou contest's data (one day of advertiser 2821: 10,000 impression rows and 442
click rows, paying prices in fen per thousand impressions) and the Open Bandit Dataset (men's campaign, 10,000 rows of
each of two policies).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.worker_process import environment

VARIABLE: Final = "CAMPAIGN_STREAMS_TEST_DATA"
DATA: Final = Path(os.environ.get(VARIABLE) or Path(__file__).resolve().parents[2].parent / "shared" / "data")
IPINYOU: Final = [DATA / "ipinyou_2821" / f"{kind}.20131021.adv2821.txt.gz" for kind in ("imp", "clk")]
OPEN_BANDIT: Final = [DATA / "open_bandit_men" / f"{policy}.csv.gz" for policy in ("random", "bts")]
TIMEOUT_S: Final = 180


def _needs(paths: list[Path]) -> pytest.MarkDecorator:
    is_absent = not all(path.is_file() for path in paths)
    return pytest.mark.skipif(is_absent, reason=f"the public log is not there; {VARIABLE} names the folder that has it")


def _demo(directory: Path, files: list[Path], mapping: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "streams.cli", "demo", "--from", *map(str, files), "--mapping", mapping]
    command += ["--until-done", "--json", "--data-dir", str(directory / "data")]
    done = subprocess.run(
        command, cwd=directory, env=environment({}), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _campaign(summary: dict[str, Any], campaign: str, currency: str) -> dict[str, Any]:
    found = [c for c in summary["campaigns"] if (c["campaign_id"], c["currency"]) == (campaign, currency)]
    assert len(found) == 1, summary["campaigns"]
    row: dict[str, Any] = found[0]
    return row


@pytest.mark.slow
@_needs(IPINYOU)
def test_the_ipinyou_log_becomes_exactly_what_it_holds(tmp_path: Path) -> None:
    summary = _demo(tmp_path, IPINYOU, "ipinyou")
    assert summary["ledger_balances"]
    assert summary["rows"] == {"read": 10_442, "misfits": 0, "examples": []}
    assert summary["ledger"]["impressions"] == {"consumed": 10_000, "counted": 9_960, "duplicate": 40}
    assert summary["ledger"]["clicks"] == {"consumed": 442, "counted": 433, "duplicate": 9}
    assert len(summary["campaigns"]) == 1
    campaign = _campaign(summary, "2821", "CNY")
    assert (campaign["impressions"], campaign["clicks"]) == (9_960, 433)
    assert campaign["spend_micros"] == 8_734_340


@pytest.mark.slow
@_needs(OPEN_BANDIT)
def test_the_open_bandit_log_becomes_exactly_what_it_holds(tmp_path: Path) -> None:
    summary = _demo(tmp_path, OPEN_BANDIT, "open_bandit")
    assert summary["ledger_balances"]
    assert summary["ledger"]["impressions"] == {"consumed": 20_000, "counted": 20_000}
    assert summary["ledger"]["clicks"] == {"consumed": 115, "counted": 115}
    assert sum(campaign["impressions"] for campaign in summary["campaigns"]) == 20_000
    assert sum(campaign["clicks"] for campaign in summary["campaigns"]) == 115
