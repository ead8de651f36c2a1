from __future__ import annotations

import signal
import time

from hicmae.data.processes import worker_context


def test_processes_that_are_no_data_workers_end_when_told_to() -> None:
    # The fork server itself does not: it would take the data workers of a job along.
    process = worker_context().Process(target=time.sleep, args=(60,))  # type: ignore[attr-defined]
    process.start()
    time.sleep(1.0)
    process.terminate()
    process.join(20)
    assert process.exitcode == -signal.SIGTERM


def test_pools_of_the_fork_server_end() -> None:
    with worker_context().Pool(2) as pool:
        assert pool.map(abs, [-1, -2, 3]) == [1, 2, 3]  # leaving ends its processes by a signal
