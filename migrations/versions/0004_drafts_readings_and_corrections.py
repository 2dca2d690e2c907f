"""Drafts on the server, guidelines read by version, responses that correct others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    _create_readings()
    _create_drafts()
    op.add_column(
        "responses",
        sa.Column(
            "corrects_id",
            sa.BigInteger(),
            nullable=True,
            comment="the response that a person corrected by writing this one",
        ),
    )
    op.create_foreign_key(
        op.f("fk_responses_prompt_id_corrects_id"),
        "responses",
        "responses",
        ["prompt_id", "corrects_id"],
        ["prompt_id", "id"],
    )


def _create_readings() -> None:
    op.create_table(
        "readings",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("annotator_id", sa.BigInteger(), nullable=False),
        sa.Column("project_version_id", sa.BigInteger(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "annotator_id"],
            ["memberships.project_id", "memberships.id"],
            name=op.f("fk_readings_project_id_annotator_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "project_version_id"],
            ["project_versions.project_id", "project_versions.id"],
            name=op.f("fk_readings_project_id_project_version_id"),
        ),
        sa.PrimaryKeyConstraint("annotator_id", "project_version_id", name=op.f("pk_readings")),
    )


def _create_drafts() -> None:
    op.create_table(
        "drafts",
        sa.Column("assignment_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("comparison_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "revision", sa.Integer(), nullable=False, comment="the revision that is being changed; 0: a new label"
        ),
        sa.Column(
            "fields",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="[name, value] of the form's fields, as they were filled",
        ),
        sa.Column("seconds", sa.Float(), nullable=False, comment="time in front of it so far"),
        sa.Column(
            "sequence",
            sa.BigInteger(),
            nullable=False,
            comment="counts up in the browser: an older draft that comes late is left out",
        ),
        sa.Column("saved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["comparison_id", "assignment_id"],
            ["assignments.comparison_id", "assignments.id"],
            name=op.f("fk_drafts_comparison_id_assignment_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "comparison_id"],
            ["comparisons.project_id", "comparisons.id"],
            name=op.f("fk_drafts_project_id_comparison_id"),
        ),
        sa.PrimaryKeyConstraint("assignment_id", name=op.f("pk_drafts")),
    )


def downgrade() -> None:
    """Take back."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.drop_constraint(op.f("fk_responses_prompt_id_corrects_id"), "responses", type_="foreignkey")
    op.drop_column("responses", "corrects_id")
    op.drop_table("drafts")
    op.drop_table("readings")
