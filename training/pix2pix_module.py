"""One optimiser step: the networks, their losses and optimisers, with all the state that a step changes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.networks.build import Network, build
from model.networks.dynamic_convolution import modality_code
from model.networks.generator import ResnetGenerator
from model.precision import Precision
from training.batches import Batch
from training.config import TrainingConfig
from training.discriminator import Discriminators
from training.loss import adversarial_loss, correlation_loss, labelled_pairs, weighted_l1


class Pix2PixModule:
    """The generator, one discriminator per organelle (where the recipe has a GAN), and two Adams."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.precision = Precision.fastest(device)  # half the time in bfloat16, which needs no loss scaling
        self.architecture = config.architecture()
        self.network = build(self.architecture).to(device).train()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False) if config.ema else None
        self.discriminators: Discriminators | None = None
        if config.lambda_gan:
            self.discriminators = Discriminators(self.architecture.organelles, config.discriminator_width).to(device)
        self.steps = 0
        self._modules: dict[str, nn.Module] = {"network": self.network}
        if self.averaged is not None:
            self._modules["averaged"] = self.averaged
        self._optimisers = {"generator": self._adam(self.network)}
        if self.discriminators is not None:
            self._modules["discriminators"] = self.discriminators
            self._optimisers["discriminators"] = self._adam(self.discriminators)

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self.config.learning_rate, betas=(self.config.beta1, 0.999))

    @property
    def eval_network(self) -> Network:
        """The network to validate and to ship: the averaged one where there is one."""
        return self.network if self.averaged is None else self.averaged

    def start_from(self, network: nn.Module) -> None:
        """Begin with another network's weights (same architecture)."""
        for target in filter(None, (self.network, self.averaged)):
            target.load_state_dict(network.state_dict())

    def predict(self, network: Network, batch: Batch) -> Tensor:
        """(B, C, Y, X) float32 for the organelles of the batch; the other decoders are not computed.

        Where a decoder is an organelle's own (ResNet), it is not computed for unlabelled samples either: zeros.
        """
        code = modality_code(batch.modalities).to(self.device) if self.architecture.dynamic else None
        with self.precision.on(self.device):
            if isinstance(network, ResnetGenerator) and not batch.labelled_BC.all():
                return self._predict_labelled(network, batch, code)
            prediction: Tensor = network(batch.x_B1YX, batch.organelles, code)
        return prediction.float()

    @staticmethod
    def _predict_labelled(network: ResnetGenerator, batch: Batch, code_B3: Tensor | None) -> Tensor:
        features = network.encoder(batch.x_B1YX, code_B3)
        prediction_BCYX = torch.zeros_like(batch.y_BCYX)
        for c, organelle in enumerate(batch.organelles):
            has = batch.labelled_BC[:, c]
            # Samples are independent under instance norm, so this equals the whole batch's forward pass.
            prediction_BCYX[has, c] = network.decoders[organelle.value](features[has])[:, 0].float()
        return prediction_BCYX

    def step(self, batch: Batch, lr_factor: float) -> dict[str, float]:
        """Learn from one batch (on any device); return the unweighted losses by name.

        Optimisers skip parameters without a gradient, so an organelle that nothing labels changes neither its
        decoder nor its discriminator, nor their running moments.
        """
        batch = batch.to(self.device)
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * lr_factor
        self.network.train()
        prediction = self.predict(self.network, batch)
        losses = {}
        if self.discriminators is not None:
            losses["discriminator"] = self._step_discriminators(batch, prediction.detach())
        total, parts = self.generator_loss(batch, prediction)
        self._optimisers["generator"].zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self._optimisers["generator"].step()
        self.steps += 1
        self._average()
        losses |= {name: float(part.detach()) for name, part in parts.items()}
        if not all(value == value and abs(value) != float("inf") for value in losses.values()):
            raise UserError(
                f"the loss is no longer finite at step {self.steps} ({losses}), try a lower --learning-rate"
            )
        return losses

    def generator_loss(self, batch: Batch, prediction_BCYX: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum to descend, and its parts: paper equation 2, plus the correlation where asked for."""
        predicted = labelled_pairs(prediction_BCYX, batch.labelled_BC)
        wanted = labelled_pairs(batch.y_BCYX, batch.labelled_BC)
        terms = {
            "l1": (self.config.lambda_l1, lambda: weighted_l1(predicted, wanted)),
            "correlation": (self.config.lambda_correlation, lambda: correlation_loss(predicted, wanted)),
            "gan": (self.config.lambda_gan, lambda: self._adversarial_term(batch, prediction_BCYX)),
        }
        parts = {name: term() for name, (weight, term) in terms.items() if weight}  # type: ignore[no-untyped-call]
        total = torch.stack([terms[name][0] * part for name, part in parts.items()]).sum()
        return total, parts

    def _adversarial_term(self, batch: Batch, prediction_BCYX: Tensor) -> Tensor:
        assert self.discriminators is not None
        # The judges are only asked here; gradients for their own weights would be thrown away.
        self.discriminators.requires_grad_(False)
        return adversarial_loss(self._discriminate(batch, prediction_BCYX), real=True)

    def _step_discriminators(self, batch: Batch, prediction_BCYX: Tensor) -> float:
        assert self.discriminators is not None
        self.discriminators.requires_grad_(True)
        real = adversarial_loss(self._discriminate(batch, batch.y_BCYX), real=True)
        fake = adversarial_loss(self._discriminate(batch, prediction_BCYX), real=False)
        loss = 0.5 * (real + fake)
        self._optimisers["discriminators"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimisers["discriminators"].step()
        return float(loss.detach())

    def _discriminate(self, batch: Batch, y_BCYX: Tensor) -> list[Tensor]:
        assert self.discriminators is not None
        with self.precision.on(self.device):
            logits = self.discriminators.judge(batch.x_B1YX, y_BCYX, batch.labelled_BC, batch.organelles)
        return [judged.float() for judged in logits]

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        # A young average would otherwise be mostly the random start.
        decay = min(self.config.ema, (1 + self.steps) / (10 + self.steps))
        for average, parameter in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)

    def state(self) -> dict[str, Any]:
        """Everything a step changes, torch's random state (dropout) included; tensors and plain types only."""
        return {
            "steps": self.steps,
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` returned."""
        self.steps = state["steps"]
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
