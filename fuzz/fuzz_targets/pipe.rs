#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandbox_mcp::fuzzing::pipe(bytes));
