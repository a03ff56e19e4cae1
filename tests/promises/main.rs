//! The promises of the product, one file each, kept by the real binary, engine and agent against a
//! scripted model. One binary for all, because linking one for each takes longer than running them.

mod common;

mod another_kernel;
mod assembles_the_answer;
mod belongs_to_the_machine;
mod build_is_idempotent;
mod cancel_removes_the_container;
mod cli;
mod compose_parity;
mod config_command;
mod conformance;
mod doctor;
mod edits_files;
mod egress_end_to_end;
mod files_belong_to_the_user;
mod goes_on;
mod guards_the_workspace;
mod hostile_task_text;
mod http_door;
mod http_lives;
mod http_protocol;
mod isolated;
mod keeps_the_key_out;
mod leftovers_are_seen;
mod many_at_once;
mod model_faults;
mod open_webui;
mod openings;
mod outcome;
mod output_flood;
mod policy_holds;
mod project_tools;
mod read_only_refuses_writes;
mod real_clients;
mod rehearsal;
mod resources;
mod runs;
mod sessions;
mod stdio_protocol;
mod streams_events_before_the_end;
mod survives_kill_nine;
mod takes_a_one_mebibyte_task;
mod times_out;
mod two_at_once;
mod verifies;
