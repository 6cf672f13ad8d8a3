"""Logs of the modelling library."""

from __future__ import annotations

from transformers.utils import logging as hf_logging


def log_as_the_process_does() -> None:
    """From now on transformers logs through the root logger, in the form that the process chose.

    By itself it writes plain lines to stderr, which whoever reads JSON stumbles over.
    """
    hf_logging.disable_default_handler()
    hf_logging.enable_propagation()
