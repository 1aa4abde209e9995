"""Result sets that a test may spoil."""

import dataclasses
import shutil

import pytest

from tests.support.result_set import written


@pytest.fixture
def good_forms(tmp_path):
    """A copy of a set with other forms in it, free to be spoiled."""
    found = written("sagittal")
    shutil.copytree(found.order.output_dir, tmp_path / "result")
    order = dataclasses.replace(found.order, output_dir=str(tmp_path / "result"))
    return dataclasses.replace(found, order=order)
