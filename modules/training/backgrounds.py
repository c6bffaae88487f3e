"""The places things stand in: plain colours and small scenes, drawn as SVG on a 128 x 128 canvas."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Background:
    """`phrases` continue "a fox ..."; `drawings` are bodies of SVG of which one is shown; `ground`: things stand low in it."""

    name: str
    phrases: tuple[str, ...]
    drawings: tuple[str, ...]
    ground: bool = False


def _plain(name: str, colour: str, *words: str) -> Background:
    phrases = tuple(f"{start} {word} background" for word in words for start in ("on a", "with a", "in front of a"))
    return Background(name, phrases, (f'<rect width="128" height="128" fill="{colour}"/>',))


def _gradient(top: str, bottom: str) -> str:
    return (
        f'<defs><linearGradient id="g" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{top}"/>'
        f'<stop offset="1" stop-color="{bottom}"/></linearGradient></defs><rect width="128" height="128" fill="url(#g)"/>'
    )


def _discs(colour: str, *discs: tuple[float, float, float]) -> str:
    return "".join(f'<circle cx="{x}" cy="{y}" r="{r}" fill="{colour}"/>' for x, y, r in discs)


def _hill(colour: str, left: int, middle: int, right: int) -> str:
    return f'<path d="M0 {left} Q64 {middle} 128 {right} V128 H0 Z" fill="{colour}"/>'


def _cloud(x: int, y: int) -> str:
    return _discs("#ffffff", (x - 9, y + 2, 6), (x, y, 9), (x + 9, y + 2, 6))


GRASS = tuple(
    _gradient("#6fc3f7", "#cdeefe") + _cloud(cloud, 14) + _hill("#8fd14f", left, 78, right) + _hill("#6dbb3b", 110, 100, 112)
    for cloud, left, right in ((20, 84, 96), (108, 96, 84))
)
SNOW = tuple(
    _gradient("#8fb4e3", "#dbe8f7") + _discs("#ffffff", *flakes) + _hill("#ffffff", left, 80, right) + _hill("#e6eef8", 112, 102, 110)
    for flakes, left, right in (
        (((12, 14, 3), (34, 34, 3), (60, 10, 3), (92, 28, 3), (116, 12, 3), (114, 58, 3), (10, 62, 3)), 86, 96),
        (((10, 28, 3), (30, 10, 3), (70, 14, 3), (98, 10, 3), (118, 34, 3), (112, 66, 3), (14, 58, 3)), 96, 86),
    )
)
BEACH = tuple(
    _gradient("#7fd0f5", "#d9f3fc")
    + _cloud(cloud, 16)
    + '<rect y="64" width="128" height="40" fill="#2f8fd0"/>'
    + _hill("#f3d48a", left, 92, right)
    for cloud, left, right in ((22, 92, 102), (106, 102, 92))
)
NIGHT = tuple(
    _gradient("#141b45", "#36437f")
    + _discs("#fff3b0", (moon, 18, 10))
    + _discs("#ffffff", *((128 - x if moon > 64 else x, y, 2) for x, y in ((50, 10), (80, 16), (112, 10), (118, 44), (10, 52))))
    + _hill("#27325c", left, 92, right)
    for moon, left, right in ((18, 100, 108), (108, 108, 100))
)

BACKGROUNDS: tuple[Background, ...] = (
    _plain("white", "#ffffff", "white", "plain white"),
    _plain("blue", "#9ed6fb", "blue", "light blue", "sky blue"),
    _plain("yellow", "#fff0a6", "yellow", "light yellow"),
    _plain("pink", "#ffc4dc", "pink", "light pink"),
    _plain("green", "#b9ebbf", "green", "mint green", "light green"),
    _plain("black", "#20222b", "black", "dark"),
    Background("grass", ("on the grass", "on green grass", "in a meadow", "in a field", "in the garden", "in the park"), GRASS, True),
    Background("snow", ("in the snow", "on the snow", "in winter", "in the snowy mountains", "on a snowy day"), SNOW, True),
    Background("beach", ("on the beach", "on a sandy beach", "by the sea", "at the seaside", "on the sand by the ocean"), BEACH, True),
    Background("night", ("at night", "under the stars", "in the night", "under the night sky", "in the moonlight"), NIGHT, True),
)
