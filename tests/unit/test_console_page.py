"""The page that is shipped is the one that its sources give, holds everything it needs, and names no other host."""

import re

import pytest

from streams.console.openapi import description
from streams.console.parameters import Parameters
from streams.console.routes import OPERATIONS, Operation
from streams.console.web import assets
from streams.jobs.console import DESCRIPTION, DIGEST, STATIC, WEB, described, digest_of_sources
from tests.unit.test_console_access import HIDDEN

REMEDY = "run `make console`, and commit what it writes"


def test_the_description_that_the_page_was_typed_by_is_todays() -> None:
    assert DESCRIPTION.read_text(encoding="utf-8") == described(), REMEDY


def test_the_bundle_was_built_from_todays_sources() -> None:
    assert DIGEST.read_text().strip() == digest_of_sources(), REMEDY


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r'(?:src|href)="([^"]+)"', (STATIC / "index.html").read_text()))
    assert named == {"app.js", "app.css", "theme.js", "icon.svg"}
    assert named < assets().keys()


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for name, asset in assets().items():
        hosts = set(re.findall(rb"https?://([\w.-]+)", asset.body)) if name != "licences.txt" else set()
        assert hosts <= {b"www.w3.org"}, name  # namespaces of SVG and MathML


def test_the_page_needs_no_inline_script_or_style() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on\w+=", page)


def test_the_lock_names_versions_and_digests_but_no_registry() -> None:
    lock = (WEB / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert '"resolved"' not in lock


def test_licences_of_what_is_bundled_are_shipped() -> None:
    text = (STATIC / "licences.txt").read_text()
    assert all(name in text for name in ("preact", "@preact/signals", "uplot", "MIT"))


def test_both_languages_have_every_text() -> None:
    source = (WEB / "src" / "i18n.ts").read_text(encoding="utf-8")
    keys = re.findall(r"^  (\w+): \"", source, re.MULTILINE)
    assert len(keys) == 2 * len(set(keys))


# The description

by_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@by_operation
def test_parameters_are_those_of_the_type(operation: Operation) -> None:
    told = description()["paths"][operation.path]["get"]
    names = {each["name"] for each in told["parameters"] if each["in"] == "query"}
    assert names == set(operation.parameters.__struct_fields__)
    assert issubclass(operation.parameters, Parameters)


@by_operation
def test_the_answer_is_that_of_the_type(operation: Operation) -> None:
    told = description()["paths"][operation.path]["get"]
    reference = told["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    name = reference.rsplit("/", 1)[1]
    assert name == operation.answer.__name__
    assert set(description()["components"]["schemas"][name]["properties"]) == set(operation.answer.__struct_fields__)


def test_fields_of_operators_are_marked_in_the_description() -> None:
    schemas = description()["components"]["schemas"]
    for kind, names in HIDDEN.items():
        marked = {name for name, each in schemas[kind.__name__]["properties"].items() if each.get("x-operators-only")}
        assert marked == names


def test_every_reference_leads_somewhere() -> None:
    whole = described()
    names = set(re.findall(r"#/components/schemas/(\w+)", whole))
    assert names <= description()["components"]["schemas"].keys()
