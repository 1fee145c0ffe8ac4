"""``completion``: the script by which a shell completes what is typed."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pymdc._cli.failures import Failure
from pymdc._cli.options import verb
from pymdc._cli.session import Session

_VARIABLE = "_PYMDC_COMPLETE"


@verb
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(session: Session, shell: str) -> None:
    """Print a script for completion in a shell.

    It completes verbs, options, buckets and files.
    For bash, in ~/.bashrc: eval "$(pymdc completion bash)"
    """
    kind = get_completion_class(shell)
    program = click.get_current_context().find_root().command
    if kind is None:
        raise Failure(f"nothing is known of {shell}")
    script = kind(program, {}, "pymdc", _VARIABLE).source()
    if shell == "bash":
        script = _with_colons(script)
    session.out.record({"shell": shell, "script": script}, script)


def _with_colons(script: str) -> str:
    """Have bash complete BUCKET:NAME as one word, and add no space after BUCKET: alone."""
    begin = "\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"
    end = "\n    [[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace\n\n    return 0\n"
    return begin + script.replace("\n    return 0\n", end)
