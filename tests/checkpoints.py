"""Small random checkpoints in the CompVis layout, for the tests of every room (and full-size ones for benchmarks)."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy
import yaml

from modules.model_manager.architecture import Architecture, TextShape, UNetShape, VaeShape
from modules.model_manager.layout import TEXT, expected_tensors

Format = Literal["safetensors", "ckpt"]
Named = Iterable[tuple[str, numpy.ndarray]]

SMALL = Architecture(
    family="sd1",
    unet=UNetShape(
        in_channels=4,
        out_channels=4,
        channels=(32, 64),
        layers=1,
        attention=(True, False),
        context=64,
        heads=8,
        mid_attention=True,
        linear_projection=False,
    ),
    vae=VaeShape(channels=(32, 32, 32, 64), layers=1, latent_channels=4, norm_groups=32, mid_attention=True, quant=True),
    text=TextShape(width=64, layers=2, heads=1, feed_forward=128, vocabulary=49408, positions=77),
    prediction="epsilon",
    scale_factor=0.18215,
    native_size=64,
)

SD2 = replace(
    SMALL,
    family="sd2",
    unet=replace(SMALL.unet, heads=0, head_width=16, linear_projection=True),
    text=replace(SMALL.text, activation="gelu", padding=0),
)
INPAINTING = replace(SMALL, unet=replace(SMALL.unet, in_channels=9))

SAFETENSORS_NAMES = {"float16": "F16", "float32": "F32", "float64": "F64", "uint16": "BF16", "int64": "I64", "int8": "I8"}


def write_checkpoint(
    path: Path, architecture: Architecture = SMALL, format: Format = "safetensors", seed: int = 0, dtype: str = "float32"
) -> Path:
    """Writes random weights of this architecture to `path` and the `.yaml` that says what shapes cannot beside it."""
    weights = random_weights(architecture, seed, dtype)
    if format == "safetensors":
        write_safetensors(path, expected_tensors(architecture), dtype, weights)
    else:
        write_ckpt(path, weights)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(config_of(architecture)))
    return path


def random_weights(architecture: Architecture, seed: int, dtype: str = "float32") -> Iterator[tuple[str, numpy.ndarray]]:
    """Every tensor of the architecture with values that keep the networks finite; the same for the same seed."""
    rng = numpy.random.default_rng(seed)
    for name, shape in expected_tensors(architecture).items():
        values = rng.standard_normal(shape, dtype=numpy.float32)
        if len(shape) > 1:
            values *= 1 / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            values = values * 0.05 + 1
        else:
            values *= 0.02
        yield name, values.astype(dtype, copy=False)


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, weights: Named) -> None:
    """One tensor in memory at a time, so that a full-size file costs no memory."""
    size, end, header = numpy.dtype(dtype).itemsize, 0, {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        begin, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in weights:
            file.write(numpy.ascontiguousarray(values))


def write_ckpt(path: Path, weights: Named) -> None:
    """As training scripts save it: a zip by torch.save with the weights below `state_dict`."""
    import torch

    torch.save({"global_step": 840000, "state_dict": {name: torch.from_numpy(values) for name, values in weights}}, path)


def as_open_clip(weights: Named, layers: int) -> dict[str, numpy.ndarray]:
    """A checkpoint's weights with the text encoder as OpenCLIP stores it, with the further layer that Stable Diffusion 2 leaves out."""
    prefix = "cond_stage_model.model."
    table = dict(weights)
    found = {name.removeprefix(TEXT): table.pop(name) for name in list(table) if name.startswith(TEXT)}
    found |= {
        name.replace("layers.0.", f"layers.{layers}."): values * 3 for name, values in found.items() if name.startswith("encoder.layers.0.")
    }
    for layer in range(layers + 1):
        for parameter in ("weight", "bias"):
            parts = [found.pop(f"encoder.layers.{layer}.self_attn.{part}_proj.{parameter}") for part in "qkv"]
            found[f"encoder.layers.{layer}.attn.in_proj_{parameter}"] = numpy.concatenate(parts)
    renamed = {
        "embeddings.token_embedding": "token_embedding", "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final", "encoder.layers": "transformer.resblocks", "self_attn.out_proj": "attn.out_proj",
        "layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    for name, values in found.items():
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        table[prefix + name] = values
    bias = found["final_layer_norm.bias"]
    return table | {f"{prefix}text_projection": numpy.ones((len(bias), len(bias)), bias.dtype), f"{prefix}logit_scale": bias[:1]}


def write_open_clip(path: Path, architecture: Architecture = SD2, seed: int = 0, dtype: str = "float32") -> Path:
    """Random weights of a Stable Diffusion 2 as such files are, and the `.yaml` beside it."""
    weights = as_open_clip(random_weights(architecture, seed, dtype), architecture.text.layers)
    write_safetensors(path, {name: values.shape for name, values in weights.items()}, dtype, weights.items())
    path.with_suffix(".yaml").write_text(yaml.safe_dump(config_of(architecture)))
    return path


def config_of(architecture: Architecture) -> dict[str, object]:
    """The CompVis-style configuration of this architecture, with our own `norm_num_groups`."""
    unet, vae = architecture.unet, architecture.vae
    first, finest = unet.channels[0], vae.channels[0]
    return {
        "model": {
            "base_learning_rate": 1.0e-4,
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "parameterization": {"epsilon": "eps", "v": "v"}[architecture.prediction],
                "image_size": architecture.native_size // vae.factor,
                "channels": vae.latent_channels,
                "scale_factor": architecture.scale_factor,
                "unet_config": {
                    "params": {
                        "model_channels": first,
                        "channel_mult": [channels // first for channels in unet.channels],
                        "num_res_blocks": unet.layers,
                        "attention_resolutions": [2**level for level, attends in enumerate(unet.attention) if attends],
                        **({"num_head_channels": unet.head_width} if unet.head_width else {"num_heads": unet.heads}),
                        "context_dim": unet.context,
                        "transformer_depth": 1,
                    }
                },
                "first_stage_config": {
                    "params": {
                        "embed_dim": vae.latent_channels,
                        "ddconfig": {
                            "ch": finest,
                            "ch_mult": [channels // finest for channels in vae.channels],
                            "num_res_blocks": vae.layers,
                            "z_channels": vae.latent_channels,
                            "norm_num_groups": vae.norm_groups,
                        },
                    }
                },
            },
        }
    }
