//! The way to the links, which live on the shards, and back.
//!
//! There: a connection that was dialled, and commands, which wait here while a shard has no room for
//! them. Back: [`super::Reports::on_link`] and [`super::Reports::on_interest`], called on the shards'
//! threads. This file alone knows both discovery and the data plane.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;

use nexusd_core::io::mailbox::CommandSender;
use nexusd_core::{Command, LinkCommand, LinkReport, home_of_node};
use nexusd_discovery::{LinkDown, LinkEvent, LinkRefusal};
use nexusd_wire::NodeId;

/// Commands that wait for room. Beyond that, frames are thrown away: a link that lost some shows a
/// wrong hash, and is asked anew.
const WAITING_MAX: usize = 1_024;

/// The shards, as far as links go.
pub(crate) trait Links: Send + 'static {
    /// Gives a connection to the shard that keeps the peer's link, or any if it is not known who is
    /// there. Fails if the connection is gone already.
    fn dialled(&mut self, socket: TcpStream, dial: u64, peer: Option<NodeId>) -> io::Result<()>;

    /// Gives a command to the shard that keeps the peer's link; hands it back if there is no room.
    fn tell(&mut self, command: LinkCommand) -> Result<(), LinkCommand>;
}

/// The ways to the shards of this node, in order.
#[derive(Debug)]
pub(crate) struct Shards(pub(crate) Vec<CommandSender>);

impl Shards {
    fn home_of(&self, peer: NodeId) -> &CommandSender {
        &self.0[home_of_node(peer, self.0.len()).index()]
    }
}

impl Links for Shards {
    fn dialled(&mut self, socket: TcpStream, dial: u64, peer: Option<NodeId>) -> io::Result<()> {
        let home = peer.map_or(&self.0[0], |peer| self.home_of(peer));
        home.dialled(socket, dial, peer)
    }

    fn tell(&mut self, command: LinkCommand) -> Result<(), LinkCommand> {
        let home = self.home_of(command.peer());
        match home.send(Command::Link(command)) {
            Err(Command::Link(back)) if !home.is_gone() => Err(back),
            // A shard that has ended misses nothing.
            _ => Ok(()),
        }
    }
}

/// What a shard reports of a link, in discovery's words.
pub(crate) fn link_event(report: LinkReport) -> LinkEvent {
    match report {
        LinkReport::Up { peer, start_us, address, app_port, dial } => {
            LinkEvent::Up { peer, start_us, address, app_port, dial }
        }
        LinkReport::Refused { dial, peer, address, reason } => {
            LinkEvent::Refused { dial, peer, address, reason: refusal(reason) }
        }
        LinkReport::Suspected { peer } => LinkEvent::Suspected { peer },
        LinkReport::Trusted { peer } => LinkEvent::Trusted { peer },
        LinkReport::Down { peer, reason } => LinkEvent::Down { peer, reason: down(reason) },
        LinkReport::Violated { peer, reason, pause_us } => {
            LinkEvent::Violated { peer, reason, pause_us }
        }
        LinkReport::TooLarge { peer, bytes } => LinkEvent::TooLarge { peer, bytes },
        LinkReport::Dead { peer } => LinkEvent::Dead { peer },
        LinkReport::Stored { peer, hash } => LinkEvent::Stored { peer, hash },
        LinkReport::StateWanted { peer } => LinkEvent::StateWanted { peer },
        LinkReport::Members { peer, members } => LinkEvent::Members { peer, members },
    }
}

fn refusal(reason: nexusd_core::LinkRefusal) -> LinkRefusal {
    use nexusd_core::LinkRefusal as Told;
    match reason {
        Told::WrongCluster => LinkRefusal::WrongCluster,
        Told::WrongKey => LinkRefusal::WrongKey,
        Told::OwnNode => LinkRefusal::OwnNode,
        Told::Version => LinkRefusal::Version,
        Told::Unexpected => LinkRefusal::Unexpected,
        Told::Superseded => LinkRefusal::Superseded,
        Told::Closed => LinkRefusal::Closed,
    }
}

fn down(reason: nexusd_core::LinkDown) -> LinkDown {
    use nexusd_core::LinkDown as Told;
    match reason {
        Told::Broken => LinkDown::Broken,
        Told::Idle => LinkDown::Idle,
        Told::Ending => LinkDown::Ending,
        Told::Silent => LinkDown::Silent,
        Told::Forgotten => LinkDown::Forgotten,
    }
}

/// Commands on their way, in order.
#[derive(Default, Debug)]
pub(super) struct LinkCommands {
    waiting: VecDeque<LinkCommand>,
}

impl LinkCommands {
    /// Gives a command to its shard, now or once there is room.
    pub(super) fn tell(&mut self, links: &mut impl Links, command: LinkCommand) {
        let is_too_much = self.waiting.len() >= WAITING_MAX;
        if is_too_much && matches!(command, LinkCommand::Send { .. }) {
            return;
        }
        self.waiting.push_back(command);
        self.go_on(links);
    }

    /// Tries again what waits.
    pub(super) fn go_on(&mut self, links: &mut impl Links) {
        while let Some(command) = self.waiting.pop_front() {
            if let Err(back) = links.tell(command) {
                self.waiting.push_front(back);
                return;
            }
        }
    }

    /// Whether something waits: then [`Self::go_on`] is due soon.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many commands as there is room for.
    #[derive(Default)]
    struct Narrow {
        room: usize,
        told: Vec<LinkCommand>,
    }

    impl Links for Narrow {
        fn dialled(&mut self, _: TcpStream, _: u64, _: Option<NodeId>) -> io::Result<()> {
            Ok(())
        }

        fn tell(&mut self, command: LinkCommand) -> Result<(), LinkCommand> {
            if self.told.len() == self.room {
                return Err(command);
            }
            self.told.push(command);
            Ok(())
        }
    }

    fn send(byte: u8) -> LinkCommand {
        LinkCommand::Send { peer: NodeId(1), frames: Box::new([byte]) }
    }

    #[test]
    fn commands_wait_for_room_in_order() {
        let mut links = Narrow { room: 1, ..Narrow::default() };
        let mut commands = LinkCommands::default();
        for command in [send(1), send(2), LinkCommand::Forget { peer: NodeId(1) }] {
            commands.tell(&mut links, command);
        }
        assert_eq!(links.told, [send(1)]);
        assert!(commands.wait());
        links.room = 9;
        commands.go_on(&mut links);
        assert_eq!(links.told, [send(1), send(2), LinkCommand::Forget { peer: NodeId(1) }]);
        assert!(!commands.wait());
    }

    #[test]
    fn a_shard_that_takes_nothing_loses_frames_and_no_ends() {
        let mut links = Narrow::default();
        let mut commands = LinkCommands::default();
        for _ in 0..2 * WAITING_MAX {
            commands.tell(&mut links, send(1));
        }
        commands.tell(&mut links, LinkCommand::Forget { peer: NodeId(1) });
        assert_eq!(commands.waiting.len(), WAITING_MAX + 1);
        links.room = usize::MAX;
        commands.go_on(&mut links);
        assert_eq!(links.told.last(), Some(&LinkCommand::Forget { peer: NodeId(1) }));
    }
}
