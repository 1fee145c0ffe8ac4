"""The settings of a bridge."""

from __future__ import annotations

from typing import Any

import pytest

from pymdc.bridge import Bridge
from pymdc.bridge.settings import NONCE_RULES, Settings
from pymdc.bridge.storage.nonces import RULES


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": ""}, "host is ''; expected an address"),
        ({"url": "example.com"}, "url is 'example.com'; expected http"),
        ({"url": "https://x/path"}, "url is 'https://x/path'; expected http"),
        ({"url": "https://user@x"}, "url is .*; expected http"),
        ({"url": "http://x:0"}, "url is 'http://x:0'; expected http"),
        ({"url": "http://x:y"}, "url is 'http://x:y'; expected http"),
        ({"trusted_proxies": ("proxy",)}, "trusted_proxies is .*; expected addresses or networks"),
        ({"tls_cert": "x"}, "tls_cert is 'x'; expected both a certificate and its key"),
        ({"tls_key": "x"}, "tls_cert is None; expected both a certificate and its key"),
        ({"metrics_port": -1}, "metrics_port is -1; expected 0 to 65535"),
        ({"drain": -1}, "drain is -1; expected zero or more"),
        ({"grace": -1}, "grace is -1; expected zero or more"),
        ({"port": 65536}, "port is 65536; expected 0 to 65535"),
        ({"port": "80"}, "port is '80'; expected 0 to 65535"),
        ({"nonce_rule": "2017"}, "nonce_rule is '2017'; expected one of once, 2016"),
        ({"mail_from": "me"}, "mail_from is 'me'; expected an address, such as"),
        ({"mail_from": "a@b.com\nTo: c@d.com"}, "expected an address"),
        ({"shard_size": 0}, "shard_size is 0; expected bytes, one or more"),
    ],
)
def test_wrong_setting_is_a_value_error(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Bridge(**given)


def test_nonce_rules_are_those_of_the_storage() -> None:
    assert set(NONCE_RULES) == set(RULES)


def test_password_in_a_setting_is_not_in_its_repr() -> None:
    assert "secret" not in repr(Settings(smtp="smtp://user:secret@localhost"))
