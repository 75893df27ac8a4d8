//! What one node does, event by event.

#[path = "node/any_order.rs"]
mod any_order;
#[path = "node/dialling.rs"]
mod dialling;
#[path = "node/hearing.rs"]
mod hearing;
#[path = "node/rig.rs"]
mod rig;
#[path = "node/telling.rs"]
mod telling;
