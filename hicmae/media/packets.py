"""The packets of one stream: held in memory, or read again from the file as they are needed.

An hour of film has gigabytes of packets. Of a large file only their times are kept; windows go forwards, and so does
the second reading, a stretch of which is remembered because decoders go back to the last key frame.
"""

from __future__ import annotations

import bisect
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard

from hicmae.media.large_file import changed_file

NO_STAMP = -(2**63)
"""Stands for a time that a packet lacks."""
REMEMBERED_BYTES = 24 << 20
"""Packets of a large file that are kept behind the last one read, and more where the last key frame lies further back.
Going back beyond them reads the file again from its begin."""
MOST_REMEMBERED_BYTES = 512 << 20
"""However far back the last key frame lies."""


class Packets(Protocol):
    """Packets by position, in decoding order."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Packet[Any]: ...

    def stamps(self, kind: str) -> npt.NDArray[np.int64]:
        """``pts`` or ``dts`` of each, int64, ``NO_STAMP`` where there is none."""

    def shown(self) -> list[int]:
        """Positions of those that are presented (edit lists hide some)."""

    def keys_until(self, position: int) -> list[int]:
        """Positions of key frames up to this one, ascending."""

    def duration(self, position: int) -> int:
        """How long one is presented, in ticks; 0 where it does not say."""


class HeldPackets:
    """Packets in memory."""

    def __init__(self, packets: Iterable[Packet[Any]] = ()) -> None:
        self._packets = list(packets)
        self.append = self._packets.append

    def __len__(self) -> int:
        return len(self._packets)

    def __getitem__(self, position: int) -> Packet[Any]:
        return self._packets[position]

    def stamps(self, kind: str) -> npt.NDArray[np.int64]:
        """See ``Packets``."""
        values = [packet.dts for packet in self._packets] if kind == "dts" else [packet.pts for packet in self._packets]
        if None in values:
            values = [NO_STAMP if value is None else value for value in values]
        return np.array(values, dtype=np.int64)

    def shown(self) -> list[int]:
        """See ``Packets``."""
        return [position for position, packet in enumerate(self._packets) if not packet.is_discard]

    def keys_until(self, position: int) -> list[int]:
        """See ``Packets``."""
        return [place for place in range(position + 1) if self._packets[place].is_keyframe]

    def duration(self, position: int) -> int:
        """See ``Packets``."""
        return self._packets[position].duration or 0


class RereadPackets:
    """Packets of a large file: what they say in memory, what they hold read again.

    Args:
        reopen: opens the file once more.
        stream: number of the stream in it.
        name: what errors call the file.
    """

    def __init__(self, reopen: Callable[[], InputContainer], stream: int, name: str) -> None:
        self._reopen, self._stream, self._name = reopen, stream, name
        self._pts, self._dts, self._durations = array("q"), array("q"), array("q")
        self._hidden, self._keys = array("q"), array("q")
        self._container: InputContainer | None = None
        self._coming: Iterator[Packet[Any]] = iter(())
        self._kept: deque[Packet[Any]] = deque()
        self._first = 0  # position of the first one kept
        self._bytes = 0

    def append(self, packet: Packet[Any]) -> None:
        """Note the next packet of the first reading."""
        position = len(self._pts)
        self._pts.append(NO_STAMP if packet.pts is None else packet.pts)
        self._dts.append(NO_STAMP if packet.dts is None else packet.dts)
        self._durations.append(packet.duration or 0)
        if packet.is_discard:
            self._hidden.append(position)
        if packet.is_keyframe:
            self._keys.append(position)

    def __len__(self) -> int:
        return len(self._pts)

    def __getitem__(self, position: int) -> Packet[Any]:
        if not 0 <= position < len(self):
            raise IndexError(position)
        if self._container is None or position < self._first:
            self._begin()
        while position >= self._first + len(self._kept):
            self._read()
        return self._kept[position - self._first]

    def stamps(self, kind: str) -> npt.NDArray[np.int64]:
        """See ``Packets``."""
        return np.array(self._dts if kind == "dts" else self._pts, dtype=np.int64)

    def shown(self) -> list[int]:
        """See ``Packets``."""
        shown = np.ones(len(self), dtype=bool)
        shown[np.array(self._hidden, dtype=np.int64)] = False
        return np.flatnonzero(shown).tolist()

    def keys_until(self, position: int) -> list[int]:
        """See ``Packets``."""
        keys = np.frombuffer(self._keys, dtype=np.int64) if self._keys else np.zeros(0, dtype=np.int64)
        return keys[: np.searchsorted(keys, position, side="right")].tolist()

    def duration(self, position: int) -> int:
        """See ``Packets``."""
        return self._durations[position]

    def close(self) -> None:
        """Close the second reading."""
        if self._container is not None:
            self._container.close()
        self._container, self._coming = None, iter(())
        self._kept.clear()

    def _begin(self) -> None:
        self.close()
        self._container = self._reopen()
        for stream in self._container.streams:
            if stream.index != self._stream:
                stream.discard = Discard.all
        self._coming = real_packets(self._container, [self._container.streams[self._stream]])
        self._first = self._bytes = 0

    def _read(self) -> None:
        packet = next(self._coming, None)
        position = self._first + len(self._kept)
        stamp = None if packet is None else NO_STAMP if packet.pts is None else packet.pts
        if packet is None or stamp != self._pts[position]:
            raise changed_file(
                self._name, f"packet {position} of stream {self._stream} is not the one that was there before"
            )  # fmt: skip
        self._kept.append(packet)
        self._bytes += packet.size
        key = self._keys[max(0, bisect.bisect_right(self._keys, position) - 1)] if self._keys else position
        while self._bytes > (REMEMBERED_BYTES if self._first < key else MOST_REMEMBERED_BYTES) and len(self._kept) > 1:
            self._bytes -= self._kept.popleft().size
            self._first += 1


def real_packets(container: InputContainer, streams: list[Any]) -> Iterator[Packet[Any]]:
    """The packets of these streams in the file's order, without PyAV's own end marks."""
    # Without streams, demux() would read them all.
    for packet in container.demux(streams) if streams else ():
        if packet.dts is None and packet.pts is None and not packet.size:
            continue
        yield packet
