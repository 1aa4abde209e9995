"""The manifest of a fusion, and what its parts must be to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.bootstrap import make_models
from gateway.bundle.files import read_manifest
from gateway.bundle.fused import check_parts, find_parts
from gateway.domain.errors import BundleInvalid, ConfigurationError
from gateway.settings import read_settings
from tests.support.bundles import write_bundle
from tests.support.classifier import write_classifier
from tests.support.fusions import SEGMENTATION, write_fusion

FINDINGS: dict[str, Any] = {
    "kind": "classification",
    "findings": [{"name": {"value": "bright", "scheme": "99TEST", "meaning": "Bright"}}],
}
RULE = 'parts.a.findings["Bright"] > 0.5'


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """Two segmentations and a classification."""
    return {
        "one": write_bundle(tmp_path / "one", name="one"),
        "other": write_bundle(tmp_path / "other", "empty", name="other"),
        "says": write_classifier(tmp_path / "says", exclusive=False, name="says"),
    }


def fused(tmp_path: Path, paths: dict[str, Path], a: str, b: str, *args: Any, **keys: Any) -> Path:
    of_a, of_b = keys.pop("of_a", {}), keys.pop("of_b", {})
    return write_fusion(tmp_path / "fusion", {"a": (paths[a], of_a), "b": (paths[b], of_b)}, *args, **keys)


def checked(bundle: Path, paths: dict[str, Path]) -> None:
    manifest = read_manifest(bundle)
    parts = find_parts(manifest, paths.values())
    check_parts(manifest, {name: read_manifest(path) for name, path in parts.items()})


def test_fusions_that_can_be_run(tmp_path: Path, paths: dict[str, Path]) -> None:
    """Each way to combine, with weights where they mean something."""
    weights: dict[str, Any] = {"of_a": {"weight": 0.7}, "of_b": {"weight": 0.3}}
    for combine in ("mean", "vote"):
        checked(fused(tmp_path, paths, "one", "other", combine=combine, **weights), paths)
    checked(fused(tmp_path, paths, "one", "other", combine="staple"), paths)
    rule = 'parts.a.values["Bright Volume"] > 10.0 ? "a" : "b"'
    checked(fused(tmp_path, paths, "one", "other", combine="rules", rules=[rule]), paths)
    checked(fused(tmp_path, paths, "says", "one", FINDINGS, combine="rules", rules=[RULE]), paths)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"of_a": {"weight": 0.7}, "of_b": {"weight": 0.4}}, "sum to 1.1, not to 1"),
        ({"of_a": {"weight": 0.7}}, "for all or for none"),
        ({"combine": "staple", "of_a": {"weight": 0.7}, "of_b": {"weight": 0.3}}, "staple finds its own"),
        ({"combine": "rules"}, "`rules` are for combine: rules"),
        ({"combine": "rules", "rules": ["true", "true"]}, "1 rules are needed"),
        ({"rules": ["true"]}, "`rules` are for combine: rules"),
        ({"combine": "rules", "rules": ['"a"'], "agreement": 0.5}, "not for combine: rules"),
        ({"of_a": {"missing": "zeros"}}, "refuse"),
        ({"of_a": {"name": "b"}}, "a name of its own"),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, paths: dict[str, Path], keys: dict[str, Any], problem: str) -> None:
    """With what is wrong."""
    with pytest.raises(BundleInvalid, match=problem):
        read_manifest(fused(tmp_path, paths, "one", "other", **keys))


def test_a_fusion_has_no_network(tmp_path: Path, paths: dict[str, Path]) -> None:
    """It has either weights or parts; numbers have no votes."""
    bundle = fused(tmp_path, paths, "one", "other")
    whole = yaml.safe_load((bundle / "hilum.yaml").read_text())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"weights": {"file": "w", "sha256": "0" * 64}}, "or a `fusion`"),
        ({"fusion": None}, "or a `fusion`"),
        ({"uncertainty": {"method": "tta"}}, "a network of its own"),
        ({"output": FINDINGS, "fusion": whole["fusion"] | {"combine": "vote"}}, "vote and staple are for labels"),
        ({"output": SEGMENTATION | {"overlapping": True}}, "without overlaps"),
    ]
    for change, problem in wrong:
        (bundle / "hilum.yaml").write_text(yaml.safe_dump(whole | change))
        with pytest.raises(BundleInvalid, match=problem):
            read_manifest(bundle)


@pytest.mark.parametrize(
    ("a", "b", "keys", "problem"),
    [
        ("one", "says", {}, "gives a classification, not a segmentation"),
        ("one", "other", {"of_a": {"segments": {1: [2]}}}, "not defined"),
        ("one", "other", {"of_a": {"segments": {2: [1]}}}, "not defined"),
        ("one", "other", {"of_a": {"segments": {1: []}}}, "no segment of the codes of Brain"),
        ("one", "other", {"memory_mib": 1024}, "takes 2048 MiB, and resources.memory_mib allows 1024"),
        ("says", "says", {"output": FINDINGS | {"exclusive": True}}, "each part must give all, and no other"),
    ],
)
def test_parts_that_do_not_go_together(
    tmp_path: Path, paths: dict[str, Path], a: str, b: str, keys: dict[str, Any], problem: str
) -> None:
    """Told before any job."""
    with pytest.raises(BundleInvalid, match=problem):
        checked(fused(tmp_path, paths, a, b, **keys), paths)


@pytest.mark.parametrize(
    ("rule", "keys", "problem"),
    [
        ("parts.a.findings[", {}, "not a CEL expression"),
        ('parts.c.findings["Bright"] > 0.5', {}, "unknown name 'parts.c'"),
        ("colour > 0.5", {}, "unknown name 'colour'"),
        ('false && parts.a.findings["Bight"] > 0.5', {}, "has no 'Bight'; there are 'Bright', 'Dark', 'Other'"),
        ('parts.a.boxes["Bright"] > 0.5', {}, "has findings and values, not 'boxes'"),
        ('parts.a.findings["Bright"] + 0.8', {}, "no probability from 0 to 1"),
        ('parts.b.values["Bright Volume"] > 1.0', {"of_b": {"missing": "leave_out"}}, r"ask `has\(parts.b\)`"),
    ],
)
def test_rules_that_are_refused(
    tmp_path: Path, paths: dict[str, Path], rule: str, keys: dict[str, Any], problem: str
) -> None:
    """When the bundle is read, with its place."""
    bundle = fused(tmp_path, paths, "says", "one", FINDINGS, combine="rules", rules=[rule], **keys)
    with pytest.raises(BundleInvalid, match=problem):
        checked(bundle, paths)


def test_a_site_needs_the_pinned_parts(tmp_path: Path, paths: dict[str, Path]) -> None:
    """Each part is a model of the site; another build of it is none, and a fusion is no part."""
    bundle = fused(tmp_path, paths, "one", "other", combine="vote")

    def models(*names: str) -> None:
        known = {name: {"bundle": str(path)} for name, path in ({"both": bundle} | paths).items() if name in names}
        (tmp_path / "site.yaml").write_text(yaml.safe_dump({"data_dir": "data", "models": known}))
        made = make_models(read_settings(tmp_path / "site.yaml"))
        assert [part.run for part in next(one for name, one in made.items() if name == "both").parts] == [
            "one",
            "other",
        ]

    models("both", "one", "other")
    with pytest.raises(
        ConfigurationError, match=r"models\.both: both: its part b is other, which is not among the models"
    ):
        models("both", "one")
    (paths["other"] / "scripts/more.py").write_text("")
    with pytest.raises(ConfigurationError, match="its part b is another build of other than there is"):
        models("both", "one", "other")
    nested = write_fusion(tmp_path / "nested", {"a": (paths["one"], {}), "b": (bundle, {})}, name="nested")
    with pytest.raises(BundleInvalid, match="a fusion is no part of another"):
        checked(nested, {"one": paths["one"], "both": bundle})
