"""A folder that was read once: what was checked of it is what is used, whatever becomes of it on the disk meanwhile.

Refuses links, and names with a line break, which could pass for two in a listing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_runtime.errors import CorruptArtifact


@dataclass(frozen=True)
class Folder(os.PathLike[str]):
    """`contents` of its files by name, with `/` between folders, in order."""

    path: Path
    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Folder:
        """Every file in it. Raises CorruptArtifact, OSError."""
        folder, contents = Path(path), dict[str, bytes]()
        for file in sorted(folder.rglob("*"), key=lambda file: file.relative_to(folder).as_posix()):
            name = file.relative_to(folder).as_posix()
            if file.is_symlink() or "\n" in name:
                raise CorruptArtifact(
                    f"'{name}' in '{folder}' is a link or has a line break in its name; export it again"
                )
            if file.is_file():
                contents[name] = file.read_bytes()
        return cls(folder, contents)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)
