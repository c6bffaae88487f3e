import re

from modules.ui import assets

SCRIPTS = {path.stem: path.read_text() for path in assets.ICON.parent.glob("*.js")}
EXPORT = re.compile(r"^export (?:const|(?:async )?function) (\w+)", re.MULTILINE)
IMPORT = re.compile(r'^import \{ ([^}]*) \} from "\./(\w+)\.js";$', re.MULTILINE)
FORBIDDEN = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://")


def test_every_script_and_style_is_sent_each_script_after_what_it_imports():
    assert sorted(SCRIPTS) == sorted(assets.SCRIPTS)
    assert sorted(path.name for path in assets.ICON.parent.glob("*.css")) == sorted(assets.STYLES)
    for name, text in SCRIPTS.items():
        assert all(assets.SCRIPTS.index(module) < assets.SCRIPTS.index(name) for _, module in IMPORT.findall(text)), name


def test_what_is_imported_is_exported():
    for name, text in SCRIPTS.items():
        for wanted, module in IMPORT.findall(text):
            assert set(wanted.split(", ")) <= set(EXPORT.findall(SCRIPTS[module])), name


def test_no_script_makes_html_or_code_of_text_or_asks_another_host():
    assert [name for name, text in SCRIPTS.items() if FORBIDDEN.search(text)] == []
    head = assets.head()
    assert head.count("</script>") == 1 and "\nimport " not in head and "\nexport " not in head
