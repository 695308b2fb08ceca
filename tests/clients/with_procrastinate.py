"""The job queue procrastinate, unmodified: workers that LISTEN, on a pool of 5.

The workers look for jobs at their start and when they are notified, and otherwise every ten minutes
only: a job that is done was heard of.
"""

import asyncio
import os
import sys

from procrastinate import App, PsycopgConnector

OPTIONS = {
    "host": "127.0.0.1",
    "port": os.environ["PGIMBAL_PORT"],
    "user": "scram",
    "password": "scram-secret",
    "dbname": "app",
}
WORKERS = 4
JOBS = 40

done = []


def queue():
    app = App(connector=PsycopgConnector(kwargs=OPTIONS, min_size=1, max_size=4))

    @app.task(name="add", queue="sums")
    async def add(number, to):
        done.append(number + to)

    return app, add


async def is_done(add, number, seconds):
    """Defers a job and says whether it is done within so many seconds."""
    await add.defer_async(number=number, to=1000)
    try:
        async with asyncio.timeout(seconds):
            while number + 1000 not in done:
                await asyncio.sleep(0.005)
    except TimeoutError:
        return False
    return True


async def main():
    apps = [queue() for _ in range(WORKERS)]
    opened = [await app.open_async() for app, _ in apps]
    await apps[0][0].schema_manager.apply_schema_async()
    workers = [
        asyncio.create_task(
            app.run_worker_async(
                queues=["sums"],
                concurrency=3,
                fetch_job_polling_interval=600,
                abort_job_polling_interval=600,
                install_signal_handlers=False,
            )
        )
        for app, _ in apps
    ]
    producer, add = queue()
    async with producer.open_async():
        # A worker that does not listen yet would not hear of a job.
        print("look at listeners", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(JOBS):
            # Each by itself: the worker that has done the last one has nothing left to look for.
            assert await is_done(add, number, 20), number
        assert sorted(done) == [1000 + number for number in range(JOBS)], done
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    for app in opened:
        await app.close_async()
    print("all done")


asyncio.run(main())
