"""Where does a test find a database that is empty and its own? One is made once and emptied for each."""

from sqlalchemy import Connection, Engine, create_engine, text

MOST_GROWTH = 32 * 2**20  # bytes of deleted rows that the next tests may find lying about

QUICK = """
ALTER SYSTEM SET fsync = off;
ALTER SYSTEM SET synchronous_commit = off;
ALTER SYSTEM SET full_page_writes = off;
SELECT pg_reload_conf();
"""

END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

# DELETE, since TRUNCATE makes new files for every table and index: 4 ms against 150 ms on a slow disk.
EMPTY = """
DO $$
DECLARE name regclass;
BEGIN
  SET LOCAL session_replication_role = replica;  -- foreign keys and triggers would ask for an order
  FOR name IN
    SELECT oid FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
  LOOP
    EXECUTE format('DELETE FROM %s', name);
  END LOOP;
  PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence;
END $$
"""

# Every change of a table, index or sequence writes its row of pg_class anew; VACUUM and ANALYZE do not.
SCHEMA = """
SELECT md5(string_agg(format('%s %s', oid, xmin), ',' ORDER BY oid)) || (SELECT version_num FROM alembic_version)
FROM pg_class WHERE relnamespace = 'public'::regnamespace
"""


def make_quick(server_url: str) -> None:
    """Let a server that lives no longer than its tests write nothing through to the disk."""
    with _autocommit(server_url).connect() as connection:
        for statement in QUICK.strip().splitlines():
            connection.execute(text(statement))


def create(server_url: str, name: str, template: str = "template1") -> str:
    """Create the database `name` anew and return its URL."""
    admin = _autocommit(server_url)
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    admin.dispose()
    return admin.url.set(database=name).render_as_string(hide_password=False)


def _autocommit(url: str) -> Engine:
    return create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)


class LentDatabase:
    """A copy of `template` that one test after another has for itself."""

    def __init__(self, server_url: str, name: str, template: str) -> None:
        self._server_url, self._name, self._template = server_url, name, template
        self._make()

    def _make(self) -> None:
        self.url = create(self._server_url, self._name, self._template)
        self._engine = _autocommit(self.url)
        with self._engine.connect() as connection:
            self._schema, self._size = _schema_and_size(connection)

    def lend(self) -> str:
        """End every connection that was left open, remove every row, and return the URL."""
        with self._engine.connect() as connection:
            schema, size = _schema_and_size(connection)
            is_as_made = schema == self._schema and size < self._size + MOST_GROWTH
            if is_as_made:
                connection.execute(text(END_OTHERS))
                connection.execute(text(EMPTY))
        if not is_as_made:
            self._engine.dispose()
            self._make()
        return self.url


def _schema_and_size(connection: Connection) -> tuple[str, int]:
    schema = connection.scalars(text(SCHEMA)).one()
    return schema, connection.scalars(text("SELECT pg_database_size(current_database())")).one()
