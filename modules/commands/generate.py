"""`generate`: a picture from the command line, drawn in this very process."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from modules.commands.options import add_fields, add_settings, fail, settings_of
from modules.gallery.pictures import today
from modules.gallery.writer import save
from modules.jobs.messages import Message, Picture, Progress
from modules.model_manager.choice import recipe_for
from modules.model_manager.library import scan, scan_vaes
from modules.recipe.fields import FIELDS, BadField, Recipe
from modules.settings import Settings

OPTIONS = ["negative_prompt", "steps", "sampler", "schedule", "cfg_scale", "seed", "width", "height", "batch_size", "clip_skip", "vae"]
RARE = [name for name, (_, about) in FIELDS.items() if about.quiet] + ["randn_source"]


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("generate", help="draw pictures and print their paths", allow_abbrev=False)
    parser.add_argument("prompt", help="what to draw")
    add_fields(parser, OPTIONS)
    add_fields(parser.add_argument_group("rarer options of drawing"), RARE)
    parser.add_argument("--size", metavar="WxH", help="width and height in pixels (default: the checkpoint's native size)")
    parser.add_argument("-n", dest="batch_count", metavar="N", help="how many pictures, with seeds counting up")
    parser.add_argument("--model", dest="checkpoint", metavar="NAME", help="the checkpoint that draws")
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help="where the pictures go (default: today's folder in outputs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the paths")
    add_settings(parser, ["data_dir", "models_dir", "ckpt_dir", "vae_dir", "lora_dir", "outdir", "device", "precision"])


def main(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    try:
        recipe = _recipe(arguments, settings)
    except BadField as error:
        return fail(str(error), 2)
    pictures: list[dict[str, object]] = []
    folder = (arguments.folder or today(settings.outputs)).absolute()
    output = sys.stdout

    def keep(picture: Picture) -> None:
        path = save(picture.png, folder, picture.seed)
        shown = {"seed": picture.seed, "width": picture.width, "height": picture.height, "infotext": picture.infotext}
        pictures.append({"path": str(path), **shown})
        if not arguments.json:
            print(path, file=output, flush=True)

    try:
        with contextlib.redirect_stdout(sys.stderr):
            facts = _draw(recipe, settings, keep)
    except KeyboardInterrupt:
        return fail(f"interrupted; {len(pictures)} of {len(recipe.seeds)} pictures were saved", 130)
    except OSError as error:
        return fail(f"the picture could not be saved in {error.filename or settings.outputs}: {error.strerror or error}", 1)
    except RuntimeError as error:
        return fail(str(error), 1)
    if arguments.json:
        print(json.dumps({"pictures": pictures, "facts": facts}, ensure_ascii=False))
    return 0


def _recipe(arguments: argparse.Namespace, settings: Settings) -> Recipe:
    request = {name: getattr(arguments, name) for name in [*OPTIONS, *RARE, "prompt", "batch_count", "checkpoint"]}
    if arguments.size:
        width, times, height = arguments.size.lower().partition("x")
        if not times:
            raise BadField("width", f"Size: {arguments.size!r} is not like 512x512")
        request |= {"width": width, "height": height}
    roots, store = settings.checkpoint_roots, settings.hashes
    return recipe_for(request, scan(roots, store), scan_vaes(settings.vae_roots, roots, store), settings.lora_roots, store)


def _draw(recipe: Recipe, settings: Settings, keep: Callable[[Picture], None]) -> dict[str, object]:
    """Draw, with a bar; `keep` takes each picture. Returns the facts of how they were drawn."""
    from modules.engine.run import run
    from modules.engine.studio import Studio

    with _progress(recipe) as show:

        def take(message: Message) -> None:
            if isinstance(message, Progress):
                show(message)
            if isinstance(message, Picture):
                keep(message)

        return run(recipe, Studio.of(settings), take, check=lambda: None)


@contextlib.contextmanager
def _progress(recipe: Recipe) -> Iterator[object]:
    """A bar over all steps of all pictures, with the time left, on standard error."""
    with tqdm(total=recipe.steps * len(recipe.seeds), unit="step", file=sys.stderr, disable=None) as bar:

        def show(progress: Progress) -> None:
            bar.set_description(f"picture {progress.picture + 1} of {progress.pictures}, {progress.phase}", refresh=False)
            bar.update(recipe.steps * progress.picture + min(progress.step * recipe.steps // progress.steps, recipe.steps) - bar.n)

        yield show
