"""A project says how much each annotator's labels count."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.add_column(
        "memberships",
        sa.Column(
            "label_weight",
            sa.Float(),
            server_default=sa.text("1"),
            nullable=False,
            comment="how much a label of theirs counts beside others where the project gives weights;"
            " 1 is an ordinary one",
        ),
    )
    name = op.f("ck_memberships_label_weight_in_range")
    op.create_check_constraint(name, "memberships", "label_weight BETWEEN 0 AND 10")


def downgrade() -> None:
    """Take back."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.drop_constraint(op.f("ck_memberships_label_weight_in_range"), "memberships")
    op.drop_column("memberships", "label_weight")
