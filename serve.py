#!/usr/bin/env python3
"""Predict when asked over HTTP, as the Grand Challenge platform does with containers that stay up between cases.

GET /health answers 200 once all networks are loaded. POST /invoke predicts what is in the input folder now and
answers 201, or 500 with one sentence that says what was wrong; the server lives on either way. Port 4743.
Takes the options of inference.py.
"""

import argparse
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import waitress

from inference import in_one_sentence, log_to_standard_streams, open_predictor, parse, predict_and_report
from model.errors import UserError
from model.files import prepare_folder
from model.grand_challenge import discover
from model.memory import tune_malloc
from model.predictor import Predictor

PORT = 4743

log = logging.getLogger("inference")

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Service:
    """WSGI application (PEP 3333): one predictor, loaded once, one case after the other."""

    def __init__(self, predictor: Predictor, options: argparse.Namespace) -> None:
        self.predictor, self.options = predictor, options
        self.at_work = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case "GET" | "HEAD", "/health":
                status, message = "200 OK", "ready"
            case "POST", "/invoke":
                with self.at_work:
                    status, message = self.invoke()
            case method, path:
                status, message = "404 Not Found", f"{method} {path}: expected GET /health or POST /invoke"
        body = f"{message}\n".encode()
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]

    def invoke(self) -> tuple[str, str]:
        """Predict what is in the input folder; HTTP status and one sentence."""
        try:
            cases = discover(self.options.input, self.options.output)
            prepare_folder(self.options.output)
            failures = predict_and_report(cases, self.predictor, self.options)
        except Exception as error:  # the next case must find the server alive
            failures = [in_one_sentence(error)]
            log.error(failures[0])
        return ("500 Internal Server Error", failures[0]) if failures else ("201 Created", f"{len(cases)} predicted")


def run(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments, __doc__)
    tune_malloc()
    log_to_standard_streams()
    try:
        with open_predictor(options) as predictor:
            predictor.load_networks()
            server = waitress.create_server(Service(predictor, options), host="0.0.0.0", port=PORT, threads=2)
            log.info(f"ready for cases on port {PORT}")
            server.run()
    except UserError as error:
        log.error(str(error))
        return 2
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # waitress then lets the case in work end, and goes
    raise SystemExit(run())
