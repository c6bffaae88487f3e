"""What a file is that is not a Stable Diffusion checkpoint, told by the names of its tensors, and where it belongs."""

from collections.abc import Callable, Collection, Mapping

from modules.model_manager.layout import UNET
from modules.model_manager.stored import TensorInfo, shown

Names = Mapping[str, TensorInfo]


def _some(*parts: str) -> Callable[[Names], bool]:
    """Whether a name contains one of these."""
    return lambda names: any(part in name for name in names for part in parts)


def _begins(*beginnings: str) -> Callable[[Names], bool]:
    """Whether a name begins with one of these."""
    return lambda names: any(name.startswith(beginnings) for name in names)


def _has(*wanted: str) -> Callable[[Names], bool]:
    """Whether all of these are there."""
    return lambda names: all(name in names for name in wanted)


def _only(*allowed: str) -> Callable[[Names], bool]:
    """Whether every name begins with one of these."""
    return lambda names: all(name.startswith(allowed) for name in names)


def _takes(channels: int) -> Callable[[Names], bool]:
    """Whether the denoiser has this many input channels."""
    first = f"{UNET}input_blocks.0.0.weight"
    return lambda names: first in names and names[first].shape[1:2] == (channels,)


def _all(*conditions: Callable[[Names], bool]) -> Callable[[Names], bool]:
    return lambda names: all(condition(names) for condition in conditions)


LORA = "a LoRA, not a checkpoint: it belongs in models/Lora"
CONTROLNET = "a ControlNet, not a checkpoint: it belongs in models/ControlNet"
EMBEDDING = "a textual inversion embedding, not a checkpoint: it belongs in embeddings"
AUTOENCODER = "a VAE, not a checkpoint: it belongs in models/VAE"
SUPPORTED = "Stable Diffusion 1.x and 2.x checkpoints are"
_LORA_PARTS = (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", "lora.down.", "lora.up.", "lora_linear_layer.", ".hada_w1_a", ".lokr_w1")
ONE_PART = "one part only; the whole folder (with its model_index.json) is needed, or a checkpoint in one file"
KINDS: tuple[tuple[Callable[[Names], bool], str], ...] = (
    (_begins("lora_unet_", "lora_te"), LORA),
    (_some(*_LORA_PARTS), LORA),
    (_begins("control_model.", "input_hint_block.", "controlnet_cond_embedding."), CONTROLNET),
    (_some("motion_modules."), "an AnimateDiff motion module, not a checkpoint: not supported"),
    (_begins("string_to_param.", "emb_params"), EMBEDDING),
    (_only("clip_l", "clip_g"), EMBEDDING),
    (_all(_begins("conditioner."), _takes(9)), f"an SDXL inpainting model: not supported yet; {SUPPORTED}"),
    (_begins("conditioner.embedders.0.model."), f"an SDXL refiner: not supported yet; {SUPPORTED}"),
    (_begins("conditioner."), f"an SDXL model: not supported yet; {SUPPORTED}"),
    (_some("joint_blocks."), f"a Stable Diffusion 3 model: not supported; {SUPPORTED}"),
    (_some("double_blocks."), f"a Flux model: not supported; {SUPPORTED}"),
    (_some("RRDB", "conv_body.", "RDB1."), "an upscaler, not a checkpoint: it belongs in models/ESRGAN"),
    (_begins("down_blocks.", "mid_block."), f"the U-Net of a diffusers folder: {ONE_PART}"),
    (_begins("text_model.encoder."), f"a text encoder: {ONE_PART}"),
    (_has("decoder.conv_in.weight", "decoder.conv_out.weight"), AUTOENCODER),
    (_only("first_stage_model."), AUTOENCODER),
    (_begins("input_blocks."), "a U-Net alone: its VAE and text encoder are missing, a whole checkpoint is needed"),
)


def what_it_is(names: Names) -> str | None:
    """The reason to refuse a file of this kind, or None when its names speak of none."""
    return next((reason for fits, reason in KINDS if names and fits(names)), None)


def unknown(names: Collection[str]) -> str:
    """The reason to refuse a file of no known kind."""
    if not names:
        return "holds no tensors: not a checkpoint"
    return f"not a Stable Diffusion checkpoint: {len(names)} tensors of unknown names, for example {shown(min(names))}"
