"""The job queue: procrastinate's own schema."""

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Later versions of procrastinate bring SQL files, which become migrations here."""
    # Through the driver: SQLAlchemy would take the schema's percent signs for parameters.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(SchemaManager.get_schema())


def downgrade() -> None:
    """Take back."""
    op.execute(
        """
        DO $$ DECLARE found record; BEGIN
            FOR found IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'procrastinate\\_%' LOOP
                EXECUTE format('DROP TABLE %I CASCADE', found.tablename);
            END LOOP;
            FOR found IN SELECT oid::regprocedure AS signature FROM pg_proc WHERE proname LIKE 'procrastinate\\_%' LOOP
                EXECUTE format('DROP FUNCTION %s CASCADE', found.signature);
            END LOOP;
            FOR found IN SELECT typname FROM pg_type WHERE typname LIKE 'procrastinate\\_%' LOOP
                EXECUTE format('DROP TYPE %I CASCADE', found.typname);
            END LOOP;
        END $$
        """
    )
