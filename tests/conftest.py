"""The ground of every test: a real Postgres with the real schema, rolled back or thrown away."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from app import config, database, embedded_postgres

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder of this run's own: database, artifacts, nothing of the developer's."""
    # Short, so that the database's socket fits into it.
    folder = Path(tempfile.mkdtemp(prefix="pl-"))
    folder.chmod(0o755)
    yield folder
    embedded_postgres.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


def migrate(connection: Connection) -> None:
    """Bring an empty database to the newest schema, as `prefloop up` does."""
    configuration = Config(ROOT / "alembic.ini")
    configuration.set_main_option("script_location", str(ROOT / "migrations"))
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")


@pytest.fixture(scope="session")
def server_url(home: Path) -> str:
    """The Postgres server of this run: DATABASE_URL's if set, else an embedded one."""
    named = os.environ.get("TEST_DATABASE_URL")
    return named or embedded_postgres.start(home)


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    """A database with the schema and no rows, copied wherever a test commits."""
    name = f"prefloop_template_{os.getpid()}"
    url = _fresh(server_url, name)
    engine = create_engine(url)
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()
    return name


def _fresh(server_url: str, name: str, template: str = "template1") -> str:
    """Create the database `name` and return its URL."""
    admin = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    url = admin.url.set(database=name).render_as_string(hide_password=False)
    admin.dispose()
    return url


@pytest.fixture(scope="session")
def engine(server_url: str, template: str) -> Iterator[Engine]:
    """One database for all tests that roll back."""
    engine = create_engine(_fresh(server_url, f"prefloop_test_{os.getpid()}", template))
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session whose every write is rolled back; a commit inside becomes a savepoint."""
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()


@pytest.fixture
def database_url(server_url: str, template: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of this test's own with real commits; `app.database` and child processes use it too."""
    yield from own_database(server_url, template, home, monkeypatch)


def own_database(server_url: str, template: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Create a database with the schema and let this process and its children use it for as long as we are asked."""
    name = f"prefloop_own_{os.getpid()}"
    url = _fresh(server_url, name, template)
    monkeypatch.setenv("DATABASE_URL", url.replace("postgresql+psycopg", "postgresql"))
    monkeypatch.setenv("PREFLOOP_HOME", str(home))
    _forget_settings()
    yield url
    database.engine().dispose()
    _forget_settings()


@pytest.fixture
def committed(database_url: str) -> Iterator[sessionmaker[Session]]:
    """Sessions with real commits: `with committed.begin() as session: ...`, from any thread."""
    engine = create_engine(database_url, pool_size=20, max_overflow=20)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


def _forget_settings() -> None:
    config.settings.cache_clear()
    database.engine.cache_clear()
    database._sessions.cache_clear()
