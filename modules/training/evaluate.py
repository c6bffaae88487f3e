"""How good the starter is: what the engine draws of held-out captions, judged by a network that saw rendered scenes only.

Beside each figure stands that of the scenes themselves, and of the scenes as the autoencoder gives them back: the ceilings.
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from modules.engine.run import run
from modules.engine.studio import Studio
from modules.jobs.messages import Picture
from modules.model_manager.choice import recipe_for
from modules.model_manager.library import scan
from modules.recipe.fields import BadField
from modules.training import autoencoder, judge
from modules.training.agreement import Agreement, Asked, Share, matched, tally
from modules.training.data import draw, to_signed
from modules.training.files import needed
from modules.training.grammar import caption
from modules.training.hardware import accelerator
from modules.training.judge import Judge, Studies, look, read, reconstructed
from modules.training.loop import Budget, sheet
from modules.training.loop import Report as Told
from modules.training.measures import frechet, psnr, ssim
from modules.training.negatives import SPOILERS
from modules.training.scenes import LARGE, SIDE, WIDE, Scene, Stage, scenes

COUNTS = {128: 500, 256: 100}
"""How many captions are asked at each size in pixels."""
SPOILT = 60  # scenes for each way to spoil them
PAIRS = 64  # scenes for the autoencoder's figures
SEED = 20
ROWS, COLUMNS = 5, 8  # of the contact sheet
BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
LABELS = {
    "thing": "Thing is the one asked for (top 1)",
    "colour": "Colour",
    "both": "Both of two things",
    "place": "Place (left, right)",
    "size": "Size (small, big)",
    "background": "Background",
}


@dataclass(frozen=True)
class Column:
    """Figures of one set of pictures; `distance` is the Frechet distance to other held-out scenes."""

    agreement: Agreement
    distance: float


@dataclass(frozen=True)
class Table:
    """What was drawn for `captions` captions at `side` pixels, and the same scenes as they are and through the autoencoder."""

    side: int
    captions: int
    drawn: Column
    reconstructed: Column
    real: Column


@dataclass(frozen=True)
class Report:
    """All figures. `psnr` (dB) and `ssim` are the autoencoder's; `rejected` the spoilt things that the judge takes for no thing."""

    tables: tuple[Table, ...]
    psnr: float
    ssim: float
    rejected: dict[str, Share]


def ask(side: int, count: int, seed: int = SEED, stage: Stage = WIDE) -> list[Asked]:
    """Held-out scenes of this side with captions in varied words; those of the native size are of the `stage`."""
    rng = np.random.default_rng((seed, side))
    chosen = stage if side == SIDE else replace(LARGE, sides=(side,))
    return [Asked(scene, caption(rng, scene)) for scene in scenes(rng, chosen, count, held_out=True)]


def drawn(checkpoint: Path, asked: Sequence[Asked], side: int, state: Path) -> Tensor:
    """What a user gets who types the captions, at the checkpoint's own defaults with seeds 0, 1, 2 ..., (N, 3, side, side).

    Raises RuntimeError if the engine refuses the checkpoint.
    """
    found, threads = scan([checkpoint.parent]), torch.get_num_threads()
    studio = Studio([checkpoint.parent], [], state)
    torch.set_num_threads(threads)
    pictures: list[np.ndarray] = []

    def keep(message: object) -> None:
        if isinstance(message, Picture):
            pictures.append(np.asarray(Image.open(io.BytesIO(message.png))))

    for seed, each in enumerate(tqdm(asked, desc=f"drawing {side} x {side}", unit="picture")):
        request = {"prompt": each.words, "seed": seed, "width": side, "height": side, "checkpoint": checkpoint.name}
        try:
            run(recipe_for(request, found, [], [], [], state / "hashes.sqlite3", studio.shelf), studio, keep, check=lambda: None)
        except BadField as error:
            raise RuntimeError(str(error)) from error
    return torch.from_numpy(to_signed(np.stack(pictures)))


def rendered(studies: Studies, shown: Sequence[Scene]) -> np.ndarray:
    """(N, side, side, 3) uint8"""
    return np.stack([draw(scene, studies.icons, studies.things) for scene in shown])


def given_back(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 16) -> Tensor:
    """Pictures (N, H, W, 3) uint8 through the autoencoder, (N, 3, H, W)."""
    return torch.cat([reconstructed(vae, pictures[start : start + batch]) for start in range(0, len(pictures), batch)])


def table(network: Judge, studies: Studies, pictures: Tensor, asked: Sequence[Asked], stage: Stage) -> Table:
    """The figures of what was drawn for `asked`, pictures (N, 3, side, side), beside those of the scenes themselves."""
    side, real = pictures.shape[-1], rendered(studies, [each.scene for each in asked])
    others = rendered(studies, [each.scene for each in ask(side, len(asked), SEED + 1, stage)])
    crowd = look(network, torch.from_numpy(to_signed(others))).features.numpy()

    def column(shown: Tensor) -> Column:
        maps = look(network, shown)
        return Column(tally(read(maps), asked), frechet(maps.features.numpy(), crowd))

    return Table(side, len(asked), column(pictures), column(given_back(studies.vae, real)), column(torch.from_numpy(to_signed(real))))


def rejected(network: Judge, studies: Studies, count: int = SPOILT) -> dict[str, Share]:
    """For each way to spoil held-out scenes, the part of the spoilt things that the judge takes for no thing at all."""
    rng = np.random.default_rng(SEED + 2)
    shares = {}
    for kind in (*SPOILERS, "latents"):
        shown = scenes(rng, WIDE, count, held_out=True, things=studies.things)
        every = [[True] * len(scene.things) for scene in shown]
        if kind == "latents":
            pictures = studies.passed(rng, shown, every, rendered(studies, shown))
        else:
            spoilt = [studies.draw(rng, scene, flags, kind) for scene, flags in zip(shown, every, strict=True)]
            pictures = torch.from_numpy(to_signed(np.stack(spoilt)))
        found = judge.seen(network, pictures)
        stands = [each for one, scene in zip(found, shown, strict=True) for each in matched(one, scene)]
        shares[kind] = Share(sum(each is None or each.thing is None for each in stands), len(stands))
    return shares


def markdown(report: Report) -> str:
    """The report as people read it."""
    lines = []
    for each in report.tables:
        columns = (each.drawn, each.reconstructed, each.real)
        lines += [f"| {each.captions} held-out captions, {each.side} × {each.side} | starter | reconstructed scenes | scenes |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| {label} | {' | '.join(str(getattr(column.agreement, name)) for column in columns)} |" for name, label in LABELS.items()
        ]
        lines += [f"| Fréchet distance on the judge's features | {' | '.join(f'{column.distance:.3f}' for column in columns)} |", ""]
    spoilt = Share(sum(share.right for share in report.rejected.values()), sum(share.of for share in report.rejected.values()))
    right = report.tables[0].real.agreement.thing
    lines += [
        f"Autoencoder on {PAIRS} held-out scenes: PSNR {report.psnr:.1f} dB, SSIM {report.ssim:.3f}. The judge, which saw rendered",
        f"scenes only, names {right} things in held-out scenes rightly and takes {spoilt} spoilt ones for no thing.",
    ]
    return "\n".join(lines)


def replaced(text: str, block: str) -> str:
    """`text` with `block` between the two markers, which are added at its end if it lacks them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        before, after = text.rstrip("\n") + "\n\n" if text else "", "\n"
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def write(report: Report, pictures: Tensor, folder: Path, checkpoint: Path) -> None:
    """`folder`/evaluate.json, and beside the checkpoint its `.md` with the table and `.png` with the contact sheet: all or none."""
    image = io.BytesIO()
    Image.fromarray(sheet(pictures[: ROWS * COLUMNS], COLUMNS)).save(image, "PNG", optimize=True)
    page = checkpoint.with_suffix(".md")
    text = page.read_text() if page.exists() else ""
    write_all({
        folder / "evaluate.json": (json.dumps(asdict(report), indent=1) + "\n").encode(),
        page: replaced(text, markdown(report)).encode(),
        checkpoint.with_suffix(".png"): image.getvalue(),
    })  # fmt: skip


def write_all(files: Mapping[Path, bytes]) -> None:
    """Every file is complete under another name before the first takes its own."""
    parts = {path: path.with_name(path.name + ".part") for path in files}
    try:
        for path, part in parts.items():
            with part.open("wb") as file:
                file.write(files[path])
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def evaluate(
    icons: Path,
    folder: Path,
    checkpoint: Path,
    budget: Budget,
    counts: Mapping[int, int] = COUNTS,
    stage: Stage = WIDE,
    told: Told | None = None,
) -> bool:
    """Train the judge as long as `budget` says, draw, judge and write; False if that was stopped.

    Raises FileNotFoundError naming the step that is missing.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} is missing: run `train export` first")
    studies = Studies(icons, vae=autoencoder.load_stage(needed(folder, "autoencoder")))
    if not judge.run(studies, folder, budget, told):
        return False
    if not accelerator().is_main_process:
        return True
    network = judge.load(folder)
    asked = {side: ask(side, count, stage=stage) for side, count in counts.items()}
    try:
        pictures = {side: drawn(checkpoint, asked[side], side, folder) for side in counts}
    except KeyboardInterrupt:
        return False
    tables = tuple(table(network, studies, pictures[side], asked[side], stage) for side in counts)
    real = rendered(studies, scenes(np.random.default_rng(SEED + 3), WIDE, PAIRS, held_out=True))
    one, other = torch.from_numpy(to_signed(real)), given_back(studies.vae, real)
    report = Report(tables, psnr(one, other), ssim(one, other), rejected(network, studies))
    write(report, next(iter(pictures.values())), folder, checkpoint)
    print(markdown(report))
    return True
