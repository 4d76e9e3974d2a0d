//! Tests of the cache: the scripts, readers, the worker as a process, and everything that may break
//! around it.

mod check;
mod containers;
mod disasters;
mod endings;
mod failover;
mod follow;
mod full;
mod network;
mod prefixes;
mod readers;
mod readme;
mod scripts;
mod support;
mod tls;
