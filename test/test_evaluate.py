"""evaluate.py from folders to report, in both layouts of the truth."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from evaluation import command_line as evaluate
from evaluation import scoring
from evaluation.metrics import score
from evaluation.pairing import find_pairs, natural
from evaluation.report import PICTURE_SIDE, format_metric, picture
from model.errors import UserError
from model.images import read_image, write_plane
from model.labels import Organelle
from model.naming import stem

ROOT = Path(__file__).resolve().parents[1]

SIDE = 48
NAMES = {Organelle.NUCLEUS: "Nucleus", Organelle.MITOCHONDRIA: "Mitochondria", Organelle.ACTIN: "Actin"}
PROVENANCE = {"checkpoint": "pix2pix-bf", "trained_on": "simulated cells", "overlap": "0.8", "rotations": "4"}


def pixels(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 2000, (side, side)).clip(0, 65535).astype(np.uint16)


def write(path: Path, image: np.ndarray, channel: str = "x", provenance: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_plane(path, image, channel=channel, pixel_size_um=(0.1, 0.1), provenance=provenance)


def test_predictions_of_scenes_are_named(tmp_path: Path) -> None:
    for image in (1, 2):
        write(tmp_path / f"truth/image_{image}_Nucleus.ome.tiff", pixels(0))
        write(tmp_path / f"truth/image_{image}_BF_z0.ome.tiff", pixels(1))
    predict(tmp_path / "out", "image_2_BF_z0", Organelle.NUCLEUS, pixels(2))
    for scene in range(2):
        predict(tmp_path / "out", f"image_1_BF_z0_scene{scene}", Organelle.NUCLEUS, pixels(2))
    with pytest.raises(UserError, match=r"found image_1_BF_z0_scene0.tiff and 1 more instead, expected the prediction"):
        find_pairs(tmp_path / "out", tmp_path / "truth")


def predict(root: Path, key: str, organelle: Organelle, image: np.ndarray, **changes: str) -> Path:
    path = root / "images" / f"{organelle}-fluorescence-ome-tiff" / f"{key}.tiff"
    write(path, image, organelle.label, PROVENANCE | changes)
    return path


def run(*arguments: object) -> int:
    return evaluate.main([str(argument) for argument in arguments])


def evaluated(predictions: Path, truth: Path, output: Path, *more: object) -> dict:
    assert run("--predictions", predictions, "--ground-truth", truth, "--output", output, *more) == 0
    return json.loads((output / "metrics.json").read_text())


@pytest.fixture
def challenge(tmp_path):
    """Truth in the challenge's layout with its inputs, and all predictions: perfect for z1, noisy for z0."""
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    rows = ["name,modality,image_z,best_z"]
    for study, image, modality in ((3, 1, "BF"), (3, 2, "PC"), (4, 1, "DIC")):  # image 1 is there twice
        folder = f"Study_{study}"
        targets = [o for o in NAMES if not (modality == "DIC" and o is Organelle.ACTIN)]
        truths = {o: pixels(100 * study + 10 * image + i) for i, o in enumerate(targets)}
        for organelle, truth in truths.items():
            write(data / folder / f"image_{image}_{NAMES[organelle]}.ome.tiff", truth)
        for z in (0, 1):
            name = f"image_{image}_{modality}_z{z}"
            write(data / folder / f"{name}.ome.tiff", pixels(z), modality)
            rows.append(f"{folder}/{name}.ome.tiff,{modality},{z},1")
            for organelle in Organelle:
                truth = truths.get(organelle, pixels(7))
                noise = pixels(1000 + image) * (1 - z)
                predict(predictions, f"{folder}/{name}", organelle, truth // 2 + noise // 4)
    (data / "focus.csv").write_text("\n".join(rows) + "\n")
    return predictions, data, tmp_path / "out"


@pytest.fixture
def platform(tmp_path):
    """Truth in the platform's layout, named by meaningless identifiers; perfect predictions."""
    predictions, truth = tmp_path / "predictions", tmp_path / "truth"
    for index, key in enumerate(("0a1b", "2c3d")):
        write(truth / "images/organelles-transmitted-light-ome-tiff" / f"{key}.tiff", pixels(index), "PC")
        for organelle in Organelle:
            image = pixels(10 + index)
            predict(predictions, key, organelle, image)
            if organelle is not Organelle.ACTIN:
                write(truth / "images" / f"{organelle}-fluorescence-ome-tiff" / f"{key}.tiff", image)
    return predictions, truth, tmp_path / "out"


def test_challenge_layout(challenge, capsys):
    predictions, data, output = challenge
    found = evaluated(predictions, data, output)

    assert len(found["results"]) == 6
    assert next(entry["image_name"] for entry in found["results"]) == "Study_3/image_1_BF_z0"
    assert set(found["aggregate"]) == {"mitochondria", "nucleus", "actin"}
    assert set(found["aggregate"]["nucleus"]) == {"MAE", "SSIM", "PCC", "E_dist", "C_dist"}
    assert set(found["aggregate"]["actin"]) == {"SSIM", "PCC"}
    assert list(found["transmitted_light"]) == ["BF", "PC", "DIC"]
    assert set(found["transmitted_light"]["DIC"]) == {"mitochondria", "nucleus"}
    assert found["counts"]["DIC"] == {"mitochondria": 2, "nucleus": 2}
    in_focus, out_of_focus = (found["z_deviation"]["nucleus"][z] for z in "01")
    assert in_focus["PCC"] == pytest.approx(1, abs=1e-6)
    assert in_focus["SSIM"] == pytest.approx(1, abs=1e-5)
    assert out_of_focus["PCC"] < 0.99

    # the means are means over images of figures that the metric itself gives
    truth = tifffile.imread(data / "Study_4/image_1_Nucleus.ome.tiff")
    prediction = tifffile.imread(predictions / "images/nucleus-fluorescence-ome-tiff/Study_4/image_1_DIC_z0.tiff")
    entry = next(e for e in found["results"] if e["image_name"] == "Study_4/image_1_DIC_z0")
    assert entry["nucleus"] == pytest.approx(score(prediction, truth, Organelle.NUCLEUS))
    assert (entry["modality"], entry["z_deviation"]) == ("DIC", 1)
    every = [e["nucleus"]["PCC"] for e in found["results"]]
    assert found["aggregate"]["nucleus"]["PCC"] == pytest.approx(np.mean(every))

    printed = capsys.readouterr()
    assert "simulated cells" in printed.out
    assert "Nucleus" in printed.out
    assert printed.err == ""


def test_platform_layout(platform):
    predictions, truth, output = platform
    found = evaluated(predictions, truth, output)
    assert set(found["aggregate"]) == {"mitochondria", "nucleus", "tubulin"}
    for means in found["aggregate"].values():
        assert (means["PCC"], means["SSIM"]) == pytest.approx((1, 1))
    assert list(found["transmitted_light"]) == ["PC"]  # from the input's OME channel: the names tell nothing
    assert found["z_deviation"] == {}
    assert "holds no <code>focus.csv</code>" in (output / "report.html").read_text()


def test_folders_named_images_may_be_given(platform):
    predictions, truth, output = platform
    assert evaluated(predictions / "images", truth / "images", output)["aggregate"]["nucleus"]["PCC"] == pytest.approx(
        1
    )


def test_truth_without_inputs_beside(challenge):
    predictions, data, output = challenge
    for path in data.rglob("*_z*.ome.tiff"):
        path.unlink()
    found = evaluated(predictions, data, output)
    assert len(found["results"]) == 6
    assert "does not lie beside the truth" in (output / "report.html").read_text()


def test_csv_holds_every_prediction(challenge):
    predictions, data, output = challenge
    found = evaluated(predictions, data, output)
    rows = list(csv.DictReader((output / "metrics.csv").open(newline="")))
    assert len(rows) == sum(len(organelles) * 2 for organelles in ("MNA", "MNA", "MN"))
    row = next(r for r in rows if r["image"] == "Study_3/image_2_PC_z1" and r["organelle"] == "actin")
    entry = next(e for e in found["results"] if e["image_name"] == "Study_3/image_2_PC_z1")
    assert float(row["PCC"]) == entry["actin"]["PCC"]
    assert row["MAE"] == ""
    assert row["trained_on"] == "simulated cells"


def test_report_is_self_contained_and_says_what_the_networks_were_trained_on(challenge):
    predictions, data, output = challenge
    evaluated(predictions, data, output)
    html = (output / "report.html").read_text()

    assert "were trained on <strong>simulated cells</strong>" in html
    assert "pix2pix-bf" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
    sources = re.findall(r"src=\"data:image/png;base64,([^\"]+)\"", html)
    assert len(sources) == 3 * 16  # input, prediction, truth
    assert Image.open(io.BytesIO(base64.b64decode(sources[0]))).size == (SIDE, SIDE)
    cases = html[html.index('id="cases"') : html.index('id="all"')]
    nucleus = cases[cases.index("<h3>Nucleus") : cases.index("<h3>Actin")]
    figures = [float(text) for text in re.findall(r"PCC <b>([^<]+)</b>", nucleus)]
    assert len(figures) == 6
    assert figures == sorted(figures)


def test_number_of_pictures_is_settable(challenge):
    predictions, data, output = challenge
    for pictures, expected in ((0, 0), (2, 3 * 3 * 2)):
        evaluated(predictions, data, output, "--pictures", pictures)
        assert (output / "report.html").read_text().count("data:image/png") == expected


def test_predictions_of_other_origin_are_said_to_state_nothing(platform):
    predictions, truth, output = platform
    for path in predictions.rglob("*.tiff"):
        image = tifffile.imread(path)
        path.unlink()
        tifffile.imwrite(path, image)
    evaluated(predictions, truth, output)
    assert "6 of 6 predictions do not state" in (output / "report.html").read_text()


def test_text_of_files_is_escaped(platform):
    predictions, truth, output = platform
    predict(predictions, "0a1b", Organelle.NUCLEUS, pixels(3), trained_on="<script>alert(1)</script>")
    evaluated(predictions, truth, output)
    html = (output / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_processes_give_the_same_figures(challenge, monkeypatch):
    predictions, data, output = challenge
    alone = evaluated(predictions, data, output, "--workers", 2)
    monkeypatch.setattr(scoring, "PAIRS_PER_WORKER", 8)
    assert evaluated(predictions, data, output.with_name("parallel"), "--workers", 2) == alone


@pytest.mark.parametrize("pairs_per_worker", [pytest.param(8, marks=pytest.mark.slow), 1000])
def test_wrong_shape_fails_the_evaluation_and_leaves_nothing(challenge, capsys, monkeypatch, pairs_per_worker):
    monkeypatch.setattr(scoring, "PAIRS_PER_WORKER", pairs_per_worker)
    predictions, data, output = challenge
    bad = predict(predictions, "Study_3/image_2_PC_z0", Organelle.NUCLEUS, pixels(1, SIDE - 8))
    status = run("--predictions", predictions, "--ground-truth", data, "--output", output, "--workers", 2)
    sentence = capsys.readouterr().err.strip()
    assert status == 2
    assert str(bad) in sentence
    assert "40 x 40 pixels, expected 48 x 48" in sentence
    assert "\n" not in sentence
    assert not list(output.iterdir())


def test_three_axes_fail_as_in_the_challenge(platform):
    predictions, truth, _ = platform
    path = predictions / "images/nucleus-fluorescence-ome-tiff/0a1b.tiff"
    image = tifffile.imread(path)
    tifffile.imwrite(path, image[None])
    assert failure(predictions, truth) == f"{path}: found an image with the axes QYX, expected two axes (YX)."


def failure(predictions: Path, truth: Path) -> str:
    """The sentence with which the real command ends, on stderr, without a traceback."""
    command = [sys.executable, ROOT / "evaluate.py", "--predictions", predictions, "--ground-truth", truth]
    done = subprocess.run([*command, "--output", truth / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_missing_prediction_fails_and_is_listed(challenge):
    predictions, data, _ = challenge
    gone = predictions / "images/nucleus-fluorescence-ome-tiff/Study_3/image_1_BF_z1.tiff"
    gone.unlink()
    with pytest.raises(UserError, match=f"a prediction is missing: {re.escape(str(gone))}"):
        find_pairs(predictions, data)


def test_a_field_that_was_never_predicted_fails(challenge):
    predictions, data, _ = challenge
    shutil.rmtree(predictions / "images/nucleus-fluorescence-ome-tiff/Study_4")
    shutil.rmtree(predictions / "images/mitochondria-fluorescence-ome-tiff/Study_4")
    with pytest.raises(UserError, match="4 predictions are missing"):
        find_pairs(predictions, data)
    (data / "Study_3/image_8_Actin.ome.tiff").write_bytes(b"")  # neither input nor prediction
    with pytest.raises(UserError, match=r"5 predictions are missing.*image_8_\*"):
        find_pairs(predictions, data)


def test_organelle_without_truth_and_prediction_is_warned_of(platform, capsys):
    predictions, truth, output = platform
    shutil.rmtree(predictions / "images/actin-fluorescence-ome-tiff")
    evaluated(predictions, truth, output)
    assert "2 of 2 images lack a prediction of actin" in capsys.readouterr().err


def test_nothing_matched_tells_what_was_found_and_expected(challenge):
    predictions, data, _ = challenge
    with pytest.raises(UserError, match=r"'Study_3/image_1_BF_z0', expected such as 'image_1_BF_z0'"):
        find_pairs(predictions, data / "Study_3")


def test_folders_that_hold_nothing(challenge, tmp_path):
    predictions, data, _ = challenge
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found no predictions"):
        find_pairs(tmp_path / "empty", data)
    with pytest.raises(UserError, match="found no ground truth"):
        find_pairs(predictions, tmp_path / "empty")
    with pytest.raises(UserError, match="found nothing, expected the folder of the ground truth"):
        find_pairs(predictions, tmp_path / "absent")


def test_predictions_written_into_the_truth_are_not_judged_by_themselves(challenge):
    predictions, data, _ = challenge
    shutil.move(predictions / "images", data / "images")
    pairs = find_pairs(data, data)
    assert len(pairs) == 16
    assert all("Study_" in pair.truth.parent.name for pair in pairs)


def test_earlier_predictions_in_the_folder_of_the_truth_are_no_truth(challenge):
    predictions, data, _ = challenge
    shutil.copytree(predictions / "images", data / "images")
    pairs = find_pairs(predictions, data)
    assert len(pairs) == 16 and all("Study_" in pair.truth.parent.name for pair in pairs)


def test_a_prediction_is_refused_as_truth(challenge):
    predictions, data, _ = challenge
    path = data / "Study_3/image_1_Nucleus.ome.tiff"
    write(path, pixels(5), "Nucleus", PROVENANCE)
    assert f"{path}: found a prediction of this program, expected the ground truth" in failure(predictions, data)


def test_what_the_reader_says_of_the_truth_is_told(challenge, capsys):
    predictions, data, output = challenge
    blank, scaled = (data / f"Study_3/image_{n}_Nucleus.ome.tiff" for n in (1, 2))
    write(blank, np.zeros((SIDE, SIDE), np.uint16))
    tifffile.imwrite(scaled, pixels(3).astype(np.float32) / 65535, photometric="minisblack")
    evaluated(predictions, data, output)
    warned = capsys.readouterr().err
    assert warned.count(f"{blank}: no contrast (grey value 0 throughout).") == 1
    assert f"{scaled}: its float32 pixels are taken as 16 bits" in warned


@pytest.mark.parametrize("name", ["Study²", "Study_①", os.fsdecode(b"Study_\xb5")])
def test_folders_of_any_name(challenge, name):
    predictions, data, output = challenge
    for root in (data, *(folder for folder in (predictions / "images").iterdir())):
        (root / "Study_3").rename(root / name)
    (data / "focus.csv").unlink()
    evaluated(predictions, data, output)
    assert (output / "report.html").is_file() and (output / "metrics.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", ["merged", "zarr"])
def test_other_layouts_are_named(challenge, layout):
    predictions, data, _ = challenge
    shutil.rmtree(predictions)
    folder = "organelles-merged" if layout == "merged" else "nucleus-fluorescence-ome-tiff/a.ome.zarr"
    (predictions / "images" / folder).mkdir(parents=True)
    assert "found predictions of --layout merged or --format zarr, expected" in failure(predictions, data)


def test_focus_by_bare_name(platform):
    predictions, truth, output = platform
    (truth / "focus.csv").write_text("name,modality,image_z,best_z\n0a1b.ome.tiff,BF,3,10\n2c3d.tiff,BF,9,9\n")
    found = evaluated(predictions, truth, output)
    assert set(found["z_deviation"]["tubulin"]) == {"0", "7"}
    assert list(found["transmitted_light"]) == ["BF"]


def test_pictures_have_the_contrast_of_the_metric():
    image = pixels(5, 900)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture(image).partition(",")[2]))))
    assert max(shown.shape) == PICTURE_SIDE
    assert picture(image) == picture(image.astype(np.int64) * 3 + 7)
    flat = Image.open(io.BytesIO(base64.b64decode(picture(np.full((9, 12), 500)).partition(",")[2])))
    assert (flat.size, flat.getextrema()) == ((12, 9), (0, 0))


def test_numbers_are_written_as_in_the_paper():
    assert format_metric(0.12345, "PCC") == "0.1235"
    assert format_metric(-0.5, "PCC") == "−0.5000"
    assert format_metric(-1e-9, "C_dist") == "0.0000"
    assert format_metric(229.723, "E_dist") == "229.72"


def test_images_are_sorted_by_number():
    assert sorted(["image_10_BF_z0", "image_2_BF_z10", "image_2_BF_z9"], key=natural) == [
        "image_2_BF_z9",
        "image_2_BF_z10",
        "image_10_BF_z0",
    ]


def test_a_study_called_as_the_platforms_folders_are_is_scored(challenge):
    predictions, data, output = challenge
    (data / "Study_3").rename(data / "day1-ome-tiff")
    for folder in (predictions / "images").iterdir():
        if (folder / "Study_3").is_dir():
            (folder / "Study_3").rename(folder / "day1-ome-tiff")
    assert len(evaluated(predictions, data, output)["results"]) == 6


def test_mha_predictions_and_truth(challenge):
    predictions, data, output = challenge
    before = evaluated(predictions, data, output)
    for path in [*data.rglob("image_*_Nucleus.ome.tiff"), *predictions.rglob("nucleus-*/**/*.tiff")]:
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(read_image(path).pixels), str(path.parent / f"{stem(path.name)}.mha")
        )
        path.unlink()
    after = evaluated(predictions, data, output)
    assert after["aggregate"] == before["aggregate"]


def test_names_of_truth_that_are_nearly_right(challenge, capsys):
    predictions, data, output = challenge
    before = evaluated(predictions, data, output)["aggregate"]
    capsys.readouterr()
    (data / "Study_3/image_1_Nucleus.ome.tiff").rename(data / "Study_3/image_01_nucleus.tif")
    shutil.copy(data / "Study_3/image_1_Actin.ome.tiff", data / "Study_3/image_1_Actins.ome.tiff")
    assert evaluated(predictions, data, output)["aggregate"] == before
    assert "image_1_Actins.ome.tiff: ignored, expected a name such as" in capsys.readouterr().err
    shutil.copy(data / "Study_3/image_01_nucleus.tif", data / "Study_3/image_1_Nucleus.tif")
    with pytest.raises(UserError, match=r"means the same as that of image_01_nucleus\.tif, expected one truth"):
        find_pairs(predictions, data)


def test_planes_of_names_that_mean_the_same_are_told(challenge, capsys):
    predictions, data, output = challenge
    for organelle in NAMES:
        folder = predictions / f"images/{organelle}-fluorescence-ome-tiff/Study_3"
        shutil.copy(folder / "image_1_BF_z0.tiff", folder / "image_01_bf.tiff")
    assert len(evaluated(predictions, data, output)["results"]) == 7
    first, second = "Study_3/image_01_bf", "Study_3/image_1_BF_z0"
    told = capsys.readouterr().err
    assert f"{second}: its name means the same plane as that of {first}, both are scored." in told


def test_hidden_and_linked_folders_of_the_truth_are_left_out_and_links_told(challenge, capsys):
    predictions, data, output = challenge
    before = evaluated(predictions, data, output)["aggregate"]
    capsys.readouterr()
    shutil.copytree(data / "Study_3", data / ".snapshot" / "Study_3")
    assert evaluated(predictions, data, output)["aggregate"] == before
    assert capsys.readouterr().err == ""
    (data / "latest").symlink_to(data / "Study_3")
    assert evaluated(predictions, data, output)["aggregate"] == before
    told = capsys.readouterr().err
    assert told == f"{data / 'latest'}: left out, expected a folder that can be read and is no link.\n"


def test_focus_table_that_names_other_images_is_told(challenge, capsys):
    predictions, data, output = challenge
    text = (data / "focus.csv").read_text()
    (data / "focus.csv").write_text(text.replace("/image_", "/IMAGE_0").replace("_z0.ome", ".ome"))
    assert set(evaluated(predictions, data, output)["z_deviation"]["nucleus"]) == {"0", "1"}
    assert capsys.readouterr().err == ""
    (data / "focus.csv").write_text(text.replace("/image_", "/image_7"))
    assert evaluated(predictions, data, output)["z_deviation"] == {}
    assert "focus.csv: names none of the images that are scored, such as Study_3/image_1_BF_z0." in (
        capsys.readouterr().err
    )
