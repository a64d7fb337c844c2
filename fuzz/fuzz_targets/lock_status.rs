#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vconsole::properties::lock_status(bytes));
