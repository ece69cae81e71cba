"""Do many independent tasks: in this process, in worker processes of this machine, or on a Dask cluster.

Nothing here knows what a task is. Workers of this machine listen on 127.0.0.1 only, and speak TLS with keys made for
the occasion: a scheduler without keys would run the code of any other user of the machine.

On a cluster, start workers where this package is installed, one thread each, and name their scheduler::

    from dask_jobqueue import SLURMCluster          # pip install dask-jobqueue; on the login node

    cluster = SLURMCluster(
        queue="normal", cores=1, processes=1, memory="8GB", walltime="04:00:00",
        python=".venv/bin/python",                  # this workbook's environment, on a shared file system
        job_script_prologue=["export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1"],
        # one GPU for each worker: job_extra_directives=["--gres=gpu:1"]; Slurm then shows each job its own card
    )
    cluster.scale(jobs=64)
    print(cluster.scheduler_address)                # make sweep PLAN=… SCHEDULER=tcp://10.0.0.1:43567
    input("Enter ends the cluster.")

``KubeCluster`` (dask-kubernetes), ``SSHCluster`` and ``LocalCUDACluster`` (dask-cuda: one worker for each GPU) print
an address in the same way. Such a scheduler trusts its network; give it TLS through Dask's own settings
(``distributed.comm.require-encryption``) where others share that network, and write ``tls://``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from xai_utils import check
from xai_utils.sweep.sources import PACKAGE

#: environment of the workers of this machine; Dask's own would have every freed tensor given back to the system at
#: once (MALLOC_TRIM_THRESHOLD_), which makes a pass of a small model a sixth slower
WORKER = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)

#: of workers of this machine; the second is how long a worker that was killed may take to start again, before Dask
#: counts it as gone for good: 15 seconds of its own are too few beside other work
LOCAL = {"distributed.nanny.pre-spawn-environ": WORKER, "distributed.deploy.lost-worker-timeout": "10 minutes"}

LOST = "the scheduler was lost in mid-run. What had finished is kept: start again."
GONE = (
    "all workers are gone, and no new one has come for {:g} s; were they out of memory? What had finished is kept: "
    "start again, with fewer workers on a small machine."
)


@dataclass(frozen=True)
class Where:
    """Where tasks are done.

    Attributes:
        workers: processes on this machine; 1 stays in this process.
        scheduler: address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``; then its workers are taken.
        connect: seconds within which the scheduler has to answer.
        join: seconds within which its first worker has to join; a queue may take hours.
        lost: seconds that the work waits for a new worker once all are gone.
    """

    workers: int = 1
    scheduler: str = ""
    connect: float = 5.0
    join: float = 60.0
    lost: float = 120.0

    def __post_init__(self) -> None:
        check.at_least_one("workers", self.workers)
        if self.scheduler and not self.scheduler.startswith(("tcp://", "tls://", "ucx://", "ws://", "wss://")):
            raise ValueError(f"scheduler is {self.scheduler!r}, expected an address such as tcp://10.0.0.1:8786.")


def each(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    where: Where | None = None,
    before: Callable[[], object] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield ``(number of the task, its result or its exception)``, in the order in which they are done.

    A task whose worker dies is given to another one; one whose workers die four times comes back as an exception.

    Args:
        function: of one task; a function of an importable module, as are the types of the tasks.
        tasks: what to do.
        where: this process, by default.
        before: called once on every worker, to see whether it is fit; its exception ends everything.

    Raises:
        ConnectionError: the scheduler does not answer, has no worker, or is lost; or all workers are.
        RuntimeError: a worker lacks this package, or is not fit.
    """
    where = where or Where()
    if not tasks:
        return
    if where.workers == 1 and not where.scheduler:
        yield from _here(function, tasks)
        return
    with _client(where) as client:
        _fit(client, before)
        yield from _there(client, function, tasks, where.lost)


def place() -> int:
    """Return which worker of this machine this process is, from 0; 0 where a cluster has named its workers itself.

    Such clusters hand out GPUs themselves: Slurm and ``LocalCUDACluster`` show each worker its own card only.
    """
    import distributed

    try:
        name = distributed.get_worker().name
    except ValueError:  # not a worker
        return 0
    return name if isinstance(name, int) else 0


def _here(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    for number, task in enumerate(tasks):
        try:
            result = function(task)
        except Exception as error:  # handed to the caller, who keeps it with the task
            result = error
        yield number, result


def _there(client: Any, function: Callable[[Any], Any], tasks: Sequence[Any], lost: float) -> Iterator[tuple[int, Any]]:
    """Take each result once it is here: one that went with its worker is made again, as a task is."""
    import distributed

    number = {future: n for n, future in enumerate(client.map(function, tasks, pure=False))}
    done = distributed.as_completed(list(number), loop=client.loop, with_results=True, raise_errors=False)
    while number:
        _wait(client, done, lost)
        future, found = next(done)
        result = found[1] if future.status == "error" else found  # of type, exception and traceback
        if isinstance(result, CancelledError):
            raise ConnectionError(LOST)
        yield number.pop(future), result
        future.release()


def _wait(client: Any, done: Any, lost: float) -> None:
    """Return once a result is here, or raise once there has been no worker, or no scheduler, for ``lost`` seconds."""
    there = time.monotonic()
    while not done.has_ready():
        connected = client.status == "running"
        if connected and client.scheduler_info()["workers"]:
            there = time.monotonic()
        elif time.monotonic() - there > lost:
            raise ConnectionError(GONE.format(lost) if connected else LOST)
        time.sleep(0.02)


@contextmanager
def _client(where: Where) -> Iterator[Any]:
    import dask
    import distributed

    if not where.scheduler:
        with (
            dask.config.set(LOCAL),
            distributed.LocalCluster(
                n_workers=where.workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                security=distributed.Security.temporary(),
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    with _connect(where) as client:
        try:
            client.wait_for_workers(1, timeout=where.join)
        except TimeoutError:
            raise ConnectionError(
                f"the scheduler {where.scheduler} answers but has had no worker for {where.join:g} s. Start some "
                f"(dask worker {where.scheduler} --nthreads 1), or wait longer where a queue hands them out."
            ) from None
        yield client


def _connect(where: Where) -> Any:
    import distributed

    try:
        return distributed.Client(where.scheduler, timeout=where.connect, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no scheduler answers at {where.scheduler} within {where.connect:g} s. Is it running (dask scheduler), "
            "reachable from here, and of this version of dask? Without SCHEDULER the work is done on this machine."
        ) from error


def _fit(client: Any, before: Callable[[], object] | None) -> None:
    """Refuse workers that could only fail: every task would come back as the same error."""
    found = client.run(find_spec, PACKAGE.name)
    if without := sorted(address for address, spec in found.items() if spec is None):
        raise RuntimeError(
            f"{len(without)} of {len(found)} workers lack the package {PACKAGE.name} (such as {without[0]}). Start "
            "workers with the Python that has it: pip install -e . there, or the same .venv on a shared file system."
        )
    if before is not None:
        client.run(before)
