"""What the starter can draw: its things, the icons that show them, and the colours that some of them come in."""

from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (252, 47, 46),
    "orange": (255, 131, 20),
    "yellow": (255, 205, 30),
    "green": (38, 178, 72),
    "blue": (18, 128, 240),
    "purple": (134, 82, 214),
    "pink": (255, 112, 196),
}
"""What each colour looks like as the main colour of a thing, sRGB."""


@dataclass(frozen=True)
class Thing:
    """One class. `names[0]` is the usual word; the others are as good in a caption. `icon` is an iconify id.

    `colour` is the drawing's own main colour for things that come in all of `COLOURS`, empty for those that come in one only.
    """

    names: tuple[str, ...]
    icon: str
    colour: str = ""

    @property
    def name(self) -> str:
        return self.names[0]


def _thing(names: str, icon: str = "", colour: str = "") -> Thing:
    words = tuple(names.split(", "))
    return Thing(words, icon or words[0], colour)


THINGS: tuple[Thing, ...] = (
    _thing("cat, kitten", "cat-face"),
    _thing("dog, puppy", "dog-face"),
    _thing("fox"),
    _thing("lion"),
    _thing("rabbit, bunny", "rabbit-face"),
    _thing("pig, piglet", "pig-face"),
    _thing("cow", "cow-face"),
    _thing("frog"),
    _thing("bear, brown bear"),
    _thing("panda, panda bear"),
    _thing("penguin"),
    _thing("owl"),
    _thing("chick, baby chick", "front-facing-baby-chick"),
    _thing("ladybug, ladybird", "lady-beetle"),
    _thing("butterfly", colour="orange"),
    _thing("turtle, tortoise"),
    _thing("whale", "spouting-whale"),
    _thing("apple", "red-apple", "red"),
    _thing("orange, tangerine", "tangerine"),
    _thing("strawberry"),
    _thing("cherries"),
    _thing("carrot"),
    _thing("mushroom, toadstool", colour="red"),
    _thing("hamburger, burger"),
    _thing("doughnut, donut"),
    _thing("cupcake, muffin"),
    _thing("car", "automobile", "red"),
    _thing("bus"),
    _thing("rocket, space rocket"),
    _thing("sailboat, boat, sailing boat"),
    _thing("cactus"),
    _thing("tree", "deciduous-tree"),
    _thing("tulip, flower", "tulip", "pink"),
    _thing("sunflower"),
    _thing("house, cottage"),
    _thing("heart", "red-heart", "red"),
    _thing("star", colour="yellow"),
    _thing("pumpkin, halloween pumpkin", "jack-o-lantern"),
    _thing("robot"),
    _thing("alien"),
    _thing("balloon", colour="red"),
    _thing("umbrella", colour="purple"),
    _thing("fish", colour="blue"),
    _thing("crab"),
    _thing("snowman", "snowman-without-snow"),
    _thing("crown"),
    _thing("dinosaur, t-rex", "t-rex"),
    _thing("elephant"),
)
