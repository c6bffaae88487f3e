"""What a file is that is not a Stable Diffusion 1 checkpoint, told by the names of its tensors, and where it belongs."""

from collections.abc import Callable, Collection

from modules.model_manager.stored import shown

Names = Collection[str]


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


LORA = "a LoRA, not a checkpoint: it belongs in models/Lora"
CONTROLNET = "a ControlNet, not a checkpoint: it belongs in models/ControlNet"
EMBEDDING = "a textual inversion embedding, not a checkpoint: it belongs in embeddings"
AUTOENCODER = "a VAE, not a checkpoint: it belongs in models/VAE"
ONE_PART = "one part only, a checkpoint in one file is needed"
KINDS: tuple[tuple[Callable[[Names], bool], str], ...] = (
    (_begins("lora_unet_", "lora_te"), LORA),
    (_some(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1_a", ".lokr_w1"), LORA),
    (_begins("control_model.", "input_hint_block.", "controlnet_cond_embedding."), CONTROLNET),
    (_some("motion_modules."), "an AnimateDiff motion module, not a checkpoint: not supported"),
    (_begins("string_to_param.", "emb_params"), EMBEDDING),
    (_only("clip_l", "clip_g"), EMBEDDING),
    (_begins("conditioner."), "an SDXL model: not supported yet; Stable Diffusion 1.x checkpoints are"),
    (_begins("cond_stage_model.model."), "a Stable Diffusion 2 model: not supported yet; Stable Diffusion 1.x checkpoints are"),
    (_some("joint_blocks."), "a Stable Diffusion 3 model: not supported; Stable Diffusion 1.x checkpoints are"),
    (_some("double_blocks."), "a Flux model: not supported; Stable Diffusion 1.x checkpoints are"),
    (_some("RRDB", "conv_body.", "RDB1."), "an upscaler, not a checkpoint: it belongs in models/ESRGAN"),
    (_begins("down_blocks.", "mid_block."), f"the U-Net of a diffusers folder: {ONE_PART}"),
    (_begins("decoder.up_blocks.", "decoder.mid_block."), f"the VAE of a diffusers folder: {ONE_PART}"),
    (_begins("text_model.encoder."), f"a text encoder: {ONE_PART}"),
    (_has("decoder.conv_in.weight", "decoder.conv_out.weight"), AUTOENCODER),
    (_only("first_stage_model."), AUTOENCODER),
    (_begins("input_blocks."), "a U-Net alone: its VAE and text encoder are missing, a whole checkpoint is needed"),
)


def what_it_is(names: Names) -> str | None:
    """The reason to refuse a file of this kind, or None when its names speak of none."""
    return next((reason for fits, reason in KINDS if names and fits(names)), None)


def unknown(names: Names) -> str:
    """The reason to refuse a file of no known kind."""
    if not names:
        return "holds no tensors: not a checkpoint"
    return f"not a Stable Diffusion checkpoint: {len(names)} tensors of unknown names, for example {shown(min(names))}"
