"""The benchmark's arithmetic: flags against the truth, by a judge that is told what to say."""

from collections.abc import Iterable
from typing import Any

import pytest
import xxhash

from bench.invalid import attacked, judge
from bench.invalid_judging import PipelineJudging
from bench.invalid_limits import Limits
from bench.invalid_scores import INPUT_OF, MEANT, Scores
from streams.events import Input
from streams.invalid import Rule, class_of
from streams.jobs.generate import GeneratedEvent, generate
from streams.jobs.traffic_documents import event_id_of
from streams.jobs.traffic_profile import Attack
from streams.rules import Rules
from streams.verdicts import Flag, FlagState


def event(name: str, attack: str = "", source: Input = Input.CLICKS, at_ms: int = 0, **more: Any) -> GeneratedEvent:
    return GeneratedEvent(source, "c1", f'{{"event_id":"{name}"}}'.encode(), at_ms, at_ms, attack=attack, **more)


def flag(
    name: str, rule: Rule, state: FlagState = FlagState.RAISED, mode: str = "on", source: Input = Input.CLICKS
) -> Flag:
    return Flag(
        flag_id=f"{rule}{name}",
        rule=rule,
        validity=class_of(rule).value,
        mode=mode,
        state=state,
        input=source,
        event=xxhash.xxh3_128_hexdigest(name.encode()),
        event_time_ms=0,
        campaign_id="c1",
    )


def scored(*flags: Flag) -> dict[str, float | int]:
    scores = Scores()
    for number in range(4):
        scores.saw(event(f"bot{number}", "crawler"))
        scores.saw(event(f"farm{number}", "click_farm"))
    for number in range(100):
        scores.saw(event(f"honest{number}"))
    scores.saw(event("honest1", duplicate=True))
    scores.saw(event("seen", "crawler", Input.IMPRESSIONS))
    scores.take(flags)
    return scores.figures()


def test_a_flag_counts_for_the_attack_whose_rule_it_is_by() -> None:
    found = scored(*(flag(f"bot{n}", Rule.DECLARED_BOT) for n in range(3)), flag("honest0", Rule.DECLARED_BOT))
    assert found["attacks.crawler.precision"] == 3 / 4
    assert found["attacks.crawler.recall"] == 3 / 4
    assert found["honest_flagged_share"] == 1 / 100
    assert found["clicks"] == 108
    assert "attacks.click_farm.precision" not in found
    assert found["attacks.click_farm.recall"] == 0


def test_another_attackers_event_counts_neither_for_nor_against() -> None:
    found = scored(flag("bot0", Rule.DECLARED_BOT), flag("farm0", Rule.DECLARED_BOT))
    assert found["attacks.crawler.precision"] == 1
    assert found["attacks.click_farm.recall"] == 0
    assert found["attacks.click_farm.recall_by_any_rule"] == 1 / 4
    assert found["clicks_precision"] == 1


def test_what_is_withdrawn_or_only_observed_or_a_persons_word_does_not_count() -> None:
    found = scored(
        flag("honest0", Rule.DATA_CENTRE),
        flag("honest0", Rule.DATA_CENTRE, FlagState.WITHDRAWN),
        flag("honest1", Rule.DATA_CENTRE, mode="observe"),
        flag("honest2", Rule.REVIEW),
    )
    assert found["honest_flagged_share"] == 0
    assert "clicks_precision" not in found


def test_several_rules_about_one_event_are_one_flagged_event() -> None:
    found = scored(flag("farm0", Rule.DEVICE_FAN_OUT), flag("farm0", Rule.DEVICE_VELOCITY))
    assert found["attacks.click_farm.recall"] == 1 / 4


def test_every_attack_has_rules_that_are_meant_for_it() -> None:
    assert MEANT.keys() == INPUT_OF.keys() == set(Attack)
    assert all(MEANT.values())


def clicked(user: str, publisher: str, attack: str = "", **more: Any) -> GeneratedEvent:
    value = f'{{"event_id":"e","user_id":"{user}","publisher_id":"{publisher}"}}'.encode()
    return GeneratedEvent(Input.CLICKS, "c1", value, 0, 0, attack=attack, **more)


def test_what_could_be_known_of_the_botnet_is_told() -> None:
    limits = Limits()
    assert limits.figures() == {}
    botnet = [clicked("b1", "p1", "botnet"), clicked("b2", "p1", "botnet"), clicked("b2", "p2", "botnet")]
    honest = [clicked("u1", "p1"), clicked("u1", "p3"), clicked("u2", "p3"), clicked("u3", "p2")]
    others = [clicked("x", "p2", "crawler"), clicked("b1", "p1", "botnet", duplicate=True)]
    for each in (*botnet, *honest, *others):
        limits.saw(each)
    assert limits.figures() == {
        "attacks.botnet.one_click_share": 1 / 2,
        "honest.one_click_share": 2 / 3,
        "attacks.botnet.paid_share": 3 / 6,
    }


class Omniscient:
    """Flags what it was told, at the tick after."""

    def __init__(self, truth: dict[str, Rule]) -> None:
        self.truth = truth
        self.waiting: list[Flag] = []
        self.ticks: list[int] = []

    def feed(self, event: GeneratedEvent) -> None:
        rule = self.truth.get(event.attack)
        if rule is not None and event.input is INPUT_OF[Attack(event.attack)]:
            self.waiting.append(flag(event_id_of(event.value), rule, source=event.input))

    def tick(self, wall_ms: int) -> Iterable[Flag]:
        self.ticks.append(wall_ms)
        told, self.waiting = self.waiting, []
        return told

    def state_bytes(self) -> int:
        return 0


def test_a_judge_that_knows_all_finds_all_and_nothing_else() -> None:
    knows = Omniscient({attack.value: MEANT[attack][0] for attack in Attack})
    scores, count = judge(generate(attacked(1, 0.2), 1), knows)
    found = scores.figures()
    assert count > 20_000
    assert knows.ticks == sorted(set(knows.ticks))
    assert [found[f"attacks.{attack.value}.precision"] for attack in Attack] == [1.0] * len(Attack)
    assert [found[f"attacks.{attack.value}.recall"] for attack in Attack] == [1.0] * len(Attack)
    assert found["honest_flagged_share"] == 0


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_real_pipeline_takes_every_event_of_the_stream(partitions: int) -> None:
    judging = PipelineJudging(Rules(), partitions)
    _, count = judge(generate(attacked(2, 0.03), 2), judging)
    taken = sum(held.consumed() for state in judging.states for held in state.inputs.values())
    counted = sum(
        number for state in judging.states for held in state.inputs.values() for number in held.ledger.values()
    )
    assert taken == counted == count
    assert judging.state_bytes() > 0
