"""The pictures that jobs start from: each lies in one folder under the hash of its bytes, and is named by it everywhere."""

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from modules.incoming.reader import MAX_FILE, Incoming, read, read_mask

ID = re.compile("[0-9a-f]{64}")
GONE = "the picture is not there any more: choose it again"
FRESH = 3600.0  # seconds that a picture is kept without anyone having named it yet


@dataclass(frozen=True)
class Shelf:
    """Pictures by id in `folder`. What is on it was read once, whole, before it was put there."""

    folder: Path
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False, compare=False)  # what lies there never changes

    def keep(self, data: bytes) -> str:
        """Puts a picture's file there and returns its id. BadPicture if it is none, OSError if it cannot be written."""
        id = hashlib.sha256(data).hexdigest()
        self._sizes[id] = read(data).image.size
        path = self.folder / id
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)  # fresh again
            return id
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{secrets.token_hex(8)}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return id

    def data(self, id: str) -> bytes:
        """The picture's file. LookupError if it is not there (any more)."""
        if not ID.fullmatch(id):
            raise LookupError(GONE)
        try:
            with open(self.folder / id, "rb") as file:
                return file.read(MAX_FILE)
        except OSError:
            raise LookupError(GONE) from None

    def picture(self, id: str) -> Incoming:
        return read(self.data(id))

    def mask(self, id: str) -> Image.Image:
        """The picture read as a mask ("L")."""
        return read_mask(self.data(id))

    def size_of(self, id: str) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        if not ID.fullmatch(id) or not (self.folder / id).is_file():
            raise LookupError(GONE)
        if id not in self._sizes:
            self._sizes[id] = self.picture(id).image.size
        return self._sizes[id]

    def mask_extremes(self, id: str) -> tuple[int, int]:
        """The darkest and the lightest value of a mask, 0 to 255."""
        return self.mask(id).getextrema()

    def sweep(self, needed: Collection[str]) -> None:
        """Removes what nobody needs and was not put here just now."""
        for path in self.folder.glob("*") if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.name not in needed and path.lstat().st_mtime < time.time() - FRESH:
                    path.unlink()
