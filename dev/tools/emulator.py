"""Starts the emulator, ministack, with patches for what this project needs and it lacks (as of 1.5.33).

Execution environments are limited: at the limit the one that has been idle longest is stopped. ministack has no limit and
keeps idle environments for minutes, but each has a connection to Postgres, which allows 200. Concurrent invocations are also
limited: those of a burst queue, and are throttled (429) after most of API Gateway's 29 seconds. Started all at once, they
would take so long on a laptop that connections to Postgres time out.

`/_task-api/folder` returns the folder that owns this emulator, so that a stack does not use another stack's.

`Method: ANY` of an API event becomes `x-amazon-apigateway-any-method` in the OpenAPI definition that SAM
generates; ministack imports only HTTP methods, though it can serve ANY.

`GatewayResponses` become `x-amazon-apigateway-gateway-responses` in that definition; ministack can also serve them, but does
not import them.

Invocations are recorded for `make invoke` while the stack's folder has a folder `invocations`, which `make dev` creates: the last
ten of each function, of at most 256 KB, without credentials.

Compressed bodies (gzip, deflate) are decompressed, as by API Gateway if the API has `MinimumCompressionSize`; ministack passes
them on, as text in which most bytes are replaced.
"""

import json
import os
import threading
import time
import zlib
from pathlib import Path

from ministack import app as application
from ministack.core import lambda_runtime
from ministack.services import apigateway_v1, lambda_svc

# With one connection each, half of Postgres's connections stay free.
MAX_ENVIRONMENTS = 100

# As many as two cores can start within a function's connection timeout of two seconds.
MAX_INVOCATIONS = 16
MAX_WAIT_SECONDS = 20

MAX_RECORDS = 10
MAX_RECORD_BYTES = 256 * 1024

# What proves who sent a request, or who responded to it. Names in lower case.
CREDENTIALS = {
    "apikey",
    "authorization",
    "authorizationtoken",
    "cookie",
    "cookies",
    "proxy-authorization",
    "set-cookie",
    "x-amz-security-token",
    "x-api-key",
}

ANY_IN_OPENAPI = "x-amazon-apigateway-any-method"
GATEWAY_RESPONSES_IN_OPENAPI = "x-amazon-apigateway-gateway-responses"

slots = threading.BoundedSemaphore(MAX_INVOCATIONS)
acquire_worker = lambda_runtime.acquire_worker
execute = lambda_svc._execute_function_provided_warm
serve = application.app
import_path_item = apigateway_v1._import_path_item
import_rest_api = apigateway_v1._import_rest_api
handle_execute = apigateway_v1.handle_execute


def acquire_worker_within_limit(*function, **options):
    worker, reason = acquire_worker(*function, **options)
    if reason == "spawn":
        lambda_runtime.kill_workers(remove_surplus())
    return worker, reason


def execute_within_limit(function, event, request_id):
    if not slots.acquire(timeout=MAX_WAIT_SECONDS):
        return lambda_svc._throttle_response(
            reason_code="ConcurrentInvocationLimitExceeded",
            msg=f"the limit of {MAX_INVOCATIONS} concurrent invocations is reached",
        )
    started = time.monotonic()
    try:
        result = execute(function, event, request_id)
    finally:
        slots.release()
    try:
        record(function, event, result, time.monotonic() - started)
    except (OSError, TypeError, ValueError) as error:
        # A full disk, or files deleted meanwhile: no reason to fail the invocation.
        print(f"an invocation was not recorded: {error}")
    return result


def record(function, event, result, seconds):
    """Records an invocation, if the stack has a folder for that."""
    invocations = Path(os.environ["STATE_DIR"]).parent / "invocations"
    if not invocations.is_dir():
        return
    folder = invocations / (function.get("config") or function)["FunctionName"]
    folder.mkdir(mode=0o700, exist_ok=True)
    invocation = {
        "seconds": round(seconds, 6),
        "is_error": bool(result.get("error")),
        "event": without_credentials(event),
        "response": without_credentials(result.get("body")),
    }
    text = json.dumps(invocation)
    if len(text) > MAX_RECORD_BYTES:
        text = json.dumps(invocation | {"response": None})
    if len(text) > MAX_RECORD_BYTES:
        return
    # Renamed at the end, because a reader may come at any time.
    new = folder / f"{time.time_ns()}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600), "w") as file:
        file.write(text)
    new.rename(new.with_suffix(".json"))
    for old in sorted(folder.glob("*.json"))[:-MAX_RECORDS]:
        old.unlink(missing_ok=True)


def without_credentials(value):
    """A copy, in which credentials are replaced wherever they are."""
    if isinstance(value, list):
        return [without_credentials(member) for member in value]
    if isinstance(value, dict):
        return {
            name: redacted(member) if name.lower() in CREDENTIALS else without_credentials(member)
            for name, member in value.items()
        }
    return value


def redacted(value):
    """Of the same type, so that the function can read the event."""
    return [redacted(member) for member in value] if isinstance(value, list) else value and "redacted"


def remove_surplus():
    """Removes the environments above the limit from their pools, those that have been idle longest first."""
    with lambda_runtime._lock:
        pools = lambda_runtime._workers.values()
        surplus = sum(map(len, pools)) - MAX_ENVIRONMENTS
        idle = [worker for pool in pools for worker in pool if not worker.in_use]
        removed = sorted(idle, key=lambda worker: worker.last_used)[: max(0, surplus)]
        for pool in pools:
            pool[:] = [worker for worker in pool if worker not in removed]
    return removed


async def serve_with_folder(scope, receive, send):
    if scope["type"] != "http" or scope["path"] != "/_task-api/folder":
        return await serve(scope, receive, send)
    folder = str(Path(os.environ["STATE_DIR"]).parent)
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": folder.encode()})


def import_path_item_with_any(api_id, path, path_item, *security):
    path_item = {"any" if key == ANY_IN_OPENAPI else key: value for key, value in path_item.items()}
    import_path_item(api_id, path, path_item, *security)


def import_rest_api_with_gateway_responses(spec, *base_data):
    api_id = import_rest_api(spec, *base_data)
    for response_type, response in spec.get(GATEWAY_RESPONSES_IN_OPENAPI, {}).items():
        apigateway_v1._put_gateway_response(api_id, response_type, response)
    return api_id


async def handle_execute_decompressed(api_id, stage_name, method, path, headers, body, query_params):
    if str(headers.get("content-encoding")).lower() in ("gzip", "deflate"):
        try:
            body = zlib.decompress(body, wbits=zlib.MAX_WBITS | 32)  # detects the format
            headers = {name: value for name, value in headers.items() if name != "content-encoding"}
        except zlib.error:
            pass  # the function refuses it
    return await handle_execute(api_id, stage_name, method, path, headers, body, query_params)


lambda_svc.acquire_worker = acquire_worker_within_limit
lambda_svc._execute_function_provided_warm = execute_within_limit
application.app = serve_with_folder
apigateway_v1._OPENAPI_HTTP_METHODS.add("any")
apigateway_v1._import_path_item = import_path_item_with_any
apigateway_v1._import_rest_api = import_rest_api_with_gateway_responses
apigateway_v1.handle_execute = handle_execute_decompressed

if __name__ == "__main__":
    application.main()
