//! Where instances register and leave.

use axum::Router;
use axum::extract::State;
use axum::routing::post;

use super::{On, Parsed, Shared};
use crate::api::types::{Api, DeregisterRequest, MaintRequest, OfflineRequest, RegisterRequest};

pub(super) fn routes<A: Api>() -> Router<Shared<A>> {
    Router::new()
        .route(
            "/register",
            post(|State(s): On<A>, Parsed(b): Parsed<RegisterRequest>| {
                s.change(|api| async move { api.register(b).await })
            }),
        )
        .route(
            "/deregister",
            post(|State(s): On<A>, Parsed(b): Parsed<DeregisterRequest>| {
                s.change(|api| async move { api.deregister(b).await })
            }),
        )
        .route(
            "/offline",
            post(|State(s): On<A>, Parsed(b): Parsed<OfflineRequest>| {
                s.change(|api| async move { api.offline(b).await })
            }),
        )
        .route(
            "/maint",
            post(|State(s): On<A>, Parsed(b): Parsed<MaintRequest>| {
                s.change(|api| async move { api.maint(b).await })
            }),
        )
}
