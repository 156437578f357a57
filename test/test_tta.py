import pytest
import torch
from torch import Tensor

from model.tta import average_predictions, predict_with_tta, quarter_turns

IMAGE_1YX = torch.arange(15, dtype=torch.float32).reshape(1, 3, 5)
ALL = quarter_turns(4)


@pytest.mark.parametrize("rotations", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 2), (4, 4)])
def test_identity_network_comes_out_unchanged(shape: tuple[int, int], rotations: int) -> None:
    image = torch.rand(1, *shape)
    assert torch.equal(predict_with_tta(lambda x: x, image, (0,))[0], image)
    assert (predict_with_tta(lambda x: x, image, quarter_turns(rotations))[0] - image).abs().max() <= 1e-6


def test_the_image_plane_is_turned_and_turned_back() -> None:
    """Fault of the published code: the batch and channel axes were turned, which turns nothing."""
    seen: list[Tensor] = []

    def shift_down(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.roll(x, 1, dims=1)

    result, _ = predict_with_tta(shift_down, IMAGE_1YX, ALL)
    assert [tuple(x.shape) for x in seen] == [(1, 3, 5), (1, 5, 3), (1, 3, 5), (1, 5, 3)]
    assert [x[0, 0, 0].item() for x in seen] == [0, 4, 14, 10]  # each corner in turn becomes the first
    neighbours = [torch.roll(IMAGE_1YX, step, dims=axis) for axis in (1, 2) for step in (1, -1)]
    assert torch.allclose(result, torch.stack(neighbours).mean(0))


def test_two_rotations_are_opposite() -> None:
    result, _ = predict_with_tta(lambda x: torch.roll(x, 1, dims=2), IMAGE_1YX, quarter_turns(2))
    assert torch.allclose(result, (torch.roll(IMAGE_1YX, 1, 2) + torch.roll(IMAGE_1YX, -1, 2)) / 2)


@pytest.mark.parametrize(
    ("rotations", "members", "expected"),
    [
        (4, 1, [(0, 1, 2, 3)]),
        (4, 2, [(0, 2), (1, 3)]),
        (2, 2, [(0,), (1,)]),
        (4, 3, [(0,), (1,), (2,)]),
        (4, 4, [(0,), (1,), (2,), (3,)]),
        (1, 1, [(0,)]),
    ],
)
def test_the_networks_of_an_ensemble_share_the_turns(rotations: int, members: int, expected: list) -> None:
    assert [quarter_turns(rotations, member, members) for member in range(members)] == expected


def test_rotated_prediction_commutes_with_rotation() -> None:
    """Whatever the network, the mean over all four turns is equivariant to quarter turns."""
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    with torch.inference_mode():
        straight, _ = predict_with_tta(network, IMAGE_1YX, ALL)
        turned, _ = predict_with_tta(network, torch.rot90(IMAGE_1YX, 1, (1, 2)), ALL)
    assert torch.allclose(torch.rot90(straight, 1, (1, 2)), turned, atol=1e-5)


def test_the_input_is_left_alone() -> None:
    before = IMAGE_1YX.clone()
    predict_with_tta(lambda x: x, IMAGE_1YX, ALL)
    assert torch.equal(IMAGE_1YX, before)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="1, 2 or 4, got 3"):
        quarter_turns(3)
    with pytest.raises(ValueError, match="at most 2 networks"):
        quarter_turns(2, 0, 3)
    with pytest.raises(ValueError, match="keep the plane's shape"):
        predict_with_tta(lambda x: x[:, 1:], IMAGE_1YX, (0,))


@pytest.mark.parametrize("rotations", [2, 4])
def test_the_deviation_is_that_of_the_turned_predictions(rotations: int) -> None:
    def uneven(x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[-1])
        return torch.cat([0.5 * ramp * x, x - 0.9 + 0.001 * ramp])

    image = torch.rand(1, 7, 5)
    turns = quarter_turns(rotations)
    separate = [torch.rot90(uneven(torch.rot90(image, k, (1, 2))), -k, (1, 2)) for k in turns]
    mean, std = predict_with_tta(uneven, image, turns)
    assert std is not None
    assert torch.allclose(mean, torch.stack(separate).mean(0), atol=1e-6)
    assert torch.allclose(std, torch.stack(separate).std(0, correction=0), atol=1e-5)


def test_one_rotation_has_no_deviation_and_equivariant_networks_have_none_either() -> None:
    assert predict_with_tta(lambda x: x, IMAGE_1YX, (0,))[1] is None
    std = predict_with_tta(lambda x: 0.3 * x, IMAGE_1YX, ALL)[1]
    assert std is not None and std.abs().max() == 0


def test_scales_are_averaged_on_the_grid_of_the_first() -> None:
    first, larger = torch.full((2, 4, 6), 0.25), torch.full((2, 7, 9), 0.75)
    mean, std = average_predictions([(first, None), (larger, None)])
    assert mean.shape == (2, 4, 6) and torch.allclose(mean, torch.full_like(mean, 0.5))
    assert std is not None and torch.allclose(std, torch.full_like(mean, 0.25))


def test_one_scale_is_what_it_was() -> None:
    mean, std = torch.rand(2, 4, 6), torch.rand(2, 4, 6)
    found = average_predictions([(mean, std)])
    assert torch.equal(found[0], mean) and found[1] is not None and torch.allclose(found[1], std)
    assert average_predictions([(mean, None)])[1] is None


def test_the_deviation_is_that_of_all_rotations_of_all_scales() -> None:
    members = torch.rand(3, 2, 1, 4, 6)  # scales, rotations
    mean, std = average_predictions((of_scale.mean(0), of_scale.std(0, correction=0)) for of_scale in members)
    everything = members.flatten(0, 1)
    assert torch.allclose(mean, everything.mean(0), atol=1e-6)
    assert std is not None and torch.allclose(std, everything.std(0, correction=0), atol=1e-6)
