"""How long super-resolution takes beside the bare network, and beside ncnn on the CPU where its package is installed, in one run.

    python benchmarks/upscale.py [--size 512] [--rounds 3] [--with NAME]

`pip install ncnn` for the comparison with ncnn; it also says how far the two pictures are apart. Times are of this process's work
(CPU seconds), so that other work on the machine does not count; ncnn's count with its threads.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.engine.machine import usable_cores  # noqa: E402
from modules.engine.upscalers import tiles  # noqa: E402
from modules.engine.upscalers.rack import Rack  # noqa: E402
from modules.model_manager.upscalers import PACKAGE, PACKED, find_upscaler, provide, scan_upscalers  # noqa: E402
from modules.recipe.upscaling import DEFAULT  # noqa: E402

SHARE = 1.15  # of the bare network's time, which tiles, conversions and the picture may take together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the picture in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with", dest="name", default=DEFAULT)
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    picture = photo(options.size)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        provide(Path(folder))
        way = Rack([Path(folder)], Path(folder) / "store", torch.device("cpu")).enlarger(options.name, lambda: None)
        pixels = tiles.tensor(picture)
        size = (picture.width * way.scale, picture.height * way.scale)
        ours, bare = best(
            options.rounds,
            lambda: way.enlarged(picture, size, lambda: None),
            lambda: way.network(pixels),
        )
        print(f"{way.name}, {picture.width}x{picture.height} to {size[0]}x{size[1]}, {torch.get_num_threads()} threads")
        print(f"bare network   {bare:8.2f} s of CPU time")
        print(f"picture        {ours:8.2f} s, {ours / bare:.3f} times the bare network (at most {SHARE})")
        if importlib.util.find_spec("ncnn"):
            stem = find_upscaler(scan_upscalers([Path(folder)]), options.name).stem
            packed = next(packed for packed, known in PACKED.items() if known == stem)
            against_ncnn(PACKAGE / packed, picture, way.enlarged(picture, size, lambda: None), options.rounds, ours)
        else:
            print("ncnn           not installed: pip install ncnn")


def photo(side: int) -> Image.Image:
    """The photo of the tests, at this size."""
    with Image.open(ROOT / "tests" / "chelsea.jpg") as image:
        return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def best(rounds: int, *work: Callable[[], object]) -> list[float]:
    """The shortest CPU time of each, out of rounds in which all take turns, after one that warms up."""
    times = [[timed(each) for each in work] for _ in range(rounds + 1)]
    return [min(column) for column in zip(*times[1:], strict=True)]


def timed(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def against_ncnn(packed: Path, picture: Image.Image, ours: Image.Image, rounds: int, seconds: float) -> None:
    """Time, and the largest and mean difference of the two pictures in levels of 255."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    net.load_param(f"{packed}.param")
    net.load_model(f"{packed}.bin")
    pixels = numpy.ascontiguousarray(numpy.asarray(picture, numpy.float32).transpose(2, 0, 1) / 255)

    def run() -> numpy.ndarray:
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(pixels))
        return numpy.array(extractor.extract("output")[1])

    (theirs,) = best(rounds, run)
    answer = (run().clip(0, 1) * 255).round().transpose(1, 2, 0)
    apart = numpy.abs(answer - numpy.asarray(ours, numpy.float32))
    print(f"ncnn           {theirs:8.2f} s, {theirs / seconds:.2f} times ours")
    print(f"               the pictures differ by {apart.max():.0f} of 255 levels at most, {apart.mean():.4f} on average")


if __name__ == "__main__":
    main()
