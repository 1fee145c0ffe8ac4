"""Damaged objects and the files that they spoil, for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from pymdc._text import count_text, printable, size_text
from pymdc.bridge.admin.objects import files_with
from pymdc.bridge.admin.output import Report
from pymdc.bridge.settings import SHOWN_FAULTS
from pymdc.bridge.storage.tables import Shard


class Damage:
    """The damaged objects that a command has found."""

    def __init__(self) -> None:
        self._faults: dict[Shard, str] = {}
        self._files: Mapping[str, Sequence[sa.RowMapping]] = {}

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, shard: Shard, fault: object) -> None:
        """Note a damaged object."""
        self._faults[shard] = str(fault)

    def objects(self) -> list[str]:
        """Return the names of the objects."""
        return [shard.object for shard in self._faults]

    def find_files(self, connection: sa.Connection) -> None:
        """Find the files that the objects spoil."""
        self._files = files_with(connection, [shard.hash for shard in self._faults])

    def json(self) -> list[dict[str, object]]:
        """Return the objects, each with its fault and its files."""
        names = ("user", "bucket", "bucket_name", "filename", "hash", "size")
        return [
            {
                **{"object": shard.object, "size": shard.size, "fault": fault},
                "files": [
                    {name: row[name] for name in names} for row in self._files.get(shard.hash, ())
                ],
            }
            for shard, fault in self._faults.items()
        ]

    def refusal(self, directory: Path, undone: str, do: str) -> Report:
        """Return the report of an *undone* command, which --force would *do* to all else."""
        number = count_text(len(self), "object")
        lines = [f"{undone}: {number} of {directory} cannot be used.", *self.lines()]
        lines.append(f"--force {do} everything else.")
        return Report({"damaged": self.json()}, "\n".join(lines), sound=False)

    def lines(self) -> list[str]:
        """Return a line for each object, and one for each of its files."""
        lines: list[str] = []
        for shard, fault in list(self._faults.items())[:SHOWN_FAULTS]:
            lines.append(f"  {shard.object}  {fault}")
            lines += (f"    {_file_text(row)}" for row in self._files.get(shard.hash, ()))
        more = len(self) - SHOWN_FAULTS
        return lines + ([f"  and {more:,} more, which --json shows"] if more > 0 else [])


def _file_text(row: sa.RowMapping) -> str:
    name, bucket = printable(row["filename"]), printable(str(row["bucket_name"]))
    return f"{name} ({size_text(row['size'])}) in {row['bucket']} ({bucket}) of {row['user']}"
