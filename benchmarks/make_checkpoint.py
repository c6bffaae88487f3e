"""Makes a full-size random SD1.5 checkpoint (2 GB, float16): noise as a model, but of the real size. `--ckpt` for a torch zip.

    python -m benchmarks.make_checkpoint FILE [--ckpt]
"""

import argparse
from pathlib import Path

from modules.model_manager.architecture import SD15
from tests.checkpoints import write_checkpoint

SEED = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--ckpt", action="store_true", help="as torch.save writes it, instead of safetensors")
    arguments = parser.parse_args()
    path = write_checkpoint(arguments.file, SD15, "ckpt" if arguments.ckpt else "safetensors", SEED, "float16")
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
