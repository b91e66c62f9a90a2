"""procrastinate, which fetches jobs one by one, with BATCH of them at a time."""

import asyncio
import logging

import procrastinate
import uvloop

from protocol import BATCH, COMMAND, TASKS, URL, Counter, begin, end, parts

logging.disable()
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL, min_size=1, max_size=BATCH or 1))
counter, finished = Counter(), asyncio.Event()


@app.task(name="noop")
async def noop(title: str) -> None:
    if counter.performed():
        finished.set()


async def main():
    async with app.open_async():
        if COMMAND == "fill":
            if TASKS == 0:
                await app.schema_manager.apply_schema_async()
            for size in parts(TASKS):
                await noop.batch_defer_async(*[{"title": "Process user data"}] * size)
            return
        begin()
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=BATCH, listen_notify=False, install_signal_handlers=False)
        )
        await finished.wait()
        # Stops it gracefully.
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        end(counter)


uvloop.run(main())
