"""The rules of the house, as tests: who may import whom, what is pure, how long things are, and what is explained."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STREAMS = ROOT / "streams"
MODULES = sorted(STREAMS.rglob("*.py"))
MAX_MODULE_LINES = 500
MAX_BODY_LINES = 70


def name_of(path: Path) -> str:
    """`streams.state.owner` of its path."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Everything that a module imports, wherever it does: `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


NAMES = [name_of(path) for path in MODULES]
everywhere = pytest.mark.parametrize("path", MODULES, ids=NAMES)


# Imports point down

BASE = (
    *("events", "records", "blocks", "rules", "topics", "errors", "ports"),
    *("documents", "terms", "campaigns", "accounts", "signals", "invalid", "verdicts"),
)
PURE = ("stages", "state")
MAY_IMPORT: dict[str, set[str]] = {
    "events": set(),
    "errors": set(),
    "records": {"events"},
    "blocks": {"records"},
    "topics": {"events"},
    "documents": {"events"},
    "terms": {"events"},
    "campaigns": {"events", "documents", "terms"},
    "accounts": {"events", "documents", "terms"},
    "invalid": {"events"},
    "verdicts": {"events", "documents", "invalid"},
    "signals": {"events", "documents", "terms", "verdicts"},
    "rules": {"events", "records", "invalid"},
    "ports": {"events", "records"},
    "settings": {"errors", "rules"},
    "stages": {*BASE, "state"},
    "state": {*BASE, "stages"},
    "adapters": {*BASE, *PURE, "settings"},
    "console": {*BASE, *PURE, "settings", "adapters"},
    "agents": {*BASE, *PURE, "settings", "adapters", "console"},
    "jobs": {*BASE, *PURE, "settings", "adapters", "agents", "console"},
    "commands": {*BASE, *PURE, "settings", "adapters", "agents", "console", "jobs"},
    "cli": {"commands", "errors"},
}
"""What each part of the package may import besides itself."""


def part_of(module: str) -> str:
    """`state` of `streams.state.owner`; '' is the package itself."""
    return [*module.split("."), ""][1]


def wrong_imports(path: Path) -> set[str]:
    own = part_of(name_of(path))
    if not own:
        return {name for name in imports_of(tree_of(path)) if name.startswith("streams")}
    allowed = {own, *MAY_IMPORT[own]}
    parts = {name: part_of(name) for name in imports_of(tree_of(path)) if name.split(".")[0] == "streams"}
    return {name for name, part in parts.items() if part and not part.startswith("__") and part not in allowed}


@everywhere
def test_imports_point_down(path: Path) -> None:
    assert wrong_imports(path) == set()


def test_every_part_of_the_package_has_its_place() -> None:
    assert {part_of(name) for name in NAMES} - {""} <= MAY_IMPORT.keys()


def test_no_two_parts_need_each_other_but_stages_and_state() -> None:
    circles = {
        frozenset((one, other))
        for one, below in MAY_IMPORT.items()
        for other in below
        if other in MAY_IMPORT and one in MAY_IMPORT[other]
    }
    assert circles == {frozenset(PURE)}


# Purity: no I/O, no clock, no randomness, no logging

PURE_MODULES = [path for path in MODULES if part_of(name_of(path)) in (*PURE, *BASE)]
STANDARD = (
    "bisect collections dataclasses datetime difflib enum functools heapq itertools math operator re struct types"
)
PURE_LIBRARIES = frozenset([*STANDARD.split(" "), "typing", "zoneinfo", "streams", "msgspec", "numpy", "xxhash"]) | {
    "ipaddress",  # parses and joins networks; resolves no name
    "radix",  # longest-prefix lookup, in memory
    "zlib",  # lists are carried compressed; the same bytes give the same text
}
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"})
IMPURE_METHODS = frozenset({"now", "today", "utcnow", "default_rng", "urandom", "getenv", "fromfile", "tofile", "load"})
ALLOWED = {"streams.topics": {"aiokafka"}}
"""The partitioner that all producers share comes from the library that produces."""

purely = pytest.mark.parametrize("path", PURE_MODULES, ids=[name_of(path) for path in PURE_MODULES])


def impure_imports(path: Path) -> set[str]:
    allowed = PURE_LIBRARIES | ALLOWED.get(name_of(path), set())
    return {name for name in imports_of(tree_of(path)) if name.split(".")[0] not in allowed}


def impure_calls(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.add(node.func.id)
        if isinstance(node, ast.Attribute) and (node.attr in IMPURE_METHODS or node.attr == "random"):
            found.add(node.attr)
    return found


@purely
def test_the_core_imports_nothing_that_reaches_the_world(path: Path) -> None:
    assert impure_imports(path) == set()


@purely
def test_the_core_asks_no_clock_no_file_and_no_chance(path: Path) -> None:
    assert impure_calls(tree_of(path)) == set()


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(name_of(p)) == "stages"], ids=str)
def test_nothing_in_the_stages_awaits(path: Path) -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, waits)]


@pytest.mark.parametrize(
    ("source", "imports", "calls"),
    [
        ("import logging", {"logging"}, set()),
        ("def f():\n    from os import path", {"os", "os.path"}, set()),
        ("import numpy as np\nx = np.random.rand()", set(), {"random"}),
        ("from datetime import datetime\nx = datetime.now()", set(), {"now"}),
        ("x = open('f')", set(), {"open"}),
        ("from datetime import datetime\nx = datetime.fromtimestamp(0)", set(), set()),
    ],
)
def test_these_rules_see_what_they_are_to_see(source: str, imports: set[str], calls: set[str], tmp_path: Path) -> None:
    tree = ast.parse(source)
    assert {name for name in imports_of(tree) if name.split(".")[0] not in PURE_LIBRARIES} == imports
    assert impure_calls(tree) == calls


# Sizes


@everywhere
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


def test_no_function_is_too_long() -> None:
    """Counted from its first statement: options of a command are its signature."""
    long = {
        f"{name_of(path)}.{node.name}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.body[0].lineno + 1 > MAX_BODY_LINES
    }
    assert long == set()


# Explanations


def is_enumeration(node: ast.ClassDef) -> bool:
    """Its members say what it is."""
    return any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases)


def is_stub(node: ast.stmt) -> bool:
    """A method of a protocol that only has a signature."""
    body = node.body[0] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
    return isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant) and body.value.value is Ellipsis


def unexplained(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        is_class = isinstance(node, ast.ClassDef)
        if ast.get_docstring(node) is None and not (is_class and is_enumeration(node)) and not is_stub(node):
            yield f"{prefix}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from unexplained(node.body, f"{prefix}.{node.name}")


def test_every_module_says_why_it_exists() -> None:
    silent = {name_of(path) for path in MODULES if path.stat().st_size and ast.get_docstring(tree_of(path)) is None}
    assert silent == set()


def test_everything_public_is_explained() -> None:
    assert {name for path in MODULES for name in unexplained(tree_of(path).body, name_of(path))} == set()


def test_every_test_is_a_sentence() -> None:
    words = re.compile(r"test_\w+(_\w+){2,}")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert words.fullmatch(node.name), f"{path.name}: {node.name}"


# What belongs to one machine or one day

TEXTS = {
    ".py",
    ".md",
    ".sql",
    ".toml",
    ".json",
    ".yml",
    ".yaml",
    ".sh",
    ".cfg",
    ".ini",
    ".txt",
    ".html",
    ".js",
    ".css",
    "",
}
LEFT_OUT = {".git", ".venv", "__pycache__", "node_modules", "build", "dist", "data", "results"}


def is_left_out(name: str) -> bool:
    """What tools make, and what is hidden."""
    is_hidden = name.startswith(".") and name not in (".ci", ".gitignore", ".dockerignore")
    return is_hidden or name in LEFT_OUT or name.endswith((".egg-info", "_cache"))


@cache
def texts() -> list[tuple[Path, str]]:
    """Every text of the tree but this one."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not is_left_out(name)]
        paths = [Path(folder, name) for name in files if not is_left_out(name)]
        found += [path for path in paths if path != Path(__file__) and path.suffix in TEXTS]
    return [(path, path.read_text(encoding="utf-8", errors="replace")) for path in sorted(found)]


def found_in_tree(pattern: str) -> set[str]:
    expression = re.compile(pattern)
    return {
        f"{path.relative_to(ROOT)}: {match.group(0)}" for path, text in texts() if (match := expression.search(text))
    }


def test_no_path_of_one_machine_is_in_the_tree() -> None:
    assert found_in_tree(r"(?<![\w.$}~/-])/(work|root|home|Users|tmp)/\w+") == set()


def test_nothing_is_left_to_be_done() -> None:
    assert found_in_tree(r"\b(TODO|FIXME|HACK)\b") == set()


def test_the_tree_is_searched_at_all() -> None:
    assert {"README.md", "Makefile", "pyproject.toml"} <= {path.name for path, _ in texts()}
    assert found_in_tree(r"campaign-streams")


# Nothing happens at import

HEAVY = ["faust", "chdb", "pandas", "clickhouse_connect", "pyarrow", "numpy"]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    assert run(f"import sys, streams.cli; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


@pytest.mark.parametrize("module", ["streams.stages.intake", "streams.state.owner"])
def test_importing_the_core_imports_no_framework(module: str) -> None:
    heavy = [name for name in HEAVY if name != "numpy"]
    assert run(f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])") == "[]"


def test_importing_everything_starts_nothing_and_prints_nothing() -> None:
    """Neither threads nor child processes nor an event loop, nor a setting read from the environment."""
    modules = [name for name in NAMES if not name.endswith("__main__")]
    code = f"""
import asyncio, importlib, multiprocessing, os, threading
os.environ["CAMPAIGN_STREAMS_KAFKA__PARTITIONS"] = "no number"
for name in {modules!r}:
    importlib.import_module(name)
mine = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
print(mine, multiprocessing.active_children())
"""
    assert run(code) == "[] []"


@everywhere
def test_a_module_does_nothing_but_define(path: Path) -> None:
    """At the top level: imports, definitions, constants, what is guarded (`__main__`), and commands being listed."""
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.ClassDef,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.Assign,
        ast.AnnAssign,
    )
    for node in tree_of(path).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_guarded = isinstance(node, ast.If | ast.Assert)
        is_registration = isinstance(node, ast.Expr) and part_of(name_of(path)) in ("cli", "commands")
        assert isinstance(node, allowed) or is_text or is_guarded or is_registration, f"line {node.lineno}"
