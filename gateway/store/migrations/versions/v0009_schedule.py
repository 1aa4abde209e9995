"""whose turn it is: senders, deadlines, devices, and how far a running job is"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("sender", sa.String(length=16), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("deadline", sa.Float()))
        table.add_column(sa.Column("device", sa.String(length=8), nullable=False, server_default=sa.text("'any'")))
        table.add_column(sa.Column("stage", sa.String(length=32), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("fraction", sa.Float()))
    op.create_index("ix_jobs_started", "jobs", ["started_at", "sender"])
    op.create_index("ix_jobs_model", "jobs", ["model_digest", "finished_at"])


def downgrade() -> None:
    op.drop_index("ix_jobs_model", "jobs")
    op.drop_index("ix_jobs_started", "jobs")
    with op.batch_alter_table("jobs") as table:
        for name in ("fraction", "stage", "device", "deadline", "sender"):
            table.drop_column(name)
