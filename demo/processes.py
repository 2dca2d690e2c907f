"""Which processes does the demo need? A server and two workers, real ones, none of which outlives the demo."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from app import children

_STARTING_MAY_TAKE = 90.0  # seconds


class ProcessEnded(RuntimeError):
    """A process that should run has ended; the message shows the end of its log."""


class Processes:
    """Child processes with a log file each."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Run `python -m MODULE ARGUMENTS`; what it prints goes to NAME.log."""
        with self._log(name).open("ab") as log:
            self._running[name] = children.start(module, *arguments, output=log)

    def check(self) -> None:
        """Make sure that all of them live.

        Raises:
            ProcessEnded: one does not.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                end = "\n".join(self._log(name).read_text(errors="replace").splitlines()[-20:])
                raise ProcessEnded(
                    f"The {name} ended with code {process.returncode}. The end of {self._log(name)}:\n{end}"
                )

    def stop(self) -> None:
        """End them all; those that do not end in time are killed."""
        children.end(*self._running.values())
        self._running.clear()

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


@contextmanager
def serving(home: Path, port: int) -> Iterator[tuple[Processes, str]]:
    """A server and its workers; yields them and the server's address.

    They inherit this process's environment, which names their home. Whatever happens inside, SIGTERM included, they are
    stopped afterwards.
    """
    address = f"http://127.0.0.1:{port}"
    os.environ["PREFLOOP_BASE_URL"] = address
    processes = Processes(home / "logs")
    with _sigterm_as_exit():
        try:
            processes.start("server", "app.commands", "serve", "--port", str(port))
            processes.start("learn", "worker", "--queue", "learn")
            processes.start("light", "worker", "--queue", "light")
            wait_for(address, processes)
            yield processes, address
        finally:
            processes.stop()


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str, processes: Processes) -> None:
    """Wait until the server at `address` answers.

    Raises:
        ProcessEnded: it ended instead.
    """
    deadline = time.monotonic() + _STARTING_MAY_TAKE
    while True:
        processes.check()
        try:
            httpx.get(f"{address}/sign-in", timeout=5).raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
