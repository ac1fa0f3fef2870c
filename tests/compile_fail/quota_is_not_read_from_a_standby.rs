//! What a write depends on is read from the primary: quota, claims, what somebody may do.

use coderdb::{
    authz::{LoadActors, ReadQuota, RunJobs},
    replica::{Cluster, boxed},
};

fn with(cluster: &Cluster, quota: &ReadQuota, claims: &RunJobs, actors: &LoadActors) {
    drop(cluster.read(quota, None, |_| boxed(async { Ok(()) })));
    drop(cluster.read(claims, None, |_| boxed(async { Ok(()) })));
    drop(cluster.read(actors, None, |_| boxed(async { Ok(()) })));
}

fn main() {}
