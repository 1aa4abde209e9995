"""editions of reports, and the order in which messages leave"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "editions",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_editions_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_editions")),
    )
    op.create_index(op.f("ix_editions_state"), "editions", ["state"])
    with op.batch_alter_table("deliveries") as table:
        table.add_column(sa.Column("created_at", sa.Float(), nullable=False, server_default="0"))
        table.add_column(sa.Column("patient_key", sa.String(length=64), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("report_key", sa.String(length=64), nullable=False, server_default=sa.text("''")))
    op.create_index("ix_deliveries_patient", "deliveries", ["destination", "patient_key"])
    op.create_index("ix_deliveries_report", "deliveries", ["destination", "report_key"])
