"""proof of delivery"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("deliveries") as table:
        table.alter_column("role", type_=sa.String(length=32), existing_type=sa.String(length=16))
        table.add_column(sa.Column("stored_at", sa.Float(), nullable=True))
        table.add_column(sa.Column("checks", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("transaction_uid", sa.String(length=64), nullable=True))
        table.add_column(sa.Column("fallbacks", sa.JSON(none_as_null=True), nullable=True))
        table.create_index(op.f("ix_deliveries_transaction_uid"), ["transaction_uid"], unique=False)
    op.execute("UPDATE deliveries SET stored_at = delivered_at WHERE delivered_at IS NOT NULL")
    op.add_column("events", sa.Column("delivery_id", _ROW, nullable=False, server_default="0"))
    op.create_index(op.f("ix_events_delivery_id"), "events", ["delivery_id"], unique=False)
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("requested_at", sa.Float(), nullable=False),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitments")),
    )
