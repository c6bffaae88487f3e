"""What crosses between server and engine: small frozen dataclasses, framed as JSON with at most one run of bytes behind it.

A frame is two big-endian 32-bit lengths (header, body), the header (UTF-8 JSON: the type's name and its fields) and the body.
"""

import json
import struct
from dataclasses import dataclass, field, fields
from typing import BinaryIO

from modules.recipe.fields import to_dict
from modules.recipe.upscaling import Described, read

MAX_HEADER = 4 << 20  # bytes
MAX_BODY = 1 << 30  # bytes
_LENGTHS = struct.Struct(">II")


class BrokenFrame(Exception):
    """The other side sent what is no message: the connection cannot be trusted any more."""


@dataclass(frozen=True)
class Message:
    """Anything that crosses."""


@dataclass(frozen=True)
class Run(Message):
    """Draw or enlarge this. The engine answers with Progress, Preview and Picture, and ends with Done, Cancelled or Failed."""

    job: int
    attempt: int
    recipe: Described


@dataclass(frozen=True)
class Cancel(Message):
    """Stop the job now; pictures that are done stay."""

    job: int
    attempt: int


@dataclass(frozen=True)
class Skip(Message):
    """Give up the batch being drawn and go on with the next."""

    job: int
    attempt: int


@dataclass(frozen=True)
class Load(Message):
    """Have this checkpoint ready before it is needed."""

    checkpoint: str


@dataclass(frozen=True)
class Ready(Message):
    """The engine is up. `why` says in a sentence how the number format was chosen."""

    device: str
    number_format: str
    why: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Loading(Message):
    """A checkpoint is being read; `fraction` of it is done."""

    checkpoint: str
    fraction: float


@dataclass(frozen=True)
class Loaded(Message):
    """The checkpoint is warm, in this number format; or `problem` says in one line why it is not."""

    checkpoint: str
    seconds: float
    problem: str = ""
    number_format: str = ""
    why: str = ""


@dataclass(frozen=True)
class Spent(Message):
    """The engine holds memory that it cannot give back (`why` in a sentence): it should be replaced once this job has ended."""

    why: str


@dataclass(frozen=True)
class Progress(Message):
    """Where a job stands: `picture` of `pictures` counts from 0, `phase` is load, encode, draw, enlarge, decode or upscale."""

    job: int
    attempt: int
    picture: int
    pictures: int
    step: int
    steps: int
    phase: str
    seconds_left: float | None


@dataclass(frozen=True)
class Preview(Message):
    """What the picture being drawn looks like by now."""

    job: int
    attempt: int
    picture: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True)
class Picture(Message):
    """A finished picture: a PNG with `infotext` in its text chunk `parameters`."""

    job: int
    attempt: int
    index: int
    seed: int
    width: int
    height: int
    infotext: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Done(Message):
    """All pictures of the job are drawn; `facts` say how."""

    job: int
    attempt: int
    facts: dict[str, object]


@dataclass(frozen=True)
class Cancelled(Message):
    """The job stopped because it was told to."""

    job: int
    attempt: int


@dataclass(frozen=True)
class Failed(Message):
    """The job cannot be drawn; `reason` is one line for the person who asked."""

    job: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class Trained(Message):
    """How a training stands: how much of the whole is done, and in which of its stages it is ("" where it has but one).

    `values` are figures by the names that the training's log gives them. `sample` is a new picture to look at, a PNG; empty for none.
    """

    stage: str
    fraction: float
    seconds_left: float
    values: dict[str, float]
    sample: bytes = field(default=b"", repr=False)


_TYPES = {kind.__name__: kind for kind in Message.__subclasses__()}


def write_frame(stream: BinaryIO, message: Message) -> None:
    """Send one message and flush."""
    header, body = {"type": type(message).__name__}, b""
    for part in fields(message):
        value = getattr(message, part.name)
        if isinstance(value, bytes):
            body = value
        else:
            header[part.name] = to_dict(value) if isinstance(value, Described) else value
    encoded = json.dumps(header, ensure_ascii=False).encode()
    if len(encoded) > MAX_HEADER or len(body) > MAX_BODY:
        raise ValueError(f"a message of {len(encoded)} and {len(body)} bytes is longer than any may be")
    stream.write(_LENGTHS.pack(len(encoded), len(body)) + encoded)
    stream.write(body)
    stream.flush()


def read_frame(stream: BinaryIO) -> Message | None:
    """The next message; None at a clean end of the stream. Anything else raises BrokenFrame, before memory is spent on it."""
    start = stream.read(_LENGTHS.size)
    if not start:
        return None
    if len(start) < _LENGTHS.size:
        raise BrokenFrame("the stream ends within a frame")
    header_length, body_length = _LENGTHS.unpack(start)
    if header_length > MAX_HEADER or body_length > MAX_BODY:
        raise BrokenFrame(f"a frame of {header_length} and {body_length} bytes is longer than any message")
    header, body = stream.read(header_length), stream.read(body_length)
    if len(header) < header_length or len(body) < body_length:
        raise BrokenFrame("the stream ends within a frame")
    try:
        values = json.loads(header)
        kind = _TYPES[values.pop("type")]
        for part in fields(kind):
            if part.type is bytes:
                values[part.name] = body
            elif part.type == Described:
                values[part.name] = read(values[part.name])
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenFrame(f"a frame that is no message: {error}") from error
