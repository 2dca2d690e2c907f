"""Which processes does the demo need? A server and two workers, real ones, none of which outlives the demo."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

_STARTING_MAY_TAKE = 90.0  # seconds
_STOPPING_MAY_TAKE = 10.0


class ProcessEnded(RuntimeError):
    """A process that should run has ended; the message shows the end of its log."""


class Processes:
    """Child processes with a log file each."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *arguments: str) -> None:
        """Run `python -m ARGUMENTS`; what it prints goes to NAME.log."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches us alone, and we stop them in order
            )

    def check(self) -> None:
        """Make sure that all of them live.

        Raises:
            ProcessEnded: one does not.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self._logs / f"{name}.log"
                end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise ProcessEnded(f"The {name} ended with code {process.returncode}. The end of {log}:\n{end}")

    def stop(self) -> None:
        """End them all, the last started one first; those that do not end in time are killed."""
        processes = list(reversed(self._running.values()))
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + _STOPPING_MAY_TAKE
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        self._running.clear()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process and to what it has started: they share a process group."""
    if process.poll() is None:
        os.killpg(process.pid, number)


@contextmanager
def serving(home: Path, port: int | None = None, threads: int | None = None) -> Iterator[tuple[Processes, str]]:
    """A server and its workers on the database of `home`; yields them and the server's address.

    The schema must be there already. Whatever happens inside, SIGTERM included, they are stopped afterwards.
    """
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {"PREFLOOP_HOME": str(home), "PREFLOOP_BASE_URL": address}
    if threads:
        environment["PREFLOOP_THREADS"] = str(threads)
    processes = Processes(home / "logs", environment)
    with _sigterm_as_exit():
        try:
            processes.start("server", "app.commands", "serve", "--port", str(port))
            processes.start("learn", "worker", "--queue", "learn")
            processes.start("light", "worker", "--queue", "light")
            _wait_for(address, processes)
            yield processes, address
        finally:
            processes.stop()


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, processes: Processes) -> None:
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
