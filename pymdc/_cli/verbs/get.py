"""``get`` and ``cat``: fetch files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click
from click.exceptions import Exit

from pymdc import Call, file_hash
from pymdc._cli import complete
from pymdc._cli.address import Address, parse, parse_file, parse_remote
from pymdc._cli.failures import Code, Failure, code_of, failure_of
from pymdc._cli.lookup import Choice, Entry, choice, files_of, find_bucket, find_files
from pymdc._cli.options import dry_run, filters, jobs, verb
from pymdc._cli.parallel import ENDS_ALL, each
from pymdc._cli.progress import bars, finish
from pymdc._cli.session import Session
from pymdc._progress_bar import Line, ProgressBar
from pymdc._text import count_text, printable, size_text
from pymdc.api import Files
from pymdc.exceptions import unwrap

_RESUME = "run the same command again to resume"


@dataclass
class _Download:
    """A file to fetch; it was *typed* if the user wrote its name."""

    files: Files
    entry: Entry
    typed: bool
    path: str = ""
    bar: Line | None = None


@verb
@click.argument(
    "sources",
    metavar="BUCKET:[NAME]... [DEST]",
    nargs=-1,
    required=True,
    shell_complete=complete.path_or_address,
)
@filters
@jobs
@dry_run
@click.option("-y", "--yes", is_flag=True, help="Replace files whose names you did not type.")
def get(
    session: Session,
    sources: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    jobs: int,
    dry_run: bool,
    yes: bool,
) -> None:
    """Fetch files.

    All of BUCKET:, one, or those like a pattern, such as 'photos:*.jpg'.
    DEST is a file, a folder, or - for stdout; without one, it is this folder.
    A download that was interrupted is resumed by the same command.
    """
    addresses, target = _split(sources)
    found = _find(session, addresses, choice(include, exclude))
    if target == "-":
        _print(session, list(found), dry_run=dry_run)
        return
    fetching = _Fetching(session, yes=yes)
    downloads = list(fetching.placed(list(found), target))
    if dry_run:
        for it in downloads:
            text = printable(f"would fetch {it.entry['filename']} to {it.path}")
            session.out.record(it.entry | {"path": it.path, "fetched": False}, text)
    else:
        try:
            fetching.fetch(downloads, jobs)
        except KeyboardInterrupt:
            raise Failure(f"interrupted: {_RESUME}", Code.INTERRUPTED) from None
    fetching.end(told=not dry_run)


@verb
@click.argument(
    "sources", metavar="BUCKET:NAME...", nargs=-1, required=True, shell_complete=complete.address
)
def cat(session: Session, sources: tuple[str, ...]) -> None:
    """Print files to stdout."""
    addresses = [parse_file(text) for text in sources]
    _print(session, list(_find(session, addresses, choice((), ()))), dry_run=False)


def _split(sources: Sequence[str]) -> tuple[list[Address], str]:
    """Return the addresses, and the path or - to which they are fetched."""
    *first, last = sources
    if not first or parse(last):
        return [parse_remote(text) for text in sources], ""
    return [parse_remote(text) for text in first], last


def _find(session: Session, addresses: Sequence[Address], chosen: Choice) -> Iterator[_Download]:
    nothing = True
    for address in addresses:
        files = files_of(session, find_bucket(session, address.bucket))
        typed = not address.is_pattern and not address.hash and bool(address.name)
        for entry in find_files(files, address):
            if chosen(entry["filename"]):
                nothing = False
                yield _Download(files, entry, typed)
    if nothing:
        raise Failure(f"nothing to fetch from {addresses[0]}", Code.NOT_FOUND)


def _print(session: Session, downloads: Sequence[_Download], *, dry_run: bool) -> None:
    if dry_run:
        for it in downloads:
            session.out.note(printable(f"would print {it.entry['filename']}"))
        return
    session.progress = session.progress and not sys.stdout.isatty()
    with bars(session, [it.entry["filename"] for it in downloads]) as drawn:
        for it in downloads:
            bar = drawn.begin(it.entry["filename"], it.entry["size"])
            target = sys.stdout.buffer
            unwrap(it.files.download(it.entry["hash"], to=target, progress=bar))
            target.flush()
            finish(bar, it.entry["size"])


class _Fetching:
    """Fetches files, and counts what became of them."""

    def __init__(self, session: Session, *, yes: bool) -> None:
        self._session = session
        self._yes = yes
        self._sizes: list[int] = []
        self._there = 0
        self._failures: list[Failure] = []

    def placed(self, downloads: Sequence[_Download], target: str) -> Iterator[_Download]:
        """Yield the *downloads* that are to be made, each with the path of its file."""
        is_folder = not target or target.endswith(os.sep) or os.path.isdir(target)
        if not is_folder and len(downloads) > 1:
            message = f"{target} is no folder, and there are {len(downloads)} files"
            remedy = "" if os.path.lexists(target) else f"{target}/ makes the folder"
            raise Failure(message, Code.USAGE, remedy)
        if is_folder and target:
            _make_folder(target)
        taken: dict[str, str] = {}
        for it in downloads:
            try:
                it.path = os.path.join(target, _local_name(it)) if is_folder else target
                if taken.get(it.path) == it.entry["hash"]:
                    continue
                if it.path in taken:
                    raise _twin(it)
                taken[it.path] = it.entry["hash"]
                if self._is_wanted(it, typed=it.typed or not is_folder):
                    yield it
            except Exception as error:  # noqa: BLE001  # the other files are fetched
                self._fail(it, error)

    def _is_wanted(self, it: _Download, *, typed: bool) -> bool:
        """Say whether *it* is to be fetched; a failure if it would replace a file unasked."""
        if not os.path.lexists(it.path):
            return True
        if _is_same(it):
            self._there += 1
            self._session.out.record(it.entry | {"path": it.path, "fetched": False})
            return False
        if not (typed or self._yes):
            raise Failure(f"{it.path} is there and differs", remedy="-y replaces it")
        return True

    def fetch(self, downloads: Sequence[_Download], jobs: int) -> None:
        """Make *downloads*, *jobs* at a time; stop if the bridge cannot be reached any more."""
        with bars(self._session, [it.entry["filename"] for it in downloads]) as drawn:
            with closing(each(downloads, _starter(drawn), jobs)) as calls:
                for it, answer, error in calls:
                    if error is None:
                        self._fetched(it, answer["size"])
                    elif self._fail(it, error).code in ENDS_ALL:
                        break

    def end(self, *, told: bool) -> None:
        """Say what was done, and end the program if something was not."""
        if told and self._sizes:
            total = size_text(sum(self._sizes))
            self._session.out.summary(f"{count_text(len(self._sizes))}, {total}")
        if told and self._there:
            self._session.out.summary(f"{count_text(self._there)} there already")
        if self._failures:
            raise Exit(code_of(self._failures, len(self._sizes) + self._there))

    def _fetched(self, it: _Download, size: int) -> None:
        assert it.bar
        finish(it.bar, size)
        self._sizes.append(size)
        self._session.out.record(it.entry | {"path": it.path, "fetched": True})

    def _fail(self, it: _Download, error: Exception) -> Failure:
        if it.bar:
            it.bar.end()
        failure = failure_of(error)
        if it.path and not failure.message.startswith(it.path):
            failure = failure.about(it.entry["filename"])
        if failure.code == Code.NETWORK:
            failure.remedy += f"; {_RESUME}"
        self._failures.append(failure)
        self._session.out.failure(failure)
        return failure


def _starter(drawn: ProgressBar) -> Any:
    def start(it: _Download, callback: Any) -> Call:
        it.bar = drawn.begin(it.entry["filename"], it.entry["size"])
        call: Call = it.files.download(
            it.entry["hash"], None, callback, to=it.path, progress=it.bar
        )
        return call

    return start


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        raise Failure(f"{path.rstrip(os.sep)} is a file, and no folder") from None


def _is_same(it: _Download) -> bool:
    """Say whether the file is there already."""
    is_as_large = os.path.isfile(it.path) and os.path.getsize(it.path) == it.entry["size"]
    return is_as_large and file_hash(it.path) == it.entry["hash"]


def _local_name(it: _Download) -> str:
    """Return the name of the file, if it is one that cannot leave the folder."""
    name: str = it.entry["filename"]
    separators = {"/", "\0", *filter(None, (os.sep, os.altsep))}
    if name in ("", ".", "..") or separators & set(name) or (os.name == "nt" and ":" in name):
        remedy = f"fetch it to a name of yours: #{it.entry['hash']} NAME"
        raise Failure(f"{name!r} is no name of a file here", remedy=remedy)
    return name


def _twin(it: _Download) -> Failure:
    remedy = f"fetch it to another name: #{it.entry['hash']} NAME"
    return Failure(f"{it.entry['filename']} is the name of another file too", remedy=remedy)
