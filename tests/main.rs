//! Tests from outside: real connections, a real server. One file for each promise.

mod bad_input;
mod direct;
mod dump;
mod durability;
mod early;
mod example;
mod expiry;
mod feed;
mod feed_model;
mod foreign_keys;
mod generation;
mod interruptions;
mod isolation;
mod notify;
mod outcome_table;
mod pairs;
mod plans;
mod races;
mod schedule;
mod security;
mod settle;
mod support;
mod surroundings;
mod values;
mod verify;
mod worker;
