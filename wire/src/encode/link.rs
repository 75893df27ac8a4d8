//! Writing the frames that only nodes say to each other.

use std::net::SocketAddr;

use super::FrameEncoder;
use crate::control::{self, Farewell, Role};
use crate::header::{FrameKind, Header, PROTOCOL_MAJOR, PROTOCOL_MINOR};
use crate::ids::{NodeId, Sequence, SubscriptionId};

/// Buckets that nodes compare their retained values by.
pub const RETAINED_BUCKETS: usize = 1_024;

/// Who a node is, as it says so at the start of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Introduction<'a> {
    /// The node.
    pub node: NodeId,
    /// When it started, microseconds since 1970 by its clock.
    pub start_us: u64,
    /// Its cluster.
    pub cluster: &'a str,
    /// IP address where other nodes reach it; `None`: where the connection comes from.
    pub mesh_address: Option<&'a str>,
    /// TCP port for links.
    pub mesh_port: u16,
    /// TCP port for applications.
    pub app_port: u16,
    /// Random bytes for the other side to sign; `None` where the cluster has no key.
    pub challenge: Option<&'a [u8]>,
    /// The other side's challenge, signed.
    pub proof: Option<&'a [u8]>,
}

/// A node that another one knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// When it started, microseconds since 1970 by its clock.
    pub start_us: u64,
    /// Where it takes links.
    pub mesh_address: SocketAddr,
    /// Its TCP port for applications.
    pub app_port: u16,
}

/// One part of what a node wants of others.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeStatePart<'a> {
    /// Name of the whole: its CRC-64/WE, or a number that no other set has; 0: it is empty.
    pub hash: u64,
    /// Its number, from 0.
    pub part: u32,
    /// Whether it is the last one.
    pub is_last: bool,
    /// Filters of this part.
    pub filters: &'a [&'a str],
    /// Nodes that the sender knows.
    pub members: &'a [Member],
}

/// What a node wants from now on, and no longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterestChange<'a> {
    /// Name of the set that is changed.
    pub before: u64,
    /// Name of the set that comes of it.
    pub hash: u64,
    /// Filters that are new.
    pub added: &'a [&'a str],
    /// Filters that are gone.
    pub removed: &'a [&'a str],
}

impl FrameEncoder {
    /// Appends the Hello of a node that dialled.
    pub fn node_hello(
        &mut self,
        out: &mut Vec<u8>,
        software: &str,
        introduction: &Introduction<'_>,
    ) {
        let introduction = Some(self.introduction(introduction));
        let b = &mut self.builder;
        let software = Some(b.create_string(software));
        let args = control::HelloArgs {
            major: PROTOCOL_MAJOR,
            minor: PROTOCOL_MINOR,
            role: Role::Node,
            software,
            introduction,
            ..Default::default()
        };
        let root = control::Hello::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Hello, 0, 0));
    }

    /// Appends the Welcome that answers a node's Hello.
    pub fn node_welcome(
        &mut self,
        out: &mut Vec<u8>,
        minor: u8,
        software: &str,
        introduction: &Introduction<'_>,
    ) {
        let node = control::NodeId::from(introduction.node);
        let introduction = Some(self.introduction(introduction));
        let b = &mut self.builder;
        let args = control::WelcomeArgs {
            major: PROTOCOL_MAJOR,
            minor,
            node: Some(&node),
            software: Some(b.create_string(software)),
            introduction,
            ..Default::default()
        };
        let root = control::Welcome::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Welcome, 0, 0));
    }

    fn introduction(
        &mut self,
        from: &Introduction<'_>,
    ) -> flatbuffers::WIPOffset<control::Introduction<'static>> {
        let b = &mut self.builder;
        let node = control::NodeId::from(from.node);
        let args = control::IntroductionArgs {
            node: Some(&node),
            start_us: from.start_us,
            cluster: Some(b.create_string(from.cluster)),
            mesh_address: from.mesh_address.map(|address| b.create_string(address)),
            mesh_port: from.mesh_port,
            app_port: from.app_port,
            challenge: from.challenge.map(|bytes| b.create_vector(bytes)),
            proof: from.proof.map(|bytes| b.create_vector(bytes)),
        };
        control::Introduction::create(b, &args)
    }

    /// Appends the Goodbye that ends a link.
    pub fn farewell(&mut self, out: &mut Vec<u8>, reason: &str, farewell: Farewell) {
        let b = &mut self.builder;
        let reason = Some(b.create_string(reason));
        let args = control::GoodbyeArgs { reason, farewell, ..Default::default() };
        let root = control::Goodbye::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::Goodbye, 0, 0));
    }

    /// Appends a NodeState.
    pub fn node_state(&mut self, out: &mut Vec<u8>, state: &NodeStatePart<'_>) {
        let b = &mut self.builder;
        let filters: Vec<_> = state.filters.iter().map(|filter| b.create_string(filter)).collect();
        let members: Vec<_> = state
            .members
            .iter()
            .map(|member| {
                let node = control::NodeId::from(member.node);
                let args = control::MemberArgs {
                    node: Some(&node),
                    start_us: member.start_us,
                    mesh_address: Some(b.create_string(&member.mesh_address.to_string())),
                    app_port: member.app_port,
                };
                control::Member::create(b, &args)
            })
            .collect();
        let args = control::NodeStateArgs {
            hash: state.hash,
            part: state.part,
            is_last: state.is_last,
            filters: (!filters.is_empty()).then(|| b.create_vector(&filters)),
            members: (!members.is_empty()).then(|| b.create_vector(&members)),
        };
        let root = control::NodeState::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::NodeState, 0, 0));
    }

    /// Appends the frame that asks for a NodeState.
    pub fn node_state_request(out: &mut Vec<u8>) {
        Self::bare(out, &Header::new(FrameKind::NodeStateRequest, 0, 0));
    }

    /// Appends an InterestDelta.
    pub fn interest_delta(&mut self, out: &mut Vec<u8>, change: &InterestChange<'_>) {
        let b = &mut self.builder;
        let mut list = |filters: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|filter| b.create_string(filter)).collect();
            (!filters.is_empty()).then(|| b.create_vector(&filters))
        };
        let (added, removed) = (list(change.added), list(change.removed));
        let args =
            control::InterestDeltaArgs { before: change.before, hash: change.hash, added, removed };
        let root = control::InterestDelta::create(&mut self.builder, &args);
        self.builder.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::InterestDelta, 0, 0));
    }

    /// Appends a RetainedDigest: a sum of each bucket. One that is no answer is answered with the receiver's.
    pub fn retained_digest(
        &mut self,
        out: &mut Vec<u8>,
        buckets: &[u64; RETAINED_BUCKETS],
        is_answer: bool,
    ) {
        let b = &mut self.builder;
        let buckets = Some(b.create_vector(buckets));
        let root =
            control::RetainedDigest::create(b, &control::RetainedDigestArgs { buckets, is_answer });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::RetainedDigest, 0, 0));
    }

    /// Appends a RetainedFetch: a bit for each bucket that is asked for.
    pub fn retained_fetch(&mut self, out: &mut Vec<u8>, buckets: &[u64; RETAINED_BUCKETS / 64]) {
        let b = &mut self.builder;
        let buckets = Some(b.create_vector(buckets));
        let root = control::RetainedFetch::create(b, &control::RetainedFetchArgs { buckets });
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::RetainedFetch, 0, 0));
    }

    /// Appends a ReplayRequest: for what came behind `after`, or for all (`None`).
    pub fn replay_request(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        topic: &str,
        after: Option<Sequence>,
    ) {
        let b = &mut self.builder;
        let topic = Some(b.create_string(topic));
        let after = after.map(|after| after.0);
        let args = control::ReplayRequestArgs { request, topic, after };
        let root = control::ReplayRequest::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::ReplayRequest, 0, 0));
    }

    /// Appends an InterestRequest.
    pub fn interest_request<'a>(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        filters: impl Iterator<Item = &'a str>,
    ) {
        let b = &mut self.builder;
        let filters: Vec<_> = filters.map(|filter| b.create_string(filter)).collect();
        let filters = Some(b.create_vector(&filters));
        let args = control::InterestRequestArgs { request, filters };
        let root = control::InterestRequest::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::InterestRequest, 0, 0));
    }

    /// Appends a ReplayAnswer: the beginning of an answer, or its end. `is_partial`: more was asked for than is
    /// held.
    pub fn replay_answer(
        &mut self,
        out: &mut Vec<u8>,
        request: u64,
        is_end: bool,
        is_partial: bool,
    ) {
        let b = &mut self.builder;
        let args = control::ReplayAnswerArgs { request, is_end, is_partial };
        let root = control::ReplayAnswer::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::ReplayAnswer, 0, 0));
    }

    /// Appends a LinkAck: how many messages of the receiver's `stream` the sender has had.
    pub fn link_ack(
        &mut self,
        out: &mut Vec<u8>,
        stream: Option<SubscriptionId>,
        received: u64,
        proof: Option<&[u8]>,
    ) {
        let b = &mut self.builder;
        let stream = stream.map(control::SubscriptionId::from);
        let proof = proof.map(|bytes| b.create_vector(bytes));
        let args = control::LinkAckArgs { stream: stream.as_ref(), received, proof };
        let root = control::LinkAck::create(b, &args);
        b.finish_minimal(root);
        self.finish(out, Header::new(FrameKind::LinkAck, 0, 0));
    }
}
