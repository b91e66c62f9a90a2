"""Rules that openapi.json cannot express. Only valid parts of a request are changed: invalid parts are sent as generated."""

import base64
import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation


def cursor(id: int) -> str:
    """A cursor, encoded as in shared/core/src/domain/page.rs. The document only specifies that it is opaque."""
    place = id.to_bytes(8, "big")
    checksum = hashlib.sha256(b"task cursor 1" + place).digest()[:4]
    return base64.urlsafe_b64encode(place + checksum).decode().rstrip("=")


schemathesis.openapi.format("cursor", st.integers(1, 2**63 - 1).map(cursor))


def fresh(key: str) -> str:
    """A key that is not in use yet, with the first and last characters of this one and, if that is over 32, its length."""
    return key[:1] + uuid.uuid4().hex + key[33:]


# Bodies that create what random ids nearly never find: a task that waits for its next attempt, where plain ones end within
# milliseconds; and an action about many tasks.
CREATES = {
    "POST /tasks/{id}/cancel": ("/tasks", {"title": "Open", "description": "retry: no connection"}),
    "POST /admin/actions/{id}/continue": ("/admin/actions", {"action": "retry", "q": "Open", "dry_run": False}),
}


def created(case, kwargs):
    """The id of what was created for this request, with its token; None without one."""
    path, body = CREATES[case.operation.label]
    token = {name: value for name, value in case.headers.items() if name == "Authorization"}
    operation = case.operation.schema[path]["POST"]
    response = operation.Case(body=body, headers=token, media_type="application/json").call(**kwargs)
    return response.json()["id"] if response.status_code < 300 else None


# Those whose body can have `run_at`.
CHANGES = {"POST /tasks", "PUT /tasks/{id}", "PATCH /tasks/{id}"}

# What each action of POST /admin/actions applies to.
STATUSES = {
    "retry": {"failed", "completed", "cancelled"},
    "cancel": {"pending", "processing", "scheduled"},
    "delete": {"pending", "processing", "completed", "failed", "cancelled", "scheduled"},
}


def make_consistent(body):
    """Changes a body of POST /admin/actions so that it says which tasks, and none contradicts another."""
    if "error" in body and body["action"] == "cancel":
        del body["error"]
    if "error" in body or body.get("status") not in STATUSES[body["action"]]:
        body.pop("status", None)
    if body.keys() <= {"action", "dry_run"}:
        body["q"] = "new"


def make_possible(body):
    """Changes a body of a task so that its time is at most a year ahead, and not sent together with a status."""
    run_at = body.get("run_at")
    if run_at is not None and run_at[:4] > str(datetime.now(UTC).year):
        body["run_at"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    if "run_at" in body:
        body.pop("status", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Runs in every phase, unlike the hooks that change generated data."""

    def is_valid(location):
        component = case.meta and case.meta.components.get(location)
        # The examples of the document have no mode.
        return component is None or component.mode.is_positive

    # A list takes one cursor: `after` or `before`.
    if is_valid(ParameterLocation.QUERY) and {"after", "before"} <= case.query.keys():
        del case.query["before"]
    if is_valid(ParameterLocation.BODY) and isinstance(case.body, dict):
        if case.operation.label == "POST /admin/actions":
            make_consistent(case.body)
        # Other requests, and the tests after this one, need processing.
        if case.operation.label == "PUT /admin/processing":
            case.body["paused"] = False
        if case.operation.label in CHANGES:
            make_possible(case.body)
    # A link from an action about no single task, whose `task_id` is null.
    if "id" in case.path_parameters and case.path_parameters["id"] is None:
        case.path_parameters["id"] = 1
    # A used key is bound to its body for a day.
    if is_valid(ParameterLocation.HEADER) and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = fresh(case.headers["Idempotency-Key"])
    # With `If-Match` ids remain as generated.
    is_about_created = case.operation.label in CREATES and case.method.upper() == "POST"
    if is_about_created and is_valid(ParameterLocation.PATH) and "If-Match" not in case.headers:
        case.path_parameters["id"] = created(case, kwargs) or case.path_parameters["id"]


@schemathesis.check
def conditions(context, response, case):
    """No request without a condition gets a 304 or 412."""
    condition = {304: "If-None-Match", 412: "If-Match"}.get(response.status_code)
    if condition and condition not in response.request.headers:
        raise AssertionError(f"{response.status_code} for a request without {condition}")


@schemathesis.check
class Succeeded:
    """Every operation succeeds at least once. Without this, a run with nothing but 404 responses would pass."""

    def __init__(self):
        self.tried = set()
        self.succeeded = set()

    def after_response(self, context, response, case):
        if response.request.method != case.operation.method.upper():
            return  # An unsupported method, to test the 405.
        self.tried.add(case.operation.label)
        if response.status_code < 300:
            self.succeeded.add(case.operation.label)

    def after_run(self, context):
        never = self.tried - self.succeeded
        if never:
            raise AssertionError(f"never succeeded: {', '.join(sorted(never))}")
