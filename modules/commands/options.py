"""Command-line options that are rows of a table elsewhere: settings and recipe fields."""

import argparse
import sys
import typing
from pathlib import Path

from modules.recipe.fields import FIELDS
from modules.settings import BadSettings, Settings, load

ALIASES = {"auth": ["--gradio-auth"], "port": ["--server-port"]}


def add_settings(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """An option for each of the settings called `names`."""
    for name in names:
        about = Settings.model_fields[name]
        flags = [f"--{name.replace('_', '-')}", *ALIASES.get(name, [])]
        choices = [c for c in typing.get_args(about.annotation) if isinstance(c, str)]
        if about.annotation is bool:
            parser.add_argument(*flags, dest=name, action="store_const", const=True, help=about.description)
        elif about.annotation == list[str]:
            parser.add_argument(*flags, dest=name, nargs="+", metavar="NAME", help=about.description)
        else:
            metavar = None if choices else name.upper()
            parser.add_argument(*flags, dest=name, choices=choices or None, metavar=metavar, help=about.description)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings, with the command line's above all. A bad one ends the program with one line and code 2."""
    try:
        return load(vars(arguments))
    except BadSettings as error:
        sys.exit(fail(str(error), 2))


def add_fields(parser: argparse._ActionsContainer, names: list[str]) -> None:
    """An option for each recipe field called `names`; values are checked later, like the page's."""
    for name in names:
        _, about = FIELDS[name]
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=about.label.upper().replace(" ", "_"), help=about.help)


def fail(message: str, code: int) -> int:
    """Say what went wrong, in one line, and return the exit code."""
    print(f"easel: {message}", file=sys.stderr)
    return code


def existing_file(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path
