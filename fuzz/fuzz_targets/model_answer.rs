#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sandbox_mcp::fuzzing::model_answer(bytes));
