"""Responses that people wrote are found by their authors."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.create_index(
        "ix_responses_author_id", "responses", ["author_id"], postgresql_where=sa.text("author_id IS NOT NULL")
    )


def downgrade() -> None:
    """Take back."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.drop_index("ix_responses_author_id", table_name="responses")
