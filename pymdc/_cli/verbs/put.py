"""``put``: send files to a bucket."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, BinaryIO

import click
from click.exceptions import Exit

from pymdc import Call
from pymdc._cli import complete
from pymdc._cli.address import Address, parse
from pymdc._cli.failures import Code, Failure, code_of, failure_of
from pymdc._cli.lookup import Entry, choice, files_of, find_bucket, named, twins
from pymdc._cli.options import dry_run, filters, jobs, verb
from pymdc._cli.parallel import ENDS_ALL, each
from pymdc._cli.progress import bars, finish
from pymdc._cli.session import Session
from pymdc._progress_bar import Line, ProgressBar
from pymdc._text import count_text, printable, size_text
from pymdc.api import Files
from pymdc.exceptions import unwrap


@dataclass
class _Upload:
    """A file to send: *source* is its path, or a temporary file with what was piped in.

    With a *problem* it cannot be sent.
    """

    source: str | BinaryIO
    path: str
    name: str | None
    size: int | None = None
    problem: Failure | None = None
    bar: Line | None = None

    @property
    def shown_name(self) -> str:
        return self.name or os.path.basename(self.path)


@verb
@click.argument(
    "sources",
    metavar="FILE... BUCKET:[NAME]",
    nargs=-1,
    required=True,
    shell_complete=complete.path_or_address,
)
@click.option("--replace", is_flag=True, help="Remove other files of the same name afterwards.")
@filters
@jobs
@dry_run
def put(
    session: Session,
    sources: tuple[str, ...],
    replace: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    jobs: int,
    dry_run: bool,
) -> None:
    """Send files to a bucket.

    The file - is stdin, which is kept in a temporary file first: the bridge has to know its size.
    """
    *paths, last = sources
    target = _target(paths, last)
    bucket = find_bucket(session, target.bucket)
    chosen = choice(include, exclude)
    wanted = [path for path in paths if path == "-" or chosen(os.path.basename(path))]
    if not wanted:
        raise Failure("nothing is left after --include and --exclude", Code.NOT_FOUND)
    if dry_run:
        _tell_all(session, wanted, target)
        return
    sending = _Sending(session, files_of(session, bucket), target.bucket, replace=replace)
    with ExitStack() as stack:
        sending.send([_upload(session, path, target, stack) for path in wanted], jobs)
    sending.end()


def _target(paths: Sequence[str], last: str) -> Address:
    target = parse(last)
    if target is None:
        message = f"{last} is a path; expected FILE... BUCKET:[NAME]"
        remedy = f"pymdc put {' '.join(paths)} {last}:" if paths and "/" not in last else ""
        raise Failure(message, Code.USAGE, remedy)
    if not paths:
        raise Failure(f"what is to be sent? expected FILE... {target.bucket}:", Code.USAGE)
    if target.name and len(paths) > 1:
        remedy = f"several files keep their names: {target.bucket}:"
        raise Failure(f"{target} is the name of one file", Code.USAGE, remedy)
    if "/" in target.name:
        remedy = f"pymdc sync sends a folder, to {target.bucket}:FOLDER"
        raise Failure(f"{target.name}: a name has no /", Code.USAGE, remedy)
    if "-" in paths and not target.name:
        raise Failure(f"stdin has no name; expected {target.bucket}:NAME", Code.USAGE)
    return target


def _tell_all(session: Session, paths: Sequence[str], target: Address) -> None:
    for path in paths:
        name = target.name or os.path.basename(path)
        size = None if path == "-" else os.stat(path).st_size
        record = {"path": path, "filename": name, "size": size, "sent": False}
        session.out.record(record, printable(f"would send {path} as {target.bucket}:{name}"))


def _upload(session: Session, path: str, target: Address, stack: ExitStack) -> _Upload:
    name = target.name or None
    if path == "-":
        return _Upload(_spooled(session, sys.stdin.buffer, stack), path, name)
    try:
        status = os.stat(path)
    except OSError:
        return _Upload(path, path, name)  # the upload says what is wrong
    if stat.S_ISDIR(status.st_mode):
        return _Upload(path, path, name, problem=_is_folder(path, target.bucket))
    if stat.S_ISFIFO(status.st_mode):
        with open(path, "rb") as pipe:
            return _Upload(_spooled(session, pipe, stack), path, name or os.path.basename(path))
    return _Upload(path, path, name, status.st_size)


def _is_folder(path: str, bucket: str) -> Failure:
    remedy = f"pymdc sync {path} {bucket}: sends a folder, pymdc put {path}/* {bucket}: its files"
    return Failure(f"{path}: it is a folder", Code.USAGE, remedy)


def _spooled(session: Session, pipe: BinaryIO, stack: ExitStack) -> BinaryIO:
    """Return a temporary file with all that comes out of *pipe*."""
    folder = tempfile.gettempdir()
    if session.progress and sys.stderr.isatty():
        session.out.note(f"keeping what comes in {folder}, and sending it when that ends")
    file: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # on the stack
    try:
        shutil.copyfileobj(pipe, file, 1024 * 1024)
        file.seek(0)
    except OSError as error:
        remedy = "TMPDIR names another folder for temporary files"
        raise Failure(f"a temporary file in {folder}: {error.strerror}", remedy=remedy) from None
    return file


class _Sending:
    """Sends files to a bucket, and counts what became of them."""

    def __init__(self, session: Session, files: Files, bucket: str, *, replace: bool) -> None:
        self._session = session
        self._files = files
        self._bucket = bucket
        self._replace = replace
        self._sizes: list[int] = []
        self._missing = 0
        self._failures: list[Failure] = []

    def send(self, uploads: Sequence[_Upload], jobs: int) -> None:
        """Send *uploads*, *jobs* at a time; stop if the bridge cannot be reached any more."""
        with bars(self._session, [upload.shown_name for upload in uploads]) as drawn:
            with closing(each(uploads, self._starter(drawn), jobs)) as calls:
                for upload, entry, error in calls:
                    try:
                        if error:
                            raise error
                        self._sent(upload, entry)
                    except Exception as exception:  # noqa: BLE001  # the other files go on
                        if self._fail(upload, exception).code in ENDS_ALL:
                            break
        self._missing = len(uploads) - len(self._sizes)

    def end(self) -> None:
        """Say what was done, and end the program if something was not."""
        if self._sizes:
            missing = f"; {self._missing:,} not sent" if self._missing else ""
            total = size_text(sum(self._sizes))
            self._session.out.summary(f"{count_text(len(self._sizes))}, {total}{missing}")
        if self._failures:
            raise Exit(code_of(self._failures, len(self._sizes)))

    def _starter(self, drawn: ProgressBar) -> Any:
        def start(upload: _Upload, callback: Any) -> Call:
            if upload.problem:
                raise upload.problem
            upload.bar = drawn.begin(upload.shown_name, upload.size)
            call: Call = self._files.upload(
                upload.source, None, callback, name=upload.name, progress=upload.bar
            )
            return call

        return start

    def _fail(self, upload: _Upload, error: Exception) -> Failure:
        if upload.bar:
            upload.bar.end()
        failure = failure_of(error).about(upload.path)
        self._failures.append(failure)
        self._session.out.failure(failure)
        return failure

    def _sent(self, upload: _Upload, entry: Entry) -> None:
        assert upload.bar
        finish(upload.bar, entry["size"])
        self._sizes.append(entry["size"])
        self._session.out.record(entry | {"path": upload.path})
        others = named(self._files, entry["filename"])
        older = [other for other in others if other["hash"] != entry["hash"]]
        if self._replace:
            for other in older:
                unwrap(self._files.delete(other["hash"]))
        elif older:
            name = printable(f"{self._bucket}:{entry['filename']}")
            told = f"{name} is there {len(others)} times now; --replace keeps one:"
            self._session.out.note(f"{told}\n{twins(others, self._bucket)}")
