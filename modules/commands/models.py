"""`models`: what lies in the model folders, and whether a file can be used."""

import argparse
import json

from modules.commands.options import add_settings, existing_file, settings_of
from modules.model_manager.check import check_file
from modules.model_manager.headers import Refused
from modules.model_manager.library import Checkpoint, scan
from modules.model_manager.loras import Lora, scan_loras
from modules.model_manager.upscalers import Upscaler, provide, scan_upscalers


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("models", help="list the checkpoints, LoRAs and upscalers, or check a file", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    add_settings(parser, ["data_dir", "models_dir", "ckpt_dir", "lora_dir", "esrgan_models_path"])
    check = parser.add_subparsers(dest="action", metavar="check").add_parser("check", help="read a whole file as the engine would")
    check.add_argument("file", type=existing_file)


def main(arguments: argparse.Namespace) -> int:
    if arguments.action == "check":
        try:
            print(f"{arguments.file}: {check_file(arguments.file)}")
        except Refused as refused:
            print(f"{arguments.file}: refused: {refused}")
            return 1
        return 0
    settings = settings_of(arguments)
    checkpoints = scan(settings.checkpoint_roots, settings.hashes)
    loras = scan_loras(settings.lora_roots, settings.hashes)
    provide(settings.packed_upscalers)
    upscalers = [each for each in scan_upscalers(settings.upscaler_roots, settings.hashes) if each.path]
    if arguments.json:
        plain = [_plain(checkpoint, "checkpoint", checkpoint.family) for checkpoint in checkpoints]
        plain += [_plain(lora, "lora") for lora in loras] + [_plain(each, "upscaler") for each in upscalers]
        print(json.dumps(plain, ensure_ascii=False))
        return 0
    if not checkpoints:
        print(f"no checkpoints in {', '.join(str(root) for root in settings.checkpoint_roots)}")
    for checkpoint in checkpoints:
        print(f"{checkpoint.status:8}{checkpoint.name}  {checkpoint.reason or checkpoint.family}")
    for other in (*loras, *upscalers):
        print(f"{other.status:8}{other.name}  {other.reason or other.about}")
    return 0


def _plain(model: Checkpoint | Lora | Upscaler, kind: str, family: str = "") -> dict[str, str | None]:
    return {
        "name": model.name,
        "path": str(model.path),
        "kind": kind,
        "status": model.status,
        "family": family or None,
        "reason": model.reason or None,
    }
