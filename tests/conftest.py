"""Settings of the whole test run."""

from __future__ import annotations

import os

# The models of the tests are too small to gain from threads, and idle threads of several processes that wait for
# each other cost minutes on a small machine. Spawned processes inherit this. It must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
