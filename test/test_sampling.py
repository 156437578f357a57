"""Balanced batches, their augmentation, and the loader that reads ahead."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.images import write_plane
from model.labels import Modality, Organelle
from model.normalization import BLANK_TARGET, InputNormalization, TargetNormalization
from model.preprocessing import Preprocessing
from training import plane_cache
from training.augmentation import Augmentation
from training.batches import FieldBatches, Loader
from training.check import check
from training.config import PartialLabels, TrainingConfig
from training.index import Field, Index
from training.plane_cache import PlaneCache, pixel_size_range
from training.sampling import BalancedSampler, PlainSampler
from training.scan import scan

N, M, T, A = Organelle.NUCLEUS, Organelle.MITOCHONDRIA, Organelle.TUBULIN, Organelle.ACTIN
PREPROCESSING = Preprocessing(InputNormalization.LINEAR, None)


def field(image: int, *organelles: Organelle, planes: int = 3) -> Field:
    stack = {z: Path(f"{image}_{z}") for z in range(planes)}
    return Field("S", image, Modality.DIC, stack, {o: Path(f"{image}_{o}") for o in organelles}, (40, 50))


def unbalanced() -> list[Field]:
    return [field(i, N) for i in range(50)] + [field(50 + i, N, M) for i in range(5)] + [field(60, T)]


@pytest.mark.parametrize("per_organelle", [1, 2, 3])
def test_every_batch_draws_equally_from_each_list(per_organelle: int) -> None:
    sampler = BalancedSampler(unbalanced(), per_organelle, seed=3)
    assert sampler.batch_size == 3 * per_organelle  # nothing is labelled actin: three lists
    for number in range(30):
        (picks,) = sampler.draw(number)
        for organelle in (N, M, T):
            drawn = [p for p in picks if p.drawn_for is organelle]
            assert len(drawn) == per_organelle and all(organelle in p.field.labels for p in drawn)


def test_fields_and_planes_are_uniform_over_their_list() -> None:
    sampler = BalancedSampler(unbalanced(), 1, seed=0)
    picks = [pick for number in range(2000) for pick in sampler.draw(number)[0]]
    images = [p.field.image for p in picks if p.drawn_for is N]
    assert set(images) == set(range(55)) and max(images.count(i) for i in range(55)) < 80
    planes = np.bincount([p.z for p in picks])
    assert planes.min() > 0.9 * planes.mean()


def test_no_field_twice_from_a_long_list() -> None:
    sampler = BalancedSampler(unbalanced(), 5, seed=0)
    for number in range(20):
        images = [p.field.image for p in sampler.draw(number)[0] if p.drawn_for is M]
        assert sorted(images) == [50, 51, 52, 53, 54]


def test_plain_sampling_draws_every_field_alike() -> None:
    sampler = PlainSampler(unbalanced(), 2, seed=0)
    assert sampler.batch_size == BalancedSampler(unbalanced(), 2, seed=0).batch_size
    images = [pick.field.image for number in range(600) for pick in sampler.draw(number)[0]]
    counts = [images.count(field.image) for field in unbalanced()]
    assert min(counts) > 0.4 * np.mean(counts) and max(counts) < 1.8 * np.mean(counts)


class MarkedStore(PlaneCache):
    """Planes whose pixels say where they are: position + 10 000 * what."""

    def __init__(self) -> None:
        super().__init__(PREPROCESSING, TargetNormalization.PERCENTILE, 0)

    def input(self, field: Field, z: int) -> np.ndarray:
        return np.arange(40 * 50, dtype=np.float32).reshape(40, 50)

    def target(self, field: Field, organelle: Organelle, shape: tuple[int, int]) -> np.ndarray:
        return self.input(field, 0) + 10_000 * (1 + list(Organelle).index(organelle))


def source(
    fields: Sequence[Field],
    per_organelle: int,
    crop: int,
    seed: int = 0,
    parts: int = 1,
    partial_labels: PartialLabels = "adaptive",
) -> FieldBatches:
    config = TrainingConfig(
        modality="all",
        width=4,
        crop=crop,
        window=crop,
        pixel_size_um=(0.2, 0.4),
        batch_per_organelle=per_organelle,
        seed=seed,
        partial_labels=partial_labels,
    )
    return FieldBatches(Index(tuple(fields)), MarkedStore(), config, parts)


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_a_batch_are_its_samples_each_once(parts: int) -> None:
    whole = source(unbalanced(), 2 * parts, 16, seed=5)
    divided = source(unbalanced(), 2, 16, seed=5, parts=parts)
    assert divided.batch_size == whole.batch_size == 3 * 2 * parts
    batch = whole.make(4)
    pieces = [divided.make(4, part) for part in range(parts)]
    assert all(piece.organelles == batch.organelles and len(piece.modalities) == 6 for piece in pieces)
    for organelle in range(3):
        for part, piece in enumerate(pieces):
            first = 2 * (organelle * parts + part)
            assert torch.equal(piece.x_B1YX[2 * organelle : 2 * organelle + 2], batch.x_B1YX[first : first + 2])
            assert torch.equal(piece.y_BCYX[2 * organelle : 2 * organelle + 2], batch.y_BCYX[first : first + 2])
    pairs = [int(piece.labelled_BC.sum()) for piece in pieces]
    assert [piece.share for piece in pieces] == [n / sum(pairs) for n in pairs] and batch.share == 1
    images = [pick.field.image for picks in BalancedSampler(unbalanced(), 2, 5, parts).draw(4) for pick in picks]
    nuclei = {image for i, image in enumerate(images) if 2 <= i % 6 < 4}
    assert len(nuclei) == 2 * parts, "from a long list, no field twice in any two parts"


def test_a_loader_hands_out_the_parts_of_its_process() -> None:
    batches = source(unbalanced(), 1, 16, parts=4)
    loader = Loader(batches, workers=2, parts=range(2, 4))
    for number in range(3):
        for part, found in zip((2, 3), next(loader), strict=True):
            assert torch.equal(found.x_B1YX, batches.make(number, part).x_B1YX)
    loader.close()


@pytest.mark.parametrize("crop", [16, 40, 64])
def test_input_and_targets_are_cut_turned_and_mirrored_alike(crop: int) -> None:
    batches = source(unbalanced(), 2, crop)
    seen = set()
    for number in range(8):
        batch = batches.make(number)
        assert batch.organelles == (M, N, T)
        assert batch.x_B1YX.shape == (6, 1, crop, crop)
        for x, y, labelled in zip(batch.x_B1YX, batch.y_BCYX, batch.labelled_BC, strict=True):
            assert labelled.any()
            seen.add((float(x[0, 0, 1] - x[0, 0, 0]), float(x[0, 1, 0] - x[0, 0, 0])))
            for c, organelle in enumerate(batch.organelles):
                expected = x[0] + 10_000 * (1 + list(Organelle).index(organelle))
                assert (y[c] == (expected if labelled[c] else 0)).all()
    if crop == 16:
        assert seen == {(s * a, t * b) for a, b in ((1, 50), (50, 1)) for s in (1, -1) for t in (1, -1)}


def test_all_labels_of_a_field_enter_whatever_list_it_came_from() -> None:
    assert source([field(1, N, M), field(2, N, M)], 1, 16).make(0).labelled_BC.all()


def test_missing_labels_as_blank_targets() -> None:
    batch = source(unbalanced(), 1, 16, partial_labels="blank").make(0)
    adaptive = source(unbalanced(), 1, 16).make(0)
    assert batch.organelles == (M, N, T) and batch.labelled_BC.all() and not adaptive.labelled_BC.all()
    columns = [batch.organelles.index(organelle) for organelle in adaptive.organelles]
    assert torch.equal(batch.y_BCYX[:, columns][adaptive.labelled_BC], adaptive.y_BCYX[adaptive.labelled_BC])
    assert (batch.y_BCYX[:, columns][~adaptive.labelled_BC] == BLANK_TARGET[TargetNormalization.LINEAR]).all()


def test_complete_fields_have_all_labels_of_their_modality() -> None:
    index = Index((*unbalanced(), field(61, N, M, T), field(62, N, M, T, planes=1)))
    assert [entry.image for entry in index.complete().fields] == [61, 62]
    assert Index(tuple(unbalanced())).complete().fields == ()


@pytest.mark.parametrize("workers", [1, 3])
def test_stream_goes_on_where_it_was_left(workers: int) -> None:
    def batches(start: int, count: int) -> list[np.ndarray]:
        loader = Loader(source(unbalanced(), 1, 16, seed=7), start=start, workers=workers)
        out = [next(loader)[0].y_BCYX.numpy() for _ in range(count)]
        assert loader.next == start + count
        loader.close()
        return out

    whole, rest = batches(0, 8), batches(5, 3)
    assert all(np.array_equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    assert not np.array_equal(whole[0], whole[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32))
def test_crop_has_its_size_and_only_the_images_pixels(height: int, width: int, crop: int, seed: int) -> None:
    image = np.arange(1, height * width + 1).reshape(height, width)
    patch = Augmentation.draw(np.random.default_rng(seed), image.shape, crop).apply(image, crop)
    assert patch.shape == (crop, crop) and patch.flags.c_contiguous
    assert set(patch.ravel()) <= set(image.ravel())


def test_cache_is_bounded_and_changes_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    values = np.random.default_rng(0).normal(size=(10, 10)).astype(np.float32)
    monkeypatch.setattr(plane_cache, "read_target", lambda path, *_: reads.append(path) or values)
    store = PlaneCache(PREPROCESSING, TargetNormalization.PERCENTILE, capacity_bytes=2 * 10 * 10 * 2)  # two of float16
    fields = [field(i, N) for i in range(3)]
    first = store.target(fields[0], N, (10, 10))
    assert np.array_equal(store.target(fields[0], N, (10, 10)), first) and len(reads) == 1
    for f in fields:
        store.target(f, N, (10, 10))
    assert store.target(fields[0], N, (10, 10)).dtype == np.float16 and len(reads) == 4


def write(path: Path, pixels: np.ndarray, pixel_size_um: tuple[float, float] | None = None) -> None:
    write_plane(path, pixels.astype(np.uint16), channel="x", pixel_size_um=pixel_size_um)


def test_a_target_is_cut_where_its_input_is_cut_whichever_plane_came_first(tmp_path: Path) -> None:
    rows, columns = np.indices((96, 96))
    where = 2000 + 40 * rows + 400 * (columns // 8)
    write(tmp_path / "image_1_BF_z0.ome.tiff", where, (0.1, 0.1))  # seen at 0.25 µm: 38 x 38 pixels
    write(tmp_path / "image_1_BF_z1.ome.tiff", where)  # taken as it is: 96 x 96 pixels
    write(tmp_path / "image_1_PC_z0.ome.tiff", where, (0.2, 0.1))  # 77 x 38 pixels
    write(tmp_path / "image_1_Nucleus.ome.tiff", where)
    config = TrainingConfig(modality="all", width=4, crop=24, window=24, pixel_size_um=(0.25, 0.35))
    preprocessing = Preprocessing(config.input_normalization, config.pixel_size_um)
    index = check(scan([tmp_path]), preprocessing)
    for capacity in (0, 1 << 30):
        cache = PlaneCache(preprocessing, config.target_normalization, capacity)
        batches, shapes = FieldBatches(index, cache, config), set()
        for number in range(24):
            batch = batches.make(number)
            torch.testing.assert_close(batch.x_B1YX, batch.y_BCYX, rtol=0, atol=1e-6)
        for entry in index.fields:
            for z in entry.planes:
                shape = cache.input(entry, z).shape
                shapes.add(shape)
                assert cache.target(entry, N, shape).shape == shape
        assert shapes == {(38, 38), (96, 96), (77, 38)}


def test_wrong_pixel_sizes_do_not_widen_what_a_checkpoint_says_it_learned(tmp_path: Path) -> None:
    for image, size in enumerate((0.1, 0.12, 0.3, 10.0, 0.001)):
        write(tmp_path / f"image_{image}_BF_z0.ome.tiff", np.full((8, 8), 9), (size, size))
        write(tmp_path / f"image_{image}_Nucleus.ome.tiff", np.full((8, 8), 9))
    assert pixel_size_range(check(scan([tmp_path]), PREPROCESSING).fields) == (0.1, 0.3)
