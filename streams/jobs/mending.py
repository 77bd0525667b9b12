"""How a dead letter's document becomes the event that its producer meant: mend files in TOML, in the way of mappings.

    name = "clicks of app 7.2"
    [[events]]                      # of which input, and which documents: the first whose `when` holds
    input = "clicks"
    when = { app_version = "7.2" }  # left out: all
    [events.fields]                 # what is set anew, as in a mapping file; columns are the document's own fields
    event_time_ms = { column = "ts", time = "epoch_s" }
    click_type = { column = "kind", values = { btn = "button", "*" = "other" } }
    impression_id = "impressionId"
    "experiments.0.id" = { constant = "price" }

Everything else of the document stays as it is; a value that comes to nothing takes its field out. An event never counts
twice: it keeps its id where it has one. Where a mend makes the id, or moves the event to another campaign (and thereby
to the partition that knows its id), a letter that was sent before is not sent once more.
"""

import copy
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from streams.errors import ConfigurationError
from streams.events import Input
from streams.jobs.identity import ADDRESS
from streams.jobs.mapping import Condition, EventSpec, condition_of, holds
from streams.jobs.mapping_targets import Document, Target, put, target_of
from streams.jobs.mapping_values import Make, Misfit, ValueSpec, columns_of, maker, problems_of_value
from streams.records import DeadLetter
from streams.topics import INPUT_TOPICS, partition_of

CAMPAIGN: Final = "campaign_id"
EVENT_ID: Final = "event_id"


class MendSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mend file."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    events: Annotated[tuple[EventSpec, ...], Meta(min_length=1, max_length=16)]
    description: str = ""


class _Recipe(NamedTuple):
    topic: str
    when: tuple[Condition, ...]
    fields: tuple[tuple[Target, Make], ...]


class Mend:
    """A checked mend file."""

    def __init__(self, spec: MendSpec, origin: str = "") -> None:
        """Checks the whole specification.

        Raises:
            ConfigurationError: every fault, each with its field.
        """
        self.name = spec.name
        compiled = [_compile(event, f"events[{index}]") for index, event in enumerate(spec.events)]
        if problems := [problem for _, wrong in compiled for problem in wrong]:
            raise ConfigurationError(f"mend {origin or spec.name}: {'; '.join(problems)}; mend the file")
        self._recipes = [recipe for recipe, _ in compiled]

    def mended(self, letter: DeadLetter, partitions: int) -> DeadLetter | str:
        """The letter with the document that was meant, in the partition of its campaign; or why there is none."""
        try:
            document = msgspec.json.decode(letter.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return "no document: a mend changes fields, and this cannot be read as JSON"
        if not isinstance(document, dict):
            return "no document: a mend changes fields, and this is no JSON object"
        recipe = next((r for r in self._recipes if r.topic == letter.topic and _fits(r, document)), None)
        if recipe is None:
            return "none of the mend's events: no input and condition fits"
        sets = {target.path[0] for target, _ in recipe.fields}
        if letter.redrives and sets & {EVENT_ID, CAMPAIGN}:
            return f"sent again before, and the mend sets {EVENT_ID} or {CAMPAIGN}: under another it would count twice"
        if EVENT_ID in sets and document.get(EVENT_ID):
            return f"it has an {EVENT_ID}: an event keeps its id; take {EVENT_ID} out of the mend"
        try:
            changed = _changed(recipe, document)
        except Misfit as misfit:
            return f"does not fit the mend: {misfit}"
        value = msgspec.json.encode(changed)
        found = msgspec.structs.replace(letter, value=value, value_bytes=len(value))
        return _at_home(found, changed, partitions) if CAMPAIGN in sets else found


def read_mend(path: Path) -> Mend:
    """Reads a mend file.

    Raises:
        ConfigurationError: it is absent, no TOML, or wrong; the message names the fields.
    """
    try:
        return Mend(msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), MendSpec), path.name)
    except OSError as error:
        raise ConfigurationError(f"mend {path}: {error.strerror}; give a file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"mend {path}: is no TOML ({error}); mend the file") from None
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"mend {path}: {error}; mend the file") from None


def _compile(event: EventSpec, where: str) -> tuple[_Recipe, list[str]]:
    problems: list[str] = []
    fields = []
    for name, given in event.fields.items():
        value = given if isinstance(given, ValueSpec) else ValueSpec(column=given)
        target = target_of(event.input, name)
        place = f"{where}.fields.{name}"
        if isinstance(target, str):
            problems.append(f"{place}: {target}")
        elif name == ADDRESS:
            problems.append(f"{place}: is of files only; an event carries a pseudonym")
        elif any(column.startswith("@") for column in columns_of(value)):
            problems.append(f"{place}: @file and @line are of files only; a letter has neither")
        elif wrong := [f"{'.'.join(filter(None, (place, at)))}: {why}" for at, why in problems_of_value(value, target)]:
            problems += wrong
        else:
            fields.append((target, maker(value, target, frozenset())))
    if not event.fields:
        problems.append(f"{where}.fields: is needed")
    when = tuple(condition_of(column, given) for column, given in event.when.items())
    return _Recipe(INPUT_TOPICS[Input(event.input)], when, tuple(fields)), problems


def _fits(recipe: _Recipe, document: Document) -> bool:
    return all(holds(condition, document) for condition in recipe.when)


def _changed(recipe: _Recipe, document: Document) -> Document:
    made: list[tuple[Target, object]] = []
    for target, make in recipe.fields:
        try:
            made.append((target, make(document)))
        except Misfit as misfit:
            raise Misfit(f"{'.'.join(map(str, target.path))}: {misfit}") from None
    changed = copy.deepcopy(document)  # every value is made of the document as it was
    for target, value in made:
        try:
            put(changed, target.path, value)
        except (TypeError, AttributeError, KeyError):
            raise Misfit(f"{'.'.join(map(str, target.path))}: its place holds something else") from None
        if value is None and len(target.path) == 1:
            del changed[str(target.path[0])]
    return changed


def _at_home(letter: DeadLetter, document: dict[str, Any], partitions: int) -> DeadLetter:
    """An event counts, and is known by its id, in the partition of its campaign."""
    campaign = document.get(CAMPAIGN)
    if not isinstance(campaign, str) or partitions < 1:
        return letter
    return msgspec.structs.replace(letter, key=campaign.encode(), partition=partition_of(campaign, partitions))
