//! The client against a daemon that follows a script: real sockets, every byte decided by the test.

mod acknowledging;
mod coming_back;
mod connecting;
mod daemon;
mod pausing;
mod publishing;
mod reconnecting;
mod slow_application;
mod subscribing;
