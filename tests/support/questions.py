"""The questions of ``pymdc login``, and what the person in the docs answers."""

from __future__ import annotations

from collections.abc import Callable

from terminal import SHELL, Terminal

PASSWORD = "a good password"
_LINK = "paste it here: "
_ANSWERS = {
    "E-mail: ": "you@example.com",
    "Password: ": PASSWORD,
    "[y/N]: ": "y",
    "Password again: ": PASSWORD,
}


def type_and_answer(
    terminal: Terminal, command: str, link: Callable[[], str], patience: float = 60
) -> str:
    """Type *command*, answer its questions, and return all that the terminal shows after it.

    *link* returns the link of the mail. The command has to end, or to ask, within *patience*.
    """
    stops = SHELL, *_ANSWERS, _LINK
    shown = terminal.show(command, *stops, patience=patience).partition("\n")[2]
    while not shown.endswith(SHELL):
        question = next((ask for ask in _ANSWERS if shown.endswith(ask)), _LINK)
        shown += terminal.show(_ANSWERS.get(question) or link(), *stops)
    return shown.removesuffix(SHELL)
