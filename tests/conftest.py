"""The ground of every test: a real Postgres with the real schema, rolled back or thrown away."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from app import config, database, embedded_postgres
from tests import databases
from tests.databases import LentDatabase

ROOT = Path(__file__).parent.parent
LONGEST = [ROOT / "tests" / folder for folder in ("worker", "demo", "browser")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: of two processes that share the files, none is left alone with one at the end."""
    items.sort(key=lambda item: item.path.parent not in LONGEST)


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
    """The Postgres server of this run: TEST_DATABASE_URL's if set, else an embedded one."""
    if named := os.environ.get("TEST_DATABASE_URL"):
        return named
    url = embedded_postgres.start(home)
    databases.make_quick(url)
    return url


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    """A database with the schema and no rows, copied wherever tests write."""
    name = f"prefloop_template_{os.getpid()}"
    engine = create_engine(databases.create(server_url, name))
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def engine(server_url: str, template: str) -> Iterator[Engine]:
    """One database for all tests that roll back."""
    engine = create_engine(databases.create(server_url, f"prefloop_test_{os.getpid()}", template))
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


@pytest.fixture(scope="session")
def lent_database(server_url: str, template: str) -> LentDatabase:
    """The database that every test with real commits has for itself in its turn."""
    return LentDatabase(server_url, f"prefloop_own_{os.getpid()}", template)


@pytest.fixture(scope="session")
def lent_engine(lent_database: LentDatabase) -> Engine:
    """An engine on it for what tests write: it outlives them, since it knows its statements once it compiled them."""
    return create_engine(lent_database.url, pool_size=20, max_overflow=20)


@pytest.fixture
def database_url(lent_database: LentDatabase, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database of this test's own with real commits; `app.database` and child processes use it too."""
    yield from own_database(lent_database, home, monkeypatch)


def own_database(lent: LentDatabase, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let this process and its children use the lent database, empty, for as long as we are asked."""
    url = lent.lend()
    monkeypatch.setenv("DATABASE_URL", url.replace("postgresql+psycopg", "postgresql"))
    monkeypatch.setenv("PREFLOOP_HOME", str(home))
    config.settings.cache_clear()
    yield url
    database.engine().dispose()
    config.settings.cache_clear()


@pytest.fixture
def committed(database_url: str, lent_engine: Engine) -> Iterator[sessionmaker[Session]]:
    """Sessions with real commits: `with committed.begin() as session: ...`, from any thread."""
    yield sessionmaker(lent_engine, expire_on_commit=False)
    lent_engine.dispose()
