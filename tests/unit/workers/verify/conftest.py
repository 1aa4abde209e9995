"""A right result set, free to be spoiled."""

import dataclasses
import shutil

import pytest

from gateway.domain.roles import ROLES
from tests.support.result_set import CHINESE, Case, oblique, result_set


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small right result set with two segments on an oblique stack."""
    case = Case(
        affine=oblique(), shape=(5, 20, 24), modality="MR", segments=2, attributes=CHINESE,
        roles=ROLES, mapped=True,
    )  # fmt: skip
    return result_set(tmp_path_factory.mktemp("original"), case)


@pytest.fixture
def whole(original, tmp_path):
    """A copy of it, free to be spoiled."""
    return copied(original, tmp_path)


@pytest.fixture
def good(original, tmp_path):
    """The same with segmentation and reports alone, which is quicker to judge."""
    objects = tuple(one for one in original.objects if one.role in ("seg", "sr", "sr-data"))
    return copied(dataclasses.replace(original, objects=objects, maps=()), tmp_path)


def copied(found, directory):
    """The same set with its files in another directory."""
    (directory / "result").mkdir()
    for path in found.paths():
        shutil.copy(path, directory / "result")
    order = dataclasses.replace(found.order, output_dir=str(directory / "result"))
    return dataclasses.replace(found, order=order)
