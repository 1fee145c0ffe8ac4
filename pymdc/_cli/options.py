"""The options of every verb, and those that several verbs share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pymdc._cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def _set_profile(context: click.Context, _option: click.Parameter, name: str | None) -> None:
    if name is not None:
        context.ensure_object(Session).profile_name = name


def _set_json(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        context.ensure_object(Session).out.as_json = True


def _set_quiet(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        context.ensure_object(Session).out.quiet = True


def _set_no_progress(context: click.Context, _option: click.Parameter, given: bool) -> None:
    if given:
        context.ensure_object(Session).progress = False


def _set_verbose(context: click.Context, _option: click.Parameter, count: int) -> None:
    if count:
        context.ensure_object(Session).progress = False  # lines of the log would break the bars
        level = logging.INFO if count == 1 else logging.DEBUG
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")


_COMMON: list[Callable[[Any], Any]] = [
    click.option(
        "--profile",
        metavar="NAME",
        envvar="PYMDC_PROFILE",
        expose_value=False,
        callback=_set_profile,
        help="The profile to use, instead of 'default'.",
    ),
    click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Print a line of JSON for each result.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_quiet,
        help="Print results and errors, and nothing else.",
    ),
    click.option(
        "--no-progress",
        is_flag=True,
        expose_value=False,
        callback=_set_no_progress,
        help="Draw no progress bars.",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show the library's log; -vv shows more.",
    ),
]

jobs: Decorator[Any] = click.option(
    "--jobs",
    type=click.IntRange(1, 32),
    default=4,
    metavar="N",
    help="How many files to work on at a time; without it, 4.",
)
dry_run: Decorator[Any] = click.option(
    "-n", "--dry-run", is_flag=True, help="Say what would be done, and change nothing."
)
yes: Decorator[Any] = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def filters(function: F) -> F:
    """Add ``--include`` and ``--exclude``."""
    include = click.option("--include", multiple=True, metavar="GLOB", help="Only names like this.")
    exclude = click.option("--exclude", multiple=True, metavar="GLOB", help="No names like this.")
    return include(exclude(function))


def common(command: Any) -> Any:
    """Add the options of every verb to *command*."""
    for option in _COMMON:
        option(command)
    return command


def verb(function: Callable[..., None]) -> click.Command:
    """Make *function* a verb: it is called with the session, and its docstring is the help."""
    name = function.__name__.rstrip("_")
    command: click.Command = click.command(name, no_args_is_help=False)(click.pass_obj(function))
    common(command)
    return command
