"""The source distribution: it holds what git has, and its tests run on what it installs.

`tox -e sdist` runs this; its arguments are pytest's, by default those tests that read other files
of the distribution, those of the API's methods, and those of uploads. It needs an index of
packages.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = [
    "tests/packaging",
    "tests/docs",
    "tests/api/test_resources.py",
    "tests/bridge/test_deploy.py",
    "tests/bridge/test_options.py",
    "tests/bridge/test_uploads.py",
]
MADE = {"PKG-INFO", "setup.cfg"}  # by setuptools, besides *.egg-info


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Run *command* in *folder*; end here if it fails."""
    return subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE).stdout


def built(folder: Path) -> Path:
    run(sys.executable, "-m", "build", "--outdir", folder)
    run(sys.executable, "-m", "twine", "check", "--strict", *folder.iterdir())
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    return folder / sdist.name.removesuffix(".tar.gz")


def check_files(source: Path) -> None:
    """Compare the files in *source* with those of git, where this is a clone."""
    if not (ROOT / ".git").exists():
        return
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    files = {name for name in files if ".egg-info/" not in name} - MADE
    tracked = {name for name in run("git", "ls-files").splitlines() if (ROOT / name).exists()}
    missing, unknown = sorted(tracked - files), sorted(files - tracked)
    if missing or unknown:
        sys.exit(f"missing in the sdist: {missing}; not in git: {unknown}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = unpacked(built(folder / "dist"), folder)
        check_files(source)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--force-reinstall"]
        run(*pip, f"{source}[all]")
        command = [sys.executable, "-m", "pytest", "-n", "3"]
        status = subprocess.run([*command, *(sys.argv[1:] or TESTS)], cwd=source, check=False)
        sys.exit(status.returncode)


if __name__ == "__main__":
    main()
