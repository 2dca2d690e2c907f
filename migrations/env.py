"""How alembic reaches the database: the same way as everything else."""

from alembic import context
from sqlalchemy import Connection, text

from app.database import engine
from app.tables import Base

# A change of schema must not queue behind a long transaction and block every request behind itself.
_LOCK_TIMEOUT = "10s"


def _is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compared: object) -> bool:
    """Whether a thing is of our models: procrastinate's tables live in the same schema and are its own."""
    return not (kind == "table" and (name or "").startswith("procrastinate_"))


def _migrate(connection: Connection) -> None:
    connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
    connection.execute(text("SELECT pg_advisory_lock(hashtext('prefloop.migrations'))"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=_is_ours,
        compare_type=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(text("SELECT pg_advisory_unlock(hashtext('prefloop.migrations'))"))
    connection.commit()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    with engine().connect() as connection:
        _migrate(connection)
