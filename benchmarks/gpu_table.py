"""What came out of benchmarks/gpu.sh? One table of all steps and all of their rows.

    python benchmarks/gpu_table.py FOLDER

Reads what gpu.sh left there: `steps.tsv` says how each step ended, the JSON files what was measured. Exits with 1 where
a step did not end well.
"""

import json
import sys
from pathlib import Path
from typing import Any


def steps(folder: Path) -> list[tuple[str, str, str]]:
    """Name, how it ended, and seconds."""
    lines = (folder / "steps.tsv").read_text().splitlines()
    return [(name, ended, seconds) for name, ended, seconds in (line.split("\t") for line in lines)]


def results(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of all benchmarks that got so far as to write them, each with its benchmark's name."""
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return [(report["benchmark"], row) for report in reports for row in report["results"]]


def table(folder: Path) -> str:
    """All of it."""
    lines = [f"{'benchmark':16} {'case':38} {'metric':18} {'ours':>9} {'peer':>9} {'ratio':>7}  met  beside"]
    for benchmark, row in results(folder):
        ours, peer, ratio = (_shown(row.get(name)) for name in ("ours", "peer", "ratio"))
        met = {True: "yes", False: "NO"}.get(row["met"], "")
        lines.append(
            f"{benchmark:16} {row['case']:38} {row['metric']:18} {ours:>9} {peer:>9} {ratio:>7}  {met:3}"
            f"  {row['peer_name'] or ''}".rstrip()
        )
    lines += ["", f"{'step':16} {'seconds':>7}  ended"]
    lines += [f"{name:16} {seconds:>7}  {ended}" for name, ended, seconds in steps(folder)]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def main() -> None:
    """The command."""
    folder = Path(sys.argv[1])
    print(table(folder))
    sys.exit(any(not ended.startswith(("ok", "left out: its data")) for _, ended, _ in steps(folder)))


if __name__ == "__main__":
    main()
