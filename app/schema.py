"""Does the database have the tables that this version needs? Migrations, applied and checked."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.config import resource
from app.database import engine
from app.errors import Conflict


def migrate() -> None:
    """Bring the database to the newest schema; safe from several processes at once."""
    command.upgrade(_configuration(), "head")


def require_current() -> None:
    """Raise Conflict where the database's schema is not this version's."""
    with engine().connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory.from_config(_configuration()).get_current_head()
    if found != wanted:
        raise Conflict(
            f"The database has schema {found or 'none'}, and this version needs {wanted}: run `prefloop migrate`."
        )


def _configuration() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(resource("migrations")))
    return configuration
