"""Reports once more as Comprehensive SR (PS3.3 A.35.3), for a PACS that does not take the 3D class."""

from __future__ import annotations

from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset
from pydicom.uid import UID, ComprehensiveSRStorage

from gateway.domain.roles import SR_COMPREHENSIVE, SR_DATA_COMPREHENSIVE
from workers.encode.source import Origin, Source
from workers.encode.sr import build_sr
from workers.encode.sr_data import build_sr_data

_SERIES_AFTER = 20  # series number of the twin minus that of the original


def build_sr_comprehensive(source: Source) -> Dataset:
    """The report for people."""
    return as_comprehensive(build_sr(source), source, SR_COMPREHENSIVE)


def build_sr_data_comprehensive(source: Source) -> Dataset:
    """The report for programs."""
    return as_comprehensive(build_sr_data(source), source, SR_DATA_COMPREHENSIVE)


def as_comprehensive(report: Comprehensive3DSR, source: Origin, role: str) -> Dataset:
    """An object of its own in its own series. Nothing of its content is 3D (SCOORD3D), so all of it stays."""
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = UID(source.uid(role, "instance"))
    report.SeriesInstanceUID = source.uid(role, "series")
    report.SeriesNumber = int(report.SeriesNumber) + _SERIES_AFTER
    return report
