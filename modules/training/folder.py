"""A folder of pictures with captions to train on: `name.png` with `name.txt` beside it, or a `metadata.jsonl` that names both.

What cannot be used is left out, counted, and said in one line.
"""

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from zlib import crc32

import numpy as np
from PIL import Image, ImageOps

from modules.incoming.reader import MAX_FILE, BadPicture, read
from modules.model_manager.stored import Refused, open_regular, shown
from modules.training import masks
from modules.training.files import Unusable
from modules.training.sources import Example
from modules.training.vocabulary import Vocabulary

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
METADATA = "metadata.jsonl"
MAX_CAPTION = 1 << 16  # bytes
HELD_OUT = 10

Problems = dict[str, list[str]]
"""What is left out: the names, by what is wrong with them."""


@dataclass(frozen=True)
class Folder:
    """Pictures of one size with their captions, a `Source`. Every tenth is held out: nothing trains on it."""

    squares: np.ndarray  # (N, side, side, 3) uint8, in a file of the system's own
    captions: tuple[str, ...]
    left_out: str  # in words

    @property
    def trained(self) -> np.ndarray:
        """The numbers of the pictures to train on, (M,) int."""
        return np.flatnonzero(np.arange(len(self.captions)) % HELD_OUT < HELD_OUT - 1)

    @property
    def held_out(self) -> np.ndarray:
        """The numbers of the others."""
        return np.setdiff1d(np.arange(len(self.captions)), self.trained)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.captions)

    @property
    def counts(self) -> Mapping[str, int]:
        return {"wide": len(self.trained)}

    def pictures(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.squares[rng.choice(self.trained, count)]

    def pairs(self, rng: np.random.Generator, count: int) -> list[Example]:
        return [self.example(number) for number in rng.choice(self.trained, count)]

    def examples(self, rng: np.random.Generator, shelf: str, masked: bool) -> Iterator[Example]:
        """Each picture in turn, over and over."""
        while True:
            for number in self.trained:
                seen = self.example(number)
                mask = masks.anywhere(rng, seen.picture.shape[0]) if masked else None
                yield Example(seen.picture, seen.words, seen.meaning, mask)

    def example(self, number: int) -> Example:
        words = self.captions[number]
        return Example(self.squares[number], words, crc32(words.encode()))


def read_folder(folder: Path, side: int, report: Callable[[float], None] = lambda fraction: None) -> Folder:
    """All pictures of the folder that have a caption, as squares of `side` pixels. Unusable if there are none."""
    if not folder.is_dir():
        what = "not a folder" if os.path.lexists(folder) else "not there"
        raise Unusable(f"{folder} is {what}: name a folder of pictures with captions")
    problems: Problems = {}
    captioned = _captions(folder, problems)
    used = []
    with tempfile.TemporaryFile() as file:  # not in memory, for there may be many; and written, for a full disk kills who maps it
        for done, (name, caption) in enumerate(captioned.items(), 1):
            try:
                file.write(square(_bytes(folder / name, MAX_FILE), side).tobytes())
                used.append(caption)
            except (BadPicture, Refused) as error:
                problems.setdefault("broken pictures", []).append(f"{name}: {error}")
            report(done / len(captioned))
        file.flush()
        left_out = ", ".join(f"{len(names)} {what} ({shown(names[0])})" for what, names in problems.items())
        if not used:
            hint = "each needs a .txt of the same name beside it, or a line in a metadata.jsonl"
            raise Unusable(f"{folder} has no pictures with captions{' but ' + left_out if left_out else ''}: {hint}")
        return Folder(np.memmap(file, np.uint8, "r", shape=(len(used), side, side, 3)), tuple(used), left_out)


def square(data: bytes, side: int) -> np.ndarray:
    """The middle of the picture in a file's bytes, (side, side, 3) uint8: upright, what is transparent white. BadPicture if it is none."""
    image = read(data).image
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS))


def _captions(folder: Path, problems: Problems) -> dict[str, str]:
    """The caption of each picture that has one, by its path below the folder."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    pictures = [name for name in names if name.lower().endswith(ENDINGS)]
    captions = _metadata(folder, problems) if METADATA in names else {}
    for name in pictures:
        text = Path(name).with_suffix(".txt").name
        if name in captions:
            continue
        if text not in names:
            problems.setdefault("pictures without captions", []).append(name)
            continue
        try:
            caption = " ".join(_bytes(folder / text, MAX_CAPTION).decode("utf-8-sig").split())
        except (Refused, UnicodeDecodeError) as error:
            problems.setdefault("unreadable captions", []).append(f"{text}: {error}")
            continue
        if caption:
            captions[name] = caption
        else:
            problems.setdefault("empty captions", []).append(text)
    stems = {Path(name).stem for name in pictures}
    alone = [name for name in names if name.endswith(".txt") and Path(name).stem not in stems]
    alone += [name for name in captions if not (folder / name).exists()]
    if alone:
        problems["captions without pictures"] = alone
    return {name: caption for name, caption in captions.items() if name not in alone}


def _metadata(folder: Path, problems: Problems) -> dict[str, str]:
    """What the lines `{"file_name": "a.png", "text": "a fox"}` of metadata.jsonl say."""
    captions = {}
    try:
        with io.BufferedReader(open_regular(folder / METADATA)) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_CAPTION), b""), 1):
                if not line.strip():
                    continue
                try:
                    name, caption = _entry(line)
                    captions[name] = caption
                except (ValueError, KeyError, TypeError, RecursionError):
                    problems.setdefault(f"bad lines in {METADATA}", []).append(f"line {number}")
    except (Refused, OSError) as error:
        raise Unusable(f"{folder / METADATA}: {error}") from error
    return captions


def _entry(line: bytes) -> tuple[str, str]:
    """(path below the folder, caption). ValueError, KeyError or TypeError for a line that says something else."""
    entry = json.loads(line)
    name, caption = entry["file_name"], " ".join(entry["text"].split())
    path = PurePosixPath(name)
    if not caption or not name.isprintable() or path.is_absolute() or ".." in path.parts:
        raise ValueError(name)
    return str(path), caption


def _bytes(path: Path, most: int) -> bytes:
    """The file's bytes. Refused if there are more than `most`, or it cannot be read."""
    with open_regular(path) as file:
        try:
            data = io.BufferedReader(file).read(most + 1)
        except OSError as error:
            raise Refused(f"unreadable: {error.strerror or error}") from error
    if len(data) > most:
        raise Refused(f"larger than {most >> 10} kB")
    return data
