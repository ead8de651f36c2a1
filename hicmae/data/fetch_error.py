"""The error of data that do not come."""

from __future__ import annotations


class FetchError(OSError):
    """Remote data cannot be had, after all attempts. Not a bad clip that could be skipped: the job ends."""
