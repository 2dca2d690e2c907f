"""Where does a peer run? In a virtual environment of its own, pinned, beside the project and ignored by git."""

import importlib.metadata
import subprocess
import sys
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
    folder = FOLDER / peer.replace("==", "-")
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.is_file() and installed.read_text().split() == wanted:
        return python
    print(f"Installing {', '.join(wanted)} into {folder.relative_to(ROOT)} ...", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{peer} could not be installed, so that there is nothing to measure against.") from error
    installed.write_text("\n".join(wanted))
    return python
