"""Keeps torch out of the router's process.

transformers imports torch when it is installed: two seconds and half a gigabyte that the router's
tokenizer and chat templates never use. Its image is built without torch; on a developer's machine,
where one environment serves all, this makes it look the same.
"""

from __future__ import annotations

import logging
import sys


def forbid_torch() -> None:
    """Make `import torch` fail in this process. Call it before anything imports transformers."""
    if sys.modules.get("torch") is None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what import takes for "blocked"
    logging.getLogger("transformers").addFilter(_is_no_torch_advice)


def _is_no_torch_advice(record: logging.LogRecord) -> bool:
    # "PyTorch was not found. Models won't be available": as intended.
    return not record.getMessage().startswith("PyTorch was not found")
