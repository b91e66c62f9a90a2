//! The events of API Gateway: payload format 1.0 (REST API) and 2.0 (`cargo lambda watch`).
//!
//! Not read by `lambda_http`, for which some requests are errors of the function, which any client
//! could cause: a header with a control character, a `Host` that makes no URL. It also reads only
//! the last line of a repeated header. Here every event leads to a response.

use std::{collections::HashMap, slice};

use base64::{Engine, engine::general_purpose::STANDARD};
use lambda_http::{
    Body, Request, RequestExt, Response,
    aws_lambda_events::{
        apigw::{ApiGatewayProxyResponse, ApiGatewayV2httpResponse},
        query_map::QueryMap,
    },
    http::{HeaderMap, HeaderName, HeaderValue, Method},
};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{ApiError, Caller, context::Role};

/// A request from API Gateway.
pub struct Received {
    /// As complete as the event allows, even if it is refused.
    pub request: Request,
    /// Why no handler may see it.
    pub refusal: Option<ApiError>,
    pub(super) format: Format,
}

/// The payload format of an event and of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// 1.0
    Rest,
    /// 2.0
    Http,
}

/// The members of an event that this API reads. [`Value`] accepts every type, and null.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    http_method: Value,
    /// The path in the template, like `/tasks/{id}`.
    resource: Value,
    /// Behind a custom domain this begins with the base path of its mapping.
    path: Value,
    raw_path: Value,
    path_parameters: Value,
    query_string_parameters: Value,
    multi_value_query_string_parameters: Value,
    raw_query_string: Value,
    headers: Value,
    multi_value_headers: Value,
    body: Value,
    is_base64_encoded: Value,
    request_context: Option<RequestContext>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestContext {
    /// Only in format 2.0.
    http: Value,
    authorizer: Value,
}

/// Reads the request of an event.
pub fn receive(event: &RawValue) -> Received {
    // What is not an event of API Gateway has no method, and is refused for that.
    let event: Event = serde_json::from_str(event.get()).unwrap_or_default();
    let context = event.request_context.as_ref();
    let http = context.map_or(&Value::Null, |context| &context.http);
    let format = if http.is_object() { Format::Http } else { Format::Rest };

    let mut refusal = None;
    let body = event.body().unwrap_or_else(|error| {
        refusal = Some(error);
        Body::Empty
    });
    let mut request = Request::new(body);

    let (headers, malformed) = event.header_map();
    *request.headers_mut() = headers;
    if let Some(name) = malformed {
        // Not ignored: a change without its `If-Match` would apply to any version.
        let reason = format!("the header {name:?} has a character that HTTP does not allow");
        refusal = Some(ApiError::Malformed(reason));
    }

    let method = match format {
        Format::Rest => &event.http_method,
        Format::Http => &http["method"],
    };
    match method.as_str().unwrap_or_default().parse::<Method>() {
        Ok(method) => *request.method_mut() = method,
        Err(_) => refusal = Some(ApiError::Malformed("it has no valid method".to_owned())),
    }

    let sent = match format {
        Format::Rest => event.path.as_str(),
        Format::Http => event.raw_path.as_str(),
    };
    let sent = sent.unwrap_or_default();
    let path = event.expanded_resource().unwrap_or_else(|| sent.to_owned());
    // The relative URLs in responses resolve against the path of the request.
    if sent.ends_with('/') && path != "/" {
        let path = path.trim_end_matches('/');
        refusal.get_or_insert(ApiError::NoSuchRoute(format!("{path}/ (paths have no trailing slash)")));
    }
    *request.uri_mut() = path.parse().unwrap_or_default();

    // The authorizer's context. An HTTP API has none that could be trusted.
    if let (Format::Rest, Some(context)) = (format, context)
        && let Some(subject) = context.authorizer["sub"].as_str()
    {
        request.extensions_mut().insert(Caller {
            subject: subject.to_owned(),
            role: match &context.authorizer {
                flags if flags["admin"] == "true" => Role::Admin,
                flags if flags["viewer"] == "true" => Role::Viewer,
                _ => Role::User,
            },
        });
    }
    Received {
        request: request
            .with_raw_http_path(path)
            .with_path_parameters(event.decoded_path_parameters())
            .with_query_string_parameters(event.query()),
        refusal,
        format,
    }
}

impl Event {
    fn body(&self) -> Result<Body, ApiError> {
        let Some(text) = self.body.as_str() else {
            return Ok(Body::Empty);
        };
        if self.is_base64_encoded != true {
            return Ok(Body::Text(text.to_owned()));
        }
        let decoded = STANDARD.decode(text);
        decoded
            .map(Body::Binary)
            .map_err(|error| ApiError::NotJson(format!("not valid base64: {error}")))
    }

    /// All lines of all headers, and the name of a malformed one. API Gateway repeats the last line
    /// of each header in `headers`.
    fn header_map(&self) -> (HeaderMap, Option<&str>) {
        let multi = &self.multi_value_headers;
        let is_in_multi = |name: &str| {
            let has_lines = |lines: &Value| texts(lines).next().is_some();
            multi.get(name).is_some_and(has_lines)
                || members(multi).any(|(other, lines)| other.eq_ignore_ascii_case(name) && has_lines(lines))
        };
        let others = members(&self.headers).filter(|(name, _)| !is_in_multi(name));
        let (mut headers, mut malformed) = (HeaderMap::new(), None);
        for (name, lines) in members(multi).chain(others) {
            for line in texts(lines) {
                let header = HeaderName::from_bytes(name.as_bytes()).ok();
                let header = header.zip(HeaderValue::from_bytes(line.as_bytes()).ok());
                let added = header.and_then(|(name, value)| headers.try_append(name, value).ok());
                if added.is_none() {
                    malformed = Some(name.as_str());
                }
            }
        }
        (headers, malformed)
    }

    fn query(&self) -> QueryMap {
        if let Some(query) = self.raw_query_string.as_str() {
            return query.parse().unwrap_or_default();
        }
        let multi = &self.multi_value_query_string_parameters;
        let parameters = match members(multi).next() {
            Some(_) => multi,
            None => &self.query_string_parameters,
        };
        let mut query: HashMap<String, Vec<String>> = HashMap::new();
        for (name, values) in members(parameters) {
            for value in texts(values) {
                query.entry(name.clone()).or_default().push(value.to_owned());
            }
        }
        query.into()
    }

    /// Neither API Gateway's REST API nor `cargo lambda watch` decodes path parameters.
    fn decoded_path_parameters(&self) -> HashMap<String, String> {
        let decoded = |(name, value): (&String, &Value)| {
            let value = percent_decode_str(value.as_str()?).decode_utf8_lossy();
            Some((name.clone(), value.into_owned()))
        };
        members(&self.path_parameters).filter_map(decoded).collect()
    }

    /// The template's path with the parameters inserted: the path of the request without the base
    /// path of a custom domain.
    fn expanded_resource(&self) -> Option<String> {
        let segment = |segment: &str| {
            let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
                return Some(segment.to_owned());
            };
            let name = name.strip_suffix('+').unwrap_or(name);
            self.path_parameters[name].as_str().map(str::to_owned)
        };
        let resource = self.resource.as_str().filter(|resource| !resource.is_empty())?;
        let segments: Option<Vec<String>> = resource.split('/').map(segment).collect();
        Some(segments?.join("/"))
    }
}

/// The members of an object; none of another value.
fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// The text in a value, or the texts in a list.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let values = value.as_array().map_or(slice::from_ref(value), Vec::as_slice);
    values.iter().filter_map(Value::as_str)
}

/// A response in the format of its event.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ProxyResponse {
    Rest(ApiGatewayProxyResponse),
    Http(ApiGatewayV2httpResponse),
}

impl ProxyResponse {
    pub fn new(format: Format, response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let status_code = head.status.as_u16().into();
        let is_base64_encoded = matches!(body, Body::Binary(_));
        let body = match body {
            Body::Empty => None,
            body => Some(body),
        };
        match format {
            Format::Rest => {
                let mut response = ApiGatewayProxyResponse::default();
                response.status_code = status_code;
                // Not `headers`, which has one line for each name.
                response.multi_value_headers = head.headers;
                response.body = body;
                response.is_base64_encoded = is_base64_encoded;
                Self::Rest(response)
            }
            Format::Http => {
                let mut response = ApiGatewayV2httpResponse::default();
                response.status_code = status_code;
                response.headers = head.headers;
                response.body = body;
                response.is_base64_encoded = is_base64_encoded;
                Self::Http(response)
            }
        }
    }
}
