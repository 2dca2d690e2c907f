"""Do modules, style sheets and fonts that a page loads later have addresses that lead to a file?"""

import json
import re
from urllib.parse import urlsplit

from app.config import resource
from app.web.assets import import_map

STATIC = resource("static")


def test_import_map_gives_every_module_its_hashed_address() -> None:
    addresses = json.loads(import_map())["imports"]
    assert {"/static/content.js", "/static/vendor/katex/katex.min.js", "/static/vendor/diff/array.js"} <= set(addresses)
    for name, address in addresses.items():
        assert re.fullmatch(re.escape(name) + r"\?v=[0-9a-f]{12}", address)
        assert (STATIC.parent / urlsplit(address).path.lstrip("/")).is_file()


def test_what_our_modules_import_is_in_the_import_map() -> None:
    addresses = json.loads(import_map())["imports"]
    for module in STATIC.glob("*.js"):
        imported = re.findall(r'(?:from |import\(|import )"(/static/[^"]+)"', module.read_text())
        assert set(imported) <= set(addresses), module.name


def test_fonts_of_the_math_are_there() -> None:
    style = STATIC / "vendor" / "katex" / "katex.min.css"
    fonts = set(re.findall(r"url\((fonts/[^)]+\.woff2)\)", style.read_text()))
    assert len(fonts) == 20
    assert {font for font in fonts if not (style.parent / font).is_file()} == set()
