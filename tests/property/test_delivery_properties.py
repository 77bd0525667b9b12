"""Over any history of alerts, commands, outages and crashes: nothing pushed is lost, caps hold, a rebuild goes on."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.signals import Alert, AlertState
from streams.stages.delivery.dispatcher import Dispatcher
from streams.stages.delivery.local_time import HOUR_MS, next_slot_ms, quiet_until_ms
from streams.stages.delivery.messages import Action, AlertCommand, Message, MessageKind, Outcome, Receipt, receipt_of
from streams.stages.delivery.plan import DeliveryPlan, RoutePlan
from tests.support.delivery import MINUTE_MS, NOON_MS, alert

CAP = 2
DAY_MS = 24 * HOUR_MS
PLAN = DeliveryPlan(
    routes=(
        RoutePlan(name="default", hourly_cap=CAP, digest="hourly"),
        RoutePlan(name="other", hourly_cap=CAP, digest_hour=7, time_zone="Asia/Shanghai"),
    ),
    lookback_ms=30 * DAY_MS,
    max_under_way=2,
    max_message_alerts=4,
)


@dataclass
class World:
    """A dispatcher with its logs and two receivers that may be out of reach."""

    now_ms: int = NOON_MS
    alerts: list[Alert] = field(default_factory=list)
    commands: list[AlertCommand] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    in_hand: list[Message] = field(default_factory=list)
    received: list[tuple[Message, int]] = field(default_factory=list)
    dispatcher: Dispatcher = field(default_factory=lambda: Dispatcher(PLAN))
    number: int = 0

    def changes(self, some: list[int], is_pushed: bool, is_quiet: bool) -> None:
        """Several at once, of different causes."""
        for name in some:
            self.change(name, is_pushed, name % 5, is_quiet)

    def change(self, name: int, is_pushed: bool, cause: int, is_quiet: bool) -> None:
        """The alert fires, or, if it fires, ends."""
        self.number += 1
        identity = f"a{name}"
        last = next((a for a in reversed(self.alerts) if a.alert_id == identity), None)
        if last is not None and last.state is AlertState.RESOLVED:
            return
        state = AlertState.RESOLVED if last else AlertState.FIRING
        kept = {"cause": last.cause, "is_pushed": last.is_pushed} if last else {"cause": f"k{cause}"}
        more = {"is_pushed": is_pushed, **kept, "routes": ("other",) if name % 3 == 0 else ()}
        if is_quiet:
            more |= {"quiet_begins": "22:00", "quiet_ends": "06:00", "time_zone": "Asia/Shanghai"}
        changed = alert(identity, state, self.now_ms, campaign=f"c{name}", sequence=self.number, **more)  # type: ignore[arg-type]
        self.alerts.append(changed)
        self.dispatcher.take_alert(changed, self.now_ms)

    def command(self, name: int, is_ack: bool, hours: int) -> None:
        until_ms = None if is_ack else self.now_ms + hours * HOUR_MS
        action = Action.ACK if is_ack else Action.SNOOZE
        said = AlertCommand(action=action, alert_id=f"a{name}", until_ms=until_ms, by="x", at_ms=self.now_ms)
        self.commands.append(said)
        self.dispatcher.take_command(said)

    def turn(self) -> None:
        for message in self.dispatcher.due(self.now_ms):
            if not message.is_recorded:
                self.receipts.append(receipt_of(message, Outcome.COMPOSED, self.now_ms))
            self.in_hand.append(message)

    def deliver(self, is_recorded: bool = True) -> None:
        """The receivers answer; perhaps the receipts do not make it into the log."""
        for message in self.in_hand:
            self.received.append((message, self.now_ms))
            if is_recorded:
                receipt = receipt_of(message, Outcome.DELIVERED, self.now_ms)
                self.receipts.append(receipt)
                self.dispatcher.take_receipt(receipt)
        self.in_hand.clear()

    def rebuilt(self) -> Dispatcher:
        found = Dispatcher(PLAN)
        for command in self.commands:
            found.take_command(command)
        for receipt in self.receipts:
            found.take_receipt(receipt)
        for each in self.alerts:
            found.take_alert(each, self.now_ms)
        return found

    def crash(self) -> None:
        self.in_hand.clear()
        self.dispatcher = self.rebuilt()

    def settle(self) -> None:
        """Three days in which all receivers answer."""
        for _ in range(6 * 24 * 3):
            self.turn()
            self.deliver()
            self.now_ms += 10 * MINUTE_MS


names = st.integers(0, 11)
steps = st.one_of(
    st.tuples(
        st.just("changes"),
        st.lists(names, min_size=1, max_size=8),
        st.sampled_from([True, True, False]),
        st.sampled_from([False, False, True]),
    ),
    st.tuples(st.just("command"), names, st.booleans(), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1_000, 25_000, 10 * MINUTE_MS, 50 * MINUTE_MS, 5 * HOUR_MS])),
    st.tuples(st.just("deliver"), st.just(True)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("crash_before_sending")),
    st.tuples(st.just("crash_after_sending")),
)
histories = st.lists(steps, min_size=5, max_size=60)


def played(history: list[tuple[object, ...]]) -> World:
    world = World()
    for name, *arguments in history:
        if name == "wait":
            world.now_ms += arguments[0]  # type: ignore[operator]
        elif name == "crash_before_sending":
            world.turn()
            world.crash()
        elif name == "crash_after_sending":
            world.turn()
            world.deliver(is_recorded=False)
            world.crash()
        else:
            getattr(world, str(name))(*arguments)
    return world


@settings(max_examples=150, deadline=None)
@given(histories)
def test_every_alert_is_told_or_silenced_and_so_is_its_end(history: list[tuple[object, ...]]) -> None:
    world = played(history)
    world.settle()
    told = {(message.route, a.alert_id, a.state) for message, _ in world.received for a in message.alerts}
    silenced = {c.alert_id for c in world.commands if c.action is Action.ACK}
    latest = {a.alert_id: a for a in world.alerts}
    for each in latest.values():
        route = "other" if each.routes else "default"
        assert (route, each.alert_id, each.state) in told or each.alert_id in silenced
    assert {(route, alert_id) for route, alert_id, _ in told} <= {
        ("other" if a.routes else "default", a.alert_id) for a in world.alerts
    }


@settings(max_examples=150, deadline=None)
@given(histories)
def test_what_is_told_twice_is_told_under_the_same_id_and_in_the_same_words(history: list[tuple[object, ...]]) -> None:
    world = played(history)
    world.settle()
    by_pair: dict[tuple[str, str, str], set[str]] = {}
    words: dict[str, set[str]] = {}
    for message, _ in world.received:
        words.setdefault(message.message_id, set()).add(message.text)
        for each in message.alerts:
            by_pair.setdefault((message.route, each.alert_id, each.state), set()).add(message.message_id)
    assert {pair: ids for pair, ids in by_pair.items() if len(ids) > 1} == {}
    assert all(len(texts) == 1 for texts in words.values())


@settings(max_examples=150, deadline=None)
@given(histories)
def test_no_receiver_is_pushed_more_messages_in_an_hour_than_its_cap(history: list[tuple[object, ...]]) -> None:
    world = played(history)
    world.settle()
    composed = {
        (r.route, r.message_id, r.composed_ms // HOUR_MS)
        for r in world.receipts
        if r.kind in (MessageKind.PUSH, MessageKind.SUMMARY)
    }
    assert all(count <= CAP for count in Counter((route, hour) for route, _, hour in composed).values())


@settings(max_examples=150, deadline=None)
@given(histories)
def test_a_rebuild_from_the_logs_goes_on_as_if_nothing_had_happened(history: list[tuple[object, ...]]) -> None:
    world = played(history)
    twin = world.rebuilt()
    twin.is_in_hand((message.route, message.message_id) for message in world.in_hand)
    for _ in range(6 * 24):
        mine, theirs = world.dispatcher.due(world.now_ms), twin.due(world.now_ms)
        assert theirs == mine
        for message in mine:
            receipt = receipt_of(message, Outcome.DELIVERED, world.now_ms)
            world.dispatcher.take_receipt(receipt)
            twin.take_receipt(receipt)
        world.now_ms += 10 * MINUTE_MS


@settings(max_examples=150, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_the_order_in_which_logs_are_read_does_not_matter(history: list[tuple[object, ...]], random: object) -> None:
    world = played(history)
    records: list[object] = [*world.alerts, *world.commands, *world.receipts]
    records += records[: len(records) // 2]  # some are redelivered
    random.shuffle(records)  # type: ignore[attr-defined]
    shuffled = Dispatcher(PLAN)
    for record in records:
        if isinstance(record, Alert):
            shuffled.take_alert(record, world.now_ms)
        elif isinstance(record, AlertCommand):
            shuffled.take_command(record)
        elif isinstance(record, Receipt):
            shuffled.take_receipt(record)
    straight = world.rebuilt()
    for _ in range(48):
        world.now_ms += 30 * MINUTE_MS
        mine, theirs = straight.due(world.now_ms), shuffled.due(world.now_ms)
        assert sorted(m.message_id for m in mine) == sorted(m.message_id for m in theirs)


# Clock times

minutes = st.integers(0, 24 * 60 - 1)
zones = st.sampled_from(
    ["UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "No/Where"]
)
years = st.integers(1_700_000_000_000, 1_900_000_000_000)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(minutes, minutes, zones, years)
def test_quiet_hours_end_within_a_day_and_are_over_then(begins: int, ends: int, zone: str, now_ms: int) -> None:
    until_ms = quiet_until_ms(clock(begins), clock(ends), zone, now_ms)
    if until_ms:
        assert now_ms < until_ms <= now_ms + 26 * HOUR_MS
        assert begins != ends


@given(st.integers(0, 23), zones, years)
def test_digests_are_a_day_apart_and_always_ahead(hour: int, zone: str, now_ms: int) -> None:
    slot_ms = next_slot_ms(now_ms, "daily", hour, zone)
    assert now_ms < slot_ms <= now_ms + 26 * HOUR_MS
    assert slot_ms < next_slot_ms(slot_ms, "daily", hour, zone) <= slot_ms + 26 * HOUR_MS
