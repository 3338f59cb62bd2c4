//! Any bytes as a message from a client: no panic, and agreement with hickory-proto.

#![no_main]

use holdfast_fuzz::oracle::check_query;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_query(bytes));
