"""what jobs have taken and will take, why they wait, and the workers that there are"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ROW = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("voxels", sa.BigInteger(), nullable=False, server_default="0"))
        table.add_column(sa.Column("memory_mib", sa.Integer()))
        table.add_column(sa.Column("held_mib", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("host", sa.String(length=64), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("waits", sa.Text(), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("waits_since", sa.Float()))
    op.create_table(
        "model_runs",
        sa.Column("id", _ROW, nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("voxels", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("peak_mib", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_runs"),
    )
    op.create_index("ix_model_runs_digest", "model_runs", ["model_digest", "id"])
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_workers"),
    )
    op.drop_index("ix_jobs_model", "jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_model", "jobs", ["model_digest", "finished_at"])
    op.drop_table("workers")
    op.drop_index("ix_model_runs_digest", "model_runs")
    op.drop_table("model_runs")
    with op.batch_alter_table("jobs") as table:
        for name in ("waits_since", "waits", "host", "held_mib", "memory_mib", "voxels"):
            table.drop_column(name)
