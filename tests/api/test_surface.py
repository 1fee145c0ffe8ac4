"""The public names, parameters and defaults that scripts of 2016 rely on."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT

import pymdc
from pymdc.bridge import Bridge
from pymdc.bridge.options import OPTIONS, parse

SURFACE = {
    "pymdc.api.users.Users": "(username, password=None)",
    "pymdc.api.users.Users.register": "(self, callback=None)",
    "pymdc.api.users.Users.activate": "(self, token, callback=None)",
    "pymdc.api.users.Users.change_password": "(self, password, callback=None)",
    "pymdc.api.users.Users.forgot_password": "(self, callback=None)",
    "pymdc.api.users.Users.reset_password": "(self, token, password, callback=None)",
    "pymdc.api.users.Users.delete": "(self, callback=None)",
    "pymdc.api.users.Users.password_hash": "(self)",
    "pymdc.api.keys.Keys": "(user)",
    "pymdc.api.keys.Keys.list": "(self, callback=None)",
    "pymdc.api.keys.Keys.create": "(self, key_pair=None, callback=None)",
    "pymdc.api.keys.Keys.delete": "(self, key_pair, callback=None)",
    "pymdc.api.buckets.Buckets": "(key_pair)",
    "pymdc.api.buckets.Buckets.create": (
        "(self, name, storage, transfer, key_pairs, callback=None)"
    ),
    "pymdc.api.buckets.Buckets.list": "(self, callback=None)",
    "pymdc.api.buckets.Buckets.usage": "(self, callback=None)",
    "pymdc.api.buckets.Bucket": "(bucket_id, key_pair)",
    "pymdc.api.buckets.Bucket.list": "(self, callback=None)",
    "pymdc.api.buckets.Bucket.patch": "(self, params, callback=None)",
    "pymdc.api.buckets.Bucket.delete": "(self, callback=None)",
    "pymdc.api.files.Files": "(bucket_id, key_pair)",
    "pymdc.api.files.Files.list": "(self, callback=None)",
    "pymdc.api.files.Files.token": "(self, operation, callback=None)",
    "pymdc.api.files.Files.upload": "(self, path, token=None, callback=None)",
    "pymdc.api.files.Files.download": "(self, file_hash, token=None, callback=None)",
    "pymdc.api.files.Files.rename": "(self, file_hash, name, callback=None)",
    "pymdc.api.files.Files.delete": "(self, file_hash, callback=None)",
    "pymdc.keypair.ECDSA": "(public_key=None, private_key=None)",
    "pymdc.keypair.ECDSA.get_public_key": "(self, f='hex', public_key=None)",
    "pymdc.keypair.ECDSA.get_private_key": "(self, f='hex')",
    "pymdc.keypair.ECDSA.sign": "(self, msg, private_key=None)",
    "pymdc.keypair.ECDSA.valid_signature": "(self, signature, msg, public_key=None)",
    "pymdc.keypair.ECDSA.compress_public_key": "(k)",
    "pymdc.keypair.ECDSA.decompress_public_key": "(k)",
    "pymdc.keypair.ECDSA.validate_public_key": "(k)",
    "pymdc.keypair.ECDSA.parse_public_key": "(k)",
    "pymdc.keypair.ECDSA.parse_private_key": "(k)",
    "pymdc.unirest.timeout": "(seconds)",
    "pymdc.rest.REST": "(method, resource, params={}, auth=(), headers={}, callback=None)",
}


def find(dotted: str) -> Any:
    module, _, rest = dotted.partition(".")[2].partition(".")
    if module == "api":
        module, _, rest = rest.partition(".")
        module = f"api.{module}"
    found: Any = importlib.import_module(f"pymdc.{module}")
    for name in rest.split("."):
        found = getattr(found, name)
    return found


def signature(function: Any, *excluded: Any) -> str:
    """Return the parameters without types and without those of the kinds *excluded*."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in excluded
    ]
    text = str(inspect.Signature(parameters))
    return text.replace("mappingproxy({})", "{}")


def positional(function: Any) -> str:
    """Return the parameters of 2016: all except keyword-only ones."""
    return signature(function, inspect.Parameter.KEYWORD_ONLY)


@pytest.mark.parametrize("dotted", SURFACE)
def test_parameters_and_defaults_are_those_of_2016(dotted: str) -> None:
    assert positional(find(dotted)) == SURFACE[dotted]


@pytest.mark.parametrize("dotted", SURFACE)
def test_new_parameters_are_keyword_only_and_optional(dotted: str) -> None:
    for parameter in inspect.signature(find(dotted)).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty


def test_client_and_bridge_have_these_defaults() -> None:
    assert signature(pymdc.Client) == (
        "(endpoint=None, *, workers=32, timeout=(10.0, 60.0), total=120.0, stall=60.0, channels=4,"
        " ca_certs=None, raises=False)"
    )
    assert signature(Bridge) == (
        "(data=None, *, database=None, database_password=None, store=None, host='127.0.0.1',"
        " port=0, url=None, smtp=None, smtp_password=None,"
        " mail_from=None, registration='open', trusted_proxies=(), tls_cert=None, tls_key=None,"
        " metrics_port=None, metrics_token=None, nonce_rule='once', shard_size=8388608,"
        " fsync=False, min_free=67108864, storage_limit=None, user_limit=None, drain=0,"
        " grace=6, patience=60, password_cost=None, clock=<built-in function time>, announce=None)"
    )


def test_bridge_command_has_these_defaults() -> None:
    given = {
        "data": "metadisk-data",
        "host": "127.0.0.1",
        "port": 6382,
        "registration": "open",
        "min_free": 67108864,
        "fsync": True,
        "nonce_rule": "once",
        "patience": 60,
        "drain": 0,
        "grace": 6,
        "log_level": "info",
        "log_format": "text",
    }
    unset = dict.fromkeys(option.setting for option in OPTIONS)
    assert parse([], {}) == {**unset, "trusted_proxies": (), **given}


def test_help_shows_lesson_and_names_classes_as_public() -> None:
    shown = pydoc.plain(pydoc.render_doc(pymdc))
    assert ">>> user.register()" in shown.partition("PACKAGE CONTENTS")[0]
    assert "class Call(" in shown
    # From Python 3.13 on the text also says where each inherited docstring comes from.
    assert "pymdc._" not in re.sub(r" from pymdc\._\S+", "", shown)
    assert not [name for name in dir(pymdc) if name.startswith("_") and name[1] != "_"]
    assert {*pymdc.__all__, "exceptions", "client"} <= {*dir(pymdc)}


def test_api_methods_take_callback_last() -> None:
    for name in ("Users", "Keys", "Buckets", "Bucket", "Files"):
        for method, function in inspect.getmembers(getattr(pymdc.api, name), inspect.isfunction):
            if not method.startswith("_") and method != "password_hash":
                assert f"{function.__module__}.{name}.{method}" in SURFACE
                assert positional(function).endswith("callback=None)")
                assert "`Call`" in str(function.__doc__)


def test_classes_are_importable_from_api() -> None:
    assert pymdc.api.Users is pymdc.api.users.Users
    assert pymdc.api.Keys is pymdc.api.keys.Keys
    assert pymdc.api.Buckets is pymdc.api.buckets.Buckets
    assert pymdc.api.Bucket is pymdc.api.buckets.Bucket
    assert pymdc.api.Files is pymdc.api.files.Files
    assert pymdc.api.ECDSA is pymdc.keypair.ECDSA
    assert pymdc.api.REST is pymdc.rest.REST


def test_star_import_brings_all_classes() -> None:
    names: dict[str, Any] = {}
    exec("from pymdc.api import *", names)
    assert {"Users", "Keys", "Buckets", "Bucket", "Files", "ECDSA", "REST"} <= names.keys()


@pytest.mark.parametrize("module", [pymdc, pymdc.api, pymdc.exceptions])
def test_all_lists_existing_names_once(module: Any) -> None:
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert hasattr(module, name)


def test_map_in_contributing_names_every_module() -> None:
    text = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
    words = set(
        re.findall(r"\w+", text[text.index("\nThe map\n") : text.index("\nHow a call goes\n")])
    )
    for path in Path(pymdc.__file__).parent.rglob("*.py"):
        if path.stem != "__init__":
            assert path.stem in words, path
