//! Any response written from choices: hickory-proto reads what was meant, within the limit.

#![no_main]

use holdfast_fuzz::oracle::{Choices, check_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check_response(&mut Choices::new(bytes)));
