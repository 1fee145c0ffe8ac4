"""What docs/command-line.rst says about each verb, made from what click knows of it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

import click

from pymdc._cli.program import VERBS, program


def verbs() -> dict[str, click.Command]:
    """Return the verbs by name."""
    with click.Context(program) as context:
        found = {name: program.get_command(context, name) for name in VERBS}
    return {name: command for name, command in found.items() if command is not None}


def options_of(command: click.Command) -> Iterator[click.Option]:
    """Yield the options that *command* does not share with all verbs."""
    common = {tuple(option.opts) for option in program.params}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and tuple(parameter.opts) not in common:
            yield parameter


def section(name: str, command: click.Command) -> str:
    """Return the text about a verb, in reStructuredText."""
    context = click.Context(command, info_name=name)
    usage = [part for part in command.collect_usage_pieces(context) if part != "[OPTIONS]"]
    lines = [name, "~" * len(name), "", f"``{' '.join(['pymdc', name, *usage])}``", ""]
    lines += inspect.cleandoc(command.help or "").replace("*", r"\*").splitlines()
    lines += [line for option in options_of(command) for line in ("", *_entry(option))]
    return "\n".join(lines) + "\n"


def common_options() -> str:
    """Return the text about the options of every verb."""
    entries = [_entry(option) for option in program.params if isinstance(option, click.Option)]
    return "\n\n".join("\n".join(entry) for entry in entries) + "\n"


def _entry(option: click.Option) -> list[str]:
    value = "" if option.is_flag or option.count else f" {option.make_metavar(_ANY)}"
    return [f"``{', '.join(option.opts)}{value}``", *textwrap.wrap(f"    {option.help}", 1000)]


_ANY = click.Context(program)

if __name__ == "__main__":
    print(common_options())
    for name, command in verbs().items():
        print(section(name, command))
