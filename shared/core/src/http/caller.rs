//! Who calls.

use lambda_http::{Request, RequestExt, request::RequestContext};

use super::ApiError;
use crate::{config::Auth, domain::Access};

/// Whom the authorizer let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The issuer's name for them: 1 to 255 printable ASCII characters.
    pub subject: String,
    /// Whether they may see and do everything.
    pub is_admin: bool,
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

/// Who calls, as the authorizer found out. 401 if it was not asked: then the route lacks it in template.yaml.
///
/// Where everybody may call (`AUTH=open`), and there is no authorizer to ask (`cargo lambda watch`, `sam local
/// start-api --disable-authorizer`), an anonymous admin.
pub fn caller(request: &Request) -> Result<Caller, ApiError> {
    let context = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV1(context)) => Some(&context.authorizer.fields),
        _ => None,
    };
    let text = |name| context.and_then(|fields| fields.get(name)?.as_str());
    match (text("sub"), request.extensions().get()) {
        (Some(subject), _) => Ok(Caller {
            subject: subject.to_owned(),
            is_admin: text("admin") == Some("true"),
        }),
        (None, Some(Auth::Open)) => Ok(Caller {
            subject: "anonymous".to_owned(),
            is_admin: true,
        }),
        _ => Err(ApiError::Unauthorized),
    }
}

/// Who calls, if they are an admin; 403 if not. API Gateway has already refused others, unless it read the path
/// otherwise than the authorizer's policy, or knows no `Deny` (`sam local`).
pub fn admin(request: &Request) -> Result<Caller, ApiError> {
    caller(request).and_then(|caller| {
        if caller.is_admin {
            Ok(caller)
        } else {
            Err(ApiError::Forbidden)
        }
    })
}
