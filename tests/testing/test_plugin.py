"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from pytest_runs import MODULE, pytest_run

Run = tuple[Path, CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write(folder: Path, text: str, name: str = "test_it.py") -> None:
    (folder / name).write_text(textwrap.dedent(text))


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

OWN_FIXTURES = """
    import pytest

    @pytest.fixture
    def bridge():
        return "London Bridge"

    @pytest.fixture
    def account():
        return "of Monte Cristo"
"""

BESIDE_THEM = """
    import pymdc

    def test_both(bridge, account, bucket, bucket_factory, pymdc_endpoint):
        assert (bridge, account) == ("London Bridge", "of Monte Cristo")
        assert bucket.files.list() == bucket_factory().files.list() == []
        assert len(pymdc.api.Buckets(bucket.key_pair).list()) == 2
"""

INTERRUPTED = """
    import pathlib
    import signal

    def test_it(bucket, bridge):
        pathlib.Path("folder").write_text(str(bridge.folder))
        bridge.delay(1000)
        bucket.files.list(print)
        signal.raise_signal(signal.SIGINT)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the folder of a project, and how its tests have ended: the last is interrupted."""
    folder = tmp_path_factory.mktemp("run") / "project"
    (folder / "own").mkdir(parents=True)
    write(folder, FAILING, "test_1.py")
    write(folder / "own", OWN_FIXTURES, "conftest.py")
    write(folder / "own", BESIDE_THEM, "test_2.py")
    write(folder, INTERRUPTED, "test_3.py")
    return folder, pytest_run(folder, "test_1.py", "own", "test_3.py")


def test_failed_tests_are_those_that_should_fail(run: Run) -> None:
    assert re.search(r" 3 failed, 3 passed, 3 errors in ", run[1].stdout), run[1].stdout
    assert "own/test_2.py" not in run[1].stdout.partition(" short test summary ")[2]


def test_report_of_a_failed_test_has_the_requests(run: Run) -> None:
    reports = "- Requests at the bridge -+\n"
    shown = run[1].stdout
    assert re.search(reports + r"<POST /.*/tokens 503 \(on demand\)>", shown), shown
    assert re.search(reports + "none\n", shown), "of the session's"
    assert re.search(reports + "<GET /.*/files 200>", shown), "of unittest"


def test_wrong_marker_is_said_in_one_line(run: Run) -> None:
    for line in (
        "the marker bridge is wrong: no such setting: shards; expected quota, database, ",
        "the marker bridge is wrong: shard_size is 0; expected bytes, one or more",
        "the marker bridge takes names, as in bridge(shard_size=1000)",
    ):
        assert f"\n{line}" in run[1].stdout
    assert "During handling" not in run[1].stdout


def test_interrupted_run_ends_and_leaves_no_folder(run: Run) -> None:
    folder, done = run
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert "Traceback" not in done.stderr
    assert not Path((folder / "folder").read_text()).exists()


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
    assert len([*(Path(kept) / "shards").glob("[0-9a-f]*")]) == 1
    assert not Path((folder / "folder-1").read_text()).exists()


def test_plugin_imports_nothing_before_a_fixture_which_says_what_is_missing(folder: Path) -> None:
    write(folder, "import sys\nsys.modules['uvicorn'] = None\n", "conftest.py")
    write(
        folder,
        f"""
        import sys

        def ours():
            return [name for name in sys.modules if name.split(".")[0] == "pymdc"]

        def test_before(request):
            assert request.config.pluginmanager.get_plugin("pymdc") is sys.modules["{MODULE}"]
            assert ours() == []

        def test_fixture(bucket):
            pass

        def test_after():
            assert ours() != []
        """,
    )
    done = pytest_run(folder, autoload=True)
    assert re.search(" 2 passed, 1 error in ", done.stdout), done.stdout
    assert re.search(
        r"^the fixtures of pymdc need its bridge: uvicorn is missing: .+ install '\.\[bridge\]' in",
        done.stdout,
        re.MULTILINE,
    ), done.stdout
    assert "Traceback" not in done.stdout
