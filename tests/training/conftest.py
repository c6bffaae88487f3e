"""A small set of icons of our own, packed as npm packs them, so that no test needs the network."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from modules.training.classes import THINGS
from modules.training.sprites import PACKAGES


def _shape(number: int) -> str:
    """A bold shape that differs from icon to icon."""
    colour = f"#{(number * 2654435761) & 0xFFFFFF:06x}"
    return f'<circle cx="16" cy="16" r="{6 + number % 9}" fill="{colour}"/><rect x="{number % 20}" y="4" width="8" height="6" fill="#222"/>'


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages' archives under the names `npm pack` gives them; with a snail, which is none of THINGS."""
    folder = tmp_path_factory.mktemp("icons")
    names = [*(thing.icon for thing in THINGS), "snail"]
    table = {name: {"body": _shape(number)} for number, name in enumerate(names)}
    data = json.dumps({"icons": table, "width": 32, "height": 32}).encode()
    for package in PACKAGES.values():
        name, version = package.removeprefix("@").replace("/", "-").split("@")
        with tarfile.open(folder / f"{name}-{version}.tgz", "w:gz") as tar:
            member = tarfile.TarInfo("package/icons.json")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return folder
