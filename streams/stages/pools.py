"""Money that campaigns share: adds up their absolute spends, and allots to each an absolute limit of its own.

Stands beside the flow: partitions publish a `SpendReport` for each campaign that draws on a pool (ads.spends), the
agent `streams.agents.pools` feeds them to `Pools`, and what `Pools.due` answers (ads.allowances) is an input of the
campaign's partition like any other. Nothing is kept between runs: documents of ads.accounts and one round of reports
rebuild all of it, because reports tell back what campaigns hold.

**A shared budget** is divided by day, of the budget's own time zone: the campaign's limit is what it has spent of the
day, plus its share of what all of them have left. Shares follow demand. A campaign whose day does not begin when the
budget's does cannot be added up, and is refused (`Refusal.OTHER_DAY`), like one of another currency or advertiser.

**An account's balance** is divided in the same way without days: left = cash + grant - sum of (spend since ever -
spend since ever as of the balance). That baseline is taken once, from the first report at or after the balance's time,
and told back in every later report.

What keeps a pool from being overspent, although reports and allowances are seconds old:

* What a campaign was told is *promised* to it until it is known to hold something newer. Only what is neither spent nor
  promised is given to others, so the promises never add up to more than the pool. A limit that is lowered is given to
  others only when it is known to be out of force; a campaign that falls silent keeps its promise for `LAPSE_MS`, and
  what it has spent counts until the day ends.
* Of a shared budget a report names the allowance that the campaign holds, so that this is exact: whatever the delays,
  losses and reordering of both topics, campaigns that keep within the limits they hold do not overspend it. Beyond
  that, only what they spend past their limits (clicks of impressions already shown), and before a first allowance.
* Of a balance a limit counts as out of force when a report is sent `HOLD_MS` after its successor was. The balance is
  overspent by at most what was taken back from campaigns whose allowances took longer than that.
* An agent that starts knows what is out from the reports alone, after `SETTLE_MS`. What its predecessor told so late
  that no report reflects it by then is unknown: of a balance, all of it is. So in the first half minute a pool can be
  overspent by what those old limits leave beyond the new ones, if it runs dry within these seconds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from streams.accounts import Account, AccountBalance, SharedBudget
from streams.documents import Fault, decode_document
from streams.events import Reason, Rejected
from streams.signals import Allowance, PoolKind, SpendReport
from streams.state.windows import day_bounds

SETTLE_MS: Final = 15_000
"""After a pool's first report, and after so long a silence of it, the agent listens for so long before it speaks."""
SILENT_MS: Final = 60_000
"""A campaign not heard of for so long gets no new share: what it has spent and was promised stays."""
LAPSE_MS: Final = 3_600_000
"""After so long a silence of a campaign its promises lapse: only what it has spent counts."""
HOLD_MS: Final = 30_000
"""So long after an allowance of a balance was sent, a campaign that reports has it."""
REPEAT_MS: Final = 30_000
"""An allowance is told again after so long, changed or not."""
STEPS: Final = 10_000
"""A limit is told anew when it has moved by more than this part of the pool."""
EASE: Final = 4
"""A limit falls by this part of the way at a time: demand is an estimate."""
UNKNOWN_PART: Final = 10
"""A campaign without an estimate weighs this part of the average: enough to begin with."""
HOUR_MS: Final = 3_600_000
MAX_POOLS: Final = 10_000
MAX_CAMPAIGNS: Final = 100_000
"""Of all pools together. Campaigns and pools beyond are refused and counted: they get no allowance."""
MAX_PROMISES: Final = 64
"""Kept for each campaign; older ones are merged, at the highest of them."""
LATEST_MS: Final = 4_102_444_800_000
"""Up to the year 2100."""
MOST: Final = 10**15
"""Amounts in allowances lie within this, either way."""

_REPORT: Final = msgspec.json.Decoder(SpendReport)
PoolKey = tuple[PoolKind, str]


class Refusal(StrEnum):
    """Why a report does not lead to an allowance."""

    STALE = "stale"
    """A newer one was there before."""
    UNKNOWN_POOL = "unknown_pool"
    """Nobody has put this account or shared budget (yet)."""
    OTHER_CURRENCY = "other_currency"
    OTHER_ADVERTISER = "other_advertiser"
    OTHER_DAY = "other_day"
    """The campaign's day does not begin when the budget's does."""
    BEFORE_BALANCE = "before_balance"
    """The campaign's event time has not reached the time of the balance yet."""
    TOO_MANY = "too_many"
    """Over `MAX_POOLS` or `MAX_CAMPAIGNS`."""


def decode_report(raw: bytes | None) -> SpendReport | Rejected:
    """Decodes a value of ads.spends. Never raises."""
    return decode_document(_REPORT, raw, _faults_of)


def _faults_of(report: SpendReport) -> Sequence[Fault]:
    """Times beyond the calendar would not be times of any day."""
    times = {"day_start_ms": report.day_start_ms, "at_ms": report.at_ms}
    wrong = [name for name, at_ms in times.items() if not 0 <= at_ms <= LATEST_MS]
    return [Fault(Reason.OUT_OF_RANGE, name, "is no time from 1970 to 2100") for name in wrong]


class _Promise(NamedTuple):
    """A limit that was told, and the sequence (also the wall time, ms) of the allowance that told it."""

    sequence: int
    limit: int


class _Line:
    """What one campaign has spent of one day of a shared budget, or since ever, and was told that it may."""

    __slots__ = ("promises", "spend", "told")

    def __init__(self) -> None:
        self.spend = 0
        self.told = 0
        """Sequence of the latest allowance."""
        self.promises: list[_Promise] = []

    @property
    def promised(self) -> int:
        """What its spend may reach as far as we know; never below what it has reached."""
        return max(self.spend, max((p.limit for p in self.promises), default=self.spend))

    def tell(self, sequence: int, limit: int) -> None:
        """Notes what is sent out."""
        self.told = sequence
        if self.promises and self.promises[-1].limit == limit:
            return
        self.promises.append(_Promise(sequence, limit))
        if len(self.promises) > MAX_PROMISES:
            oldest, following = self.promises[:2]
            self.promises[:2] = [_Promise(oldest.sequence, max(oldest.limit, following.limit))]

    def holds(self, sequence: int, limit: int) -> None:
        """The campaign has told which allowance it holds: older ones are out of force."""
        later = [promise for promise in self.promises if promise.sequence > sequence]
        own = [promise for promise in self.promises if promise.sequence <= sequence]
        # Told again unchanged, a limit has a later sequence than the one noted here.
        self.promises = [_Promise(sequence, max(limit, own[-1].limit) if own else limit), *later]

    def outlasted(self, sent_ms: int) -> None:
        """A report was sent then: what had been replaced `HOLD_MS` before is out of force."""
        while len(self.promises) > 1 and self.promises[1].sequence + HOLD_MS <= sent_ms:
            del self.promises[0]


class _Member:
    """A campaign that draws on a pool."""

    __slots__ = ("baseline", "heard_ms", "lines", "report", "told", "told_ms")

    def __init__(self, report: SpendReport) -> None:
        self.report = report
        self.heard_ms = 0
        self.lines: dict[int, _Line] = {}
        """By the begin of the day (two of them); of a balance the one at 0."""
        self.baseline: tuple[int, int] | None = None
        """As of when, and what it had spent since ever by then."""
        self.told: Allowance | None = None
        self.told_ms = 0

    def take(self, report: SpendReport, sent_ms: int, now_ms: int) -> None:
        """A newer report."""
        self.report, self.heard_ms = report, now_ms
        if report.pool is PoolKind.BALANCE:
            line = self.lines.setdefault(0, _Line())
            line.spend = report.spend_micros
            line.outlasted(sent_ms)
            return
        line = self.lines.setdefault(report.day_start_ms, _Line())
        line.spend = report.day_spend_micros
        if self._is_of_this_day(report):
            line.holds(report.baseline_as_of_ms, report.baseline_micros)
        for day in sorted(self.lines)[:-2]:
            del self.lines[day]

    def _is_of_this_day(self, report: SpendReport) -> bool:
        """Whether the allowance that it holds may be one of its present day."""
        held = report.baseline_as_of_ms
        is_older = any(held <= line.told for day, line in self.lines.items() if day < report.day_start_ms)
        return held >= max(1, report.day_start_ms) and not is_older


class _Pool:
    """An account or a shared budget, and whoever draws on it."""

    __slots__ = ("account", "heard_ms", "members", "speaks_ms")

    def __init__(self) -> None:
        self.account: Account | None = None
        self.members: dict[str, _Member] = {}
        self.heard_ms = -SETTLE_MS
        self.speaks_ms = 0

    def heard(self, now_ms: int) -> None:
        """A report came. After a silence it may be that others spoke for this pool meanwhile: listen first."""
        if now_ms - self.heard_ms >= SETTLE_MS:
            self.speaks_ms = now_ms + SETTLE_MS
        self.heard_ms = now_ms


class _Claim(NamedTuple):
    """One campaign's part in a division; amounts are micros above its base."""

    member: _Member
    line: _Line
    base: int
    weight: int
    """0: it gets nothing new."""


class Pools:
    """All pools that one agent knows. Pure: wall times come in, in ms, and never decide an amount."""

    def __init__(self) -> None:
        self._pools: dict[PoolKey, _Pool] = {}
        self._campaigns = 0
        self._sequence = 0
        self.refused: Counter[Refusal] = Counter()
        """Reports by reason."""
        self.taken = 0
        """Reports that were."""

    def status(self) -> dict[str, int]:
        """How much is known: pools, of which with a document, and campaigns."""
        known = sum(pool.account is not None for pool in list(self._pools.values()))  # may be asked by another thread
        return {"pools": len(self._pools), "known_pools": known, "campaigns": self._campaigns}

    # In

    def take_account(self, key: str, account: Account | None) -> bool:
        """The latest document of this id (None: deleted). False: there are `MAX_POOLS` already."""
        kinds = [(PoolKind.BALANCE, AccountBalance), (PoolKind.SHARED_BUDGET, SharedBudget)]
        for kind, document in kinds:
            pool = self._pools.get((kind, key))
            if isinstance(account, document):
                pool = pool or self._new_pool((kind, key))
                if pool is None:
                    return False
                pool.account = account
                for member in pool.members.values():
                    _note_baseline(account, member)
            elif pool is not None:  # an id has one document, of one kind
                pool.account = None
        return True

    def take_report(self, report: SpendReport, sent_ms: int, now_ms: int) -> Refusal | None:
        """A report that was sent then, by the record's timestamp. Returns why it leads to no allowance, if so.

        It is remembered all the same, for a document may come later.
        """
        refusal = self._take_report(report, min(sent_ms, now_ms), now_ms)
        if refusal is None:
            self.taken += 1
        else:
            self.refused[refusal] += 1
        return refusal

    def _take_report(self, report: SpendReport, sent_ms: int, now_ms: int) -> Refusal | None:
        key = (report.pool, report.pool_id)
        pool = self._pools.get(key) or self._new_pool(key)
        if pool is None:
            return Refusal.TOO_MANY
        member = pool.members.get(report.campaign_id)
        if member is None:
            if self._campaigns >= MAX_CAMPAIGNS:
                return Refusal.TOO_MANY
            self._campaigns += 1
            member = pool.members[report.campaign_id] = _Member(report)
        elif report.sequence <= member.report.sequence:
            return Refusal.STALE
        pool.heard(now_ms)
        member.take(report, sent_ms, now_ms)
        _note_baseline(pool.account, member)
        return _refusal(pool.account, member)

    def _new_pool(self, key: PoolKey) -> _Pool | None:
        if len(self._pools) >= MAX_POOLS:
            return None
        return self._pools.setdefault(key, _Pool())

    # Out

    def due(self, now_ms: int) -> list[Allowance]:
        """What is to be told now: limits that have moved, and all of them every `REPEAT_MS`. Ask about every 5 s."""
        self._sequence = max(now_ms, self._sequence + 1)
        told: list[Allowance] = []
        for pool in self._pools.values():
            is_live = now_ms - pool.heard_ms < SETTLE_MS and now_ms >= pool.speaks_ms
            if not is_live or pool.account is None:
                continue
            sound = [member for member in pool.members.values() if _refusal(pool.account, member) is None]
            _lapse(sound, now_ms)
            if isinstance(pool.account, SharedBudget):
                told += self._shared(pool.account, sound, now_ms)
            else:
                told += self._balance(pool.account, sound, now_ms)
        return told

    def _shared(self, budget: SharedBudget, sound: list[_Member], now_ms: int) -> Iterable[Allowance]:
        weights = _weights(sound, now_ms)
        burn = _burn(sound, now_ms)
        for day in sorted({member.report.day_start_ms for member in sound}):
            claims = [
                _Claim(m, m.lines[day], 0, weights.get(m.report.campaign_id, 0) if m.report.day_start_ms == day else 0)
                for m in sound
                if day in m.lines
            ]
            # Campaigns for which this day has yet to begin will want their share.
            coming = sum(weights.get(m.report.campaign_id, 0) for m in sound if m.report.day_start_ms < day)
            left = budget.daily_micros - sum(claim.line.spend for claim in claims)
            for claim, limit in _divided(budget.daily_micros, claims, coming):
                allowance = Allowance(
                    campaign_id=claim.member.report.campaign_id,
                    pool=PoolKind.SHARED_BUDGET,
                    pool_id=budget.shared_budget_id,
                    currency=budget.currency,
                    limit_micros=_bounded(limit),
                    day_start_ms=day,
                    left_micros=_bounded(left),
                    pool_micros=budget.daily_micros,
                    burn_micros_per_h=burn,
                    baseline_micros=_bounded(limit),
                    as_of_ms=self._sequence,
                    sequence=self._sequence,
                )
                yield from self._told(claim, allowance, budget.daily_micros, now_ms)

    def _balance(self, account: AccountBalance, sound: list[_Member], now_ms: int) -> Iterable[Allowance]:
        weights = _weights(sound, now_ms)
        burn = _burn(sound, now_ms)
        total = account.cash_micros + account.grant_micros
        claims = [
            _Claim(member, member.lines[0], member.baseline[1], weights.get(member.report.campaign_id, 0))
            for member in sound
            if member.baseline
        ]
        left = total - sum(claim.line.spend - claim.base for claim in claims)
        for claim, limit in _divided(total, claims):
            allowance = Allowance(
                campaign_id=claim.member.report.campaign_id,
                pool=PoolKind.BALANCE,
                pool_id=account.account_id,
                currency=account.currency,
                limit_micros=_bounded(limit),
                left_micros=_bounded(left),
                burn_micros_per_h=burn,
                baseline_micros=_bounded(claim.base),
                as_of_ms=account.as_of_ms,
                sequence=self._sequence,
            )
            yield from self._told(claim, allowance, total, now_ms)

    def _told(self, claim: _Claim, allowance: Allowance, total: int, now_ms: int) -> Iterable[Allowance]:
        """The allowance, if it says something new or it is time to repeat it; then it is a promise."""
        member, before = claim.member, claim.member.told
        is_new = before is None or (before.day_start_ms, before.currency) != (
            allowance.day_start_ms,
            allowance.currency,
        )
        if before is not None and not is_new:
            has_moved = abs(allowance.limit_micros - before.limit_micros) > max(0, total) // STEPS
            has_other_base = allowance.pool is PoolKind.BALANCE and allowance.as_of_ms != before.as_of_ms
            is_new = has_moved or has_other_base or now_ms - member.told_ms >= REPEAT_MS
        if is_new:
            member.told, member.told_ms = allowance, now_ms
            claim.line.tell(allowance.sequence, allowance.limit_micros)
            yield allowance


def _refusal(account: Account | None, member: _Member) -> Refusal | None:
    report = member.report
    if account is None:
        return Refusal.UNKNOWN_POOL
    if report.currency != account.currency:
        return Refusal.OTHER_CURRENCY
    if isinstance(account, SharedBudget):
        if report.advertiser_id != account.advertiser_id:
            return Refusal.OTHER_ADVERTISER
        is_whole = day_bounds(report.day_start_ms, account.time_zone)[0] == report.day_start_ms
        return None if is_whole else Refusal.OTHER_DAY
    is_known = member.baseline is not None and member.baseline[0] == account.as_of_ms
    return None if is_known else Refusal.BEFORE_BALANCE


def _note_baseline(account: Account | None, member: _Member) -> None:
    """Spend since ever as of the balance: as it was told back, or else from the first report that is late enough."""
    report = member.report
    if not isinstance(account, AccountBalance) or (member.baseline or (-1,))[0] == account.as_of_ms:
        return
    if report.baseline_as_of_ms == account.as_of_ms:
        member.baseline = (account.as_of_ms, report.baseline_micros)
    elif report.at_ms >= account.as_of_ms:
        member.baseline = (account.as_of_ms, _spend_as_of(report, account.as_of_ms))


def _spend_as_of(report: SpendReport, at_ms: int) -> int:
    """Spend since ever some time before the report: as evenly as it knows, and no earlier than its day's begin.

    Balances are stated after the fact: what was spent since is in the report, by the last hour and by the day.
    """
    ago_ms = max(0, report.at_ms - at_ms)
    today = max(0, report.day_spend_micros)
    if at_ms <= report.day_start_ms:
        return report.spend_micros - today
    if ago_ms <= HOUR_MS:
        since = report.spend_last_hour_micros * ago_ms // HOUR_MS
    else:
        since = today * ago_ms // max(ago_ms, report.at_ms - report.day_start_ms)
    return report.spend_micros - min(since, today)


def _lapse(members: list[_Member], now_ms: int) -> None:
    for member in members:
        if now_ms - member.heard_ms >= LAPSE_MS:
            for line in member.lines.values():
                line.promises.clear()


def _weights(members: list[_Member], now_ms: int) -> dict[str, int]:
    """What each campaign that was heard of lately weighs, at least 1."""
    demands = {
        member.report.campaign_id: max(0, member.report.demand_micros_per_h)
        for member in members
        if now_ms - member.heard_ms < SILENT_MS
    }
    known = [demand for demand in demands.values() if demand]
    unknown = max(1, sum(known) // len(known) // UNKNOWN_PART) if known else 1
    return {campaign: demand or unknown for campaign, demand in demands.items()}


def _burn(members: list[_Member], now_ms: int) -> int:
    heard = [member.report for member in members if now_ms - member.heard_ms < HOUR_MS]
    return min(MOST, sum(max(0, report.spend_last_hour_micros) for report in heard))


def _divided(total: int, claims: list[_Claim], coming: int = 0) -> list[tuple[_Claim, int]]:
    """Limits of those with a weight. Promises, these among them, add up to `total` at most, if they did before."""
    speaking = [claim for claim in claims if claim.weight]
    promised = sum(claim.line.promised - claim.base for claim in claims)
    gone = sum((c.line.spend if c.weight else c.line.promised) - c.base for c in claims)
    left, weights = max(0, total - gone), coming + sum(claim.weight for claim in speaking)
    wanted = [(claim, claim.line.spend + left * claim.weight // weights) for claim in speaking]
    if promised <= total:
        wanted = [(claim, _eased(claim.line, want)) for claim, want in wanted]
    more = sum(max(0, want - claim.line.promised) for claim, want in wanted)
    free = min(more, max(0, total - promised))
    return [
        (c, want if want <= c.line.promised else c.line.promised + (want - c.line.promised) * free // more)
        for c, want in wanted
    ]


def _eased(line: _Line, want: int) -> int:
    """Down only part of the way."""
    latest = line.promises[-1].limit if line.promises else want
    return want + (latest - want) * (EASE - 1) // EASE if latest > want else want


def _bounded(micros: int) -> int:
    return max(-MOST, min(MOST, micros))
