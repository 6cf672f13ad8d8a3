"""What transformers logs comes in the form that the process chose."""

from __future__ import annotations

import json
import subprocess
import sys

from redserve.spec.settings import base_environment

CODE = """
from redserve.telemetry.log import configure
configure("info", "json", "router")
from redserve.modeling.library_logs import log_as_the_process_does
log_as_the_process_does()
from transformers.utils import logging
logging.get_logger("transformers.somewhere").warning("a word of the library")
"""


def test_lines_of_transformers_are_lines_of_the_process() -> None:
    environment = base_environment({})
    environment.pop("CI", None)  # with it transformers behaves by itself
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert told["event"] == "a word of the library"
    assert (told["level"], told["process"]) == ("warning", "router")
