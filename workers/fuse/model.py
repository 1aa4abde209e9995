"""A bundle that has no network: it says which others answer, and how one answer comes of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.bundle.files import bundle_digest, read_manifest
from gateway.bundle.fusion import Fusion
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid
from gateway.domain.messages import ModelIdentity
from workers.infer.model import identity_of
from workers.load.envelope import Fingerprint, read_fingerprint


@dataclass(frozen=True, kw_only=True)
class FusionModel:
    """What is known of a fusion before its parts are opened, one after another, for each job."""

    manifest: Manifest
    identity: ModelIdentity
    reference: Fingerprint | None = None  # of the images that results lie on

    @property
    def fusion(self) -> Fusion:
        """Its parts and how they are combined; raises BundleInvalid for a bundle that is none."""
        if self.manifest.fusion is None:
            raise BundleInvalid(f"{self.manifest.name} is no fusion")
        return self.manifest.fusion


def open_fusion(bundle: Path) -> FusionModel:
    """Reads the bundle of a fusion; raises BundleInvalid."""
    manifest = read_manifest(bundle)
    envelope = manifest.input.envelope
    return FusionModel(
        manifest=manifest,
        identity=identity_of(manifest, bundle_digest(bundle)),
        reference=None if envelope is None else read_fingerprint(bundle / envelope.fingerprint),
    )
