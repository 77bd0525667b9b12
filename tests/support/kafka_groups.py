"""What a broker knows of its consumer groups: who is in them, what each reads, and how far they have committed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.adapters.kafka_client import client_options
from streams.settings import KafkaSettings

SAMPLE_S = 0.1
SETTLED_S = 60.0


class Member(NamedTuple):
    """A member as its coordinator describes it: a new one gets a new id whenever it joins."""

    member_id: str
    client_id: str
    assignment: bytes


class Group(NamedTuple):
    """One group at one moment."""

    state: str
    members: frozenset[Member]
    committed: dict[TopicPartition, int]


Groups = dict[str, Group]


@asynccontextmanager
async def _admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_options(kafka))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _groups(admin: AIOKafkaAdminClient) -> Groups:
    found = {}
    for name, *_ in sorted(await admin.list_consumer_groups()):
        (answer,) = await admin.describe_consumer_groups([name])  # of several aiokafka 0.14 reads the first only
        ((_, _, state, _, _, members, *_),) = answer.groups
        known = frozenset(Member(member[0], member[1], bytes(member[4])) for member in members)
        offsets = await admin.list_consumer_group_offsets(name)
        found[name] = Group(state, known, {tp: each.offset for tp, each in offsets.items()})
    return found


async def settled_groups(kafka: KafkaSettings) -> Groups:
    """All groups, as soon as none with members is on its way."""
    async with _admin(kafka) as admin, asyncio.timeout(SETTLED_S):
        while True:
            found = await _groups(admin)
            if found and all(group.state in ("Stable", "Empty") for group in found.values()):
                return found
            await asyncio.sleep(SAMPLE_S)


async def groups_while(kafka: KafkaSettings, doing: Awaitable[Any]) -> list[Groups]:
    """All groups before, again and again during, and after something."""
    seen = [await settled_groups(kafka)]
    task = asyncio.ensure_future(doing)
    async with _admin(kafka) as admin:
        while not task.done():
            seen.append(await _groups(admin))
            await asyncio.wait([task], timeout=SAMPLE_S)
        await task
        seen.append(await _groups(admin))
    return seen
