"""What a pickle would call, read from its opcodes without running it."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO

_HARMLESS = {"torch", "collections", "__torch__"}
_NEVER = {"torch.load", "torch.hub", "torch.jit", "torch.utils", "torch.multiprocessing", "torch.serialization"}


def dangers(data: bytes) -> Iterator[str]:
    """Names that reading a weight file as a pickle would import and could call, other than those of tensors."""
    for pickled in _pickles(data):
        for name in dict.fromkeys(_globals(pickled)):
            root = name.partition(".")[0]
            if root not in _HARMLESS or any(name.startswith(never) for never in _NEVER):
                yield name


def _pickles(data: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    yield archive.read(name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        yield data


def _globals(pickled: bytes) -> Iterator[str]:
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                yield ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
    except (ValueError, IndexError, AttributeError, UnicodeDecodeError):
        return  # no pickle, or the end of one; whoever loads it says what is wrong
