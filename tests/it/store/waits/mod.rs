//! Why jobs wait, how long, who has the queue, and how many daemons it takes.

mod capacity;
mod expected;
mod reasons;
mod shares;
