"""Settings of the whole test run."""

from __future__ import annotations

import os

from hypothesis import settings

# The models of the tests are too small to gain from threads, and idle threads of several processes that wait for
# each other cost minutes on a small machine. Spawned processes inherit this. It must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, so that a change is judged by what it changed; HICMAE_FUZZ=1 looks for new ones.
settings.register_profile("steady", derandomize=True)
if not os.environ.get("HICMAE_FUZZ"):
    settings.load_profile("steady")
