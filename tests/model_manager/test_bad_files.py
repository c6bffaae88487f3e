"""Every bad file is refused with one line that says why; no code in any of them runs, and none of them makes us wait."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modules.model_manager.check import check_file
from modules.model_manager.headers import Refused, read_header
from modules.model_manager.library import scan
from modules.model_manager.reading import described
from tests.checkpoints import random_weights, write_ckpt
from tests.model_manager.bad_files import write_bad_files
from tests.model_manager.bad_zips import TINY, tiny_weights, with_wrong_storage

WATCHED = """
import json, sys
from pathlib import Path
from modules.model_manager.library import scan
from modules.model_manager.check import check_file
from modules.model_manager.stored import Refused
import encodings.idna, yaml
events = []
HARMLESS = {"open", "os.scandir", "os.listdir", "object.__getattr__", "marshal.loads"}
def watch(event, arguments):
    if event not in HARMLESS:
        events.append(event)
    if event == "open" and str(arguments[0]).endswith(("pipe.ckpt", "socket.ckpt", "device.ckpt", "yaml_fifo.yaml")):
        events.append(f"open {arguments[0]}")
sys.addaudithook(watch)
found = scan([Path(sys.argv[1])])
for checkpoint in found:
    try:
        check_file(checkpoint.path)
    except Refused:
        pass
print(json.dumps({"events": sorted(set(events)), "found": len(found), "torch": "torch" in sys.modules}))
"""


THREATS = {  # the numbered cases of bad model files; 4, 12, 13, 16 and 17 have tests of their own, here and beside
    "1 a command in the pickle": ("system.ckpt", "popen.ckpt", "in_state_dict.ckpt", "as_key.ckpt"),
    "2 code by its builtins": ("eval.ckpt", "exec.pt", "import.ckpt", "getattr.ckpt"),
    "2 code by another way": ("resolve.ckpt", "partial.ckpt", "methodcaller.ckpt", "inside_torch.ckpt"),
    "3 a pickle called otherwise": ("bare.safetensors", "bare.SafeTensors", "exec.pt"),
    "5 a zip that lies": ("two_pickles.ckpt", "doubled.ckpt", "local_name.ckpt", "wrong_crc.ckpt", "encrypted.ckpt", "prefixed.ckpt"),
    "6 code before a broken tail": ("broken_tail.ckpt", "after_end.ckpt"),
    "7 a zip bomb": ("bomb.ckpt", "deep_bomb.ckpt"),
    "8 a pickle bomb": ("memo_bomb.ckpt", "million_opcodes.ckpt", "deep.ckpt", "long.ckpt", "quadratic.ckpt"),
    "9 a header that lies": ("length_2_63.safetensors", "length_0.safetensors", "length_beyond.safetensors", "length_100_mb.safetensors"),
    "9 a header that is none": ("not_utf8.safetensors", "duplicate.safetensors", "many.safetensors", "nested_metadata.safetensors"),
    "10 offsets": ("overlap.safetensors", "negative.safetensors", "beyond.safetensors", "hole.safetensors"),
    "10 shapes": ("product.safetensors", "overflow.safetensors", "zero_by_huge.safetensors", "dimensions.safetensors"),
    "11 a GGUF": ("model.bin",),
    "14 right names, wrong shapes": ("shapes.safetensors", "missing.safetensors"),
    "15 a LoRA": ("lora.safetensors", "lora_of_sdxl.safetensors", "large_lora.safetensors", "peft.safetensors"),
    "17 no file": ("pipe.ckpt", "socket.ckpt", "dangling.ckpt", "loop.ckpt", "device.ckpt"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / "somebody was here"


@pytest.fixture(scope="module")
def reasons(folder: Path, canary: Path) -> dict[str, str]:
    return write_bad_files(folder, canary)


def test_every_bad_file_is_refused_with_its_own_reason(folder: Path, canary: Path, reasons: dict[str, str]) -> None:
    found = {checkpoint.name: checkpoint for checkpoint in scan([folder])}
    assert found.keys() == reasons.keys()
    assert len(found) >= 100
    wrong = {
        name: (checkpoint.status, checkpoint.reason, reasons[name])
        for name, checkpoint in found.items()
        if checkpoint.status != "refused" or not re.search(reasons[name], checkpoint.reason)
    }
    assert not wrong
    assert all("\n" not in checkpoint.reason and len(checkpoint.reason) < 400 for checkpoint in found.values())
    assert not canary.exists()


@pytest.mark.parametrize("threat", THREATS)
def test_each_threat_has_its_refusal(threat: str, folder: Path, canary: Path, reasons: dict[str, str]) -> None:
    """Read anew, by content alone: neither the name nor an earlier look decides."""
    for name in THREATS[threat]:
        with pytest.raises(Refused, match=reasons[name]):
            described(folder / name)
    assert not canary.exists()


def test_nothing_in_them_runs_and_no_pipe_is_opened(folder: Path, canary: Path, reasons: dict[str, str]) -> None:
    result = subprocess.run([sys.executable, "-c", WATCHED, str(folder)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said == {"events": [], "found": len(reasons), "torch": False}
    assert not canary.exists()


def test_a_checksum_that_does_not_match_is_found_by_reading(tmp_path: Path) -> None:
    with_wrong_storage(tmp_path / "flipped.ckpt")
    assert scan([tmp_path])[0].status == "ok"
    with pytest.raises(Refused, match="model.diffusion_model.out.2.weight: damaged: its checksum"):
        check_file(tmp_path / "flipped.ckpt")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, dtype: str, value: float) -> None:
    weights = dict(random_weights(TINY, 0, dtype))
    weights["first_stage_model.decoder.conv_out.weight"][1, 2, 0, 0] = value
    write_ckpt(tmp_path / "a.ckpt", weights.items())
    with pytest.raises(Refused, match="first_stage_model.decoder.conv_out.weight holds numbers that are not finite"):
        check_file(tmp_path / "a.ckpt")


def test_a_network_of_zeros_is_refused(tmp_path: Path) -> None:
    weights = ((name, values * (not name.startswith("first_stage_model."))) for name, values in random_weights(TINY, 0, "float16"))
    write_ckpt(tmp_path / "a.ckpt", weights)
    with pytest.raises(Refused, match="all numbers of its VAE are zero"):
        check_file(tmp_path / "a.ckpt")


@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
def test_a_download_cut_anywhere_is_refused(tmp_path: Path, format: str) -> None:
    """Threat 12: at each of twenty points."""
    path = tmp_path / "cut.ckpt"
    if format == "safetensors":
        safetensors.torch.save_file(tiny_weights(), path)
    else:
        torch.save(tiny_weights(), path, _use_new_zipfile_serialization=format == "zip")
    whole = path.stat().st_size
    for twentieth in reversed(range(20)):
        os.truncate(path, whole * twentieth // 20)
        with pytest.raises(Refused, match="incomplete: .*download it again" if twentieth else "empty"):
            read_header(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed.ckpt").write_bytes(b"PK")
    (tmp_path / "closed.ckpt").chmod(0)
    assert "Permission denied" in scan([tmp_path])[0].reason
