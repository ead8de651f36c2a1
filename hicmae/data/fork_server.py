"""Imported by the fork server alone: it outlives a SIGTERM to all processes of a job.

Workers end when their parent changes, so a fork server that a signal ends takes all of them along. Processes that it
forks begin as usual, since pools and other code end theirs by that signal; data workers then see to themselves
(``processes.live_as_long_as_the_job``).
"""

from __future__ import annotations

import os
import signal


def _obey_again() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.register_at_fork(after_in_child=_obey_again)
