"""One predictor a device: planes go to whichever device is free."""

import logging
import queue
from collections.abc import Sequence

from .devices import computes
from .plan import NetworkInputs, NetworkOutputs
from .predictor import Predictor

log = logging.getLogger(__name__)


class DevicePool:
    """Runs networks on several devices; `forward` may be called from as many threads as there are predictors.

    Parameters
    ----------
    predictors : sequence of Predictor
        Alike but for their device, so that a plane's prediction does not depend on the one that is free.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self._working = list(predictors)
        self._free: queue.SimpleQueue[Predictor] = queue.SimpleQueue()
        for predictor in predictors:
            self._free.put(predictor)

    def forward(self, inputs: NetworkInputs) -> NetworkOutputs:
        """Run `Predictor.forward` on the next free device.

        An error is the plane's; a device that does not compute any more is left out from then on, unless it is the
        last one.
        """
        predictor = self._free.get()
        try:
            return predictor.forward(inputs)
        except Exception:
            if len(self._working) > 1 and not computes(predictor.device):
                self._working.remove(predictor)
                log.warning("The device %s does not compute any more; the others go on.", predictor.device)
            raise
        finally:
            if predictor in self._working:
                self._free.put(predictor)
