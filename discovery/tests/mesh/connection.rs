//! A connection between two daemons, once it is a link, as the network knows it.

use nexusd_discovery::NodeId;

/// The two hosts of a link: the lesser number first.
pub(crate) type Pair = (usize, usize);

pub(crate) struct Connection {
    /// Tells the connections of a pair apart.
    pub(crate) id: u64,
    /// Which host dialled.
    pub(crate) dialler: usize,
    pub(crate) ends: [End; 2],
}

/// One end: of the first host of the pair, or the second.
pub(crate) struct End {
    pub(crate) host: usize,
    /// The daemon there, and which start of it.
    pub(crate) node: NodeId,
    pub(crate) start: u32,
    /// It has not closed, and was not told that the other one did.
    pub(crate) is_open: bool,
    pub(crate) is_suspecting: bool,
    /// Since when nothing can arrive here.
    pub(crate) silent_since_us: Option<u64>,
    /// When the last frames arrive that are on their way here.
    pub(crate) last_arrival_us: u64,
    /// Frames that cannot arrive now.
    pub(crate) stalled: Vec<Vec<u8>>,
}

impl Connection {
    pub(crate) fn between(one: usize, other: usize) -> Pair {
        (one.min(other), one.max(other))
    }

    pub(crate) fn end(&mut self, host: usize) -> &mut End {
        let at = usize::from(self.ends[0].host != host);
        &mut self.ends[at]
    }

    pub(crate) fn other(&self, host: usize) -> usize {
        if self.ends[0].host == host { self.ends[1].host } else { self.ends[0].host }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.ends.iter().all(|end| end.is_open)
    }
}

impl End {
    pub(crate) fn new(host: usize, node: NodeId, start: u32) -> Self {
        Self {
            host,
            node,
            start,
            is_open: true,
            is_suspecting: false,
            silent_since_us: None,
            last_arrival_us: 0,
            stalled: Vec::new(),
        }
    }
}
