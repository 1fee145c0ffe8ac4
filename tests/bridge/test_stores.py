"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path

import pytest
from seaweedfs import BUCKET
from stored_objects import views

from pymdc.bridge.settings import Settings, WrongSetting
from pymdc.bridge.storage.s3_store import S3Store
from pymdc.bridge.storage.stores import open_store


@pytest.mark.parametrize("url", ["s3://b", "s3://b/", "s3://b/a/b.c", "gs://b/a", "file:///a"])
def test_url_of_a_store_is_accepted(url: str) -> None:
    Settings(store=url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3:",
        "s3://",
        "s3:///a",
        "s3://k:secret@b",
        "s3://b?secret",
        "s3://b/a//b",
        "s3://b/../a",
        *("http://secret", "secret", "file://", "file:///", "file://host/a", "file:relative"),
    ],
)
def test_wrong_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(WrongSetting, match=r"^store is .*; expected s3://BUCKET") as raised:
        Settings(store=url)
    assert "secret" not in str(raised.value)


def test_folder_is_the_default_store(tmp_path: Path) -> None:
    for url, folder in (None, tmp_path / "a"), ((tmp_path / "b c").as_uri(), tmp_path / "b c"):
        open_store(url, tmp_path / "a", fsync=False).put("0" * 32, views(b"abc"))
        assert (folder / ("0" * 32)).read_bytes() == b"abc"


def test_s3_store_is_proved_when_it_is_opened(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable, value in s3_environment.items():
        monkeypatch.setenv(variable, value)
    store = open_store(f"s3://{BUCKET}/proved", tmp_path, fsync=True)
    assert isinstance(store, S3Store)
    assert store.size("check") is None, "what it was proved with is deleted"
