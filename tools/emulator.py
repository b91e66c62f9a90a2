"""Starts ministack, and teaches it what this project needs and it lacks (as of 1.5.33).

Environments are bounded: at the bound the one that has been idle longest makes room. ministack keeps idle ones for minutes
and has no bound, but each has a connection to Postgres, and Postgres has 200 of those.

`/_task-api/folder` says whose emulator this is, so that a stack does not take another one's for its own.

`Method: ANY` of an API event becomes `x-amazon-apigateway-any-method` in the OpenAPI definition that SAM
generates; ministack imports the methods of HTTP only, though it can serve ANY.

`GatewayResponses` become `x-amazon-apigateway-gateway-responses` in it; ministack can serve them, too, but does not
import them.
"""

import os
from pathlib import Path

from ministack import app as application
from ministack.core import lambda_runtime
from ministack.services import apigateway_v1, lambda_svc

# More than the 64 requests that ministack works on at a time, the five processors and the reconciler of a stack; with each
# connected once, half of Postgres's connections stay free.
MAX_ENVIRONMENTS = 100

ANY_IN_OPENAPI = "x-amazon-apigateway-any-method"
GATEWAY_RESPONSES_IN_OPENAPI = "x-amazon-apigateway-gateway-responses"

acquire_worker = lambda_runtime.acquire_worker
serve = application.app
import_path_item = apigateway_v1._import_path_item
import_rest_api = apigateway_v1._import_rest_api


def acquire_worker_within_bound(*function, **options):
    worker, reason = acquire_worker(*function, **options)
    if reason == "spawn":
        lambda_runtime.kill_workers(take_surplus())
    return worker, reason


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
application.app = serve_with_folder
apigateway_v1._OPENAPI_HTTP_METHODS.add("any")
apigateway_v1._import_path_item = import_path_item_with_any
apigateway_v1._import_rest_api = import_rest_api_with_gateway_responses

if __name__ == "__main__":
    application.main()
