//! mesh
#![allow(dead_code)]
mod beacon_sockets;
mod faults;
mod interfaces;
mod multicast;
