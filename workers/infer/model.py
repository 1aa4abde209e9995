"""A MONAI bundle, opened: network, transforms and inferer as its own configuration names them."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle.workflows import ConfigWorkflow
from monai.inferers.inferer import Inferer, SimpleInferer
from monai.transforms.compose import Compose
from monai.transforms.io.array import LoadImage, SaveImage
from monai.transforms.io.dictionary import LoadImaged, SaveImaged
from torch import nn

from gateway.bundle.files import bundle_digest, read_manifest
from gateway.bundle.manifest import Manifest
from gateway.bundle.network import Acceleration, Weights
from gateway.domain.errors import BundleInvalid, HilumError
from gateway.domain.messages import ModelIdentity
from workers.infer import scan
from workers.infer.accelerate import accelerated
from workers.infer.calibration import Calibration, read_calibration
from workers.infer.dropout import has_dropout
from workers.infer.weights import MeanNetwork, with_weights
from workers.load.envelope import Fingerprint, read_fingerprint

CONFIG = Path("configs/inference.json")
METADATA = Path("configs/metadata.json")

logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # warns of every bundle opened as it is here

Transform = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is needed to run one bundle again and again."""

    manifest: Manifest
    identity: ModelIdentity
    network: nn.Module  # in evaluation mode, weights loaded, on `device`
    preprocess: Transform  # {"image": MetaTensor} -> the same, for the network
    inferer: Inferer
    postprocess: Transform  # {"image", "pred"} -> `pred` as labels on the grid the image came on
    device: torch.device
    reference: Fingerprint | None = None  # of the images it was made for
    plain: Model | None = None  # as it was before it was made faster
    notes: list[str] = field(default_factory=list)  # what the last run had to do without, for want of memory
    members: tuple[nn.Module, ...] = ()  # of an ensemble; `network` is their mean
    calibration: Calibration | None = None  # of a classification

    def alone(self) -> tuple[Model, ...]:
        """Each member of an ensemble as a model of its own."""
        return tuple(replace(self, network=member, members=()) for member in self.members)


def open_model(bundle: Path, *, calibrated: bool = True) -> Model:
    """Reads a bundle, checks its weights against the manifest and only then loads them.

    Not ``calibrated`` is for making the calibration.

    Raises BundleInvalid where the manifest, the weights or the configuration are not right. The configuration and
    scripts of a bundle are programs: this must be called inside the sandbox.
    """
    manifest = read_manifest(bundle)
    if manifest.fusion is not None:
        raise BundleInvalid(
            f"{bundle.name} is a fusion of other models, and has no network of its own", code="no_network"
        )
    scan.check(bundle)
    weights = [_weights(bundle, each) for each in manifest.weight_files]
    digest = bundle_digest(bundle)
    try:
        return _open(bundle, manifest, digest, weights, calibrated=calibrated)
    except (HilumError, MemoryError):
        raise
    except Exception as error:  # configuration and scripts may raise anything
        raise BundleInvalid(f"{bundle.name} cannot be opened: {_sentence(error)}") from error


def _weights(bundle: Path, weights: Weights) -> bytes:
    try:
        data = (bundle / weights.file).read_bytes()
    except OSError:
        raise BundleInvalid(f"{bundle.name} has no weights: run `hilum models prepare`", code="no_weights") from None
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        raise BundleInvalid(
            f"the weights of {bundle.name} are not the ones its manifest pins: "
            f"SHA-256 {found[:12]}... instead of {weights.sha256[:12]}...",
            code="wrong_weights",
        )
    return data


def _open(bundle: Path, manifest: Manifest, digest: str, weights: list[bytes], *, calibrated: bool) -> Model:
    _make_importable(bundle)
    workflow = ConfigWorkflow(
        config_file=str(bundle / CONFIG),
        meta_file=str(bundle / METADATA),
        logging_file=False,  # a logging configuration is a program too, and ours stays as it is
        workflow_type="infer",
        bundle_root=str(bundle),
        **({} if manifest.resources.device == "any" else {"device": f"$torch.device('{manifest.resources.device}')"}),
    )
    workflow.initialize()
    device = torch.device(workflow.device)
    network, members = _network(workflow, manifest, weights, device)
    _check_dropout(network, manifest)
    _check_explained(network, workflow.inferer, manifest)
    network = network.to(device).eval()
    if manifest.acceleration is None or manifest.acceleration.layout == "channels_last":
        network = _channels_last(network)
    plain = Model(
        manifest=manifest,
        identity=identity_of(manifest, digest),
        network=network,
        members=members,
        preprocess=_without_files(workflow.preprocessing),
        inferer=workflow.inferer,
        postprocess=_without_files(workflow.postprocessing),
        device=device,
        reference=_reference(bundle, manifest),
        calibration=_calibration(bundle, manifest) if calibrated else None,
    )
    return plain if manifest.acceleration is None else _faster(plain, manifest.acceleration)


def _faster(plain: Model, wanted: Acceleration) -> Model:
    """Members that vote are each made faster; of a mean it is the mean."""
    if plain.manifest.ensemble is None or plain.manifest.ensemble.combine == "mean":
        return replace(plain, network=accelerated(plain.network, wanted, plain.device), plain=plain)
    members = tuple(accelerated(member, wanted, plain.device) for member in plain.members)
    return replace(plain, members=members, plain=plain)


def identity_of(manifest: Manifest, digest: str) -> ModelIdentity:
    """Which build it is."""
    return ModelIdentity(
        name=manifest.name,
        version=manifest.version,
        digest=digest,
        device_uid=manifest.device.uid,
        manufacturer=manifest.device.manufacturer,
    )


def _reference(bundle: Path, manifest: Manifest) -> Fingerprint | None:
    envelope = manifest.input.envelope
    return None if envelope is None else read_fingerprint(bundle / envelope.fingerprint)


def _calibration(bundle: Path, manifest: Manifest) -> Calibration | None:
    asked = manifest.calibration
    return None if asked is None else read_calibration(bundle / asked.file, manifest)


def _check_dropout(network: nn.Module, manifest: Manifest) -> None:
    if manifest.uncertainty and manifest.uncertainty.method == "mc_dropout" and not has_dropout(network):
        raise BundleInvalid(
            f"{manifest.name}: uncertainty by mc_dropout, but its network has no dropout", code="no_dropout"
        )


def _check_explained(network: nn.Module, inferer: Inferer, manifest: Manifest) -> None:
    asked = manifest.explanation
    if asked is None:
        return
    if asked.layer and asked.layer not in dict(network.named_modules()):
        raise BundleInvalid(
            f"{manifest.name}: explanation by {asked.method}, but its network has no layer {asked.layer}",
            code="no_layer",
        )
    if not isinstance(inferer, SimpleInferer):
        raise BundleInvalid(
            f"{manifest.name}: explanation runs the network on the whole image, so its inferer must be SimpleInferer",
            code="no_simple_inferer",
        )


def _make_importable(bundle: Path) -> None:
    """Puts the bundle first on the import path, and forgets modules of the same names from another bundle."""
    root = str(bundle.resolve())
    own = {path.stem for path in bundle.iterdir() if path.is_dir() or path.suffix == ".py"}
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in own and not origin.startswith(root + os.sep):
            del sys.modules[name]
    if sys.path[0] != root:
        sys.path.insert(0, root)


def _network(
    workflow: Any, manifest: Manifest, weights: list[bytes], device: torch.device
) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """The network with its weights, and its members where it is an ensemble's mean."""
    defined = getattr(workflow, "network_def", None)
    members = tuple(
        with_weights(copy.deepcopy(defined), data, each.file).to(device).eval()
        for each, data in zip(manifest.weight_files, weights, strict=True)
    )
    if len(members) == 1:
        return members[0], ()
    weighted = any(each.weight is not None for each in manifest.weight_files)
    return MeanNetwork(members, manifest.shares if weighted else ()).eval(), members


def _channels_last(network: nn.Module) -> nn.Module:
    """The memory layout in which 3D convolutions are several times faster on a CPU."""
    for parameter in network.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.to(memory_format=torch.channels_last_3d)
    return network


def _without_files(transforms: Any) -> Compose:
    """The volume is in memory already, and labels are written as DICOM: transforms for files are left out.

    The transform objects stay the same ones, since `Invertd` undoes exactly those that were applied.
    """
    listed: list[Any] = [transforms]
    if isinstance(transforms, Compose):
        listed = transforms.flatten().transforms  # type: ignore[no-untyped-call]
    files = (LoadImage, LoadImaged, SaveImage, SaveImaged)
    return Compose([one for one in listed if one is not None and not isinstance(one, files)])


def _sentence(error: BaseException) -> str:
    """Type and first line of an exception, and of the one behind it, where MONAI wrapped one."""
    told = [error, error.__cause__] if error.__cause__ else [error]
    lines = (f"{type(one).__name__}: {(str(one).splitlines() or [''])[0]}"[:200] for one in told)
    return ", caused by ".join(lines)
