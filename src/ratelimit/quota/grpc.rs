//! The quota API over gRPC.

use tonic::{Request, Response, Status};

use super::access::Caller;
use super::desk::{Desk, Problem};
use super::v1::quota_service_server::QuotaService;
use super::v1::{
    GetQuotaRequest, GrantQuotaRequest, ListQuotasRequest, ListQuotasResponse, Quota, QuotaResponse,
    ResetQuotaRequest,
};
use crate::ratelimit::counters::Counters;

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NotFound(words) => Self::not_found(words),
            Problem::Invalid(words) => Self::invalid_argument(words),
            Problem::Full(words) => Self::resource_exhausted(words),
            Problem::Unavailable(words) => Self::unavailable(words),
        }
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get().cloned();
    caller.ok_or_else(|| Status::internal("nobody has asked who this is"))
}

fn response(quota: Quota) -> Response<QuotaResponse> {
    Response::new(QuotaResponse { quota: Some(quota) })
}

#[tonic::async_trait]
impl<C: Counters> QuotaService for Desk<C> {
    async fn list_quotas(
        &self,
        request: Request<ListQuotasRequest>,
    ) -> Result<Response<ListQuotasResponse>, Status> {
        let caller = caller(&request)?;
        let ListQuotasRequest { limit, max } = request.get_ref();
        let quotas = self.list(&caller, limit, *max).await?;
        Ok(Response::new(ListQuotasResponse { quotas }))
    }

    async fn get_quota(&self, request: Request<GetQuotaRequest>) -> Result<Response<QuotaResponse>, Status> {
        let caller = caller(&request)?;
        let subject = request.into_inner().subject.unwrap_or_default();
        Ok(response(self.get(&caller, &subject).await?))
    }

    async fn reset_quota(
        &self,
        request: Request<ResetQuotaRequest>,
    ) -> Result<Response<QuotaResponse>, Status> {
        let caller = caller(&request)?;
        let subject = request.into_inner().subject.unwrap_or_default();
        Ok(response(self.reset(&caller, &subject).await?))
    }

    async fn grant_quota(
        &self,
        request: Request<GrantQuotaRequest>,
    ) -> Result<Response<QuotaResponse>, Status> {
        let caller = caller(&request)?;
        let GrantQuotaRequest { subject, hits } = request.into_inner();
        Ok(response(self.grant(&caller, &subject.unwrap_or_default(), hits).await?))
    }
}
