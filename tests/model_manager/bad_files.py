"""Bad files that are not zips: lying safetensors headers, downloads gone wrong, models of other kinds, and what is no file."""

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
import yaml

from modules.model_manager.layout import expected_tensors
from tests.checkpoints import config_of, write_checkpoint, write_safetensors
from tests.model_manager.bad_zips import LYING, TINY, Write, hostile, saved

Shape = tuple[int, ...]


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> Write:
    """A safetensors file of these very bytes."""
    return lambda path: path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def entries(data: bytes = bytes(64), **tensors: object) -> Write:
    return raw(json.dumps(tensors).encode(), data)


def entry(begin: int, end: int, shape: list[int], dtype: str = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def of_shapes(shapes: dict[str, Shape], dtype: str = "float16") -> Write:
    """A file of zeros with these names and shapes."""
    weights = ((name, numpy.zeros(shape, dtype)) for name, shape in shapes.items())
    return lambda path: write_safetensors(path, shapes, dtype, weights)


def tiny(change: Callable[[dict[str, Shape]], object]) -> Write:
    """TINY's names and shapes, changed."""
    shapes = expected_tensors(TINY)
    change(shapes)
    return of_shapes(shapes)


def without(count: int) -> Callable[[dict[str, Shape]], object]:
    return lambda shapes: [shapes.pop(name) for name in list(shapes)[20 : 20 + count]]


def wrong(count: int) -> Callable[[dict[str, Shape]], object]:
    return lambda shapes: shapes.update({name: (3, 5) for name in [name for name in shapes if "transformer_blocks.0.ff" in name][:count]})


def sparse_lora(rank: int) -> Write:
    """A LoRA of this rank, gigabytes of nothing."""
    size, name = 2 * rank * 2048, "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"

    def write(path: Path) -> None:
        raw(json.dumps({name: entry(0, size, [rank, 2048])}).encode())(path)
        os.truncate(path, path.stat().st_size + size)

    return write


def content(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def with_yaml(text: str | bytes) -> Write:
    """A good checkpoint with this beside it."""

    def write(path: Path) -> None:
        write_checkpoint(path, TINY, dtype="float16")
        path.with_suffix(".yaml").write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def with_config(place: str, value: object) -> Write:
    def write(path: Path) -> None:
        config: dict = config_of(TINY)
        table = config["model"]["params"]
        *steps, key = place.split(".")
        for step in steps:
            table = table[step]
        table[key] = value
        with_yaml(yaml.safe_dump(config))(path)

    return write


def with_fifo_yaml(path: Path) -> None:
    write_checkpoint(path, TINY, dtype="float16")
    path.with_suffix(".yaml").unlink()
    os.mkfifo(path.with_suffix(".yaml"))


def make_socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    try:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is at most 108 bytes long
        listener.bind(path.name)
    finally:
        os.chdir(here)
        listener.close()


def embedding(path: Path) -> None:
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}, path)


MERGE_BOMB = "a0: {x: 1}\n" + "".join(f"a{n}: {{<<: [*b{n - 1}, *b{n - 1}]}}\n" for n in range(1, 40))
HUNDRED_THOUSAND = {f"tensor.{n}": entry(2 * n, 2 * n + 2, [1]) for n in range(100_000)}
U, F, T = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."

OTHERS: dict[str, tuple[Write, str]] = {
    "length_2_63.safetensors": (raw(b'{"a":1}' + bytes(99), length=2**63), "damaged"),
    "length_0.safetensors": (raw(b"", bytes(80)), "begins with zeros|not a model"),
    "length_beyond.safetensors": (raw(b'{"a":1}' + bytes(99), length=5000), "incomplete"),
    "length_100_mb.safetensors": (raw(b'{"a":1}' + bytes(99), length=101 * 2**20), "damaged"),
    "not_utf8.safetensors": (raw(b'{"\xff\xfe\xfa":1}', bytes(64)), "not readable JSON"),
    "deep_json.safetensors": (raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not readable JSON"),
    "huge_integer.safetensors": (raw(b'{"a":' + b"9" * 100_000 + b"}"), "not readable JSON"),
    "duplicate.safetensors": (
        raw(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', b"00"),
        "twice",
    ),
    "many.safetensors": (entries(bytes(200_000), **HUNDRED_THOUSAND), "100000 tensors|longer|damaged"),
    "nested_metadata.safetensors": (entries(b"00", __metadata__={"a": {"b": "c"}}, a=entry(0, 2, [1])), "metadata"),
    "surrogate.safetensors": (raw(b'{"a\\ud800":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', b"00"), "not a tensor's name"),
    "overlap.safetensors": (entries(a=entry(0, 40, [20]), b=entry(32, 64, [16])), "overlaps"),
    "negative.safetensors": (entries(a=entry(-64, 0, [32])), "make no sense"),
    "beyond.safetensors": (entries(a=entry(0, 128, [64])), "incomplete: 1.* of"),
    "hole.safetensors": (entries(a=entry(0, 20, [10]), b=entry(32, 64, [16])), "hole"),
    "tail.safetensors": (entries(a=entry(0, 20, [10])), "belong to nothing"),
    "product.safetensors": (entries(a=entry(0, 64, [31])), "need 62"),
    "overflow.safetensors": (entries(a=entry(0, 64, [2**62, 2**62])), "shape"),
    "zero_by_huge.safetensors": (entries(b"", a=entry(0, 0, [0, 2**60])), "shape"),
    "float_shape.safetensors": (raw(b'{"a":{"dtype":"F16","shape":[1.0],"data_offsets":[0,2]}}', b"00"), "malformed"),
    "dimensions.safetensors": (entries(a=entry(0, 64, [1] * 10_000 + [32])), "shape"),
    "unknown_format.safetensors": (entries(a=entry(0, 64, [32], "F13")), "number format"),
    "list.safetensors": (raw(b"[" + b"1," * 40 + b"1]"), "not a model|incomplete|damaged"),
    "empty.safetensors": (content(b""), "empty file"),
    "tiny.ckpt": (content(b"PK\x03"), "only 3 bytes"),
    "zeros.ckpt": (content(bytes(5000)), "begins with zeros"),
    "page.ckpt": (content(b"\n <!DOCTYPE html><html><body>401 Unauthorized</body></html>" + b" " * 80), "web page"),
    "error.safetensors": (content(b'{"error": "Access to model is restricted and you are not in the authorized list"}'), "JSON text"),
    "pointer.safetensors": (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"6ce0" * 16), "git lfs pull"),
    "model.bin": (content(b"GGUF\x03\0\0\0\x7b\0\0\0\0\0\0\0" + bytes(80)), "GGUF"),
    "picture.ckpt": (content(b"\x89PNG\r\n\x1a\n" + bytes(80)), "picture"),
    "packed.ckpt": (content(b"\x1f\x8b\x08\x00" + bytes(80)), "gzip"),
    "words.pt": (content(b"hello " * 50), "not a model file"),
    "missing.safetensors": (tiny(without(12)), "not a complete SD1 checkpoint: 12 tensors are missing, for example model"),
    "shapes.safetensors": (tiny(wrong(12)), "right names, wrong shapes: 12 tensors"),
    "no_vae.safetensors": (of_shapes({n: s for n, s in expected_tensors(TINY).items() if not n.startswith(F)}), "its VAE is missing"),
    "deeper.safetensors": (tiny(lambda s: s.update({f"{U}input_blocks.1.1.transformer_blocks.1.x": (32,)})), "1 tensor is too many"),
    "small_vocabulary.safetensors": (tiny(lambda s: s.update({f"{T}embeddings.token_embedding.weight": (100, 64)})), "not a CLIP"),
    "pix2pix.safetensors": (tiny(lambda s: s.update({f"{U}input_blocks.0.0.weight": (32, 8, 3, 3)})), "pix2pix"),
    "lora.safetensors": (of_shapes({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 32)}), "models/Lora"),
    "peft.safetensors": (of_shapes({"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": (4, 32)}), "models/Lora"),
    "vae.safetensors": (of_shapes({n.removeprefix(F): s for n, s in expected_tensors(TINY).items() if n.startswith(F)}), "models/VAE"),
    "embedding.pt": (embedding, "embeddings"),
    "sdxl.safetensors": (of_shapes({f"{U}out.0.weight": (32,), "conditioner.embedders.0.x": (2,)}), "an SDXL model: not supported yet"),
    "refiner.safetensors": (of_shapes({f"{U}out.0.weight": (32,), "conditioner.embedders.0.model.x": (2,)}), "an SDXL refiner"),
    "sdxl_inpainting.safetensors": (
        of_shapes({f"{U}input_blocks.0.0.weight": (32, 9, 3, 3), "conditioner.embedders.0.x": (2,)}),
        "an SDXL inpainting model",
    ),
    "large_lora.safetensors": (sparse_lora(10**6), "a LoRA, not a checkpoint: it belongs in models/Lora"),
    "lora_of_sdxl.safetensors": (of_shapes({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (8, 4)}), "models/Lora"),
    "sd2.safetensors": (of_shapes({f"{U}out.0.weight": (32,), "cond_stage_model.model.ln_final.weight": (2,)}), "its VAE is missing"),
    "controlnet.safetensors": (of_shapes({"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}), "models/ControlNet"),
    "upscaler.pth": (saved({"params_ema": {"conv_first.weight": torch.zeros(2), "conv_body.weight": torch.zeros(2)}}), "ESRGAN"),
    "part.safetensors": (of_shapes({"down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)}), "diffusers folder"),
    "clip.safetensors": (of_shapes({"text_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}), "a text encoder"),
    "unknown.safetensors": (of_shapes({"fc.weight": (4, 4)}), "1 tensors of unknown names, for example fc.weight"),
    "no_tensors.safetensors": (raw(b"{}" + b" " * 80), "no tensors"),
    "yaml_merge.safetensors": (with_yaml(MERGE_BOMB), "aliases|merge"),
    "yaml_large.safetensors": (with_yaml("# " + "x" * 70_000), "bytes"),
    "yaml_deep.safetensors": (with_yaml("[" * 5000 + "]" * 5000), "deeply"),
    "yaml_binary.safetensors": (with_yaml(b"\xff\xfe\x00"), "not text"),
    "yaml_broken.safetensors": (with_yaml("model:\n  params: {image_size: 16\n"), "line 3 is not YAML"),
    "yaml_fifo.safetensors": (with_fifo_yaml, "named pipe"),
    "yaml_nan.safetensors": (with_config("scale_factor", float("nan")), "scale_factor"),
    "yaml_size.safetensors": (with_config("image_size", 10**12), "image_size"),
    "yaml_list.safetensors": (with_config("image_size", [1, 2]), "image_size"),
    "yaml_heads.safetensors": (with_config("unet_config.params.num_heads", 7), "7 heads do not divide"),
    "yaml_groups.safetensors": (with_config("first_stage_config.params.ddconfig.norm_num_groups", 5), "5 norm groups"),
    "yaml_parameterization.safetensors": (with_config("parameterization", "x0"), "eps or v"),
    "pipe.ckpt": (os.mkfifo, "named pipe"),
    "socket.ckpt": (make_socket, "a socket"),
    "dangling.ckpt": (lambda path: path.symlink_to("/nonexistent/model.ckpt"), "not there"),
    "loop.ckpt": (lambda path: path.symlink_to(path), "leads back"),
    "device.ckpt": (lambda path: path.symlink_to("/dev/zero"), "a device"),
}  # fmt: skip


def write_bad_files(folder: Path, canary: Path) -> dict[str, str]:
    """Writes them all; returns what each one's reason must match."""
    cases = {**hostile(canary), **LYING, **OTHERS}
    for name, (write, _) in cases.items():
        write(folder / name)
    return {name: reason for name, (_, reason) in cases.items()}
