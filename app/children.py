"""How do processes of ours start others, so that none outlives its parent? A pipe that the parent holds open."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import IO

_MARK = "PREFLOOP_CHILD"
_LOOK_EVERY = 0.2  # seconds
_ENDING_MAY_TAKE = 20.0


def start(module: str, *arguments: str, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Run `python -m MODULE ARGUMENTS`; its standard input stays open for as long as we live.

    What it prints goes to `output`, or where our own output goes.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        env={**os.environ, _MARK: "1"},
        start_new_session=True,  # a Ctrl-C reaches the parent alone, which ends its children in order
    )


def when_parent_ends(leave: Callable[[], object]) -> None:
    """In a process that `start` began: call `leave` when the parent lets go of us or dies, however it dies."""
    if os.environ.get(_MARK) != "1":
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        leave()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end(*children: subprocess.Popen[bytes]) -> None:
    """Let children go; those that do not leave in time are killed."""
    for child in children:
        if child.stdin is not None:
            child.stdin.close()
    deadline = time.monotonic() + _ENDING_MAY_TAKE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for_first(children: list[subprocess.Popen[bytes]]) -> int:
    """Wait until one of the children ends; return its code."""
    while True:
        for child in children:
            if (code := child.poll()) is not None:
                return code
        time.sleep(_LOOK_EVERY)


def exit_on_signals() -> None:
    """Let SIGTERM and SIGINT raise SystemExit, so that `finally` ends the children."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
