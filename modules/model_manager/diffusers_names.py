"""What the parameters of diffusers' and transformers' classes are called in a CompVis checkpoint."""

from dataclasses import dataclass

from modules.model_manager.architecture import UNetShape
from modules.model_manager.layout import TEXT, UNET

_UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_MIDDLE = {"mid_block.resnets.0": "mid.block_1", "mid_block.attentions.0": "mid.attn_1", "mid_block.resnets.1": "mid.block_2"}
_VAE_PARTS = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "downsamplers.0.conv": "downsample.conv",
    "upsamplers.0.conv": "upsample.conv",
    "attn_1.group_norm": "attn_1.norm",
    "attn_1.to_q": "attn_1.q",
    "attn_1.to_k": "attn_1.k",
    "attn_1.to_v": "attn_1.v",
    "attn_1.to_out.0": "attn_1.proj_out",
}
_VAE_BEFORE_2023 = {"attn_1.query": "attn_1.q", "attn_1.key": "attn_1.k", "attn_1.value": "attn_1.v", "attn_1.proj_attn": "attn_1.proj_out"}


@dataclass(frozen=True)
class Levels:
    """All of a denoiser's shape that its tensors' names depend on."""

    layers: int
    attention: tuple[bool, ...]


def unet_name(name: str, shape: UNetShape | Levels) -> str:
    """`down_blocks.0.resnets.1.conv1.weight` -> `model.diffusion_model.input_blocks.2.0.in_layers.2.weight`."""
    for ours, theirs in _UNET_TOP.items():
        if name.startswith(f"{ours}."):
            return UNET + theirs + _rest(name.removeprefix(ours), "resnets" in ours)
    side, level, kind, index, rest = name.split(".", 4)
    place = int(level) * (shape.layers + 1)
    if kind.endswith("samplers"):  # the last of its level: `downsamplers.0.conv.weight`, `upsamplers.0.conv.weight`
        last, parameter = place + shape.layers, rest.removeprefix("conv.")
        if side == "down_blocks":
            return f"{UNET}input_blocks.{last + 1}.0.op.{parameter}"
        return f"{UNET}output_blocks.{last}.{2 if shape.attention[-1 - int(level)] else 1}.conv.{parameter}"
    block = f"input_blocks.{place + int(index) + 1}" if side == "down_blocks" else f"output_blocks.{place + int(index)}"
    return f"{UNET}{block}.{('resnets', 'attentions').index(kind)}{_rest('.' + rest, kind == 'resnets')}"


def vae_name(name: str, levels: int) -> str:
    """`decoder.up_blocks.0.resnets.1.conv1.weight` -> `decoder.up.3.block.1.conv1.weight`, without prefix as in bare VAE files."""
    if "up_blocks." in name:
        before, _, after = name.partition("up_blocks.")
        level, _, rest = after.partition(".")
        name = f"{before}up.{levels - 1 - int(level)}.{rest}"
    name = name.replace("down_blocks.", "down.")
    for ours, theirs in (*_VAE_MIDDLE.items(), (".resnets.", ".block."), *_VAE_PARTS.items(), *_VAE_BEFORE_2023.items()):
        name = name.replace(ours, theirs)
    return name


def text_name(name: str) -> str:
    """The text encoder keeps its names, below a prefix."""
    return TEXT + name.removeprefix("text_model.")


def _rest(rest: str, resnet: bool) -> str:
    """`.conv1.weight` of a residual block -> `.in_layers.2.weight`; everything else has the same names on both sides."""
    if not resnet:
        return rest
    _, part, parameter = rest.split(".")
    return f".{_UNET_RESNET[part]}.{parameter}"
