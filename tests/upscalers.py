"""Small random upscalers, in the spellings that such files have."""

import math
import re

import numpy
import torch

from modules.model_manager.upscaler_file import CompactShape, RrdbShape, expected
from tests.checkpoints import write_safetensors

SMALL = RrdbShape(channels=8, growth=4, blocks=2, doublings=2, unshuffle=1)
COMPACT = CompactShape(channels=8, convolutions=2, scale=4)


def random_weights(shape, seed=0, dtype="float32"):
    """Weights that keep the network finite and let it see far; the same for the same seed."""
    rng = numpy.random.default_rng(seed)
    weights = {}
    for name, extents in expected(shape).items():
        values = rng.standard_normal(extents) * (1 / math.sqrt(math.prod(extents[1:])) if len(extents) > 1 else 0.1)
        weights[name] = values.astype(dtype)
    return weights


def middle(weights):
    """As ESRGAN's repository spells them."""
    pairs = (
        (r"^body\.(\d+)\.rdb(\d)", r"RRDB_trunk.\1.RDB\2"),
        ("^conv_body", "trunk_conv"),
        (r"^conv_up(\d)", r"upconv\1"),
        ("^conv_hr", "HRconv"),
    )
    return {renamed(name, pairs): values for name, values in weights.items()}


def oldest(weights):
    """As the first of such files number them."""
    blocks = len({name.split(".")[1] for name in weights if name.startswith("body.")})
    ups = len({name.split(".")[0] for name in weights if name.startswith("conv_up")})
    pairs = (
        (r"^body\.(\d+)\.rdb(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0"),
        ("^conv_first", "model.0"),
        ("^conv_body", f"model.1.sub.{blocks}"),
        *((f"^conv_up{at}", f"model.{3 * at}") for at in range(1, ups + 1)),
        ("^conv_hr", f"model.{3 * ups + 2}"),
        ("^conv_last", f"model.{3 * ups + 4}"),
    )
    return {renamed(name, pairs): values for name, values in weights.items()}


def renamed(name, pairs):
    for pattern, spelling in pairs:
        name = re.sub(pattern, spelling, name)
    return name


def write_upscaler(path, weights, wrapper=None):
    """The weights in a file of the kind that its ending says; a pickle with its table under `wrapper`, if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        write_safetensors(
            path, {name: values.shape for name, values in weights.items()}, next(iter(weights.values())).dtype.name, weights.items()
        )
    else:
        table = {name: torch.from_numpy(values) for name, values in weights.items()}
        torch.save({wrapper: table} if wrapper else table, path)
    return path
