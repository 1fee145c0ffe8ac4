"""Accounts: login in a terminal and without one, logout, whoami, keys, and the profile."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Verb
from processes import ROOT
from terminal import SHELL, Terminal

import pymdc as library
from pymdc._cli import profile
from pymdc._cli.profile import Profile
from pymdc.bridge import Bridge
from pymdc.testing import Account

PASSWORD = "pass"  # of a new user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of the profile."""
    return tmp_path / "config" / "pymdc" / "default.ini"


@pytest.fixture
def profiled(folder: Path, bridge: Bridge, account: Account, pymdc: Verb) -> Account:
    """Sign in by a profile."""
    login = "login", bridge.endpoint, "--email", account.user.username
    assert pymdc(*login, stdin=f"{account.user.password}\n").code == 0
    return account


@pytest.fixture
def terminal(folder: Path, tmp_path: Path, bridge: Bridge) -> Iterator[Terminal]:
    variables = {
        "PYTHONPATH": str(ROOT),
        "PYMDC_ENDPOINT": bridge.endpoint,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    with Terminal(folder, variables) as opened:
        opened.type(f'pymdc() {{ {sys.executable} -W error -m pymdc "$@"; }}', SHELL)
        yield opened


@pytest.mark.usefixtures("profiled")
def test_login_keeps_a_key_for_its_owner_alone(
    path: Path, bridge: Bridge, account: Account, pymdc: Verb
) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["default.ini"]
    assert account.user.password not in path.read_text()
    (record,) = pymdc("whoami", "--json").records
    assert (record["email"], record["endpoint"]) == (account.user.username, bridge.endpoint)
    assert record["key"] in [entry["key"] for entry in library.api.Keys(account.user).list()]


def test_second_login_replaces_the_key(profiled: Account, bridge: Bridge, pymdc: Verb) -> None:
    keys, typed = library.api.Keys(profiled.user), f"{profiled.user.password}\n"
    before = {entry["key"] for entry in keys.list()}
    login = pymdc("login", bridge.endpoint, "--email", profiled.user.username, stdin=typed)
    assert login.code == 0
    assert len(before) == len({entry["key"] for entry in keys.list()}) == 2
    assert len(before & {entry["key"] for entry in keys.list()}) == 1


@pytest.mark.usefixtures("profiled")
def test_profile_of_another_bridge_is_not_replaced_unasked(pymdc: Verb, path: Path) -> None:
    before = path.read_text()
    done = pymdc("login", "http://127.0.0.1:1", "--email", "a@b.c", stdin="pass\n")
    assert done.code == 1
    assert "Replace the profile default" in done.err
    assert path.read_text() == before


def test_logout_removes_key_and_profile(profiled: Account, path: Path, pymdc: Verb) -> None:
    assert pymdc("logout").out == "Signed out.\n"
    assert not path.exists()
    assert len(library.api.Keys(profiled.user).list()) == 1
    assert pymdc("ls").code == 4


def test_removed_key_can_be_signed_out_and_in(
    profiled: Account, bridge: Bridge, path: Path, pymdc: Verb
) -> None:
    saved = profile.load("default")
    assert saved
    library.api.Keys(profiled.user).delete(saved.key_pair())
    refused, typed = pymdc("ls"), f"{profiled.user.password}\n"
    message = "pymdc: the bridge refused: Public key not registered\n"
    assert (refused.code, refused.err) == (4, f"{message}  sign in again: pymdc login\n")
    again = pymdc("login", "--email", profiled.user.username, stdin=typed)
    assert (again.code, pymdc("ls").code) == (0, 0)
    saved = profile.load("default")
    assert saved
    library.api.Keys(profiled.user).delete(saved.key_pair())
    assert pymdc("logout").code == 0
    assert not path.exists()


def test_logout_without_a_bridge_needs_force(folder: Path, path: Path, pymdc: Verb) -> None:
    key = library.ECDSA().get_private_key()
    profile.save("default", Profile("http://127.0.0.1:1", "a@b.c", key))
    assert pymdc("logout").code == 5
    assert path.exists()
    forced = pymdc("logout", "--force")
    assert (forced.code, path.exists()) == (0, False)
    assert "still registered" in forced.out
    assert "--force" not in pymdc("logout").err  # there is no profile any more


def test_wrong_password_is_refused(
    folder: Path, bridge: Bridge, account: Account, pymdc: Verb
) -> None:
    login = "login", bridge.endpoint, "--email", account.user.username
    done = pymdc(*login, stdin="wrong\n")
    assert (done.code, done.out) == (4, "")
    message = "pymdc: the bridge does not know this address with this password\n"
    assert done.err == f"{message}  pymdc login registers you on a terminal\n"


def test_keys_are_listed_and_removed(profiled: Account, pymdc: Verb) -> None:
    lines = pymdc("keys").out.splitlines()
    assert sorted(line.endswith(" *") for line in lines) == [False, True]
    other = next(line for line in lines if not line.endswith("*"))
    mine = next(line for line in lines if line.endswith("*")).removesuffix(" *")
    assert pymdc("keys", "--remove", mine).code == 1
    assert pymdc("keys", "--remove", "ff").code == 3
    assert pymdc("keys", "--remove", other[:20]).out == f"removed {other}\n"
    assert pymdc("keys").out == f"{mine} *\n"


def test_login_in_a_terminal_registers(terminal: Terminal, bridge: Bridge) -> None:
    email = f"{os.getpid()}@example.com"
    terminal.type("pymdc login", "E-mail: ")
    terminal.type(email, "Password: ")
    terminal.type("a good password", "[y/N]: ")
    terminal.type("y", "Password again: ")
    terminal.type("a good password", "paste it here: ")
    assert "no link" in terminal.type("what?", "paste it here: ")
    assert "Invalid activation token" in terminal.type("0" * 64, "paste it here: ")
    shown = terminal.type(bridge.activation_key(email), SHELL)
    assert f"Signed in as {email}." in shown
    terminal.type("pymdc login", "Password: ")
    assert "Signed in" in terminal.type("a good password", SHELL)


def test_login_notices_that_the_link_was_opened(
    terminal: Terminal, bridge: Bridge, new_user: library.api.Users
) -> None:
    new_user.register()
    terminal.type(f"pymdc login --email {new_user.username}", "Password: ")
    terminal.type(PASSWORD, "paste it here: ")
    new_user.activate(bridge.activation_key(new_user.username))
    assert terminal.read_to(SHELL).startswith("\nActivated.\nSigned in as ")


def test_login_can_be_interrupted(
    terminal: Terminal, path: Path, new_user: library.api.Users
) -> None:
    new_user.register()
    terminal.type(f"pymdc login --email {new_user.username}", "Password: ")
    # Not at an earlier question: Python drops a Ctrl-C that comes just before it reads a line.
    terminal.type(PASSWORD, "paste it here: ")
    terminal.press_ctrl_c()
    assert terminal.read_to(SHELL).endswith("\npymdc: interrupted\n")
    assert terminal.type("echo $?", SHELL) == "130\n"
    assert not path.exists()


def test_key_command_prints_the_key(
    folder: Path, path: Path, bridge: Bridge, account: Account, pymdc: Verb
) -> None:
    key = folder / "the key"
    key.write_text(account.key_pair.get_private_key() + "\nnotes: none\n")
    profile.save("default", Profile(bridge.endpoint, key_command=f"cat '{key}'"))
    assert pymdc("whoami").code == 0
    key.unlink()
    failed = pymdc("whoami")
    assert failed.code == 4
    assert "ended with 1" in failed.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("endpoint\n", "line 1: expected name = value"),
        ("endpoint = http://x\nprivate_key = {key}\n", "private_key is unknown"),
        ("endpoint = http://x\n", "expected either private-key or key-command"),
        ("private-key = {key}\n", "endpoint is missing"),
        ("endpoint = http://x\nprivate-key = x{key}\n", "is no private key"),
        ("endpoint = http://x\n{key}\n", "line 2: expected name = value"),
    ],
)
def test_wrong_profile_is_named_and_shows_no_key(
    path: Path, folder: Path, pymdc: Verb, text: str, told: str
) -> None:
    key = library.ECDSA().get_private_key()
    path.parent.mkdir(parents=True)
    path.write_text(text.format(key=key))
    path.chmod(0o600)
    done = pymdc("ls")
    assert done.code == 4
    assert told in done.err
    assert key not in done.err


def test_profile_that_others_may_read_is_refused(
    profiled: Account, path: Path, pymdc: Verb
) -> None:
    path.chmod(0o644)
    done = pymdc("ls")
    assert (done.code, done.err) == (4, f"pymdc: others may read {path}\n  chmod 600 {path}\n")


def test_profile_is_written_whole_or_not_at_all(path: Path, folder: Path) -> None:
    before = profile.save("default", Profile("http://x", "a@b.c", "1" * 64)).read_text()
    with pytest.raises(UnicodeEncodeError):
        profile.save("default", Profile("http://x", "\udc80", "2" * 64))
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == ["default.ini"]


def test_secrets_are_no_arguments(pymdc: Verb) -> None:
    for arguments in ["login", "--password", "s3cret"], ["login", "http://x", "s3cret"]:
        done = pymdc(*arguments)
        assert done.code == 2
        assert "s3cret" not in done.err


def test_profile_is_chosen_by_option_or_variable(
    profiled: Account, pymdc: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = pymdc("--profile", "work", "ls")
    assert (missing.code, pymdc("ls", "--profile", "default").code) == (4, 0)
    assert "pymdc login --profile work" in missing.err
    assert pymdc("--profile", "../x", "ls").code == 2
    monkeypatch.setenv("PYMDC_PROFILE", "work")
    assert pymdc("ls").code == 4
