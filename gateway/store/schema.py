"""The ledger's tables. Their history is in `migrations/`; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ROW = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts rows only in INTEGER keys

associations = Table(
    "associations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("calling_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("how", String(16), nullable=False, default=""),  # released, aborted, lost
)

studies = Table(
    "studies",
    metadata,
    Column("uid", String(64), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("first_stored_at", Float, nullable=False),
    Column("last_stored_at", Float, nullable=False),
    Column("released_at", Float),
    Column("reason", Text, nullable=False, default=""),
)

study_associations = Table(
    "study_associations",
    metadata,
    Column("study_uid", ForeignKey("studies.uid"), primary_key=True),
    Column("association_id", String(32), primary_key=True),
)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("series_uid", String(64), nullable=False),
    Column("study_uid", ForeignKey("studies.uid"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("file", String(160), nullable=False),
    Column("header", JSON, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("association_id", String(32), nullable=False),
    Column("received_at", Float, nullable=False),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("file", String(160), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("received_at", Float, nullable=False),
    UniqueConstraint("sop_instance_uid", "sha256"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("study_uid", ForeignKey("studies.uid"), nullable=False, index=True),
    Column("series_uid", String(64), nullable=False),
    Column("input_set", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("model_digest", String(64), nullable=False),
    Column("rule", String(64), nullable=False),
    Column("deliver", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("supersedes", String(32)),
    Column("state", String(16), nullable=False),
    Column("fence", Integer, nullable=False, default=0),
    Column("attempts_failed", Integer, nullable=False, default=0),
    Column("attempts_lost", Integer, nullable=False, default=0),
    Column("reason", Text, nullable=False, default=""),
    Column("owner", String(128), nullable=False, default=""),
    Column("lease_epoch", String(64), nullable=False, default=""),
    Column("lease_until", Float),
    Column("rings", Integer, nullable=False, default=0),
    Column("next_ring", Float, nullable=False, default=0.0),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("outcome", JSON),
    Index("ix_jobs_queue", "state", "priority", "created_at"),
)

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("sop_instance_uid", ForeignKey("instances.sop_instance_uid"), primary_key=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("destination", String(64), nullable=False),
    Column("payload", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("key", String(64), nullable=False, index=True),
    Column("file", String(160), nullable=False),
    Column("sop_class_uid", String(64), nullable=False, default=""),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("first_try", Float),
    Column("next_try", Float, nullable=False),
    Column("last_answer", Text, nullable=False, default=""),
    Column("delivered_at", Float),
    Column("fence", Integer, nullable=False, default=0),
    Column("lease_epoch", String(64), nullable=False, default=""),
    Column("lease_until", Float),
    UniqueConstraint("job_id", "destination", "key"),
    Index("ix_deliveries_due", "destination", "state", "next_try"),
)

events = Table(
    "events",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("at", Float, nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("job_id", String(32), nullable=False, default=""),
    Column("what", String(64), nullable=False),
    Column("detail", Text, nullable=False, default=""),
)

own_objects = Table(
    "own_objects",
    metadata,
    # What Hilum made, so that it is recognised when a PACS sends it back.
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
)
