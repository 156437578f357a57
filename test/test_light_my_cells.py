"""The page docs/light-my-cells.md: its commands are read from it and run, on simulated fields in the real layout."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest
import tifffile
from hostile_server import HostileServer, archive

from model.grand_challenge import INPUT_SLUG, output_folder
from model.images import read_image
from model.labels import Modality, Organelle
from model.naming import InputName, parse
from training.options import parse as parse_options
from training.scan import read_file_lists

ROOT = Path(__file__).resolve().parents[1]
FILE_LISTS = ROOT.parent / "shared" / "lmc-filelists"
PAGE = ROOT / "docs" / "light-my-cells.md"
STUDIES = {
    Modality.BF: {1: "MN", 3: "MNA", 8: "MN", 9: "MN", 10: "MN", 11: "N", 14: "MN", 25: "MN", 26: "N", 30: "NT"},
    Modality.PC: {5: "NA", 6: "NA", 12: "MN", 13: "MN", 15: "MN", 27: "MN", 28: "MN", 29: "NT"},
    Modality.DIC: {
        **{2: "MN", 4: "MNT", 7: "NT", 16: "M", 17: "NT", 18: "MN", 19: "MN"},
        **{20: "MNT", 21: "NT", 22: "MN", 23: "MN", 24: "MNT"},
    },
}
"""Which organelles some field of a study has, by their initials."""

PLANES, SIZE = 2, 128
PROGRAMS = ("download.py", "train.py", "training.release", "inference.py", "evaluate.py")
"""In the order of the page."""

SMALL = (
    "--width 4 --blocks 1 --discriminator-width 4 --crop 64 --window 64 --schedule steps --steps 3 --decay-steps 1 "
    "--validation-planes 4 --device cpu --threads 1 --workers 1 --cache-gb 1"
)
"""The numbers that the dry run makes smaller, and where it computes."""


def commands() -> list[str]:
    """The lines of the page's code blocks, without comments."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"\s+#.*", "", line).strip())]


def commands_of(program: str) -> list[str]:
    return [command for command in commands() if re.search(rf"(^| |\./){re.escape(program)}( |$)", command)]


def test_the_page_trains_the_papers_networks() -> None:
    """Figures of the paper's section 2.2, and of pix2pix where it names none."""
    runs = [parse_options(shlex.split(command)[2:])[0] for command in commands_of("train.py")]
    assert [(run.recipe, run.modality) for run in runs] == [
        *(("pix2pix", modality) for modality in Modality),
        ("unetplusplus", "all"),
    ]
    for run in runs:
        assert (run.crop, run.window, run.batch_per_organelle) == (512, 512, 1)
        assert (run.learning_rate, run.beta1, run.schedule.unit) == (2e-4, 0.5, "epochs")
        assert (run.schedule.epochs, run.schedule.decay_epochs) == (150, 150)
        assert (run.input_normalization, run.target_normalization, run.pixel_size_um) == ("linear", "linear", None)
        assert (run.lambda_l1, run.lambda_gan) == (100, float(run.recipe == "pix2pix"))
        assert (run.width, run.blocks) == ((64, 9) if run.recipe == "pix2pix" else (32, 9))


def chosen(command: str) -> set[int]:
    """The studies of a download."""
    expanded = subprocess.run(["bash", "-c", f"printf '%s ' {command}"], capture_output=True, text=True, check=True)
    words = expanded.stdout.split()
    return {int(word) for word in words[words.index("--study") + 1 :] if word.isdigit()}


def test_training_validation_and_test_studies_are_apart() -> None:
    """Each has all modalities, and no label is left without a study to learn it from."""
    _, training, testing = commands_of("download.py")
    everything = {number for studies in STUDIES.values() for number in studies}
    assert chosen(training) | chosen(testing) == everything == set(range(1, 31))
    assert not chosen(training) & chosen(testing)
    config, _ = parse_options(shlex.split(commands_of("train.py")[0])[2:])
    held_out = {int(name.removeprefix("Study_")) for name in config.validation_studies}
    assert held_out < chosen(training)
    for studies in STUDIES.values():
        assert held_out & set(studies) and chosen(testing) & set(studies)
        learned = set(studies) - held_out - chosen(testing)
        assert set("".join(studies.values())) == set("".join(studies[number] for number in learned))


@pytest.mark.skipif(not FILE_LISTS.is_dir(), reason="the data set's file names are not here")
def test_the_studies_have_the_labels_of_the_real_data_set() -> None:
    for modality, studies in STUDIES.items():
        for number, initials in studies.items():
            fields = read_file_lists([FILE_LISTS / f"Study{number}.tsv"]).fields
            labels = {organelle for field in fields for organelle in field.labels}
            assert {field.modality for field in fields} == {modality}
            assert {organelle.label[0] for organelle in labels} == set(initials)


def rendered(folder: Path) -> dict[str, bytes]:
    """Sixty simulated fields, spread over the thirty studies with their labels; faults as in the real data set."""
    size = f"--fields 20 --fields-per-study 2 --planes {PLANES} --size {SIZE} --seed 7"
    run([sys.executable, str(ROOT / "simulate.py"), "--output", str(folder / "simulated"), *size.split()], folder)
    by_image: dict[int, list[Path]] = {}
    for path in sorted((folder / "simulated").rglob("image_*")):
        by_image.setdefault(parse(path.name).image, []).append(path)
    images: dict[str, bytes] = {}
    turns = {modality: cycle(studies.items()) for modality, studies in STUDIES.items()}
    for paths in by_image.values():
        names = {parse(path.name): path for path in paths}
        (modality,) = {name.modality for name in names if isinstance(name, InputName)}
        study, initials = next(turns[modality])
        for name, path in names.items():
            if isinstance(name, InputName) or name.organelle.label[0] in initials:
                images[f"Study_{study}/{path.name}"] = path.read_bytes()
    assert len(by_image) == 60
    return images


def as_big_tiff(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tifffile.imwrite(
            path.with_suffix(".big"), page.asarray(), bigtiff=True, description=page.description.encode(), metadata=None
        )
    return path.with_suffix(".big").read_bytes()


def without_pixels(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    with tifffile.TiffFile(path) as tiff:
        return content[: min(tiff.pages.first.dataoffsets)]


def run(command: list[str], folder: Path) -> str:
    """Run a command to its end; returns what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    environment["OMP_NUM_THREADS"] = "1"  # tiny networks: more would wait for each other
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def checkout(folder: Path) -> None:
    """What the page's commands need of the project, in another folder."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    for name in ("download.py", "train.py", "inference.py", "evaluate.py", "training"):
        (folder / name).symlink_to(ROOT / name)


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The folder in which all commands of the page were run, and by program what each said."""
    folder = tmp_path_factory.mktemp("page")
    checkout(folder)
    images = rendered(folder)
    big = min(name for name in images if name.startswith("Study_25/") and "_BF_" in name)
    images[big] = as_big_tiff(folder / "x.tiff", images[big])
    hollow = min(name for name in images if name.startswith("Study_2/") and "_Mitochondria" in name)
    images[hollow] = without_pixels(folder / "x.tiff", images[hollow])
    files = archive(images)
    for study in (4, 7):  # in the real lists it is 41 names of Nucleus
        entries = json.loads(files[f"FileList/Study_{study}.json"])
        entries += [entry for entry in entries if "_Nucleus" in entry["path"]]
        files[f"FileList/Study_{study}.json"] = json.dumps(entries).encode()
    said = {}
    with HostileServer(files) as server:
        smaller = {"download.py": f"--url {server.url}", "train.py": SMALL}
        for program in PROGRAMS:
            lines = [f"{command} {smaller.get(program, '')}" for command in commands_of(program)]
            said[program] = [run(["bash", "-c", line], folder) for line in lines]
    return folder, said


@pytest.mark.slow
def test_everything_arrives_and_what_is_listed_twice_is_told(dry_run: tuple[Path, dict[str, list[str]]]) -> None:
    folder, said = dry_run
    sizes, *fetched = said["download.py"]
    assert "Fetched" not in sizes
    for text in fetched:
        assert re.search(r"Listed twice, fetched once: [12], such as Study_[47]/image_\d+_Nucleus", text), text
    assert {path.name for path in folder.glob("lmc_t*/Study_*")} == {f"Study_{number}" for number in range(1, 31)}


@pytest.mark.slow
def test_the_networks_are_validated_by_study(dry_run: tuple[Path, dict[str, list[str]]]) -> None:
    folder, said = dry_run
    studies = {"BF": "Study_10", "PC": "Study_6", "DIC": "Study_24", "all": "Study_10, Study_24, Study_6"}
    for (modality, held_out), text in zip(studies.items(), said["train.py"], strict=True):
        assert re.search(rf"\d+ fields to train on, \d+ held out by study \({held_out}\)", text), text
        broken = re.search(r"skipped lmc_train/Study_2/image_\d+_Mitochondria\.ome\.tiff: found a truncated TIFF", text)
        assert bool(broken) is (modality in ("DIC", "all")), text
        assert text.count("skipped ") == bool(broken)  # the BigTIFF is read
        assert "trained on simulated cells" in text and "best mean PCC" in text
    with open(folder / "runs" / "unified" / "log.csv", newline="") as file:
        scored = {row["name"] for row in csv.DictReader(file)}
    assert {"pcc/BF/nucleus", "pcc/PC/actin", "pcc/DIC/tubulin", "pcc/mean"} <= scored


@pytest.mark.slow
def test_what_was_released_is_scored_on_the_test_studies(dry_run: tuple[Path, dict[str, list[str]]]) -> None:
    folder, said = dry_run
    assert said["training.release"][0].count("trained on simulated cells") == 4
    assert "Networks trained on: simulated cells." in said["evaluate.py"][0]
    names = {path: parse(path.name) for path in (folder / "lmc_test").rglob("*.tiff")}
    planes = [path for path, name in names.items() if isinstance(name, InputName)]
    results = json.loads((folder / "runs" / "metrics" / "metrics.json").read_text())["results"]
    assert {result["image_name"] for result in results} == {
        path.relative_to(folder / "lmc_test").as_posix().removesuffix(".ome.tiff") for path in planes
    }
    scored = sum(str(organelle) in result for result in results for organelle in Organelle)
    assert scored == PLANES * (len(names) - len(planes)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("modality", Modality)
def test_the_released_networks_predict_as_on_the_platform(
    dry_run: tuple[Path, dict[str, list[str]]], tmp_path: Path, modality: Modality
) -> None:
    """Without Docker: the same command on the container's folders, with the weights that export.sh would pack."""
    folder, _ = dry_run
    (export,) = commands_of("export.sh")
    source = min((folder / "lmc_test").rglob(f"*_{modality}_z0.ome.tiff"))
    case = tmp_path / "input" / "images" / INPUT_SLUG / "0b1d9f3e.tiff"
    case.parent.mkdir(parents=True)
    case.write_bytes(source.read_bytes())
    command = ["python", "inference.py", "--input", str(tmp_path / "input"), "--output", str(tmp_path / "output")]
    run([*command, "--resources", export.split()[-1]], folder)
    for organelle in Organelle:
        image = read_image(output_folder(tmp_path / "output", organelle) / "0b1d9f3e.tiff")
        by_unified = (modality, organelle) == (Modality.DIC, Organelle.ACTIN)
        expected = "unetplusplus" if by_unified else f"pix2pix-{modality.lower()}"
        assert image.info.provenance["checkpoint"] == expected
        assert image.pixels.shape == (SIZE, SIZE)


@pytest.mark.parametrize("script", ["build.sh", "test.sh", "export.sh"])
def test_the_pages_calls_of_the_container_scripts_are_valid(script: str) -> None:
    """Their options are in the script's help; container tests run the scripts themselves."""
    said = subprocess.run([str(ROOT / script), "--help"], capture_output=True, text=True, check=True).stdout
    found = commands_of(script)
    assert found
    for command in found:
        options = [word for word in shlex.split(command) if word.startswith("--")]
        assert all(f" {option} " in said for option in options), command
