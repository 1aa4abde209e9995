"""Every kind of answer over every geometry: validators find nothing wrong, DCMTK reads it, and OHIF opens it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.domain.roles import ROLES
from tests.conformance.conftest import judged, run
from tests.support import answers
from tests.support.result_set import AXIAL, CASES, CHINESE, Case, frame, result_set
from workers.infer.answer import Answer

NUMBERS = (0.873, 0.02)
KINDS = {
    "boxes": answers.DETECTION,
    "boxes on images": answers.DETECTION_2D,
    "study": answers.PER_STUDY,
    "images": answers.PER_IMAGE,
    "regression": answers.REGRESSION,
    "lesions": answers.lesions(2),
}
GEOMETRIES = {
    name: case for name, case in CASES.items() if case.paint is None and name not in ("ordered", "descending")
}
GEOMETRIES |= {
    "one slice": Case(affine=AXIAL, shape=(1, 40, 48)),
    "reversed, oblique": Case(
        affine=frame((-0.8, 0.6, 0), (0, 0, -1), (-0.6, -0.8, 0)), modality="MR", attributes=CHINESE
    ),
    "tall voxels": Case(affine=frame((1, 0, 0), (0, 1, 0), spacing=(8.0, 0.4, 2.1)), missing=(2, 5)),
}
REPORTS, STRICT = ("sr", "sr-data", "sr-strict"), ("tilted gantry", "one slice", "reversed, oblique")
HYDRATED = {
    ("boxes", "axial"): 2,
    ("boxes", "reversed, oblique"): 2,
    ("boxes on images", "coronal"): 2,
    ("lesions", "axial"): 3,
}
"""Kind and geometry -> how many outlines become editable in OHIF."""


def answer(kind, case):
    """What a model of a kind says of a series of this shape."""
    nothing = answers.nothing(case.shape)
    if kind.startswith("boxes"):
        return answers.detected(case.affine, case.shape, planar=kind != "boxes")
    if kind == "study":
        return Answer(labels=nothing, numbers=NUMBERS)
    if kind == "images":
        return Answer(labels=nothing, each=tuple((index / case.shape[0], 0.5) for index in range(case.shape[0])))
    return Answer(labels=nothing, numbers=(71.25,)) if kind == "regression" else Answer(labels=case.labels())


def _segmentation(kind):
    return ["seg"] if kind == "lesions" else []


def made(directory, kind, geometry):
    """The reports (and the segmentation) of a kind over a geometry; every role on the first geometry."""
    given = GEOMETRIES[geometry]
    case = Case(
        affine=given.affine,
        shape=given.shape,
        modality=given.modality,
        segments=2,
        missing=given.missing,
        attributes=given.attributes,
        flags=given.flags,
        answer=answer(kind, Case(affine=given.affine, shape=given.shape, segments=2)),
        roles=ROLES if geometry == "axial" else (*REPORTS[: 3 if geometry in STRICT else 2], *_segmentation(kind)),
    )
    return result_set(directory / f"{kind}-{geometry}", case, output=KINDS[kind])


@pytest.fixture(scope="module", params=KINDS)
def sets(request, tmp_path_factory):
    """The result sets of one kind over all geometries."""
    directory = tmp_path_factory.mktemp("kinds")
    return request.param, {name: made(directory, request.param, name) for name in GEOMETRIES}


def test_gate_and_validators(sets):
    """dciodvfy has no error and no warning (but the known one), the gate nothing against it, dcentvfy no lost reference."""
    assert len(GEOMETRIES) >= 12
    for geometry, found in sets[1].items():
        found.verify()
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda path: run("dciodvfy", "-new", path), found.paths()))
        lines = [line for one in done for line in (one.stdout + one.stderr).splitlines()]
        wrong = [line for line in lines if line.startswith(("Error", "Warning")) and "DeviceUID" not in line]
        assert (geometry, wrong, {one.returncode for one in done}) == (geometry, [], {0})


def test_dsrdump_reads_every_report(sets):
    """DCMTK reads each tree to its end, with every number and unit."""
    for found in sets[1].values():
        for role in ("sr", "sr-strict", "sr-data"):
            if role not in {one.role for one in found.objects}:
                continue
            done = run("dsrdump", "+U8", found.path(role))
            assert (done.returncode, [line for line in done.stderr.splitlines() if line.startswith("E:")]) == (0, [])
            for measured in found.measurements:
                assert f'"{measured.value:.9g}" ({measured.unit.value},UCUM' in done.stdout


def test_ohif_opens_the_report(sets, judge):
    """Nothing throws or warns; every outline of a finding becomes editable, numbers about all images are read-only."""
    kind, found = sets
    for geometry in ("axial", "coronal", "reversed, oblique"):
        if (kind, geometry) in HYDRATED or (geometry == "axial" and not kind.startswith(("boxes", "lesions"))):
            result = judged(judge, "ohif_sr.mjs", found[geometry])
            assert sum(result["hydrated"].values()) == HYDRATED.get((kind, geometry), 0)
            assert result["warnings"] == []


def test_dcmqi_reads_the_strict_report(sets, tmp_path):
    """3D Slicer's reader takes the groups of volumes, where there is a segmentation to refer to."""
    kind, found = sets
    if kind == "lesions":
        made_of = found["axial"]
        output = tmp_path / "read.json"
        done = run("tid1500reader", "--inputDICOM", made_of.path("sr-strict"), "--outputMetadata", output)
        assert done.returncode == 0, done.stderr
        assert "TrackingUniqueIdentifier" in output.read_text()
