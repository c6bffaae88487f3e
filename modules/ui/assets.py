"""The page's own stylesheets and scripts: read once, sent with the page, nothing fetched from anywhere."""

import re
from pathlib import Path

_HERE = Path(__file__).parent
ICON = _HERE / "easel.svg"
STYLES = ("frame.css", "form.css", "stage.css", "source.css", "train.css", "upscale.css", "viewer.css")
SCRIPTS = (
    *("dom", "words", "live", "pictures", "top", "viewer", "notes", "incoming", "parameters", "strip", "compare", "upscale"),
    *("mask", "batch", "source", "stage", "estimate", "networks", "train", "form", "keys", "scheme"),
)  # each after what it imports

_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|(?:async )?function) (\w+))", re.MULTILINE)


def head() -> str:
    """What goes into the page's <head>: one style sheet and one script."""
    styles = "\n".join((_HERE / name).read_text("utf-8") for name in STYLES)
    scripts = "\n".join(_wrapped(name, (_HERE / f"{name}.js").read_text("utf-8")) for name in SCRIPTS)
    return f'<style>{styles}</style><script type="module">const modules = {{}};\n{scripts}</script>'


def _wrapped(name: str, module: str) -> str:
    """An ES module as a function of its own that leaves what it exports in `modules`: the page needs no address for it."""
    exports = ", ".join(_EXPORT.findall(module))
    body = _EXPORT.sub("", _IMPORT.sub(r"const \1 = modules.\2;", module))
    return f"modules.{name} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();"
