"""What setup.py, tox.ini, the workflow, the README and CITATION.cff say twice."""

from __future__ import annotations

import configparser
import re
from typing import Any

import yaml
from processes import ROOT
from readme import all_blocks, commands

import pymdc


def read(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def pythons_of_setup() -> list[str]:
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("setup.py"))


def tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(read("tox.ini"))
    return parser


def env_list() -> list[str]:
    return re.split(r",\s*", tox()["tox"]["env_list"].strip())


def workflow() -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(read(".github", "workflows", "tests.yml"))["jobs"]
    return jobs


def runs(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_tox_workflow_and_ci_run_the_pythons_of_setup() -> None:
    pythons = pythons_of_setup()
    assert pythons[0] == "3.10"
    assert f'python_requires=">={pythons[0]}"' in read("setup.py")
    names = ["py" + version.replace(".", "") for version in pythons]
    assert [name for name in env_list() if name.startswith("py")] == names
    assert workflow()["python"]["strategy"]["matrix"]["python"] == pythons
    newer = read(".ci", "newer-pythons")
    assert re.findall(r"py3\d+", newer.partition("TOX_ENV")[2]) == names[-2:]
    assert re.findall(r"python(3\.\d+)-venv", newer) == pythons[-2:]
    assert "\n.ci/newer-pythons\n" in read(".ci", "run")
    for page in "README.rst", "CONTRIBUTING.rst", "docs/install.rst":
        assert f"Python {pythons[0]} to {pythons[-1]}" in read(page), page


def test_setup_commands_are_the_same_everywhere() -> None:
    first, second = (
        commands(block)[0].line
        for block in all_blocks(read("README.rst"))
        if "-m venv" in block.text
    )
    contributing = all_blocks(read("CONTRIBUTING.rst"))[0]
    assert [command.line for command in commands(contributing)] == [first, second]
    assert commands(all_blocks(read("docs", "install.rst"))[0])[0].line == first
    assert f"\n{second}\n" in read(".ci", "run")


def test_install_commands_name_no_package_of_others() -> None:
    folders = [ROOT / name for name in ("pymdc", "docs", "examples", "benchmarks")]
    code = [path for folder in folders for path in folder.rglob("*.py")]
    prose = [path for folder in (ROOT, *folders) for path in folder.glob("*.rst")]
    stated = [
        (path, line)
        for path in (*code, *prose)
        for line in path.read_text(encoding="utf-8").splitlines()
        if "pip install" in line
    ]
    assert len(stated) > 5
    for path, line in stated:
        assert not re.search(r"metadisk|pymdc", line.partition("pip install")[2]), f"{path}: {line}"
    for page in "README.rst", "docs/install.rst":
        assert "``pymdc`` on the package index is something else" in read(page)


def test_workflow_runs_the_other_environments_of_tox() -> None:
    others = [name for name in env_list() if not name.startswith("py")]
    assert f"tox run -e {','.join(others)}" in runs(workflow()["checks"])
    assert {f"testenv:{name}" for name in others} <= {*tox().sections()}


def test_citation_names_the_version_and_the_licence() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    required = {"cff-version", "message", "title", "authors"}  # by the schema of the format, 1.2.0
    assert required <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == pymdc.__version__
    assert citation["type"] == "software"
    assert f'license_expression="{citation["license"]}"' in read("setup.py")
    assert f'author="{citation["authors"][0]["name"]}"' in read("setup.py")


def test_newest_version_in_changes_is_this_one() -> None:
    newest = re.search(r"^(\d+\.\d+\.\d+)\n-+$", read("CHANGES.rst"), re.MULTILINE)
    assert newest
    assert newest[1] == pymdc.__version__
