//! What a handler is called with.

use lambda_http::{Request, RequestExt, request::RequestContext};

use super::ApiError;
use crate::{config::Auth, domain::Access, trace::TraceHeader};

/// A request, who sent it, and its trace.
pub struct Context {
    /// The request.
    pub request: Request,
    caller: Option<Caller>,
    trace: Option<TraceHeader>,
}

/// Whom the authorizer let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The issuer's name for them: 1 to 255 printable ASCII characters.
    pub subject: String,
    /// Whether they may see and do everything.
    pub is_admin: bool,
}

impl Context {
    /// Of a request as Lambda hands it over.
    ///
    /// The caller is whom the authorizer names. Where everybody may call (`AUTH=open`), and there is no authorizer to ask
    /// (`cargo lambda watch`, `sam local start-api --disable-authorizer`), an anonymous admin.
    pub fn new(request: Request, auth: Auth) -> Self {
        let fields = match request.request_context_ref() {
            Some(RequestContext::ApiGatewayV1(context)) => Some(&context.authorizer.fields),
            _ => None,
        };
        let text = |name| fields.and_then(|fields| fields.get(name)?.as_str());
        let caller = match (text("sub"), auth) {
            (Some(subject), _) => Some(Caller {
                subject: subject.to_owned(),
                is_admin: text("admin") == Some("true"),
            }),
            (None, Auth::Open) => Some(Caller {
                subject: "anonymous".to_owned(),
                is_admin: true,
            }),
            (None, Auth::Closed) => None,
        };
        // Not from the header `X-Amzn-Trace-Id`, which a client may send.
        let trace = request.lambda_context_ref().and_then(TraceHeader::of);
        Self { request, caller, trace }
    }

    /// Who calls. 401 if the authorizer was not asked: then the route lacks it in template.yaml.
    pub fn caller(&self) -> Result<&Caller, ApiError> {
        self.caller.as_ref().ok_or(ApiError::Unauthorized)
    }

    /// Who calls, if they are an admin; 403 if not. API Gateway has already refused others, unless it read the path
    /// otherwise than the authorizer's policy, or knows no `Deny` (`sam local`).
    pub fn admin(&self) -> Result<&Caller, ApiError> {
        let caller = self.caller()?;
        if caller.is_admin {
            Ok(caller)
        } else {
            Err(ApiError::Forbidden)
        }
    }

    /// The trace of this invocation, if there is one.
    pub fn trace(&self) -> Option<&TraceHeader> {
        self.trace.as_ref()
    }
}

impl Caller {
    /// Which tasks they may see and change: an admin all, everybody else their own.
    pub fn access(&self) -> Access<'_> {
        if self.is_admin {
            Access::All
        } else {
            Access::Own(&self.subject)
        }
    }
}
