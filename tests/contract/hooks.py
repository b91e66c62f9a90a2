"""What openapi.json cannot say. Only what is valid in a request is touched: what the document says must be refused is
sent as it was generated."""

import base64
import hashlib
import uuid

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation


def cursor(id: int) -> str:
    """A place in a list, as shared/core/src/domain/page.rs writes it. The document only says that it is opaque."""
    place = id.to_bytes(8, "big")
    checksum = hashlib.sha256(b"task cursor 1" + place).digest()[:4]
    return base64.urlsafe_b64encode(place + checksum).decode().rstrip("=")


schemathesis.openapi.format("cursor", st.integers(1, 2**63 - 1).map(cursor))


def fresh(key: str) -> str:
    """A key that nobody has used, with the first and the last characters of this one, and its length if that is enough."""
    return key[:1] + uuid.uuid4().hex + key[33:]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Called in every phase, unlike the hooks that change what is generated."""

    def is_valid(location):
        component = case.meta and case.meta.components.get(location)
        return component is not None and component.mode.is_positive

    # A list begins after a place or ends before one.
    if is_valid(ParameterLocation.QUERY) and {"after", "before"} <= case.query.keys():
        del case.query["before"]
    # A key that was used belongs, for a day, to the body that it was used with.
    if is_valid(ParameterLocation.HEADER) and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = fresh(case.headers["Idempotency-Key"])


@schemathesis.check
def conditions(context, response, case):
    """Nothing is refused because of a condition that the request does not have."""
    condition = {304: "If-None-Match", 412: "If-Match"}.get(response.status_code)
    if condition and condition not in response.request.headers:
        raise AssertionError(f"{response.status_code} to a request without {condition}")


@schemathesis.check
class Succeeded:
    """Every operation succeeds at least once. Without this, a run whose every answer is 404 would pass."""

    def __init__(self):
        self.tried = set()
        self.succeeded = set()

    def after_response(self, context, response, case):
        if response.request.method != case.operation.method.upper():
            return  # Another method, sent to see it refused.
        self.tried.add(case.operation.label)
        if response.status_code < 300:
            self.succeeded.add(case.operation.label)

    def after_run(self, context):
        never = self.tried - self.succeeded
        if never:
            raise AssertionError(f"never succeeded: {', '.join(sorted(never))}")
