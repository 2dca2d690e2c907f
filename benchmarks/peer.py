"""Where does a peer run? In a virtual environment of its own, pinned, beside the project and ignored by git."""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".peers"


def peer_python(peer: str, shared: tuple[str, ...] = ()) -> Path:
    """The Python of an environment that holds the peer, made where it is missing.

    Args:
        peer: what to install, pinned: "trl==1.16.0".
        shared: packages that the peer must have in the version that we run with.

    Raises:
        SystemExit: if it cannot be installed.
    """
    wanted = [peer, *(f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in shared)]
    return _environment(wanted, [wanted])


def peer_python_over_ours(peer: str, needed: tuple[str, ...]) -> Path:
    """The same for a peer whose own demands a machine without CUDA cannot meet: it imports our packages, torch too.

    Args:
        peer: what to install, pinned, without what it asks for.
        needed: what else to install in the same way, pinned; in this environment these hide our own versions.

    Raises:
        SystemExit: if it cannot be installed.
    """
    wanted = [peer, *needed]
    # Their builds import torch, so they are not isolated; and what is installed elsewhere stays as it is.
    alone = ["--no-deps", "--no-build-isolation", "--ignore-installed"]
    return _environment(wanted, [["wheel"], [*alone, *wanted]], sees_ours=True)


def _environment(wanted: list[str], installs: list[list[str]], sees_ours: bool = False) -> Path:
    """The Python of an environment that `installs`, each what pip is given, fill; named by the first of `wanted`."""
    folder = FOLDER / wanted[0].replace("==", "-")
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.is_file() and installed.read_text().split() == wanted:
        return python
    print(f"Installing {', '.join(wanted)} into {folder.relative_to(ROOT)} ...", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        if sees_ours:
            theirs = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
            (theirs / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for packages in installs:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{wanted[0]} could not be installed, so that there is nothing to measure against.") from error
    installed.write_text("\n".join(wanted))
    return python
