"""The program: its verbs, and how it ends."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pymdc import __version__
from pymdc._cli.failures import Code, Failure, failure_of
from pymdc._cli.options import common
from pymdc._cli.output import Output, drop_stdout, prepare_streams
from pymdc._cli.session import Session

# A verb is the function of that name in a module of `pymdc._cli.verbs`. The order is that of help.
VERBS = {
    "serve": "serve",
    "demo": "demo",
    "login": "login",
    "logout": "account",
    "whoami": "account",
    "keys": "account",
    "buckets": "buckets",
    "mb": "buckets",
    "rb": "buckets",
    "info": "info",
    "ls": "files",
    "put": "put",
    "get": "get",
    "cat": "get",
    "sync": "sync",
    "rm": "files",
    "mv": "files",
    "share": "links",
    "request": "links",
    "doctor": "doctor",
    "completion": "completion",
}


class _Program(click.Group):
    """Imports a verb's module when it is needed."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return [*VERBS]

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = import_module(f"pymdc._cli.verbs.{VERBS[name]}")
        command: click.Command = getattr(module, name)
        return command


@click.group(
    "pymdc",
    cls=_Program,
    invoke_without_command=True,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="pymdc %(version)s")
@click.pass_context
def program(context: click.Context) -> None:
    """Keep files at a Metadisk bridge.

    Files at the bridge are BUCKET:NAME. Begin with: pymdc login http://HOST:6382
    """
    if context.invoked_subcommand is None:
        if context.ensure_object(Session).out.as_json:
            raise click.UsageError("Missing command", context)
        click.echo(context.get_help(), err=True)
        context.exit(Code.USAGE)


common(program)


def run(arguments: Sequence[str]) -> int:
    """Run the verb in *arguments*; return the exit code."""
    if "_PYMDC_COMPLETE" in os.environ:
        program.main(prog_name="pymdc")  # which ends the program
    prepare_streams()
    session = Session()
    session.out.as_json = "--json" in arguments  # also if the arguments are not understood
    try:
        code = _run(arguments, session)
        sys.stdout.flush()
    except OSError as error:  # a full disk, perhaps
        return _end_output(error, session.out)
    return code


def _run(arguments: Sequence[str], session: Session) -> int:
    try:
        # Not main(): for a closed pipe it has an exit code of its own.
        with program.make_context("pymdc", [*arguments], obj=session) as context:
            program.invoke(context)
        return Code.DONE
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        session.out.failure(_usage_failure(error))
        return Code.USAGE
    except (KeyboardInterrupt, EOFError, click.Abort) as error:
        if isinstance(error, click.Abort):  # the line of a question is not ended
            session.out.end_line()
        session.out.failure(Failure("interrupted", Code.INTERRUPTED))
        return Code.INTERRUPTED
    except click.ClickException as error:
        session.out.failure(Failure(error.format_message()))
        return Code.FAILED
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ENOSPC) and not error.filename:
            raise  # it is stdout's: what is written elsewhere is named
        return _fail(session.out, error)
    except Exception as error:  # noqa: BLE001  # nobody wants a traceback
        return _fail(session.out, error)


def _fail(out: Output, error: Exception) -> int:
    failure = failure_of(error)
    logging.getLogger("pymdc").debug("the verb ended", exc_info=error)
    out.failure(failure)
    return failure.code


def _end_output(error: OSError, out: Output) -> int:
    """Return the exit code after stdout could not be written to."""
    drop_stdout()
    if error.errno == errno.EPIPE:  # whoever reads it has seen enough
        return Code.DONE
    return _fail(out, Failure(f"stdout: {error.strerror}"))


def _usage_failure(error: click.UsageError) -> Failure:
    command = error.ctx.command_path if error.ctx else "pymdc"
    message = error.format_message()
    if "unexpected extra argument" in message:  # not shown: it may be a password
        message = "too many arguments"
    name = command.partition(" ")[2]
    where = f"{name}: " if name else ""
    return Failure(f"{where}{message.rstrip('.')}", Code.USAGE, f"{command} --help")
