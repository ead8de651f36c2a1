from __future__ import annotations

from hicmae.data.processes import obey_signals, worker_context


def test_pools_of_the_fork_server_end() -> None:
    # Leaving a pool ends its processes by SIGTERM, which the fork server blocks for the sake of data workers.
    for _ in range(3):
        with worker_context().Pool(2, initializer=obey_signals) as pool:  # type: ignore[attr-defined]
            assert pool.map(abs, [-1, -2, 3]) == [1, 2, 3]
