"""The prompt's grammar: emphasis and chunks, as users of the AUTOMATIC1111 web UI write them.

`(x)` weighs x by 1.1, `[x]` by 1/1.1, `(x:1.3)` by 1.3; they nest; a backslash makes a bracket literal; `BREAK` begins a new
chunk. The text encoder reads chunks of 75 tokens. No input is an error: what is no syntax is text.

`<lora:name:1>` asks for a LoRA and is no part of the text.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

START, END = 49406, 49407  # CLIP's special tokens; END pads too
CHUNK = 75  # tokens between START and END
COMMA = 267  # ",</w>"
COMMA_REACH = 20  # tokens after the last comma that may move to the next chunk

Encode = Callable[[str], list[int]]

# Possessive throughout: hostile prompts must not make it look twice at anything.
_TOKEN = re.compile(r"\\(.)|([(\[])|:[ \t]*+([+-]?(?:\d++\.?\d*+|\.\d++))[ \t]*+\)|([)\]])|\b(BREAK)\b\s*+", re.DOTALL)
_NETWORK = re.compile(r"<(\w++):([^<>]++)>")
_ROUND, _SQUARE = 1.1, 1 / 1.1
_DEPTH = 16  # brackets nested deeper are text: keeps hostile prompts linear


@dataclass(frozen=True)
class Part:
    """A run of text of one weight; `breaks` marks the end of a chunk instead."""

    text: str
    weight: float
    breaks: bool = False


@dataclass(frozen=True)
class Chunk:
    """What the text encoder reads at once: 77 token ids (START, up to 75, END, padding) and a weight for each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Network:
    """A LoRA that a prompt asks for: how much of it acts on the text encoder and on the U-Net (1 is as it was trained, 0 not at all)."""

    name: str
    text: float
    unet: float


def words(prompt: str) -> str:
    """The prompt as the text encoder reads it: without its `<kind:…>`, whatever the kind."""
    return _NETWORK.sub("", prompt)


def networks(prompt: str) -> list[Network]:
    """The LoRAs of `<lora:name>`, `<lora:name:1>`, `<lora:name:0.5:1>` and `<lora:name:te=0.5:unet=1>`, in order; `lyco` means the same.

    The first number is for the text encoder, and for the U-Net too unless that has its own; left out, it is 1. Raises ValueError
    with one line for what has no name, or a weight that is no number.
    """
    return [_network(*found[2].split(":")) for found in _NETWORK.finditer(prompt) if found[1] in ("lora", "lyco")]


def _network(name: str, *arguments: str) -> Network:
    if not name.strip():
        raise ValueError("<lora:…> has no name")
    placed = [argument for argument in arguments if "=" not in argument]
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    given = {**dict(zip(("te", "unet", "dyn"), placed, strict=False)), **{key.strip(): value for key, value in named.items()}}
    strange = given.keys() - {"te", "unet"}
    if strange:
        raise ValueError(f"<lora:{name:.100}> has {min(strange)!r:.60} besides its weights te and unet, which is not supported")
    weights = {key: _weight(name, value) for key, value in given.items()}
    text = weights.get("te", 1.0)
    return Network(name, text, weights.get("unet", text))


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(f"the weight {text!r:.60} of <lora:{name:.100}> is not a number")
    return weight


def parse(text: str) -> list[Part]:
    """The prompt as parts in order; neighbours of equal weight are one. Linear in the text's length."""
    texts: list[str | None] = []  # None is a BREAK
    weights: list[float] = []
    open_round: list[int] = []  # where each bracket that is still open began, as an index into texts
    open_square: list[int] = []
    done = 0

    def say(run: str | None) -> None:
        texts.append(run)
        weights.append(1.0)

    def weigh(start: int, factor: float) -> None:
        weights[start:] = [weight * factor for weight in weights[start:]]

    for match in _TOKEN.finditer(text):
        escaped, opening, number, closing, breaks = match.groups()
        plain, done = text[done : match.start()], match.end()
        if plain := plain.rstrip() if breaks else plain:
            say(plain)
        if opening and len(open_round) + len(open_square) < _DEPTH:
            (open_round if opening == "(" else open_square).append(len(texts))
        elif number and open_round:
            weigh(open_round.pop(), float(number))
        elif closing == ")" and open_round:
            weigh(open_round.pop(), _ROUND)
        elif closing == "]" and open_square:
            weigh(open_square.pop(), _SQUARE)
        else:
            say(None if breaks else escaped or match.group())
    if done < len(text):
        say(text[done:])
    for start in open_round:
        weigh(start, _ROUND)
    for start in open_square:
        weigh(start, _SQUARE)
    return _merged(texts, weights) or [Part("", 1.0)]


def _merged(texts: list[str | None], weights: list[float]) -> list[Part]:
    """Neighbours of equal weight joined, so that the tokenizer sees whole words; each BREAK stays a part of its own."""
    parts: list[Part] = []
    for (weight, breaks), run in groupby(zip(texts, weights, strict=True), key=lambda pair: (pair[1], pair[0] is None)):
        if breaks:
            parts += [Part("", weight, breaks=True) for _ in run]
        else:
            parts.append(Part("".join(text for text, _ in run), weight))
    return parts


def chunk(parts: list[Part], encode: Encode) -> list[Chunk]:
    """The parts as chunks of 75 tokens; at least one. `encode` gives the token ids of a text, without START and END.

    A word after a comma moves to the next chunk as a whole when the chunk fills up, if it is at most 20 tokens long.
    """
    chunks: list[Chunk] = []
    pending: list[tuple[int, float]] = []  # (token, weight) of the chunk being filled
    after_comma = 0  # where in it the text after the last comma begins

    for part in parts:
        if part.breaks:
            chunks.append(_filled(pending))
            pending, after_comma = [], 0
            continue
        for token in encode(part.text):
            if len(pending) == CHUNK and token != COMMA and 0 < CHUNK - after_comma <= COMMA_REACH:
                chunks.append(_filled(pending[:after_comma]))
                pending = pending[after_comma:]
                after_comma = 0
            elif len(pending) == CHUNK:
                chunks.append(_filled(pending))
                pending, after_comma = [], 0
            pending.append((token, part.weight))
            if token == COMMA:
                after_comma = len(pending)
    if pending or not chunks:
        chunks.append(_filled(pending))
    return chunks


def count(text: str, encode: Encode) -> tuple[int, int]:
    """How many tokens the prompt takes, and how many its chunks hold: (12, 75)."""
    chunks = chunk(parse(words(text)), encode)
    last = sum(1 for token in chunks[-1].ids if token != END) - 1
    return CHUNK * (len(chunks) - 1) + last, CHUNK * len(chunks)


def _filled(pending: list[tuple[int, float]]) -> Chunk:
    padding = CHUNK - len(pending)
    ids = (START, *(token for token, _ in pending), *[END] * (padding + 1))
    return Chunk(ids, (1.0, *(weight for _, weight in pending), *[1.0] * (padding + 1)))

