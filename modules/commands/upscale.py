"""`upscale`: pictures made larger from the command line, in this very process."""

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tqdm import tqdm

from modules.commands.options import add_settings, existing_file, fail, settings_of
from modules.gallery.pictures import today
from modules.gallery.writer import save
from modules.incoming.reader import contents
from modules.incoming.shelf import Shelf
from modules.jobs.messages import Message, Picture, Progress
from modules.model_manager.upscalers import find_upscaler, provide, scan_upscalers
from modules.recipe.fields import BadField
from modules.recipe.upscaling import FIELDS, MAX_NAME, checked_request, resolve
from modules.settings import Settings

FACTOR = re.compile(r"(\d+(?:\.\d+)?)x?")
TARGET = re.compile(r"(\d{1,6})x(\d{1,6})")

Show = Callable[[Message], None]


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("upscale", help="make pictures larger and print their paths", allow_abbrev=False)
    parser.add_argument("pictures", nargs="+", type=existing_file, metavar="FILE", help="a picture, or a folder of them")
    parser.add_argument("--to", default="4x", metavar="4x|WxH", help="how often larger (4x), or the size; a side of 0 follows the other")
    parser.add_argument("--with", dest="upscaler", metavar="NAME", help=f"{FIELDS['upscaler'][1].help} `models` lists them.")
    parser.add_argument("--and-with", dest="upscaler_2", metavar="NAME", help=FIELDS["upscaler_2"][1].help)
    parser.add_argument("--weight", dest="upscaler_2_weight", metavar="0..1", help=FIELDS["upscaler_2_weight"][1].help)
    parser.add_argument("--no-crop", dest="crop", action="store_false", help="keep what juts out where the size has another shape")
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help="where the pictures go (default: today's folder in outputs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the paths")
    add_settings(parser, ["data_dir", "models_dir", "esrgan_models_path", "outdir", "device", "precision"])


def main(arguments: argparse.Namespace) -> int:
    settings, output = settings_of(arguments), sys.stdout
    try:
        request, files = _request(arguments, settings), _files(arguments.pictures)
    except BadField as error:
        return fail(str(error), 2)
    done: list[dict[str, object]] = []
    skipped: list[dict[str, str]] = []
    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="easel-") as shelf, contextlib.redirect_stdout(sys.stderr):
        enlarge = _enlarger(settings, Shelf(Path(shelf)), request)
        try:
            for file in files:
                try:
                    picture, facts = enlarge(file)
                except (ValueError, RuntimeError, OSError) as error:
                    skipped.append({"path": str(file), "reason": getattr(error, "strerror", None) or str(error)})
                    fail(f"{file}: {skipped[-1]['reason']}", 1)
                    continue
                path = save(picture.png, (arguments.folder or today(settings.outputs, "extras")).absolute(), 0, file.stem)
                done.append({"path": str(path), "width": picture.width, "height": picture.height, "infotext": picture.infotext})
                if not arguments.json:
                    print(path, file=output, flush=True)
        except KeyboardInterrupt:
            return fail(f"interrupted; {len(done)} pictures were saved", 130)
        except OSError as error:
            return fail(f"the picture could not be saved in {error.filename or settings.outputs}: {error.strerror or error}", 1)
    if arguments.json:
        print(json.dumps({"pictures": done, "skipped": skipped, "facts": facts}, ensure_ascii=False), file=output)
    return 1 if skipped or not done else 0


def _request(arguments: argparse.Namespace, settings: Settings) -> dict[str, object]:
    """What is asked for, whatever the picture. BadField if it is wrong for any."""
    request = {name: getattr(arguments, name) for name in ("upscaler", "upscaler_2", "upscaler_2_weight", "crop")}
    if target := TARGET.fullmatch(arguments.to.lower()):
        request |= {"width": target[1], "height": target[2]}
    elif factor := FACTOR.fullmatch(arguments.to.lower()):
        request |= {"factor": factor[1]}
    else:
        raise BadField("factor", f"--to: {arguments.to!r:.60} is neither like 4x nor like 2048x1536")
    provide(settings.packed_upscalers)
    return checked_request(request, _namer(settings))


def _namer(settings: Settings) -> Callable[[str], str]:
    upscalers = scan_upscalers(settings.upscaler_roots, settings.hashes)
    return lambda wanted: find_upscaler(upscalers, wanted).name


def _files(paths: list[Path]) -> list[Path]:
    """The files themselves, and those of the folders among them. BadField if there are none, or a folder cannot be read."""
    try:
        listed = [sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path] for path in paths]
    except OSError as error:
        raise BadField("picture", f"{error.filename}: {error.strerror}") from None
    if not any(listed):
        raise BadField("picture", f"there is no file in {', '.join(map(str, paths))}")
    return [file for files in listed for file in files]


def _enlarger(settings: Settings, shelf: Shelf, request: dict[str, object]) -> Callable[[Path], tuple[Picture, dict[str, object]]]:
    """Enlarges a file's picture as requested, with a bar. ValueError, OSError or RuntimeError say why not."""
    namer = _namer(settings)

    def enlarge(file: Path) -> tuple[Picture, dict[str, object]]:
        id = shelf.keep(contents(file))
        upscaling = resolve({**request, "picture": id, "name": file.name[:MAX_NAME]}, namer, shelf)
        made: list[Picture] = []
        with _bar(file.name) as show:

            def take(message: Message) -> None:
                if isinstance(message, Progress):
                    show(message)
                if isinstance(message, Picture):
                    made.append(message)

            facts = _run()(upscaling, shelf, take)
        return made[0], facts

    @cache
    def _run() -> Callable[..., dict[str, object]]:
        """torch, whose import takes seconds, once there is something to do."""
        import torch

        from modules.engine.machine import pick_device, usable_cores
        from modules.engine.upscalers.rack import Rack
        from modules.engine.upscalers.run import run

        torch.set_num_threads(usable_cores())
        rack = Rack(settings.upscaler_roots, settings.hashes, pick_device(settings.device), settings.precision)
        return lambda upscaling, shelf, take: run(upscaling, rack, shelf, take, check=lambda: None)

    return enlarge


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Show]:
    """A bar over the tiles of a picture, with the time left, on standard error."""
    with tqdm(total=1, desc=name, unit="tile", file=sys.stderr, disable=None) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.steps
            bar.update(progress.step - bar.n)

        yield show
