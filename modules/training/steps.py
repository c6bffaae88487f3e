"""The steps of training by name, with the budgets the starter had."""

from importlib import import_module
from pathlib import Path

from modules.training.loop import Budget

MINUTES = {"autoencoder": 21.0, "clip": 6.0, "denoiser": 66.0}


def run(name: str, folder: Path, minutes: float | None, output: Path) -> bool:
    """Run one step; False if it was stopped before its budget was spent. `minutes` replaces the starter's own budget."""
    if name == "export":
        from modules.training.export import export

        export(folder, output)
        return True
    if name == "evaluate":
        from modules.training.evaluate import evaluate

        print(evaluate(folder, output.with_suffix(".png")))
        return True
    budget = Budget((minutes or MINUTES[name]) * 60, "seconds")
    return import_module(f"modules.training.{name}").run(folder / "icons", folder, budget)
