//! The context of a request: the request, its caller and its trace.

use lambda_http::{Request, RequestExt, http::Method};

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
    pub role: Role,
}

/// What a caller may do, according to the scopes of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything with its own tasks.
    User,
    /// See everything, and change nothing.
    Viewer,
    /// Everything.
    Admin,
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
                role: Role::Admin,
            }),
            (None, Auth::Closed) => None,
        };
        // Not from the header `X-Amzn-Trace-Id`, which clients can set.
        let trace = request.lambda_context_ref().and_then(TraceHeader::of);
        Self { request, caller, trace }
    }

    /// The caller; 401 if the authorizer did not run, because the route in template.yaml has none;
    /// 403 for a viewer's request that does not only read. API Gateway has already rejected such
    /// requests, and those of other callers to the routes of [`operator`](Self::operator), unless it
    /// matched the path differently than the authorizer's policy, or does not support policies
    /// (`sam local`).
    pub fn caller(&self) -> Result<&Caller, ApiError> {
        let caller = self.caller.as_ref().ok_or(ApiError::Unauthorized)?;
        match (caller.role, self.request.method()) {
            (Role::User | Role::Admin, _) | (Role::Viewer, &Method::GET | &Method::HEAD) => Ok(caller),
            (Role::Viewer, _) => Err(ApiError::Forbidden),
        }
    }

    /// The caller if it is an operator: an admin, or a viewer who only reads. Otherwise 403.
    pub fn operator(&self) -> Result<&Caller, ApiError> {
        let caller = self.caller()?;
        match caller.role {
            Role::Viewer | Role::Admin => Ok(caller),
            Role::User => Err(ApiError::Forbidden),
        }
    }

    pub fn trace(&self) -> Option<&TraceHeader> {
        self.trace.as_ref()
    }
}

impl Caller {
    /// The tasks that the caller may see, and change if it may change any: all of them for an
    /// operator, otherwise those that it owns.
    pub fn access(&self) -> Access<'_> {
        match self.role {
            Role::Admin => Access::Admin(&self.subject),
            Role::Viewer => Access::All,
            Role::User => Access::Own(&self.subject),
        }
    }
}
