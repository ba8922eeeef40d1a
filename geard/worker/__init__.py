"""What runs inside a worker process: capabilities, jobs, channels and the pool that holds them.

Plain blocking code on socket and threading, but for `process`, which patches them."""

from geard.worker.current import current_job
from geard.worker.job import Job
from geard.worker.pool import WorkerPool
from geard.worker.worker import Worker

__all__ = ["Job", "Worker", "WorkerPool", "current_job"]
