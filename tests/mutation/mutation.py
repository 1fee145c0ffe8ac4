"""Mutation testing: one place of the client is broken at a time, and some test has to fail.

    tox -e mutation [-- FILE_OR_FOLDER ...]

MUTATION_SIZE mutants (100) are drawn by MUTATION_SEED (1) from all of those in pymdc without the
bridge, or in the files and folders that are named; a change of the code changes few of the draws.
Each lives in a copy of the project, one of MUTATION_JOBS (2), in which those test files run that
run its lines, the nearest ones first, until one fails. A test that hangs has failed. A mutant that
no test can tell from the original stands in equivalents.txt, with the reason.

What is found is remembered in .mutation.json: a later run repeats what depends on a changed file.

The exit status is 0 if at least 97 % of the mutants that are no equivalents were killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mutants import Mutant, mutants

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EQUIVALENTS = HERE / "equivalents.txt"
REMEMBERED = ROOT / ".mutation.json"
REACH = 97  # percent
MARK = "MUTATION_COPY"  # the variable by which all processes of a copy are known
# What all tests may depend on; besides, each depends on its own file.
SHARED = (
    *("*.rst", "*.py", "*.toml", "docs/*.rst", "examples/**/*.py", "examples/*.ipynb"),
    "pymdc/**/*.py",
    *("tests/*.py", "tests/support/*.py", "tests/*/conftest.py", "tests/*/*.json", "tests/*/*.sql"),
)
HIDDEN = shutil.ignore_patterns(".git", ".tox", ".venv", "*_cache", "*.egg-info", "build")
ATTEMPTS = 3
LONGEST = 900  # seconds for one test file without a mutant
COVERAGE = """
[run]
source_dirs = {folder}/pymdc
omit = {folder}/pymdc/bridge/*
data_file = {folder}/.coverage
parallel = true
sigterm = true
patch = subprocess, _exit, fork
"""


@dataclass(frozen=True)
class Copy:
    """A copy of the project in *folder*, in which tests run."""

    folder: Path

    def run(self, arguments: Sequence[str], timeout: float) -> int | None:
        """Run Python with *arguments*; return its status, None if *timeout* seconds were over."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), MARK: str(self.folder)}
        with open(self.folder / ".output", "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                return None
            finally:
                self._end_all()
                process.wait()

    def test(self, name: str, timeout: float, *options: str) -> int | None:
        """Run the tests in the file *name*, up to the first that fails."""
        return self.run(["-m", "pytest", "-x", "-q", "-W", "default", *options, name], timeout)

    def _end_all(self) -> None:
        """Kill what runs in this copy, in whatever process group."""
        mark = f"{MARK}={self.folder}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:  # it has ended, or is somebody else's
                continue

    def write(self, path: str, source: str) -> None:
        """Let the module at *path* be *source*."""
        place = self.folder / path
        place.write_text(source, encoding="utf-8")
        # Of another source of the same size and second, what was compiled would be taken for it.
        py_compile.compile(str(place), doraise=True)


@dataclass(frozen=True)
class Tested:
    """How long a test file takes, and which lines of which modules it runs."""

    seconds: float
    lines: Mapping[str, Sequence[int]]


class Memory:
    """What earlier runs found out, as long as nothing that it depends on has changed.

    What a test file does depends on itself, on the code, and on what all tests share.
    """

    def __init__(self) -> None:
        files = {path for place in SHARED for path in ROOT.glob(place)}
        tests = set(ROOT.glob("tests/*/test_*.py"))
        shared = sorted(files - tests)
        code = hashlib.sha256(b"".join(path.read_bytes() for path in shared))
        self.digests: dict[str, str] = {}  # of the test files, by their names
        for path in sorted(tests):
            digest = code.copy()
            digest.update(path.read_bytes())
            self.digests[str(path.relative_to(ROOT))] = digest.hexdigest()
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {}
        if REMEMBERED.exists():
            known = json.loads(REMEMBERED.read_text(encoding="utf-8"))
            digests = set(self.digests.values())
            self._facts = {name: fact for name, fact in known.items() if fact[0] in digests}

    def get(self, name: str) -> Any:
        """Return the fact of this *name*, None if it is not known."""
        return self._facts.get(name, [None, None])[1]

    def put(self, name: str, test: str, fact: object) -> None:
        """Remember a *fact* that the file *test* has shown."""
        with self._lock:
            self._facts[name] = self.digests[test], fact
            part = REMEMBERED.with_suffix(".part")
            part.write_text(json.dumps(self._facts), encoding="utf-8")
            part.replace(REMEMBERED)


def all_tested(pool: Executor, copies: SimpleQueue[Copy], memory: Memory) -> dict[str, Tested]:
    """Return what each test file takes and runs."""
    names = sorted(memory.digests)
    return dict(zip(names, pool.map(partial(tested, copies, memory), names), strict=True))


def tested(copies: SimpleQueue[Copy], memory: Memory, name: str) -> Tested:
    """Run the test file *name* alone, and once more under coverage; raise if it fails alone."""
    if known := memory.get(name):
        return Tested(*known)
    copy = copies.get()
    try:
        begun = time.monotonic()
        if copy.test(name, LONGEST) != 0 and copy.test(name, LONGEST, "--last-failed") != 0:
            output = (copy.folder / ".output").read_text(encoding="utf-8")
            raise RuntimeError(f"{name} fails without a mutant:\n{output[-5000:]}")
        seconds = time.monotonic() - begun
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        lines = _lines(copy, name)
        memory.put(name, name, (seconds, lines))
        return Tested(seconds, lines)
    finally:
        copies.put(copy)


def _lines(copy: Copy, name: str) -> dict[str, list[int]]:
    """Return the lines of each module that the tests in *name* run, in any process."""
    config = copy.folder / ".coveragerc"
    config.write_text(COVERAGE.format(folder=copy.folder), encoding="utf-8")
    copy.run(["-m", "coverage", "erase"], LONGEST)
    copy.run(["-m", "coverage", "run", "-m", "pytest", "-q", name], LONGEST)
    copy.run(["-m", "coverage", "combine"], LONGEST)
    copy.run(["-m", "coverage", "json", "-o", ".lines"], LONGEST)
    files = json.loads((copy.folder / ".lines").read_text(encoding="utf-8"))["files"]
    return {
        str((copy.folder / path).relative_to(copy.folder)): file["executed_lines"]
        for path, file in files.items()
    }


def killer(
    copies: SimpleQueue[Copy], memory: Memory, tests: Mapping[str, Tested], mutant: Mutant
) -> str | None:
    """Return the test file that fails with *mutant*, None where all of them pass."""
    if known := memory.get(mutant.digest):
        return str(known)
    copy = copies.get()
    try:
        original = (copy.folder / mutant.path).read_text(encoding="utf-8")
        copy.write(mutant.path, mutant.source)
        names = (name for name in nearest(tests, mutant) if fails(copy, name, tests[name].seconds))
        found = next(names, None)
        copy.write(mutant.path, original)
    finally:
        copies.put(copy)
    if found:
        memory.put(mutant.digest, found, found)
    said = f"killed by {found}" if found else f"SURVIVED\n{mutant.diff}"
    print(f"{mutant.path}:{mutant.lines.start} {said}", file=sys.stderr, flush=True)
    return found


def fails(copy: Copy, name: str, seconds: float) -> bool:
    """Say whether a test of the file *name* fails, and fails once more when it is run alone.

    One that does not fail again was disturbed by something else, and may have hidden others.
    """
    shutil.rmtree(copy.folder / ".pytest_cache", ignore_errors=True)
    timeout = 30 + 5 * seconds
    for _ in range(ATTEMPTS):
        if copy.test(name, timeout) == 0:
            return False
        if copy.test(name, timeout, "--last-failed") != 0:
            return True
    return False


def nearest(tests: Mapping[str, Tested], mutant: Mutant) -> list[str]:
    """Return the test files that run the lines of *mutant*, those first that are likely to fail.

    Where no test runs them, as far as coverage knows, these are the nearest ones.
    """
    path = Path(mutant.path)
    folder, name = f"tests/{path.parent.name.strip('_')}/", f"/test_{path.stem.strip('_')}.py"

    def distance(test: str) -> tuple[int, float]:
        near = 0 if test.endswith(name) else 1 if test.startswith(folder) else 3
        return (2 if "/guarantees/" in test else near), tests[test].seconds

    found = [test for test in tests if _runs(tests[test], mutant)]
    return sorted(found or [test for test in tests if distance(test)[0] < 2], key=distance)


def _runs(test: Tested, mutant: Mutant) -> bool:
    return not set(mutant.lines).isdisjoint(test.lines.get(mutant.path, ()))


def equivalents() -> dict[str, str]:
    """Return the reasons in the list of equivalents, by the names of the mutants."""
    blocks = EQUIVALENTS.read_text(encoding="utf-8").strip().split("\n\n")
    entries = [block.rpartition("\n") for block in blocks if not block.startswith("#")]
    return {name: reason for name, _, reason in entries}


def everything(places: Iterable[str]) -> list[Mutant]:
    """Return all mutants of the modules in *places*, which are files and folders."""
    paths = [ROOT / place for place in places]
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}
    names = sorted(str(file.relative_to(ROOT)) for file in files)
    return [
        mutant
        for name in names
        if not name.startswith("pymdc/bridge/")
        for mutant in mutants(name, (ROOT / name).read_text(encoding="utf-8"))
    ]


def lot(seed: str, mutant: Mutant) -> str:
    """Return the lot of *mutant*, by which it is drawn."""
    return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()


def main(places: Sequence[str]) -> int:
    size, seed = int(os.environ.get("MUTATION_SIZE", 100)), os.environ.get("MUTATION_SEED", "1")
    found, known = everything(places or ["pymdc"]), equivalents()
    stale = sorted(known.keys() - {mutant.name for mutant in everything(["pymdc"])})
    chosen = sorted(found, key=partial(lot, seed))[:size]
    drawn = [mutant for mutant in chosen if mutant.name not in known]
    print(f"{len(found)} mutants; {len(chosen)} drawn by seed {seed}", file=sys.stderr)
    jobs = int(os.environ.get("MUTATION_JOBS", 2))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            shutil.copytree(ROOT, Path(folder, str(number)), ignore=HIDDEN, symlinks=True)
            copies.put(Copy(Path(folder, str(number))))
        memory = Memory()
        tests = all_tested(pool, copies, memory)
        killers = list(pool.map(partial(killer, copies, memory, tests), drawn))
    return report(dict(zip(drawn, killers, strict=True)), tests, len(chosen), stale)


def report(
    killers: Mapping[Mutant, str | None],
    tests: Mapping[str, Tested],
    chosen: int,
    stale: Sequence[str],
) -> int:
    """Print what became of the mutants; return the exit status."""
    alive = [mutant for mutant, test in killers.items() if test is None]
    unseen = [m for m in alive if not any(_runs(test, m) for test in tests.values())]
    for title, some in (("that no test runs", unseen), ("that survived", alive)):
        print(f"\nMutants {title}:" if some else f"\nNo mutants {title}.")
        for mutant in some:
            if some is unseen or mutant not in unseen:
                print(f"\n{mutant.path}:{mutant.lines.start}\n{mutant.name}")
    for name in stale:
        print(f"\nIn {EQUIVALENTS.name}, but no mutant any more:\n{name}")
    killed = len(killers) - len(alive)
    share = 100 * killed / max(1, len(killers))
    print(
        f"\n{chosen} drawn, {chosen - len(killers)} equivalents, {killed} killed,"
        f" {len(alive)} survived ({len(unseen)} of them where no test runs): {share:.1f} %"
    )
    return int(share < REACH or bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
