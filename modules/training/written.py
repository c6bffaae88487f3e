"""Model files that training writes are marked, and none takes the place of a file from elsewhere."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from modules.model_manager.headers import read_header
from modules.model_manager.stored import Refused
from modules.training.files import Unusable, whole
from modules.version import VERSION

MARK = "easel"  # in the metadata: which version of this program wrote the file


def check_output(output: Path) -> None:
    """Unusable if `output` is no name for a model file, or a file from elsewhere has it or that of the `.yaml` beside it."""
    if output.suffix != ".safetensors":
        raise Unusable(f"--output {output}: the file to write is a .safetensors")
    for path in (output, output.with_suffix(".yaml")):
        if os.path.lexists(path) and not _ours(output):
            raise Unusable(f"{path} is there already, and Easel's training did not write it: choose another --output")


def write_model(tensors: Mapping[str, Tensor], about: Mapping[str, str], output: Path, beside: bytes | None = None) -> None:
    """Writes the tensors, with what is said about them in the metadata, and the `.yaml` beside them, if any: each whole or not at all."""
    check_output(output)
    with whole(output) as model, whole(output.with_suffix(".yaml")) if beside else nullcontext() as words:
        model.write(save(dict(tensors), metadata={"format": "pt", MARK: VERSION, **about}))
        if words:
            words.write(beside)


def _ours(path: Path) -> bool:
    try:
        return MARK in read_header(path).metadata
    except Refused:
        return False
