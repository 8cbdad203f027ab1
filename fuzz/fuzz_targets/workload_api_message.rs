#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ghostunnel_fuzz::workload_api_message(data));
