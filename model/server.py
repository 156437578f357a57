"""Invoke mode: predict over HTTP, as Grand Challenge does with containers that stay up between cases.

GET /health answers 200 once all networks are loaded. POST /invoke predicts what is in the input folder now: 201, or
500 with one sentence that says what was wrong, or at once 503 while another case is predicted. Port 4743.
Takes the options of inference.py. Exit code: 0 stopped between cases, 2 it could not be started, 130 interrupted.
"""

import argparse
import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from http import HTTPStatus
from typing import NoReturn

from .batch import predict_cases
from .command_line import log_outcomes, only_predictions, open_predictors
from .commands import DONE, INTERRUPTED, NOT_BEGUN, log_to_standard_streams, one_sentence
from .discovery import discover
from .errors import UserError
from .files import prepare_folder
from .http_server import HttpServer, Response
from .memory import tune_malloc
from .options import batch_options, parse
from .predictor import Predictor

PORT = 4743
SENDING_S = 2.0
"""How long the end of the process waits for the last response to be sent."""

WAKE_UP_S = 0.5
"""How often an idle server looks for signals: one that arrives just before it waits does not end the wait."""

log = logging.getLogger(__name__)


class Service:
    """One case after the other.

    Cases are predicted by a call of `run`, which is to be in the main thread: a signal then interrupts them. `respond`
    is called in the threads of connections.
    """

    def __init__(self, predictors: Sequence[Predictor], options: argparse.Namespace) -> None:
        self.predictors = predictors
        self.options = options
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Future[Response]] = queue.SimpleQueue()
        self._latest: Future[Response] | None = None
        self._stopped = False

    def respond(self, method: str, path: str) -> Response:
        """Answer one request; POST /invoke waits for its case."""
        match method, path:
            case "GET" | "HEAD", "/health":
                return Response(HTTPStatus.OK, "ready")
            case "POST", "/invoke":
                return self._invoke()
        return Response(HTTPStatus.NOT_FOUND, f"{method} {path}: expected GET /health or POST /invoke")

    def run(self) -> NoReturn:
        """Predict case by case until interrupted; call `stop` then."""
        while True:
            try:
                invocation = self._waiting.get(timeout=WAKE_UP_S)
            except queue.Empty:
                continue
            invocation.set_result(self._predict())

    def stop(self) -> bool:
        """Refuse further cases, answer the one that was interrupted, and let the response be sent.

        Returns
        -------
        bool
            Whether a case was interrupted.
        """
        with self._lock:
            self._stopped, latest = True, self._latest
        if latest is None:
            return False
        interrupted = not latest.done()
        if interrupted:
            message = "interrupted: the server was stopped before the case was predicted"
            latest.set_result(Response(HTTPStatus.INTERNAL_SERVER_ERROR, message))
        latest.result().sent.wait(SENDING_S)
        return interrupted

    def _invoke(self) -> Response:
        with self._lock:
            if self._stopped or (self._latest is not None and not self._latest.done()):
                what = "the server is being stopped" if self._stopped else "another case is being predicted"
                return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{what}, expected one POST /invoke at a time")
            invocation: Future[Response] = Future()
            self._latest = invocation
            self._waiting.put(invocation)
        return invocation.result()

    def _predict(self) -> Response:
        """Predict what is in the input folder."""
        try:
            cases = discover(self.options.input, self.options.output)
            prepare_folder(self.options.output)
            with closing(predict_cases(cases, self.predictors, batch_options(self.options))) as outcomes:
                summary = log_outcomes(outcomes, len(cases), self.options)
        except Exception as error:  # the server must be ready for the next case
            message = one_sentence(error)
            log.error(message)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        if summary.code == DONE:
            return Response(HTTPStatus.CREATED, str(summary))
        if summary.code == NOT_BEGUN:
            log.error(only_predictions(self.options.input))
        failures = summary.failures or [summary.preview_failure or only_predictions(self.options.input)]
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, failures[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is interrupted.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.

    Returns
    -------
    int
        The exit code, see `commands`.
    """
    options = parse(arguments, __doc__)
    tune_malloc()
    log_to_standard_streams()
    try:
        return serve(options)
    except KeyboardInterrupt:
        log.error("Interrupted.")
        return INTERRUPTED
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN


def serve(options: argparse.Namespace) -> int:
    """Open the predictor and answer requests; raises UserError where that cannot be begun."""
    with open_predictors(options) as predictors:
        service = Service(predictors, options)
        try:
            server = HttpServer(PORT, service.respond)
        except OSError as error:
            raise UserError(f"Port {PORT}: it cannot be used ({error.strerror}), expected a free port.") from error
        with server:
            for predictor in predictors:
                predictor.load_networks()
            try:
                server.listen()
                log.info("Ready for cases on port %d.", PORT)
                service.run()
            except KeyboardInterrupt:
                if service.stop():
                    log.error("Interrupted. The case that was being predicted has been answered with an error.")
                    return INTERRUPTED
                log.info("Stopped.")
                return DONE
