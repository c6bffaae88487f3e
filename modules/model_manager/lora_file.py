"""What a LoRA file changes: which layers, of what shapes, and whether a checkpoint has them."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from modules.model_manager.architecture import Architecture
from modules.model_manager.kinds import LORA, what_it_is
from modules.model_manager.lora_names import OTHER_FAMILIES, OTHER_TYPES, UNET, layers_of, spelled
from modules.model_manager.recognise import NUMBER_FORMATS
from modules.model_manager.stored import Header, Refused, TensorInfo, shown

CHECKPOINT = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
MAX_RANK = 4096
ALPHA_FORMATS = (*NUMBER_FORMATS, "I64", "I32")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Adapter:
    """The change of one layer's weight: scale · up · down (Hu et al. 2021), with `mid` between them in a Tucker decomposition.

    `down`, `up`, `mid` and `alpha` are names of tensors, "" where there is none. With `alpha`, scale is alpha / rank.
    """

    down: str
    up: str
    mid: str
    alpha: str
    rank: int
    shape: Shape
    scale: float


Adapters = dict[str, Adapter]
"""By the name of the layer."""


def is_lora(names: Collection[str]) -> bool:
    """Whether these are names of a LoRA's tensors, of any type and family."""
    return what_it_is(names) == LORA


def adapters_of(header: Header) -> Adapters:
    """All that this file changes. Raises Refused for what is no LoRA, or none that can be used."""
    _refuse_others(header.tensors)
    parts: dict[str, dict[str, str]] = {}
    for name in header.tensors:
        found = spelled(name)
        if found is None:
            raise Refused(f"unlike any LoRA that is known: it has a tensor called {shown(name)}")
        layer, part = found
        if part in parts.setdefault(layer, {}):
            raise Refused(f"damaged: it holds {shown(name)} twice, in two spellings")
        parts[layer][part] = name
    return {layer: _adapter(layer, names, header) for layer, names in parts.items()}


def fitted(adapters: Adapters, architecture: Architecture) -> Adapters:
    """The adapters by kohya's names of this checkpoint's layers. Raises Refused unless each is there and has its shape."""
    layers = layers_of(architecture)
    strange = [layer for layer in adapters if layer not in layers]
    if strange:
        raise Refused(f"for another kind of model: {len(strange)} of its {len(adapters)} layers are not there, {shown(strange[0])} say")
    wrong = [layer for layer, adapter in adapters.items() if _plain(adapter.shape) != _plain(layers[layer][1])]
    if wrong:
        example = f"{wrong[0]} is {list(layers[wrong[0]][1])} here, the LoRA changes {list(adapters[wrong[0]].shape)}"
        raise Refused(f"for a model of another size: {len(wrong)} of its {len(adapters)} layers are of other shapes, {example}")
    return {layers[layer][0]: adapter for layer, adapter in adapters.items()}


def about(adapters: Adapters) -> str:
    """What it changes, in a few words: `LoRA of rank 8 for 40 layers of the U-Net and 12 layers of the text encoder`."""
    ranks = sorted({adapter.rank for adapter in adapters.values()})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    unet = sum(layer.startswith(UNET) for layer in adapters)
    counts = {"the U-Net": unet, "the text encoder": len(adapters) - unet}
    parts = [f"{count} layer{'s' if count > 1 else ''} of {network}" for network, count in counts.items() if count]
    return f"LoRA of {rank} for {' and '.join(parts)}"


def _refuse_others(tensors: Mapping[str, TensorInfo]) -> None:
    """Raises Refused for a file that is no LoRA, a type of LoRA that is not supported, and one for models of another family."""
    if not tensors:
        raise Refused("holds no tensors: not a LoRA")
    if any(name.startswith(CHECKPOINT) for name in tensors):
        raise Refused("a checkpoint, not a LoRA: it belongs in models/Stable-diffusion")
    for pattern, kind in OTHER_TYPES:
        if any(pattern.search(name) for name in tensors):
            raise Refused(f"{kind}: not supported; LoRA and LoCon are")
    if not is_lora(tensors.keys()):
        what = what_it_is(tensors.keys())
        raise Refused(f"not a LoRA but {what}" if what else f"not a LoRA: it has tensors of unknown names, {shown(min(tensors))} say")
    for pattern, family in OTHER_FAMILIES:
        if any(pattern.search(name) for name in tensors):
            raise Refused(f"a LoRA for {family}: models of that family are not supported")


def _adapter(layer: str, names: Mapping[str, str], header: Header) -> Adapter:
    missing = [part for part in ("down", "up") if part not in names]
    if missing:
        raise Refused(f"not a complete LoRA: {shown(layer)} has no {' and no '.join(missing)}")
    down, up = (header.tensors[names[part]] for part in ("down", "up"))
    mid = header.tensors[names["mid"]] if "mid" in names else None
    for part, name in names.items():
        allowed = ALPHA_FORMATS if part == "alpha" else NUMBER_FORMATS
        if header.tensors[name].dtype not in allowed:
            raise Refused(f"{shown(name)} is in number format {header.tensors[name].dtype}, which is not supported")
    rank, shape = _rank_and_shape(layer, down.shape, up.shape, mid and mid.shape)
    if "alpha" in names and math.prod(header.tensors[names["alpha"]].shape) != 1:
        raise Refused(f"wrong shapes: the alpha of {shown(layer)} is not one number")
    scale = _scale_of(header.metadata, "unet" if layer.startswith(UNET) else "text_encoder", rank)
    return Adapter(names["down"], names["up"], names.get("mid", ""), names.get("alpha", ""), rank, shape, scale)


def _rank_and_shape(layer: str, down: Shape, up: Shape, mid: Shape | None) -> tuple[int, Shape]:
    """The rank, and the shape of the weight that is changed. Raises Refused where the parts do not go together."""
    rank = down[0] if down else 0
    kernel = down[2:] if mid is None else mid[2:]
    regular = (
        len(down) in (2, 4)
        and len(up) in (2, 4)
        and up[1] == rank
        and up[2:] in ((), (1, 1))
        and (mid is None or len(mid) == 4 and mid[:2] == (rank, rank) and down[2:] in ((), (1, 1)))
        and math.prod((*down, *up, *kernel))
    )
    if not regular:
        found = " · ".join(str(list(shape)) for shape in (up, mid, down) if shape is not None)
        raise Refused(f"wrong shapes: the parts of {shown(layer)} do not go together: {found}")
    if rank > MAX_RANK:
        raise Refused(f"of rank {rank}, more than the {MAX_RANK} that are read")
    return rank, (up[0], down[1], *kernel)


def _plain(shape: Shape) -> Shape:
    """A 1x1 convolution is a linear layer, and LoRAs are written for either."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _scale_of(metadata: Mapping[str, str], network: str, rank: int) -> float:
    """The scale that the settings of PEFT ask for, as diffusers writes them into the file; 1 without them."""
    try:
        settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        alpha = float(settings.get(f"{network}.lora_alpha", rank))
        patterns, root = settings.get(f"{network}.alpha_pattern"), settings.get(f"{network}.use_rslora")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused("damaged: the settings in its metadata make no sense") from error
    if patterns:
        raise Refused("a LoRA with an alpha for each layer in its metadata: not supported")
    return alpha / (math.sqrt(rank) if root else rank)
