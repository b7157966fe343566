//! infra/kubernetes: what is applied to a cluster once.
