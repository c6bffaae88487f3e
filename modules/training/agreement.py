"""Whether pictures show what was asked for, going by what a judge saw in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from torch import Tensor

from modules.training.grammar import BIG, SMALL
from modules.training.judge import Found, Judge, Seen, seen
from modules.training.scenes import Placed, Scene, side_of

SMALL_BELOW = 80  # pixels: things that are said to be small have at most 64, others 96 and more
APART = 1.25  # the least ratio of the sizes of a big and a small thing


@dataclass(frozen=True)
class Asked:
    """A scene and the words for it. What the words leave open is not judged."""

    scene: Scene
    words: str


@dataclass(frozen=True)
class Share:
    """How many of how many are right."""

    right: int
    of: int

    def __str__(self) -> str:
        return f"{self.right / self.of:.1%} of {self.of}".replace("%", " %") if self.of else "none asked"


@dataclass(frozen=True)
class Agreement:
    """`thing`, `colour`, `size` and `place` count things or pairs of them; `both` and `background` count pictures."""

    thing: Share
    colour: Share
    both: Share
    place: Share
    size: Share
    background: Share


def agreement(judge: Judge, pictures: Tensor, asked: Sequence[Asked]) -> Agreement:
    """How well pictures (N, 3, H, W) in [-1, 1] agree with what was asked, one by one."""
    return tally(seen(judge, pictures), asked)


def tally(found: Sequence[Seen], asked: Sequence[Asked]) -> Agreement:
    answers: dict[str, list[bool]] = {name: [] for name in Agreement.__dataclass_fields__}
    for one, wanted in zip(found, asked, strict=True):
        for name, right in _answers(one, wanted):
            answers[name].append(right)
    return Agreement(**{name: Share(sum(rights), len(rights)) for name, rights in answers.items()})


def matched(found: Seen, scene: Scene) -> tuple[Found | None, ...]:
    """For each thing of the scene what stands for it: of as many things as were asked for, the surest, those that are right first."""
    count = len(scene.things)
    surest = sorted(found.things, key=lambda each: -each.confidence)[:count]

    def fit(order: tuple[Found | None, ...]) -> tuple[int, float]:
        pairs = [(each, placed) for each, placed in zip(order, scene.things, strict=True) if each]
        return sum(each.thing == placed.thing for each, placed in pairs), -sum(_distance(each, placed) for each, placed in pairs)

    return max(permutations([*surest, *[None] * (count - len(surest))]), key=fit)


def _distance(found: Found, placed: Placed) -> float:
    return abs(found.x - placed.left - placed.size / 2)


def _answers(found: Seen, asked: Asked) -> Iterator[tuple[str, bool]]:
    """What the words ask, and whether it is so: the thing in question must be there, and for its place it must be the right one."""
    scene, said = asked.scene, set(asked.words.replace(",", " ").split())
    pairs = list(zip(matched(found, scene), scene.things, strict=True))
    rights = [each is not None and each.thing == placed.thing for each, placed in pairs]
    yield from (("thing", right) for right in rights)
    for each, placed in pairs:
        if placed.colour in said and scene.style == 0:
            yield "colour", each is not None and each.colour == placed.colour
    yield from _alone(*pairs[0], scene, said) if len(pairs) == 1 else _together(pairs, rights, said)
    yield "background", found.background == scene.background


def _alone(found: Found | None, placed: Placed, scene: Scene, said: set[str]) -> Iterator[tuple[str, bool]]:
    if said & {"left", "right", "middle"}:
        yield "place", found is not None and side_of(found.x / scene.side) == scene.where(placed)
    if said & {*SMALL, *BIG}:
        yield "size", found is not None and (found.size < SMALL_BELOW) == scene.small(placed)


def _together(pairs: list[tuple[Found | None, Placed]], rights: list[bool], said: set[str]) -> Iterator[tuple[str, bool]]:
    (one, left), (other, right) = pairs
    yield "both", all(rights)
    if said & {"left", "right"}:
        yield "place", all(rights) and one.x < other.x
    if left.size != right.size:
        ratio = one.size / other.size if one and other else 1.0
        yield "size", ratio > APART if left.size > right.size else ratio < 1 / APART
