//! What holds for the whole project: names, costs, bad input, what the README shows.

mod bad_input;
mod compile_fail;
mod deploy;
mod glossary;
mod house_rules;
mod queries;
mod readme;
mod round_trips;
mod secrets;
mod service;
