"""Recognises a Stable Diffusion 1 or 2 checkpoint of any width and depth by the names and shapes of its tensors."""

from collections.abc import Collection
from pathlib import Path

from modules.model_manager.architecture import Architecture, TextShape, UNetShape, VaeShape
from modules.model_manager.canonical import has_open_clip
from modules.model_manager.config import AUTOENCODER, DIFFUSION, TEXT_ENCODER, UNET, Config, read_config
from modules.model_manager.kinds import unknown, what_it_is
from modules.model_manager.layout import TEXT, VAE, Shapes, expected_tensors, vae_tensors
from modules.model_manager.layout import UNET as UNET_PREFIX
from modules.model_manager.stored import Header, Refused, TensorInfo, shown

Part = dict[str, tuple[int, ...]]

NUMBER_FORMATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
GROUPS = 32
HEADS, HEAD_WIDTH = 8, 64  # of Stable Diffusion 1 and 2
VOCABULARY, POSITIONS, END = 49408, 77, 49407
MAX_LEVELS, MAX_LAYERS = 8, 64
IGNORED = ("embeddings.position_ids",)
NETWORKS = (UNET_PREFIX, TEXT, "encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def recognise(header: Header, config: Config) -> Architecture:
    """The architecture, every tensor of which is in the file in its shape. Raises Refused with what it is instead, or what is wrong."""
    reason = what_it_is(header.tensors)
    if reason:
        raise Refused(reason)
    _all_parts(header.tensors)
    text = _text(_part(header, TEXT), config, has_open_clip(header.tensors))
    family = "sd2" if text.activation == "gelu" else "sd1"
    unet, vae = _unet(_part(header, UNET_PREFIX), config, family), _vae(_part(header, VAE), config)
    prediction = "v" if config.choice(DIFFUSION, "parameterization", "eps", ("eps", "v")) == "v" else "epsilon"
    architecture = Architecture(
        family=family,
        unet=unet,
        vae=vae,
        text=text,
        prediction=prediction,
        scale_factor=config.positive(DIFFUSION, "scale_factor", 0.18215),
        native_size=config.whole(DIFFUSION, "image_size", usual_size(family, prediction) // vae.factor or 1, 4096) * vae.factor,
    )
    _complete(f"{family.upper()} checkpoint", header.tensors, expected_tensors(architecture))
    _sensible(architecture)
    return architecture


def usual_size(family: str, prediction: str) -> int:
    """The side in pixels that released checkpoints of this kind were trained at."""
    return 768 if (family, prediction) == ("sd2", "v") else 512


def recognise_vae(header: Header, yaml_path: Path | None) -> tuple[VaeShape, str]:
    """The shape of an autoencoder in a file of its own (or in a checkpoint) and the prefix of its tensors' names. Raises Refused."""
    prefix = VAE if any(name.startswith(VAE) for name in header.tensors) else ""
    part = _part(header, prefix)
    if "decoder.conv_in.weight" not in part:
        raise Refused(what_it_is(header.tensors) or "not a VAE: it has no decoder")
    shape = _vae(part, read_config(yaml_path))
    _complete("VAE", header.tensors, {prefix + name: extents for name, extents in vae_tensors(shape).items()})
    _check_vae(shape)
    return shape, prefix


def _part(header: Header, prefix: str) -> Part:
    """Shapes below a prefix, by the rest of the name."""
    return {name.removeprefix(prefix): tensor.shape for name, tensor in header.tensors.items() if name.startswith(prefix)}


def _all_parts(names: Collection[str]) -> None:
    parts = {"U-Net": UNET_PREFIX, "VAE": VAE, "text encoder": TEXT}
    missing = [part for part, prefix in parts.items() if not any(name.startswith(prefix) for name in names)]
    if len(missing) == len(parts):
        raise Refused(unknown(names))
    if missing:
        raise Refused(f"not a complete checkpoint: its {' and '.join(missing)} {'are' if missing[1:] else 'is'} missing")


def _extent(part: Part, prefix: str, name: str, axis: int) -> int:
    shape = part.get(name)
    if shape is None:
        raise Refused(f"not a complete checkpoint: {prefix}{name} is missing")
    if len(shape) <= axis or not shape[axis]:
        raise Refused(f"right names, wrong shapes: {prefix}{name} is {list(shape)}")
    return shape[axis]


def _unet(part: Part, config: Config, family: str) -> UNetShape:
    inputs = _extent(part, UNET_PREFIX, "input_blocks.0.0.weight", 1)
    if inputs == 8:
        raise Refused("an instruct-pix2pix model (8 input channels): not supported")
    levels = _levels(part)
    contexts = [shape[1] for name, shape in part.items() if name.endswith("attn2.to_k.weight") and len(shape) == 2]
    projections = [len(shape) for name, shape in part.items() if name.endswith("1.proj_in.weight")]
    if not contexts or not projections:
        raise Refused("not a Stable Diffusion U-Net: it attends to no text")
    channels = tuple(level[-1][0] if level else 0 for level in levels)
    attention = tuple(any(attends for _, attends in level) for level in levels)
    heads, width = _heads(config, family)
    return UNetShape(
        in_channels=inputs,
        out_channels=_extent(part, UNET_PREFIX, "out.2.weight", 0),
        channels=channels,
        layers=max(len(level) for level in levels),
        attention=attention,
        context=contexts[0],
        heads=heads,
        mid_attention="middle_block.1.norm.weight" in part,
        linear_projection=projections[0] == 2,
        head_width=width,
    )


def _levels(part: Part) -> list[list[tuple[int, bool]]]:
    """For every level down its blocks' channels and whether they attend; a downsampling convolution ends a level."""
    levels: list[list[tuple[int, bool]]] = [[]]
    for index in range(1, MAX_LEVELS * MAX_LAYERS):
        convolution = part.get(f"input_blocks.{index}.0.in_layers.2.weight")
        if convolution:
            levels[-1].append((convolution[0], f"input_blocks.{index}.1.norm.weight" in part))
        elif f"input_blocks.{index}.0.op.weight" in part:
            levels.append([])
        else:
            break
    if len(levels) > MAX_LEVELS or not all(levels) or any(len(level) > MAX_LAYERS for level in levels):
        raise Refused("not a complete checkpoint: its U-Net has no regular way down")
    return levels


def _heads(config: Config, family: str) -> tuple[int, int]:
    """Heads on every level, and the width of a head where that is what is the same on every level (otherwise 0)."""
    usual = HEAD_WIDTH if family == "sd2" and not config.text(UNET, "num_heads") else 0
    width = config.whole(UNET, "num_head_channels", usual, 4096)
    return (0, width) if width else (config.whole(UNET, "num_heads", HEADS, 1024), 0)


def _vae(part: Part, config: Config) -> VaeShape:
    channels, layers = [], 0
    while f"encoder.down.{len(channels)}.block.0.conv1.weight" in part and len(channels) < MAX_LEVELS:
        level = len(channels)
        blocks = sum(f"encoder.down.{level}.block.{layer}.conv1.weight" in part for layer in range(MAX_LAYERS))
        channels.append(_extent(part, VAE, f"encoder.down.{level}.block.0.conv1.weight", 0))
        layers = max(layers, blocks)
    if not channels:
        raise Refused("not a complete checkpoint: its VAE has no encoder")
    return VaeShape(
        channels=tuple(channels),
        layers=layers,
        latent_channels=_extent(part, VAE, "decoder.conv_in.weight", 1),
        norm_groups=config.whole(AUTOENCODER, "norm_num_groups", GROUPS, 1024),
        mid_attention="decoder.mid.attn_1.norm.weight" in part,
        quant="quant_conv.weight" in part,
    )


def _text(part: Part, config: Config, open_clip: bool) -> TextShape:
    width = _extent(part, TEXT, "embeddings.token_embedding.weight", 1)
    layers = sum(f"encoder.layers.{layer}.mlp.fc1.weight" in part for layer in range(MAX_LAYERS))
    if not layers:
        raise Refused("not a complete checkpoint: its text encoder has no layers")
    activation = config.choice(TEXT_ENCODER, "hidden_act", "gelu" if open_clip else "quick_gelu", ("gelu", "quick_gelu"))
    return TextShape(
        width=width,
        layers=layers,
        heads=max(1, width // HEAD_WIDTH),
        feed_forward=_extent(part, TEXT, "encoder.layers.0.mlp.fc1.weight", 0),
        vocabulary=_extent(part, TEXT, "embeddings.token_embedding.weight", 0),
        positions=_extent(part, TEXT, "embeddings.position_embedding.weight", 0),
        activation=activation,
        padding=0 if activation == "gelu" else END,
    )


def _complete(what: str, found: dict[str, TensorInfo], expected: Shapes) -> None:
    """Every expected tensor is there, in its shape and a usable number format, and the networks have no tensor beyond them."""
    missing = [name for name in expected if name not in found]
    if missing:
        raise Refused(f"not a complete {what}: {_count(missing)} missing, for example {missing[0]}")
    wrong = [name for name, shape in expected.items() if not _fits(name, found[name].shape, shape)]
    if wrong:
        example = f"{wrong[0]} is {list(found[wrong[0]].shape)}, not {list(expected[wrong[0]])}"
        raise Refused(f"not a complete {what}: right names, wrong shapes: {_count(wrong)} not as expected, for example {example}")
    strange = [name for name in expected if found[name].dtype not in NUMBER_FORMATS]
    if strange:
        raise Refused(f"in number format {found[strange[0]].dtype}, which is not supported: {', '.join(NUMBER_FORMATS)} are")
    extra = [name for name in found if name not in expected and _matters(name, expected)]
    if extra:
        raise Refused(f"unlike any {what} that is known: {_count(extra)} too many, for example {shown(extra[0])}")


def _count(names: list[str]) -> str:
    return f"{len(names)} tensors are" if len(names) > 1 else "1 tensor is"


def _fits(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Equal; the VAE's attention is stored as 1x1 convolutions or, equally, as matrices."""
    return found == expected or (".attn_1." in name and expected == (*found, 1, 1))


def _matters(name: str, expected: Shapes) -> bool:
    """Whether an unexpected tensor belongs to one of the networks, which then are not what they seem."""
    return name.removeprefix(VAE).startswith(NETWORKS) and not name.endswith(IGNORED)


def _sensible(architecture: Architecture) -> None:
    """The parts fit each other, and the numbers that shapes cannot say divide what they must."""
    unet, vae, text = architecture.unet, architecture.vae, architecture.text
    latent = vae.latent_channels
    if unet.out_channels != latent or unet.in_channels not in (latent, 2 * latent + 1):
        raise Refused(f"its U-Net ({unet.in_channels} to {unet.out_channels} channels) does not fit its VAE ({latent})")
    if unet.context != text.width:
        raise Refused(f"its U-Net attends to texts of width {unet.context}, its text encoder makes {text.width}")
    if any(channels % GROUPS for channels in unet.channels):
        raise Refused(f"its U-Net's channels {list(unet.channels)} are not multiples of {GROUPS}")
    attends = [*unet.attention[:-1], unet.attention[-1] or unet.mid_attention]
    if any(wants and channels % (unet.head_width or unet.heads) for channels, wants in zip(unet.channels, attends, strict=True)):
        heads = f"heads of {unet.head_width} channels" if unet.head_width else f"{unet.heads} heads"
        raise Refused(f"{heads} do not divide {list(unet.channels)} channels: state num_heads in a .yaml beside it")
    if text.vocabulary < VOCABULARY or text.positions != POSITIONS or text.width % text.heads:
        found = f"{text.vocabulary} tokens, {text.positions} positions, width {text.width}"
        raise Refused(f"its text encoder ({found}) is not a CLIP as Stable Diffusion has it")
    _check_vae(vae)


def _check_vae(vae: VaeShape) -> None:
    if any(channels % vae.norm_groups for channels in vae.channels):
        problem = f"{vae.norm_groups} norm groups do not divide its VAE's {list(vae.channels)} channels"
        raise Refused(f"{problem}: state norm_num_groups in a .yaml beside it")
