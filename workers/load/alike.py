"""What images of a series have in common is read once: elements that are encoded alike have the same value."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_T = TypeVar("_T")
_LONGEST = 1024  # bytes of a value worth comparing: what is longer is not what images have in common


class Alike(Generic[_T]):
    """A function of some elements of a dataset, called once for each way in which they are encoded.

    Converting an element costs more than reading a kilobyte; a series of 300 images has a hundred thousand of them.
    """

    def __init__(self, read: Callable[[Dataset], _T], keywords: Iterable[str]) -> None:
        self._read = read
        self._tags = tuple(Tag(keyword) for keyword in keywords)
        self._found: dict[Hashable, _T] = {}

    def __call__(self, dataset: Dataset) -> _T:
        """The function's value for this dataset. Raises what the function raises, and remembers no errors."""
        key = self._key(dataset)
        if key is None:
            return self._read(dataset)
        if key not in self._found:
            self._found[key] = self._read(dataset)
        return self._found[key]

    def _key(self, dataset: Dataset) -> Hashable:
        """How the elements are encoded; None where that cannot be compared."""
        key: list[Hashable] = []
        for tag in self._tags:
            element = dataset.get_item(tag)
            if element is None:
                key.append(None)
            elif isinstance(element, RawDataElement):
                if element.length > _LONGEST:
                    return None
                key.append((element.VR, element.value, element.is_implicit_VR, element.is_little_endian))
            else:
                key.append((element.VR, str(element.value)))
        return tuple(key)


def representatives(datasets: Iterable[Dataset], keywords: Iterable[str]) -> list[Dataset]:
    """One dataset for each way in which these elements are encoded among the datasets."""
    chosen = Alike(lambda dataset: dataset, keywords)
    return list({id(found): found for found in map(chosen, datasets)}.values())
