"""refusals that archive and EHR are told of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("on_refusal", sa.String(length=8), nullable=False, server_default="envelope"))
    op.add_column("jobs", sa.Column("untold", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("jobs", "untold")
    op.drop_column("jobs", "on_refusal")
