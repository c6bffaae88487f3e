import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modules.engine import precision
from modules.engine.precision import choose, measure
from modules.model_manager.architecture import SD15, UNetShape
from tests.checkpoints import SMALL

CPU = torch.device("cpu")


def test_measuring_times_both_formats_or_rules_one_out() -> None:
    seconds = measure(SMALL.unet, 8)
    assert seconds["float32"] > 0
    assert all(value > 0 for value in seconds.values())
    assert seconds.keys() <= {"float32", "bfloat16"}


@pytest.mark.parametrize("shape", [SMALL.unet, SD15.unet, replace(SMALL.unet, channels=(48, 96), attention=(True, True))])
def test_blocks_have_the_networks_widths(shape: UNetShape) -> None:
    """Each level's block runs in both formats and keeps its width, whether or not 32 groups divide it."""
    with torch.inference_mode():
        for channels, attends in zip(shape.channels, shape.attention, strict=True):
            for dtype in (torch.float32, torch.bfloat16):
                result = precision._block(channels, 2, attends, shape.heads, dtype)()
                assert result.dtype == dtype
                assert channels in result.shape


@pytest.mark.parametrize(
    ("seconds", "name", "why"),
    [
        ({"float32": 1.0, "bfloat16": 0.3}, "bfloat16", "3.3 times as fast"),
        ({"float32": 1.0, "bfloat16": 0.8}, "float32", "only 1.2 times as fast"),
        ({"float32": 1.0}, "float32", "no instructions"),
    ],
)
def test_the_faster_format_is_chosen_and_says_why(
    seconds: dict[str, float], name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure", lambda shape, side: seconds)
    chosen = choose("auto", CPU, SMALL.unet, 8, tmp_path / "precision.json")
    assert chosen.name == name
    assert chosen.dtype == getattr(torch, name)
    assert why in chosen.why


def test_a_measurement_is_kept_for_this_network_only(tmp_path: Path) -> None:
    cache = tmp_path / "state" / "precision.json"
    first = choose("auto", CPU, SMALL.unet, 8, cache)
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: {"float32": 9.0, "bfloat16": 1.0}}))
    assert choose("auto", CPU, SMALL.unet, 8, cache).name == "bfloat16", "the kept measurement decides"
    choose("auto", CPU, replace(SMALL.unet, channels=(32, 32)), 8, cache)
    assert len(json.loads(cache.read_text())) == 2
    assert first.why


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 3}', '{"a": {"float32": "x"}}'])
def test_a_damaged_or_unwritable_cache_is_measured_over(content: str, tmp_path: Path) -> None:
    cache = tmp_path / "precision.json"
    cache.write_text(content)
    assert choose("auto", CPU, SMALL.unet, 8, cache).name in ("float32", "bfloat16")
    blocked = tmp_path / "precision.json" / "below a file"
    assert choose("auto", CPU, SMALL.unet, 8, blocked).name in ("float32", "bfloat16")


def test_what_was_asked_for_is_taken(tmp_path: Path) -> None:
    chosen = choose("bfloat16", CPU, SMALL.unet, 8, tmp_path / "x.json")
    assert (chosen.name, (tmp_path / "x.json").exists()) == ("bfloat16", False)
