//! The client against a daemon that follows a script: real sockets, every byte decided by the test.

mod connecting;
mod daemon;
mod publishing;
mod reconnecting;
mod slow_application;
mod subscribing;
