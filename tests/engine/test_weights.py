import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from modules.engine.weights import Reader, checking
from modules.model_manager.headers import read_header
from modules.model_manager.tensors import open_tensors
from modules.settings import PROGRAM
from tests.checkpoints import SMALL, write_checkpoint, write_safetensors

MEDIUM = replace(SMALL, unet=replace(SMALL.unet, channels=(96, 192, 384), layers=2, attention=(True, True, True)))

LOAD = """
import sys
from pathlib import Path
import psutil
from modules.engine.studio import Studio
folder, precision = Path(sys.argv[1]), sys.argv[2]
studio = Studio([folder], [], folder, "cpu", precision)
studio.warm("small.safetensors", "None", lambda fraction: None)  # what the libraries take at their first use

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = psutil.Process().memory_info().rss
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
family = studio.warm(sys.argv[3], "None", lambda fraction: None).family
final = sum(p.numel() * p.element_size() for network in (family.unet, family.vae, family.text) for p in network.parameters())
print(final, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("format", "dtype", "precision"),
    [("safetensors", "float16", "float32"), ("ckpt", "float32", "bfloat16")],
)
def test_loading_holds_little_more_than_the_final_weights(format: str, dtype: str, precision: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "small.safetensors", SMALL)
    path = write_checkpoint(tmp_path / f"medium.{format}", MEDIUM, format, dtype=dtype)
    output = subprocess.check_output([sys.executable, "-c", LOAD, str(tmp_path), precision, path.name], cwd=PROGRAM)
    final, peak = map(int, output.split())
    assert final > 60e6
    assert peak <= 1.25 * final


@pytest.mark.parametrize("stored", ["float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_converted_and_have_memory_of_their_own(stored: str, dtype: torch.dtype, tmp_path: Path) -> None:
    shapes = {"a": (2, 3, 3, 3), "b": (5,)}
    values = {name: numpy.random.default_rng(1).standard_normal(shape).astype(stored) for name, shape in shapes.items()}
    write_safetensors(tmp_path / "x.safetensors", shapes, stored, values.items())
    fractions: list[float] = []
    header = read_header(tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors", header) as tensors:
        reader = Reader(tensors, shapes, fractions.append)
        read = {name: reader.read(name, torch.Size(shape), dtype, torch.device("cpu"), True) for name, shape in shapes.items()}
    for name, tensor in read.items():
        assert torch.equal(tensor, torch.from_numpy(values[name]).to(dtype))
    assert read["a"].is_contiguous(memory_format=torch.channels_last)
    assert fractions == [0, 54 / 59]


def test_checking_stops_within_a_network_and_leaves_nothing_behind() -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(5)))
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError), checking(check):
        network(torch.zeros(1, 2))
    assert len(calls) == 3
    network(torch.zeros(1, 2))
    assert len(calls) == 3
