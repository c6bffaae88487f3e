"""The CompVis-style `.yaml` beside a checkpoint settles what shapes cannot say. It is text: nothing in it is imported or opened."""

import math
from pathlib import Path

import yaml

from modules.model_manager.stored import Refused, identify, open_regular, read_exactly, shown

MAX_SIZE = 64 * 2**10
MAX_DEPTH = 12

UNET = ("model", "params", "unet_config", "params")
AUTOENCODER = ("model", "params", "first_stage_config", "params", "ddconfig")
DIFFUSION = ("model", "params")
TEXT_ENCODER = ("model", "params", "cond_stage_config", "params")
DEFAULTS = ("defaults",)


class Config:
    """The values of one file, asked for by where they stand. A missing value is the default; a wrong one raises Refused."""

    def __init__(self, values: object, name: str) -> None:
        self.values = values
        self.name = name

    def whole(self, place: tuple[str, ...], key: str, default: int, high: int) -> int:
        """A whole number from 1 to `high`."""
        text = self.text(place, key)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= high or len(text) > 9:
            raise Refused(f"{self.name}: {key} must be a whole number from 1 to {high}, not {shown(text)}")
        return int(text)

    def positive(self, place: tuple[str, ...], key: str, default: float) -> float:
        """A finite number above 0."""
        text = self.text(place, key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise Refused(f"{self.name}: {key} must be a number above 0, not {shown(text)}")
        return value

    def choice(self, place: tuple[str, ...], key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of these words."""
        text = self.text(place, key)
        if text is not None and text not in choices:
            raise Refused(f"{self.name}: {key} must be {' or '.join(choices)}, not {shown(text)}")
        return text or default

    def text(self, place: tuple[str, ...], key: str) -> str | None:
        table = self.values
        for step in place:
            table = table.get(step) if isinstance(table, dict) else None
        value = table.get(key) if isinstance(table, dict) else None
        if value in ("", "null", "~"):
            return None
        if value is not None and not isinstance(value, str):
            raise Refused(f"{self.name}: {key} must be a plain value")
        return value


def read_config(path: Path | None) -> Config:
    """The configuration in this file; of no file, one that holds nothing. Raises Refused with the line that is wrong."""
    if path is None:
        return Config({}, "")
    try:
        text = _read(path)
        _check_events(text)
        return Config(yaml.load(text, Loader=yaml.BaseLoader), path.name)  # BaseLoader makes text, lists and tables, nothing else
    except Refused as refusal:
        raise Refused(f"{shown(path.name)} beside it: {refusal}") from refusal
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
        raise Refused(f"{shown(path.name)} beside it: {where} is not YAML; repair or remove it") from error


def _read(path: Path) -> str:
    with open_regular(path) as file:
        size = identify(file).size
        if size > MAX_SIZE:
            raise Refused(f"{size} bytes, a configuration has less than {MAX_SIZE}; remove it")
        try:
            return read_exactly(file, 0, size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("not text; remove it") from error


def _check_events(text: str) -> None:
    """Refuses what can make a small file large or deep, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Refused("aliases (& and *) are not supported; write the values out")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<":
            raise Refused("merge keys (<<) are not supported; write the values out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise Refused("nested too deeply; remove it")


def read_defaults(path: Path | None) -> dict[str, str | int | float]:
    """What the table `defaults` of our own recommends for drawing with this checkpoint, by the recipe's field names."""
    config = read_config(path)
    defaults: dict[str, str | int | float] = {}
    for key in ("sampler", "schedule"):
        if text := config.text(DEFAULTS, key):
            defaults[key] = text
    for key, high in (("steps", 150), ("clip_skip", 12)):
        if number := config.whole(DEFAULTS, key, 0, high):
            defaults[key] = number
    if scale := config.positive(DEFAULTS, "cfg_scale", 0):
        defaults["cfg_scale"] = scale
    return defaults
