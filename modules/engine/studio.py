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
from modules.engine.guides import require_finite
from modules.engine.machine import give_back_memory, pick_device, usable_cores
from modules.engine.precision import NumberFormat, choose
from modules.engine.stop import CannotDraw
from modules.engine.weights import Reader
from modules.model_manager.architecture import SD15, UNetShape
from modules.model_manager.headers import read_header
from modules.model_manager.layout import VAE, expected_tensors, vae_tensors
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
        found, vae_file = self._found(checkpoint, vae)
        self._warm = self._loaded(found, report)
        self._set_vae(self._warm, found, vae_file, report)
        return self._warm

    def encoded(self, warm: Warm, prompt: str, clip_skip: int) -> Tensor:
        """The conditioning of a prompt, (1, tokens, width); the last prompts are kept."""
        key = prompt, clip_skip
        if key not in warm.encodings:
            encoded = warm.family.encode(chunk(parse(prompt), self._tokenizer.encode), clip_skip)
            require_finite(encoded, "the text encoder")
            warm.encodings[key] = encoded
            if len(warm.encodings) > ENCODINGS:
                warm.encodings.popitem(last=False)
        warm.encodings.move_to_end(key)
        return warm.encodings[key]

    def _found(self, checkpoint: str, vae: str) -> tuple[Checkpoint, VaeFile | None]:
        try:
            found = find(scan(self._roots), checkpoint)
            return found, find_vae(scan_vaes(self._vae_roots, self._roots), vae, found.name)
        except LookupError as error:
            raise CannotDraw(str(error)) from error

    def _loaded(self, found: Checkpoint, report: Report) -> Warm:
        with _refusals_named(found.name):
            header = read_header(found.path)
            architecture = recognise(header, yaml_beside(found.path))
            warm = self._warm
            if warm and warm.file == header.identity and warm.family.architecture == architecture:
                return warm
            self._warm = warm = None
            give_back_memory()
            chosen = self.format_for(architecture.unet, architecture.native_size // architecture.vae.factor)
            with _reader(found.path, header, expected_tensors(architecture), report) as reader:
                family = sd1.load(architecture, reader, chosen.dtype, self.device)
        return Warm(found.name, header.identity, "", header.identity, family, chosen, _colours(family))

    def _set_vae(self, warm: Warm, found: Checkpoint, vae: VaeFile | None, report: Report) -> None:
        """Gives the warm checkpoint this VAE, or its own for None, if it has another."""
        path, name = (vae.path, vae.name) if vae else (found.path, found.name)
        with _refusals_named(name):
            header, own = read_header(path), warm.family.architecture.vae
            if warm.vae_file == header.identity:
                return
            shape, prefix = recognise_vae(header, yaml_beside(path)) if vae else (own, VAE)
            if (shape.latent_channels, shape.factor) != (own.latent_channels, own.factor):
                raise Refused(f"it is a VAE for another kind of model than {found.name}; choose another, or Automatic")
            with _reader(path, header, [prefix + name for name in vae_tensors(shape)], report) as reader:
                warm.family.vae = sd1.load_vae(shape, prefix, reader, warm.format.dtype, self.device)
        warm.vae_file, warm.vae_name, warm.colours = header.identity, vae.name if vae else "", _colours(warm.family)


@contextmanager
def _refusals_named(name: str) -> Iterator[None]:
    try:
        yield
    except Refused as refusal:
        raise CannotDraw(f"{name} cannot be used: {refusal}") from refusal


@contextmanager
def _reader(path: Path, header: Header, names: Iterable[str], report: Report) -> Iterator[Reader]:
    with open_tensors(path, header) as tensors:
        yield Reader(tensors, names, report)


def _colours(family: StableDiffusion1) -> Tensor:
    """The preview's map from latents to colours. Decodes once, so that an autoencoder that cannot decode is found out here."""
    with torch.inference_mode():
        picture = preview.sample(family.architecture.vae.latent_channels)
        decoded = family.to_image(picture)
        require_finite(decoded, "the VAE")
        return preview.fit(picture, decoded)
