"""The `.yaml` beside a checkpoint, as people have it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from modules.model_manager.config import DIFFUSION, read_config, read_defaults
from modules.model_manager.headers import Refused
from modules.model_manager.reading import described
from tests.checkpoints import SMALL, config_of, write_checkpoint

AS_RELEASED = """
model:
  base_learning_rate: 1.0e-04
  target: os.system
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    log_every_t: 200
    first_stage_key: "jpg"
    image_size: 64
    cond_stage_trainable: false   # a comment
    monitor: val/loss_simple_ema
    scale_factor: 0.18215
    use_ema: False
    scheduler_config: # 10000 warmup steps
      target: ldm.lr_scheduler.LambdaLinearScheduler
      params: {warm_up_steps: [ 10000 ], f_start: [ 1.e-6 ]}
    unet_config:
      params:
        image_size: 32 # unused
        attention_resolutions: [ 4, 2, 1 ]
        num_heads: 8
        use_checkpoint: True
    first_stage_config:
      params:
        ckpt_path: /etc/passwd
        ddconfig: {double_z: true, ch_mult: [1, 2, 4, 4], attn_resolutions: []}
        lossconfig:
          target: torch.nn.Identity
"""


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "a.safetensors", dtype="float16").with_suffix(".yaml")


def test_a_released_configuration_is_understood_and_nothing_in_it_followed(beside: Path) -> None:
    beside.write_text(AS_RELEASED)
    assert described(beside.with_suffix(".safetensors"))[1] == replace(SMALL, native_size=512)
    assert read_defaults(beside) == {}


@pytest.mark.parametrize("text", ["", "# nothing\n", "model:\n", "model: {params: }\n", "just words", "[1, 2]"])
def test_a_configuration_that_says_nothing_leaves_the_defaults(beside: Path, text: str) -> None:
    beside.write_text(text)
    assert described(beside.with_suffix(".safetensors"))[1] == replace(SMALL, native_size=512)


@pytest.mark.parametrize(("width", "heads"), [(16, [2, 4]), (32, [1, 2])])
def test_heads_by_their_width(beside: Path, width: int, heads: list[int]) -> None:
    config = config_of(SMALL)
    config["model"]["params"]["unet_config"]["params"] = {"num_head_channels": width, "num_heads": -1}  # type: ignore[index]
    beside.write_text(yaml.safe_dump(config))
    unet = described(beside.with_suffix(".safetensors"))[1].unet
    assert [unet.heads_at(level) for level in range(2)] == heads


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "yes", "9" * 5000, "٣", "1 000"])
def test_a_whole_number_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(f"model: {{params: {{image_size: {text}}}}}")
    with pytest.raises(Refused, match="a.yaml: image_size must be a whole number from 1 to 4096, not"):
        read_config(tmp_path / "a.yaml").whole(DIFFUSION, "image_size", 64, 4096)
