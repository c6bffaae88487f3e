"""What stays warm between pictures: the networks last used, prompts as they were encoded, and the chosen number format."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from instant_clip_tokenizer import Tokenizer
from torch import Tensor

from modules.engine import preview
from modules.engine.families import sd1
from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.machine import give_back_memory, pick_device, usable_cores
from modules.engine.precision import NumberFormat, choose
from modules.engine.stop import CannotDraw
from modules.engine.weights import Reader
from modules.model_manager.architecture import SD15, UNetShape
from modules.model_manager.headers import read_header
from modules.model_manager.layout import expected_tensors, vae_tensors
from modules.model_manager.library import Checkpoint, VaeFile, find, find_vae, scan, scan_vaes, yaml_beside
from modules.model_manager.recognise import recognise, recognise_vae
from modules.model_manager.stored import Header, Identity, Refused
from modules.model_manager.tensors import open_tensors
from modules.recipe.prompt import chunk, parse
from modules.settings import Settings

ENCODINGS = 64  # prompts kept encoded

Report = Callable[[float], None]
"""Told the fraction of a checkpoint that is loaded; what it raises ends the loading."""


@dataclass
class Warm:
    """A loaded checkpoint, the files that it is made of, and what belongs to it. `vae_name` is empty for the checkpoint's own."""

    name: str
    file: Identity
    vae_name: str
    vae_file: Identity
    family: StableDiffusion1
    format: NumberFormat
    colours: Tensor
    encodings: OrderedDict[tuple[str, int], Tensor] = field(default_factory=OrderedDict)


class Studio:
    """Loads what a recipe names and keeps it. `state` is a folder for what was measured; "auto" picks device and format."""

    def __init__(
        self, checkpoint_roots: Sequence[Path], vae_roots: Sequence[Path], state: Path, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.device = pick_device(device)
        self._roots, self._vae_roots = checkpoint_roots, vae_roots
        self._precision, self._measured = precision, state / "precision.json"
        self._tokenizer = Tokenizer()
        self._warm: Warm | None = None
        torch.set_num_threads(usable_cores())

    @classmethod
    def of(cls, settings: Settings) -> "Studio":
        """The studio that these settings describe."""
        return cls(settings.checkpoint_roots, settings.vae_roots, settings.state, settings.device, settings.precision)

    def format_for(self, shape: UNetShape = SD15.unet, side: int = SD15.native_size // SD15.vae.factor) -> NumberFormat:
        """The number format for a denoiser of this shape and latents of this side; measures for about a second the first time."""
        return choose(self._precision, self.device, shape, side, self._measured)

    def warm(self, checkpoint: str, vae: str, report: Report) -> Warm:
        """The checkpoint and VAE of these names, loaded if they or their files are others than last time."""
        try:
            return self._loaded(*self._found(checkpoint, vae), report)
        except LookupError as error:
            raise CannotDraw(str(error)) from error
        except Refused as refusal:
            raise CannotDraw(f"{checkpoint} cannot be used: {refusal}") from refusal

    def encoded(self, warm: Warm, prompt: str, clip_skip: int) -> Tensor:
        """The conditioning of a prompt, (1, tokens, width); the last prompts are kept."""
        key = prompt, clip_skip
        if key not in warm.encodings:
            warm.encodings[key] = warm.family.encode(chunk(parse(prompt), self._tokenizer.encode), clip_skip)
            if len(warm.encodings) > ENCODINGS:
                warm.encodings.popitem(last=False)
        warm.encodings.move_to_end(key)
        return warm.encodings[key]

    def _found(self, checkpoint: str, vae: str) -> tuple[Checkpoint, VaeFile | None]:
        found = find(scan(self._roots), checkpoint)
        if found.status != "ok":
            raise Refused(found.reason)
        return found, find_vae(scan_vaes(self._vae_roots, self._roots), vae, found.name)

    def _loaded(self, found: Checkpoint, vae: VaeFile | None, report: Report) -> Warm:
        header = read_header(found.path)
        if self._warm is None or self._warm.file != header.identity or self._warm.family.architecture != found.architecture:
            self._warm = None
            give_back_memory()
            self._warm = self._load(found, header, report)
        vae_header = read_header(vae.path) if vae else header
        if self._warm.vae_file != vae_header.identity:
            self._change_vae(self._warm, vae.path if vae else found.path, vae_header, report)
        self._warm.vae_name = vae.name if vae else ""
        return self._warm

    def _load(self, found: Checkpoint, header: Header, report: Report) -> Warm:
        architecture = recognise(header, yaml_beside(found.path))
        chosen = self.format_for(architecture.unet, architecture.native_size // architecture.vae.factor)
        with _reader(found.path, header, expected_tensors(architecture), report) as reader:
            family = sd1.load(architecture, reader, chosen.dtype, self.device)
        return Warm(found.name, header.identity, "", header.identity, family, chosen, _colours(family))

    def _change_vae(self, warm: Warm, path: Path, header: Header, report: Report) -> None:
        shape, prefix = recognise_vae(header, yaml_beside(path))
        own = warm.family.architecture.vae
        if (shape.latent_channels, shape.factor) != (own.latent_channels, own.factor):
            raise CannotDraw(f"the VAE {path.name} is for another kind of model: choose another, or Automatic")
        with _reader(path, header, [prefix + name for name in vae_tensors(shape)], report) as reader:
            warm.family.vae = sd1.load_vae(shape, prefix, reader, warm.format.dtype, self.device)
        warm.vae_file, warm.colours = header.identity, _colours(warm.family)


@contextmanager
def _reader(path: Path, header: Header, names: Iterable[str], report: Report) -> Iterator[Reader]:
    with open_tensors(path, header) as tensors:
        yield Reader(tensors, names, report)


def _colours(family: StableDiffusion1) -> Tensor:
    with torch.inference_mode():
        return preview.fit(family.to_image, family.architecture.vae.latent_channels)
