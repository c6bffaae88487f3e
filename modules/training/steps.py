"""The steps of training by name, with the budgets the starter had."""

from importlib import import_module
from pathlib import Path

from modules.training.loop import Budget
from modules.training.sources import Emoji

MINUTES = {"autoencoder": 36.0, "clip": 18.0, "denoiser": 176.0, "evaluate": 7.0}


def run(name: str, folder: Path, minutes: float | None, output: Path) -> bool:
    """Run one step; False if it was stopped before its budget was spent. `minutes` replaces the starter's own budget."""
    source = Emoji(folder / "icons")
    if name == "export":
        from modules.training.export import export

        export(source, folder, output)
        return True
    budget = Budget((minutes or MINUTES[name]) * 60, "seconds")
    if name == "evaluate":
        from modules.training.evaluate import evaluate

        return evaluate(source.icons, folder, output, budget)
    return import_module(f"modules.training.{name}").run(source, folder, budget)
