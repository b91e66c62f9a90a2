"""`sam logs` with a thread for each function: logs.py --stack-name NAME --tail

SAM CLI follows each log group in a thread that never ends, but has only four threads more than the machine has
processors. It would never show the logs of the other functions.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from samcli.cli.main import cli
from samcli.lib.utils import async_utils

MAX_LOG_GROUPS = 100


def new_event_loop():
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(MAX_LOG_GROUPS))
    return loop


async_utils.new_event_loop = new_event_loop
cli(prog_name="sam", args=["logs", *sys.argv[1:]])
