import io
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.jobs.messages import BrokenFrame, Cancel, Done, Picture, Progress, Run, read_frame, write_frame
from modules.recipe.fields import Recipe
from modules.recipe.upscaling import Upscaling

MESSAGES = [
    Run(1, 1, Recipe(prompt="a fox 🦊", seed=3, checkpoint="starter.safetensors")),
    Run(2, 1, Upscaling(picture="0" * 64, name="a photo.png", upscaler="Lanczos", factor=2.5)),
    Cancel(1, 2),
    Progress(1, 1, 0, 4, 3, 20, "draw", 1.5),
    Picture(1, 1, 0, 3, 64, 64, "a fox\nSteps: 20", b"\x89PNG\x00\xff"),
    Done(1, 1, {"seconds": {"draw": 1.5}}),
]


def test_messages_survive_the_wire():
    wire = io.BytesIO()
    for message in MESSAGES:
        write_frame(wire, message)
    wire.seek(0)
    assert [read_frame(wire) for _ in MESSAGES] == MESSAGES
    assert read_frame(wire) is None


def framed(header, body=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">II", len(encoded), len(body)) + encoded + body


@pytest.mark.parametrize(
    "wire",
    [
        b"\0\0",
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 10, 2**31),
        framed({"type": "Cancel", "job": 1, "attempt": 1})[:-3],
        framed(b"not json"),
        framed([1, 2]),
        framed({"type": "System"}),
        framed({"type": "Message"}),
        framed({"type": "Cancel", "job": 1}),
        framed({"type": "Cancel", "job": 1, "attempt": 1, "more": 1}),
        framed({"type": "Run", "job": 1, "attempt": 1, "recipe": {"steps": -5}}),
        framed({"type": "Run", "job": 1, "attempt": 1, "recipe": 5}),
    ],
)
def test_what_is_no_message_is_refused(wire):
    with pytest.raises(BrokenFrame):
        read_frame(io.BytesIO(wire))


def test_the_longest_legal_recipe_fits_and_what_does_not_fails_where_it_is_sent():
    wire = io.BytesIO()
    longest = Run(1, 1, Recipe(prompt="🦊" * 100_000, negative_prompt="漢" * 100_000, seed=1))
    write_frame(wire, longest)
    wire.seek(0)
    assert read_frame(wire) == longest
    with pytest.raises(ValueError, match="longer"):
        write_frame(io.BytesIO(), Run(1, 1, Recipe(prompt="x" * (5 << 20), seed=1)))


@given(st.binary(max_size=200))
def test_garbage_is_never_more_than_a_broken_frame(garbage):
    try:
        read_frame(io.BytesIO(garbage))
    except BrokenFrame:
        return
