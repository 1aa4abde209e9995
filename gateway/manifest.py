"""A bundle's `hilum.yaml`: what a model takes, what it puts out, and what it is for.

A MONAI bundle says how to run a network; the manifest beside it says when it may be run and what its output means in
DICOM. Gateway (which series fits?) and workers (how to encode?) read the same file. Documented in docs/manifest.md.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from gateway.domain.errors import BundleInvalid
from gateway.explanation import Calibration, Explanation
from gateway.manifest_fusion import Fusion, Weight
from gateway.manifest_fusion import check_weights as check_shares
from gateway.manifest_input import CodeValue, Input, Inside, Part, Range, Registration

FILE_NAME = "hilum.yaml"


class Uncertainty(Part):
    """How often a model is asked again to see how sure it is."""

    method: Literal[
        "mc_dropout", "tta", "ensemble"
    ]  # dropout left on; images turned over, brightened, with noise; members
    samples: Annotated[int, Field(ge=2, le=100)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    map: bool = True  # write the entropy as a Parametric Map
    high: Annotated[float, Field(gt=0, le=1)] = 0.95  # Dice of samples with the result from which confidence is high
    moderate: Annotated[float, Field(gt=0, le=1)] = 0.85  # and from which it is moderate

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.moderate > self.high:
            raise ValueError("moderate is larger than high")
        return self


class Acceleration(Part):
    """How a network is made faster; what comes of it has to agree with the plain float32 network."""

    engine: Literal["eager", "torchscript", "int8", "compile", "onnx", "tensorrt"] = "eager"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # autocast
    layout: Literal["channels_last", "default"] = "channels_last"  # of 3D convolutions in memory
    agreement: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Least Dice of each segment with the plain result, on every acceptance case; of numbers, 1 minus the largest difference."""


class Training(Part):
    """How a network was trained, as far as it decides how it may be run."""

    patch: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=3)]
    """Lengths of what it saw at once, in voxels of its input; one that normalises by instance is shown no other."""


_Lightness = Annotated[float, Field(ge=0, le=100)]
_Chroma = Annotated[float, Field(ge=-128, le=127)]


class SegmentSpec(Part):
    """One label of a segmentation."""

    number: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, Field(min_length=1, max_length=64)]
    category: CodeValue
    type: CodeValue
    anatomic_region: CodeValue | None = None
    laterality: CodeValue | None = None
    cielab: tuple[_Lightness, _Chroma, _Chroma]  # L*, a*, b*


_VOLUMES, _LENGTHS, _AREAS = ("mL", "ml", "cm3", "mm3"), ("mm", "cm"), ("mm2", "cm2")
UNITS: dict[str, tuple[str, ...]] = {
    "volume": _VOLUMES,
    "longest_diameter": _LENGTHS,
    "perpendicular_diameter": _LENGTHS,
    "surface": _AREAS,
    "count": ("{lesions}", "1"),
}
"""Kind of measurement -> UCUM units it can be given in; of mean and percentile it is that of the images' own values."""


class MeasurementSpec(Part):
    """One quantity to measure; `docs/manifest.md` defines each kind."""

    kind: Literal["volume", "longest_diameter", "perpendicular_diameter", "surface", "count", "mean", "percentile"]
    segment: Annotated[int, Field(ge=1)]
    per: Literal["segment", "lesion"] = "segment"  # of the whole segment, or of each of its `lesions`
    name: CodeValue
    unit: CodeValue  # UCUM
    percentile: Annotated[float, Field(ge=0, le=100)] | None = None  # of `kind: percentile`
    plausible: Range | None = None  # in that unit; outside it the result does not leave

    @model_validator(mode="after")
    def _ucum(self) -> Self:
        known = UNITS.get(self.kind)
        if self.unit.scheme != "UCUM" or (known is not None and self.unit.value not in known):
            units = f"one of UCUM {', '.join(known)}" if known else "of UCUM"
            raise ValueError(f"unit of a {self.kind} must be {units}")
        if (self.kind == "percentile") != (self.percentile is not None):
            raise ValueError("percentile says which, for kind: percentile alone")
        return self


class LesionSpec(Part):
    """Connected parts of a segment, each reported by itself."""

    segment: Annotated[int, Field(ge=1)]
    smallest: Annotated[float, Field(ge=0)] = 0.0  # mm3; a smaller part is no lesion
    most: Annotated[int, Field(ge=1, le=500)] = 20  # the largest so many; the others are counted


class FindingSpec(Part):
    """One finding that a classification gives the probability of, or a class of a detection's boxes."""

    name: CodeValue
    site: CodeValue | None = None
    laterality: CodeValue | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # probability from which it is present


class BoxSpec(Part):
    """How a detection's boxes are written, and which of them count."""

    mode: Literal["xyxy", "xxyy", "ccwh", "xyzxyz", "xxyyzz", "xyxyzz", "cccwhd"] = "xyzxyz"  # as MONAI names them
    coordinates: Literal["index", "ras", "lps"] = "index"  # of `image` as preprocessing left it, or mm in the patient
    whole_numbers: Literal["centres", "edges"] = "centres"  # what an index without a fraction means
    score: Annotated[float, Field(ge=0, le=1)] = 0.5  # a box below it is none, where its class has no threshold
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5  # of two of a class that overlap (IoU) more, the better stays
    most: Annotated[int, Field(ge=1, le=500)] = 50  # the best so many; the others are counted

    @property
    def planar(self) -> bool:
        """Whether boxes lie on one image each."""
        return len(self.mode) == 4


class ValueSpec(Part):
    """One number of a regression."""

    name: CodeValue
    unit: CodeValue  # UCUM
    plausible: Range | None = None  # in that unit; outside it the result does not leave

    @model_validator(mode="after")
    def _ucum(self) -> Self:
        if self.unit.scheme != "UCUM":
            raise ValueError("unit must be of UCUM")
        return self


class Output(Part):
    """What a model puts out."""

    kind: Literal["segmentation", "classification", "regression", "detection"]
    scope: Literal["study", "series", "image"] = (
        "series"  # what one answer is about; `image`: the model sees one at a time
    )
    segments: tuple[SegmentSpec, ...] = ()
    overlapping: bool = False  # `pred` has a channel of 0 and 1 for each segment, and a voxel may belong to several
    measurements: tuple[MeasurementSpec, ...] = ()
    lesions: tuple[LesionSpec, ...] = ()  # segments whose connected parts are reported one by one
    findings: tuple[FindingSpec, ...] = ()  # of a classification, in the order of `pred`: probabilities from 0 to 1;
    # of a detection: its classes, in the order of `label` 0, 1, ...
    boxes: BoxSpec | None = None  # of a detection
    exclusive: bool = False  # of a classification: one finding holds (a softmax), or each may (sigmoids)
    values: tuple[ValueSpec, ...] = ()  # of a regression, in the order of `pred`

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        needed = {
            "segments": ("segmentation",),
            "findings": ("classification", "detection"),
            "values": ("regression",),
            "boxes": ("detection",),
        }
        for key, kinds in needed.items():
            if (self.kind in kinds) != bool(getattr(self, key)):
                raise ValueError(f"{key} are for kind: {' and '.join(kinds)}, which needs them")
        if self.kind != "segmentation" and (self.measurements or self.overlapping or self.lesions):
            raise ValueError("measurements, lesions and overlapping are for kind: segmentation")
        if self.boxes is not None and self.boxes.planar != (self.scope == "image"):
            raise ValueError("boxes on single images (xyxy, xxyy, ccwh) are for scope: image, which needs such")
        if self.boxes is not None and self.boxes.planar and self.boxes.coordinates != "index":
            raise ValueError("boxes on single images have coordinates: index")
        if self.kind == "regression" and self.scope == "image":
            raise ValueError("a regression is about a series or a study")
        if self.kind == "segmentation" and self.scope != "series":
            raise ValueError("scope is for kind: classification, regression and detection")
        return self

    @model_validator(mode="after")
    def _lesions_defined(self) -> Self:
        parted = [lesion.segment for lesion in self.lesions]
        if len(set(parted)) < len(parted) or not set(parted) <= {one.number for one in self.segments}:
            raise ValueError("lesions name a segment twice, or one that is not defined")
        for spec in self.measurements:
            if spec.per == "lesion" and (spec.segment not in parted or spec.kind == "count"):
                raise ValueError("per: lesion is for a segment that has lesions, and not for kind: count")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numbers = [segment.number for segment in self.segments]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError("segments must be numbered 1, 2, 3, ... in order")
        for measurement in self.measurements:
            if measurement.segment not in numbers:
                raise ValueError(f"measurement of segment {measurement.segment}, which is not defined")
        return self


class Weights(Inside):
    """The file that holds the trained parameters."""

    file: Annotated[
        str, Field(min_length=1)
    ]  # relative to the bundle: .safetensors, .onnx, TorchScript, or a state dict read with weights_only=True
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    weight: Weight | None = None  # of a member of an ensemble: of all or of none; they sum to 1

    @model_validator(mode="after")
    def _inside(self) -> Self:
        self.check(self.file, "weights")
        return self


class Ensemble(Part):
    """More weights of the same network, trained apart: all of them answer, and one answer is made of theirs."""

    members: Annotated[tuple[Weights, ...], Field(min_length=1, max_length=31)]  # beside `weights`
    combine: Literal["mean", "vote", "staple"] = "mean"  # of the network's outputs; of the labels

    @property
    def count(self) -> int:
        """Of all members."""
        return 1 + len(self.members)


class Device(Part):
    """Who made the algorithm (IHE AIR: contributing equipment 99IHE 1630)."""

    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    model_name: Annotated[str, Field(min_length=1, max_length=64)]
    uid: Annotated[str, Field(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$", max_length=64)]  # a new one for each build


class Resources(Part):
    """What one job may use."""

    device: Literal["any", "cpu", "cuda", "mps"] = "any"  # what the network needs; `any` takes the best that is there
    memory_mib: Annotated[int, Field(ge=256)] = 8192
    timeout_s: Annotated[float, Field(gt=0)] = 600.0


class Expected(Range):
    """What a measurement must be, in the manifest's unit."""

    segment: Annotated[int, Field(ge=1)]


class AcceptanceCase(Inside):
    """Images in the bundle, and what must come of them on every machine before the model may run there."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    input: Annotated[str, Field(min_length=1)]  # folder of DICOM files, relative to the bundle
    expect: tuple[Expected, ...] = ()
    refused: str = ""  # the code with which the images must be refused instead

    @model_validator(mode="after")
    def _expects_one_thing(self) -> Self:
        self.check(self.input, "input")
        if bool(self.expect) == bool(self.refused):
            raise ValueError("a case says either what to expect, or with which code the images are refused")
        return self


class Manifest(Part):
    """The whole of `hilum.yaml`."""

    manifest: Literal[1]
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=64)]
    title: Annotated[str, Field(min_length=1, max_length=64)]
    intended_use: Annotated[str, Field(min_length=1)]
    license: str
    device: Device
    weights: Weights | None = None  # of a network; a fusion has none
    ensemble: Ensemble | None = None
    fusion: Fusion | None = None  # of other models' answers; results lie on the images of `input`
    inputs: Annotated[
        tuple[Input, ...], Field(max_length=8)
    ] = ()  # several series into one network, the reference first
    input: Input  # the one series, or the first of several
    registration: Registration = Registration()
    output: Output
    resources: Resources = Resources()
    uncertainty: Uncertainty | None = None
    acceleration: Acceleration | None = None
    training: Training | None = None
    on_refusal: Literal["report", "envelope", "hold"] = "envelope"  # of which refusals archive and EHR are told
    calibration: Calibration | None = None
    explanation: Explanation | None = None
    acceptance: tuple[AcceptanceCase, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, data: Any) -> Any:
        """Results lie on the first of several inputs: it is *the* input wherever one is meant."""
        several = data.get("inputs") if isinstance(data, dict) else None
        if not isinstance(several, list | tuple) or not several:
            return data
        if len(several) < 2:
            raise ValueError("`inputs` is a list of two series or more; for one write `input`")
        if data.get("input", several[0]) != several[0]:
            raise ValueError("write `input` for one series or `inputs` for several, not both")
        return {**data, "input": several[0]}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len({item.name for item in self.inputs}) < len(self.inputs):
            raise ValueError("each of `inputs` needs a name of its own")
        if self.input.study != "same":
            raise ValueError("the first input is of the study itself: results lie on its images")
        if self.input.missing != "refuse":
            raise ValueError("nothing can take the place of the first input: results lie on its images")
        return self

    @property
    def series(self) -> tuple[Input, ...]:
        """All inputs, in the order of the network's channels."""
        return self.inputs or (self.input,)

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        if self.uncertainty is not None and self.output.kind != "segmentation":
            raise ValueError("uncertainty is for segmentations")
        if self.acceleration is not None and (self.output.boxes is not None or self.output.scope == "image"):
            raise ValueError(
                "acceleration is for models whose whole answer can be compared, not for boxes or single images"
            )
        if self.uncertainty is not None and self.uncertainty.method == "ensemble" and self.ensemble is None:
            raise ValueError("uncertainty by ensemble needs `ensemble` with the weights of its members")
        if self.ensemble is not None and self.ensemble.combine != "mean" and self.output.kind != "segmentation":
            raise ValueError("numbers are combined by mean: vote and staple are for labels")
        check_shares(
            [each.weight for each in self.weight_files], self.ensemble.combine if self.ensemble else "one network"
        )
        return self

    @model_validator(mode="after")
    def _fused(self) -> Self:
        if (self.weights is None) == (self.fusion is None):
            raise ValueError("a bundle has `weights` of a network, or a `fusion` of other models")
        if self.fusion is None:
            return self
        own = (self.ensemble, self.uncertainty, self.acceleration, self.training, self.calibration, self.explanation)
        if self.inputs or any(own):
            raise ValueError("a fusion has one `input`, and nothing that is about a network of its own")
        output = self.output
        numbers = len(output.findings) + len(output.values)
        plain = output.scope != "image" and not output.overlapping
        self.fusion.check_output(output.kind, numbers, plain=plain)
        return self

    @property
    def samples(self) -> int:
        """How many answers uncertainty is judged by."""
        if self.uncertainty is None:
            return 0
        if self.uncertainty.method == "ensemble" and self.ensemble is not None:
            return self.ensemble.count
        return self.uncertainty.samples

    @property
    def weight_files(self) -> tuple[Weights, ...]:
        """All of them; none of a fusion."""
        return (*((self.weights,) if self.weights else ()), *(self.ensemble.members if self.ensemble else ()))

    @property
    def shares(self) -> tuple[float, ...]:
        """How much each of `weight_files` counts; they sum to 1."""
        count = len(self.weight_files)
        return tuple(1 / count if each.weight is None else each.weight for each in self.weight_files)

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.calibration is not None:
            if self.output.kind != "classification" or self.output.scope == "image":
                raise ValueError("calibration is for classifications of a series")
            Inside.check(self.calibration.file, "calibration")
        if self.explanation is not None:
            if self.output.kind not in ("classification", "segmentation") or self.output.scope == "image":
                raise ValueError("explanation is for classifications of a series and for segmentations")
            if (self.explanation.of or 1) > len(self.output.findings or self.output.segments):
                raise ValueError("explanation is of a finding or segment that is not defined")
        return self


def _check_acceleration(manifest: Manifest, name: str) -> None:
    plain = manifest.acceleration is None or manifest.acceleration.model_copy(update={"agreement": 1}) == Acceleration(
        agreement=1
    )
    if not plain and not any(case.expect for case in manifest.acceptance):
        raise BundleInvalid(f"{name}/{FILE_NAME}: acceleration needs acceptance cases that show its agreement")


def read_manifest(bundle: Path) -> Manifest:
    """Reads and checks the manifest of a bundle directory; raises BundleInvalid with the key that is wrong."""
    file = bundle / FILE_NAME
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleInvalid(f"{bundle.name} is no Hilum bundle: {FILE_NAME} is missing") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a date that is none is a ValueError
        problem = " ".join(str(error).split())[:200]
        raise BundleInvalid(f"{bundle.name}/{FILE_NAME} cannot be read: {problem}") from error
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleInvalid(f"{bundle.name}/{FILE_NAME}: {where}: {first['msg']}") from error
    _check_acceleration(manifest, bundle.name)
    return manifest


def schema() -> dict[str, Any]:
    """The JSON Schema of `hilum.yaml`, for editors and other programs: one series or several, never both."""
    found = Manifest.model_json_schema()
    found["required"] = [key for key in found["required"] if key != "input"]
    images = [{"required": ["input"]}, {"required": ["inputs"]}]
    return found | {"oneOf": images, "anyOf": [{"required": ["weights"]}, {"required": ["fusion"]}]}


def check_weights(bundle: Path, manifest: Manifest) -> None:
    """Proves that the weights are there and are those the manifest pins; raises BundleInvalid."""
    for weights in manifest.weight_files:
        file = bundle / weights.file
        if not file.is_file():
            raise BundleInvalid(
                f"the weights {weights.file} of {manifest.name} are missing: run `hilum models prepare`"
            )
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != weights.sha256:
            raise BundleInvalid(
                f"the weights of {manifest.name} have SHA-256 {found[:12]}..., its manifest pins {weights.sha256[:12]}..."
            )


_BUILTIN = "builtin:"
SIGNATURE = "hilum.sig"
_NOT_THE_MODEL = {"docs", "__pycache__", SIGNATURE}  # parts of a bundle that do not change what it computes


def bundle_digest(bundle: Path) -> str:
    """SHA-256 over the names and contents of all files of a bundle that decide what it computes."""
    state = hashlib.sha256()
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = file.relative_to(bundle)
        if _NOT_THE_MODEL.isdisjoint(name.parts) and not any(part.startswith(".") for part in name.parts):
            state.update(f"{name.as_posix()}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    state.update(chunk)
    return state.hexdigest()


def resolve_bundle(spec: str, base: Path) -> Path:
    """The directory of `builtin:NAME`, or of a path relative to `base`; raises BundleInvalid where there is none."""
    if not spec.startswith(_BUILTIN):
        path = (base / Path(spec).expanduser()).resolve()
        if not path.is_dir():
            raise BundleInvalid(f"no bundle in {path}")
        return path
    name = spec.removeprefix(_BUILTIN).replace("-", "_")
    known = {path.name: path for path in builtin_bundles()}
    if name not in known:
        raise BundleInvalid(f"no bundle {spec!r} ships with Hilum; there are {', '.join(sorted(known)) or 'none'}")
    return known[name]


def builtin_bundles() -> list[Path]:
    """The bundles that ship with Hilum; none where the worker's part is not installed."""
    package = find_spec("workers")  # found, not imported: the gateway loads no model code
    roots = [Path(root) / "bundles" for root in (package.submodule_search_locations or [])] if package else []
    return sorted(file.parent for root in roots for file in root.glob(f"*/{FILE_NAME}"))
