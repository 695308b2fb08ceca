#![no_main]

#[path = "../properties/auth.rs"]
#[allow(dead_code, reason = "one property of several")]
mod auth;

libfuzzer_sys::fuzz_target!(|data: &[u8]| auth::scram_server(data));
