//! The OpenAPI document of the routes.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response,
    ResponseBuilder,
    header::HeaderBuilder,
    schema::{ObjectBuilder, Type},
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    server::Server,
};

use super::logs::Format;
use crate::model::{DaemonStatus, ExpectedStatus, JobStatus};

/// What the document says beside the routes.
pub(super) fn base() -> OpenApi {
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Coder API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Provisioner jobs and daemons, logs, quota, licenses and prebuild settings, as coderdb answers them.",
        ))
        .license(Some(license))
        .build();
    let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("Coder-Session-Token")));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let mut components =
        ComponentsBuilder::new().security_scheme("CoderSessionToken", key).security_scheme("Bearer", bearer);
    for (name, description, _) in EVERYWHERE {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Message"))).build();
        let mut response = ResponseBuilder::new().description(*description).content("application/json", body);
        if RETRY.contains(name) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
            let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait")).build();
            response = response.header("Retry-After", header);
        }
        components = components.response(*name, response.build());
    }
    // Those of parameters are collected from nowhere.
    let components = components
        .schema_from::<DaemonStatus>()
        .schema_from::<ExpectedStatus>()
        .schema_from::<JobStatus>()
        .schema_from::<Format>();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new("/")]))
        .components(Some(components.build()))
        .security(Some([
            SecurityRequirement::new("CoderSessionToken", Vec::<String>::new()),
            SecurityRequirement::new("Bearer", Vec::<String>::new()),
        ]))
        .build()
}

/// What every operation may answer: a name, what it means, and the status.
const EVERYWHERE: &[(&str, &str, &str)] = &[
    ("Unauthorized", "The token is missing, wrong, expired, revoked, restricted, or its user is not active", "401"),
    ("TooManyRequests", "The token has sent too many requests to this route", "429"),
    ("InternalServerError", "Something failed that is not the fault of the request", "500"),
    ("ServiceUnavailable", "The database is not available, or the request took too long", "503"),
];

const RETRY: &[&str] = &["TooManyRequests", "ServiceUnavailable"];

/// Bodies that a test has received, by status or name of the response, and by media type.
type Answers = BTreeMap<String, BTreeMap<String, Value>>;

fn show(responses: &mut BTreeMap<String, RefOr<Response>>, mut answers: Answers) {
    for (status, response) in responses {
        let RefOr::T(response) = response else { continue };
        let mut bodies = answers.remove(status).unwrap_or_default();
        for (media_type, content) in &mut response.content {
            if let RefOr::T(content) = content {
                content.example = bodies.remove(media_type);
            }
        }
    }
}

/// The document (OpenAPI 3.1). The example of each answer is one that a test has received.
#[must_use]
pub fn document() -> OpenApi {
    let (_, mut document) = super::routes().split_for_parts();
    let requirements = document.security.clone();
    let mut examples: BTreeMap<String, Answers> =
        serde_json::from_str(include_str!("examples.json")).unwrap_or_default();
    if let Some(components) = &mut document.components {
        show(&mut components.responses, examples.remove("responses").unwrap_or_default());
    }
    for item in document.paths.paths.values_mut() {
        let methods = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in methods.into_iter().flatten() {
            operation.security.clone_from(&requirements);
            let answers = operation.operation_id.as_ref().and_then(|id| examples.remove(id)).unwrap_or_default();
            show(&mut operation.responses.responses, answers);
            for (name, _, status) in EVERYWHERE {
                let response = RefOr::Ref(Ref::from_response_name(*name));
                operation.responses.responses.entry((*status).to_owned()).or_insert(response);
            }
        }
    }
    document
}

/// The page at `/docs`, with all of its assets, from which the operations can be tried out.
#[cfg(feature = "http-docs")]
pub(super) fn page() -> axum::Router {
    utoipa_swagger_ui::SwaggerUi::new("/docs")
        .config(utoipa_swagger_ui::Config::from("/openapi.json").persist_authorization(false))
        .into()
}
