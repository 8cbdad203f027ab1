#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ghostunnel_fuzz::keystore_pkcs7(data));
