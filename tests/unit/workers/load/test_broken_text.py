"""Identity that is not in the character set that the images declare."""

import numpy as np
import pytest

from tests.support.result_set import AXIAL, IDENTITY, balls, manifest
from tests.support.series import job_order, write_series
from workers.encode.measure import measure
from workers.encode.objects import encode
from workers.load.series import load
from workers.verify.gate import verify


@pytest.mark.parametrize("charset", ["ISO_IR 192", "GB18030"])
def test_it_passes_unchanged(tmp_path, charset):
    """Read with one sign for all that cannot be read, two patients could become one."""
    bytes_ = b"W\xcd\xf5^\xd0\xff\xd0 "
    voxels = np.random.default_rng(0).integers(0, 900, (5, 16, 16))
    attributes = {"SpecificCharacterSet": charset, "PatientName": "ZZZZZZZZ", "PatientID": "YYYYYYYY"}
    paths = write_series(tmp_path / "in", voxels, AXIAL, modality="CT", attributes=attributes)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"ZZZZZZZZ", bytes_).replace(b"YYYYYYYY", b"\xcd\xf5\xff000001"[:8]))
    order = job_order(paths, tmp_path, tmp_path / "out")
    contract = manifest()
    volume, labels = load(order, contract), balls((5, 16, 16))
    measured = measure(labels, volume, contract)
    objects = encode(volume, labels, measured, contract, IDENTITY, order, only=("seg", "sr"))
    verify(objects, volume, labels, measured, contract, order)
    for one in objects:
        written = (tmp_path / "out" / one.file).read_bytes()
        assert b"PN\x08\x00" + bytes_ in written
        assert b"LO\x08\x00\xcd\xf5\xff00000" in written
        assert b"\x08\x00\x05\x00CS" not in written[:600]
