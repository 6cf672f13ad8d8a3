"""The profile that tries harder: `pytest tests/scheduling --hypothesis-profile=thorough`."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
