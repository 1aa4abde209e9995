"""How much a DICOM source has of a study: C-FIND, Study Root (PS3.4 C.6.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from gateway.domain.errors import NoAnswer
from gateway.domain.evidence import SeriesCount, SourceCount
from gateway.domain.ids import SeriesUID, StudyUID
from gateway.hold.counts import number, series_uid

Associate = Callable[[Sequence[PresentationContext]], AbstractContextManager[Association]]
"""Opens an association to the source, released at the end; raises NoAnswer."""

_PENDING = (0xFF00, 0xFF01)
_MOST_ANSWERS = 20_000  # to one query; a study with more is not counted
_MOST_SECONDS = 30.0  # for all queries about one study


class CFindSource:
    """A `gateway.hold.inquirer.Source` that is asked by C-FIND."""

    def __init__(self, ae_title: str, associate: Associate) -> None:
        self._associate = associate
        self.name = f"{ae_title} by C-FIND"

    def count(self, study: StudyUID) -> SourceCount:
        """Asks on STUDY and on SERIES level, and on IMAGE level where it leaves out the counts of series."""
        with self._associate([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
            if not association.accepted_contexts:
                raise NoAnswer("it offers no C-FIND on Study Root")
            conversation = _Conversation(association, study)
            return SourceCount(
                source=self.name, asked_at=0.0, instances=conversation.total(), series=tuple(conversation.series())
            )


class _Conversation:
    """The queries about one study over one association."""

    def __init__(self, association: Association, study: StudyUID) -> None:
        self._association, self._study = association, study
        self._end = time.monotonic() + _MOST_SECONDS

    def total(self) -> int:
        """Number of Study Related Instances; 0 where it does not say."""
        answers = self._find("STUDY", NumberOfStudyRelatedInstances=None)
        return max((number(answer, "NumberOfStudyRelatedInstances") or 0 for answer in answers), default=0)

    def series(self) -> Iterator[SeriesCount]:
        """Each series once."""
        seen = set()
        keys = {"SeriesInstanceUID": "", "Modality": "", "NumberOfSeriesRelatedInstances": None}
        for answer in list(self._find("SERIES", **keys)):
            uid = series_uid(answer)
            if uid is None or uid in seen:
                continue
            seen.add(uid)
            count = number(answer, "NumberOfSeriesRelatedInstances")
            yield SeriesCount(
                series_uid=uid,
                modality=str(answer.get("Modality") or ""),
                instances=self._images(uid) if count is None else count,
            )

    def _images(self, series: SeriesUID) -> int:
        answers = self._find("IMAGE", SeriesInstanceUID=series, SOPInstanceUID="")
        return len({str(answer.get("SOPInstanceUID")) for answer in answers})

    def _find(self, level: str, **keys: Any) -> Iterator[Dataset]:
        query = Dataset()
        query.QueryRetrieveLevel = level
        query.StudyInstanceUID = self._study
        for keyword, value in keys.items():
            setattr(query, keyword, value)
        try:
            answers = self._association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
            for count, (status, answer) in enumerate(answers):
                if count > _MOST_ANSWERS or time.monotonic() > self._end:
                    self._association.abort()
                    raise NoAnswer("its answer has no end")
                code = status.get("Status")
                if code not in (0x0000, *_PENDING):
                    raise NoAnswer("it does not answer in time" if code is None else f"C-FIND status 0x{code:04X}")
                # Some peers answer with more than was asked for.
                if answer is not None and answer.get("StudyInstanceUID", self._study) == self._study:
                    yield answer
        except (RuntimeError, ValueError, OSError) as error:
            raise NoAnswer("the association broke") from error
