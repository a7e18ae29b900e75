//! The quota API over HTTP, and that of gRPC beside it.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use serde_json::json;

use super::access::{self, Access, Caller};
use super::desk::{Desk, Problem};
use super::v1::quota_service_server::QuotaServiceServer;
use super::v1::{
    GetQuotaRequest, GrantQuotaRequest, ListQuotasRequest, ListQuotasResponse, Quota, QuotaResponse,
    ResetQuotaRequest,
};
use crate::ratelimit::counters::Counters;
use crate::ratelimit::service::RateLimit;

/// What is put beside other pages.
pub type Pages = Router;

/// The API for one service, for those who may.
pub fn router<C: Counters>(service: RateLimit<C>, access: Access) -> Pages {
    let desk = Arc::new(Desk(service));
    Router::new()
        .route("/v1/quotas", get(list::<C>))
        .route("/v1/quotas/get", post(look::<C>))
        .route("/v1/quotas/reset", post(reset::<C>))
        .route("/v1/quotas/grant", post(grant::<C>))
        .with_state(desk.clone())
        .route_service("/chancery.quota.v1.QuotaService/{method}", QuotaServiceServer::from_arc(desk))
        .route_layer(middleware::from_fn_with_state(access, access::guard))
}

type Handle<C> = State<Arc<Desk<C>>>;

async fn list<C: Counters>(
    State(desk): Handle<C>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<ListQuotasRequest>, QueryRejection>,
) -> Result<Json<ListQuotasResponse>, Problem> {
    let Query(ListQuotasRequest { limit, max }) =
        query.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
    Ok(Json(ListQuotasResponse { quotas: desk.list(&caller, &limit, max).await? }))
}

type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, Problem> {
    body.map(|Json(body)| body).map_err(|rejection| Problem::Invalid(rejection.body_text()))
}

fn response(quota: Quota) -> Json<QuotaResponse> {
    Json(QuotaResponse { quota: Some(quota) })
}

async fn look<C: Counters>(
    State(desk): Handle<C>,
    Extension(caller): Extension<Caller>,
    asked: Body<GetQuotaRequest>,
) -> Result<Json<QuotaResponse>, Problem> {
    let subject = body(asked)?.subject.unwrap_or_default();
    Ok(response(desk.get(&caller, &subject).await?))
}

async fn reset<C: Counters>(
    State(desk): Handle<C>,
    Extension(caller): Extension<Caller>,
    asked: Body<ResetQuotaRequest>,
) -> Result<Json<QuotaResponse>, Problem> {
    let subject = body(asked)?.subject.unwrap_or_default();
    Ok(response(desk.reset(&caller, &subject).await?))
}

async fn grant<C: Counters>(
    State(desk): Handle<C>,
    Extension(caller): Extension<Caller>,
    asked: Body<GrantQuotaRequest>,
) -> Result<Json<QuotaResponse>, Problem> {
    let GrantQuotaRequest { subject, hits } = body(asked)?;
    Ok(response(desk.grant(&caller, &subject.unwrap_or_default(), hits).await?))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(words) => error(StatusCode::NOT_FOUND, &words),
            Self::Invalid(words) => error(StatusCode::BAD_REQUEST, &words),
            Self::Full(words) => error(StatusCode::TOO_MANY_REQUESTS, &words),
            Self::Unavailable(words) => error(StatusCode::SERVICE_UNAVAILABLE, &words),
        }
    }
}

pub(super) fn error(status: StatusCode, words: &str) -> Response {
    (status, Json(json!({"error": words}))).into_response()
}
