"""The program: its commands, their arguments, and what goes wrong with them."""

from __future__ import annotations

import argparse
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import sqlalchemy as sa

from pymdc.bridge.admin import (
    backup,
    buckets,
    closing_down,
    export,
    imports,
    restore,
    users,
    vacuum,
    verify,
)
from pymdc.bridge.admin.output import Report
from pymdc.bridge.admin.storage import CommandError, Storage, one_line
from pymdc.bridge.errors import UnavailableError
from pymdc.bridge.options import OPTIONS, STORAGE, WrongUse, storage_settings
from pymdc.bridge.settings import BUSY_SECONDS

_STORAGE = [option for option in OPTIONS if option.setting in STORAGE and not option.secret]
_TEXTS = "the folder of the bridge", "its PostgreSQL, if it has one", "its store, if elsewhere"
_NONE, _DEFAULT = "none", "default"


class Command(NamedTuple):
    """A row of the table: *run* is called with the storage and the *arguments*.

    Its docstring is the help.
    """

    run: Callable[..., Report]
    arguments: Sequence[tuple[str, Mapping[str, Any]]] = ()


def _gigabytes(word: str) -> Callable[[str], float | None]:
    def parse(text: str) -> float | None:
        try:
            limit = None if text.lower() == word else float(text)
        except ValueError:
            limit = -1
        if limit is not None and not 0 <= limit < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number of GB nor {word!r}")
        return limit

    return parse


_EMAIL = ("email", {"help": "the user's e-mail address"})
_GB = {"metavar": "GB", "type": _gigabytes(_NONE), "default": argparse.SUPPRESS}
_PLACE = {"metavar": "DIR", "type": Path}
_DIRECTORY = ("directory", _PLACE | {"help": "the folder of the backup"})
_FLAG = {"action": "store_true"}

COMMANDS: Mapping[str, Command] = {
    "users list": Command(users.list_users),
    "users activate": Command(users.activate, [_EMAIL]),
    "users disable": Command(users.disable, [_EMAIL]),
    "users enable": Command(users.enable, [_EMAIL]),
    "users password": Command(users.set_password, [_EMAIL]),
    "users limit": Command(
        users.set_limit,
        [
            _EMAIL,
            (
                "limit",
                {
                    "metavar": "GB",
                    "type": _gigabytes(_DEFAULT),
                    "help": f"a number of GB (10^9 bytes), or {_DEFAULT}",
                },
            ),
        ],
    ),
    "users delete": Command(users.delete, [_EMAIL, ("--yes", _FLAG | {"help": "do not ask"})]),
    "users invite": Command(users.invite),
    "buckets list": Command(
        buckets.list_buckets,
        [("--user", {"metavar": "EMAIL", "help": "only the buckets of this user"})],
    ),
    "buckets quota": Command(
        buckets.set_quota,
        [
            ("bucket", {"help": "the id of the bucket"}),
            ("--storage", _GB | {"help": f"what it may store: GB, or {_NONE}"}),
            ("--transfer", _GB | {"help": f"what it may send in a month: GB, or {_NONE}"}),
        ],
    ),
    "usage": Command(buckets.show_usage),
    "backup": Command(backup.backup, [_DIRECTORY]),
    "restore": Command(
        restore.restore,
        [_DIRECTORY, ("--force", _FLAG | {"help": "also if objects of the backup are damaged"})],
    ),
    "verify": Command(verify.verify, [("--repair", _FLAG | {"help": "set aside what is wrong"})]),
    "vacuum": Command(vacuum.vacuum),
    "export": Command(
        export.export, [("directory", _PLACE | {"help": "the folder that the export is in"})]
    ),
    "import": Command(
        imports.import_,
        [
            ("directory", _PLACE | {"help": "the folder of a bridge, a backup or an export"}),
            ("--prepare", _FLAG | {"help": "copy objects only, also while a bridge serves"}),
            ("--force", _FLAG | {"help": "also if objects are damaged"}),
            ("--replace-nul", _FLAG | {"help": "replace NUL in names, which PostgreSQL refuses"}),
        ],
    ),
    "close": Command(closing_down.close),
    "reopen": Command(closing_down.reopen),
}
_GROUPS = {"users": "Accounts.", "buckets": "Buckets: what they hold, and what they may."}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("python -m ")
        self.exit(2, f"{command}: {message}; --help says what is expected\n")


def main(arguments: Sequence[str]) -> int:
    """Run the command in *arguments*; return the exit status."""
    parser = argument_parser()
    namespace, rest = parser.parse_known_args(arguments)
    if rest:  # not shown whole: it may be a password
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        parser.error(f"no such option: {options[0]}" if options else "too many arguments")
    values = vars(namespace)
    run, as_json = values.pop("run"), values.pop("json", False)
    given = {name: values.pop(name) for name in STORAGE if name in values}
    try:
        settings = storage_settings(given)
    except WrongUse as error:
        return _fail(str(error), 2)
    try:
        with closing(_storage(**settings)) as storage:
            report: Report = run(storage, **values)
        report.print(as_json=as_json)
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, EOFError):
        return _fail("interrupted")
    except CommandError as error:
        return _fail(str(error), error.status)
    except UnavailableError as error:
        return _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        return _fail(_database_error(error))
    return 0 if report.sound else 1


def _storage(
    data: str, database: str | None, database_password: str | None, store: str | None
) -> Storage:
    return Storage(Path(data), database, database_password, store)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments of all commands."""
    common = _Parser(add_help=False)
    for option, metavar, text in zip(_STORAGE, ("DIR", "URL", "URL"), _TEXTS, strict=True):
        default = f", else ./{option.default}" if option.default else ""
        common.add_argument(
            f"--{option.name}",
            metavar=metavar,
            default=argparse.SUPPRESS,
            help=f"{text}; else ${option.variable}{default}",
        )
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    parser = _Parser(
        "python -m pymdc.bridge admin",
        description="Look after a bridge, also while it runs.",
        epilog="The exit status is 0 if all is well, 1 if something is wrong or has failed, and 2"
        " if the command is not understood.",
        parents=[common],
    )
    groups = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for group, text in _GROUPS.items():
        inner = groups[""].add_parser(group, help=text, description=text)
        groups[group] = inner.add_subparsers(metavar="COMMAND", required=True)
    for words, command in COMMANDS.items():
        group, _, name = words.rpartition(" ")
        text = command.run.__doc__ or ""
        one = groups[group].add_parser(
            name, help=text.partition("\n")[0], description=text, parents=[common]
        )
        one.set_defaults(run=command.run)
        for argument, details in command.arguments:
            one.add_argument(argument, **details)
    return parser


def _database_error(error: Exception) -> str:
    if "locked" in one_line(error):
        return f"the database was locked for {BUSY_SECONDS} s: try again"
    return f"the database: {one_line(error)}"


def _fail(message: str, status: int = 1) -> int:
    print(f"pymdc.bridge admin: {message}", file=sys.stderr)
    return status
