"""What is installed: the pins, the lock, the package's metadata and the imports of prediction agree."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins(file: str) -> dict[str, set[str]]:
    """The versions that a requirements file pins, by package; the lock may have one for each version of Python."""
    found: dict[str, set[str]] = {}
    for line in re.findall(r"^[A-Za-z0-9][^\\\n]*", (ROOT / file).read_text(), flags=re.MULTILINE):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        found.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return found


def ranges_of(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(parsed.name): parsed for parsed in map(Requirement, requirements)}


def package_ranges() -> dict[str, Requirement]:
    """What the package asks for in any case."""
    return ranges_of(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def optional_ranges() -> dict[str, Requirement]:
    """What its extras ask for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return ranges_of([requirement for extra in extras.values() for requirement in extra])


def needed_by(package: str) -> set[str]:
    """The package and all that it asks for, in turn, without extras."""
    found, waiting = set[str](), [package]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            asked = [Requirement(text) for text in metadata.requires(name) or []]
            waiting += [each.name for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def test_the_package_asks_for_what_requirements_txt_pins_and_torch() -> None:
    pinned, ranges = pins("requirements.txt"), package_ranges() | optional_ranges()
    # The container reads OME-Zarr, ND2, CZI and LIF, and nothing is installed there that is not named. What else nd2
    # and pylibCZIrw ask for, as Dask, is not imported where files are read.
    of_readers = needed_by("zarr") | needed_by("liffile") | {"nd2", "pylibczirw", "validators", "xmltodict"}
    assert set(package_ranges()) | of_readers == {*pinned, "torch"}
    for name in pinned.keys() & ranges.keys():
        assert all(ranges[name].specifier.contains(version) for version in pinned[name]), name


def test_torch_is_the_same_release_everywhere() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    (installed,) = re.findall(r"torch==(\S+)", makefile)
    (base,) = re.findall(r"pytorch/pytorch:([\d.]+)-", dockerfile)
    (checked,) = re.findall(r"startswith\('([\d.]+)'\)", dockerfile)
    assert installed == base == checked
    assert package_ranges()["torch"].specifier.contains(installed)


@pytest.mark.parametrize(
    ("lock", "files"),
    [
        ("requirements.lock", ("requirements.txt", "requirements-dev.txt")),
        ("requirements-napari.lock", ("requirements.txt", "requirements-napari.txt")),
    ],
)
def test_the_lock_holds_every_requirement_and_each_with_hashes(lock: str, files: tuple[str, ...]) -> None:
    locked = pins(lock)
    for file in files:
        for name, versions in pins(file).items():
            assert versions <= locked[name], f"{name}: run make lock"
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == sum(map(len, locked.values()))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)
    assert not {"torch", "torchvision"} & locked.keys()


def test_what_both_locks_hold_is_of_the_same_version() -> None:
    locked, napari = pins("requirements.lock"), pins("requirements-napari.lock")
    shared = locked.keys() & napari.keys()
    assert len(shared) > 20
    assert {name: locked[name] for name in shared} == {name: napari[name] for name in shared}


def test_the_package_imports_what_it_and_its_extras_require_and_nothing_else() -> None:
    imported: set[str] = set()
    for path in (ROOT / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module or "")
    packages = {canonicalize_name(name.partition(".")[0]) for name in imported} - set(sys.stdlib_module_names)
    used_by_tifffile, parts_of_napari, parts_of_zarr = {"imagecodecs"}, {"magicgui"}, {"numcodecs"}
    required = package_ranges().keys() | optional_ranges().keys()
    assert (packages | used_by_tifffile) - parts_of_napari - parts_of_zarr == required


def test_only_napari_imports_its_widget() -> None:
    for path in (ROOT / "model").rglob("*.py"):
        assert path.name == "napari_widget.py" or not re.search(
            r"napari_widget|import napari|from napari", path.read_text()
        )
