"""Which version of a static file? Addresses carry its content's hash, so that browsers keep it until it changes."""

import hashlib
import json
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

from markupsafe import Markup
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.config import resource


@cache
def _hash(path: Path, _changed_at: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _version(name: str) -> str | None:
    path = resource("static") / name
    return _hash(path, path.stat().st_mtime_ns) if path.is_file() else None


def asset(name: str) -> str:
    """The address of a file in static/, such as `asset("app.css")`. Raises FileNotFoundError."""
    version = _version(name)
    if version is None:
        hint = " (make setup installs it)" if name.startswith("vendor/") else ""
        raise FileNotFoundError(f"There is no static/{name}{hint}.")
    return f"/static/{name}?v={version}"


def import_map() -> Markup:
    """An import map, so that modules that import each other by plain names get the hashed addresses too.

    Style sheets that a module loads stand in it as well: `import.meta.resolve` gives their hashed addresses.
    """
    folder = resource("static")
    files = sorted([*folder.glob("*.js"), *folder.glob("vendor/**/*.js"), *folder.glob("vendor/**/*.css")])
    names = [file.relative_to(folder).as_posix() for file in files]
    # The names are our own files'; "<" is escaped all the same, since this stands inside a script.
    return Markup(json.dumps({"imports": {f"/static/{name}": asset(name) for name in names}}).replace("<", "\\u003c"))  # noqa: S704


class Assets(StaticFiles):
    """The static files: kept for a year under their hashed address, asked for again under any other."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v")
        is_hashed = asked is not None and asked == [_version(path)]
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_hashed else "no-cache"
        return answer
