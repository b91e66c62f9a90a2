"""pgqueuer, with BATCH jobs a fetch."""

import asyncpg
import uvloop
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from protocol import BATCH, COMMAND, TASKS, URL, Counter, begin, end, parts


async def main():
    connection = await asyncpg.connect(URL)
    queries = Queries(AsyncpgDriver(connection))
    if COMMAND == "fill":
        if TASKS == 0:
            await queries.install()
        for size in parts(TASKS):
            payload = b'{"title":"Process user data"}'
            await queries.enqueue(["noop"] * size, [payload] * size, [0] * size)
        return
    manager, counter = QueueManager(queries), Counter()

    @manager.entrypoint("noop")
    async def noop(job: Job) -> None:
        if counter.performed():
            manager.shutdown.set()

    begin()
    await manager.run(batch_size=BATCH)
    end(counter)


uvloop.run(main())
