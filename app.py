"""Easel's only entry: `python app.py [serve|generate|upscale|models|train|doctor] ...`; without a subcommand it serves the page."""

import argparse
import importlib
import os
import shlex
import sys

COMMANDS = ("serve", "generate", "upscale", "models", "train", "doctor")


def main(arguments: list[str]) -> int:
    """Run the subcommand that `arguments` name and return its exit code."""
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments = ["serve", *arguments]
    if arguments[0] == "serve":
        try:
            arguments += shlex.split(os.environ.get("COMMANDLINE_ARGS", ""))
        except ValueError as error:
            print(f"easel: COMMANDLINE_ARGS: {str(error).lower()}", file=sys.stderr)
            return 2
    parser = argparse.ArgumentParser(prog="easel", description="A local studio for latent diffusion.", allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = COMMANDS if arguments[0] not in COMMANDS else (arguments[0],)
    commands = {name: importlib.import_module(f"modules.commands.{name}") for name in wanted}
    for command in commands.values():
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    return commands[parsed.command].main(parsed)


def run() -> int:
    """`main` with the ends that any command can come to."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"easel: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(run())
