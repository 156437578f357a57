import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import model.checkpoint
from model.checkpoint import CheckpointMetadata, _pack, load, read_metadata, save
from model.errors import UserError
from model.files import file_sha256
from model.labels import Modality, Organelle
from model.networks.architecture import Architecture
from model.networks.build import build
from model.normalization import InputNormalization, TargetNormalization
from model.quantization import SCALE, quantize

ARCHITECTURE = Architecture("resnet", 4, blocks=1)
METADATA = CheckpointMetadata(
    architecture=ARCHITECTURE,
    input_normalization=InputNormalization.FLATFIELD,
    target_normalization=TargetNormalization.PERCENTILE,
    window=256,
    pixel_size_um=(0.06, 0.16),
    modalities=(Modality.BF, Modality.DIC),
    labels={Modality.BF: tuple(Organelle), Modality.DIC: (Organelle.NUCLEUS,)},
    trained_on="simulated cells",
    recipe="pix2pix",
    notes={"seed": "7", "unit": "µm"},
)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return build(ARCHITECTURE)


@pytest.fixture
def checkpoint(tmp_path: Path, network) -> Path:
    path = tmp_path / "runs" / "a.safetensors"
    save(path, network, METADATA)
    return path


def test_round_trip_is_exact_and_leaves_the_random_state_alone(checkpoint, network):
    state = torch.random.get_rng_state()
    loaded, metadata = load(checkpoint)
    assert torch.equal(state, torch.random.get_rng_state())
    assert metadata == METADATA == read_metadata(checkpoint)
    assert not loaded.training and all(p.device.type == "cpu" for p in loaded.parameters())
    x = torch.rand(1, 1, 32, 32)
    wanted, found = network.state_dict(), loaded.state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted | found)
    assert torch.allclose(loaded(x), network.eval()(x), atol=1e-5)  # another layout, another order of sums
    loaded(x).sum().backward()  # what was loaded can be trained on
    assert all(p.grad is not None for p in loaded.parameters())


@pytest.mark.parametrize("name", ["resnet", "unetplusplus"])
def test_compact_is_a_quarter_of_the_size_and_nearly_the_same(tmp_path, name):
    architecture = Architecture(name, 16, dynamic=True)
    network, metadata = build(architecture), replace(METADATA, architecture=architecture)
    save(tmp_path / "full", network, metadata)
    save(tmp_path / "compact", network, metadata, compact=True)
    assert (tmp_path / "compact").stat().st_size < 0.3 * (tmp_path / "full").stat().st_size
    loaded, _ = load(tmp_path / "compact")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, weight in network.state_dict().items():
        largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) if weight.ndim > 1 else 0
        assert ((loaded.state_dict()[name] - weight).abs() <= largest / 254 + 1e-7).all()
    x, code = torch.rand(1, 1, 64, 64), torch.eye(3)[:1]
    found, expected = (n.eval()(x, modality_code_B3=code).detach().flatten() for n in (loaded, network))
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.999
    save(tmp_path / "again", loaded, metadata, compact=True)
    assert load(tmp_path / "again")[0].state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize("fault", ["absent", "too few"])
def test_8_bits_without_their_scale_are_refused(tmp_path, network, monkeypatch, fault):
    def forge(tensors):
        stored = quantize(tensors)
        name = next(name for name in stored if name.endswith(SCALE))
        scale = stored.pop(name)
        return stored if fault == "absent" else stored | {name: scale[:1]}

    monkeypatch.setattr(model.checkpoint, "quantize", forge)
    save(tmp_path / "forged", network, METADATA, compact=True)
    with pytest.raises(UserError, match=r"forged: found .* in 8 bits without a scale for each of its \d+ rows"):
        load(tmp_path / "forged")


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_beside(checkpoint, network):
    before = file_sha256(checkpoint)
    save(checkpoint, network, METADATA)
    assert file_sha256(checkpoint) == before
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_a_failed_write_leaves_the_old_file_and_no_rest(checkpoint, network, monkeypatch):
    before = checkpoint.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="disk full"):
        save(checkpoint, network, replace(METADATA, recipe="dynamic"))
    assert checkpoint.read_bytes() == before
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_metadata_of_another_network_is_not_written(tmp_path, network):
    with pytest.raises(ValueError, match="width=8"):
        save(tmp_path / "a", network, replace(METADATA, architecture=Architecture("resnet", 8, blocks=1)))
    assert not list(tmp_path.iterdir())


def test_one_changed_byte_in_the_tensors_is_noticed(checkpoint):
    contents = bytearray(checkpoint.read_bytes())
    contents[-10] ^= 1
    checkpoint.write_bytes(contents)
    with pytest.raises(UserError, match=r"a\.safetensors.*altered"):
        load(checkpoint)


def test_a_rewritten_origin_is_noticed(checkpoint):
    contents = checkpoint.read_bytes()
    assert contents.count(b"simulated cells") == 1
    checkpoint.write_bytes(contents.replace(b"simulated cells", b"real HeLa cells"))
    with pytest.raises(UserError, match="altered"):
        load(checkpoint)


def test_tensors_of_another_architecture_are_named(tmp_path, network):
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors["decoders.golgi.last.bias"] = tensors.pop("decoders.actin.last.bias")
    tensors["encoder.first.weight"] = torch.zeros(8, 1, 7, 7)
    path = tmp_path / "a.safetensors"
    path.write_bytes(_pack(tensors, METADATA.to_dict()))
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert "1 missing (decoders.actin.last.bias)" in message
    assert "1 unexpected (decoders.golgi.last.bias)" in message
    assert "encoder.first.weight [8, 1, 7, 7] instead of [4, 1, 7, 7]" in message


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_truncated_file_is_a_user_error(checkpoint, kept):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    for read in (load, read_metadata):
        with pytest.raises(UserError, match=r"a\.safetensors"):
            read(checkpoint)


def test_what_is_no_checkpoint_is_a_user_error(tmp_path):
    (tmp_path / "text").write_text("not a checkpoint, though long enough to hold the length of a header")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "pickle")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    (tmp_path / "folder").mkdir()
    for name in ("text", "pickle", "foreign", "folder", "absent"):
        with pytest.raises(UserError, match=name):
            load(tmp_path / name)
    with pytest.raises(UserError, match="absent"):
        file_sha256(tmp_path / "absent")


def test_another_format_version_is_a_user_error(tmp_path, network):
    path = tmp_path / "a.safetensors"
    path.write_bytes(_pack(network.state_dict(), METADATA.to_dict(), version=2))
    with pytest.raises(UserError, match="found a checkpoint of format 2, expected format 1"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"window": "wide"},
        {"modalities": ["XRAY"]},
        {"trained_on": " "},
        {"labels": {"PC": []}},
        {"pixel_size_um": [0.2, 0.1]},
        {"pixel_size_um": []},
        {"architecture": ARCHITECTURE.to_dict() | {"width": 10**9}},
        {"architecture": {"network": "resnet"}},
        {"architecture": None},
    ],
)
def test_metadata_without_sense_is_a_user_error(tmp_path, network, change):
    path = tmp_path / "a.safetensors"
    path.write_bytes(_pack(network.state_dict(), METADATA.to_dict() | change))
    with pytest.raises(UserError, match="metadata"):
        load(path)
