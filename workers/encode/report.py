"""What both structured reports share: TID 1500 around measurement groups (PS3.16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes

from gateway.bundle.output import SegmentSpec
from gateway.bundle.part import CodeValue
from gateway.domain.messages import Code, MeasurementResult
from workers.encode.codes import (
    ARTIFICIAL_INTELLIGENCE,
    COMMENT,
    IMAGE_LIBRARY,
    IMAGE_LIBRARY_GROUP,
    IMAGING,
    PRESENCE,
    PROCEDURES,
    QUALITATIVE_EVALUATIONS,
    REPORT,
    SOURCE_IMAGE,
    concept,
)
from workers.encode.equipment import general_equipment, long_string
from workers.encode.request import ordered_procedures, referenced_requests
from workers.encode.side import side_of
from workers.encode.source import Origin, Source
from workers.load.places import Finding

Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)

_CONDITIONS = ("device", "precision", "seed")

_LIBRARY_PLACE = -2  # before measurements and evaluations

_CONTAINS, _MODIFIES = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_CONCEPT_MOD
_LANGUAGE = CodedConcept("en-US", "RFC5646", "English (United States)")  # as highdicom's own


def build_report(
    source: Origin,
    role: str,
    groups: Sequence[Group],
    *,
    series_number: int,
    description: str,
    also: Sequence[Dataset] = (),
    evaluations: Sequence[CodeContentItem] = (),
) -> Comprehensive3DSR:
    """A Comprehensive 3D SR (PS3.3 A.35.13), complete but preliminary and unverified, with the groups as its measurements.

    ``also`` are instances of the same study that groups refer to, beside the images; ``evaluations`` are what is said in
    codes of the whole.
    """
    report = Comprehensive3DSR(
        evidence=[*source.images, *also],
        content=_content(source, groups, evaluations),
        series_instance_uid=source.uid(role, "series"),
        series_number=series_number,
        sop_instance_uid=source.uid(role, "instance"),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=long_string(description),
        requested_procedures=referenced_requests(source),
        **general_equipment(source),
    )
    # Not before: highdicom copies all content, and looks through it for images that are not among the evidence.
    report.ContentSequence.insert(_LIBRARY_PLACE, _image_library(source))
    # What the content tree names is listed here, of whichever study (PS3.3 C.17.2.3); highdicom lists a prior as other evidence.
    if "PertinentOtherEvidenceSequence" in report:
        report.CurrentRequestedProcedureEvidenceSequence.extend(report.PertinentOtherEvidenceSequence)
        del report.PertinentOtherEvidenceSequence
    return report


def observer(source: Origin) -> ObserverContext:
    """The build of the model as the device that observed (TID 1004)."""
    attributes = DeviceObserverIdentifyingAttributes(
        uid=source.identity.device_uid,
        name=source.identity.name,
        manufacturer_name=source.identity.manufacturer,
        model_name=source.manifest.device.model_name,
        serial_number=source.identity.digest[:16] or "0",
    )
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)


def tracking(source: Source, spec: SegmentSpec, identifier: str) -> TrackingIdentifier:
    """The segment's tracking UID, the same as in the segmentation, under a name."""
    return TrackingIdentifier(uid=source.tracking_uid(spec.number), identifier=identifier)


def description(source: Source, spec: SegmentSpec) -> dict[str, Any]:
    """What was found and by which algorithm (TID 4019), as arguments of a measurement group."""
    return {
        "finding_category": concept(spec.category),
        "finding_type": concept(spec.type),
        # A kidney is where the left kidney is.
        "finding_sites": sites(
            spec.anatomic_region or (spec.type if spec.laterality else None),
            side_of(source.volume, spec.anatomic_region, spec.laterality),
        ),
        "algorithm_id": algorithm(source),
    }


def described(source: Source, finding: Finding) -> dict[str, Any]:
    """The same of one finding: as the part of its segment, or by its own name."""
    told = finding.told
    category = {} if told.segment is None else {"finding_category": concept(source.segments[told.segment - 1].category)}
    return {
        **category,
        "tracking_identifier": TrackingIdentifier(uid=told.tracking_uid, identifier=told.label),
        "finding_type": concept(told.name),
        "finding_sites": sites(*told.site, *told.laterality),
        "algorithm_id": algorithm(source),
    }


def sites(site: Code | CodeValue | None = None, laterality: Code | CodeValue | None = None) -> list[FindingSite] | None:
    """Where in the body, and on which side."""
    if site is None:
        return None
    return [FindingSite(concept(site), laterality=None if laterality is None else concept(laterality))]


def algorithm(source: Origin) -> AlgorithmIdentification:
    """TID 4019."""
    return AlgorithmIdentification(
        name=source.identity.name,
        version=source.identity.version,
        parameters=[f"bundle sha256:{source.identity.digest}", *_conditions(source)],
        family=ARTIFICIAL_INTELLIGENCE,
        manufacturer=source.identity.manufacturer,
    )


def _conditions(source: Origin) -> Iterator[str]:
    """What else decides a number: the way it was computed. All of it stands once among the report's comments."""
    yield from (f"{name}: {source.provenance[name]}" for name in _CONDITIONS if source.provenance.get(name))


def measurements_of(source: Source, spec: SegmentSpec, **arguments: Any) -> list[Measurement]:
    """The segment's measurements as NUM items with UCUM units (TID 300)."""
    return [
        numeric(found.name, found.value, found.unit, **arguments)
        for found in source.measurements
        if found.segment == spec.number
    ]


def presence(said: MeasurementResult) -> list[QualitativeEvaluation] | None:
    """Whether a finding is present, where the manifest says from which probability it is."""
    return [QualitativeEvaluation(PRESENCE, concept(code)) for code in said.verdict] or None


def numeric(name: Code, value: float, unit: Code, **arguments: Any) -> Measurement:
    """A NUM item: the exact value as Floating Point Value, and nine digits of it as Numeric Value, which viewers show."""
    item = Measurement(name=concept(name), value=float(value), unit=concept(unit), **arguments)
    item[0].MeasuredValueSequence[0].NumericValue = f"{value:.9g}"
    return item


def _content(source: Origin, groups: Sequence[Group], evaluations: Sequence[CodeContentItem]) -> ContainerContentItem:
    """The root of TID 1500, but for its image library.

    highdicom's own wants at least one group, and has no room for evaluations of the whole.
    """
    root = ContainerContentItem(name=REPORT, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(_LANGUAGE),
            *ObservationContext(observer_device_context=observer(source)),
            *(
                CodeContentItem(name=codes.DCM.ProcedureReported, value=procedure, relationship_type=_MODIFIES)
                for procedure in _procedures(source)
            ),
            _measurements(groups),
            _evaluations(source, evaluations),
        ]
    )
    return root


def _measurements(groups: Sequence[Group]) -> ContainerContentItem:
    """Also where there are none: OHIF stops at a report without the container."""
    container = ContainerContentItem(name=codes.DCM.ImagingMeasurements, relationship_type=_CONTAINS)
    if groups:
        container.ContentSequence = ContentSequence([item for group in groups for item in group])
    return container


def _procedures(source: Origin) -> list[CodedConcept]:
    """The imaging procedure, not the algorithm (IHE AIR): as the images code it, else as it was ordered, else by modality."""
    items = source.first.get("ProcedureCodeSequence")
    found = [code for item in items if (code := _code_of(item))] if isinstance(items, Items) else []
    return found or ordered_procedures(source) or [PROCEDURES.get(source.evidence[0].Modality, IMAGING)]


def _code_of(item: Dataset) -> CodedConcept | None:
    value, scheme, meaning = (
        str(item.get(keyword) or "") for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    )
    if not (value and scheme and meaning and len(value) <= 16 and len(scheme) <= 16 and len(meaning) <= 64):
        return None
    return CodedConcept(value, scheme, meaning)


def _image_library(source: Origin) -> ContainerContentItem:
    """Exactly the images that were used, a group for each series (TID 1600, 1601). Older OHIF stops at a report without one."""
    library = ContainerContentItem(name=IMAGE_LIBRARY, relationship_type=_CONTAINS)
    library.ContentSequence = ContentSequence([_image_group(images) for images in (source.evidence, *source.beside)])
    return library


def _image_group(images: Sequence[Dataset]) -> ContainerContentItem:
    group = ContainerContentItem(name=IMAGE_LIBRARY_GROUP, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                name=SOURCE_IMAGE,
                referenced_sop_class_uid=reference.SOPClassUID,
                referenced_sop_instance_uid=reference.SOPInstanceUID,
                relationship_type=_CONTAINS,
            )
            for reference in images
        ]
    )
    return group


def _evaluations(source: Origin, coded: Sequence[CodeContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(name=QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    comments = [TextContentItem(name=COMMENT, value=text, relationship_type=_CONTAINS) for text in _statements(source)]
    container.ContentSequence = ContentSequence([*coded, *comments])
    return container


def _statements(source: Origin) -> Iterator[str]:
    yield "AI result, not verified by a physician."
    yield f"Intended use: {source.manifest.intended_use.strip()}"
    yield from source.remarks
    if source.provenance:
        told = "; ".join(f"{name}: {value}" for name, value in source.provenance.items() if value)
        yield f"How it was computed: {told}."
