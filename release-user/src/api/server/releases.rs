//! Endpoints of releases.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};

use super::{On, Params, Parsed, Shared, answer};
use crate::api::release::{OrderRequest, ReleaseId, ReleaseQuery, StartRelease};
use crate::api::types::Api;

pub(super) fn routes<A: Api>() -> Router<Shared<A>> {
    Router::new()
        .route(
            "/releases",
            get(|State(s): On<A>, Params(q): Params<ReleaseQuery>| async move {
                answer(s.api.releases(q).await)
            }),
        )
        .route(
            "/release",
            get(|State(s): On<A>, Params(q): Params<ReleaseId>| async move {
                answer(s.api.show_release(q).await)
            }),
        )
        .route(
            "/release/samples",
            get(|State(s): On<A>, Params(q): Params<ReleaseId>| async move {
                answer(s.api.release_samples(q).await)
            }),
        )
        .route(
            "/release/start",
            post(|State(s): On<A>, Parsed(b): Parsed<StartRelease>| {
                s.change(|api| async move { api.start_release(b).await })
            }),
        )
        .route(
            "/release/order",
            post(|State(s): On<A>, Parsed(b): Parsed<OrderRequest>| {
                s.change(|api| async move { api.order_release(b).await })
            }),
        )
        .route(
            "/release/rollback",
            post(|State(s): On<A>, Parsed(b): Parsed<ReleaseId>| {
                s.change(|api| async move { api.roll_back(b).await })
            }),
        )
}
