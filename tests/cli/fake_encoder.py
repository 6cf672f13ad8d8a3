"""`python -m tests.cli.fake_encoder`."""

from __future__ import annotations

from redserve.spec.settings import EncoderSettings
from tests.cli.fake_pool import run

if __name__ == "__main__":
    run(EncoderSettings)
