"""What a confirmed tick tells others, as records: dead letters, alerts, controls, spend reports.

All of it may be sent twice, and carries what tells so: a letter its record's place, the others their `sequence`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from streams.ports import Outgoing
from streams.signals import Control, Signal, SpendReport
from streams.state.forwarding import Forwarded
from streams.state.letters import letter_message
from streams.state.partition import Output
from streams.topics import ALERTS, EVIDENCE, FLAGS, PACING, SPENDS, VERDICTS
from streams.verdicts import Flag, Verdict, encode_evidence

Told = Signal | Flag | Verdict


def outgoing(output: Output, sequence: int) -> Iterator[tuple[Any, Outgoing]]:
    """Each record with what it is about: of equal ones only the latest need be sent."""
    for letter in output.dead_letters:
        yield (letter.topic, letter.partition, letter.offset), letter_message(letter)
    for number, signal in enumerate(output.signals):
        if isinstance(signal, Forwarded):
            yield (EVIDENCE, sequence, number), _evidence(signal, sequence)
        elif isinstance(signal, Verdict):
            yield _about(signal), Outgoing(VERDICTS, signal.to_partition, None, msgspec.json.encode(signal))
        else:
            yield _about(signal), _message(msgspec.structs.replace(signal, sequence=sequence))


def _about(signal: Told) -> tuple[Any, ...]:
    if isinstance(signal, Flag):
        return (FLAGS, signal.flag_id, signal.state)
    if isinstance(signal, Verdict):
        return (VERDICTS, signal.rule, signal.source, signal.clicks)
    if isinstance(signal, Control):
        return (PACING, signal.campaign_id)
    if isinstance(signal, SpendReport):
        return (SPENDS, signal.pool, signal.pool_id, signal.campaign_id)
    return (ALERTS, signal.alert_id, signal.state, signal.changed_ms)


def _evidence(forwarded: Forwarded, sequence: int) -> Outgoing:
    batch = msgspec.structs.replace(forwarded.batch, sequence=sequence)
    return Outgoing(EVIDENCE, forwarded.to_partition, None, encode_evidence(batch))


def _message(signal: Signal | Flag) -> Outgoing:
    if isinstance(signal, Control):
        topic, key = PACING, signal.campaign_id
    elif isinstance(signal, Flag):
        topic, key = FLAGS, signal.campaign_id or signal.event
    elif isinstance(signal, SpendReport):
        topic, key = SPENDS, signal.pool_id
    else:
        topic, key = ALERTS, signal.campaign_id or signal.cause
    return Outgoing(topic, None, key.encode(), msgspec.json.encode(signal))
