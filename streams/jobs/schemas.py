"""Writes the JSON Schemas of what comes in and goes out from the types: `python -m streams.jobs.schemas`.

The committed files in schemas/ are these documents, byte for byte; a test keeps them so.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.accounts import Account
from streams.campaigns import CampaignSettings
from streams.events import EVENT_TYPES
from streams.records import DeadLetter
from streams.signals import Alert, Allowance, Control, LiveSession
from streams.verdicts import Flag, Review, Verdict

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMAS_DIRECTORY: Final = Path(__file__).resolve().parents[2] / "schemas"

DEAD_LETTER_FIELDS: Final[dict[str, str]] = {
    "topic": "Topic that the record was read from.",
    "partition": "Partition that the record was read from.",
    "offset": "Offset at which the record stood.",
    "log_epoch": "Epoch of that log: it is raised whenever the topics are created anew.",
    "timestamp_ms": "The record's own timestamp, epoch ms UTC.",
    "entry": "Entry of the ledger: rejected or late.",
    "reason": "Why, as the metric's label says it.",
    "path": "Where in the document; `$` is the whole.",
    "key": "The record's key, base64; null: it had none.",
    "value": "The record's value, byte for byte, base64; null: a tombstone.",
    "value_bytes": "Length of the value as it was, bytes; longer than `value`: cut, and not to be redriven.",
    "redrives": "How often it was sent again.",
}


DOCUMENTS: Final[dict[str, Any]] = {
    "campaign_settings": CampaignSettings,
    "account": Account,
    "live_session": LiveSession,
    "allowance": Allowance,
    "control": Control,
    "alert": Alert,
    "flag": Flag,
    "verdict": Verdict,
    "review": Review,
    "dead_letter": DeadLetter,
}
"""What stands beside the events, by the name of its file."""


def schema_documents() -> dict[str, bytes]:
    """Every schema file: its path below schemas/, and its bytes."""
    kinds: dict[str, Any] = {f"events/{i}.json": kind for i, kind in EVENT_TYPES.items()}
    kinds |= {f"{name}.json": kind for name, kind in DOCUMENTS.items()}
    return {path: _document(kind) for path, kind in kinds.items()}


def write_schemas(directory: Path = SCHEMAS_DIRECTORY) -> list[Path]:
    """Writes every schema below `directory`, and returns the paths written."""
    written = []
    for name, document in schema_documents().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document)
        written.append(path)
    return written


def _document(kind: Any) -> bytes:
    schema = msgspec.json.schema(kind)
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
        _describe_tag(definition.get("properties", {}))
    if kind is DeadLetter:
        _describe(schema["$defs"]["DeadLetter"]["properties"], DEAD_LETTER_FIELDS)
    title = getattr(kind, "__name__", "Account")  # a union has no name
    text = json.dumps({"$schema": DIALECT, "title": title, **schema}, indent=2, sort_keys=True)
    return f"{text}\n".encode()


def _describe_tag(properties: dict[str, dict[str, object]]) -> None:
    """What tells the kinds of a union apart is no field of the type."""
    for schema in properties.values():
        if len(schema.get("enum", ())) == 1 and "description" not in schema:  # type: ignore[arg-type]
            schema["description"] = "What this document is."


def _describe(properties: dict[str, dict[str, object]], descriptions: dict[str, str]) -> None:
    for name, text in descriptions.items():
        properties[name]["description"] = text


def main() -> int:
    """Writes the committed schemas."""
    for path in write_schemas():
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
