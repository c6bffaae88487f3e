"""What the starter can draw: its things and the icons that show them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """One class. `names[0]` is the usual word; the others are as good in a caption. `icon` is an iconify id."""

    names: tuple[str, ...]
    icon: str
    mirror: bool = True

    @property
    def name(self) -> str:
        return self.names[0]


def _thing(names: str, icon: str = "", mirror: bool = True) -> Thing:
    words = tuple(names.split(", "))
    return Thing(words, icon or words[0], mirror)


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
    _thing("butterfly"),
    _thing("turtle, tortoise"),
    _thing("whale", "spouting-whale"),
    _thing("apple, red apple", "red-apple"),
    _thing("orange, tangerine", "tangerine"),
    _thing("strawberry"),
    _thing("cherries, two cherries"),
    _thing("carrot"),
    _thing("mushroom, toadstool"),
    _thing("hamburger, burger", mirror=False),
    _thing("doughnut, donut"),
    _thing("cupcake, muffin"),
    _thing("car, red car", "automobile"),
    _thing("bus"),
    _thing("rocket, space rocket"),
    _thing("sailboat, boat, sailing boat"),
    _thing("cactus"),
    _thing("tree", "deciduous-tree"),
    _thing("tulip, flower"),
    _thing("sunflower"),
    _thing("house, cottage"),
    _thing("heart, red heart", "red-heart"),
    _thing("star, yellow star"),
    _thing("pumpkin, halloween pumpkin", "jack-o-lantern"),
    _thing("robot"),
    _thing("alien"),
)
