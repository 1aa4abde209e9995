"""A right result set, free to be spoiled."""

import dataclasses
import shutil

import pytest

from tests.support.result_set import CHINESE, Case, oblique, result_set


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small right result set with two segments on an oblique stack."""
    case = Case(
        affine=oblique(), shape=(5, 20, 24), modality="MR", segments=2, attributes=CHINESE,
        extra_roles=("seg-labelmap",), mapped=True,
    )  # fmt: skip
    return result_set(tmp_path_factory.mktemp("original"), case)


@pytest.fixture
def good(original, tmp_path):
    """A copy of it, free to be spoiled."""
    shutil.copytree(original.order.output_dir, tmp_path / "result")
    order = dataclasses.replace(original.order, output_dir=str(tmp_path / "result"))
    return dataclasses.replace(original, order=order)
