"""A live worker deletes the checkpoint that a what-if beside it has chosen, before it is read."""

from pathlib import Path
from typing import Any

import pytest

from streams.errors import CheckpointGone
from streams.jobs import replay_steps
from streams.jobs.replay_start import empty_state
from streams.jobs.replay_steps import STARTS, replay_changed
from streams.jobs.replay_what_if import Origin, reach_ms, state_of
from streams.state.checkpoint import decode_manifest
from tests.unit.test_replay_partition import EVER, RULES, Lived, Range, course_of


async def chosen(lived: Lived) -> Origin:
    newest = max(decode_manifest(data).newest_ms for data in lived.store.named[0].values())
    _, _, (origin,) = await course_of(lived, RULES, Range(newest + reach_ms(RULES) + 1, EVER.to_ms))
    assert origin.start.checkpoint == "c/11"
    return origin


@pytest.mark.parametrize("what", ["manifest", "segments"])
async def test_what_has_gone_is_told_apart_from_other_failures(what: str) -> None:
    lived = Lived(5)
    origin = await chosen(lived)
    assert (await state_of(lived.store, origin, empty_state(0, 1, 1, RULES))).seq == 11
    if what == "manifest":
        del lived.store.named[0]["c/11"]
    else:
        lived.store.data.clear()
    with pytest.raises(CheckpointGone, match=r"c/11 has been deleted meanwhile"):
        await state_of(lived.store, origin, empty_state(0, 1, 1, RULES))


@pytest.mark.parametrize("gone", [0, STARTS - 1, STARTS])
async def test_another_is_chosen_then_and_not_for_ever(gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    async def run(*asked_for: Any) -> str:
        asked.append(asked_for)
        if len(asked) <= gone:
            raise CheckpointGone("c/1 has been deleted meanwhile; begin the run anew")
        return "done"

    monkeypatch.setattr(replay_steps, "_replay", run)
    task: Any = (Path("settings"), "plan", "change", "runs", "tell")
    if gone < STARTS:
        assert await replay_changed(*task) == "done"  # type: ignore[comparison-overlap]
    else:
        with pytest.raises(CheckpointGone, match="begin the run anew"):
            await replay_changed(*task)
    assert asked == [task] * min(gone + 1, STARTS)
