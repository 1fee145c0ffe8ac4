"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from pytest_runs import MODULE, pytest_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write(folder: Path, text: str, name: str = "test_it.py") -> None:
    (folder / name).write_text(textwrap.dedent(text))


def test_plugin_imports_nothing_until_a_fixture_is_used(folder: Path) -> None:
    write(
        folder,
        f"""
        import sys

        def ours():
            return [name for name in sys.modules if name.split(".")[0] == "pymdc"]

        def test_before(request):
            assert request.config.pluginmanager.get_plugin("pymdc") is sys.modules["{MODULE}"]
            assert ours() == []

        def test_fixture(bridge):
            assert ours() != []
        """,
    )
    done = pytest_run(folder, autoload=True)
    assert done.returncode == 0, done.stdout


FAILING = """
    import pytest
    from pymdc.testing import BridgeTestCase

    def test_fails(bucket, bridge):
        bridge.fail(503, times=None)
        bridge.clock.advance(1000)
        bucket.files.token("PUSH")
        assert not bucket

    def test_finds_it_as_new(bucket, bridge, session_bridge):
        assert bridge.requests == []
        assert bucket.files.list() == []
        assert "token" in bucket.files.token("PUSH")
        assert bridge is session_bridge

    @pytest.mark.bridge(shard_size=1000)
    class TestOwn:
        @pytest.mark.bridge(nonce_rule="2016")
        def test_has_both_settings(self, bridge, session_bridge):
            assert bridge is not session_bridge
            settings = bridge._settings
            assert (settings.shard_size, settings.nonce_rule) == (1000, "2016")

    @pytest.mark.bridge(shards=1000)
    def test_wrong_name(bucket):
        pass

    @pytest.mark.bridge(shard_size=0)
    def test_wrong_value(bucket):
        pass

    @pytest.mark.bridge(1000)
    def test_without_name(bucket):
        pass

    @pytest.fixture(scope="module")
    def shared(session_bridge):
        session_bridge.fail(500)
        return session_bridge

    def test_shared(shared):
        shared.client.endpoint
        assert shared.account() is None

    class TestCase(BridgeTestCase):
        def test_fails(self):
            assert self.bucket.files.list() is None
"""


def test_report_of_a_failed_test_and_wrong_markers(folder: Path) -> None:
    write(folder, FAILING)
    done = pytest_run(folder)
    assert re.search(r" 3 failed, 2 passed, 3 errors in ", done.stdout), done.stdout
    assert re.search(
        r"- Requests at the bridge -+\n<POST /.*/tokens 503 \(on demand\)>", done.stdout
    )
    assert re.search(r"- Requests at the bridge -+\nnone\n", done.stdout), "of the session's"
    assert re.search(r"- Requests at the bridge -+\n<GET /.*/files 200>", done.stdout), (
        "of unittest"
    )
    for line in (
        "the marker bridge is wrong: no such setting: shards; expected quota, host, ",
        "the marker bridge is wrong: shard_size is 0; expected bytes, one or more",
        "the marker bridge takes names, as in bridge(shard_size=1000)",
    ):
        assert f"\n{line}" in done.stdout
    assert "During handling" not in done.stdout


def test_folder_of_a_failed_test_is_kept(folder: Path) -> None:
    write(
        folder,
        """
        import pathlib
        import pytest

        @pytest.mark.parametrize("size", [1, 2])
        def test_upload(bucket, bridge, size):
            pathlib.Path(f"folder-{size}").write_text(str(bridge.folder))
            assert bucket.files.upload(bytearray(size), name="zeros")["size"] == 1
        """,
    )
    done = pytest_run(folder, "--bridge-keep", "--basetemp", str(folder / "temporary"))
    [kept] = re.findall(r"- Folder of the bridge -+\n(.+)\n", done.stdout)
    assert kept == (folder / "folder-2").read_text()
    assert {path.name for path in Path(kept).iterdir()} >= {"metadata.sqlite", "shards"}
    assert len([*(Path(kept) / "shards").iterdir()]) == 1
    assert not Path((folder / "folder-1").read_text()).exists()


def test_fixtures_of_a_project_do_not_disturb_the_others(folder: Path) -> None:
    write(
        folder,
        """
        import pytest

        @pytest.fixture
        def bridge():
            return "London Bridge"

        @pytest.fixture
        def account():
            return "of Monte Cristo"
        """,
        "conftest.py",
    )
    write(
        folder,
        """
        import pymdc

        def test_both(bridge, account, bucket, bucket_factory, pymdc_endpoint):
            assert (bridge, account) == ("London Bridge", "of Monte Cristo")
            assert bucket.files.list() == bucket_factory().files.list() == []
            assert len(pymdc.api.Buckets(bucket.key_pair).list()) == 2
        """,
    )
    done = pytest_run(folder)
    assert done.returncode == 0, done.stdout


def test_missing_extra_is_said_in_one_line(folder: Path) -> None:
    write(folder, "import sys\nsys.modules['uvicorn'] = None\n", "conftest.py")
    write(folder, "def test_it(bucket): pass\n")
    done = pytest_run(folder)
    assert re.search(
        r"^the fixtures of pymdc need its bridge: uvicorn is missing: .+ install '\.\[bridge\]' in",
        done.stdout,
        re.MULTILINE,
    ), done.stdout
    assert "Traceback" not in done.stdout


def test_interrupted_run_ends_and_leaves_no_folder(folder: Path) -> None:
    write(
        folder,
        """
        import pathlib
        import signal

        def test_it(bucket, bridge):
            pathlib.Path("folder").write_text(str(bridge.folder))
            bridge.delay(1000)
            bucket.files.list(print)
            signal.raise_signal(signal.SIGINT)
        """,
    )
    done = pytest_run(folder)
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert "Traceback" not in done.stderr
    assert not Path((folder / "folder").read_text()).exists()


def test_plugin_can_be_switched_off(folder: Path) -> None:
    write(folder, "def test_it(bucket): pass\n")
    done = pytest_run(folder, "-p", "no:pymdc", autoload=True)
    assert "fixture 'bucket' not found" in done.stdout
