//! Routes the methods of `google.cloud.bigquery.storage.v1.BigQueryWrite`.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::append::AppendRows;
use super::codec::AppendCodec;
use super::streams;
use crate::embedded::bigquery::limits::GRPC_RECEIVE_BYTES;
use crate::embedded::bigquery::shared::Shared;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct WriteService(pub Arc<Shared>);

impl NamedService for WriteService {
    const NAME: &'static str = "google.cloud.bigquery.storage.v1.BigQueryWrite";
}

/// A unary method: a function of the shared state and the request.
struct Unary<F>(Arc<Shared>, F);

impl<F, Fut, Req, Res> UnaryService<Req> for Unary<F>
where
    F: Fn(Arc<Shared>, Req) -> Fut,
    Fut: Future<Output = Result<Res, Status>> + Send + 'static,
{
    type Response = Res;
    type Future = BoxFuture<'static, Result<Response<Res>, Status>>;

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let routed = routing_header(&self.0, request.metadata());
        let answer = (self.1)(Arc::clone(&self.0), request.into_inner());
        Box::pin(async move {
            routed?;
            answer.await.map(Response::new)
        })
    }
}

/// Outside the US multi-region the service finds a stream by the header `x-goog-request-params`.
pub(super) fn routing_header(shared: &Shared, metadata: &tonic::metadata::MetadataMap) -> Result<(), Status> {
    if shared.settings.require_routing_header && metadata.get("x-goog-request-params").is_none() {
        return Err(Status::permission_denied(
            "Permission 'TABLES_UPDATE_DATA' denied on resource (or it may not exist): the header x-goog-request-params is missing.",
        ));
    }
    Ok(())
}

async fn unary<F, Fut, Req, Res>(shared: Arc<Shared>, request: http::Request<Body>, f: F) -> http::Response<Body>
where
    F: Fn(Arc<Shared>, Req) -> Fut,
    Fut: Future<Output = Result<Res, Status>> + Send + 'static,
    Req: Message + Default + Send + 'static,
    Res: Message + Send + 'static,
{
    Grpc::new(ProstCodec::<Res, Req>::default()).accept_compressed(CompressionEncoding::Gzip).unary(Unary(shared, f), request).await
}

impl Service<http::Request<Body>> for WriteService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "AppendRows" => {
                    let mut grpc =
                        Grpc::new(AppendCodec).accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(GRPC_RECEIVE_BYTES);
                    grpc.streaming(AppendRows(shared), request).await
                }
                "CreateWriteStream" => unary(shared, request, streams::create).await,
                "GetWriteStream" => unary(shared, request, streams::get).await,
                "FinalizeWriteStream" => unary(shared, request, streams::finalize).await,
                "FlushRows" => unary(shared, request, streams::flush).await,
                "BatchCommitWriteStreams" => unary(shared, request, streams::batch_commit).await,
                other => Status::unimplemented(format!("Method not found: {other}")).into_http(),
            })
        })
    }
}
