"""A deterministic scheduler: coroutines stepped one await at a time, in an order that a seed decides. No asyncio."""

import types
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any


@types.coroutine
def pause() -> Generator[None, None, None]:
    """The one thing to wait for: being stepped again."""
    yield


async def pauses(count: int) -> None:
    """Waits for `count` steps."""
    for _ in range(count):
        await pause()


class Task:
    """A coroutine that somebody owns."""

    def __init__(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        self.name = name
        self.is_done = False
        self._coroutine = coroutine

    def step(self) -> None:
        """Runs to the next await. What it raises is the caller's."""
        try:
            self._coroutine.send(None)
        except StopIteration:
            self.is_done = True

    def drop(self) -> None:
        """Ends it where it stands: nothing behind its await happens."""
        self.is_done = True
        self._coroutine.close()


class Scheduler:
    """Steps one runnable task at a time."""

    def __init__(self, rng: Random, runnable: Callable[[], list[Task]]) -> None:
        self.rng = rng
        self.steps = 0
        self._runnable = runnable

    def step(self) -> None:
        """One step of one task."""
        self.steps += 1
        tasks = self._runnable()
        if tasks:
            self.rng.choice(tasks).step()
