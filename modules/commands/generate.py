"""`generate`: a picture from the command line, drawn in this very process."""

import argparse
import contextlib
import glob
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from modules.commands.options import add_fields, add_settings, existing_file, fail, settings_of
from modules.gallery.pictures import today
from modules.gallery.writer import save
from modules.incoming.extend import extended
from modules.incoming.reader import contents
from modules.incoming.shelf import Shelf
from modules.jobs.messages import Message, Picture, Progress
from modules.model_manager.choice import inpaints, recipe_for
from modules.model_manager.library import scan, scan_vaes
from modules.model_manager.upscalers import provide
from modules.recipe.fields import FIELDS, BadField, Recipe
from modules.recipe.plan import steps_drawn
from modules.recipe.request import extension, removal
from modules.settings import Settings

OPTIONS = ["negative_prompt", "steps", "sampler", "schedule", "cfg_scale", "seed", "width", "height", "batch_size", "clip_skip", "vae"]
RARE = [name for name, (_, about) in FIELDS.items() if about.quiet] + ["randn_source"]
PICTURES = ("init_image", "mask")  # the fields that name pictures
SIZE = ("width", "height")  # which are the picture's own where no size is asked for
HIRES = [name for name in FIELDS if name.startswith("hires_")]
CHANGING = ["denoising_strength", "resize_mode", "mask_mode", "mask_edge", "mask_blur", "inpaint_area", "masked_padding", "masked_content"]


@dataclass(frozen=True)
class Task:
    """A recipe, and the stem of its results' names where they are named after a file of a folder."""

    recipe: Recipe
    stem: str


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("generate", help="draw pictures and print their paths", allow_abbrev=False)
    parser.add_argument("prompt", nargs="?", help="what to draw; may be left out when a picture is changed")
    add_fields(parser, OPTIONS)
    add_fields(parser.add_argument_group("rarer options of drawing"), RARE)
    parser.add_argument("--size", metavar="WxH", help="width and height in pixels (default: the checkpoint's, or the picture's)")
    parser.add_argument("-n", dest="batch_count", metavar="N", help="how many pictures, with seeds counting up")
    parser.add_argument("--model", dest="checkpoint", metavar="NAME", help="the checkpoint that draws")
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help="where the pictures go (default: today's folder in outputs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the paths")
    hires = parser.add_argument_group("drawing twice", "Any of these turns hires fix on. The second time draws at --denoising-strength.")
    hires.add_argument("--hires", action="store_const", const=True, help=FIELDS["hires"][1].help)
    add_fields(hires, HIRES)
    changing = parser.add_argument_group("changing pictures")
    changing.add_argument(
        "--init", type=existing_file, metavar="FILE", help="the picture to change, or a folder of them: results keep their names"
    )
    changing.add_argument(
        "--mask", type=existing_file, metavar="FILE", help="its mask (white is drawn anew), or a folder of masks of the same names"
    )
    changing.add_argument("--remove", action="store_true", help="let what is masked become its surroundings; needs no prompt or strength")
    changing.add_argument("--extend", type=_margins, metavar="L,T,R,B", help="draw so many pixels more on the left, top, right and bottom")
    add_fields(changing, CHANGING)
    add_settings(parser, ["data_dir", "models_dir", "ckpt_dir", "vae_dir", "lora_dir", "outdir", "device", "precision"])


def _margins(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() and len(part) < 6 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 64,0,64,0")
    return [int(part) for part in parts]


def main(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    with tempfile.TemporaryDirectory(prefix="easel-") as folder:
        shelf = Shelf(Path(folder))
        try:
            tasks, left_out = _tasks(arguments, settings, shelf)
        except BadField as error:
            return fail(str(error), 2)
        for problem in left_out:
            fail(f"left out: {problem}", 1)
        return _draw_all(tasks, arguments, settings, shelf) or int(bool(left_out))


def _draw_all(tasks: list[Task], arguments: argparse.Namespace, settings: Settings, shelf: Shelf) -> int:
    pictures: list[dict[str, object]] = []
    facts: dict[str, object] = {}
    output = sys.stdout
    wanted = sum(len(task.recipe.seeds) for task in tasks)

    def keep(picture: Picture, task: Task) -> None:
        path = save(picture.png, (arguments.folder or today(settings.outputs, task.recipe.kind)).absolute(), picture.seed, task.stem)
        shown = {"seed": picture.seed, "width": picture.width, "height": picture.height, "infotext": picture.infotext}
        pictures.append({"path": str(path), **shown})
        if not arguments.json:
            print(path, file=output, flush=True)

    try:
        with contextlib.redirect_stdout(sys.stderr):
            draw = _drawer(settings, shelf)
            for task in tasks:
                facts = draw(task, keep)
    except KeyboardInterrupt:
        return fail(f"interrupted; {len(pictures)} of {wanted} pictures were saved", 130)
    except OSError as error:
        return fail(f"the picture could not be saved in {error.filename or settings.outputs}: {error.strerror or error}", 1)
    except RuntimeError as error:
        return fail(str(error), 1)
    if arguments.json:
        print(json.dumps({"pictures": pictures, "facts": facts}, ensure_ascii=False))
    return 0


def _tasks(arguments: argparse.Namespace, settings: Settings, shelf: Shelf) -> tuple[list[Task], list[str]]:
    """What is to be drawn, everything checked, and what is wrong with files of a folder, which are left out. BadField for all else."""
    roots, store = settings.checkpoint_roots, settings.hashes
    models = scan(roots, store), scan_vaes(settings.vae_roots, roots, store), settings.lora_roots, settings.upscaler_roots, store
    request = _request(arguments, inpaints(models[0], arguments.checkpoint or ""))
    if request["hires"]:
        provide(settings.packed_upscalers)
    if not arguments.init:
        return [Task(recipe_for(request, *models, shelf), "")], []
    if not arguments.init.is_dir():
        return [Task(recipe_for(request | _pictures(arguments.init, arguments, shelf), *models, shelf), "")], []
    tasks: list[Task] = []
    left_out: list[str] = []
    for file in sorted(path for path in arguments.init.iterdir() if path.is_file()):
        try:
            tasks.append(Task(recipe_for(request | _pictures(file, arguments, shelf), *models, shelf), file.stem))
        except BadField as error:
            if error.field not in (*PICTURES, *(SIZE if "width" not in request else ())):
                raise
            left_out.append(str(error) if file.name in str(error) else f"{file}: {error}")
    if not tasks:
        nothing = f"there is nothing in {arguments.init} that can be changed"
        raise BadField("init_image", "; ".join([f"--init: {nothing}", *left_out[:1]]))
    return tasks, left_out


def _request(arguments: argparse.Namespace, inpaints: bool) -> dict[str, object]:
    """The recipe's fields as they were asked for, without the pictures. What is asked for wins over what --remove and --extend mean."""
    if not arguments.init:
        if arguments.mask or arguments.extend or arguments.remove:
            raise BadField("init_image", "--mask, --extend and --remove change a picture: say which with --init")
        if arguments.prompt is None:
            raise BadField("prompt", "Prompt: say what to draw")
    if arguments.extend and arguments.mask:
        raise BadField("mask", "--extend makes a mask of its own: leave --mask out")
    names = [*OPTIONS, *RARE, *HIRES, *CHANGING, "prompt", "batch_count", "checkpoint"]
    asked = {name: value for name in names if (value := getattr(arguments, name)) is not None} | _size(arguments.size)
    asked["hires"] = arguments.hires or any(name in asked for name in HIRES)
    return (extension(inpaints) if arguments.extend else {}) | (removal(inpaints) if arguments.remove else {}) | asked


def _size(text: str | None) -> dict[str, str]:
    if not text:
        return {}
    width, times, height = text.lower().partition("x")
    if not times:
        raise BadField("width", f"Size: {text!r} is not like 512x512")
    return {"width": width, "height": height}


def _pictures(file: Path, arguments: argparse.Namespace, shelf: Shelf) -> dict[str, str]:
    """The picture's and its mask's ids."""
    with _blamed(file):
        if arguments.extend:
            picture, mask = extended(contents(file), *arguments.extend)
            return {"init_image": shelf.keep(picture), "mask": shelf.keep(mask)}
        ids = {"init_image": shelf.keep(contents(file))}
    if arguments.mask:
        several = arguments.mask.is_dir()
        beside = next(iter(sorted(arguments.mask.glob(f"{glob.escape(file.stem)}.*"))), None) if several else arguments.mask
        if beside is None:
            raise BadField("mask", f"--mask: there is no mask for {file.name} in {arguments.mask}")
        with _blamed(beside):
            ids["mask"] = shelf.keep(contents(beside))
    return ids


@contextlib.contextmanager
def _blamed(file: Path) -> Iterator[None]:
    """What is wrong with a file's picture is said with the file's name."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadField("init_image", f"{file}: {getattr(error, 'strerror', None) or error}") from None


def _drawer(settings: Settings, shelf: Shelf) -> Callable[[Task, Callable[[Picture, Task], None]], dict[str, object]]:
    """Draws a task, with a bar; the second argument takes each picture. Returns the facts of how they were drawn."""
    from modules.engine.run import run
    from modules.engine.studio import Studio

    studio = Studio.of(settings, shelf.folder)

    def draw(task: Task, keep: Callable[[Picture, Task], None]) -> dict[str, object]:
        with _progress(task.recipe) as show:

            def take(message: Message) -> None:
                if isinstance(message, Progress):
                    show(message)
                if isinstance(message, Picture):
                    keep(message, task)

            return run(task.recipe, studio, take, check=lambda: None)

    return draw


@contextlib.contextmanager
def _progress(recipe: Recipe) -> Iterator[object]:
    """A bar over all steps of all pictures, with the time left, on standard error."""
    steps = max(steps_drawn(recipe), 1)
    with tqdm(total=steps * len(recipe.seeds), unit="step", file=sys.stderr, disable=None) as bar:

        def show(progress: Progress) -> None:
            bar.set_description(f"picture {progress.picture + 1} of {progress.pictures}, {progress.phase}", refresh=False)
            bar.update(steps * progress.picture + min(progress.step * steps // progress.steps, steps) - bar.n)

        yield show
