"""What every test relies on."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell starts background jobs with SIGINT ignored, and the processes that we start would inherit
# that: Ctrl-C tests would wait for ever. A handler of ours is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example takes as long as the machine is busy; tests as a whole have a limit.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
