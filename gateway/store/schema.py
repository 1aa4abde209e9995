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
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
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
    Column("how", String(16), nullable=False, default=""),  # released, refused, aborted, lost
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
    Column("flags", JSON, nullable=False, default=list, server_default="[]"),
    # What the EHR says about it. `touched` is the last fact that may concern it, `linked` the last that was considered.
    Column("touched", _ROW, nullable=False, default=0, server_default="0"),
    Column("linked", _ROW, nullable=False, default=0, server_default="0"),
    Column("context", JSON),
    Column("hold", Text, nullable=False, default="", server_default=text("''")),  # why nothing of it may leave
    Column(
        "waived", Text, nullable=False, default="", server_default=text("''")
    ),  # what a person has said does not matter
    Index(
        "ix_studies_stale", "touched", sqlite_where=text("touched > linked"), postgresql_where=text("touched > linked")
    ),
)

evidence = Table(
    "evidence",
    metadata,
    # What was said about a study by others than those who sent it; rows are only ever added.
    Column("id", _ROW, primary_key=True),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),  # count, mpps
    Column("content", JSON, nullable=False),
)

performed_steps = Table(
    "performed_steps",
    metadata,
    # Modality Performed Procedure Steps; what each has said about a study, and when, is in `evidence`.
    Column("uid", String(64), primary_key=True),
    Column("calling_ae", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("studies", JSON, nullable=False),
    Column("instances", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

commitment_requests = Table(
    "commitment_requests",
    metadata,
    # Storage commitment that others ask of us, until their report has been taken.
    Column("transaction_uid", String(64), primary_key=True),
    Column("calling_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("instances", JSON, nullable=False),
    Column("requested_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_try", Float, index=True),  # empty: reported, or given up
    Column("reported_at", Float),
    Column("answer", Text, nullable=False, default=""),
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
    Column("inputs", JSON, nullable=False, default=list, server_default="[]"),  # names of several series
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
    Column("sender", String(16), nullable=False, default="", server_default=text("''")),
    Column("deadline", Float),
    Column("device", String(8), nullable=False, default="any", server_default=text("'any'")),
    Column("stage", String(32), nullable=False, default="", server_default=text("''")),  # of one that is running
    Column("fraction", Float),  # of it that is done, as far as can be told
    Column("on_refusal", String(8), nullable=False, default="envelope", server_default=text("'envelope'")),
    Column(
        "untold", Integer, nullable=False, default=0, server_default="0"
    ),  # refused, and archive and EHR are to be told
    Column("voxels", BigInteger, nullable=False, default=0, server_default="0"),
    Column("memory_mib", Integer),  # that it will need, as far as can be told
    Column("held_mib", Integer, nullable=False, default=0, server_default="0"),  # by the process of one that is running
    Column("host", String(64), nullable=False, default="", server_default=text("''")),  # on which it runs, or ran last
    Column(
        "waits", Text, nullable=False, default="", server_default=text("''")
    ),  # why one that is queued does not start
    Column("waits_since", Float),
    Index("ix_jobs_queue", "state", "priority", "created_at"),
    Index("ix_jobs_started", "started_at", "sender"),
)

model_runs = Table(
    "model_runs",
    metadata,
    # What jobs have taken, the latest of each model's build.
    Column("id", _ROW, primary_key=True),
    Column("model_digest", String(64), nullable=False),
    Column("voxels", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("peak_mib", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_model_runs_digest", "model_digest", "id"),
)

workers = Table(
    "workers",
    metadata,
    # Who has said lately that it is there.
    Column("owner", String(128), primary_key=True),
    Column("seen_at", Float, nullable=False),
    Column("state", JSON, nullable=False),
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
    Column("role", String(32), nullable=False),
    Column("key", String(64), nullable=False, index=True),
    Column("file", String(160), nullable=False),
    Column("sop_class_uid", String(64), nullable=False, default=""),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("first_try", Float),
    Column("next_try", Float, nullable=False),
    Column("last_answer", Text, nullable=False, default=""),
    Column("delivered_at", Float),
    Column("created_at", Float, nullable=False, server_default="0"),
    Column("patient_key", String(64), nullable=False, server_default=text("''")),
    Column("report_key", String(64), nullable=False, server_default=text("''")),
    Column("fence", Integer, nullable=False, default=0),
    Column("lease_epoch", String(64), nullable=False, default=""),
    Column("lease_until", Float),
    Column("about", JSON),  # a message: whom and what it names
    Column("stored_at", Float),
    Column("checks", Integer, nullable=False, default=0, server_default="0"),
    Column("transaction_uid", String(64), index=True),
    Column("fallbacks", JSON(none_as_null=True)),
    UniqueConstraint("job_id", "destination", "key"),
    Index("ix_deliveries_due", "destination", "state", "next_try"),
    Index("ix_deliveries_patient", "destination", "patient_key"),
    Index("ix_deliveries_report", "destination", "report_key"),
)

editions = Table(
    "editions",
    metadata,
    # Reports about a job that follow the first: confirmations, corrections, cancellations.
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String(128), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    Column("state", String(16), nullable=False, index=True),  # asked, written, failed
    Column("note", Text, nullable=False, default=""),  # why it could not be written
)

commitments = Table(
    "commitments",
    metadata,
    # Storage commitment transactions: written before the request, so that a report finds its own after any restart.
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("requested_at", Float, nullable=False),
    Column("answered_at", Float),
    Column("answer", Text, nullable=False, default=""),
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
    Column("delivery_id", _ROW, nullable=False, default=0, server_default="0", index=True),
)

own_objects = Table(
    "own_objects",
    metadata,
    # What Hilum made, so that it is recognised when a PACS sends it back.
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
)

inbound = Table(
    "inbound",
    metadata,
    # Messages from the EHR, as they came: in the row, or where they are large in the spool.
    Column("id", _ROW, primary_key=True),
    Column("identity", String(64), nullable=False, index=True),  # digest of sender and MSH-10
    Column("sha256", String(64), nullable=False),  # of the message without its MSH
    Column("sender", String(250), nullable=False),  # MSH-3 and MSH-4
    Column("control_id", String(250), nullable=False),  # MSH-10
    Column("address", String(64), nullable=False),
    Column("raw", LargeBinary),
    Column("file", String(160), nullable=False, default=""),
    Column("size", BigInteger, nullable=False),
    Column("copies", Integer, nullable=False, default=1),  # how often it came
    Column("received_at", Float, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("kind", String(64), nullable=False, default=""),  # ORM^O01
    Column("reason", Text, nullable=False, default=""),
)

facts = Table(
    "facts",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("message_id", ForeignKey("inbound.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("tie", String(280), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("body", JSON, nullable=False),
    UniqueConstraint("message_id", "position"),
)

fact_keys = Table(
    "fact_keys",
    metadata,
    Column("fact_id", ForeignKey("facts.id"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("value", String(250), primary_key=True),
    Index("ix_fact_keys_value", "value", "kind"),
)

study_keys = Table(
    "study_keys",
    metadata,
    Column("study_uid", ForeignKey("studies.uid"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("value", String(1024), primary_key=True),
    Index("ix_study_keys_value", "value", "kind"),
)

indexed_studies = Table(
    "indexed_studies",
    metadata,
    # Up to which revision the series of a study are in `series_index`.
    Column("study_uid", String(64), primary_key=True),
    Column("revision", Integer, nullable=False),
)

indexed_jobs = Table(
    "indexed_jobs",
    metadata,
    # Jobs whose results are in `result_index` and `series_index`.
    Column("job_id", String(32), primary_key=True),
)

series_index = Table(
    "series_index",
    metadata,
    # One row for each series that can be retrieved; the columns are what QIDO-RS can match.
    Column("study_uid", String(64), primary_key=True),
    Column("series_uid", String(64), primary_key=True),
    Column("job_id", String(32), primary_key=True),  # empty for what was received
    Column("instances", Integer, nullable=False),
    Column("sop_classes", JSON, nullable=False),
    Column("file", String(160), nullable=False),
    Column("header", JSON, nullable=False),
    Column("patient_id", Text, nullable=False, index=True),
    Column("patient_name", Text, nullable=False),
    Column("birth_date", Text, nullable=False),
    Column("sex", Text, nullable=False),
    Column("accession_number", Text, nullable=False, index=True),
    Column("study_id", Text, nullable=False),
    Column("study_date", Text, nullable=False, index=True),
    Column("study_time", Text, nullable=False),
    Column("study_description", Text, nullable=False),
    Column("referring_physician", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("series_description", Text, nullable=False),
    Column("series_number", Text, nullable=False),
    Column("body_part", Text, nullable=False),
    Column("protocol_name", Text, nullable=False),
)

result_index = Table(
    "result_index",
    metadata,
    # Headers of what Hilum made.
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("file", String(160), nullable=False),
    Column("header", JSON, nullable=False),
)
