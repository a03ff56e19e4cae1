#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandbox_mcp::fuzzing::agent_line(bytes));
