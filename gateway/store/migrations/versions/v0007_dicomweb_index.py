"""index of what DICOMweb searches"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TEXTS = (
    "patient_id", "patient_name", "birth_date", "sex", "accession_number", "study_id", "study_date", "study_time",
    "study_description", "referring_physician", "modality", "series_description", "series_number", "body_part", "protocol_name",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "indexed_studies",
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("study_uid", name=op.f("pk_indexed_studies")),
    )
    op.create_table(
        "indexed_jobs",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_indexed_jobs")),
    )
    op.create_table(
        "series_index",
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("sop_classes", sa.JSON(), nullable=False),
        sa.Column("file", sa.String(length=160), nullable=False),
        sa.Column("header", sa.JSON(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        sa.PrimaryKeyConstraint("study_uid", "series_uid", "job_id", name=op.f("pk_series_index")),
    )
    for name in ("patient_id", "accession_number", "study_date"):
        op.create_index(op.f(f"ix_series_index_{name}"), "series_index", [name], unique=False)
    op.create_table(
        "result_index",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.String(length=160), nullable=False),
        sa.Column("header", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_result_index_job_id")),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_result_index")),
    )
    op.create_index(op.f("ix_result_index_study_uid"), "result_index", ["study_uid"], unique=False)


def downgrade() -> None:
    for table in ("result_index", "series_index", "indexed_jobs", "indexed_studies"):
        op.drop_table(table)
