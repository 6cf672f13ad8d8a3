"""`python -m tests.cli.fake_llm`."""

from __future__ import annotations

from redserve.spec.settings import LLMSettings
from tests.cli.fake_pool import run

if __name__ == "__main__":
    run(LLMSettings)
