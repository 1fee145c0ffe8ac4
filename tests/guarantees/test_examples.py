"""Each example runs with no arguments; the notebook's cells print what is stored beside them."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from modes import PATIENCE
from processes import ROOT, python
from readme import shape
from screens import Screen

EXAMPLES = ROOT / "examples"
NOTEBOOK = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))


def test_every_example_is_run_by_a_test() -> None:
    texts = [
        (Path(__file__).parent / name).read_text(encoding="utf-8")
        for name in ("test_apps.py", "test_examples.py", "test_programs.py")
    ]
    for path in EXAMPLES.glob("*.[pi]*y*"):
        assert any(f'"{path.name}"' in text for text in texts), path.name


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("folder.py", "Success: 4 files went up and came back, byte for byte.\n"),
        ("bot.py", "Success: the bot answered every line.\n"),
    ],
)
def test_example_ends_with_success(name: str, ending: str, tmp_path: Path) -> None:
    done = python(EXAMPLES / name, cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.endswith(ending)


def test_folder_example_takes_a_folder_and_draws_bars(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "photo.jpg").write_bytes(b"photo")
    script = (
        f"import runpy, sys; sys.argv[1:] = [{str(tmp_path)!r}]\n"
        f"runpy.run_path({str(EXAMPLES / 'folder.py')!r}, run_name='__main__')"
    )
    with Screen(script, {}) as screen:
        rows = screen.to_the_end()
    assert rows[-1] == "Success: 1 files went up and came back, byte for byte."
    assert [row.split()[0] for row in rows[:-1]] == ["photo.jpg"] * 2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("folder.py", ["nowhere"], "There is no folder nowhere\n"),
        ("folder.py", ["file"], "There is no folder file\n"),
        ("bot.py", ["--listen"], "argument --listen: expected one argument\n"),
        ("bot.py", ["--listen", "x"], "argument --listen: invalid int value: 'x'\n"),
        ("bot.py", ["--listen", "70000"], "The bot can't listen on port 70000: "),
    ],
)
def test_example_says_what_is_wrong_with_an_argument(
    name: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = python(EXAMPLES / name, *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio of Python 3.10 may log a Ctrl-C that hits a task"
)
def test_bot_listens_until_ctrl_c() -> None:
    script = (
        "import runpy, sys; sys.argv[1:] = ['--listen', '0']\n"
        f"runpy.run_path({str(EXAMPLES / 'bot.py')!r}, run_name='__main__')"
    )
    with Screen(script, {}) as screen:
        screen.until(lambda rows: any("The bot listens" in row for row in rows))
        screen.process.send_signal(2)
        rows = screen.to_the_end()
        assert re.fullmatch(r"The bot listens on 127\.0\.0\.1, port [1-9]\d+\.", "".join(rows))
        assert screen.process.wait(PATIENCE) == 0


def test_notebook_has_the_form_of_a_notebook() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert cell["metadata"] == {}
        assert ("outputs" in cell) == (cell["cell_type"] == "code")


def run(source: str, variables: dict[str, Any]) -> str:
    """Run a cell as a notebook does; return what it prints, and the value of its last line."""
    tree, printed = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), variables)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), variables)
            if value is not None:
                print(repr(value))
    return printed.getvalue()


def stored(cell: dict[str, Any]) -> str:
    texts = [output.get("text") or output["data"]["text/plain"] for output in cell["outputs"]]
    return "".join("".join(text) for text in texts)


def test_cells_of_notebook_print_what_is_stored() -> None:
    variables: dict[str, Any] = {}
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert sum(bool(cell["outputs"]) for cell in cells) > 5
    for cell in cells:
        printed = run("".join(cell["source"]), variables)
        assert shape(printed.strip()) == shape(re.sub(r"\n ", " ", stored(cell)).strip())
