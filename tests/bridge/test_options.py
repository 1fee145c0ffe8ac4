"""The options of the program, and their variables."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from processes import ROOT

from pymdc import __version__
from pymdc.bridge.options import OPTIONS, parse, unknown_variables
from pymdc.bridge.settings import DATABASE_URL, Settings

POSTGRES = "postgresql+psycopg://user@x/name"
SMTP_PASSWORD = "PYMDC_BRIDGE_SMTP_PASSWORD"


def test_page_has_every_option() -> None:
    text = (ROOT / "docs" / "running-a-bridge.rst").read_text(encoding="utf-8")
    table = [
        tuple(re.split(r" {2,}", line))
        for line in text.splitlines()
        if re.match(r"(``--|none )\S* +``PYMDC_BRIDGE_", line)
    ]
    assert table == [
        (
            "none" if option.secret else f"``--{option.name}``",
            f"``{option.variable}``",
            option.default or "none",
            option.help,
        )
        for option in OPTIONS
    ]


def test_options_are_settings() -> None:
    settings = {option.setting for option in OPTIONS} - {"log_level", "log_format"}
    assert settings == {field.name for field in fields(Settings)} - {
        "shard_size",
        "clock",
        "announce",
        "password_cost",
    }


def test_option_wins_over_its_variable_and_a_variable_over_the_default() -> None:
    environ = {"PYMDC_BRIDGE_PORT": "1", "PYMDC_BRIDGE_HOST": "::1", "PYMDC_BRIDGE_DATA": ""}
    settings = parse(["--port", "2"], environ)
    assert (settings["port"], settings["host"], settings["data"]) == (2, "::1", "metadisk-data")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("trusted-proxies", "10.0.0.1, fd00::/8,", ("10.0.0.1", "fd00::/8")),
        ("min-free", "1.5", 3 * 512 * 1024),
        ("fsync", "off", False),
        ("user-limit", "0.5", 0.5),
        ("metrics-port", "0", 0),
        ("smtp", "smtp://user@localhost", "smtp://user@localhost"),
    ],
)
def test_option_and_variable_are_read_alike(name: str, text: str, value: object) -> None:
    setting = name.replace("-", "_")
    assert parse([f"--{name}", text], {})[setting] == value
    assert parse([], {f"PYMDC_BRIDGE_{setting.upper()}": text})[setting] == value


def test_no_fsync_is_an_option() -> None:
    assert parse(["--no-fsync"], {})["fsync"] is False


def refusal(
    capsys: pytest.CaptureFixture[str], *arguments: str, environ: dict[str, str] | None = None
) -> str:
    """Return the line that says what is wrong."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments, environ or {})
    captured = capsys.readouterr()
    line = re.fullmatch(r"pymdc\.bridge: (.+)\n", captured.err)
    assert (caught.value.code, captured.out) == (2, "")
    assert line, captured.err
    return line[1]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "x", "a whole number"),
        ("port", "1" * 5000, "a whole number"),
        ("port", "66000", "0 to 65535"),
        ("metrics-port", "66000", "0 to 65535"),
        ("url", "example.com", "http[s]://HOST[:PORT]"),
        ("trusted-proxies", "10.0.0.1,x", "addresses or networks, such as 10.0.0.1 or 10.0.0.0/8"),
        ("tls-cert", "x", "both a certificate and its key, or neither"),
        ("registration", "all", "one of open, closed, invite"),
        ("nonce-rule", "2017", "one of once, 2016"),
        ("patience", "x", "a number"),
        ("patience", "nan", "zero or more"),
        ("drain", "-1", "zero or more"),
        ("grace", "-1", "zero or more"),
        ("user-limit", "inf", "zero or more"),
        ("min-free", "1e999", "a number of MiB"),
        ("fsync", "yes", "on or off"),
        ("log-level", "all", "one of debug, info, warning, error"),
        ("log-format", "xml", "one of text, json"),
    ],
)
def test_wrong_value_is_a_line_that_names_the_option_or_the_variable(
    capsys: pytest.CaptureFixture[str], name: str, text: str, expected: str
) -> None:
    variable = f"PYMDC_BRIDGE_{name.upper().replace('-', '_')}"
    told = f"{text!r}; expected {expected}"
    assert refusal(capsys, f"--{name}", text) == f"--{name} is {told}"
    assert refusal(capsys, environ={variable: text}) == f"{variable} is {told}"


def test_key_without_certificate_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = "--tls-cert is not set; expected both a certificate and its key, or neither"
    assert refusal(capsys, "--tls-key", "x") == told


def test_empty_option_is_not_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    told = "--data is empty; expected the folder in which everything is stored"
    assert refusal(capsys, "--data", "") == told
    for name in "--database", "--store":
        assert refusal(capsys, f"{name}=").startswith(f"{name} is empty; expected ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--smtp-password", "geheim"], "--smtp-password would be seen by others: set "),
        (["--metrics-token=geheim"], "--metrics-token would be seen by others: set "),
        (["--smtp", "smtp://user:ge/heim@x"], "--smtp has a password, which would be seen by "),
        (["--database", f"{POSTGRES}?password=geheim"], "--database has a password, which would "),
        (["--database", f"{POSTGRES}?sslpassword=geheim"], "--database has a password, which w"),
        (["--smtp", "x:geheim"], "--smtp is wrong; expected smtp[s]://[USER@]HOST[:PORT]"),
        (["--smtp-passwort", "geheim"], "--smtp-passwort is no option; --help shows"),
        (["--smtp-passwort=geheim"], "--smtp-passwort is no option; --help shows"),
        (["geheim"], "a value stands without an option; --help shows"),
        (["--port"], "argument --port: expected one argument"),
    ],
)
def test_secret_on_the_command_line_is_refused_and_not_shown(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    line = refusal(capsys, *arguments)
    assert line.startswith(told)
    assert "heim" not in line


def test_wrong_variable_with_a_secret_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    told = "PYMDC_BRIDGE_SMTP is wrong; expected smtp[s]://[USER@]HOST[:PORT]"
    assert refusal(capsys, environ={"PYMDC_BRIDGE_SMTP": "user:geheim@x"}) == told
    told = f"PYMDC_BRIDGE_DATABASE is wrong; expected {DATABASE_URL}"
    wrong = POSTGRES.replace("@", ":ge@heim@")  # of which a part would be taken for the host
    assert refusal(capsys, environ={"PYMDC_BRIDGE_DATABASE": wrong}) == told


def test_secret_is_in_a_variable_or_in_a_file(tmp_path: Path) -> None:
    file, empty = tmp_path / "secret", tmp_path / "empty"
    file.write_text("ge heim \n")
    empty.write_text("\n")
    for environ, secret in (
        ({SMTP_PASSWORD: "geheim"}, "geheim"),
        ({f"{SMTP_PASSWORD}_FILE": str(file)}, "ge heim "),
        ({f"{SMTP_PASSWORD}_FILE": str(empty)}, None),
    ):
        assert parse([], environ)["smtp_password"] == secret


def test_file_of_a_secret_that_cannot_be_read_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refusal(capsys, environ={f"{SMTP_PASSWORD}_FILE": str(tmp_path / "none")})
    assert line.startswith(f"{SMTP_PASSWORD}_FILE: ")
    (tmp_path / "binary").write_bytes(b"\xff")
    line = refusal(capsys, environ={f"{SMTP_PASSWORD}_FILE": str(tmp_path / "binary")})
    assert line.startswith(f"{SMTP_PASSWORD}_FILE: ")
    both = {SMTP_PASSWORD: "geheim", f"{SMTP_PASSWORD}_FILE": "x"}
    line = refusal(capsys, environ=both)
    assert line == f"{SMTP_PASSWORD} and {SMTP_PASSWORD}_FILE are both set"


def test_unknown_variables_are_found() -> None:
    environ = {"PYMDC_BRIDGE_PROT": "1", "PYMDC_BRIDGE_PORT": "1", f"{SMTP_PASSWORD}_FILE": "x"}
    assert unknown_variables({**environ, "PYMDC_ENDPOINT": "x"}) == ["PYMDC_BRIDGE_PROT"]


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--version"])
    assert capsys.readouterr().out == f"pymdc.bridge {__version__}\n"


def test_help_names_every_option_and_how_variables_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    shown = capsys.readouterr().out
    for option in OPTIONS:
        assert (f"--{option.name} " in shown) is not option.secret
        assert not option.secret or option.variable in shown
    assert "PYMDC_BRIDGE_SOME_NAME" in shown
