//! The program, as people and scripts run it.

mod bad_night;
mod list;
mod migrate;
mod mistakes;
mod operator;
mod show;
mod story;
mod terminal;
mod waits;
