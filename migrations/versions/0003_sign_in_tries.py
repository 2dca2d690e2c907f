"""Failed sign-ins are counted by address typed and place, not on the person."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_column("people", "failed_sign_ins")
    op.drop_column("people", "locked_until")
    op.create_table(
        "sign_in_tries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "key_hash", sa.String(), nullable=False, comment="sha256 of the e-mail typed and the client's address"
        ),
        sa.Column("failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_tries")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_sign_in_tries_key_hash")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("sign_in_tries")
    op.add_column("people", sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("people", sa.Column("failed_sign_ins", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
