"""A bridge with a certificate that no authority signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import certificate
from command_line import Program, Verb

import pymdc as library
from pymdc.bridge import Bridge


def test_certificate_is_trusted_by_a_variable(
    folder: Path, tmp_path: Path, pymdc: Verb, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = str(certificate(tmp_path, "localhost"))
    with Bridge(tmp_path / "data", tls_cert=pem, tls_key=pem) as bridge:
        endpoint = bridge.endpoint.replace("127.0.0.1", "localhost")
        with library.Client(endpoint, ca_certs=pem) as client:
            user = library.api.Users("you@example.com", "pass", client=client)
            user.register()
            user.activate(bridge.activation_key(user.username))
        login = "login", endpoint, "--email", user.username
        variables = {"PYMDC_ENDPOINT": endpoint}
        variables["PYMDC_PRIVATE_KEY"] = library.ECDSA().get_private_key()
        # In a process of its own, since the default client keeps the certificates that it trusts.
        distrusted = program("doctor", env=variables)
        assert distrusted.returncode == 5
        assert b"export SSL_CERT_FILE=FILE.pem" in distrusted.stdout
        monkeypatch.setenv("SSL_CERT_FILE", pem)
        assert pymdc(*login, stdin="pass\n").code == 0
        assert pymdc("mb", "photos").code == 0
        (folder / "a").write_text("a")
        assert pymdc("put", "a", "photos:").code == 0
        assert pymdc("cat", "photos:a").out == "a"
        assert " clock     as the bridge's" in pymdc("doctor").out
