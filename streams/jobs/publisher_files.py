"""Files about publishers: the shipped risk model, and tables of their statistics (CSV, also gzip)."""

import csv
import gzip
import io
import zlib
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.errors import ConfigurationError
from streams.stages.invalid import publisher_features
from streams.stages.invalid.publisher_features import COLUMN_NAMES, Floats, read_columns
from streams.stages.invalid.publisher_risk import Forest, Model

MODEL_FILE: Final = Path(publisher_features.__file__).parent / "publisher_model.json"
LABEL_COLUMN: Final = "status"
MAX_BYTES: Final = 256 * 1024**2

Rows = list[dict[str, str]]


def shipped_forest() -> Forest:
    """The model of this release.

    Raises:
        ConfigurationError: its file is not there, or not of this release.
    """
    try:
        return Forest(msgspec.json.decode(MODEL_FILE.read_bytes(), type=Model))
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationError(f"{MODEL_FILE}: {error}; install campaign-streams again") from None


def read_table(file: Path) -> tuple[list[str], Rows]:
    """The column names and rows of a CSV with a heading.

    Raises:
        ConfigurationError: it cannot be read, is too large, or holds no columns of publishers.
    """
    reader = csv.DictReader(io.StringIO(_text(file)), restval="")
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        rows = [{name: str(value) for name, value in row.items() if name is not None} for row in reader]
    except csv.Error as error:
        raise ConfigurationError(f"{file}: line {reader.line_num}: {error}; save it as CSV") from None
    if not set(names) & set(COLUMN_NAMES):
        raise ConfigurationError(
            f"{file}: has none of the columns that are scored; give a heading with {', '.join(COLUMN_NAMES[:3])}, …"
        )
    if not rows:
        raise ConfigurationError(f"{file}: holds no publishers; give at least one row below the heading")
    return names, rows


def _text(file: Path) -> str:
    try:
        with file.open("rb") as raw, gzip.open(raw) if file.suffix == ".gz" else raw as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigurationError(f"{file}: larger than {MAX_BYTES:,} bytes; split it")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: is no UTF-8 text; save it as CSV, or as .csv.gz if it is packed") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigurationError(f"{file}: is no whole gzip file; pack it again") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; give a file that can be read") from None


def labelled_columns(file: Path, label: str) -> tuple[Floats, npt.NDArray[np.str_]]:
    """Publishers × `COLUMNS`, and their labels.

    Raises:
        ConfigurationError: the file cannot be read or has no such label.
    """
    names, rows = read_table(file)
    if label not in names:
        raise ConfigurationError(f"{file}: has no column {label!r}; name the labels' column, one of {', '.join(names)}")
    columns = np.stack([read_columns(row)[0] for row in rows])
    return columns, np.array([row[label].strip() for row in rows])
