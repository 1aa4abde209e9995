"""What a bundle's configuration and scripts would do, read from their syntax without running any of it.

A MONAI configuration is a program: text that begins with `$` is evaluated, and `_target_` imports and calls whatever it
names (GHSA-873f-pvrv-4x83). Neither may reach past numbers and files of the bundle: a finding refuses the bundle. The
scan is a tripwire that names the place; what holds is the sandbox (`workers.sandbox`), which scripts rely on too: what
they import is reported, not judged.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.domain.errors import BundleInvalid
from workers.infer.pickles import dangers
from workers.infer.weights import PICKLED

_LIBRARIES = {"monai", "torch", "torchvision", "numpy", "scipy", "skimage", "safetensors", "ignite", "nibabel"}
_STANDARD = {"collections", "copy", "functools", "glob", "itertools", "json", "logging", "math", "operator", "os"}
_ALLOWED = _LIBRARIES | _STANDARD | {"pathlib", "random", "re", "time", "typing", "warnings"}

_OURS = {f"workers.infer.transforms.{name}" for name in ("BiasCorrectiond", "Denoised")}

_FORBIDDEN_NAMES = {
    "__import__",
    "eval",
    "exec",
    "compile",
    "open",
    "getattr",
    "setattr",
    "delattr",
    "globals",
    "locals",
}
_FORBIDDEN_NAMES |= {"vars", "input", "breakpoint", "__builtins__", "memoryview"}
_FORBIDDEN_PLACES = (
    "torch.load",
    "torch.hub",
    "torch.jit.load",
    "torch.utils.cpp_extension",
    "torch.multiprocessing",
    "torch.distributed",
    "torch.ops.load_library",
    "torch.classes.load_library",
    "numpy.load",
    "numpy.ctypeslib",
    "monai.apps",
    "monai.auto3dseg",
    "monai.bundle",
    "monai.fl",
    "monai.utils.module",
    "monai.utils.optional_import",
    "monai.utils.run_cmd",
    "monai.utils.dist",
)
_REACHED = {
    "subprocess",
    "os",
    "sys",
    "socket",
    "ctypes",
    "shutil",
    "importlib",
    "builtins",
    "pickle",
    "posix",
    "tempfile",
}
"""Modules that libraries import: `numpy.f2py.subprocess` is `subprocess`."""
_LOADERS = {
    "load",
    "loads",
    "_load",
    "load_library",
    "_load_from_bytes",
    "load_url",
    "load_state_dict_from_url",
    "unsafe_load",
}
_ALLOWED_PLACES = tuple(f"monai.apps.detection.{part}" for part in ("networks", "transforms", "utils"))
_OS = ("os.path", "os.sep", "os.cpu_count", "os.environ.get")
_RISKY_IMPORTS = {"subprocess", "socket", "ctypes", "multiprocessing", "pickle", "shutil", "requests", "urllib", "http"}
_RISKY_IMPORTS |= {
    "ftplib",
    "importlib",
    "builtins",
    "pty",
    "signal",
    "marshal",
    "dill",
    "cloudpickle",
    "smtplib",
    "ssl",
}
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
_REFERENCE = re.compile(r"@(?:::|#)*\w+(?:(?:::|#)\w*)*")  # MONAI's; a matrix product has blanks around it
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Finding:
    """One thing that a bundle does."""

    place: str  # file, and key or line
    what: str
    refuse: bool  # or only to be known

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def check(bundle: Path) -> None:
    """Raises BundleInvalid with the first thing that a configuration must not do."""
    for finding in scan(bundle):
        if finding.refuse:
            raise BundleInvalid(f"{bundle.name} is refused: {finding}", code="hostile_configuration")


def scan(bundle: Path) -> Iterator[Finding]:
    """Everything worth knowing about a bundle's configurations and scripts; raises BundleInvalid for unreadable ones."""
    own = {path.stem for path in bundle.iterdir() if path.is_dir() or path.suffix == ".py"}
    own -= {*sys.stdlib_module_names, *_LIBRARIES}  # a bundle does not become innocent by its folder's name
    for file in sorted((bundle / "configs").rglob("*")):
        place = file.relative_to(bundle).as_posix()
        if file.suffix in (".json", ".yaml", ".yml"):
            yield from _configuration(_parsed(bundle, file, place), place, own)
        elif file.suffix == ".conf":
            yield Finding(place, "a logging configuration, which is not read", refuse=False)
    for file in sorted(path for path in bundle.rglob("*") if path.suffix.lower() in (*PICKLED, *_PICKLES)):
        yield from _pickle(file, file.relative_to(bundle).as_posix())
    for file in sorted(bundle.rglob("*.py")):
        yield from _script(file, file.relative_to(bundle).as_posix())


def _parsed(bundle: Path, file: Path, place: str) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BundleInvalid(f"{bundle.name} cannot be opened: {place}: {str(error).splitlines()[0]}") from error


def _configuration(node: Any, place: str, own: set[str]) -> Iterator[Finding]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_" and isinstance(value, str):
                yield from _target(value.strip(), f"{place}: {key}", own)
            yield from _configuration(value, f"{place}: {key}", own)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _configuration(value, f"{place}.{number}", own)
    elif isinstance(node, str) and node.lstrip().startswith("$"):
        yield from _expression(node.lstrip()[1:], place, own)
    elif isinstance(node, str) and node.startswith("%") and re.search(r"[./]", node):
        yield Finding(place, f"takes {node[:60]!r} from another file, which is not scanned", refuse=True)


def _target(name: str, place: str, own: set[str]) -> Iterator[Finding]:
    name = name.removeprefix("$").strip()  # an expression that is a name is that name; a reference could be any text
    root, dotted, _ = name.partition(".")
    if not _NAME.fullmatch(name):
        yield Finding(place, f"{name[:60]!r} is no name", refuse=True)
    elif (
        dotted
        and name not in _OURS
        and (root not in _LIBRARIES | own | {"collections", "functools", "math", "pathlib"} or _is_forbidden(name))
    ):
        yield Finding(place, f"{name[:60]!r} is not among what a configuration may call", refuse=True)


def _is_forbidden(name: str) -> bool:
    if "optional_import" in name.split("."):  # wherever it is imported to
        return True
    if any(name == place or name.startswith(f"{place}.") for place in _FORBIDDEN_PLACES):
        return not name.startswith(_ALLOWED_PLACES)
    first, *parts = name.split(".")
    if _REACHED.intersection(parts) or (first in ("torch", "numpy", "np") and parts and parts[-1] in _LOADERS):
        return True
    if name.startswith("os."):
        return not any(name == place or name.startswith(f"{place}.") for place in _OS)
    return "__" in name


def _expression(text: str, place: str, own: set[str]) -> Iterator[Finding]:
    try:
        tree = ast.parse(_REFERENCE.sub("_reference", text).strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield Finding(place, f"{text[:60]!r} is not Python", refuse=True)
        return
    for node in ast.walk(tree):
        if (problem := _problem(node, own)) is not None:
            yield Finding(place, f"{text[:60]!r} {problem}", refuse=True)


def _problem(node: ast.AST, own: set[str]) -> str | None:
    if isinstance(node, ast.Name) and node.id in _FORBIDDEN_NAMES:
        return f"uses {node.id}"
    if isinstance(node, ast.Attribute):
        name = _dotted(node)
        if node.attr.startswith("__") or _is_forbidden(name):
            return f"uses {name}"
        if node.attr in (
            "system",
            "popen",
            "modules",
            "f_globals",
            "gi_frame",
            "cr_frame",
            "tofile",
            "unlink",
            "write_text",
        ):
            return f"uses {name}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"__\w+__", node.value):
        return f"holds the text {node.value[:30]!r}"
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _import(node, own)
    return None


def _import(node: ast.Import | ast.ImportFrom, own: set[str]) -> str | None:
    names = [alias.name for alias in node.names]
    full = [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else names
    renamed = [alias.name for alias in node.names if alias.name == "os" and alias.asname]
    for name in full:
        root = name.partition(".")[0]
        if root not in _ALLOWED | own or (name != "os" and _is_forbidden(name)) or renamed:
            return f"imports {name}"
    return None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "()"


def _pickle(file: Path, place: str) -> Iterator[Finding]:
    """A weight file that would call something is refused; a pickle that is no weight file is never read, and reported."""
    try:
        found = [name for name in dangers(file.read_bytes())]
    except OSError as error:
        raise BundleInvalid(f"{place} cannot be read: {error.strerror}") from error
    weights = file.suffix.lower() in PICKLED
    for name in found:
        yield Finding(place, f"a pickle that calls {name[:60]}", refuse=weights)
    if not weights and not found:
        yield Finding(place, "a pickle, which is not read", refuse=False)


def _script(file: Path, place: str) -> Iterator[Finding]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        raise BundleInvalid(f"{place} is not Python: {str(error).splitlines()[0]}") from error
    for node in ast.walk(tree):
        for name in _imported(node):
            if name.partition(".")[0] in _RISKY_IMPORTS and name not in ("importlib.metadata", "importlib.resources"):
                yield Finding(f"{place}:{getattr(node, 'lineno', 0)}", f"imports {name}", refuse=False)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("eval", "exec", "__import__")
        ):
            yield Finding(f"{place}:{node.lineno}", f"calls {node.func.id}", refuse=False)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
