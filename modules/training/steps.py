"""The steps of training by name."""

from dataclasses import dataclass, replace
from pathlib import Path

from modules.training.files import alone
from modules.training.folder import Folder
from modules.training.hardware import accelerator
from modules.training.loop import Budget, Report
from modules.training.presets import Preset
from modules.training.sources import Emoji, Source


@dataclass(frozen=True)
class Plan:
    """What to train and where: on scenes of emoji, or on `data`.

    `minutes` replaces the preset's; what else is None is as the trained step was begun, or as usual.
    """

    preset: Preset
    folder: Path
    output: Path
    icons: Path
    minutes: float | None = None
    regulariser: str | None = None
    f: int | None = None
    prediction: str | None = None
    data: Folder | None = None


def run(name: str, plan: Plan, report: Report | None = None) -> bool:
    """Run one step; False if it was stopped before its budget was spent. Raises OSError and RuntimeError with one line for the user.

    Of several processes the first one writes.
    """
    source = plan.data or Emoji(plan.icons, plan.preset.counts, plan.preset.stages)
    if plan.data and name == "evaluate":
        raise RuntimeError("evaluate judges scenes of emoji only: leave --data out")
    first = accelerator().is_main_process
    if name == "export":
        from modules.training.export import export

        if first:
            export(source, plan.folder, plan.output)
        return True
    if not first:
        return _train(name, plan, source, report)
    with alone(plan.folder):
        return _train(name, plan, source, report)


def _train(name: str, plan: Plan, source: Source, report: Report | None) -> bool:
    from modules.training import autoencoder, clip, denoiser, evaluate, inpainting

    budget = Budget(60 * (plan.minutes or plan.preset.minutes[name]), "seconds")
    if name == "autoencoder":
        return autoencoder.run(source, plan.folder, budget, report, plan.regulariser, plan.f)
    if name == "clip":
        return clip.run(source, plan.folder, budget, report)
    if name == "denoiser":
        return denoiser.run(source, plan.folder, budget, report, plan.prediction)
    if name == "inpainting":
        masked = replace(source, counts=plan.preset.masked) if isinstance(source, Emoji) else source
        return inpainting.run(masked, plan.folder, budget, report)
    return evaluate.evaluate(source.icons, plan.folder, plan.output, budget, plan.preset.captions, source.stages["wide"], report)
