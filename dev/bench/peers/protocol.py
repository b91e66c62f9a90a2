"""How `make bench-peers` talks to a worker: it starts `fill TASKS` or `work TASKS BATCH STEP`, and
measures the process between the lines that the latter prints."""

import os
import sys

URL = os.environ["DATABASE_URL"]
COMMAND = sys.argv[1]
TASKS, BATCH, STEP = (int(text) for text in (sys.argv[2:] + ["0", "0"])[:3])


class Counter:
    """Counts the tasks that were performed."""

    def __init__(self):
        self.count = 0

    def performed(self) -> bool:
        """True for the last one."""
        self.count += 1
        if self.count % STEP == 0 and self.count < TASKS:
            print(f"at {self.count}", flush=True)
        return self.count == TASKS


def begin():
    print("ready", flush=True)
    sys.stdin.readline()


def end(counter: Counter):
    print(f"stopped {counter.count}", flush=True)
    sys.stdin.read()


def parts(total: int, size: int = 5000):
    """`total` in parts of at most `size`."""
    for done in range(0, total, size):
        yield min(size, total - done)
