"""What stays warm between pictures: the networks last used, prompts as they were encoded, and the chosen number format."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from instant_clip_tokenizer import Tokenizer
from torch import Tensor

from modules.engine import lora, preview
from modules.engine.families import sd1
from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.guides import require_finite
from modules.engine.machine import free_memory, give_back_memory, held_memory, pick_device, total_memory, usable_cores
from modules.engine.precision import NumberFormat, choose
from modules.engine.stop import CannotDraw
from modules.engine.upscalers.rack import Rack
from modules.engine.weights import Reader
from modules.incoming.shelf import Shelf
from modules.model_manager.architecture import SD15, UNetShape
from modules.model_manager.headers import read_header
from modules.model_manager.layout import VAE, expected_tensors, vae_tensors
from modules.model_manager.library import Checkpoint, VaeFile, find, find_vae, scan, scan_vaes, state_of
from modules.model_manager.lora_names import TEXT
from modules.model_manager.loras import find_lora
from modules.model_manager.reading import described, yaml_beside
from modules.model_manager.recognise import recognise_vae
from modules.model_manager.stored import Header, Identity, Refused, amount
from modules.model_manager.tensors import open_tensors
from modules.recipe.prompt import Network, chunk, parse
from modules.settings import Settings

ENCODINGS = 64  # prompts kept encoded
UNRETURNED = 10**9  # bytes that may stay behind when checkpoints go; the libraries' own caches take a few hundred million

Report = Callable[[float], None]
"""Told the fraction of a checkpoint that is loaded; what it raises ends the loading."""

Wear = Callable[[Sequence[Network], lora.Check], None]


@dataclass
class Warm:
    """A loaded checkpoint, and what belongs to it. `vae_name` and the state of the VAE's file are empty for the checkpoint's own.

    `text_loras` are the LoRAs in the text encoder just now, and how much of each.
    """

    name: str
    vae_name: str
    vae_state: str
    family: StableDiffusion1
    format: NumberFormat
    colours: Tensor
    encodings: OrderedDict[tuple[object, ...], Tensor] = field(default_factory=OrderedDict)
    text_loras: tuple[tuple[Identity, float], ...] = ()


class Studio:
    """Loads what a recipe names and keeps it, and the checkpoints before it while all fit into `memory_budget` (GB).

    `state` is a folder for what was measured; "auto" picks device and format. `spent` says, when it is not empty, that memory did not
    come back and only a new process will have it.
    Pictures that are changed lie in `incoming`, by default a folder in `state`. `rack` holds the upscalers.
    """

    def __init__(
        self,
        checkpoint_roots: Sequence[Path],
        vae_roots: Sequence[Path],
        state: Path,
        device: str = "auto",
        precision: str = "auto",
        memory_budget: float | None = None,
        lora_roots: Sequence[Path] = (),
        incoming: Path | None = None,
        upscaler_roots: Sequence[Path] = (),
    ) -> None:
        self.device = pick_device(device)
        self.shelf = Shelf(incoming or state / "incoming")
        self.rack = Rack(upscaler_roots, state / "hashes.sqlite3", self.device, precision)
        self.spent = ""
        self._roots, self._vae_roots, self._lora_roots = checkpoint_roots, vae_roots, lora_roots
        self._store = state / "hashes.sqlite3"
        self._precision, self._measured = precision, state / "precision.json"
        self._tokenizer = Tokenizer()
        self._kept: OrderedDict[tuple[Path, str], Warm] = OrderedDict()  # by path and state of the file, the one last used at the end
        self._budget = total_memory(self.device) / 2 if memory_budget is None else memory_budget * 1e9
        self._held_without = held_memory(self.device)
        torch.set_num_threads(usable_cores())

    @classmethod
    def of(cls, settings: Settings, incoming: Path | None = None) -> "Studio":
        """The studio that these settings describe."""
        roots = settings.checkpoint_roots, settings.vae_roots
        how = settings.device, settings.precision, settings.memory_budget
        return cls(*roots, settings.state, *how, settings.lora_roots, incoming, settings.upscaler_roots)

    def format_for(self, shape: UNetShape = SD15.unet, side: int = SD15.native_size // SD15.vae.factor) -> NumberFormat:
        """The number format for a denoiser of this shape and latents of this side; measures for about a second the first time."""
        return choose(self._precision, self.device, shape, side, self._measured)

    def warm(self, checkpoint: str, vae: str, report: Report) -> Warm:
        """The checkpoint and VAE of these names, loaded unless they are kept and their files are still the same."""
        found, vae_file = self._found(checkpoint, vae)
        warm = self._loaded(found, report)
        self._set_vae(warm, found, vae_file, report)
        return warm

    @contextmanager
    def adapted(self, warm: Warm, networks: Sequence[Network], check: lora.Check) -> Iterator[None]:
        """The checkpoint with these LoRAs, for the time of the block; afterwards it is what it was, bit for bit."""
        changes: list[lora.Change] = []
        for network in networks:
            with _refusals_named(network.name):
                changes += lora.read(self._lora_path(network.name), network, warm.family.architecture, check)
        layers = {**lora.unet_layers(warm.family.unet), **lora.text_layers(warm.family.text)}
        with _refusals_named(" or ".join(network.name for network in networks)), lora.applied(layers, changes, check):
            warm.text_loras = tuple((change.source, change.times) for change in changes if change.network == TEXT)
            try:
                yield
            finally:
                warm.text_loras = ()

    @contextmanager
    def wardrobe(self, warm: Warm) -> Iterator[Wear]:
        """A function that gives the checkpoint these LoRAs and takes the ones before off, for the time of the block.

        It does nothing where they are the same.
        """
        worn: Sequence[Network] | None = None
        with ExitStack() as loras:

            def wear(networks: Sequence[Network], check: lora.Check) -> None:
                nonlocal worn
                if networks != worn:
                    loras.close()
                    worn = None
                    loras.enter_context(self.adapted(warm, networks, check))
                    worn = networks

            yield wear

    def encoded(self, warm: Warm, prompt: str, clip_skip: int) -> Tensor:
        """The conditioning of a prompt, (1, tokens, width); the last prompts are kept."""
        key = prompt, clip_skip, warm.text_loras
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
            found = find(scan(self._roots, self._store), checkpoint)
            return found, find_vae(scan_vaes(self._vae_roots, self._roots, self._store), vae, found.name)
        except LookupError as error:
            raise CannotDraw(str(error)) from error

    def _lora_path(self, name: str) -> Path:
        try:
            return find_lora(self._lora_roots, name, self._store).path
        except LookupError as error:
            raise CannotDraw(str(error)) from error

    def _loaded(self, found: Checkpoint, report: Report) -> Warm:
        key = found.path, state_of(found.path)
        if key not in self._kept:
            with _refusals_named(found.name):
                header, architecture = described(found.path)
                chosen = self.format_for(architecture.unet, architecture.native_size // architecture.vae.factor)
                for before in [kept for kept in self._kept if kept[0] == found.path]:
                    del self._kept[before]
                self._make_room(sd1.size(architecture, chosen.dtype))
                with _reader(found.path, header, expected_tensors(architecture), report) as reader:
                    family = sd1.load(architecture, reader, chosen.dtype, self.device)
            self._kept[key] = Warm(found.name, "", "", family, chosen, _colours(family))
        self._kept.move_to_end(key)
        return self._kept[key]

    def _make_room(self, needed: int) -> None:
        """Forgets checkpoints, the one not used for longest first, until one of `needed` bytes fits. Refused if it does not fit alone."""
        forgot = False
        while self._kept and (self._size() + needed > self._budget or needed > free_memory(self.device)):
            self._kept.popitem(last=False)
            give_back_memory()
            forgot = True
        unreturned = held_memory(self.device) - self._held_without - self._size()
        if forgot and unreturned > UNRETURNED:
            self.spent = f"{amount(unreturned)} of memory did not come back from earlier checkpoints"
        if needed > (free := free_memory(self.device)):
            raise Refused(f"it needs {amount(needed)} of memory, {amount(free)} are free: close other programs, or choose a smaller one")

    def _size(self) -> int:
        """Bytes of the weights that are kept."""
        return sum(sd1.size(warm.family.architecture, warm.format.dtype) for warm in self._kept.values())

    def _set_vae(self, warm: Warm, found: Checkpoint, vae: VaeFile | None, report: Report) -> None:
        """Gives the warm checkpoint this VAE, or its own for None, if it has another."""
        state = state_of(vae.path) if vae else ""
        if warm.vae_state == state:
            return
        own = warm.family.architecture.vae
        with _refusals_named(vae.name if vae else found.name):
            if vae:
                path, header = vae.path, read_header(vae.path)
                shape, prefix = recognise_vae(header, yaml_beside(vae.path))
            else:
                path, header, shape, prefix = found.path, described(found.path)[0], own, VAE
            if (shape.latent_channels, shape.factor) != (own.latent_channels, own.factor):
                raise Refused(f"it is a VAE for another kind of model than {found.name}; choose another, or Automatic")
            with _reader(path, header, [prefix + name for name in vae_tensors(shape)], report) as reader:
                warm.family.vae = sd1.load_vae(shape, prefix, reader, warm.format.dtype, self.device)
        warm.vae_state, warm.vae_name, warm.colours = state, vae.name if vae else "", _colours(warm.family)


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
