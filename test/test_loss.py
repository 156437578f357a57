"""The adaptive loss, and the discriminators it is completed by."""

import numpy as np
import pytest
import torch

from model.labels import Modality, Organelle
from model.precision import Precision
from training.batches import Batch
from training.config import TrainingConfig
from training.discriminator import Discriminators, PatchDiscriminator
from training.loss import adversarial_loss, correlation_loss, labelled_pairs, weight_map, weighted_l1
from training.pix2pix_module import Pix2PixModule, choose_precision

M, N, T, A = Organelle
CPU = torch.device("cpu")


def config(**changes) -> TrainingConfig:
    small = {"width": 2, "blocks": 1, "discriminator_width": 2, "crop": 32, "window": 32, "lambda_correlation": 2.0}
    return TrainingConfig(**({"modality": "BF"} | small | changes))


def batch(labelled: list[list[bool]], organelles: tuple[Organelle, ...], size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor(labelled)
    x = torch.rand(len(labelled), 1, size, size, generator=generator) * 2 - 1
    y = torch.rand(*mask.shape, size, size, generator=generator) * 2 - 1
    return Batch(x, y, mask, organelles, (Modality.BF,) * len(labelled))


def test_weights_are_put_on_per_pixel_before_any_average() -> None:
    # 1000 grey levels: the percentiles 2 and 99.8 lie at 19.98 and 997.002.
    target = torch.arange(1000.0).reshape(1, 20, 50)
    weights = weight_map(target, 0.1).flatten()
    assert (weights[:20] == 0.1).all() and (weights[20:998] == 1).all() and (weights[998:] == 0.1).all()
    low, high = np.percentile(target, (2, 99.8))
    assert torch.equal(weights == 1, ((target >= low) & (target <= high)).flatten())
    # The same error costs a tenth where the weight is a tenth: an average taken first could not tell.
    error = torch.zeros_like(target).flatten()
    inside, outside = error.clone(), error.clone()
    inside[500], outside[999] = 7.0, 7.0
    cost = [float(weighted_l1(target + e.reshape(target.shape), target, 0.1)) for e in (inside, outside)]
    assert cost == pytest.approx([7 / 1000, 0.7 / 1000], rel=1e-4)


def test_weights_belong_to_each_pair_and_a_blank_target_counts_fully() -> None:
    dim, bright = torch.rand(2, 1, 16, 16)
    both = weight_map(torch.cat([dim, 100 * bright + 50]), 0.1)
    assert torch.equal(both, torch.cat([weight_map(dim, 0.1), weight_map(100 * bright + 50, 0.1)]))
    assert (weight_map(torch.full((1, 8, 8), -1.0), 0.1) == 1).all()
    assert (weight_map(bright, 1.0) == 1).all()


def test_correlation_loss_is_one_minus_pearson() -> None:
    a, b = torch.rand(2, 3, 16, 16)
    expected = np.mean([1 - np.corrcoef(p.ravel(), t.ravel())[0, 1] for p, t in zip(a.numpy(), b.numpy(), strict=True)])
    assert float(correlation_loss(a, b)) == pytest.approx(expected, abs=1e-5)
    assert float(correlation_loss(3 * b - 5, b)) == pytest.approx(0, abs=1e-5)
    for prediction, target in ((torch.zeros(1, 8, 8), b[:1, :8, :8]), (b[:1, :8, :8], torch.ones(1, 8, 8))):
        prediction = prediction.clone().requires_grad_()
        loss = correlation_loss(prediction, target)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(1) and torch.isfinite(prediction.grad).all()


def test_adversarial_loss_weighs_pairs_not_discriminators() -> None:
    three, one = torch.zeros(3, 1, 2, 2), torch.full((1, 1, 2, 2), 4.0)
    softplus = [np.log(2), np.log1p(np.exp(-4))]
    assert float(adversarial_loss([three, one], real=True)) == pytest.approx((3 * softplus[0] + softplus[1]) / 4)


@pytest.mark.parametrize("gan", [0.0, 1.0])
def test_partially_labelled_batch_has_the_loss_of_its_labelled_subset(gan: float) -> None:
    module = Pix2PixModule(config(lambda_gan=gan), CPU)
    whole = batch([[True, False], [True, True], [True, False]], (M, N))
    prediction = module.predict(module.network, whole)
    total, _ = module.generator_loss(whole, prediction)
    # Nonsense under an unlabelled target changes nothing.
    nonsense = whole.y_BCYX.masked_fill(~whole.labelled_BC[:, :, None, None], float("nan"))
    spoilt = Batch(whole.x_B1YX, nonsense, whole.labelled_BC, whole.organelles, whole.modalities)
    assert torch.equal(module.generator_loss(spoilt, prediction)[0], total)
    # One organelle's samples, and the other's, each fully labelled; weighted by their numbers of pairs.
    parts = []
    for c, organelle in enumerate(whole.organelles):
        has = whole.labelled_BC[:, c]
        subset = Batch(
            whole.x_B1YX[has], whole.y_BCYX[has, c, None], whole.labelled_BC[has, c, None], (organelle,),
            (Modality.BF,) * int(has.sum()),
        )  # fmt: skip
        parts.append((int(has.sum()), float(module.generator_loss(subset, prediction[has, c, None])[0].detach())))
    expected = sum(n * loss for n, loss in parts) / sum(n for n, _ in parts)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_prediction_skips_unlabelled_samples_and_changes_no_labelled_one() -> None:
    module = Pix2PixModule(config(), CPU)
    module.precision = Precision.FP32
    partly = batch([[True, False, False], [True, True, False], [False, True, True]], (M, A, T))
    prediction = module.predict(module.network, partly)
    whole = module.network(partly.x_B1YX, partly.organelles)
    assert torch.allclose(prediction[partly.labelled_BC], whole[partly.labelled_BC], atol=1e-6)
    assert not prediction[~partly.labelled_BC].any()


@pytest.mark.parametrize("every_decoder", [False, True])
def test_gradient_of_an_unlabelled_decoder_is_exactly_zero(every_decoder: bool) -> None:
    module = Pix2PixModule(config(), CPU)
    partly = batch([[True, False, False, False], [False, False, True, False]], tuple(Organelle))
    # Even where all four decoders are computed, only the labelled may move.
    prediction = module.network(partly.x_B1YX) if every_decoder else module.predict(module.network, partly)
    total, _ = module.generator_loss(partly, prediction)
    total.backward()
    for organelle in Organelle:
        gradients = [p.grad for p in module.network.decoders[organelle.value].parameters()]
        moved = any(g is not None and g.any() for g in gradients)
        assert moved == (organelle in (M, T)), organelle


@pytest.mark.parametrize("recipe", ["pix2pix", "unetplusplus", "dynamic"])
def test_step_leaves_unlabelled_heads_and_discriminators_as_they_were(recipe: str) -> None:
    module = Pix2PixModule(config(recipe=recipe, lambda_gan=float(recipe == "pix2pix")), CPU)
    module.step([batch([[True, True, True, True]], tuple(Organelle))], 1.0)  # Adam has moments for all of them
    before = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in module._modules.items()}
    module.step([batch([[True, False], [True, True]], (M, N))], 1.0)
    for name, part in module._modules.items():
        for key, value in part.state_dict().items():
            if any(f"{o.value}." in key for o in (T, A)):
                assert torch.equal(value, before[name][key]), key
            if f"{M.value}." in key and key.endswith("weight"):
                assert not torch.equal(value, before[name][key]), key


def weights(module: Pix2PixModule) -> dict[str, torch.Tensor]:
    return {f"{name}.{k}": v.clone() for name, part in module._modules.items() for k, v in part.state_dict().items()}


def test_fp16_scales_its_losses_and_skips_a_step_that_overflows() -> None:
    torch.manual_seed(0)
    module = Pix2PixModule(config(precision="fp16"), CPU)
    small = batch([[True, True]], (M, N))
    reference = Pix2PixModule(config(precision="fp32"), CPU)
    reference.restore(module.state() | {"scaler": {}})
    before = weights(module)
    module.scaler.load_state_dict(module.scaler.state_dict() | {"scale": 2.0**10})
    losses, expected = (each.step([small], 1.0) for each in (module, reference))
    for name in ("l1", "correlation", "discriminator"):  # of the same weights in both
        assert losses[name] == pytest.approx(expected[name], rel=1e-3)
    assert module.scaler.get_scale() == 2**10 and reference.scaler.get_scale() == 1
    moved = "network.decoders.nucleus.last.weight"
    assert not torch.equal(weights(module)[moved], before[moved])
    torch.testing.assert_close(weights(module)[moved], weights(reference)[moved], rtol=0, atol=5e-5)
    before = weights(module)
    module.scaler.load_state_dict(module.scaler.state_dict() | {"scale": 2.0**100})
    module.step([small], 1.0)
    assert module.scaler.get_scale() == 2.0**99
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())
    again = Pix2PixModule(config(precision="fp16"), CPU)
    again.restore(module.state())
    assert again.scaler.get_scale() == 2.0**99


def test_precision_is_the_one_asked_for_or_16_bit_on_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for has_bf16, expected in ((True, Precision.BF16), (False, Precision.FP16)):
        monkeypatch.setattr("model.precision.bfloat16_is_faster", lambda _, has_bf16=has_bf16: has_bf16)
        assert choose_precision(config(), cuda) is expected
        assert choose_precision(config(), CPU) is (Precision.BF16 if has_bf16 else Precision.FP32)
        assert choose_precision(config(precision="fp32"), cuda) is Precision.FP32


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_under_the_same_names() -> None:
    plain, compiled = (
        Pix2PixModule(config(compile=choice, precision="fp32", lambda_gan=0.0), CPU) for choice in (False, True)
    )
    compiled.restore(plain.state())
    everything = batch([[True, True], [True, True]], (M, N))
    for _ in range(3):
        assert compiled.step([everything], 1.0) == pytest.approx(plain.step([everything], 1.0), rel=1e-5)
    assert weights(compiled).keys() == weights(plain).keys()
    counters = torch._dynamo.utils.counters["stats"]
    assert counters["unique_graphs"] > 0, "it was compiled"


def test_discriminator_sees_patches_of_70_pixels_of_input_and_target() -> None:
    discriminator = PatchDiscriminator(4)
    # Instance norm sees the whole image; without it, what is left is the receptive field of the convolutions.
    for i, layer in enumerate(discriminator.layers):
        if isinstance(layer, torch.nn.InstanceNorm2d):
            discriminator.layers[i] = torch.nn.Identity()
        elif isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.constant_(layer.weight, 1.0)
    y = torch.rand(1, 1, 256, 256, requires_grad=True)
    x = torch.rand(1, 1, 256, 256, requires_grad=True)
    logits = discriminator(x, y)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    for gradient in (x.grad, y.grad):
        rows = gradient[0, 0].any(1).nonzero()
        assert int(rows.max() - rows.min()) + 1 == 70


def test_discriminators_are_asked_only_about_what_is_labelled() -> None:
    discriminators = Discriminators(Organelle, 2)
    partly = batch([[True, False, False], [True, True, False]], (M, N, T))
    logits = discriminators.discriminate(partly.x_B1YX, partly.y_BCYX, partly.labelled_BC, partly.organelles)
    assert [len(entry) for entry in logits] == [2, 1]


def test_pairs_are_what_is_labelled() -> None:
    values = torch.arange(4.0).reshape(2, 2, 1, 1)
    assert labelled_pairs(values, torch.tensor([[True, False], [False, True]])).flatten().tolist() == [0, 3]


def test_averaged_weights_follow_with_a_decay_that_grows() -> None:
    module = Pix2PixModule(config(ema=0.6, lambda_gan=0.0), CPU)
    assert module.eval_network is not module.network
    key = "decoders.nucleus.last.weight"
    expected = None
    for step in range(1, 9):
        module.step([batch([[True], [True]], (N,))], 1.0)
        decay = min(0.6, (1 + step) / (10 + step))
        now = module.network.state_dict()[key].clone()
        expected = now if expected is None else decay * expected + (1 - decay) * now
        torch.testing.assert_close(module.eval_network.state_dict()[key], expected)
    assert decay == 0.5 and not torch.equal(expected, now)
    assert not any(parameter.requires_grad for parameter in module.eval_network.parameters())


@pytest.mark.parametrize("recipe", ["pix2pix", "unetplusplus"])
def test_a_step_learns(recipe: str) -> None:
    """Steps on one batch bring the loss down; without one the generator's and discriminators' steps stay apart."""
    torch.manual_seed(0)
    module = Pix2PixModule(
        config(recipe=recipe, width=8, lambda_gan=float(recipe == "pix2pix"), learning_rate=2e-3), CPU
    )
    smooth = batch([[True]], (N,))
    smooth.y_BCYX.copy_(smooth.x_B1YX * 0.5)
    losses = [module.step([smooth], 1.0) for _ in range(25)]
    assert losses[-1]["l1"] < 0.7 * losses[0]["l1"]
    assert ("discriminator" in losses[0]) == ("gan" in losses[0]) == (recipe == "pix2pix")
