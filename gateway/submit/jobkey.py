"""What makes two jobs the same job. Pure."""

from __future__ import annotations

from gateway.domain.ids import JobId, digest

RESULT_VERSION = "1"
"""Grows when the same input, model and settings would give other result objects, so that they get new UIDs."""


def job_key(study_uid: str, series_uid: str, input_set: str, model_digest: str) -> JobId:
    """The id of the job that runs this model build on exactly these instances."""
    return JobId(digest("job", RESULT_VERSION, study_uid, series_uid, input_set, model_digest)[:32])
