"""The trained networks as one checkpoint in the layout of Stable Diffusion 1, and the `.yaml` that says what shapes cannot."""

from pathlib import Path

import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save
from torch import Tensor, no_grad, tensor

from modules.model_manager.architecture import UNetShape, VaeShape
from modules.model_manager.config import read_config
from modules.model_manager.diffusers_names import text_name, unet_name, vae_name
from modules.model_manager.headers import read_header
from modules.model_manager.layout import VAE
from modules.model_manager.recognise import recognise
from modules.model_manager.stored import Refused
from modules.training import denoiser
from modules.training.clip import TextEncoder
from modules.training.denoiser import Prediction
from modules.training.files import Unusable, needed, whole
from modules.training.scenes import SIDE
from modules.training.sources import Source
from modules.training.vocabulary import SIZE, UNKNOWN, Vocabulary
from modules.training.written import MARK, check_output
from modules.version import VERSION

GUIDANCE = 3.0  # the CFG scale at which its pictures are nearest to real scenes and still clear: halos above, blurs below
SCALE_FACTOR = 0.18215

Weights = dict[str, Tensor]


@no_grad()
def with_normalised_latents(weights: Weights, shift: Tensor, scale: Tensor) -> Weights:
    """An autoencoder's weights whose latents times 0.18215 are (latents - shift) / scale of the given ones; `shift`, `scale` (C,)."""
    folded, latent = dict(weights), len(shift)
    unit = scale * SCALE_FACTOR  # (C,)
    weight, bias = weights["quant_conv.weight"].clone(), weights["quant_conv.bias"].clone()
    weight[:latent] /= unit[:, None, None, None]
    bias[:latent] = (bias[:latent] - shift) / unit
    bias[latent:] -= 2 * unit.log()  # the variance shrinks with the square
    folded["quant_conv.weight"], folded["quant_conv.bias"] = weight, bias
    weight, bias = weights["post_quant_conv.weight"], weights["post_quant_conv.bias"]
    folded["post_quant_conv.bias"] = bias + weight[:, :, 0, 0] @ shift
    folded["post_quant_conv.weight"] = weight * unit[None, :, None, None]
    return folded


def with_all_tokens(weights: Weights, vocabulary: Vocabulary) -> Weights:
    """A text encoder's weights with CLIP's whole table of tokens: those outside the vocabulary get the unknown row."""
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    table = weights[name][UNKNOWN].repeat(SIZE, 1)  # (49408, width)
    table[tensor(vocabulary.ids[1:])] = weights[name][1:]
    return weights | {name: table}


def unet_shape(unet: UNet2DConditionModel) -> UNetShape:
    """A network of ours in the model manager's numbers."""
    about = unet.config
    attention = tuple("Attn" in kind for kind in about.down_block_types)
    return UNetShape(
        in_channels=about.in_channels,
        out_channels=about.out_channels,
        channels=tuple(about.block_out_channels),
        layers=about.layers_per_block,
        attention=attention,
        context=about.cross_attention_dim,
        heads=denoiser.HEADS,
        mid_attention=True,
        linear_projection=False,
    )


def vae_shape(vae: AutoencoderKL) -> VaeShape:
    """A network of ours in the model manager's numbers."""
    about = vae.config
    return VaeShape(
        channels=tuple(about.block_out_channels),
        layers=about.layers_per_block,
        latent_channels=about.latent_channels,
        norm_groups=about.norm_num_groups,
        mid_attention=False,
        quant=True,
    )


def checkpoint(unet: UNet2DConditionModel, vae: AutoencoderKL, text: TextEncoder, shift: Tensor, scale: Tensor) -> Weights:
    """Every tensor of the checkpoint by its CompVis name, in float16."""
    named = {unet_name(key, unet_shape(unet)): weight for key, weight in unet.state_dict().items()}
    first_stage = with_normalised_latents(vae.state_dict(), shift, scale)
    named |= {VAE + vae_name(key, len(vae.config.block_out_channels)): weight for key, weight in first_stage.items()}
    named |= {text_name(key): weight for key, weight in with_all_tokens(text.clip.state_dict(), text.known).items()}
    return {key: weight.detach().half().contiguous() for key, weight in named.items()}


def description(unet: UNet2DConditionModel, vae: AutoencoderKL, prediction: Prediction = "v") -> dict[str, object]:
    """The `.yaml` beside the checkpoint, in CompVis's words; `norm_num_groups` and `defaults`, what to draw with, are ours."""
    seen, first = unet_shape(unet), vae_shape(vae)
    network = {
        "in_channels": seen.in_channels, "out_channels": seen.out_channels, "model_channels": seen.channels[0],
        "num_res_blocks": seen.layers,
        "attention_resolutions": [2**level for level, attends in enumerate(seen.attention) if attends],
        "channel_mult": [width // seen.channels[0] for width in seen.channels], "num_heads": seen.heads, "transformer_depth": 1,
        "context_dim": seen.context, "use_spatial_transformer": True, "legacy": False,
    }  # fmt: skip
    pixels = {
        "z_channels": first.latent_channels, "resolution": SIDE, "in_channels": 3, "out_ch": 3, "ch": first.channels[0],
        "ch_mult": [width // first.channels[0] for width in first.channels], "num_res_blocks": first.layers,
        "attn_resolutions": [], "norm_num_groups": first.norm_groups,
    }  # fmt: skip
    params = {
        "parameterization": "v" if prediction == "v" else "eps",
        "linear_start": denoiser.LINEAR_START, "linear_end": denoiser.LINEAR_END, "timesteps": denoiser.TIMESTEPS,
        "image_size": SIDE // first.factor, "channels": first.latent_channels, "scale_factor": SCALE_FACTOR,
        "unet_config": {"params": network}, "cond_stage_config": {"params": {}},
        "first_stage_config": {"params": {"embed_dim": first.latent_channels, "ddconfig": pixels}},
    }  # fmt: skip
    return {"model": {"params": params}, "defaults": {"cfg_scale": GUIDANCE}}


def write(weights: Weights, words: dict[str, object], output: Path) -> None:
    """Both files, each whole or not at all. Raises Refused if Easel could not draw with them, Unusable if another's file has the name."""
    check_output(output)
    with whole(output) as model, whole(output.with_suffix(".yaml")) as beside:
        model.write(save(weights, metadata={"format": "pt", MARK: VERSION}))
        beside.write(yaml.safe_dump(words, sort_keys=False).encode())
        model.flush()
        beside.flush()
        recognise(read_header(Path(model.name)), read_config(Path(beside.name)))


def export(source: Source, folder: Path, output: Path) -> None:
    """Write the checkpoint from what was trained below `folder`, and beside it the inpainting one where that was trained.

    Raises FileNotFoundError naming the step that is missing, Unusable and OSError.
    """
    denoiser.load_stage(folder)
    path = needed(folder, "denoiser")
    _export(source, folder, path, output, masked=False)
    if (folder / "inpainting.pt").exists():
        _export(source, folder, folder / "inpainting.pt", output.with_stem(f"{output.stem}-inpainting"), masked=True)


def _export(source: Source, folder: Path, state: Path, output: Path, masked: bool) -> None:
    check_output(output)
    kept, vae = denoiser.load_cache(source, folder, masked=masked)
    unet, prediction = denoiser.load_denoiser(state)
    _, text = denoiser.load_stage(folder)
    try:
        if not isinstance(vae, AutoencoderKL):
            raise Refused("its autoencoder is vector-quantised")
        weights = checkpoint(unet, vae, text, kept.shift, kept.scale)
        write(weights, description(unet, vae, prediction), output)
    except Refused as refusal:
        raise Unusable(
            f"{output} is not written, for Easel cannot draw with it yet: {refusal}. What was trained stays in {folder}"
        ) from None
    print(f"{output}: {len(weights)} tensors, {output.stat().st_size / 1e6:.1f} MB")
