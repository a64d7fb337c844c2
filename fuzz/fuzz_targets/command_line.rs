#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vconsole::properties::command_line(bytes));
