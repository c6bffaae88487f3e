"""`models`: what lies in the model folders, and whether a file can be used."""

import argparse
import json

from modules.commands.options import add_settings, existing_file, settings_of
from modules.model_manager.check import check_file
from modules.model_manager.headers import Refused
from modules.model_manager.library import Checkpoint, scan


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("models", help="list the checkpoints, or check a file", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    add_settings(parser, ["data_dir", "models_dir", "ckpt_dir"])
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
    if arguments.json:
        print(json.dumps([_plain(checkpoint) for checkpoint in checkpoints], ensure_ascii=False))
    elif not checkpoints:
        print(f"no checkpoints in {', '.join(str(root) for root in settings.checkpoint_roots)}")
    else:
        for checkpoint in checkpoints:
            print(f"{checkpoint.status:8}{checkpoint.name}  {checkpoint.reason or checkpoint.family}")
    return 0


def _plain(checkpoint: Checkpoint) -> dict[str, str | None]:
    return {
        "name": checkpoint.name,
        "path": str(checkpoint.path),
        "status": checkpoint.status,
        "family": checkpoint.family or None,
        "reason": checkpoint.reason or None,
    }
