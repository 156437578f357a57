from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.labels import Modality, Organelle
from model.networks.architecture import Architecture
from model.networks.build import NETWORKS, build
from model.networks.dynamic_convolution import DynamicConv2d, modality_code
from model.networks.foreground import CERTAIN, FAINT, OPEN, STEEPNESS, Foreground
from model.networks.generator import ResnetGenerator
from model.networks.layers import InstanceNorm, ResizeConv2d, SinglePlaneConv2d, without_checkerboard

CODE = modality_code([Modality.BF, Modality.DIC])


@pytest.fixture(params=NETWORKS)
def kind(request):
    return request.param


@pytest.fixture
def x():
    return torch.rand(2, 1, 64, 48, generator=torch.Generator().manual_seed(3))


def tiny(kind, **changes):
    torch.manual_seed(0)
    return build(Architecture(kind, 4, blocks=2, **changes))


def heads_of(network):
    return network.decoders if hasattr(network, "decoders") else network.heads


def test_shape_range_and_determinism_in_eval_mode(kind, x):
    network = tiny(kind, dropout=0.5).eval()
    prediction = network(x)
    assert prediction.shape == (2, 4, 64, 48)
    assert prediction.abs().max() <= 1
    assert torch.equal(prediction, network(x))
    assert not any(m.training for m in network.modules() if isinstance(m, nn.Dropout))


def test_dropout_acts_in_training_only(kind, x):
    with_dropout, without = tiny(kind, dropout=0.5), tiny(kind)
    assert not torch.equal(with_dropout.train()(x), with_dropout(x))
    assert torch.equal(with_dropout.eval()(x), without.eval()(x))
    assert torch.equal(without.train()(x), without.eval()(x))


def test_samples_do_not_mix(kind, x):
    network = tiny(kind).eval()
    assert torch.allclose(network(x)[1:], network(x[1:]), atol=1e-6)


def test_labelled_pairs_alone_are_predicted_as_among_all(kind, x):
    network = tiny(kind).eval()
    labelled_BO = torch.tensor([[True, False, True, False], [False, False, True, True]])
    calls = Counter()
    for name, head in heads_of(network).items():
        head.register_forward_hook(lambda _, inputs, __, name=name: calls.update({name: len(inputs[0])}))
    partly = network(x, labelled_BO=labelled_BO)
    if kind == "resnet":  # a head of the UNet++ costs nothing
        assert [calls[str(organelle)] for organelle in Organelle] == [1, 0, 2, 1]
        assert not partly[~labelled_BO].any()
    assert torch.allclose(partly[labelled_BO], network(x)[labelled_BO], atol=1e-6)


def test_the_encoder_is_what_all_heads_share(kind):
    network = tiny(kind, dynamic=True)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    encoder = [names[id(parameter)] for parameter in network.encoder_parameters()]
    assert any("first.controller" in name for name in encoder) and len(set(encoder)) == len(encoder) < len(names)
    if kind == "resnet":
        assert {name.split(".")[0] for name in encoder} == {"encoder"}
    else:
        assert {name.split(".")[1] for name in encoder if name.startswith("nodes")} == {f"{i}_0" for i in range(5)}


@pytest.mark.parametrize(
    ("kind", "count", "prefixes"),
    [
        (
            "resnet",
            12_475_780,
            {"encoder.first": 2, "encoder.down": 2, "encoder.blocks": 18}
            | {f"decoders.{organelle}": 4 for organelle in Organelle},
        ),
        (
            "unetplusplus",
            23_733_124,
            {"first.weight": 1, "first.bias": 1}
            | {f"nodes.{level}_{column}": 2 for level in range(5) for column in range(5 - level)}
            | {f"ups.{level}_{column}": 1 for level in range(4) for column in range(1, 5 - level)}
            | {f"heads.{organelle}": 2 for organelle in Organelle},
        ),
    ],
)
def test_parameters_of_the_papers_width_are_pinned(kind, count, prefixes):
    with torch.device("meta"):
        network = build(Architecture(kind, 64))
    assert sum(p.numel() for p in network.parameters()) == count
    assert Counter(".".join(key.split(".")[:2]) for key in network.state_dict()) == prefixes


def test_pix2pix_initialisation():
    torch.manual_seed(0)
    weights = torch.cat([p.flatten() for p in build(Architecture("resnet", 16)).parameters() if p.ndim > 1]).detach()
    assert abs(weights.mean()) < 1e-4
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


def test_a_subset_of_heads_gives_the_values_of_the_full_call_and_computes_no_other(kind, x):
    network = tiny(kind).eval()
    full = network(x)
    called = []
    for name, head in heads_of(network).items():
        head.register_forward_hook(lambda *_, name=name: called.append(name))
    asked = (Organelle.ACTIN, Organelle.NUCLEUS)
    subset = network(x, asked)
    assert called == ["actin", "nucleus"]
    assert torch.equal(subset, full[:, [3, 1]])


def test_a_head_that_was_not_asked_gets_no_gradient(kind, x):
    network = tiny(kind)
    network(x, [Organelle.TUBULIN]).square().mean().backward()
    for name, head in heads_of(network).items():
        gradients = [p.grad for p in head.parameters()]
        if name == "tubulin":
            assert all(g is not None and g.abs().sum() > 0 for g in gradients)
        else:
            assert all(g is None for g in gradients)
    first = network.encoder.first if kind == "resnet" else network.first
    assert first.weight.grad.abs().sum() > 0


def test_dynamic_network_depends_on_the_code_of_each_sample(kind, x):
    network = tiny(kind, dynamic=True).eval()
    same = x[:1].expand(2, -1, -1, -1)
    prediction = network(same, modality_code_B3=CODE)
    assert not torch.allclose(prediction[0], prediction[1], atol=1e-4)
    alone = network(same[:1], modality_code_B3=modality_code(Modality.DIC))
    assert torch.allclose(prediction[1:], alone, atol=1e-5)
    for code in (None, CODE[:1], CODE[:, :2]):
        with pytest.raises(ValueError, match="modality code"):
            network(same, modality_code_B3=code)


def test_static_network_ignores_the_code(kind, x):
    network = tiny(kind).eval()
    assert torch.equal(network(x), network(x, modality_code_B3=CODE))


def test_modality_code_is_one_hot_in_the_order_bf_pc_dic():
    assert modality_code(list(Modality)).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert modality_code(Modality.PC).tolist() == [[0, 1, 0]]
    with pytest.raises(ValueError, match="XRAY"):
        modality_code(["XRAY"])


def test_dynamic_convolution_is_the_generated_convolution(x):
    dynamic = DynamicConv2d(5, 3)
    generated = dynamic.controller(CODE)[1].view(5, 10)
    plain = nn.Conv2d(1, 5, 3, padding=1, padding_mode="reflect")
    plain.weight.data = generated[:, 1:].reshape(5, 1, 3, 3).detach()
    plain.bias.data = generated[:, 0].detach()
    assert torch.allclose(dynamic(x, CODE)[1:], plain(x[1:]), atol=1e-6)


def test_layers_equal_their_torch_counterparts():
    x = torch.rand(2, 6, 20, 14)
    ours, plain = SinglePlaneConv2d(6, 7), nn.Conv2d(6, 1, 7, padding=3, padding_mode="reflect")
    plain.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(x), plain(x), atol=1e-6)
    for conv in (ours, plain):
        conv(x).square().sum().backward()
    assert torch.allclose(ours.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-4)
    assert torch.allclose(InstanceNorm()(x), nn.InstanceNorm2d(6)(x), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 64, 63), (1, 1, 4, 4), (1, 2, 64, 64), (1, 64, 64)])
def test_input_of_another_shape_is_a_value_error(kind, shape):
    with pytest.raises(ValueError, match="expected"):
        tiny(kind)(torch.zeros(shape))


def test_organelles_that_are_not_there_are_a_value_error(kind, x):
    network = tiny(kind, organelles=(Organelle.NUCLEUS,))
    assert network(x).shape[1] == 1
    for asked in ([Organelle.ACTIN], []):
        with pytest.raises(ValueError, match="nucleus"):
            network(x, asked)


@pytest.mark.parametrize(
    "change",
    [
        {"network": "vit"},
        {"width": 0},
        {"width": 10**6},
        {"blocks": -1},
        {"dropout": 1.0},
        {"organelles": ()},
        {"organelles": (Organelle.ACTIN, Organelle.ACTIN)},
    ],
)
def test_an_architecture_without_sense_is_a_value_error(change):
    with pytest.raises(ValueError, match="expected"):
        Architecture(**{"network": "resnet", "width": 4, **change})


def test_architecture_survives_plain_values(kind):
    architecture = Architecture(kind, 12, (Organelle.ACTIN,), blocks=3, dynamic=True, dropout=0.25)
    values = architecture.to_dict()
    assert Architecture.from_dict(values) == architecture
    for wrong in ({**values, "depth": 3}, {**values, "width": True}, {"network": kind}):
        with pytest.raises(ValueError, match="expected"):
            Architecture.from_dict(wrong)


def test_a_resize_convolution_is_enlargement_and_convolution() -> None:
    layer, x_BCYX = ResizeConv2d(5, 3), torch.randn(2, 5, 7, 9)
    enlarged = F.interpolate(x_BCYX, scale_factor=2, mode="nearest")
    expected = F.conv2d(enlarged, layer.weight.flip(2, 3).transpose(0, 1), padding=1)
    torch.testing.assert_close(layer(x_BCYX), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_only_plain_transposed_convolutions_print_a_grid() -> None:
    def steps(upsampling: str) -> float:
        torch.manual_seed(0)
        decoder = build(Architecture("resnet", 8, blocks=0, upsampling=upsampling)).decoders["nucleus"]
        plane = decoder(torch.ones(1, 32, 32, 32))[0, 0, 32:-32, 32:-32]  # constant features, far from the border
        return float(plane.diff(dim=-1).abs().max() / plane.abs().max())

    assert max(steps("resize"), steps("filtered")) < 1e-3 and steps("transposed") > 0.1


@pytest.mark.parametrize("period_px", [2, 4])
def test_the_filter_takes_a_checkerboard_out_and_leaves_the_rest(period_px: int) -> None:
    y, x = torch.arange(64.0), torch.arange(48.0)
    smooth = torch.sin(2 * torch.pi * y / 32)[:, None] * torch.cos(2 * torch.pi * x / 48)
    grid = torch.cos(2 * torch.pi * y / period_px)[:, None] + torch.cos(2 * torch.pi * x / period_px)
    inner = (0, 0, slice(2, -2), slice(2, -2))
    filtered = without_checkerboard((smooth + grid)[None, None])
    torch.testing.assert_close(filtered[inner], without_checkerboard(smooth[None, None])[inner], atol=1e-5, rtol=0)
    assert float((filtered[inner] - smooth[2:-2, 2:-2]).abs().max()) < 0.05
    assert torch.equal(without_checkerboard(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


@torch.no_grad()
def test_the_foreground_branch_keeps_or_fades_each_organelle(kind) -> None:
    plain, network = tiny(kind).eval(), tiny(kind, foreground=True).eval()
    network.load_state_dict(network.state_dict() | plain.state_dict())
    x_B1YX, background = torch.randn(2, 1, 32, 48), network.foreground.background[0]
    near, kept = torch.sigmoid(torch.tensor([STEEPNESS * (OPEN - CERTAIN), OPEN]))
    at_first = (FAINT + (1 - FAINT) * near) * kept
    torch.testing.assert_close(
        network(x_B1YX), background + at_first * (plain(x_B1YX) - background), rtol=1e-3, atol=1e-3
    )
    network.foreground.last.bias.copy_(torch.tensor([50.0, -20.0, 50.0, -20.0]))
    mitochondria, nucleus, tubulin, actin = network(x_B1YX).unbind(1)
    torch.testing.assert_close(torch.stack([mitochondria, tubulin], 1), plain(x_B1YX)[:, ::2])
    assert torch.equal(nucleus, background.expand_as(nucleus)) and torch.equal(actin, nucleus)
    torch.testing.assert_close(network(x_B1YX, [Organelle.TUBULIN])[:, 0], tubulin)
    labelled_BO = torch.tensor([[True, True, True, False]] * 2)
    torch.testing.assert_close(network(x_B1YX, labelled_BO=labelled_BO)[:, :3], network(x_B1YX)[:, :3])


@torch.no_grad()
def test_what_is_uncertain_is_kept_beside_a_cell_and_faint_far_from_any(monkeypatch: pytest.MonkeyPatch) -> None:
    branch = Foreground(tuple(Organelle))
    branch.kept_from.fill_(-2.0)
    logits = torch.full((1, 4, 160, 160), -2.0)  # half of it is kept beside a cell
    logits[..., 70:90, 70:90] = 5.0
    monkeypatch.setattr(branch, "logits", lambda x_B1YX: logits)
    kept = branch(torch.zeros(1, 1, 1280, 1280))
    assert kept[0, :, 640, 640].min() > 0.99  # the cell
    assert (kept[0, :, 640, 440] - 0.5).abs().max() < 0.01  # beside it
    assert (kept[0, :, 200, 640] - 0.05).abs().max() < 0.01  # far from it
    logits[..., 70:90, 70:90] = -2.0
    logits[..., 80, 80] = 5.0  # dust is smaller than a cell
    assert branch(torch.zeros(1, 1, 1280, 1280))[0, :, 640, 440].max() < 0.06


@torch.no_grad()
def test_the_foreground_branch_sees_how_strong_an_input_is() -> None:
    torch.manual_seed(0)
    network = build(Architecture("resnet", 4, blocks=1, foreground=True)).eval()
    assert isinstance(network, ResnetGenerator) and network.foreground is not None
    torch.nn.init.normal_(network.foreground.last.weight)
    x_B1YX = torch.randn(1, 1, 32, 32)
    encoded, stronger = (network.encoder(factor * x_B1YX, None) for factor in (10, 100))
    torch.testing.assert_close(encoded, stronger, rtol=0, atol=1e-2)  # instance norm takes the strength away
    assert (network.foreground.logits(10 * x_B1YX) - network.foreground.logits(x_B1YX)).abs().max() > 0.1
