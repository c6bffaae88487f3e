"""Training that goes on from a checkpoint: what it learns, what it leaves alone, what it writes, and that engine and others read it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import app
from modules.engine.lora import applied, read, text_layers, unet_layers
from modules.engine.studio import Studio
from modules.model_manager.library import find, scan
from modules.model_manager.loras import scan_loras
from modules.recipe.prompt import Network
from modules.settings import Settings
from modules.training import base, finetune, lora
from modules.training.base import Base, Descent, found_base, load_base
from modules.training.files import Unusable
from modules.training.folder import Folder, read_folder
from modules.training.loop import Budget, Trainer, train
from modules.training.written import check_output
from tests.checkpoints import SMALL, write_checkpoint, write_safetensors
from tests.training.folders import write_folder

PLAN = Descent(rate=1e-3, steps=6, batch=4)
EVERYTHING = lora.Shape(rank=2, alpha=4, convolutions=True, text=True)
V_MODEL = replace(SMALL, prediction="v")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder with a checkpoint that predicts noise, an older one that predicts v, and one of another family."""
    place = tmp_path_factory.mktemp("data")
    models = place / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    write_checkpoint(models / "eps.safetensors", SMALL, seed=1, dtype="float16")
    write_checkpoint(models / "v.ckpt", V_MODEL, format="ckpt", seed=2)
    write_safetensors(models / "xl.safetensors", {"conditioner.x": (1,)}, "float32", [("x", numpy.zeros(1, "float32"))])
    return Settings(data_dir=place, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return read_folder(write_folder(tmp_path_factory.mktemp("pictures") / "squares", 12), SMALL.native_size)


def loaded(name: str, settings: Settings) -> Base:
    start = load_base(found_base(name, settings), settings)
    torch.set_num_threads(1)  # these networks are too small for more
    return start


@pytest.fixture
def start(settings: Settings) -> Base:
    return loaded("eps", settings)


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["eps", "v"])
def test_finetuning_learns_what_the_pictures_show(name: str, settings: Settings, data: Folder) -> None:
    start = loaded(name, settings)
    held, contexts = base.encoded(start.family, data, data.held_out), base.read_once(start.family)
    before = base.held_out_loss(start, held, contexts)
    training = finetune.trainer("tuned", start, data, replace(PLAN, rate=3e-3, steps=40), {})
    for number in range(40):
        training.step(number, number / 40)
    assert base.held_out_loss(start, held, contexts) < 0.8 * before


def makers(start: Callable[[], Base], data: Folder) -> dict[str, Callable[[], Trainer]]:
    return {
        "finetune": lambda: finetune.trainer("tuned", start(), data, PLAN, {}),
        "lora": lambda: lora.trainer("tuned", start(), data, PLAN, {}, EVERYTHING),
    }


@pytest.mark.parametrize("kind", ["finetune", "lora"])
def test_resumed_equals_uninterrupted(kind: str, settings: Settings, data: Folder, tmp_path: Path) -> None:
    make = makers(lambda: loaded("eps", settings), data)[kind]
    whole, first, second = make(), make(), make()
    whole.picture = first.picture = second.picture = None
    assert train(whole, Budget(4), tmp_path / "whole")
    inner = first.step

    def stopping(number: int, fraction: float) -> dict[str, float]:
        first._stop = number == 1
        return inner(number, fraction)

    first.step = stopping
    assert not train(first, Budget(4), tmp_path / "parts")
    assert train(second, Budget(4), tmp_path / "parts")
    for name, network in whole.networks.items():
        assert equal(weights_of(network), weights_of(second.networks[name]))


@pytest.mark.parametrize("name", ["eps.safetensors", "v.ckpt"])
def test_a_tuned_checkpoint_is_the_old_one_but_for_its_unet(name: str, settings: Settings, data: Folder, tmp_path: Path) -> None:
    start = loaded(name, settings)
    training = finetune.trainer("tuned", start, data, PLAN, {})
    with torch.no_grad():
        for parameter in training.networks["ema"].parameters():
            parameter.mul_(1.5)
    output = tmp_path / "models" / "tuned.safetensors"
    finetune.write(training, start, data, output)
    new = load_file(output)
    stored = start.found.path
    old = load_file(stored) if name.endswith("safetensors") else torch.load(stored, weights_only=True)["state_dict"]
    assert new.keys() == old.keys()
    for key, tensor in old.items():
        assert new[key].dtype == tensor.dtype and new[key].shape == tensor.shape
        assert torch.equal(new[key], tensor) != key.startswith("model.diffusion_model."), key
    again = find(scan([output.parent]), "tuned")
    assert again.status == "ok" and again.architecture == start.family.architecture
    back = Studio([output.parent], [], tmp_path / "state", "cpu", "float32").warm("tuned", "", lambda fraction: None).family.unet
    for one, other in zip(back.parameters(), training.networks["ema"].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    with safe_open(output, "pt") as file:
        assert file.metadata()["easel_from"] == name and file.metadata()["easel"]


def test_averages_of_the_old_unet_do_not_outlive_it(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    old = load_file(settings.models / "Stable-diffusion" / "eps.safetensors")
    other = {"model_ema.decay": torch.ones(()), "alphas_cumprod": torch.ones(3, dtype=torch.float64)}
    average = {"model_ema.diffusion_modelout2bias": torch.ones(4)}
    save_file(old | other | average, folder / "a.safetensors")
    shutil.copy(settings.models / "Stable-diffusion" / "eps.yaml", folder / "a.yaml")
    here = Settings(data_dir=tmp_path, device="cpu")
    start = loaded("a", here)
    kept = finetune.exchanged(start, start.family.unet.state_dict())
    assert torch.equal(kept.pop(*average), old["model.diffusion_model.out.2.bias"].float())
    assert equal(kept, old | other)


def test_a_file_from_elsewhere_is_never_written_over(settings: Settings, data: Folder, start: Base, tmp_path: Path) -> None:
    foreign = shutil.copy(start.found.path, tmp_path / "mine.safetensors")
    before = foreign.read_bytes()
    training = finetune.trainer("mine", start, data, PLAN, {})
    for attempt in (lambda: check_output(foreign), lambda: finetune.write(training, start, data, foreign)):
        with pytest.raises(Unusable, match="there already"):
            attempt()
    assert foreign.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ["mine.safetensors"]
    own = tmp_path / "own.safetensors"
    finetune.write(training, start, data, own)
    finetune.write(training, start, data, own)
    with pytest.raises(Unusable, match=r"\.safetensors"):
        check_output(tmp_path / "own.ckpt")


@pytest.mark.parametrize("shape", [EVERYTHING, lora.Shape(rank=3, alpha=3, convolutions=False, text=False)])
def test_a_lora_in_the_engine_is_what_was_trained(shape: lora.Shape, settings: Settings, data: Folder, start: Base, tmp_path: Path) -> None:
    plain = loaded("eps", settings).family
    training = lora.trainer("squares", start, data, PLAN, {}, shape)
    with torch.no_grad():
        for change in training.networks["network"].values():
            change.up.weight.normal_(std=0.3)
            change.down.weight.copy_(change.down.weight.half())
            change.up.weight.copy_(change.up.weight.half())
    output = tmp_path / "squares.safetensors"
    lora.write(training, start, data, PLAN, shape, output, settings.hashes)

    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 800]), torch.randn(2, 77, 64)
    ids = torch.tensor([base.encoded(plain, data, numpy.array([0])).words[0].ids])
    before = plain.unet(x, t, context).sample, plain.text(input_ids=ids).last_hidden_state
    wanted = start.family.unet(x, t, context).sample, start.family.text(input_ids=ids).last_hidden_state
    changes = read(output, Network("squares", 1, 1), start.family.architecture, lambda: None)
    assert len(changes) == 1 + shape.text
    with applied(unet_layers(plain.unet) | text_layers(plain.text), changes, lambda: None):
        drawn = plain.unet(x, t, context).sample, plain.text(input_ids=ids).last_hidden_state
    torch.testing.assert_close(drawn, wanted, rtol=1e-3, atol=1e-3)
    assert (wanted[0] - before[0]).abs().max() > 0.1
    assert torch.equal(wanted[1], before[1]) != shape.text


def test_a_lora_says_what_other_programs_ask(settings: Settings, data: Folder, start: Base, tmp_path: Path) -> None:
    training = lora.trainer("squares", start, data, PLAN, {}, EVERYTHING)
    output = tmp_path / "squares.safetensors"
    lora.write(training, start, data, PLAN, EVERYTHING, output, settings.hashes)
    (found,) = scan_loras([tmp_path])
    assert found.status == "ok" and found.alias == "squares" and "rank 2" in found.about and "text encoder" in found.about
    with safe_open(output, "pt") as file:
        about = file.metadata()
    assert about["ss_network_dim"] == "2" and float(about["ss_network_alpha"]) == 4 and about["ss_base_model_version"] == "sd_v1"
    assert about["ss_new_sd_model_hash"] == hashlib.sha256(start.found.path.read_bytes()).hexdigest()
    assert json.loads(about["ss_tag_frequency"])["squares"]["a square on red"] == 3
    content = output.read_bytes()
    behind = content[8 + int.from_bytes(content[:8], "little") :]
    assert about["sshs_model_hash"] == hashlib.sha256(behind).hexdigest()


def test_training_a_lora_leaves_the_checkpoint_alone(data: Folder, start: Base) -> None:
    unet = {id(layer): layer.weight.clone() for layer in unet_layers(start.family.unet).values()}
    layers = list(unet_layers(start.family.unet).values())
    training = lora.trainer("squares", start, data, PLAN, {}, EVERYTHING)
    losses = [training.step(number, number / 6)["loss"] for number in range(3)]
    assert all(numpy.isfinite(losses))
    assert all(torch.equal(layer.weight, unet[id(layer)]) for layer in layers)
    changed = training.networks["network"]
    assert any(name.startswith("lora_te_") for name in changed) and any("resnets" in name for name in changed)
    assert all(change.up.weight.abs().max() > 0 for change in changed.values())


def test_from_a_folder_to_a_lora_on_the_command_line(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = write_folder(tmp_path / "squares", 3)
    (pictures / "03.png").write_bytes(b"no picture")
    (pictures / "03.txt").write_text("a caption")
    places = ["--data", str(pictures), "--data-dir", str(settings.data_dir), "--folder", str(tmp_path / "work")]
    common = [*places, "--steps", "2", "--threads", "1"]
    assert app.main(["train", "lora", "--from", "eps", "--rank", "2", *common]) == 0
    assert "3 pictures with captions; left out: 1 broken pictures (03.png" in capsys.readouterr().out
    assert [found.name for found in scan_loras(settings.lora_roots)] == ["squares.safetensors"]
    assert (tmp_path / "work" / "lora" / "squares.png").stat().st_size > 100
    assert app.main(["train", "lora", "--from", "eps", "--rank", "3", *common]) == 1
    assert "trained with rank 2" in capsys.readouterr().err
    assert app.main(["train", "finetune", "--from", "eps", *common]) == 0
    assert find(scan(settings.checkpoint_roots), "eps-tuned").status == "ok"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "nobody"], "there is no nobody"),
        (["--from", "xl"], "an SDXL model: not supported"),
        (["--data", "/nowhere"], "/nowhere is not there"),
        (["--output", "x.ckpt"], ".safetensors"),
    ],
)
@pytest.mark.parametrize("step", ["finetune", "lora"])
def test_what_cannot_be_trained_is_said_in_one_line(
    step: str, options: list[str], said: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_folder(tmp_path / "squares", 2)
    usual = ["--from", "eps", "--data", str(pictures), "--data-dir", str(settings.data_dir), "--folder", str(tmp_path / "work")]
    assert app.main(["train", step, *usual, *options]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("thing", "words"), [("snail", ["snail"]), ("tulip", ["tulip", "flower"])])
def test_scenes_of_any_emoji_are_a_folder_to_train_on(
    thing: str, words: list[str], icons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(wanted: str, folder: str) -> int:
        return app.main(["train", "scenes", "--thing", wanted, "--count", "12", "--icons", str(icons), "--output", str(tmp_path / folder)])

    assert write(thing, "new") == 0
    data = read_folder(tmp_path / "new", 128)
    assert len(data.captions) == 12 and data.left_out == ""
    assert all(any(word in caption for word in words) for caption in data.captions)
    assert write(thing, "new") == 1
    assert "not empty" in capsys.readouterr().err
    assert write(f"{thing}o", "other") == 1
    assert f"did you mean {thing}" in capsys.readouterr().err and not (tmp_path / "other").exists()
