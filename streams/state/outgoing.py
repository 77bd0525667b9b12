"""What a confirmed tick tells others, as records: dead letters, alerts, controls, spend reports.

All of it may be sent twice, and carries what tells so: a letter its record's place, the others their `sequence`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from streams.ports import Outgoing
from streams.signals import Control, Signal, SpendReport
from streams.state.letters import letter_message
from streams.state.partition import Output
from streams.topics import ALERTS, PACING, SPENDS


def outgoing(output: Output, sequence: int) -> Iterator[tuple[Any, Outgoing]]:
    """Each record with what it is about: of equal ones only the latest need be sent."""
    for letter in output.dead_letters:
        yield (letter.topic, letter.partition, letter.offset), letter_message(letter)
    for signal in output.signals:
        yield _about(signal), _message(msgspec.structs.replace(signal, sequence=sequence))


def _about(signal: Signal) -> tuple[Any, ...]:
    if isinstance(signal, Control):
        return (PACING, signal.campaign_id)
    if isinstance(signal, SpendReport):
        return (SPENDS, signal.pool, signal.pool_id, signal.campaign_id)
    return (ALERTS, signal.alert_id, signal.state, signal.changed_ms)


def _message(signal: Signal) -> Outgoing:
    if isinstance(signal, Control):
        topic, key = PACING, signal.campaign_id
    elif isinstance(signal, SpendReport):
        topic, key = SPENDS, signal.pool_id
    else:
        topic, key = ALERTS, signal.campaign_id or signal.cause
    return Outgoing(topic, None, key.encode(), msgspec.json.encode(signal))
