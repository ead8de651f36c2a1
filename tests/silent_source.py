"""Sources whose data stops coming."""

from __future__ import annotations

import os
import time
from typing import Any

from hicmae.data.source import ManifestSource

STUCK = "clip005"


class SilentSource(ManifestSource):
    """Reading one of its clips never ends."""

    def read(self, number: int) -> Any:
        if self.info(number).clip_id == STUCK:
            time.sleep(1000)
        return super().read(number)


class DeadlySource(ManifestSource):
    """Reading one of its clips ends the process."""

    def read(self, number: int) -> Any:
        if self.info(number).clip_id == STUCK:
            os._exit(1)
        return super().read(number)


class SlowSource(ManifestSource):
    """One of its clips takes longer than one of the loader's waits."""

    def read(self, number: int) -> Any:
        if self.info(number).clip_id == STUCK:
            time.sleep(6)
        return super().read(number)
