"""Starts ministack, and teaches it what this project needs and it lacks (as of 1.5.33).

Environments are bounded: at the bound the one that has been idle longest makes room. ministack keeps idle ones for minutes
and has no bound, but each has a connection to Postgres, and Postgres has 200 of those. Invocations are bounded, too: those
of a burst wait for their turn, and are throttled (429) only after most of API Gateway's 29 seconds. Started all at once, they
would take so long on a laptop that Postgres seemed unavailable to them.

`/_task-api/folder` says whose emulator this is, so that a stack does not take another one's for its own.

`Method: ANY` of an API event becomes `x-amazon-apigateway-any-method` in the OpenAPI definition that SAM
generates; ministack imports the methods of HTTP only, though it can serve ANY.

`GatewayResponses` become `x-amazon-apigateway-gateway-responses` in it; ministack can serve them, too, but does not
import them.
"""

import os
import threading
from pathlib import Path

from ministack import app as application
from ministack.core import lambda_runtime
from ministack.services import apigateway_v1, lambda_svc

# With each connected once, half of Postgres's connections stay free.
MAX_ENVIRONMENTS = 100

# As many as two cores start within the two seconds that a function waits for a connection.
MAX_INVOCATIONS = 16
LONGEST_WAIT_SECONDS = 20

ANY_IN_OPENAPI = "x-amazon-apigateway-any-method"
GATEWAY_RESPONSES_IN_OPENAPI = "x-amazon-apigateway-gateway-responses"

turns = threading.BoundedSemaphore(MAX_INVOCATIONS)
acquire_worker = lambda_runtime.acquire_worker
execute = lambda_svc._execute_function_provided_warm
serve = application.app
import_path_item = apigateway_v1._import_path_item
import_rest_api = apigateway_v1._import_rest_api


def acquire_worker_within_bound(*function, **options):
    worker, reason = acquire_worker(*function, **options)
    if reason == "spawn":
        lambda_runtime.kill_workers(take_surplus())
    return worker, reason


def execute_in_turn(function, event, request_id):
    if not turns.acquire(timeout=LONGEST_WAIT_SECONDS):
        return lambda_svc._throttle_response(
            reason_code="ConcurrentInvocationLimitExceeded",
            msg=f"{MAX_INVOCATIONS} invocations run, as many as there may be at a time",
        )
    try:
        return execute(function, event, request_id)
    finally:
        turns.release()


def take_surplus():
    """Takes the environments that are above the bound from their pools, those that have been idle longest first."""
    with lambda_runtime._lock:
        pools = lambda_runtime._workers.values()
        surplus = sum(map(len, pools)) - MAX_ENVIRONMENTS
        idle = [worker for pool in pools for worker in pool if not worker.in_use]
        taken = sorted(idle, key=lambda worker: worker.last_used)[: max(0, surplus)]
        for pool in pools:
            pool[:] = [worker for worker in pool if worker not in taken]
    return taken


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


lambda_svc.acquire_worker = acquire_worker_within_bound
lambda_svc._execute_function_provided_warm = execute_in_turn
application.app = serve_with_folder
apigateway_v1._OPENAPI_HTTP_METHODS.add("any")
apigateway_v1._import_path_item = import_path_item_with_any
apigateway_v1._import_rest_api = import_rest_api_with_gateway_responses

if __name__ == "__main__":
    application.main()
