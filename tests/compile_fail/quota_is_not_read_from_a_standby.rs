//! What a write depends on is read from the primary.

use coderdb::{
    authz::{LoadActors, ReadQuota, RunJobs},
    replica::{Cluster, boxed},
    store,
};

async fn quota(cluster: &Cluster, permit: &ReadQuota) {
    let _ = cluster.read(permit, None, |conn| boxed(store::quota::usage(conn, permit))).await;
}

async fn claim(cluster: &Cluster, permit: &RunJobs) {
    let _ = cluster.read(permit, None, |_| boxed(async { Ok(()) })).await;
}

async fn authorization(cluster: &Cluster, permit: &LoadActors) {
    let _ = cluster.read(permit, None, |_| boxed(async { Ok(()) })).await;
}

fn main() {}
