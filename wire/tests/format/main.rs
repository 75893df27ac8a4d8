//! The wire format, proven from outside: golden byte vectors, round trips of every frame kind,
//! cutting under every chunking, damaged bytes, beacons, and the rules for names.

mod beacons;
mod bodies;
mod cutter;
mod golden;
mod names;
mod round_trip;
mod sample;
mod schema;
