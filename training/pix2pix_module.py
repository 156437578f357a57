"""One optimiser step, as the paper has it: predict, improve the discriminators, improve the generator, average."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.errors import UserError
from model.networks.build import Network, build
from model.networks.dynamic_convolution import modality_code
from model.precision import Precision
from training.batches import Batch
from training.config import TrainingConfig
from training.discriminator import Discriminators
from training.distributed import copy_from_first_rank, rank, sum_gradients, sum_over_ranks
from training.loss import adversarial_loss, correlation_loss, labelled_pairs, weighted_l1

Weights = tuple[Tensor, ...] | list[Tensor]


class Pix2PixModule:
    """The generator, one discriminator per organelle (where the recipe has a GAN), their Adams, and the EMA.

    Parameters
    ----------
    config : TrainingConfig
    device : torch.device
    initial : nn.Module or None
        A network of the same architecture, with or without foreground branch, whose weights to begin with.

    Attributes
    ----------
    network : Network
        What is trained.
    averaged : AveragedModel or None
        Exponential moving average (EMA) of its weights, where the configuration asks for one.
    discriminators : Discriminators or None
        None without a GAN.
    steps : int
        Steps taken.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, initial: nn.Module | None = None) -> None:
        self.config = config
        self.device = device
        self.precision = choose_precision(config, device)
        # cuDNN multiplies 16-bit numbers channels last, and so do compiled networks on CPUs. Others
        # take twice as long so there, in the gradient of instance normalization (benchmarks/training.py).
        channels_last = device.type == "cuda" or config.compile
        layout = torch.channels_last if channels_last else torch.contiguous_format
        # Gradients of fp16 would underflow without it; it skips a step whose gradients overflow.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is Precision.FP16)
        self.network = build(config.architecture).to(device, memory_format=layout).train()  # type: ignore[call-overload]
        if initial is not None:
            # A foreground branch that it does not have yet keeps its random start.
            self.network.load_state_dict(self.network.state_dict() | initial.state_dict())
        if config.freeze == "encoder":
            for parameter in self.network.encoder_parameters():
                parameter.requires_grad_(False)
        copy_from_first_rank(self.network)
        self.averaged = _moving_average(self.network, config.ema) if config.ema else None
        self.discriminators: Discriminators | None = None
        if config.lambda_gan:
            self.discriminators = Discriminators(config.architecture.organelles, config.discriminator_width)
            self.discriminators.to(device, memory_format=layout)  # type: ignore[call-overload]
            copy_from_first_rank(self.discriminators)
        self.steps = 0
        self._modules: dict[str, nn.Module] = {"network": self.network}
        if self.averaged is not None:
            self._modules["averaged"] = self.averaged
        self._optimisers = {"generator": self._adam(self.network)}
        if self.discriminators is not None:
            self._modules["discriminators"] = self.discriminators
            self._optimisers["discriminators"] = self._adam(self.discriminators)
        if config.compile:
            # In place, so that weights keep their names.
            for module in (self.network, *(self.discriminators or {}).values()):
                module.compile()

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self.config.learning_rate, betas=(self.config.beta1, 0.999))

    @property
    def eval_network(self) -> Network:
        """The network to validate and to ship: the averaged one where there is one."""
        return self.network if self.averaged is None else cast(Network, self.averaged.module)

    def step(self, batch: Sequence[Batch], lr_factor: float) -> dict[str, float]:
        """Learn from one batch, of which the other ranks have other parts.

        Optimisers skip parameters without a gradient, so an organelle that nothing labels changes neither its
        decoder nor its discriminator, nor their running moments.

        Parameters
        ----------
        batch : sequence of Batch
            This rank's parts of the batch, on any device.
        lr_factor : float
            Multiplier of the learning rate.

        Returns
        -------
        dict of str to float
            Unweighted losses of the whole batch by name, the same on all ranks.

        Raises
        ------
        UserError
            Where a loss is not finite any more.
        """
        parts = [part.to(self.device) for part in batch]
        self._set_learning_rate(lr_factor)
        if len(parts) == 1:
            prediction = self._predict_to_learn(parts, 0)
            losses = self.discriminator_step(parts, [prediction.detach()]) | self.generator_step(parts, [prediction])
        else:
            # Memory holds one part's graph, so each is predicted again for the generator, with the same dropout.
            without_graph = torch.no_grad()(self._predict_to_learn)
            losses = self.discriminator_step(parts, (without_graph(parts, i) for i in range(len(parts))))
            losses |= self.generator_step(parts, (self._predict_to_learn(parts, i) for i in range(len(parts))))
        self.scaler.update()
        self.update_ema()
        self.steps += 1
        losses = dict(zip(losses, sum_over_ranks(list(losses.values())), strict=True))
        if not all(map(math.isfinite, losses.values())):
            raise UserError(f"A loss is not finite at step {self.steps} ({losses}), try a lower --learning-rate.")
        return losses

    def _predict_to_learn(self, parts: Sequence[Batch], i: int) -> Tensor:
        # Dropout follows from seed, step and part: no random state runs along, and no two parts drop the same.
        seeds = np.random.SeedSequence(self.config.seed, spawn_key=(self.steps, rank() * len(parts) + i))
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        return self.predict(self.network.train(), parts[i])

    def predict(self, network: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Predict the batch's organelles, (B, C, Y, X) float32; those of unlabelled pairs are not to be used."""
        code_B3 = modality_code(batch.modalities).to(self.device) if self.config.architecture.dynamic else None
        with self.precision.on(self.device):
            prediction = network(batch.x_B1YX, batch.organelles, code_B3, batch.labelled_BC)
        return prediction.float()

    def discriminator_step(self, parts: Sequence[Batch], predictions: Iterable[Tensor]) -> dict[str, float]:
        """Improve each organelle's discriminator on its labelled targets and predictions (paper, section 2.3)."""
        if self.discriminators is None:
            return {}
        self.discriminators.requires_grad_(True)
        return self._descend("discriminators", parts, predictions, self.discriminator_loss)

    def discriminator_loss(self, batch: Batch, prediction_BCYX: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Half the sum of both kinds of error; returned as by `generator_loss`."""
        real = adversarial_loss(self._discriminate(batch, batch.y_BCYX), real=True)
        fake = adversarial_loss(self._discriminate(batch, prediction_BCYX), real=False)
        loss = 0.5 * (real + fake)
        return loss, {"discriminator": loss}

    def generator_step(self, parts: Sequence[Batch], predictions: Iterable[Tensor]) -> dict[str, float]:
        """Improve the generator by the adaptive loss (paper, equation 2)."""
        return self._descend("generator", parts, predictions, self.generator_loss)

    def generator_loss(self, batch: Batch, prediction_BCYX: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum what the generator descends: the paper's equation 2, and the correlation where asked for.

        Returns
        -------
        loss : Tensor
            Scalar.
        parts : dict of str to Tensor
            Its terms before they were weighted.
        """
        config = self.config
        predicted = labelled_pairs(prediction_BCYX, batch.labelled_BC)
        wanted = labelled_pairs(batch.y_BCYX, batch.labelled_BC)
        weights, parts = {}, {}
        if config.lambda_l1:
            weights["l1"], parts["l1"] = config.lambda_l1, weighted_l1(predicted, wanted, config.outside_weight)
        if config.lambda_correlation:
            weights["correlation"] = config.lambda_correlation
            parts["correlation"] = correlation_loss(predicted, wanted)
        if self.discriminators is not None:
            # They are only asked here: gradients for their own weights would be thrown away.
            self.discriminators.requires_grad_(False)
            weights["gan"] = config.lambda_gan
            parts["gan"] = adversarial_loss(self._discriminate(batch, prediction_BCYX), real=True)
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum(), parts

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights towards the present ones, where the configuration asks for an average."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def _discriminate(self, batch: Batch, y_BCYX: Tensor) -> list[Tensor]:
        assert self.discriminators is not None
        with self.precision.on(self.device):
            logits = self.discriminators.discriminate(batch.x_B1YX, y_BCYX, batch.labelled_BC, batch.organelles)
        return [entry.float() for entry in logits]

    def _set_learning_rate(self, factor: float) -> None:
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * factor

    def _descend(
        self,
        name: str,
        parts: Sequence[Batch],
        predictions: Iterable[Tensor],
        loss_of: Callable[[Batch, Tensor], tuple[Tensor, dict[str, Tensor]]],
    ) -> dict[str, float]:
        """Take one step down the whole batch's loss, whose gradient is the sum over all parts of all ranks.

        Returns this rank's share of the unweighted losses.
        """
        optimiser = self._optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        losses: dict[str, float] = defaultdict(float)
        for part, prediction_BCYX in zip(parts, predictions, strict=True):
            loss, terms = loss_of(part, prediction_BCYX)
            self.scaler.scale(part.share * loss).backward()  # type: ignore[no-untyped-call]
            for term, value in terms.items():
                losses[term] += part.share * float(value.detach())
        sum_gradients(parameter for group in optimiser.param_groups for parameter in group["params"])
        self.scaler.step(optimiser)
        return dict(losses)

    def state(self) -> dict[str, Any]:
        """Everything a step changes; tensors and plain types only."""
        return {
            "steps": self.steps,
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` returned."""
        self.steps = state["steps"]
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        if state["scaler"]:  # empty where the precision needed none
            self.scaler.load_state_dict(state["scaler"])


def choose_precision(config: TrainingConfig, device: torch.device) -> Precision:
    """Return the precision asked for, or the fastest that learns as well: fp16 does so with a scaled loss."""
    if config.precision != "auto":
        return Precision(config.precision)
    fastest = Precision.fastest(device)
    return Precision.FP16 if fastest is Precision.FP32 and device.type == "cuda" else fastest


def _moving_average(network: Network, decay: float) -> AveragedModel:
    """An EMA whose decay is smaller at first: a young average would otherwise be mostly the random start."""

    def average(averaged: Weights, current: Weights, updates: Tensor | int) -> None:
        step = int(updates) + 1
        move = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        move(averaged, current, updates)

    return AveragedModel(network, multi_avg_fn=average).eval().requires_grad_(False)
