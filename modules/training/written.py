"""Model files that training writes are marked, and none takes the place of a file from elsewhere."""

import os
from pathlib import Path

from modules.model_manager.headers import read_header
from modules.model_manager.stored import Refused
from modules.training.files import Unusable

MARK = "easel"  # in the metadata: which version of this program wrote the file


def check_output(output: Path) -> None:
    """Unusable if `output` is no name for a model file, or a file from elsewhere has it or that of the `.yaml` beside it."""
    if output.suffix != ".safetensors":
        raise Unusable(f"--output {output}: the file to write is a .safetensors")
    for path in (output, output.with_suffix(".yaml")):
        if os.path.lexists(path) and not _ours(output):
            raise Unusable(f"{path} is there already, and Easel's training did not write it: choose another --output")


def _ours(path: Path) -> bool:
    try:
        return MARK in read_header(path).metadata
    except Refused:
        return False
