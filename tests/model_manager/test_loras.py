"""LoRA files as people drop them into folders: found, described, refused with the reason, and called by prompts."""

import hashlib
import json
import os
from pathlib import Path

import numpy
import pytest
import torch

from modules.model_manager.architecture import SD15
from modules.model_manager.check import check_file
from modules.model_manager.headers import read_header
from modules.model_manager.lora_file import adapters_of, fitted
from modules.model_manager.loras import called, find_lora, lora_hashes, scan_loras
from modules.model_manager.stored import Refused
from modules.recipe.prompt import Network
from tests.checkpoints import SMALL, write_checkpoint
from tests.loras import CONV, Q_PROJ, TO_K, Weights, weights, write_lora


def zeros(shapes: dict[str, tuple[int, ...]]) -> Weights:
    return {name: numpy.zeros(shape, "float32") for name, shape in shapes.items()}


def only(tmp_path: Path) -> tuple[str, str]:
    """Status and reason (or what it is) of the one file there is."""
    (lora,) = scan_loras([tmp_path])
    return lora.status, lora.reason or lora.about


def test_a_lora_is_described(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", weights(rank=3), ss_output_name="my style")
    assert only(tmp_path) == ("ok", "LoRA of rank 3 for 3 layers of the U-Net and 1 layer of the text encoder")
    write_lora(tmp_path / "a.safetensors", {**weights([TO_K], 3), **weights([CONV], 4)})
    assert only(tmp_path) == ("ok", "LoRA of ranks 3 to 4 for 2 layers of the U-Net")
    assert check_file(tmp_path / "a.safetensors").startswith("usable: LoRA of ranks 3 to 4 for 2 layers of the U-Net, 6 tensors")


def test_one_saved_by_torch_is_read_too_and_its_whole_alpha(tmp_path: Path) -> None:
    tensors = {name: torch.from_numpy(values) for name, values in weights([Q_PROJ]).items()}
    torch.save({**tensors, f"{Q_PROJ}.alpha": torch.tensor(4)}, tmp_path / "a.pt")
    assert only(tmp_path) == ("ok", "LoRA of rank 2 for 1 layer of the text encoder")
    assert check_file(tmp_path / "a.pt").startswith("usable: LoRA")


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "holds no tensors"),
        ({f"{TO_K}.hada_w1_a": (4, 2), f"{TO_K}.hada_w1_b": (2, 4)}, "a LoHa: not supported; LoRA and LoCon are"),
        ({f"{TO_K}.lokr_w1": (4, 4), f"{TO_K}.alpha": ()}, "a LoKr"),
        ({**{n: v.shape for n, v in weights([TO_K]).items()}, f"{TO_K}.dora_scale": (64, 1)}, "a DoRA"),
        ({"oft_unet_x.oft_blocks": (2, 4, 4)}, "an OFT"),
        ({f"{TO_K}.a1.weight": (4, 4)}, "a GLoRA"),
        ({f"{TO_K}.diff": (4, 4)}, "a full difference"),
        ({f"{TO_K}.w_norm": (4,)}, "a LoRA with norms"),
        ({f"{TO_K}.on_input": ()}, "an IA3"),
        ({**{n: v.shape for n, v in weights([TO_K]).items()}, "bundle_emb.x.string_to_param.*": (1, 64)}, "a LoRA with embeddings in it"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 4)}, "a LoRA for SDXL"),
        ({"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_k.lora_down.weight": (2, 4)}, "a LoRA for SDXL"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (2, 4)}, "a LoRA for Flux"),
        ({"transformer.transformer_blocks.1.attn.to_k.lora_A.weight": (2, 4)}, "a LoRA for Flux"),
        ({f"{TO_K}.lora_down.weight": (2, 4)}, f"not a complete LoRA: {TO_K} has no up"),
        ({f"{TO_K}.alpha": (), f"{CONV}.lora_up.weight": (2, 4)}, f"not a complete LoRA: {TO_K} has no down and no up"),
        ({f"{TO_K}.lora_down.weight": (2, 4), f"{TO_K}.lora_up.weight": (4, 3)}, r"wrong shapes: .* \[4, 3\] · \[2, 4\]"),
        ({f"{TO_K}.lora_down.weight": (0, 4), f"{TO_K}.lora_up.weight": (4, 0)}, "wrong shapes"),
        ({f"{TO_K}.lora_down.weight": (), f"{TO_K}.lora_up.weight": ()}, "wrong shapes"),
        ({f"{TO_K}.lora_down.weight": (2, 4), f"{TO_K}.lora_up.weight": (4, 2), f"{TO_K}.alpha": (3,)}, "alpha of .* is not one number"),
        ({f"{TO_K}.lora_down.weight": (10**6, 1), f"{TO_K}.lora_up.weight": (1, 10**6)}, "of rank 1000000, more than"),
        (
            {f"{CONV}.lora_down.weight": (2, 4, 3, 3), f"{CONV}.lora_mid.weight": (2, 2, 3, 3), f"{CONV}.lora_up.weight": (4, 2, 1, 1)},
            "wrong shapes",
        ),
        ({f"{TO_K}.lora_down.weight": (2, 4), "something.lora_down.weight": (2, 4)}, "unlike any LoRA that is known: .*something"),
        ({"string_to_param.*": (1, 768)}, "not a LoRA but a textual inversion embedding"),
        ({"a.b.c": (1, 768)}, "not a LoRA: it has tensors of unknown names, a.b.c say"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tensors: dict[str, tuple[int, ...]], reason: str, tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", zeros(tensors))
    with pytest.raises(Refused, match=reason) as refused:
        adapters_of(read_header(tmp_path / "a.safetensors"))
    assert only(tmp_path) == ("refused", str(refused.value))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_a_checkpoint_among_loras_is_sent_home(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.safetensors")
    assert only(tmp_path) == ("refused", "a checkpoint, not a LoRA: it belongs in models/Stable-diffusion")


def test_a_spelling_twice_and_strange_numbers_are_refused(tmp_path: Path) -> None:
    again = {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": numpy.zeros((2, 64), "float32")}
    write_lora(tmp_path / "a.safetensors", {**weights([TO_K]), **again})
    assert "twice, in two spellings" in only(tmp_path)[1]
    write_lora(tmp_path / "a.safetensors", {name: values.astype("int8") for name, values in weights([TO_K]).items()})
    assert "number format I8" in only(tmp_path)[1]
    spoiled = weights([TO_K])
    spoiled[f"{TO_K}.lora_up.weight"][0] = numpy.nan
    write_lora(tmp_path / "a.safetensors", spoiled)
    with pytest.raises(Refused, match="not finite"):
        check_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("text", ["no json", "[]", '{"unet.lora_alpha": "x"}', '{"unet.lora_alpha": null}', "[" * 100_000])
def test_settings_that_make_no_sense_are_refused(text: str, tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", weights([TO_K]), lora_adapter_metadata=text)
    assert only(tmp_path) == ("refused", "damaged: the settings in its metadata make no sense")


def test_settings_of_peft_say_the_scale(tmp_path: Path) -> None:
    bare = {name: values for name, values in weights([TO_K, Q_PROJ], rank=4).items() if not name.endswith("alpha")}

    def scales(**settings: object) -> list[float]:
        path = write_lora(tmp_path / "a.safetensors", bare, **({"lora_adapter_metadata": json.dumps(settings)} if settings else {}))
        adapters = adapters_of(read_header(path))
        return [adapters[TO_K].scale, adapters[Q_PROJ].scale]

    assert scales() == [1, 1]
    assert scales(**{"unet.lora_alpha": 8}) == [2, 1]
    assert scales(**{"text_encoder.lora_alpha": 8, "text_encoder.use_rslora": True}) == [1, 4]
    with pytest.raises(Refused, match="an alpha for each layer"):
        scales(**{"unet.alpha_pattern": {"to_k": 3}})


def test_a_lora_is_checked_against_the_checkpoint(tmp_path: Path) -> None:
    ours = adapters_of(read_header(write_lora(tmp_path / "a.safetensors")))
    assert fitted(ours, SMALL) == ours
    with pytest.raises(Refused, match=r"for a model of another size: 4 of its 4 layers .* here, the LoRA changes"):
        fitted(ours, SD15)
    deep = Q_PROJ.replace("_0_", "_11_")
    deeper = zeros({f"{deep}.lora_down.weight": (2, 64), f"{deep}.lora_up.weight": (64, 2)})
    with pytest.raises(Refused, match="for another kind of model: 1 of its 1 layers are not there, lora_te_text_model_encoder_layers_11"):
        fitted(adapters_of(read_header(write_lora(tmp_path / "b.safetensors", deeper))), SMALL)


def test_prompts_call_a_lora_by_stem_path_or_the_trainers_name(tmp_path: Path) -> None:
    plain = write_lora(tmp_path / "Lora/Plain_v1.2.safetensors", ss_output_name="trained as")
    inner = write_lora(tmp_path / "Lora/sub/twice.safetensors")
    other = write_lora(tmp_path / "LyCORIS/other/twice.safetensors")
    write_lora(tmp_path / "Lora/a:b.safetensors")
    (tmp_path / "Lora/broken.pt").write_bytes(b"")
    os.mkfifo(tmp_path / "Lora/pipe.pt")
    roots = [tmp_path / "Lora", tmp_path / "LyCORIS", tmp_path / "missing"]
    for word in ("Plain_v1.2", "plain_V1.2", " Plain_v1.2 ", "Plain_v1.2.safetensors", "trained as"):
        assert find_lora(roots, word).path == plain
    assert find_lora(roots, "sub/twice").path == inner and find_lora(roots, "other/twice").path == other
    assert {call: lora.path for call, lora in called(scan_loras(roots)).items()} == {
        "Plain_v1.2": plain,
        "sub/twice": inner,
        "other/twice": other,
    }
    for word, problem in {
        "twice": "twice could be sub/twice.safetensors or other/twice.safetensors: say which",
        "plain": "there is no LoRA plain; did you mean Plain_v1.2",
        "broken": "broken.pt cannot be used: an empty file",
        "pipe": "pipe.pt cannot be used: a named pipe",
        "a:b": "a:b.safetensors cannot be used: no prompt can call",
    }.items():
        with pytest.raises(LookupError, match=problem):
            find_lora(roots, word)


def test_calling_one_reads_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.model_manager import loras

    for name in "abc":
        write_lora(tmp_path / f"{name}.safetensors")
    reads = []
    monkeypatch.setattr(loras, "read_header", lambda path: reads.append(path.stem) or read_header(path))
    find_lora([tmp_path], "b")
    assert reads == ["b"]


def test_hashes_are_those_that_others_write(tmp_path: Path) -> None:
    one = write_lora(tmp_path / "one.safetensors", ss_output_name="first")
    data = one.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    digest = hashlib.sha256(data[start:]).hexdigest()[:12]
    write_lora(tmp_path / "two, too.safetensors", sshs_model_hash="ABCDEF0123456789" * 4)
    torch.save({name: torch.from_numpy(values) for name, values in weights().items()}, tmp_path / "three.pt")
    whole = hashlib.sha256((tmp_path / "three.pt").read_bytes()).hexdigest()[:12]
    networks = [Network(name, 1.0, 1.0) for name in ("one", "two, too", "three", "one")]
    for _ in range(2):  # measured, then remembered
        written = lora_hashes(networks, [tmp_path], SMALL, tmp_path / "hashes.sqlite3")
        assert written == f"one: {digest}, two too: abcdef012345, three: {whole}"
    write_lora(tmp_path / "one.safetensors", ss_output_name="second name of other length")
    assert lora_hashes(networks[:1], [tmp_path], SMALL, tmp_path / "hashes.sqlite3") == f"one: {digest}"
