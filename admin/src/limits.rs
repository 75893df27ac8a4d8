//! The bounds of what operators can ask, by name.

use std::time::Duration;

/// Connections to one HTTP port at a time; further ones wait in the kernel's queue.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// Connections of one source to one HTTP port; further ones are closed.
pub const HTTP_CONNECTIONS_PER_SOURCE_MAX: usize = HTTP_CONNECTIONS_MAX / 4;
/// Bytes of the head of a request.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of the body of a request.
pub const HTTP_BODY_BYTES_MAX: usize = 64 << 10;
/// Time for the head of a request.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the body of a request, and for the answer to be made.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until a connection takes no more requests, …
pub const HTTP_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// … and for the answer that is under way then to be made and taken.
pub const HTTP_LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Answers of at least so many bytes are counted until they are taken, …
pub const LARGE_ANSWER_BYTES: u64 = 64 << 10;
/// … and have this much room, all together; one without room is not given.
pub const LARGE_ANSWERS_BYTES_MAX: usize = 64 << 20;
/// Time until a connection is accepted again where the process has no more descriptors.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Entries of a list where nobody says how many.
pub const ENTRIES_DEFAULT: u32 = 1_000;
/// Entries of a list.
pub const ENTRIES_MAX: u32 = 10_000;

/// Time for another node to say what it sees of the mesh.
pub const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time after which no further node is asked.
pub const TOPOLOGY_TIMEOUT_IN_ALL: Duration = Duration::from_secs(6);
/// Nodes that are asked at a time.
pub const TOPOLOGY_ASKED_AT_A_TIME: usize = 64;
/// Bytes of what all nodes together say; those beyond it are named without their peers.
pub const TOPOLOGY_BYTES_MAX: usize = 16 << 20;
/// Bytes of what one node says.
pub const TOPOLOGY_NODE_BYTES_MAX: usize = 2 << 20;
