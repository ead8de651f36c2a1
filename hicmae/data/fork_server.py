"""Imported by the fork server alone: it outlives a SIGTERM to all processes of a job, and its workers begin so.

Workers end when their parent changes, so a fork server that a signal ends takes all of them along.
"""

from __future__ import annotations

import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
