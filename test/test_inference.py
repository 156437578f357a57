import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import TINY_METADATA, UNIFIED, write_resources

from model.command_line import main
from model.images import inspect, read_image, write_plane
from model.labels import Organelle
from model.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
FAST = ["--device", "cpu", "--overlap", "0", "--rotations", "1"]
FOLDERS = [f"{organelle}-fluorescence-ome-tiff" for organelle in Organelle]


def write_image(path: Path, channel: str = "BF", pixel_size_um: tuple[float, float] | None = (0.1, 0.1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 33), dtype=np.uint16)
    write_plane(path, pixels, channel=channel, pixel_size_um=pixel_size_um)
    return path


class Run:
    """One call of the command: exit code, lines of stdout and stderr, written files."""

    def __init__(self, folder: Path, resources: Path, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        output = folder / "out"
        given = ["--input", str(folder / "in"), "--output", str(output), "--resources", str(resources)]
        self.code = main([*given, *FAST, *options])
        captured = capsys.readouterr()
        self.stdout, self.stderr = captured.out.splitlines(), captured.err.splitlines()
        self.written = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file())


def expected(*names: str) -> list[str]:
    return sorted(f"images/{folder}/{name}" for folder in FOLDERS for name in names)


def test_a_folder_of_images(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a.ome.tiff")
    write_image(tmp_path / "in" / "b with blanks µ.tif", channel="DIC")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    run = Run(tmp_path, resources, capsys)
    assert (run.code, run.stderr) == (0, [])
    assert run.written == expected("a.tiff", "b with blanks µ.tiff")
    assert "pix2pix-bf: trained on nothing at all" in run.stdout
    assert sum(bool(re.match(r"\[[12]/2\] .* 40 x 33 px, (BF|DIC), \d+\.\d s", line)) for line in run.stdout) == 2
    assert re.match(r"2 images predicted, in \d+\.\d s\. Output: .*out", run.stdout[-1])
    actin = tmp_path / "out/images/actin-fluorescence-ome-tiff/b with blanks µ.tiff"
    assert read_image(actin).pixels.shape == (40, 33)
    assert read_image(actin).info.pixel_size_um == pytest.approx((0.1, 0.1))
    assert inspect(actin).provenance["checkpoint"] == "unified"
    assert tifffile.imread(actin).dtype == np.uint16


def test_presets_and_what_overrides_them(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a.tiff")
    given = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resources", str(resources)]
    made = {}
    for options in (
        "--preset paper",
        "--preset fast",
        "--preset multiscale",
        "--preset fast --rotations 1 --overlap 0.5",
        "--precision fp16",
    ):
        assert main([*given, "--device", "cpu", *options.split()]) == 0
        origin = inspect(tmp_path / "out/images/nucleus-fluorescence-ome-tiff/a.tiff").provenance
        made[options] = tuple(origin[key] for key in ("window", "overlap", "rotations", "scales"))
    assert made == {
        "--preset paper": ("32", "0.8", "4", "1"),
        "--preset fast": ("1024", "0.25", "2", "1"),
        "--preset multiscale": ("1024", "0.25", "2", "1, 0.7, 1.4"),
        "--preset fast --rotations 1 --overlap 0.5": ("1024", "0.5", "1", "1"),
        "--precision fp16": ("32", "0.8", "4", "1"),
    }
    assert origin["precision"] == "fp16"
    assert not any("already" in line for line in capsys.readouterr().out.splitlines())


def test_the_same_bytes_twice(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a.tiff")
    runs = []
    for _ in range(2):
        Run(tmp_path, resources, capsys)
        runs.append([path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.tiff"))])
    assert runs[0] == runs[1] and len(runs[0]) == 4


def platform_input(folder: Path, original_name: str) -> None:
    slug = "organelles-transmitted-light-ome-tiff"
    write_image(folder / "in/images" / slug / "0b5ce2a6.tiff", channel="transmitted")
    entry = {
        "socket": {"slug": slug, "relative_path": f"images/{slug}"},
        "image": {"pk": "0b5ce2a6", "name": original_name},
    }
    (folder / "in/inputs.json").write_text(json.dumps([entry]))


def test_on_the_platform_the_name_at_upload_tells_the_modality(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform_input(tmp_path, "image_1_PC_z0.ome.tiff")
    run = Run(tmp_path, resources, capsys, "--strict")
    assert (run.code, run.stderr) == (0, [])
    assert run.written == expected("0b5ce2a6.tiff")
    assert any("0b5ce2a6.tiff (image_1_PC_z0.ome.tiff): 40 x 33 px, PC" in line for line in run.stdout)


def modalities(folder: Path) -> dict[str, str]:
    """What each image was predicted as, by the provenance of its output."""
    outputs = sorted((folder / "out/images/nucleus-fluorescence-ome-tiff").rglob("*.tiff"))
    return {path.stem: inspect(path).provenance["modality"] for path in outputs}


def test_the_file_comes_before_the_option_with_a_warning_that_names_both(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in" / "a.tiff", channel="DIC")
    write_image(tmp_path / "in" / "b.tiff", channel="transmitted")
    write_image(tmp_path / "in" / "c_BF_.tiff", channel="transmitted")
    write_image(tmp_path / "in" / "d.tiff", channel="PC")
    run = Run(tmp_path, resources, capsys, "--modality", "PC")
    assert (run.code, modalities(tmp_path)) == (0, {"a": "DIC", "b": "PC", "c_BF_": "BF", "d": "PC"})
    rule = "--modality PC is not followed; --override-modality follows it."
    assert run.stderr == [f"a.tiff: the file says DIC, {rule}", f"c_BF_.tiff: the file says BF, {rule}"]


def test_a_file_that_is_wrong_is_corrected_and_the_provenance_says_what_was_used(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, channel in (("a", "BF"), ("b", "DIC")):
        write_image(tmp_path / "in" / f"{name}.tiff", channel=channel)
    plain = Run(tmp_path, resources, capsys)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("b.tiff")}
    run = Run(tmp_path, resources, capsys, "--modality", "DIC", "--override-modality")
    assert (plain.code, run.code, modalities(tmp_path)) == (0, 0, {"a": "DIC", "b": "DIC"})
    assert run.stderr == ["a.tiff: --modality DIC is followed, although the file says BF."]
    assert "40 x 33 px, DIC, already predicted" in run.stdout[-2]  # nothing changed for b
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("options", "modality", "warning"),
    [
        (["--modality", "BF"], "PC", "its name at upload says PC, --modality BF is not followed"),
        (["--modality", "BF", "--override-modality"], "BF", "--modality BF is followed, although its name at upload"),
    ],
)
def test_the_name_at_upload_counts_as_the_files_word(
    tmp_path: Path,
    resources: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    modality: str,
    warning: str,
) -> None:
    platform_input(tmp_path, "image_1_PC_z0.ome.tiff")
    run = Run(tmp_path, resources, capsys, *options)
    assert (run.code, modalities(tmp_path)) == (0, {"0b5ce2a6": modality})
    assert len(run.stderr) == 1 and warning in run.stderr[0]


def test_an_override_needs_what_to_follow(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--override-modality"])
    assert stopped.value.code == 2
    assert "--override-modality is given without --modality" in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_modality_goes_to_the_unified_network_with_a_warning(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in" / "a.tiff", channel="transmitted")
    run = Run(tmp_path, resources, capsys)
    assert run.code == 0
    warning = "a.tiff: nothing tells whether this is BF, PC or DIC, so the unified network predicts all organelles."
    assert run.stderr == [warning]
    for folder in FOLDERS:
        assert inspect(tmp_path / "out/images" / folder / "a.tiff").provenance["checkpoint"] == "unified"


def test_strict_makes_it_an_error(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a.tiff", channel="transmitted")
    run = Run(tmp_path, resources, capsys, "--strict")
    assert (run.code, run.written) == (1, [])
    assert len(run.stderr) == 1 and "a.tiff: nothing tells" in run.stderr[0] and "--modality" in run.stderr[0]


def test_networks_of_known_modalities_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with a dynamic network, which is generated from the modality: nothing else can predict the unknown one."""
    (tmp_path / "resources").mkdir()
    dynamic = replace(TINY_METADATA, architecture=replace(UNIFIED, dynamic=True))
    resources = write_resources(tmp_path / "resources", {"unified": dynamic}, unknown=False)
    write_image(tmp_path / "in" / "a.tiff", channel="transmitted")
    write_image(tmp_path / "in" / "b.tiff", channel="DIC")
    run = Run(tmp_path, resources, capsys)
    assert (run.code, run.written) == (1, expected("b.tiff"))
    assert run.stderr and all("a.tiff: nothing tells" in line and "--modality" in line for line in run.stderr)
    run = Run(tmp_path, resources, capsys, "--modality", "PC")
    assert (run.code, run.written) == (0, expected("a.tiff", "b.tiff"))
    with Predictor.open(resources, device="cpu") as predictor, pytest.raises(ValueError, match="one of BF, PC, DIC"):
        predictor.predict(np.ones((40, 40), np.uint16), None)


def test_an_image_without_pixel_size_is_taken_as_it_is(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in" / "a.tiff", pixel_size_um=None)
    run = Run(tmp_path, resources, capsys)
    assert run.code == 0
    assert run.stderr == ["a.tiff: no pixel size, taken as it is (learned: 0.06 to 0.16 µm)."]
    assert Run(tmp_path, resources, capsys, "--no-rescale").stderr == []


def test_a_bad_image_costs_no_other(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a.tiff")
    (tmp_path / "in" / "b.tiff").write_bytes(b"II*\0 and nothing more")
    tifffile.imwrite(tmp_path / "in" / "c.tiff", np.zeros((9, 9), np.complex64))
    write_image(tmp_path / "in" / "d.tiff")
    run = Run(tmp_path, resources, capsys)
    assert run.code == 1
    assert run.written == expected("a.tiff", "d.tiff")
    assert len(run.stderr) == 3
    assert "b.tiff" in run.stderr[0] and "c.tiff" in run.stderr[1]
    assert run.stderr[2] == f"2 of 4 images failed; the first: {run.stderr[0]}"
    assert run.stdout[-1].startswith("2 images predicted, 2 failed, in ")


def test_the_last_line_of_a_single_failure_is_its_sentence(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.tiff").touch()
    run = Run(tmp_path, resources, capsys)
    assert run.code == 1
    assert len(run.stderr) == 1 and "b.tiff" in run.stderr[0]


def test_nothing_is_written_unless_all_four_are_predicted(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / "a.tiff")

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("a fault\nof ours")

    monkeypatch.setattr(Predictor, "forward", fails)
    run = Run(tmp_path, resources, capsys)
    assert (run.code, run.written) == (1, [])
    assert run.stderr[0].startswith("Traceback")  # a bug report needs it; the platform shows the last line
    assert run.stderr[-1].endswith("a.tiff: unexpected RuntimeError: a fault of ours")


def test_unwritable_output_is_one_sentence(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a.tiff")
    (tmp_path / "out").write_text("a file in the way")
    run = Run(tmp_path, resources, capsys)
    assert run.code in (1, 2)
    assert "out" in run.stderr[-1] and not any("Traceback" in line for line in run.stderr)


def test_what_cannot_be_begun(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    run = Run(tmp_path, resources, capsys)
    assert (run.code, len(run.stderr)) == (2, 1)
    assert "found no image to predict" in run.stderr[0]
    write_image(tmp_path / "in" / "a.tiff")
    run = Run(tmp_path, tmp_path / "nowhere", capsys)
    assert (run.code, len(run.stderr)) == (2, 1)
    assert "routing.json is missing" in run.stderr[0]
    run = Run(tmp_path, resources, capsys, "--device", "abacus")
    assert (run.code, len(run.stderr)) == (2, 1)
    assert "abacus" in run.stderr[0]
    shutil.rmtree(tmp_path / "in")
    run = Run(tmp_path, resources, capsys)
    assert (run.code, len(run.stderr)) == (2, 1)


def test_a_name_with_a_line_break_is_one_line(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a\n  b.tiff").touch()
    run = Run(tmp_path, resources, capsys)
    assert (run.code, len(run.stderr), run.stderr[0].count("a b.tiff")) == (1, 1, 1)


def test_interrupted(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / "a.tiff")

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "forward", interrupt)
    run = Run(tmp_path, resources, capsys)
    assert (run.code, run.written) == (130, [])
    assert run.stderr == ["Interrupted. The predictions written so far are complete; the same command continues."]


@pytest.mark.parametrize(
    "options",
    [
        "--overlap 0.95",
        "--overlap nan",
        "--overlap much",
        "--rotations 3",
        "--modality XX",
        "--preset slow",
        "--precision fp8",
    ],
)
def test_bad_option_values(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(options.split())
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert all(word in last for word in options.split())


def test_the_script_itself_from_another_folder(tmp_path: Path, resources: Path) -> None:
    write_image(tmp_path / "in" / "-a.tiff")
    command = [sys.executable, str(ROOT / "inference.py"), "--input", "in", "--output", "out"]
    done = subprocess.run(
        [*command, "--resources", str(resources), *FAST], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "out").rglob("*.tiff"))) == 4
