"""Which network an upscaler's weights belong to, told by the names and shapes of its tensors alone.

Two families are ours: RRDBNet (Wang et al. 2018, "ESRGAN", and Wang et al. 2021, "Real-ESRGAN") in its three spellings, and
SRVGGNetCompact (the small networks of Real-ESRGAN).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from modules.model_manager.headers import read_stored_header
from modules.model_manager.kinds import what_it_is
from modules.model_manager.recognise import NUMBER_FORMATS
from modules.model_manager.stored import Header, Refused, TensorInfo, shown

COLOURS = 3
MAX_SCALE, MAX_BLOCKS, MAX_CHANNELS = 16, 200, 1024
FOLDS = (1, 2, 4)
WRAPPERS = ("params_ema.", "params.", "module.")  # the first that is there counts: an average over training is better than its end
CHECKPOINT = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.")

# The names of RRDBNet as ESRGAN's authors spelled them -> as Real-ESRGAN does.
MIDDLE = ((re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\."), r"body.\1.rdb\2."), (re.compile(r"^trunk_conv\."), "conv_body."),
          (re.compile(r"^upconv(\d)\."), r"conv_up\1."), (re.compile(r"^HRconv\."), "conv_hr."))  # fmt: skip
OLDEST = re.compile(r"model\.(?:0|1\.sub\.\d+(?:\.RDB[123]\.conv[1-5]\.0)?|\d+)\.(?:weight|bias)")
DENSE = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.")


@dataclass(frozen=True)
class RrdbShape:
    """An RRDBNet: it sees the picture folded by `unshuffle` (1, 2 or 4) and enlarges by 2 `doublings` times."""

    channels: int
    growth: int
    blocks: int
    doublings: int
    unshuffle: int

    @property
    def scale(self) -> int:
        return 2**self.doublings // self.unshuffle

    def __str__(self) -> str:
        return f"ESRGAN, {self.scale} times"


@dataclass(frozen=True)
class CompactShape:
    """An SRVGGNetCompact of so many convolutions between its first and its last."""

    channels: int
    convolutions: int
    scale: int

    def __str__(self) -> str:
        return f"SRVGGNetCompact, {self.scale} times"


Shape = RrdbShape | CompactShape
Names = Mapping[str, str]
Extents = dict[str, tuple[int, ...]]


class UnknownArchitecture(Refused):
    """These may well be an upscaler's weights, but of neither of our two networks."""


def read_upscaler(path: Path) -> tuple[Header, Shape, Names]:
    """What a file holds, the network it belongs to, and what the file calls each of the network's tensors.

    Raises Refused with a line that says what it is instead, UnknownArchitecture for what another library may know.
    """
    header = unwrapped(read_stored_header(path))
    _refuse_others(header.tensors)
    names = {today: name for name, today in _renamed(header.tensors)}
    if len(names) < len(header.tensors):
        raise Refused("damaged: it holds a tensor twice, in two spellings")
    tensors = {today: header.tensors[name] for today, name in names.items()}
    shape = _rrdb(tensors) if "conv_first.weight" in tensors else _compact(tensors)
    _complete(tensors, expected(shape))
    return header, shape, names


def is_upscaler(path: Path) -> bool:
    """Whether a file is one that `read_upscaler` reads."""
    try:
        read_upscaler(path)
    except Refused:
        return False
    return True


def unwrapped(header: Header) -> Header:
    """The same without the table's name before those of its tensors (`params_ema.x`)."""
    wrapper = next((wrapper for wrapper in WRAPPERS if any(name.startswith(wrapper) for name in header.tensors)), "")
    kept = {name.removeprefix(wrapper): tensor for name, tensor in header.tensors.items() if name.startswith(wrapper)}
    return replace(header, tensors=kept)


def expected(shape: Shape) -> Extents:
    """Every tensor that a network of this shape has, by today's names, with its extents."""
    return dict(_rrdb_extents(shape) if isinstance(shape, RrdbShape) else _compact_extents(shape))


def _refuse_others(tensors: Mapping[str, TensorInfo]) -> None:
    if not tensors:
        raise Refused("holds no tensors: not an upscaler")
    if any(name.startswith(CHECKPOINT) for name in tensors):
        raise Refused("a checkpoint, not an upscaler: it belongs in models/Stable-diffusion")
    what = what_it_is(tensors)
    if what and "upscaler" not in what:
        raise Refused(f"not an upscaler but {what}")


def _renamed(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, str]]:
    """Each name as it is in the file and as Real-ESRGAN spells it."""
    oldest = "model.0.weight" in tensors and any(DENSE.match(name) for name in tensors)
    places = _oldest_places(tensors) if oldest else {}
    for name in tensors:
        today = name
        if oldest and OLDEST.fullmatch(name):
            stem, _, parameter = name.rpartition(".")
            dense = DENSE.match(name)
            today = f"body.{dense[1]}.rdb{dense[2]}.conv{dense[3]}.{parameter}" if dense else f"{places.get(stem, stem)}.{parameter}"
        for pattern, spelling in MIDDLE:
            today = pattern.sub(spelling, today)
        yield name, today


def _oldest_places(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The oldest files number their layers: three for each doubling (enlarge, convolve, activate), two more convolutions at the end."""
    subs = [int(found[1]) for name in tensors if (found := re.match(r"model\.1\.sub\.(\d+)\.", name))]
    tops = sorted({int(found[1]) for name in tensors if (found := re.fullmatch(r"model\.(\d+)\.weight", name))} - {0})
    if len(tops) < 2:
        raise UnknownArchitecture("not a complete ESRGAN: its last layers are missing")
    places = {"model.0": "conv_first", f"model.1.sub.{max(subs)}": "conv_body"}
    places |= {f"model.{top}": f"conv_up{at}" for at, top in enumerate(tops[:-2], 1)}
    return {**places, f"model.{tops[-2]}": "conv_hr", f"model.{tops[-1]}": "conv_last"}


def _rrdb(tensors: Mapping[str, TensorInfo]) -> RrdbShape:
    first, dense = _extents(tensors, "conv_first.weight"), _extents(tensors, "body.0.rdb1.conv1.weight")
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("body.")})
    doublings = sum(f"conv_up{at}.weight" in tensors for at in range(1, 6))
    unshuffle = math.isqrt(first[1] // COLOURS)
    scale = 2**doublings / max(unshuffle, 1)
    if first[1] != COLOURS * unshuffle**2 or unshuffle not in FOLDS or scale != int(scale):
        raise UnknownArchitecture(f"its network takes {first[1]} channels, which is no folded RGB picture")
    if not (first[0] <= MAX_CHANNELS and blocks <= MAX_BLOCKS and scale <= MAX_SCALE):
        raise Refused(f"larger than any upscaler: {first[0]} channels, {blocks} blocks, {scale:g} times")
    return RrdbShape(first[0], dense[0], blocks, doublings, unshuffle)


def _compact(tensors: Mapping[str, TensorInfo]) -> CompactShape:
    layers = [int(found[1]) for name in tensors if (found := re.fullmatch(r"body\.(\d{1,4})\.weight", name))]
    if "body.0.weight" not in tensors or len(layers) != max(layers) + 1:
        raise UnknownArchitecture(f"an upscaler of an unknown architecture, or none: {len(tensors)} tensors, {shown(min(tensors))} say")
    first, last = _extents(tensors, "body.0.weight"), _extents(tensors, f"body.{max(layers)}.weight")
    scale = math.isqrt(last[0] // COLOURS)
    if last[0] != COLOURS * scale**2 or first[1] != COLOURS or not 1 <= scale <= MAX_SCALE:
        raise UnknownArchitecture(f"its network makes {last[0]} channels of {first[1]}, which is no RGB picture")
    if first[0] > MAX_CHANNELS or len(layers) > MAX_BLOCKS or len(layers) % 2 == 0:
        raise UnknownArchitecture(f"unlike any upscaler that is known: {len(layers)} layers of {first[0]} channels")
    return CompactShape(first[0], (max(layers) - 2) // 2, scale)


def _extents(tensors: Mapping[str, TensorInfo], name: str) -> tuple[int, ...]:
    """The extents of a convolution's kernels."""
    found = tensors.get(name)
    if found is None or len(found.shape) != 4 or not math.prod(found.shape):
        raise UnknownArchitecture(f"an upscaler of an unknown architecture: it has no usable {name}")
    return found.shape


def _rrdb_extents(shape: RrdbShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, growth = shape.channels, shape.growth
    layers = {"conv_first": (wide, COLOURS * shape.unshuffle**2)}
    for block in range(shape.blocks):
        for dense in (1, 2, 3):
            for at in range(1, 6):
                layers[f"body.{block}.rdb{dense}.conv{at}"] = (growth if at < 5 else wide, wide + (at - 1) * growth)
    layers |= {name: (wide, wide) for name in ("conv_body", *(f"conv_up{at + 1}" for at in range(shape.doublings)), "conv_hr")}
    for name, extents in {**layers, "conv_last": (COLOURS, wide)}.items():
        yield f"{name}.weight", (*extents, 3, 3)
        yield f"{name}.bias", extents[:1]


def _compact_extents(shape: CompactShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    last = 2 * shape.convolutions + 2
    for layer in range(0, last + 1, 2):
        into = shape.channels if layer < last else COLOURS * shape.scale**2
        yield f"body.{layer}.weight", (into, shape.channels if layer else COLOURS, 3, 3)
        yield f"body.{layer}.bias", (into,)
        if layer < last:
            yield f"body.{layer + 1}.weight", (shape.channels,)


def _complete(tensors: Mapping[str, TensorInfo], wanted: Extents) -> None:
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise UnknownArchitecture(f"not a complete upscaler: {len(missing)} of its tensors are missing, {shown(missing[0])} say")
    wrong = [name for name, extents in wanted.items() if tensors[name].shape != extents]
    if wrong:
        found = f"{list(tensors[wrong[0]].shape)}, not {list(wanted[wrong[0]])}"
        raise UnknownArchitecture(f"an upscaler with a part of another shape: {shown(wrong[0])} is {found}")
    extra = [name for name in tensors if name not in wanted]
    if extra:
        raise UnknownArchitecture(f"an upscaler of an unknown architecture: {shown(extra[0])} belongs to none that is known")
    strange = [name for name in wanted if tensors[name].dtype not in NUMBER_FORMATS]
    if strange:
        raise Refused(f"in number format {tensors[strange[0]].dtype}, which is not supported: {', '.join(NUMBER_FORMATS)} are")
