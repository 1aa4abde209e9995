"""OHIF's own loaders, in Node without a browser: what is painted on which image, and what becomes editable."""

import nibabel
import numpy as np
import pytest

from tests.conformance.conftest import HYDRATED, judged, run
from tests.support.result_set import AXIAL, CASES, Case, result_set, written


def painted(found):
    """SOP Instance UID -> {segment: voxels}, as the model's mask has it."""
    counts = {}
    for header, labels in zip(found.volume.headers, found.labels, strict=True):
        numbers, voxels = np.unique(labels[labels > 0], return_counts=True)
        if header is not None and numbers.size:
            counts[str(header.SOPInstanceUID)] = dict(zip(map(str, numbers), voxels.tolist(), strict=True))
    return counts


@pytest.mark.parametrize("name", CASES)
def test_segmentation_is_painted_on_the_right_images(ohif, name):
    """The same number of voxels of each segment on each source image as in the mask, and segments by their names."""
    found = written(name)
    result = ohif["ohif_seg.mjs", name].result()
    assert result["painted"] == painted(found)
    assert result["segments"] == {str(spec.number): spec.label for spec in found.manifest.output.segments}
    assert result["overlapping"] is False


@pytest.mark.parametrize("name", HYDRATED)
def test_report_opens(ohif, name):
    """Nothing throws or warns, and every segment that was found gives one editable outline; one that was not gives none."""
    found = written(name)
    result = ohif["ohif_sr.mjs", name].result()
    count = len(np.unique(found.labels[found.labels > 0]))
    hydrated = result["hydrated"]
    assert hydrated == ({"PlanarFreehandROI": count} if count else {})
    assert result["warnings"] == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "seg-labelmap" in case.roles])
def test_label_map_is_painted_on_the_right_images(ohif, name):
    """The RLE label map paints what the binary form paints."""
    assert ohif["ohif_seg-labelmap.mjs", name].result()["painted"] == painted(written(name))


@pytest.mark.parametrize("shape", [(6, 13, 11), (2, 17, 19), (1, 33, 35), (3, 33, 8)])
def test_odd_matrices_that_are_painted_on_every_slice(judge, tmp_path, shape):
    """OHIF guesses by length how frames are packed. No empty frame is there to be added, and yet it must not guess wrong."""

    def paint(labels):
        labels[:] = np.random.default_rng(4).integers(0, 2, shape)

    found = result_set(tmp_path, Case(affine=AXIAL, shape=shape, paint=paint, roles=("seg", "sr")))
    found.verify()
    assert judged(judge, "ohif_seg.mjs", found)["painted"] == painted(found)
    done = run("dciodvfy", "-new", found.path("seg"))
    assert (done.returncode, "Error" in done.stdout + done.stderr) == (0, False)
    run("segimage2itkimage", "--inputDICOM", found.path("seg"), "--outputDirectory", tmp_path, "-t", "nii", "-p", "s")
    (file,) = tmp_path.glob("s-*.nii*")
    assert int((np.asarray(nibabel.load(file).dataobj) > 0).sum()) == int(found.labels.sum())
