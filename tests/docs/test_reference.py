"""The reference has what the code has, and pages refer to what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from processes import ROOT

import pymdc
import pymdc.testing
from pymdc import exceptions
from pymdc._default import _VARIABLES

DOCS = ROOT / "docs"
VARIABLE = re.compile(r"(?<!_)PYMDC_[A-Z]+(?:_[A-Z]+)*")
SUFFIX = "_FILE"  # of the variable that names a file with the value


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def documented(*names: str) -> set[str]:
    """Return the last parts of what autodoc shows on the pages *names*."""
    pattern = r"^\.\. auto(?:class|exception|function|data|module):: \S*?(\w+)(?:\(.*)?$"
    return {name for each in names for name in re.findall(pattern, page(each), re.MULTILINE)}


def test_reference_has_every_public_name() -> None:
    modules = {"api", "keypair", "rest", "unirest"}  # their contents are on the page
    shown = documented("api.rst", "exceptions.rst")
    assert {*pymdc.__all__} - modules <= shown
    assert {*pymdc.api.__all__} <= shown
    assert {*pymdc.testing.__all__} <= shown


def test_exceptions_page_has_every_exception_and_what_to_do() -> None:
    assert documented("exceptions.rst") == {*exceptions.__all__}
    for part in page("exceptions.rst").split(".. autoexception:: ")[1:]:
        assert "What to do: " in part, part


def test_tree_of_exceptions_is_that_of_the_docstring() -> None:
    def tree(text: str) -> list[tuple[int, str]]:
        rows = re.findall(r"^((?:    )?(?:[ |│]   )*)(?:(?:\+--|[├└]──) )?([A-Z]\w+)\b", text, re.M)
        return [(len(indent), name) for indent, name in rows if name in exceptions.__all__]

    shown = page("exceptions.rst").partition("code-block:: text")[2].partition("\nOther")[0]
    assert tree(shown) == tree(str(exceptions.__doc__))


def test_variables_page_has_every_variable_of_the_code() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "pymdc").rglob("*.py")]
    used = {name for source in sources for name in VARIABLE.findall(source)}
    used = {name for name in used if not name.endswith(SUFFIX)} - {"PYMDC_BRIDGE"}  # a prefix
    options = page("running-a-bridge.rst").partition(".. the table of options")[2]
    text = page("variables.rst") + options.partition(".. its end")[0]
    table = re.findall(r"^(?:\S+ +)?``(PYMDC_[A-Z_]+)``  ", text, re.MULTILINE)
    assert sorted(table) == sorted(set(table))
    assert used <= {*table}


def test_pages_refer_to_each_other_as_sphinx_does() -> None:
    for path in DOCS.glob("*.rst"):
        assert ".rst>`" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", [*ROOT.glob("*.rst"), *ROOT.glob("*.md"), *DOCS.glob("*.rst")])
def test_pages_that_a_page_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"<([\w./-]+)>`_", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"``((?:docs|deploy|examples|benchmarks)/[\w./-]*\w)``", text):
        assert (ROOT / name).exists(), name


def test_variables_page_has_the_defaults_of_the_client() -> None:
    rows = dict(re.findall(r"^``(PYMDC_[A-Z]+)``  +(\S+)", page("variables.rst"), re.MULTILINE))
    parameters = inspect.signature(pymdc.Client).parameters
    for name, (variable, parse) in _VARIABLES.items():
        default = "none" if name == "endpoint" else parameters[name].default
        assert parse(rows[variable]) == default, variable


def test_readme_is_short_and_shows_the_methods() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    lesson = text + page("lesson.rst")
    for name in ("register", "activate", "create", "list", "patch", "upload", "download", "delete"):
        assert f".{name}(" in lesson
