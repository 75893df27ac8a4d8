//! Who may make a call, how long that may take, and what holds for its request and its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::answers::{Answer, BoundsItself};
use crate::calls::delivery;
use crate::connection::Caller;
use crate::deadline::time_for;
use crate::sources::{Short, Source, Taken};
use crate::uploads::{Held, Upload};

/// The services of all calls to which everybody's share of calls does not apply: they look how the daemon is, and
/// what it can be asked.
const LOOKS: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// The call that publishes one message. Those of a stream are counted where they are read.
const PUBLISH: &str = "/nexusd.sidecar.SidecarService/Publish";

const NO_SUCH_METHOD: &str = "no such method; the server describes its services by reflection";

/// What serves the calls of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    routes: Routes,
    caller: Caller,
}

impl Admission {
    pub(crate) fn new(routes: Routes, caller: Caller) -> Self {
        Self { routes, caller }
    }
}

impl hyper::service::Service<Request<Incoming>> for Admission {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send + 'static>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let source = &self.caller.source;
        let place = match admit(source, request.uri().path()) {
            Ok(place) => place,
            Err(status) => {
                source.refusals().count_call();
                return Box::pin(async move { Ok(refused(status)) });
            }
        };
        let is_publish = request.uri().path() == PUBLISH;
        let (held, time) = (Held::default(), time_for(request.headers()));
        let mut caller = self.caller.clone();
        caller.agent = request.headers().get(USER_AGENT).cloned();
        request.extensions_mut().insert(caller);
        let upload = |body| Body::new(Upload::new(body, source, held.clone()));
        let answered = self.routes.clone().call(request.map(upload));
        let (budget, source) = (source.answers.clone(), Arc::clone(source));
        Box::pin(async move {
            let delivery = delivery();
            delivery.hold(place);
            let answered = timeout(time, answered).await;
            // The request is answered.
            drop(held);
            let answer = match answered {
                Ok(Ok(answer)) => look_at(answer, is_publish, &source),
                Err(_) => {
                    let text = "the call was not answered within its deadline";
                    Status::deadline_exceeded(text).into_http()
                }
            };
            let budget = match answer.extensions().get::<BoundsItself>() {
                Some(BoundsItself) => {
                    delivery.be_patient();
                    None
                }
                None => Some(budget),
            };
            Ok(answer.map(|body| Answer::new(body, delivery, budget)))
        })
    }
}

/// What an answer is that came at once. A refused message is counted; who asks for what there is not is told.
fn look_at(answer: Response<Body>, is_publish: bool, source: &Source) -> Response<Body> {
    // Only an answer without messages has its status here.
    let Some(status) = Status::from_header_map(answer.headers()) else { return answer };
    if is_publish {
        source.refusals().count_publish(status.code());
    }
    if status.code() == Code::Unimplemented && status.message().is_empty() {
        return Status::unimplemented(NO_SUCH_METHOD).into_http();
    }
    answer
}

/// A place for a call.
fn admit(source: &Source, path: &str) -> Result<Taken, Status> {
    if LOOKS.iter().any(|looks| path.starts_with(looks)) {
        let place = source.looks.try_take(1);
        return place.map_err(|_| {
            Status::resource_exhausted("too many calls ask for the daemon's health; close some")
        });
    }
    source.calls.try_take(1).map_err(|short| {
        let (address, share, all) = (source.address, source.calls.share_max, source.calls_max());
        Status::resource_exhausted(match short {
            Short::Share => {
                format!("{address} has {share} calls, which is its share of {all}; close some")
            }
            Short::All => format!("the daemon has {all} calls, which is its limit; close some"),
        })
    })
}

fn refused(status: Status) -> Response<Answer> {
    status.into_http().map(|body| Answer::new(body, delivery(), None))
}
