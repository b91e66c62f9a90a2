//! The context of a request: the request, its caller and its trace.

use lambda_http::{Request, RequestExt};

use super::ApiError;
use crate::{config::Auth, domain::Access, trace::TraceHeader};

/// What a handler receives.
pub struct Context {
    pub request: Request,
    caller: Option<Caller>,
    trace: Option<TraceHeader>,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The `sub` of the token: 1 to 255 printable ASCII characters.
    pub subject: String,
    /// Whether the token has the admin scope.
    pub is_admin: bool,
}

impl Context {
    /// The context of a request, received by [`receive`](super::receive).
    ///
    /// The caller is the one identified by the authorizer. With `AUTH=open` and no authorizer
    /// (`cargo lambda watch`, `sam local start-api --disable-authorizer`), it is an anonymous
    /// admin.
    pub fn new(request: Request, auth: Auth) -> Self {
        let authorized = request.extensions().get::<Caller>().cloned();
        let caller = match (authorized, auth) {
            (Some(caller), _) => Some(caller),
            (None, Auth::Open) => Some(Caller {
                subject: "anonymous".to_owned(),
                is_admin: true,
            }),
            (None, Auth::Closed) => None,
        };
        // Not from the header `X-Amzn-Trace-Id`, which clients can set.
        let trace = request.lambda_context_ref().and_then(TraceHeader::of);
        Self { request, caller, trace }
    }

    /// The caller; 401 if the authorizer did not run, because the route in template.yaml has none.
    pub fn caller(&self) -> Result<&Caller, ApiError> {
        self.caller.as_ref().ok_or(ApiError::Unauthorized)
    }

    /// The caller if it is an admin, otherwise 403. API Gateway has already rejected other callers,
    /// unless it matched the path differently than the authorizer's policy, or does not support
    /// `Deny` (`sam local`).
    pub fn admin(&self) -> Result<&Caller, ApiError> {
        let caller = self.caller()?;
        if caller.is_admin {
            Ok(caller)
        } else {
            Err(ApiError::Forbidden)
        }
    }

    pub fn trace(&self) -> Option<&TraceHeader> {
        self.trace.as_ref()
    }
}

impl Caller {
    /// The tasks that the caller may see and change: all of them for an admin, otherwise those that
    /// it owns.
    pub fn access(&self) -> Access<'_> {
        if self.is_admin {
            Access::All
        } else {
            Access::Own(&self.subject)
        }
    }
}
